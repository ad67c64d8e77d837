//! Pods and claims that only carry a cluster's labels, and admission that rewrites what the operator applies.
//!
//! API server, controllers and operator are real; nothing here needs a pod that runs.
use std::{
    io::Write,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::command::until;
use e2e_operator::{
    api_server::ApiServer,
    objects::Objects,
    operator_fixture::{OperatorFixture, condition, events},
};
use serde_json::{Value, json};

/// Limit for a few reconciles on a busy machine.
const LIMIT: Duration = Duration::from_secs(90);
/// Address of the stray pod's server: of this machine, and no other test's.
const STRAY_ADDRESS: &str = "127.86.7.5";

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A namespace with one cluster, `demo`.
struct Place<'a> {
    server: &'a Objects,
    name: &'static str,
}

impl<'a> Place<'a> {
    fn create(server: &'a Objects, name: &'static str, spec: &Value) -> Result<Self> {
        server.run(&["create", "namespace", name])?;
        let place = Self { server, name };
        until("the namespace's account", LIMIT, || {
            place.get("serviceaccount", "default")
        })?;
        place.make(
            &json!({"apiVersion": "rqlite.dev/v1alpha1", "kind": "RqliteCluster",
            "metadata": {"name": "demo"}, "spec": spec}),
        )?;
        Ok(place)
    }

    fn get(&self, kind: &str, name: &str) -> Result<Value> {
        self.server.get(&[kind, name, "-n", self.name])
    }

    fn cluster(&self) -> Result<Value> {
        self.get("rqlitecluster", "demo")
    }

    fn make(&self, object: &Value) -> Result<Value> {
        self.server.send(&["create", "-n", self.name], object)
    }

    fn run(&self, args: &[&str]) -> Result<String> {
        let mut all = vec!["-n", self.name];
        all.extend(args);
        self.server.run(&all)
    }

    /// Waits until the operator has recorded this many pods and the claims that they use.
    fn await_recorded(&self, pods: usize) -> Result<Value> {
        until("pods and claims to be on record", LIMIT, || {
            let cluster = self.cluster()?;
            let status = &cluster["status"];
            let members = status["members"].as_array().map_or(0, Vec::len);
            let claims = status["claims"].as_array().map_or(0, Vec::len);
            ensure!(members == pods && claims == pods, "{status:#}");
            Ok(cluster)
        })
    }

    fn await_gone(&self, kind: &str, name: &str) -> Result<()> {
        until(&format!("{kind} {name} to be gone"), LIMIT, || {
            let found = self.server.run(&[
                "get",
                kind,
                name,
                "-n",
                self.name,
                "--ignore-not-found",
                "-o",
                "yaml",
            ])?;
            ensure!(found.is_empty(), "{found}");
            Ok(())
        })
    }

    /// An event with this reason about the cluster, whose note contains this.
    fn await_event(&self, reason: &str, part: &str) -> Result<()> {
        until(&format!("an event {reason} about {part}"), LIMIT, || {
            let all = events(self.server, self.name, "demo")?;
            let is_it = |(r, note): &&(String, String)| r == reason && note.contains(part);
            all.iter()
                .find(is_it)
                .with_context(|| format!("{all:?}"))
                .map(drop)
        })
    }
}

/// Serves rubbish at the stray pod's address, and counts the connections.
fn serve_rubbish() -> Result<Arc<AtomicUsize>> {
    let listener = TcpListener::bind((STRAY_ADDRESS, 4001)).context("the stray pod's server")?;
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut stream = stream;
            let sent = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nrubbish");
            drop(sent);
        }
    });
    Ok(count)
}

/// A pod with the labels of the leader's pod, as far as they are not the cluster's uid, that is ready.
fn make_stray(place: &Place<'_>) -> Result<Value> {
    place.make(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "debug", "labels": {
        "rqlite.dev/cluster": "demo", "rqlite.dev/pool": "voter", "rqlite.dev/role": "leader",
        "rqlite.dev/raft": "member", "rqlite.dev/serving": "true",
        "app.kubernetes.io/name": "rqlite", "app.kubernetes.io/instance": "demo"}},
        "spec": {"containers": [{"name": "rqlited", "image": "i"}], "automountServiceAccountToken": false}}))?;
    let status = json!({"status": {"phase": "Running", "podIP": STRAY_ADDRESS, "podIPs": [{"ip": STRAY_ADDRESS}],
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    place.run(&[
        "patch",
        "pod",
        "debug",
        "--subresource=status",
        "--type=merge",
        "-p",
        &status.to_string(),
    ])?;
    place.get("pod", "debug")
}

fn a_stray_pod(server: &Objects) -> Result<()> {
    let connections = serve_rubbish()?;
    let place = Place::create(server, "strays", &json!({"replicas": 1}))?;
    let uid = text(&place.await_recorded(1)?["metadata"]["uid"]).to_owned();
    let before = make_stray(&place)?;
    until("the stray pod to be reported", LIMIT, || {
        let advisory = condition(&place.cluster()?, "Advisory");
        ensure!(advisory["reason"] == "StrayPods", "{advisory}");
        ensure!(text(&advisory["message"]).contains("debug"), "{advisory}");
        Ok(())
    })?;
    place.await_event("StrayPods", "debug")?;
    let status = &place.cluster()?["status"];
    ensure!(status["replicas"] == 1, "{status:#}");
    ensure!(
        status["members"].as_array().map(Vec::len) == Some(1),
        "{status:#}"
    );
    ensure!(status["leader"].is_null(), "{status:#}");
    for service in ["demo-client", "demo-leader", "demo-headless"] {
        let Ok(service) = place.get("service", service) else {
            continue;
        };
        let selector = &service["spec"]["selector"];
        ensure!(selector["rqlite.dev/owner"] == uid.as_str(), "{selector}");
    }
    let own = place.get("pod", "demo-0")?;
    ensure!(
        own["metadata"]["labels"]["rqlite.dev/owner"] == uid.as_str(),
        "{own}"
    );
    let after = place.get("pod", "debug")?;
    ensure!(after == before, "it was changed: {after:#}");
    ensure!(connections.load(Ordering::SeqCst) == 0, "it was asked");
    place.run(&["delete", "rqlitecluster", "demo"])?;
    place.await_gone("pod", "demo-0")?;
    let after = place.get("pod", "debug")?;
    ensure!(after == before, "it was changed: {after:#}");
    Ok(())
}

/// A claim with exactly the labels of the pods' claims.
fn copy_claim(place: &Place<'_>, name: &str) -> Result<()> {
    let mut claim = place.get("pvc", "data-demo-0")?;
    claim["metadata"] = json!({"name": name, "labels": claim["metadata"]["labels"]});
    claim["status"] = Value::Null;
    place.make(&claim).map(drop)
}

fn claims_of_others(server: &Objects) -> Result<()> {
    let spec =
        json!({"replicas": 3, "storage": {"size": "1Gi", "retention": {"whenDeleted": "Delete"}}});
    let place = Place::create(server, "clones", &spec)?;
    place.await_recorded(3)?;
    for name in ["restored", "data-demo-7"] {
        copy_claim(&place, name)?;
    }
    place.run(&["delete", "rqlitecluster", "demo", "--timeout=90s"])?;
    for name in ["data-demo-0", "data-demo-1", "data-demo-2"] {
        place.await_gone("pvc", name)?;
    }
    for name in ["restored", "data-demo-7"] {
        let claim = place.get("pvc", name)?;
        ensure!(
            claim["metadata"]["deletionTimestamp"].is_null(),
            "{claim:#}"
        );
    }
    place.await_event("ClaimsLeft", "data-demo-7, restored")
}

fn deleted_without_a_stateful_set(server: &Objects) -> Result<()> {
    let spec =
        json!({"replicas": 2, "storage": {"size": "1Gi", "retention": {"whenDeleted": "Delete"}}});
    let place = Place::create(server, "gap", &spec)?;
    place.await_recorded(2)?;
    // As in the middle of a recreation: the StatefulSet is gone, its pods run.
    place.run(&[
        "annotate",
        "rqlitecluster",
        "demo",
        "rqlite.dev/paused=true",
    ])?;
    until("the pause", LIMIT, || {
        let paused = condition(&place.cluster()?, "Paused");
        ensure!(paused["status"] == "True", "{paused}");
        Ok(())
    })?;
    place.run(&["delete", "statefulset", "demo", "--cascade=orphan"])?;
    place.await_gone("statefulset", "demo")?;
    let pod = place.get("pod", "demo-0")?;
    ensure!(pod["metadata"]["ownerReferences"].is_null(), "{pod:#}");
    place.run(&["delete", "rqlitecluster", "demo", "--timeout=90s"])?;
    for name in ["demo-0", "demo-1"] {
        place.await_gone("pod", name)?;
        place.await_gone("pvc", &format!("data-{name}"))?;
    }
    Ok(())
}

/// Like the policy of a registry mirror.
fn rewrite_images(server: &Objects) -> Result<()> {
    let version = "admissionregistration.k8s.io/v1beta1";
    let rewrite = "[JSONPatch{op: \"replace\", path: \"/spec/template/spec/containers/0/image\", value: \"mirror.example/rqlited:1\"}]";
    let rule = json!({"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
        "resources": ["statefulsets"]});
    server.send(&["create"], &json!({"apiVersion": version, "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": "mirror"}, "spec": {"failurePolicy": "Fail", "reinvocationPolicy": "Never",
            "matchConstraints": {"resourceRules": [rule]},
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": rewrite}}]}}))?;
    server.send(
        &["create"],
        &json!({"apiVersion": version, "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": "mirror"}, "spec": {"policyName": "mirror"}}),
    )?;
    // It is in force once it rewrites a StatefulSet that is not the operator's.
    let labels = json!({"a": "b"});
    let other = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "probe"}, "spec": {
        "serviceName": "x", "replicas": 0, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    until("the policy to be in force", LIMIT, || {
        let made = server.send(&["create", "--dry-run=server"], &other)?;
        let image = &made["spec"]["template"]["spec"]["containers"][0]["image"];
        ensure!(image == "mirror.example/rqlited:1", "{image}");
        Ok(())
    })
}

fn admission_that_rewrites(fixture: &OperatorFixture) -> Result<()> {
    rewrite_images(&fixture.server)?;
    let place = Place::create(&fixture.server, "mirrored", &json!({"replicas": 1}))?;
    place.await_recorded(1)?;
    place.await_event("ChangedByAdmission", "mirror.example/rqlited:1")?;
    let version = || -> Result<Value> {
        Ok(place.get("statefulset", "demo")?["metadata"]["generation"].clone())
    };
    let before = version()?;
    let sent = || -> Result<usize> {
        let log = fixture.log()?;
        let lines = log.lines();
        Ok(lines
            .filter(|l| l.contains("applies StatefulSet demo") && l.contains("mirrored"))
            .count())
    };
    let sent_before = sent()?;
    ensure!(
        sent_before > 0,
        "the log does not say what was applied:\n{}",
        fixture.tail()
    );
    for n in 0..10 {
        let value = format!("touched={n}");
        place.run(&["annotate", "rqlitecluster", "demo", &value, "--overwrite"])?;
        thread::sleep(Duration::from_secs(1));
    }
    ensure!(sent()? == sent_before, "it is applied again and again");
    ensure!(version()? == before, "its spec changes");
    let advisory = condition(&place.cluster()?, "Advisory");
    ensure!(advisory["reason"] != "EditedByOthers", "{advisory}");
    let pending = condition(&place.cluster()?, "UpdatePending");
    ensure!(pending["status"] == "False", "{pending}");
    // An edit is one all the same.
    let edit = json!({"spec": {"updateStrategy": {"type": "RollingUpdate"}}}).to_string();
    place.run(&["patch", "statefulset", "demo", "--type=merge", "-p", &edit])?;
    until("the edit to be reverted", LIMIT, || {
        let set = place.get("statefulset", "demo")?;
        let strategy = &set["spec"]["updateStrategy"]["type"];
        ensure!(strategy == "OnDelete", "{strategy}");
        Ok(())
    })?;
    place.await_event("EditedByOthers", "updateStrategy")
}

#[test]
fn only_what_its_stateful_sets_made_is_a_clusters() -> Result<()> {
    let Some(fixture) = OperatorFixture::start()? else {
        return ApiServer::skip();
    };
    let result = a_stray_pod(&fixture.server)
        .and_then(|()| claims_of_others(&fixture.server))
        .and_then(|()| deleted_without_a_stateful_set(&fixture.server));
    result.with_context(|| fixture.tail())
}

#[test]
fn what_admission_rewrites_is_nobodys_edit() -> Result<()> {
    let Some(fixture) = OperatorFixture::start()? else {
        return ApiServer::skip();
    };
    admission_that_rewrites(&fixture).with_context(|| fixture.tail())
}
