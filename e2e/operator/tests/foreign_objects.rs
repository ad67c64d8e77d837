//! Objects of others that have a name of a cluster's: they stay exactly as they are, the cluster says whose
//! they are, and goes on by itself once the name is free or it adopts the object.
//!
//! API server, controllers and operator are real; nothing here needs a pod.
use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::command::until;
use e2e_operator::{
    api_server::ApiServer,
    objects::Objects,
    operator_fixture::{OperatorFixture, condition, events},
};
use serde_json::{Value, json};

/// Limit for a report: a few reconciles on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// Kinds that the operator creates, as arguments of kubectl.
const KINDS: &str =
    "serviceaccount,configmap,service,networkpolicy,poddisruptionbudget,statefulset";

fn cluster(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "rqlite.dev/v1alpha1", "kind": "RqliteCluster", "metadata": {"name": name}, "spec": spec})
}

/// A spec for which every kind of object is created.
fn all_kinds() -> Value {
    json!({
        "networkPolicy": {"enabled": true},
        "services": {"leader": {"enabled": true}},
        "readReplicas": {"replicas": 2},
    })
}

/// An application's object, with labels like the operator's: labels prove nothing.
fn foreign(kind: &str, name: &str) -> Value {
    let labels =
        json!({"rqlite.dev/cluster": "demo", "app.kubernetes.io/managed-by": "rqlite-operator"});
    let select = json!({"matchLabels": {"app": "shop"}});
    let (version, more) = match kind {
        "ServiceAccount" => ("v1", json!({"automountServiceAccountToken": true})),
        "ConfigMap" => ("v1", json!({"data": {"mine": "precious"}})),
        "Service" => (
            "v1",
            json!({"spec": {"selector": {"app": "shop"}, "ports": [{"port": 80}]}}),
        ),
        "NetworkPolicy" => (
            "networking.k8s.io/v1",
            json!({"spec": {"podSelector": select}}),
        ),
        "PodDisruptionBudget" => (
            "policy/v1",
            json!({"spec": {"selector": select, "minAvailable": 1}}),
        ),
        _ => (
            "apps/v1",
            json!({"spec": {"replicas": 0, "serviceName": "shop", "selector": select, "template": {
            "metadata": {"labels": {"app": "shop"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
        ),
    };
    let mut object =
        json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": labels}});
    for (key, value) in more.as_object().into_iter().flatten() {
        object[key] = value.clone();
    }
    object
}

/// Everything of an object but the status that Kubernetes' controllers write into budgets and StatefulSets.
fn lasting(object: &Value) -> Value {
    let mut object = object.clone();
    if ["PodDisruptionBudget", "StatefulSet"]
        .iter()
        .any(|kind| object["kind"] == *kind)
    {
        object["status"].take();
        object["metadata"]["resourceVersion"].take();
    }
    object
}

/// Objects in a namespace.
struct Place<'a> {
    server: &'a Objects,
    namespace: String,
}

impl<'a> Place<'a> {
    fn create(server: &'a Objects, namespace: &str) -> Result<Self> {
        server.run(&["create", "namespace", namespace])?;
        let place = Self {
            server,
            namespace: namespace.to_owned(),
        };
        until("the namespace's account", LIMIT, || {
            place.get("serviceaccount", "default")
        })?;
        Ok(place)
    }

    fn get(&self, kind: &str, name: &str) -> Result<Value> {
        self.server.get(&[kind, name, "-n", &self.namespace])
    }

    fn make(&self, object: &Value) -> Result<Value> {
        self.server.send(&["create", "-n", &self.namespace], object)
    }

    fn run(&self, args: &[&str]) -> Result<String> {
        let mut all = vec!["-n", &self.namespace];
        all.extend(args);
        self.server.run(&all)
    }

    /// Kind and name of every object of the operator's kinds that this cluster controls.
    fn owned(&self, cluster: &str) -> Result<BTreeSet<(String, String)>> {
        let uid = self.get("rqlitecluster", cluster)?["metadata"]["uid"].clone();
        let all = self.server.get(&[KINDS, "-n", &self.namespace])?;
        let items = all["items"].as_array().cloned().unwrap_or_default();
        let own = |o: &&Value| o["metadata"]["ownerReferences"][0]["uid"] == uid;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let own = items.iter().filter(own);
        Ok(own
            .map(|o| (text(&o["kind"]), text(&o["metadata"]["name"])))
            .collect())
    }

    /// Waits until the cluster reports this object in a condition and an event.
    fn await_taken(&self, cluster: &str, parts: &[&str]) -> Result<()> {
        until(&format!("{cluster} to report {parts:?}"), LIMIT, || {
            let object = self.get("rqlitecluster", cluster)?;
            let found = condition(&object, "Degraded");
            ensure!(
                found["status"] == "True" && found["reason"] == "NameTaken",
                "{found}"
            );
            let message = found["message"].as_str().unwrap_or_default();
            ensure!(parts.iter().all(|part| message.contains(part)), "{message}");
            ensure!(message.contains("Runbook: name-taken"), "{message}");
            let ready = condition(&object, "Ready");
            ensure!(ready["status"] == "False", "{ready}");
            let all = events(self.server, &self.namespace, cluster)?;
            let is_it = |(reason, note): &&(String, String)| {
                reason == "NameTaken" && parts.iter().all(|part| note.contains(part))
            };
            all.iter()
                .find(is_it)
                .with_context(|| format!("{all:?}"))
                .map(drop)
        })
    }

    fn await_free(&self, cluster: &str) -> Result<()> {
        until("the report to go", LIMIT, || {
            let object = self.get("rqlitecluster", cluster)?;
            let found = condition(&object, "Degraded");
            ensure!(
                found["reason"] != "NameTaken" && !found.is_null(),
                "{found}"
            );
            Ok(())
        })
    }

    fn await_owned(&self, cluster: &str, kind: &str, name: &str) -> Result<()> {
        until(&format!("{kind} {name} to be {cluster}'s"), LIMIT, || {
            let owned = self.owned(cluster)?;
            ensure!(
                owned.contains(&(kind.to_owned(), name.to_owned())),
                "{owned:?}"
            );
            Ok(())
        })
    }
}

/// Names of all objects of a cluster for which every kind is created, as the operator creates them.
fn names_of_a_cluster(server: &Objects) -> Result<BTreeSet<(String, String)>> {
    let place = Place::create(server, "pattern")?;
    place.make(&cluster("demo", all_kinds()))?;
    place.await_owned("demo", "StatefulSet", "demo")?;
    place.await_owned("demo", "StatefulSet", "demo-ro")?;
    let names = place.owned("demo")?;
    ensure!(names.len() >= 11, "{names:?}");
    Ok(names)
}

/// Each name taken by somebody else, one namespace each.
fn each_name_taken(server: &Objects, names: &BTreeSet<(String, String)>) -> Result<()> {
    let mut all = Vec::new();
    for (kind, name) in names {
        let namespace = format!("taken-{}-{name}", kind.to_lowercase());
        let place = Place::create(server, &namespace)?;
        let before = place.make(&foreign(kind, name))?;
        place.make(&cluster("demo", all_kinds()))?;
        all.push((kind, name, place, before));
    }
    for (kind, name, place, before) in &all {
        let what = format!("{kind} {name}");
        place
            .await_taken("demo", &[&what])
            .with_context(|| what.clone())?;
        let runs = place
            .owned("demo")?
            .contains(&("StatefulSet".to_owned(), "demo".to_owned()));
        let needed = ["ServiceAccount", "ConfigMap", "NetworkPolicy"].contains(&kind.as_str())
            || ["demo", "demo-headless"].contains(&name.as_str());
        ensure!(runs != needed, "{what}: pods exist: {runs}");
        ensure!(
            lasting(&place.get(kind, name)?) == lasting(before),
            "{what} was changed"
        );
    }
    // The name becomes free, in one way or the other, or the cluster goes.
    for (n, (kind, name, place, before)) in all.iter().enumerate() {
        let what = format!("{kind} {name}");
        match n % 3 {
            0 => {
                place.run(&["delete", kind, name])?;
                place.await_owned("demo", kind, name)?;
                place.await_free("demo")?;
                place.await_owned("demo", "StatefulSet", "demo")?;
            }
            1 if !["StatefulSet", "Service"].contains(&kind.as_str()) => {
                place.run(&["annotate", kind, name, "rqlite.dev/adopt-into=demo"])?;
                place.await_owned("demo", kind, name)?;
                place.await_free("demo")?;
                let adopted = place.get(kind, name)?["metadata"].clone();
                ensure!(
                    adopted["uid"] == before["metadata"]["uid"],
                    "{what} was replaced"
                );
                ensure!(
                    adopted["annotations"]["rqlite.dev/adopt-into"].is_null(),
                    "{adopted}"
                );
            }
            _ => {
                place.run(&["delete", "rqlitecluster", "demo", "--timeout=60s"])?;
                until("the cluster's other objects to go", LIMIT, || {
                    let left = place.server.get(&[KINDS, "-n", &place.namespace])?;
                    let left = left["items"].to_string();
                    ensure!(!left.contains("ownerReferences"), "{left}");
                    Ok(())
                })?;
                ensure!(
                    lasting(&place.get(kind, name)?) == lasting(before),
                    "{what} was changed"
                );
            }
        }
    }
    Ok(())
}

/// A cluster called like what every namespace has.
fn named_default(server: &Objects) -> Result<()> {
    let place = Place::create(server, "of-default")?;
    let before = place.get("serviceaccount", "default")?;
    place.make(&cluster("default", all_kinds()))?;
    place.await_owned("default", "StatefulSet", "default")?;
    ensure!(
        place.get("serviceaccount", "default")? == before,
        "the namespace's account was changed"
    );
    let set = place.get("statefulset", "default")?;
    let account = set["spec"]["template"]["spec"]["serviceAccountName"].clone();
    ensure!(account == "default-rqlite", "{account}");
    place.run(&["delete", "rqlitecluster", "default", "--timeout=60s"])?;
    until("its objects to go", LIMIT, || {
        ensure!(
            place.get("statefulset", "default").is_err(),
            "the StatefulSet"
        );
        Ok(())
    })?;
    ensure!(
        place.get("serviceaccount", "default")? == before,
        "the namespace's account was changed"
    );
    Ok(())
}

/// One cluster's read replicas are called as another cluster.
fn read_replicas_of_another(server: &Objects) -> Result<()> {
    let place = Place::create(server, "two")?;
    place.make(&cluster("x", all_kinds()))?;
    place.await_owned("x", "StatefulSet", "x-ro")?;
    let before = place.get("statefulset", "x-ro")?["metadata"]["uid"].clone();
    place.make(&cluster("x-ro", all_kinds()))?;
    let parts = ["StatefulSet x-ro exists and belongs to RqliteCluster x"];
    place.await_taken("x-ro", &parts)?;
    let both = place
        .owned("x")?
        .into_iter()
        .filter(|(_, name)| name == "x-ro")
        .count();
    ensure!(both == 1, "x no longer has its read replicas");
    ensure!(
        place.get("statefulset", "x-ro")?["metadata"]["uid"] == before,
        "replaced"
    );
    let first = condition(&place.get("rqlitecluster", "x")?, "Degraded");
    ensure!(first["reason"] != "NameTaken", "{first}");
    // The other way round: the read replicas come second, and the first pool goes on.
    let place = Place::create(server, "two-reversed")?;
    place.make(&cluster("x-ro", json!({})))?;
    place.await_owned("x-ro", "StatefulSet", "x-ro")?;
    place.make(&cluster("x", all_kinds()))?;
    place.await_taken(
        "x",
        &["StatefulSet x-ro exists and belongs to RqliteCluster x-ro"],
    )?;
    place.await_owned("x", "StatefulSet", "x")
}

/// Deleted with `--cascade=orphan` and created again: nothing is taken over until a person says so, and then
/// the cluster has its identity back.
fn orphaned(server: &Objects) -> Result<()> {
    let place = Place::create(server, "orphaned")?;
    place.make(&cluster("demo", json!({})))?;
    place.await_owned("demo", "StatefulSet", "demo")?;
    let id = place.get("rqlitecluster", "demo")?["status"]["clusterId"].clone();
    let uid = place.get("statefulset", "demo")?["metadata"]["uid"].clone();
    place.run(&[
        "delete",
        "rqlitecluster",
        "demo",
        "--cascade=orphan",
        "--timeout=60s",
    ])?;
    until("the objects to be nobody's", LIMIT, || {
        let set = place.get("statefulset", "demo")?["metadata"].clone();
        ensure!(set["ownerReferences"].is_null(), "{set}");
        Ok(())
    })?;
    place.make(&cluster("demo", json!({})))?;
    place.await_taken(
        "demo",
        &[
            "StatefulSet demo",
            "ConfigMap demo-state",
            "adopt-into=demo",
        ],
    )?;
    ensure!(
        place.owned("demo")?.is_empty(),
        "{:?}",
        place.owned("demo")?
    );
    ensure!(
        place.get("rqlitecluster", "demo")?["status"]["clusterId"].is_null(),
        "it has got another identity"
    );
    place.run(&[
        "annotate",
        &format!("{KINDS},secret"),
        "-l",
        "rqlite.dev/cluster=demo",
        "rqlite.dev/adopt-into=demo",
    ])?;
    for (kind, name) in [
        ("StatefulSet", "demo"),
        ("ConfigMap", "demo-state"),
        ("Service", "demo-client"),
        ("ServiceAccount", "demo-rqlite"),
    ] {
        place.await_owned("demo", kind, name)?;
    }
    place.await_free("demo")?;
    let again = place.get("rqlitecluster", "demo")?["status"]["clusterId"].clone();
    ensure!(again == id && !id.is_null(), "{again} instead of {id}");
    ensure!(
        place.get("statefulset", "demo")?["metadata"]["uid"] == uid,
        "the StatefulSet was replaced"
    );
    Ok(())
}

/// A field that the spec no longer asks for goes from a created object: created objects are the same as
/// applied ones.
fn fields_go(server: &Objects) -> Result<()> {
    let place = Place::create(server, "fields")?;
    let services = |port: u16, annotations: Value| json!({"services": {"client": {"port": port, "annotations": annotations}}});
    place.make(&cluster(
        "demo",
        services(80, json!({"example.org/a": "1"})),
    ))?;
    place.await_owned("demo", "Service", "demo-client")?;
    let managers = |service: &Value| -> Vec<String> {
        let all = service["metadata"]["managedFields"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        all.iter()
            .map(|m| format!("{} {}", m["manager"], m["operation"]))
            .collect()
    };
    until("one manager by apply", LIMIT, || {
        let args = [
            "service",
            "demo-client",
            "-n",
            "fields",
            "--show-managed-fields",
        ];
        let service = server.get(&args)?;
        ensure!(
            managers(&service) == ["\"rqlite-operator\" \"Apply\""],
            "{:?}",
            managers(&service)
        );
        Ok(())
    })?;
    let change = json!({"spec": services(81, json!({"example.org/a": null}))}).to_string();
    place.run(&[
        "patch",
        "rqlitecluster",
        "demo",
        "--type=merge",
        "-p",
        &change,
    ])?;
    until("the port and the annotation to go", LIMIT, || {
        let service = place.get("service", "demo-client")?;
        let ports = &service["spec"]["ports"];
        ensure!(ports[0]["port"] == 81 && ports[1].is_null(), "{ports}");
        let annotations = &service["metadata"]["annotations"];
        ensure!(annotations["example.org/a"].is_null(), "{annotations}");
        Ok(())
    })
}

#[test]
fn foreign_objects_stay_as_they_are() -> Result<()> {
    let Some(fixture) = OperatorFixture::start()? else {
        return ApiServer::skip();
    };
    let server = &fixture.server;
    let run = || -> Result<()> {
        fields_go(server).context("fields of created objects")?;
        named_default(server).context("a cluster named default")?;
        read_replicas_of_another(server).context("x and x-ro")?;
        orphaned(server).context("orphaned")?;
        let names = names_of_a_cluster(server)?;
        each_name_taken(server, &names)
    };
    run().with_context(|| format!("the operator's log ends with:\n{}", fixture.tail()))
}
