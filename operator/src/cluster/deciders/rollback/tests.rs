//! Tests of updates that are taken back or refused.
use operator_api::{
    cluster::{Image, OnStall, Update},
    names,
    status::{DOWNGRADE_REFUSED, READY, UPDATE_AVAILABLE, UPDATE_ROLLED_BACK},
};

use crate::cluster::{
    action::Action,
    facts::{downgrade::NEWER_FORMAT, observation::PrepareReport},
    fixture::Fixture,
};

fn image(fixture: &mut Fixture, tag: &str) {
    fixture.seen.cluster.spec.image = Some(Image {
        tag: Some(tag.to_owned()),
        ..Image::default()
    });
}

fn annotate(fixture: &mut Fixture, key: &str, value: &str) {
    let metadata = &mut fixture.seen.cluster.metadata;
    let all = metadata.annotations.get_or_insert_default();
    all.insert(key.to_owned(), value.to_owned());
}

/// The pod was recreated from the present template and does not run.
fn comes_back_broken(fixture: &mut Fixture, name: &str) {
    let hash = fixture.seen.voters.as_ref().unwrap().template_hash.clone();
    let pod = fixture.pod(name);
    (pod.uid, pod.template_hash) = (format!("{}+", pod.uid), hash);
    fixture.down(name, "ImagePullBackOff");
}

/// An update whose first pod does not come back.
fn stalled(policy: Option<OnStall>) -> Fixture {
    let mut fixture = Fixture::running(3, 0);
    fixture.keeps_pods = true;
    fixture.later(60);
    fixture.reconcile();
    fixture.seen.cluster.spec.update = Some(Update {
        on_stall: policy,
        ..Update::default()
    });
    image(&mut fixture, "2");
    assert!(matches!(fixture.action(), Some(Action::EvictPod { name, .. }) if name == "demo-2"));
    comes_back_broken(&mut fixture, "demo-2");
    fixture.reconcile();
    fixture
}

/// The broken pod is recreated from the template that worked, and nothing else is touched.
fn is_taken_back(fixture: &mut Fixture) {
    let action = (0..6).find_map(|_| fixture.reconcile().action);
    assert!(
        matches!(&action, Some(Action::DeletePod { name, .. }) if name == "demo-2"),
        "{action:?}"
    );
    let target = fixture.status().target.unwrap();
    assert_eq!(target.image, "rqlited:1");
    assert_eq!(fixture.status().image.unwrap().reference, "rqlited:2");
    let back = fixture.status().rolled_back.unwrap();
    assert_eq!(back.image, "rqlited:2");
    assert!(fixture.condition(UPDATE_ROLLED_BACK).0);
    let now = fixture.seen.now.clone();
    let answers = fixture.seen.nodes["demo-1"].clone();
    fixture.seen.nodes.insert("demo-2".to_owned(), answers);
    fixture.node("demo-2").raft_id = "demo-2#i0".to_owned();
    let pod = fixture.pod("demo-2");
    (pod.uid, pod.ready, pod.stuck) = ("new".to_owned(), true, None);
    (pod.ready_since, pod.prepared) = (Some(now), None);
    pod.template_hash.clone_from(&target.template_hash);
    fixture.later(60);
    for _ in 0..6 {
        assert_eq!(fixture.reconcile().action, None);
    }
    let (ready, reason, _) = fixture.condition(READY);
    assert_eq!((ready, reason.as_str()), (false, "UpdateRolledBack"));
}

#[test]
fn on_request_until_the_spec_changes() {
    let mut fixture = stalled(None);
    annotate(&mut fixture, names::ROLLBACK_ANNOTATION, "now");
    is_taken_back(&mut fixture);
    // A restart uses the template that works; other parts of the spec are carried out.
    annotate(&mut fixture, names::RESTARTED_AT_ANNOTATION, "later");
    let action = (0..6).find_map(|_| fixture.reconcile().action);
    assert!(
        matches!(action, Some(Action::EvictPod { .. })),
        "{action:?}"
    );
    assert_eq!(fixture.status().target.unwrap().image, "rqlited:1");
    assert!(fixture.condition(UPDATE_ROLLED_BACK).0);
    image(&mut fixture, "3");
    for _ in 0..3 {
        fixture.reconcile();
    }
    assert_eq!(fixture.status().target.unwrap().image, "rqlited:3");
    assert_eq!(fixture.status().rolled_back, None);
    assert!(!fixture.condition(UPDATE_ROLLED_BACK).0);
}

#[test]
fn by_policy_only_after_the_deadline() {
    for (policy, expected) in [
        (None, None),
        (Some(OnStall::RollBack), Some("UpdateStalled")),
    ] {
        let mut fixture = stalled(policy);
        for _ in 0..3 {
            assert_eq!(fixture.reconcile().action, None);
        }
        assert_eq!(
            fixture.status().rolled_back,
            None,
            "not before the deadline"
        );
        fixture.later(700);
        fixture.reconcile();
        let back = fixture.status().rolled_back;
        assert_eq!(back.map(|b| b.reason).as_deref(), expected);
        if expected.is_some() {
            is_taken_back(&mut fixture);
        }
    }
}

#[test]
fn by_policy_also_without_a_leader() {
    let mut fixture = Fixture::running(1, 0);
    fixture.keeps_pods = true;
    fixture.later(60);
    fixture.reconcile();
    fixture.seen.cluster.spec.update = Some(Update {
        on_stall: Some(OnStall::RollBack),
        ..Update::default()
    });
    image(&mut fixture, "2");
    assert!(matches!(fixture.action(), Some(Action::EvictPod { .. })));
    comes_back_broken(&mut fixture, "demo-0");
    fixture.later(700);
    let action = (0..6).find_map(|_| fixture.reconcile().action);
    assert!(
        matches!(action, Some(Action::DeletePod { .. })),
        "{action:?}"
    );
    assert_eq!(fixture.status().target.unwrap().image, "rqlited:1");
}

#[test]
fn a_program_that_does_not_know_the_data_is_taken_back_at_once() {
    let mut fixture = stalled(None);
    fixture.pod("demo-2").prepared = Some(PrepareReport {
        state: NEWER_FORMAT.to_owned(),
        cluster_id: None,
        lineage: None,
        raft_id: None,
        last_log: None,
        reason: "the data is in format 9".to_owned(),
    });
    is_taken_back(&mut fixture);
    let (refused, reason, text) = fixture.condition(DOWNGRADE_REFUSED);
    assert!(
        refused && reason == "DataIsNewer" && text.contains("format 9"),
        "{reason} {text}"
    );
}

#[test]
fn without_an_earlier_template_nothing_happens() {
    let mut fixture = Fixture::running(3, 0);
    annotate(&mut fixture, names::ROLLBACK_ANNOTATION, "now");
    for _ in 0..4 {
        assert_eq!(fixture.reconcile().action, None);
    }
    assert_eq!(fixture.status().rollback_request.as_deref(), Some("now"));
    assert_eq!(fixture.status().rolled_back, None);
    assert!(fixture.condition(READY).0);
}

/// A cluster whose pods run this release.
fn at(release: &str) -> Fixture {
    let mut fixture = Fixture::running(3, 0);
    image(&mut fixture, release);
    for _ in 0..4 {
        fixture.reconcile();
    }
    assert!(fixture.status().target.unwrap().worked_at.is_some());
    fixture
}

#[test]
fn an_older_release_is_refused_before_any_pod_is_touched() {
    for (now, next, refused) in [
        ("v0.2.0", "v0.1.9", true),
        ("v1.0.0", "0.9.0", true),
        ("v0.2.3", "v0.2.1", false),
        ("v0.2.0", "v0.3.0", false),
        ("v0.2.0", "dev", false),
        ("dev", "v0.1.0", false),
    ] {
        let mut fixture = at(now);
        image(&mut fixture, next);
        let before = fixture.status().target.unwrap();
        let plan = fixture.reconcile();
        fixture.reconcile();
        let target = fixture.status().target.unwrap();
        assert_eq!(target == before, refused, "{now} {next}");
        let (is, reason, text) = fixture.condition(DOWNGRADE_REFUSED);
        assert_eq!(is, refused, "{now} {next}: {text}");
        if !refused {
            continue;
        }
        assert_eq!(reason, "OlderRelease");
        assert!(text.contains("rqlite.dev/allow-downgrade"), "{text}");
        assert!(!fixture.condition(READY).0);
        let sets = plan.objects.iter().filter(|o| o.id().0 == "StatefulSet");
        assert_eq!(sets.count(), 1, "the present template is still applied");
        annotate(&mut fixture, names::ALLOW_DOWNGRADE_ANNOTATION, next);
        fixture.reconcile();
        assert!(fixture.status().target.unwrap().image.ends_with(next));
    }
}

#[test]
fn what_a_newer_default_image_is_called() {
    for (default, own, expected) in [
        ("rqlited:v0.2.0", "v0.1.0", true),
        ("rqlited:v0.1.0", "v0.2.0", false),
        ("rqlited:v0.2.0", "v0.2.0", false),
        ("rqlited:2", "mine", false),
    ] {
        let mut fixture = at(own);
        fixture.seen.operator.node_image = default.to_owned();
        fixture.reconcile();
        let (is, _, text) = fixture.condition(UPDATE_AVAILABLE);
        assert_eq!(is, expected, "{default} {own}: {text}");
        assert!(fixture.condition(READY).0, "a hint only");
    }
    let mut fixture = Fixture::running(3, 0);
    fixture.seen.operator.node_image = "rqlited:2".to_owned();
    fixture.reconcile();
    let (is, _, text) = fixture.condition(UPDATE_AVAILABLE);
    assert!(
        is && text.contains("rqlited:2 is the operator's default"),
        "{text}"
    );
    assert!(text.contains("rqlite.dev/update-image=rqlited:2"), "{text}");
}
