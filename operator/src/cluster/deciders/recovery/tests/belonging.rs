//! Recoveries of a cluster that was deleted and created again, owners, and how long objects are kept.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use k8s_openapi::jiff::Timestamp;
use operator_api::{RqliteRecovery, RqliteRecoveryStatus};

use super::*;

fn at(second: i64) -> Time {
    Time(Timestamp::from_second(second).unwrap())
}

fn last(fixture: &mut Fixture) -> &mut RqliteRecovery {
    fixture.seen.recoveries.last_mut().unwrap()
}

/// The object's status says that it has ended in this phase, so many seconds ago.
fn ended(fixture: &mut Fixture, phase: RecoveryPhase, seconds: i64) {
    let now = fixture.seen.now.0.as_second();
    let recovery = last(fixture);
    recovery.metadata.creation_timestamp = Some(at(now - seconds));
    recovery.status = Some(RqliteRecoveryStatus {
        phase: Some(phase),
        ..RqliteRecoveryStatus::default()
    });
}

#[test]
fn a_recovery_of_an_earlier_cluster_of_the_name_is_superseded() {
    type Change = fn(&mut RqliteRecovery);
    let earlier: [(&str, Change); 4] = [
        ("it was created before", |r| {
            r.metadata.creation_timestamp = Some(at(1_000));
        }),
        ("spec.clusterRef.uid is former", |r| {
            r.spec.cluster_ref.uid = Some("former".to_owned());
        }),
        ("earlier RqliteCluster with uid former", |r| {
            r.status = Some(RqliteRecoveryStatus {
                cluster_uid: Some("former".to_owned()),
                phase: Some(AwaitingApproval),
                ..RqliteRecoveryStatus::default()
            });
        }),
        ("earlier RqliteCluster with uid former", |r| {
            r.metadata.owner_references = Some(vec![OwnerReference {
                kind: "RqliteCluster".to_owned(),
                name: NAME.to_owned(),
                uid: "former".to_owned(),
                ..OwnerReference::default()
            }]);
        }),
    ];
    for (text, change) in earlier {
        let mut fixture = two_of_three();
        fixture.seen.cluster.metadata.creation_timestamp = Some(at(2_000));
        let name = fixture.recovery(|s| s.accept_data_loss = true);
        change(last(&mut fixture));
        assert_eq!(fixture.action(), None, "{text}");
        assert_eq!(phase(&fixture, &name), Rejected);
        let said = message(&fixture, &name);
        assert!(said.contains(text), "{said}");
        let status = fixture.recovery_status(&name);
        assert_eq!(status.conditions[0].reason, "Superseded");
        assert!(fixture.reconcile().unowned.is_empty(), "{text}");
    }
}

#[test]
fn an_attempt_of_an_earlier_cluster_does_not_disable_automatic_recovery() {
    for (created, tried) in [(1_000, false), (3_000, true)] {
        let mut fixture = two_of_three();
        fixture.seen.cluster.metadata.creation_timestamp = Some(at(2_000));
        fixture.seen.cluster.spec.quorum_recovery = Some(QuorumRecovery {
            policy: Some(RecoveryPolicy::Automatic),
            accept_data_loss: true,
            ..QuorumRecovery::default()
        });
        fixture.recovery(|_| {});
        ended(&mut fixture, Failed, 0);
        let recovery = last(&mut fixture);
        recovery.metadata.name = Some("demo-automatic-1".to_owned());
        recovery.metadata.creation_timestamp = Some(at(created));
        fixture.later(1801);
        let acted = matches!(fixture.action(), Some(Action::CreateRecovery { .. }));
        assert_eq!(acted, !tried, "{created}");
    }
}

#[test]
fn a_recovery_gets_its_owner_and_its_cluster_at_first_sight() {
    let mut fixture = two_of_three();
    let name = fixture.recovery(|_| {});
    let plan = fixture.reconcile();
    let names: Vec<_> = plan.unowned.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, [name.as_str()]);
    let status = fixture.recovery_status(&name);
    assert_eq!(status.cluster_uid.as_deref(), Some("cluster-uid"));
    let owner = owner(&fixture.seen.cluster).unwrap();
    last(&mut fixture).metadata.owner_references = Some(vec![owner]);
    assert!(fixture.reconcile().unowned.is_empty());
    fixture.seen.cluster.spec.paused = true;
    last(&mut fixture).metadata.owner_references = None;
    assert!(fixture.reconcile().unowned.is_empty(), "nothing is changed");
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story, step by step")]
fn ended_recoveries_are_deleted_in_the_end() {
    const DAY: i64 = 24 * 3600;
    type Change = fn(&mut RqliteRecovery);
    let cases: [(&str, RecoveryPhase, i64, Change, bool); 9] = [
        ("young", Succeeded, 29 * DAY, |_| {}, false),
        ("old", Rejected, 30 * DAY, |_| {}, true),
        ("open", AwaitingApproval, 90 * DAY, |_| {}, false),
        ("dry run", Succeeded, DAY, |r| r.spec.dry_run = true, true),
        (
            "at once",
            Failed,
            0,
            |r| r.spec.ttl_seconds_after_finished = Some(0),
            true,
        ),
        (
            "longer",
            Failed,
            90 * DAY,
            |r| {
                r.spec.ttl_seconds_after_finished = Some(i32::MAX);
            },
            false,
        ),
        (
            "Argo CD",
            Failed,
            90 * DAY,
            |r| {
                let marks = [("argocd.argoproj.io/tracking-id".to_owned(), "x".to_owned())];
                r.metadata.annotations = Some(marks.into());
            },
            false,
        ),
        (
            "Flux",
            Failed,
            90 * DAY,
            |r| {
                let marks = [(
                    "kustomize.toolkit.fluxcd.io/name".to_owned(),
                    "x".to_owned(),
                )];
                r.metadata.labels = Some(marks.into());
            },
            false,
        ),
        (
            "the attempt of this lineage",
            Failed,
            90 * DAY,
            |r| {
                r.metadata.name = Some("demo-automatic-clusteru-1".to_owned());
            },
            false,
        ),
    ];
    for (what, phase, age, change, goes) in cases {
        let mut fixture = Fixture::running(3, 0);
        fixture.recovery(|_| {});
        ended(&mut fixture, phase, age);
        change(last(&mut fixture));
        let plan = fixture.reconcile();
        assert_eq!(plan.expired.len(), usize::from(goes), "{what}");
    }
    let mut many = Fixture::running(3, 0);
    for age in 0..13 {
        many.recovery(|_| {});
        ended(&mut many, Rejected, age);
    }
    let gone = many.reconcile().expired;
    let gone: Vec<_> = gone.iter().map(|r| r.uid.clone()).collect();
    let oldest = many.seen.recoveries.iter().skip(10);
    let oldest: Vec<_> = oldest.map(|r| r.metadata.uid.clone().unwrap()).collect();
    assert_eq!(gone, oldest, "the newest ten stay");
}
