//! Whose an object is.
use serde_json::{Value, json};

use super::*;
use crate::cluster::fixture::Fixture;

fn object(owners: Value, annotations: Value) -> ObjectMeta {
    let labels =
        json!({"rqlite.dev/cluster": "demo", "app.kubernetes.io/managed-by": "rqlite-operator"});
    let object = json!({"name": "x", "labels": labels, "ownerReferences": owners, "annotations": annotations});
    serde_json::from_value(object).unwrap()
}

fn owner(kind: &str, name: &str, uid: &str, controller: bool) -> Value {
    let group = if kind == KIND {
        "rqlite.dev/v1alpha1"
    } else {
        "apps/v1"
    };
    json!({"apiVersion": group, "kind": kind, "name": name, "uid": uid, "controller": controller})
}

fn other(owner: Option<&str>, former: bool) -> Belonging {
    Belonging::Other {
        owner: owner.map(str::to_owned),
        former,
    }
}

#[test]
fn labels_prove_nothing() {
    let ours = owner(KIND, "demo", "u", true);
    let former = owner(KIND, "demo", "dead", true);
    let reader = owner(KIND, "de", "v", true);
    let set = owner("StatefulSet", "demo", "s", true);
    let reference = owner(KIND, "demo", "u", false);
    let to_us = json!({"rqlite.dev/adopt-into": "demo"});
    let to_other = json!({"rqlite.dev/adopt-into": "de", "rqlite.dev/applied-hash": "1"});
    let none = json!({});
    let cases = [
        (json!([ours]), &none, Belonging::Ours),
        (
            json!([set.clone(), ours]),
            &none,
            Belonging::Other {
                owner: Some("StatefulSet demo".into()),
                former: false,
            },
        ),
        (json!([]), &none, other(None, false)),
        (json!([]), &to_other, other(None, false)),
        (json!([reference]), &none, other(None, false)),
        (json!([reference]), &to_us, Belonging::Offered),
        (
            json!([former]),
            &none,
            other(Some("RqliteCluster demo"), true),
        ),
        (json!([former]), &to_us, Belonging::Offered),
        (
            json!([reader]),
            &none,
            other(Some("RqliteCluster de"), false),
        ),
        // Its controller would fight for it.
        (
            json!([reader]),
            &to_us,
            other(Some("RqliteCluster de"), false),
        ),
        (json!([set]), &to_us, other(Some("StatefulSet demo"), false)),
        (json!([]), &to_us, Belonging::Offered),
    ];
    for (owners, annotations, expected) in cases {
        let object = object(owners.clone(), annotations.clone());
        assert_eq!(
            belonging(&object, "demo", "u"),
            expected,
            "{owners} {annotations}"
        );
    }
    // A cluster that is not stored yet owns nothing.
    assert!(!is_ours(
        &object(json!([owner(KIND, "demo", "", true)]), none),
        ""
    ));
}

#[test]
fn an_adopted_object_keeps_its_other_owners() {
    let fixture = Fixture::running(3, 0);
    let cluster = &fixture.seen.cluster;
    let owners = json!([
        owner(KIND, "demo", "dead", true),
        owner("ReplicaSet", "r", "r", false)
    ]);
    let all = adopted_owners(&object(owners, json!({})), cluster);
    let uids: Vec<_> = all.iter().map(|owner| owner.uid.as_str()).collect();
    assert_eq!(uids, ["r", "cluster-uid"]);
    let ours = ObjectMeta {
        owner_references: Some(all),
        ..ObjectMeta::default()
    };
    assert!(is_ours(&ours, "cluster-uid"));
}

fn taken(kind: &str, name: &str, owner: Option<&str>, former: bool) -> TakenName {
    TakenName {
        kind: kind.to_owned(),
        name: name.to_owned(),
        owner: owner.map(str::to_owned),
        former,
    }
}

#[test]
fn a_person_is_told_what_to_do() {
    let fixture = Fixture::running(3, 0);
    let cluster = &fixture.seen.cluster;
    let free = [taken("Service", "demo-client", None, false)];
    assert_eq!(
        describe(cluster, &free),
        "Service demo-client exists and does not belong to it: it is left as it is. Delete it, or give this RqliteCluster another name, \
         or let this RqliteCluster adopt and overwrite it: kubectl annotate -n shop service/demo-client rqlite.dev/adopt-into=demo"
    );
    let other = [taken(
        "StatefulSet",
        "demo",
        Some("RqliteCluster de"),
        false,
    )];
    let text = describe(cluster, &other);
    assert!(
        text.contains("belongs to RqliteCluster de")
            && !text.contains("annotate")
            && !text.contains("Delete"),
        "{text}"
    );
    let former = [taken(
        "StatefulSet",
        "demo",
        Some("RqliteCluster demo"),
        true,
    )];
    let text = describe(cluster, &former);
    assert!(
        text.contains("garbage collector") && text.contains("annotate"),
        "{text}"
    );
}

#[test]
fn what_pods_need() {
    for (kind, name, expected) in [
        ("ServiceAccount", "demo-rqlite", true),
        ("ConfigMap", "demo-state", true),
        ("NetworkPolicy", "demo-rqlite", true),
        ("Service", "demo-headless", true),
        ("Service", "demo-client", false),
        ("PodDisruptionBudget", "demo-rqlite", false),
        ("StatefulSet", "demo-ro", false),
    ] {
        assert_eq!(
            is_needed_by_pods("demo", kind, name),
            expected,
            "{kind} {name}"
        );
    }
}
