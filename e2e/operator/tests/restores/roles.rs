//! Who may create an RqliteRestore: the role of recoveries, not that of editors.
use anyhow::{Context, Result, ensure};
use e2e_operator::{
    fleet::NAMESPACE,
    simulated::{Simulated, refused},
};
use serde_json::json;

use crate::spec;

fn create(place: &Simulated, user: &str, name: &str) -> Result<serde_json::Value> {
    let object = json!({"apiVersion": "rqlite.dev/v1alpha1", "kind": "RqliteRestore", "metadata": {"name": name},
        "spec": spec(&json!({"dryRun": true}))});
    let server = &place.fixture.server;
    server.send(&["create", "-n", NAMESPACE, user], &object)
}

pub(crate) fn run(place: &Simulated) -> Result<()> {
    for (name, role, user) in [
        ("editor", "rqlite-operator-edit", "editor"),
        ("rescuer", "rqlite-operator-edit", "rescuer"),
        ("rescue", "rqlite-operator-recover", "rescuer"),
        ("viewer", "rqlite-operator-view", "viewer"),
    ] {
        let (role, user) = (format!("--clusterrole={role}"), format!("--user={user}"));
        place.run(&["create", "rolebinding", name, &role, &user])?;
    }
    for user in ["--as=editor", "--as=viewer"] {
        refused(
            create(place, user, "not-mine"),
            &["forbidden", "rqliterestores"],
        )?;
        let edit = [
            "patch",
            "rqliterestore",
            "look",
            user,
            "--subresource=status",
            "--type=merge",
            "-p",
            "{\"status\":{}}",
        ];
        refused(place.run(&edit), &["forbidden"])?;
        refused(
            place.run(&["delete", "rqliterestore", "look", user]),
            &["forbidden"],
        )?;
        let seen = place.run(&["get", "rqliterestores", user])?;
        ensure!(seen.contains("look"), "{seen}");
    }
    create(place, "--as=rescuer", "mine").context("with the role")?;
    place.await_phase("rqliterestore", "mine", "Succeeded", &["dry run"])?;
    place.run(&["delete", "rqliterestore", "mine", "--as=rescuer"])?;
    // Backups are an editor's matter.
    let backup = json!({"apiVersion": "rqlite.dev/v1alpha1", "kind": "RqliteBackup", "metadata": {"name": "mine"},
        "spec": {"clusterRef": {"name": "bare"}}});
    let server = &place.fixture.server;
    server.send(&["create", "-n", NAMESPACE, "--as=editor"], &backup)?;
    refused(
        server.send(&["create", "-n", NAMESPACE, "--as=viewer"], &backup),
        &["forbidden"],
    )
    .map(drop)
}
