//! One namespace for each user error: the user's objects, Kubernetes' reaction, the operator's expected
//! report, and the remedy.
use anyhow::{Context, Result, ensure};
use e2e_kubernetes::command::until;
use e2e_operator::objects::Objects;
use serde_json::{Value, json};

use super::{LIMIT, NAME, await_cleared, await_reported, cluster, object};

/// One user error in its namespace.
#[derive(Clone)]
struct Case {
    namespace: &'static str,
    spec: Value,
    /// Objects that exist before the cluster.
    before: Vec<Value>,
    /// Simulates what a kubelet or a provisioner would report.
    play: fn(&Objects, &str) -> Result<()>,
    reason: &'static str,
    parts: &'static [&'static str],
    /// Applies the remedy; `None` where only a new cluster helps.
    remedy: Option<fn(&Objects, &str) -> Result<()>>,
}

fn nothing(_: &Objects, _: &str) -> Result<()> {
    Ok(())
}

fn quota(hard: Value) -> Value {
    object(
        "ResourceQuota",
        "v1",
        "small",
        json!({ "spec": { "hard": hard } }),
    )
}

/// Writes the quota's status as its controller would; admission uses it.
fn admit(server: &Objects, namespace: &str, hard: &Value, used: &Value) -> Result<()> {
    let patch =
        json!({ "spec": { "hard": hard }, "status": { "hard": hard, "used": used } }).to_string();
    for part in [None, Some("--subresource=status")] {
        let mut args = vec![
            "patch",
            "resourcequota",
            "small",
            "-n",
            namespace,
            "--type=merge",
            "-p",
            &patch,
        ];
        args.extend(part);
        server.run(&args)?;
    }
    Ok(())
}

fn more_pods(server: &Objects, namespace: &str) -> Result<()> {
    admit(
        server,
        namespace,
        &json!({ "pods": "9" }),
        &json!({ "pods": "2" }),
    )
}

fn account(server: &Objects, namespace: &str) -> Result<()> {
    server
        .run(&["create", "serviceaccount", "bot", "-n", namespace])
        .map(drop)
}

fn make_class(server: &Objects, name: &str, default: &str) -> Result<()> {
    let mark = json!({ "storageclass.kubernetes.io/is-default-class": default });
    let class = json!({ "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": { "name": name, "annotations": mark }, "provisioner": "example.com/none" });
    server.send(&["create"], &class).map(drop)
}

fn class(server: &Objects, _: &str) -> Result<()> {
    make_class(server, "fast", "false")
}

fn default_class(server: &Objects, _: &str) -> Result<()> {
    make_class(server, "standard", "true")
}

/// Makes a container of demo-0 wait with this reason.
fn waits(
    server: &Objects,
    namespace: &str,
    container: &str,
    reason: &str,
    message: &str,
) -> Result<()> {
    let state = json!({ "name": container, "image": "example.com/none:1", "imageID": "", "ready": false, "restartCount": 0,
        "state": { "waiting": { "reason": reason, "message": message } } });
    let kind = if container == "prepare" {
        "initContainerStatuses"
    } else {
        "containerStatuses"
    };
    report(
        server,
        namespace,
        &json!({ "phase": "Pending", kind: [state] }),
    )
}

fn report(server: &Objects, namespace: &str, status: &Value) -> Result<()> {
    let patch = json!({ "status": status }).to_string();
    until(&format!("a pod in {namespace}"), LIMIT, || {
        let args = [
            "patch",
            "pod",
            "demo-0",
            "-n",
            namespace,
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
        ];
        server.run(&args).map(drop)
    })
}

fn no_image(server: &Objects, namespace: &str) -> Result<()> {
    waits(
        server,
        namespace,
        "prepare",
        "ImagePullBackOff",
        "Back-off pulling image",
    )
}

fn bad_name(server: &Objects, namespace: &str) -> Result<()> {
    waits(
        server,
        namespace,
        "prepare",
        "InvalidImageName",
        "couldn't parse image name",
    )
}

fn no_pull_secret(server: &Objects, namespace: &str) -> Result<()> {
    no_image(server, namespace)?;
    let note = "Unable to retrieve some image pull secrets (creds); attempting to pull the image may not succeed.";
    warn(
        server,
        namespace,
        "pod/demo-0",
        "FailedToRetrieveImagePullSecret",
        note,
    )
}

fn no_secret(server: &Objects, namespace: &str) -> Result<()> {
    waits(
        server,
        namespace,
        "rqlited",
        "CreateContainerConfigError",
        "secret \"creds\" not found",
    )
}

fn no_map(server: &Objects, namespace: &str) -> Result<()> {
    waits(
        server,
        namespace,
        "rqlited",
        "CreateContainerConfigError",
        "configmap \"settings\" not found",
    )
}

fn starts(server: &Objects, namespace: &str) -> Result<()> {
    let state = json!({ "name": "rqlited", "image": "example.com/none:1", "imageID": "", "ready": false, "restartCount": 0,
        "state": { "waiting": { "reason": "ContainerCreating" } } });
    report(
        server,
        namespace,
        &json!({ "containerStatuses": [state], "initContainerStatuses": [], "conditions": [] }),
    )
}

fn crashes(server: &Objects, namespace: &str) -> Result<()> {
    let state = json!({ "name": "rqlited", "image": "example.com/none:1", "imageID": "", "ready": false, "restartCount": 3,
        "state": { "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 40s" } },
        "lastState": { "terminated": { "exitCode": 2, "reason": "Error", "message": "unknown flag -fast" } } });
    report(server, namespace, &json!({ "containerStatuses": [state] }))
}

fn no_machine(server: &Objects, namespace: &str) -> Result<()> {
    let condition = json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/3 nodes are available: 3 Insufficient cpu." });
    report(server, namespace, &json!({ "conditions": [condition] }))
}

fn no_volume(server: &Objects, namespace: &str) -> Result<()> {
    warn(
        server,
        namespace,
        "pvc/data-demo-0",
        "ProvisioningFailed",
        "the cloud's quota is used up",
    )
}

/// Creates a warning event like those of Kubernetes' components.
fn warn(server: &Objects, namespace: &str, about: &str, reason: &str, note: &str) -> Result<()> {
    let object = until(&format!("{about} in {namespace}"), LIMIT, || {
        server.get(&[about, "-n", namespace])
    })?;
    let meta = &object["metadata"];
    let created = &meta["creationTimestamp"];
    let event = json!({ "apiVersion": "v1", "kind": "Event", "metadata": { "generateName": "simulated-", "namespace": namespace },
        "involvedObject": { "apiVersion": "v1", "kind": object["kind"], "name": meta["name"], "namespace": namespace, "uid": meta["uid"] },
        "type": "Warning", "reason": reason, "message": note, "count": 1, "firstTimestamp": created, "lastTimestamp": created,
        "source": { "component": "simulated" } });
    server.send(&["create"], &event).map(drop)
}

fn case(
    namespace: &'static str,
    spec: Value,
    play: fn(&Objects, &str) -> Result<()>,
    reason: &'static str,
    parts: &'static [&'static str],
) -> Case {
    Case {
        namespace,
        spec,
        before: Vec::new(),
        play,
        reason,
        parts,
        remedy: None,
    }
}

fn variable(source: &str, name: &str) -> Value {
    let key = json!({ "name": name, "key": "token" });
    json!({ "config": { "extraEnv": [{ "name": "TOKEN", "valueFrom": { source: key } }] } })
}

/// Objects that the API server rejects when controllers create them.
fn refused() -> Vec<Case> {
    let small = json!({ "pods": "2" });
    let no_claims = json!({ "persistentvolumeclaims": "0" });
    vec![
        Case {
            before: vec![quota(small)],
            remedy: Some(more_pods),
            ..case(
                "quota-pods",
                json!({}),
                nothing,
                "QuotaExceeded",
                &[
                    "demo has 2 of 3 pods",
                    "exceeded quota: small",
                    "kubectl describe resourcequota -n quota-pods",
                ],
            )
        },
        Case {
            before: vec![quota(no_claims)],
            ..case(
                "quota-claims",
                json!({}),
                nothing,
                "QuotaExceeded",
                &[
                    "persistentvolumeclaims",
                    "exceeded quota: small",
                    "spec.storage.size",
                ],
            )
        },
        Case {
            remedy: Some(account),
            ..case(
                "no-account",
                json!({ "serviceAccountName": "bot" }),
                nothing,
                "ServiceAccountMissing",
                &[
                    "\"bot\" not found",
                    "kubectl create serviceaccount bot -n no-account",
                ],
            )
        },
        case(
            "no-priority",
            json!({ "scheduling": { "priorityClassName": "high" } }),
            nothing,
            "PodsRefused",
            &[
                "no PriorityClass with name high",
                "spec.scheduling.priorityClassName",
            ],
        ),
    ]
}

/// Pods and claims for which no node and no volume can be found.
fn homeless() -> Vec<Case> {
    vec![
        Case {
            remedy: Some(class),
            ..case(
                "no-class",
                json!({ "storage": { "storageClassName": "fast" } }),
                nothing,
                "StorageClassMissing",
                &[
                    "data-demo-0",
                    "there is no StorageClass \"fast\"",
                    "kubectl get storageclass",
                ],
            )
        },
        case(
            "no-volume",
            json!({}),
            no_volume,
            "VolumePending",
            &[
                "the cloud's quota is used up",
                "kubectl describe pvc data-demo-0 -n no-volume",
            ],
        ),
        case(
            "no-machine",
            json!({}),
            no_machine,
            "Unschedulable",
            &["Insufficient cpu", "spec.resources"],
        ),
    ]
}

/// Images that cannot be pulled.
fn images() -> Vec<Case> {
    let image = json!({ "image": { "repository": "example.com/none", "tag": "1" } });
    let mut secured = image.clone();
    secured["image"]["pullSecrets"] = json!([{ "name": "creds" }]);
    vec![
        Case {
            remedy: Some(starts),
            ..case(
                "no-image",
                image.clone(),
                no_image,
                "ImagePullFailed",
                &[
                    "demo-0",
                    "example.com/none:1",
                    "Correct spec.image: kubectl edit rqlitecluster demo -n no-image",
                ],
            )
        },
        case(
            "bad-image-name",
            image,
            bad_name,
            "ImagePullFailed",
            &["InvalidImageName"],
        ),
        case(
            "no-pull-secret",
            secured,
            no_pull_secret,
            "PullSecretMissing",
            &[
                "the pull secret creds",
                "kubectl create secret docker-registry creds -n no-pull-secret",
            ],
        ),
    ]
}

/// Containers that do not start.
fn containers() -> Vec<Case> {
    vec![
        Case {
            remedy: Some(starts),
            ..case(
                "no-secret",
                variable("secretKeyRef", "creds"),
                no_secret,
                "SecretMissing",
                &[
                    "secret \"creds\" not found",
                    "kubectl create secret generic creds",
                ],
            )
        },
        case(
            "no-map",
            variable("configMapKeyRef", "settings"),
            no_map,
            "ConfigMapMissing",
            &[
                "configmap \"settings\" not found",
                "kubectl create configmap settings",
            ],
        ),
        case(
            "bad-flag",
            json!({ "config": { "extraArgs": ["-fast"] } }),
            crashes,
            "NodeCrashLooping",
            &[
                "unknown flag -fast",
                "spec.config.extraArgs",
                "kubectl logs --previous demo-0",
            ],
        ),
    ]
}

/// First the case whose remedy creates the StorageClass for the others, then all in parallel, because each
/// waits for controllers.
pub(crate) fn run(server: &Objects) -> Result<()> {
    let no_class = Case {
        remedy: Some(default_class),
        ..case(
            "no-default-class",
            json!({}),
            nothing,
            "StorageClassMissing",
            &["none is the default"],
        )
    };
    try_out(server, &[no_class])?;
    let all = [refused(), homeless(), images(), containers()].concat();
    try_out(server, &all)
}

fn try_out(server: &Objects, all: &[Case]) -> Result<()> {
    for case in all {
        prepare(server, case).with_context(|| format!("preparing {}", case.namespace))?;
    }
    for case in all {
        let simulated = (case.play)(server, case.namespace);
        simulated.with_context(|| format!("playing {}", case.namespace))?;
    }
    for case in all {
        let message = await_reported(server, case.namespace, "Degraded", case.reason, case.parts)?;
        println!("{}: {}: {message}", case.namespace, case.reason);
    }
    for case in all {
        if let Some(remedy) = case.remedy {
            let done = remedy(server, case.namespace);
            done.with_context(|| format!("a remedy in {}", case.namespace))?;
            await_cleared(server, case.namespace, case.reason)?;
        }
    }
    Ok(())
}

fn prepare(server: &Objects, case: &Case) -> Result<()> {
    let namespace = case.namespace;
    server.run(&["create", "namespace", namespace])?;
    for object in &case.before {
        let made = server.send(&["create", "-n", namespace], object)?;
        if made["kind"] == "ResourceQuota" {
            let hard = &made["spec"]["hard"];
            let none = hard.as_object().into_iter().flatten();
            let none: Value = none
                .map(|(key, _)| (key.clone(), json!("0")))
                .collect::<serde_json::Map<_, _>>()
                .into();
            admit(server, namespace, hard, &none)?;
        }
    }
    let made = server.send(&["create", "-n", namespace], &cluster(NAME, &case.spec))?;
    ensure!(made["metadata"]["uid"].is_string(), "{made}");
    Ok(())
}
