//! Jobs as their pods would end them, and Jobs that the operator's account may not create.
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::command::until;
use e2e_operator::{generated, objects::Objects, operator_fixture::ACCOUNT};
use serde_json::{Value, json};

use crate::{NAMESPACE, Place};

const LIMIT: Duration = Duration::from_secs(60);

fn patch_status(place: &Place<'_>, kind: &str, name: &str, status: &Value) -> Result<()> {
    let patch = json!({ "status": status }).to_string();
    let args = ["patch", kind, name, "--subresource=status", "--type=merge"];
    place.run(&[&args[..], &["-p", &patch]].concat()).map(drop)
}

/// Creates the pod of a Job as Kubernetes would, lets it say this, and ends both.
pub(crate) fn end(
    place: &Place<'_>,
    job: &Value,
    container: &str,
    succeeds: bool,
    says: &str,
) -> Result<()> {
    let name = job["metadata"]["name"].as_str().context("a name")?;
    let mut template = job["spec"]["template"].clone();
    let pod_name = format!("{name}-pod");
    template["apiVersion"] = "v1".into();
    template["kind"] = "Pod".into();
    template["metadata"]["name"] = pod_name.as_str().into();
    template["metadata"]["ownerReferences"] = json!([{"apiVersion": "batch/v1", "kind": "Job", "name": name,
        "uid": job["metadata"]["uid"], "controller": true}]);
    // No account is made for a cluster that never formed.
    template["spec"]["serviceAccountName"] = "default".into();
    template["spec"]["serviceAccount"] = Value::Null;
    place.0.send(&["create", "-n", NAMESPACE], &template)?;
    let now = job["metadata"]["creationTimestamp"].clone();
    let code = i32::from(!succeeds);
    let phase = if succeeds { "Succeeded" } else { "Failed" };
    let ended = json!({"exitCode": code, "message": says, "reason": "Ended", "startedAt": now, "finishedAt": now});
    let container = json!({"name": container, "image": "i", "imageID": "i", "ready": false, "restartCount": 0,
        "state": {"terminated": ended}});
    let status = json!({ "phase": phase, "containerStatuses": [container] });
    patch_status(place, "pod", &pod_name, &status)?;
    let is = |kind: &str, reason: &str| {
        json!({"type": kind, "status": "True", "reason": reason, "lastTransitionTime": now,
        "lastProbeTime": now, "message": ""})
    };
    let status = match succeeds {
        true => {
            json!({"startTime": now, "completionTime": now, "succeeded": 1, "active": 0, "ready": 0, "terminating": 0,
            "conditions": [is("SuccessCriteriaMet", "CompletionsReached"), is("Complete", "CompletionsReached")]})
        }
        false => json!({"startTime": now, "failed": 1, "active": 0, "ready": 0, "terminating": 0,
            "conditions": [is("FailureTarget", "BackoffLimitExceeded"), is("Failed", "BackoffLimitExceeded")]}),
    };
    patch_status(place, "job", name, &status)
}

/// Restricted, without a token, bounded.
pub(crate) fn is_modest(job: &Value) -> Result<()> {
    let spec = &job["spec"];
    let pod = &spec["template"]["spec"];
    let container = &pod["containers"][0];
    let owner = &job["metadata"]["ownerReferences"][0];
    for (what, found, wanted) in [
        ("owner", &owner["kind"], json!("RqliteCluster")),
        ("retries", &spec["backoffLimit"], json!(2)),
        ("deadline", &spec["activeDeadlineSeconds"], json!(21_600)),
        ("token", &pod["automountServiceAccountToken"], json!(false)),
        ("user", &pod["securityContext"]["runAsNonRoot"], json!(true)),
        ("command", &container["command"], json!(["rqlited"])),
        ("first argument", &container["args"][0], json!("archive")),
        ("second argument", &container["args"][1], json!("drill")),
        (
            "files",
            &container["securityContext"]["readOnlyRootFilesystem"],
            json!(true),
        ),
    ] {
        ensure!(*found == wanted, "{what}: {found}, not {wanted}");
    }
    ensure!(container["resources"]["requests"]["memory"].is_string());
    Ok(())
}

fn a_job(owner: (&str, &str, &Value), name: &str) -> Value {
    let (kind, owner, uid) = owner;
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name,
        "ownerReferences": [{"apiVersion": "rqlite.dev/v1alpha1", "kind": kind, "name": owner, "uid": uid, "controller": true}]},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "automountServiceAccountToken": false,
        "securityContext": {"runAsNonRoot": true},
        "containers": [{"name": "c", "image": "i", "command": ["rqlited"], "args": ["archive", "drill"],
            "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}}}],
        "volumes": [{"name": "v", "emptyDir": {}}]}}}})
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

/// With the operator's token, no Job runs anything but what the operator's own do.
#[expect(clippy::too_many_lines, reason = "a table of requests")]
pub(crate) fn only_own(server: &Objects) -> Result<()> {
    let user = format!(
        "--as=system:serviceaccount:{}:{ACCOUNT}",
        generated::NAMESPACE
    );
    let create = |job: &Value| server.send(&["create", &user, "-n", NAMESPACE], job);
    let cluster = json!({"apiVersion": "rqlite.dev/v1alpha1", "kind": "RqliteCluster", "metadata": {"name": "demo"}, "spec": {}});
    let uid = server.send(&["create", "-n", NAMESPACE], &cluster)?["metadata"]["uid"].clone();
    let of_cluster = ("RqliteCluster", "demo", &uid);
    let good = a_job(of_cluster, "demo-drill-1");
    until("the policies to take effect", LIMIT, || {
        let mut bad = good.clone();
        bad["metadata"]["name"] = "probe".into();
        refused(create(&bad), "a Job of another name").inspect_err(|_| {
            drop(server.run(&[
                "delete",
                "-n",
                NAMESPACE,
                "job",
                "probe",
                "--ignore-not-found",
            ]));
        })
    })?;
    let pod = "/spec/template/spec";
    let cases = [
        ("/metadata/ownerReferences/0/kind", json!("RqliteBackup")),
        ("/metadata/ownerReferences/0/name", json!("other")),
        ("/metadata/ownerReferences/0/controller", json!(false)),
        ("/metadata/ownerReferences", json!([])),
        ("containers/0/command", json!(["sh"])),
        ("containers/0/args", json!(["-http-addr=:1"])),
        (
            "containers/0/securityContext/readOnlyRootFilesystem",
            json!(false),
        ),
        (
            "containers/0/securityContext/capabilities/add",
            json!(["NET_RAW"]),
        ),
        (
            "containers/0/securityContext",
            json!({"runAsNonRoot": true}),
        ),
        ("automountServiceAccountToken", json!(true)),
        ("hostNetwork", json!(true)),
        ("initContainers", json!([{"name": "i", "image": "i"}])),
        ("volumes/0", json!({"name": "v", "hostPath": {"path": "/"}})),
        (
            "volumes/0",
            json!({"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}),
        ),
        (
            "containers/1",
            json!({"name": "more", "image": "i", "command": ["sh"]}),
        ),
        (
            "containers/1",
            json!({"name": "c2", "image": "i", "command": ["rqlited"], "args": ["backup"]}),
        ),
        ("containers/0/securityContext/runAsNonRoot", json!(false)),
        (
            "volumes/0",
            json!({"name": "v", "csi": {"driver": "secrets-store.csi.k8s.io"}}),
        ),
    ];
    for (at, value) in cases {
        let mut bad = good.clone();
        let path = match at.starts_with('/') {
            true => at.to_owned(),
            false => format!("{pod}/{at}"),
        };
        let (parent, key) = path.rsplit_once('/').context("a path")?;
        let parent = bad.pointer_mut(parent).context("its parent")?;
        match key.parse::<usize>() {
            Ok(number) => {
                let all = parent.as_array_mut().context("a list")?;
                all.truncate(number);
                all.push(value.clone());
            }
            Err(_) => parent[key] = value.clone(),
        }
        refused(create(&bad), &format!("{at} = {value}"))?;
    }
    // What other admission adds before the policy sees the Job.
    let mut mutated = good.clone();
    mutated["metadata"]["name"] = "demo-drill-2".into();
    mutated["metadata"]["annotations"] = json!({"added": "yes"});
    let added = &mut mutated["spec"]["template"]["spec"];
    added["containers"][0]["env"] = json!([{"name": "SSL_CERT_FILE", "value": "/ca/ca.crt"}]);
    added["volumes"] = json!([
        {"name": "a", "configMap": {"name": "corp-ca"}}, {"name": "b", "emptyDir": {}},
        {"name": "c", "projected": {"sources": [{"configMap": {"name": "corp-ca"}}]}},
    ]);
    create(&mutated).context("with volumes and variables of other admission")?;
    create(&good)?;
    let delete = |name: &str| server.run(&["delete", &user, "-n", NAMESPACE, "job", name]);
    delete("demo-drill-1")?;
    server.send(&["create", "-n", NAMESPACE], &{
        let mut other = good.clone();
        other["metadata"] = json!({"name": "other"});
        other
    })?;
    refused(delete("other"), "deleting a user's Job")
}
