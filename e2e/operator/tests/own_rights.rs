//! The bounds of the operator's account: roles let it write several kinds of objects in every namespace, and
//! admission policies bound that to objects of RqliteClusters. A real API server, impersonated accounts.
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e_kubernetes::command::until;
use e2e_operator::{
    api_server::ApiServer,
    generated,
    objects::Objects,
    operator_fixture::{self, ACCOUNT},
};
use serde_json::{Value, json};

/// Limit for a new policy to take effect.
const LIMIT: Duration = Duration::from_secs(60);

fn map(name: &str, owner: Option<&Value>) -> Value {
    let owners = owner.map(|uid| {
        json!([{"apiVersion": "rqlite.dev/v1alpha1", "kind": "RqliteCluster", "name": "demo", "uid": uid, "controller": true}])
    });
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name,
        "labels": {"rqlite.dev/cluster": "demo"}, "ownerReferences": owners.unwrap_or(json!([]))}})
}

fn secret(name: &str, kind: &str, owner: Option<&Value>) -> Value {
    let mut secret = map(name, owner);
    secret["kind"] = "Secret".into();
    secret["type"] = kind.into();
    secret
}

/// Secrets by name only, and only the clusters' own.
fn only_secrets_of_clusters(server: &Objects, account: &Account<'_>, uid: &Value) -> Result<()> {
    let own = secret("demo-app", "servicebinding.io/rqlite", Some(uid));
    account.create(&own)?;
    account.run(&["get", "secret", "demo-app"])?;
    account.run(&["delete", "secret", "demo-app"])?;
    for (name, kind, owner, what) in [
        ("demo-app", "Opaque", None, "a Secret of nobody"),
        ("other", "Opaque", Some(uid), "a Secret of another name"),
        (
            "demo-token",
            "example.com/token",
            Some(uid),
            "a Secret of another type",
        ),
    ] {
        refused(account.create(&secret(name, kind, owner)), what)?;
    }
    server.send(
        &["create", "-n", "default"],
        &secret("users", "Opaque", None),
    )?;
    refused(
        account.run(&["label", "secret", "users", "a=b"]),
        "a user's Secret",
    )?;
    refused(
        account.run(&["delete", "secret", "users"]),
        "deleting a user's Secret",
    )?;
    let listed = account.run(&["get", "secrets"]);
    ensure!(listed.is_err(), "the operator's account lists Secrets");
    Ok(())
}

/// Whether the request was refused by the policy, not for lack of a role.
fn refused(result: Result<impl Sized>, what: &str) -> Result<()> {
    let Some(error) = result.err() else {
        anyhow::bail!("{what} was accepted");
    };
    let text = format!("{error:#}");
    ensure!(text.contains("ValidatingAdmissionPolicy"), "{what}: {text}");
    Ok(())
}

/// Requests of this account.
struct Account<'a> {
    server: &'a Objects,
    user: String,
}

impl Account<'_> {
    fn run(&self, args: &[&str]) -> Result<String> {
        let user = self.user.as_str();
        self.server.run(&[&[user, "-n", "default"], args].concat())
    }

    fn create(&self, object: &Value) -> Result<Value> {
        self.server
            .send(&["create", &self.user, "-n", "default"], object)
    }
}

#[expect(clippy::too_many_lines, reason = "a table of requests")]
fn only_objects_of_clusters(server: &Objects) -> Result<()> {
    let cluster = json!({"apiVersion": "rqlite.dev/v1alpha1", "kind": "RqliteCluster", "metadata": {"name": "demo"}, "spec": {}});
    let uid = server.send(&["create", "-n", "default"], &cluster)?["metadata"]["uid"].clone();
    let account = Account {
        server,
        user: format!(
            "--as=system:serviceaccount:{}:{ACCOUNT}",
            generated::NAMESPACE
        ),
    };
    until("the policies to take effect", LIMIT, || {
        refused(account.create(&map("probe", None)), "a ConfigMap of nobody").inspect_err(|_| {
            drop(server.run(&["delete", "configmap", "probe", "--ignore-not-found"]))
        })
    })?;
    // Its own.
    account.create(&map("own", Some(&uid)))?;
    let label = ["label", "configmap", "own", "a=b"];
    account.run(&label)?;
    account.run(&["delete", "configmap", "own"])?;
    // A user's, whatever its labels are.
    server.send(&["create", "-n", "default"], &map("user", None))?;
    server.run(&["create", "-n", "default", "serviceaccount", "user"])?;
    refused(
        account.run(&["label", "configmap", "user", "a=b"]),
        "a label",
    )?;
    refused(account.run(&["delete", "configmap", "user"]), "a deletion")?;
    let owner = map("user", Some(&uid))["metadata"]["ownerReferences"].clone();
    let own = json!({"metadata": {"ownerReferences": owner}}).to_string();
    let take = ["patch", "configmap", "user", "--type=merge", "-p", &own];
    refused(account.run(&take), "taking it over")?;
    refused(
        account.run(&["label", "serviceaccount", "user", "a=b"]),
        "a user's account",
    )?;
    // Offered by a person: to this cluster only.
    let offer = |to: &str| {
        let to = format!("rqlite.dev/adopt-into={to}");
        server.run(&[
            "annotate",
            "-n",
            "default",
            "configmap",
            "user",
            "--overwrite",
            &to,
        ])
    };
    offer("other")?;
    refused(account.run(&take), "what is offered to another cluster")?;
    offer("demo")?;
    account.run(&take)?;
    // Its own objects do not become nobody's.
    let orphan = [
        "patch",
        "configmap",
        "user",
        "--type=merge",
        "-p",
        r#"{"metadata":{"ownerReferences":null}}"#,
    ];
    refused(account.run(&orphan), "giving it up")?;
    only_secrets_of_clusters(server, &account, &uid)?;
    // Claims and pods by their label.
    for (name, labels, own) in [
        ("user", json!({}), false),
        ("data-demo-0", json!({"rqlite.dev/cluster": "demo"}), true),
    ] {
        let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "labels": labels},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
        server.send(&["create", "-n", "default"], &claim)?;
        let deleted = account.run(&["delete", "pvc", name, "--wait=false"]);
        if own {
            deleted?;
        } else {
            refused(deleted, "a user's claim")?;
        }
    }
    // Other accounts are not affected.
    server
        .run(&["label", "-n", "default", "configmap", "user", "c=d"])
        .map(drop)
}

#[test]
fn the_operator_may_write_objects_of_clusters_only() -> Result<()> {
    let Some(api) = ApiServer::start()? else {
        return ApiServer::skip();
    };
    let server = api.objects()?;
    operator_fixture::install(&server)?;
    only_objects_of_clusters(&server)
}
