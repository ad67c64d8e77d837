//! Tests of deletions that are held up.
use operator_api::{
    names,
    status::{DEGRADED, DELETION_BLOCKED, READY},
};

use super::*;
use crate::cluster::fixture::Fixture;

/// A cluster that may be protected, deleted (with these finalizers besides the operator's own), in a
/// namespace that ends.
fn cluster(protected: bool, deleted: Option<&[&str]>, ends: bool) -> Fixture {
    let mut fixture = Fixture::running(3, 0);
    fixture.seen.cluster.spec.deletion_protection = protected;
    fixture.seen.namespace_ends = ends;
    let metadata = &mut fixture.seen.cluster.metadata;
    metadata.finalizers = Some(vec![names::FINALIZER.to_owned()]);
    if let Some(more) = deleted {
        metadata.deletion_timestamp = Some(fixture.seen.now.clone());
        let more = more.iter().map(|f| (*f).to_owned());
        metadata.finalizers.as_mut().unwrap().extend(more);
    }
    fixture
}

#[test]
fn what_blocks_a_deletion_is_a_condition() {
    #[expect(clippy::type_complexity, reason = "a table of cases")]
    let cases: [(bool, Option<&[&str]>, bool, bool, &str); 8] = [
        (false, None, false, false, "NotRequested"),
        (true, None, false, false, "NotRequested"),
        (false, Some(&[]), false, false, "Deleting"),
        (true, Some(&[]), false, true, PROTECTED),
        (true, Some(&["foregroundDeletion"]), false, true, PROTECTED),
        (true, None, true, true, NAMESPACE_ENDS),
        (true, Some(&[]), true, true, NAMESPACE_ENDS),
        (false, None, true, false, "NotRequested"),
    ];
    for (protected, deleted, ends, blocked, reason) in cases {
        let mut fixture = cluster(protected, deleted, ends);
        let plan = fixture.reconcile();
        let case = format!("{protected} {deleted:?} {ends}");
        let (shown, why, text) = fixture.condition(DELETION_BLOCKED);
        assert_eq!((shown, why.as_str()), (blocked, reason), "{case}: {text}");
        assert_eq!(
            text.contains("kubectl patch rqlitecluster demo"),
            blocked,
            "{text}"
        );
        let events = plan
            .notices
            .iter()
            .filter(|e| e.reason == "DeletionBlocked");
        assert_eq!(events.count(), usize::from(blocked && !ends), "{case}");
    }
}

#[test]
fn ready_says_that_a_deletion_is_blocked() {
    let mut fixture = cluster(true, Some(&[]), false);
    for _ in 0..3 {
        fixture.reconcile();
    }
    let (ready, _, text) = fixture.condition(READY);
    assert!(ready, "it serves: {text}");
    assert!(
        text.contains("deletion") && text.contains("DeletionBlocked"),
        "{text}"
    );
}

#[test]
fn the_garbage_collector_is_stopped_once_and_only_for_protected_clusters() {
    let both: &[&str] = &["foregroundDeletion", "orphan"];
    #[expect(clippy::type_complexity, reason = "a table of cases")]
    let cases: [(bool, Option<&[&str]>, &[&str]); 5] = [
        (true, None, &[]),
        (true, Some(&[]), &[]),
        (
            true,
            Some(&["foregroundDeletion", "other/one"]),
            &["foregroundDeletion"],
        ),
        (true, Some(both), both),
        (false, Some(&["foregroundDeletion"]), &[]),
    ];
    for (protected, deleted, expected) in cases {
        let mut fixture = cluster(protected, deleted, false);
        let plan = fixture.reconcile();
        assert_eq!(plan.drop_finalizers, expected, "{protected} {deleted:?}");
    }
    let mut paused = cluster(true, Some(both), false);
    paused.seen.cluster.spec.paused = true;
    assert_eq!(
        paused.reconcile().drop_finalizers,
        both,
        "also while paused"
    );
}

#[test]
fn in_a_namespace_that_ends_nothing_is_created_and_the_wait_is_long() {
    for protected in [true, false] {
        let mut fixture = cluster(protected, None, true);
        fixture.seen.voters = None;
        fixture.seen.pods.clear();
        for _ in 0..3 {
            let plan = fixture.reconcile();
            assert!(plan.objects.is_empty() && plan.action.is_none());
            assert_eq!(plan.event, None, "no event can be created there");
            assert!(plan.again_after_seconds >= 60);
        }
        let (shown, reason, _) = fixture.condition(DEGRADED);
        assert_eq!((shown, reason.as_str()), (true, NAMESPACE_ENDS));
    }
}
