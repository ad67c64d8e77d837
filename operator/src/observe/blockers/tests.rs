//! Blockers of StatefulSets, claims and pods, from statuses and events.
use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use super::*;

/// The time of the observation: 2026-01-01T00:10:00Z.
const NOW: i64 = 1_767_226_200;

fn set(replicas: i32) -> Value {
    json!({"metadata": {"name": "demo", "uid": "set"},
        "spec": {"replicas": replicas, "selector": {}, "serviceName": "x", "template": {}}})
}

fn pod(name: &str, status: Value) -> Value {
    json!({"metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:05:00Z"},
        "spec": {"containers": []}, "status": status})
}

fn claim(class: Value) -> Value {
    json!({"metadata": {"name": "data-demo-0", "uid": "claim"},
        "spec": {"storageClassName": class}, "status": {"phase": "Pending"}})
}

fn event(uid: &str, reason: &str, note: &str, at: &str) -> Value {
    json!({"metadata": {"name": "e"}, "regarding": {"uid": uid}, "reason": reason, "note": note,
        "eventTime": null, "deprecatedLastTimestamp": at})
}

fn container(name: &str, state: Value, last: Value) -> Value {
    json!({"containerStatuses": [{"name": name, "image": "x:1", "imageID": "", "ready": false, "restartCount": 1,
        "state": state, "lastState": last}]})
}

fn waiting(reason: &str, message: &str) -> Value {
    json!({"waiting": {"reason": reason, "message": message}})
}

#[derive(Default)]
struct World {
    sets: Vec<Value>,
    pods: Vec<Value>,
    claims: Vec<Value>,
    events: Vec<Value>,
    classes: Option<Vec<(&'static str, bool)>>,
}

fn read<T: serde::de::DeserializeOwned>(values: Vec<Value>) -> Vec<T> {
    values
        .into_iter()
        .map(|value| serde_json::from_value(value).unwrap())
        .collect()
}

fn arcs<T: serde::de::DeserializeOwned>(values: Vec<Value>) -> Vec<Arc<T>> {
    read(values).into_iter().map(Arc::new).collect()
}

impl World {
    fn blockers(self) -> Vec<(BlockerKind, String, String)> {
        let classes = self.classes.clone().unwrap_or_default();
        let live = Live {
            sets: arcs(self.sets),
            pods: arcs(self.pods),
            claims: arcs(self.claims),
            events: read(self.events),
            expandable: classes
                .iter()
                .map(|(name, _)| ((*name).to_owned(), true))
                .collect::<BTreeMap<_, _>>(),
            default_classes: self.classes.map(|classes| {
                let defaults = classes.into_iter().filter(|(_, default)| *default);
                defaults.map(|(name, _)| name.to_owned()).collect()
            }),
            ..Live::default()
        };
        let found = find(&live, NOW).into_iter();
        found.map(|h| (h.kind, h.object, h.message)).collect()
    }
}

#[test]
fn refused_pods() {
    let note = "create Pod demo-1 in StatefulSet demo failed error: pods \"demo-1\" is forbidden: exceeded quota: q";
    let message = "pods \"demo-1\" is forbidden: exceeded quota: q";
    let refused = Some((BlockerKind::Refused, "demo".to_owned(), message.to_owned()));
    let cases = [
        ("2026-01-01T00:06:00Z", 2, "set", refused.clone()),
        // Of the same second as the newest pod.
        ("2026-01-01T00:05:00Z", 2, "set", refused),
        // Older than the newest pod: that one came through.
        ("2026-01-01T00:04:59Z", 2, "set", None),
        // All pods are there.
        ("2026-01-01T00:06:00Z", 1, "set", None),
        // About another StatefulSet of this name, which is gone.
        ("2026-01-01T00:06:00Z", 2, "other", None),
    ];
    for (at, replicas, uid, expected) in cases {
        let world = World {
            sets: vec![set(replicas)],
            pods: vec![pod("demo-0", json!({}))],
            events: vec![event(uid, "FailedCreate", note, at)],
            ..World::default()
        };
        assert_eq!(world.blockers().pop(), expected, "{at} {replicas} {uid}");
    }
    let long_ago = World {
        sets: vec![set(1)],
        events: vec![event("set", "FailedCreate", note, "2025-12-31T23:45:00Z")],
        ..World::default()
    };
    assert_eq!(
        long_ago.blockers(),
        Vec::new(),
        "the controller would have tried again"
    );
}

#[test]
fn claims_without_a_volume() {
    let fast = Some(vec![("fast", false)]);
    let standard = Some(vec![("standard", true)]);
    let no_class = |class: &str| {
        Some((
            BlockerKind::NoClass,
            "data-demo-0".to_owned(),
            class.to_owned(),
        ))
    };
    let no_volume = Some((
        BlockerKind::NoVolume,
        "data-demo-0".to_owned(),
        "no room".to_owned(),
    ));
    let cases = [
        (json!("slow"), fast.clone(), false, no_class("slow")),
        (json!("fast"), fast.clone(), false, None),
        (json!("fast"), fast.clone(), true, no_volume.clone()),
        (json!(null), fast.clone(), false, no_class("")),
        (json!(null), standard, false, None),
        // A volume made by hand.
        (json!(""), fast, false, None),
        // Nothing is known of classes.
        (json!("slow"), None, false, None),
        (json!("slow"), None, true, no_volume),
    ];
    for (class, classes, has_event, expected) in cases {
        let failed = event(
            "claim",
            "ProvisioningFailed",
            "no room",
            "2026-01-01T00:06:00Z",
        );
        let mut clone = claim(class.clone());
        clone["metadata"]["name"] = "copy-of-data-demo-0".into();
        let world = World {
            sets: vec![set(1)],
            claims: vec![claim(class.clone()), clone],
            classes,
            events: if has_event { vec![failed] } else { Vec::new() },
            ..World::default()
        };
        assert_eq!(world.blockers().pop(), expected, "{class} {has_event}");
    }
}

#[test]
fn pods_that_do_not_run() {
    let unschedulable = json!({"conditions": [{"type": "PodScheduled", "status": "False",
        "reason": "Unschedulable", "message": "0/3 nodes are available"}]});
    let crash = container(
        "rqlited",
        waiting("CrashLoopBackOff", "back-off"),
        json!({"terminated": {"exitCode": 2, "reason": "Error", "message": "unknown flag"}}),
    );
    let prepare = container(
        "prepare",
        waiting("CrashLoopBackOff", "back-off"),
        json!({"terminated": {"exitCode": 1}}),
    );
    let cases = [
        (json!({}), None),
        (
            container("rqlited", json!({"running": {}}), json!({})),
            None,
        ),
        (
            container("rqlited", waiting("ContainerCreating", ""), json!({})),
            None,
        ),
        (
            container("prepare", waiting("ErrImagePull", "not found"), json!({})),
            Some((BlockerKind::Image, "x:1: ErrImagePull: not found")),
        ),
        (
            container("prepare", waiting("InvalidImageName", ""), json!({})),
            Some((BlockerKind::Image, "x:1: InvalidImageName")),
        ),
        (
            container(
                "rqlited",
                waiting("CreateContainerConfigError", "secret \"s\" not found"),
                json!({}),
            ),
            Some((BlockerKind::Container, "secret \"s\" not found")),
        ),
        (
            unschedulable,
            Some((BlockerKind::NoMachine, "0/3 nodes are available")),
        ),
        (
            crash,
            Some((BlockerKind::Crash, "Error (exit code 2): unknown flag")),
        ),
        (prepare, None),
    ];
    for (status, expected) in cases {
        let world = World {
            pods: vec![pod("demo-0", status.clone())],
            ..World::default()
        };
        let expected =
            expected.map(|(kind, message)| (kind, "demo-0".to_owned(), message.to_owned()));
        assert_eq!(world.blockers().pop(), expected, "{status}");
    }
}

#[test]
fn a_pull_secret_that_is_missing() {
    let note = "Unable to retrieve some image pull secrets (creds, more); attempting to pull the image may not succeed.";
    let world = World {
        pods: vec![pod(
            "demo-0",
            container("prepare", waiting("ImagePullBackOff", "denied"), json!({})),
        )],
        events: vec![event(
            "demo-0",
            "FailedToRetrieveImagePullSecret",
            note,
            "2026-01-01T00:06:00Z",
        )],
        ..World::default()
    };
    let expected = (
        BlockerKind::NoPullSecret,
        "demo-0".to_owned(),
        "creds, more".to_owned(),
    );
    assert_eq!(world.blockers(), [expected]);
}
