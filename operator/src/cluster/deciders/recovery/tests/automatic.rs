//! Recoveries that the operator creates itself.
use super::*;

fn automatic_policy(fixture: &mut Fixture, accept_data_loss: bool) {
    fixture.seen.cluster.spec.quorum_recovery = Some(QuorumRecovery {
        policy: Some(RecoveryPolicy::Automatic),
        accept_data_loss,
        ..QuorumRecovery::default()
    });
}

#[test]
fn by_itself_only_within_its_guards() {
    let created = |fixture: &mut Fixture| {
        fixture.later(1801);
        match fixture.action() {
            Some(Action::CreateRecovery { name, .. }) => Some(name),
            None => None,
            other => panic!("{other:?}"),
        }
    };
    let mut fixture = two_of_three();
    assert_eq!(created(&mut fixture), None, "not asked for");
    automatic_policy(&mut fixture, false);
    assert_eq!(created(&mut fixture), None, "something may be lost");
    automatic_policy(&mut fixture, true);
    assert_eq!(
        created(&mut fixture).as_deref(),
        Some("demo-automatic-clusteru-1")
    );
    let mut early = two_of_three();
    automatic_policy(&mut early, true);
    early.later(1700);
    assert_eq!(early.action(), None);
    let mut waits = two_of_three();
    automatic_policy(&mut waits, true);
    waits.recovery(|_| {});
    inspect(&mut waits, "demo-2");
    assert_eq!(created(&mut waits), None, "a person is about it");
    let mut again = two_of_three();
    automatic_policy(&mut again, true);
    let now = again.seen.now.clone();
    let status = again.seen.cluster.status.as_mut().unwrap();
    status.automatic_recoveries.push(now);
    assert_eq!(created(&mut again), None, "one a day");
    let mut four = Fixture::running(4, 0);
    four.wipe("demo-0");
    four.wipe("demo-1");
    four.leaderless();
    four.reconcile();
    automatic_policy(&mut four, false);
    assert!(
        created(&mut four).is_some(),
        "half of an even number has everything"
    );
    let mut unreachable = Fixture::running(5, 0);
    for lost in ["demo-0", "demo-1", "demo-2"] {
        unreachable.wipe(lost);
    }
    unreachable.down("demo-4", "CrashLoopBackOff");
    unreachable.leaderless();
    unreachable.reconcile();
    automatic_policy(&mut unreachable, true);
    assert_eq!(created(&mut unreachable), None, "one has not spoken");
}

#[test]
fn the_object_that_it_creates() {
    let fixture = Fixture::running(3, 0);
    let object = object(
        &fixture.seen.cluster,
        "demo-automatic-1",
        true,
        &"x".repeat(5000),
    );
    assert_eq!(object.spec.cluster_ref.name, NAME);
    assert_eq!(object.spec.reason.chars().count(), 1024);
    assert!(
        object
            .metadata
            .labels
            .unwrap()
            .contains_key(names::AUTOMATIC_LABEL)
    );
    assert_eq!(object.metadata.namespace.as_deref(), Some("shop"));
    assert_eq!(object.spec.cluster_ref.uid.as_deref(), Some("cluster-uid"));
    let owner = &object.metadata.owner_references.unwrap()[0];
    assert_eq!(
        (owner.uid.as_str(), owner.name.as_str()),
        ("cluster-uid", NAME)
    );
}
