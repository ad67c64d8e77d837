//! What the chart's admission policies refuse, decided by a real API server for users with real roles.
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::command::until;
use e2e_operator::{api_server::ApiServer, objects::Objects, operator_fixture::install};
use serde_json::{Value, json};

/// The API server compiles a new policy within seconds.
const LIMIT: Duration = Duration::from_secs(60);
const EDITOR: &str = "--as=editor";
const RESCUER: &str = "--as=rescuer";
const PODDER: &str = "--as=podder";

fn cluster(name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": "rqlite.dev/v1alpha1", "kind": "RqliteCluster", "metadata": { "name": name }, "spec": spec })
}

/// The output of a command that has to be refused.
fn refused(result: Result<impl ToString>, parts: &[&str]) -> Result<()> {
    let said = match result {
        Ok(said) => anyhow::bail!("accepted: {}", said.to_string()),
        Err(error) => format!("{error:#}"),
    };
    for part in parts {
        ensure!(said.contains(part), "{part:?} is not in {said:?}");
    }
    Ok(())
}

/// An editor of clusters, one who may also create recoveries, and one who may also create pods.
fn people(server: &Objects) -> Result<()> {
    for (name, role, user) in [
        ("editor", "rqlite-operator-edit", "editor"),
        ("rescuer", "rqlite-operator-edit", "rescuer"),
        ("rescue", "rqlite-operator-recover", "rescuer"),
        ("podder", "rqlite-operator-edit", "podder"),
    ] {
        let (role, user) = (format!("--clusterrole={role}"), format!("--user={user}"));
        server.run(&["create", "rolebinding", name, &role, &user])?;
    }
    // As Kubernetes' own role `edit` does.
    let role = ["create", "role", "pods", "--verb=create", "--resource=pods"];
    server.run(&role)?;
    let bound = ["create", "rolebinding", "pods", "--role=pods"];
    server
        .run(&[&bound[..], &["--user=podder"]].concat())
        .map(drop)
}

fn patch(server: &Objects, user: &str, name: &str, change: &Value) -> Result<String> {
    let change = change.to_string();
    server.run(&[
        "patch",
        "rqlitecluster",
        name,
        "--type=merge",
        "-p",
        &change,
        user,
    ])
}

/// Waits until the policies are in force: the API server compiles them after it has answered.
fn in_force(server: &Objects) -> Result<()> {
    let consenting = json!({ "quorumRecovery": { "policy": "Automatic", "acceptDataLoss": true } });
    until("the consent policy to be in force", LIMIT, || {
        let made = server.send(
            &["create", "--dry-run=server", EDITOR],
            &cluster("probe", &consenting),
        );
        refused(made, &["denied request"])
    })?;
    server.send(
        &["create"],
        &cluster("probe", &json!({ "deletionProtection": true })),
    )?;
    until("the protection policy to be in force", LIMIT, || {
        refused(
            server.run(&["delete", "--dry-run=server", "rqlitecluster", "probe"]),
            &["deletionProtection"],
        )
    })?;
    patch(
        server,
        EDITOR,
        "probe",
        &json!({ "spec": { "deletionProtection": false } }),
    )?;
    server.run(&["delete", "rqlitecluster", "probe"]).map(drop)
}

/// Consent to data loss, in whatever way it is given, needs the role of recoveries.
#[expect(clippy::too_many_lines, reason = "a table of requests")]
fn consent(server: &Objects) -> Result<()> {
    let need = [
        "create rqliterecoveries.rqlite.dev in namespace default",
        "rqlite-operator-recover",
    ];
    let automatic = json!({ "policy": "Automatic", "acceptDataLoss": true });
    let consenting = json!({ "quorumRecovery": automatic });
    refused(
        server.send(&["create", EDITOR], &cluster("shop", &consenting)),
        &need,
    )?;
    server.send(
        &["create", EDITOR],
        &cluster(
            "shop",
            &json!({ "quorumRecovery": { "policy": "Automatic" } }),
        ),
    )?;
    let set = json!({ "spec": consenting });
    refused(patch(server, EDITOR, "shop", &set), &need)?;
    refused(
        server.send(
            &["apply", "--server-side", "--force-conflicts", EDITOR],
            &cluster("shop", &consenting),
        ),
        &need,
    )?;
    patch(server, RESCUER, "shop", &set).context("with the role")?;
    // What was consented to is no obstacle for other changes, but it is not extended either.
    patch(
        server,
        EDITOR,
        "shop",
        &json!({ "spec": { "replicas": 5 }, "metadata": { "labels": { "a": "b" } } }),
    )?;
    let sooner = json!({ "spec": { "quorumRecovery": { "automaticAfter": "6m" } } });
    refused(patch(server, EDITOR, "shop", &sooner), &need)?;
    patch(
        server,
        EDITOR,
        "shop",
        &json!({ "spec": { "quorumRecovery": null } }),
    )
    .context("consent withdrawn")?;
    refused(patch(server, EDITOR, "shop", &set), &need)?;
    let lineage = |value: &Value| json!({ "metadata": { "annotations": { "rqlite.dev/accept-lineage": value } } });
    let named = [need[0], need[1], "rqlite.dev/accept-lineage"];
    refused(
        patch(server, EDITOR, "shop", &lineage(&json!("a/1"))),
        &named,
    )?;
    patch(server, RESCUER, "shop", &lineage(&json!("a/1"))).context("with the role")?;
    patch(
        server,
        EDITOR,
        "shop",
        &json!({ "spec": { "replicas": 3 } }),
    )
    .context("the annotation stays")?;
    refused(
        patch(server, EDITOR, "shop", &lineage(&json!("b/2"))),
        &named,
    )?;
    patch(server, EDITOR, "shop", &lineage(&Value::Null)).context("the annotation is removed")?;
    // A role elsewhere is none here.
    server.run(&["create", "namespace", "elsewhere"])?;
    server.run(&[
        "create",
        "rolebinding",
        "editor",
        "-n",
        "elsewhere",
        "--clusterrole=rqlite-operator-edit",
        "--user=rescuer",
    ])?;
    let elsewhere = server.send(
        &["create", "-n", "elsewhere", RESCUER],
        &cluster("shop", &consenting),
    );
    refused(elsewhere, &["in namespace elsewhere"])?;
    server
        .run(&["delete", "rqlitecluster", "shop", EDITOR])
        .map(drop)
}

/// What lets a cluster's pods mount or run anything needs the right to create pods.
fn pod_rights(server: &Objects) -> Result<()> {
    let powers = [
        (
            "pods.volumes",
            json!({"pods": {"volumes": [{"name": "v", "secret": {"secretName": "theirs"}}]}}),
        ),
        (
            "pods.sidecars",
            json!({"pods": {"sidecars": [{"name": "s", "image": "i"}]}}),
        ),
        (
            "pods.initContainers",
            json!({"pods": {"initContainers": [{"name": "s", "image": "i"}]}}),
        ),
        (
            "pods.envFrom",
            json!({"pods": {"envFrom": [{"secretRef": {"name": "theirs"}}]}}),
        ),
        (
            "config.extraEnv",
            json!({"config": {"extraEnv": [{"name": "X",
                "valueFrom": {"secretKeyRef": {"name": "theirs", "key": "k"}}}]}}),
        ),
        ("serviceAccountName", json!({"serviceAccountName": "admin"})),
    ];
    let need = "create pods in namespace default";
    let harmless = json!({"pods": {"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}]},
        "config": {"extraEnv": [{"name": "A", "value": "b"}]}});
    until("the policy of pods to be in force", LIMIT, || {
        let probe = cluster("probe", &powers[5].1);
        let made = server.send(&["create", "--dry-run=server", EDITOR], &probe);
        refused(made, &[need])
    })?;
    server.send(&["create", EDITOR], &cluster("pods", &harmless))?;
    for (field, power) in &powers {
        let says = [need, *field];
        let made = server.send(&["create", EDITOR], &cluster("other", power));
        refused(made, &says).context(*field)?;
        let set = json!({ "spec": power });
        refused(patch(server, EDITOR, "pods", &set), &says).context(*field)?;
        patch(server, PODDER, "pods", &set).context(*field)?;
        // What is there stays, whoever edits the rest, and may be taken away.
        let rest = json!({"spec": {"replicas": 5}, "metadata": {"labels": {"a": "b"}}});
        patch(server, EDITOR, "pods", &rest).context(*field)?;
        patch(server, EDITOR, "pods", &json!({"spec": {"replicas": 3}}))?;
        let nothing = json!({"spec": {"pods": null, "config": null, "serviceAccountName": null}});
        patch(server, EDITOR, "pods", &nothing).context(*field)?;
        refused(patch(server, EDITOR, "pods", &set), &says).context(*field)?;
    }
    // One more, or another one, is new.
    let volume = |secret: &str| json!({"name": secret, "secret": {"secretName": secret}});
    let set = |names: &[&str]| {
        let volumes: Vec<_> = names.iter().map(|name| volume(name)).collect();
        json!({"spec": {"pods": {"volumes": volumes}}})
    };
    patch(server, PODDER, "pods", &set(&["a", "b"]))?;
    refused(patch(server, EDITOR, "pods", &set(&["a", "c"])), &[need])?;
    refused(
        patch(server, EDITOR, "pods", &set(&["a", "b", "c"])),
        &[need],
    )?;
    patch(server, EDITOR, "pods", &set(&["b"])).context("fewer")?;
    server
        .run(&["delete", "rqlitecluster", "pods", EDITOR])
        .map(drop)
}

/// A protected cluster is deleted by nobody and with nothing.
#[expect(clippy::too_many_lines, reason = "one story, step by step")]
fn protection(server: &Objects) -> Result<()> {
    let says = [
        "spec.deletionProtection: true",
        "kubectl patch rqlitecluster safe -n vault",
    ];
    server.run(&["create", "namespace", "vault"])?;
    let args = ["create", "-n", "vault"];
    server.send(
        &args,
        &cluster("safe", &json!({ "deletionProtection": true })),
    )?;
    server.send(&args, &cluster("plain", &json!({})))?;
    let uid = |name: &str| -> Result<Value> {
        let found = server.get(&["rqlitecluster", name, "-n", "vault"])?;
        ensure!(
            found["metadata"]["deletionTimestamp"].is_null(),
            "{name} is being deleted"
        );
        Ok(found["metadata"]["uid"].clone())
    };
    let before = uid("safe")?;
    for cascade in ["background", "foreground", "orphan"] {
        let cascade = format!("--cascade={cascade}");
        let delete = server.run(&[
            "delete",
            "rqlitecluster",
            "safe",
            "-n",
            "vault",
            "--wait=false",
            &cascade,
        ]);
        refused(delete, &says).context(cascade)?;
    }
    refused(
        server.run(&[
            "delete",
            "rqlitecluster",
            "--all",
            "-n",
            "vault",
            "--wait=false",
        ]),
        &says,
    )?;
    let collection = "/apis/rqlite.dev/v1alpha1/namespaces/vault/rqliteclusters";
    refused(server.run(&["delete", "--raw", collection]), &says)?;
    until("the namespace to be protected", LIMIT, || {
        refused(
            server.run(&["delete", "namespace", "vault", "--dry-run=server"]),
            &says,
        )
    })?;
    refused(
        server.run(&["delete", "namespace", "vault", "--wait=false"]),
        &["namespace vault holds RqliteCluster safe"],
    )?;
    ensure!(uid("safe")? == before, "it is another one");
    // Set at the last moment.
    for round in 0..10 {
        let name = format!("late-{round}");
        server.send(&args, &cluster(&name, &json!({})))?;
        let on = r#"{"spec":{"deletionProtection":true}}"#;
        server.run(&[
            "patch",
            "rqlitecluster",
            &name,
            "-n",
            "vault",
            "--type=merge",
            "-p",
            on,
        ])?;
        let delete = server.run(&[
            "delete",
            "rqlitecluster",
            &name,
            "-n",
            "vault",
            "--wait=false",
        ]);
        refused(delete, &["spec.deletionProtection: true"])?;
        uid(&name)?;
    }
    // The command of the message, then everything can go.
    let off = r#"{"spec":{"deletionProtection":false}}"#;
    let all = server.get(&["rqlitecluster", "-n", "vault"])?;
    for one in all["items"].as_array().into_iter().flatten() {
        let name = one["metadata"]["name"].as_str().unwrap_or_default();
        server.run(&[
            "patch",
            "rqlitecluster",
            name,
            "-n",
            "vault",
            "--type=merge",
            "-p",
            off,
        ])?;
    }
    server.run(&["delete", "rqlitecluster", "safe", "-n", "vault"])?;
    until("the namespace to be deleted", LIMIT, || {
        server.run(&["delete", "namespace", "vault", "--wait=false"])
    })
    .map(drop)
}

/// Namespaces without a protected cluster are nobody's business, also when the definition is gone.
fn other_namespaces(server: &Objects) -> Result<()> {
    server.run(&["create", "namespace", "empty"])?;
    server.run(&["delete", "namespace", "empty", "--wait=false"])?;
    server.run(&["create", "namespace", "after"])?;
    server.run(&["delete", "crd", "rqliteclusters.rqlite.dev"])?;
    until("the definition's end", LIMIT, || {
        let list = "/apis/rqlite.dev/v1alpha1/namespaces/default/rqliteclusters";
        refused(server.run(&["get", "--raw", list]), &["NotFound"])
    })?;
    server
        .run(&["delete", "namespace", "after", "--wait=false"])
        .map(drop)
}

#[test]
fn the_api_server_refuses_what_the_policies_say() -> Result<()> {
    let Some(mut api) = ApiServer::start()? else {
        return ApiServer::skip();
    };
    api.start_controllers()?;
    let server = api.objects()?;
    install(&server)?;
    people(&server)?;
    in_force(&server)?;
    consent(&server).context("consent")?;
    pod_rights(&server).context("rights of pods")?;
    protection(&server).context("protection")?;
    other_namespaces(&server).context("other namespaces")
}
