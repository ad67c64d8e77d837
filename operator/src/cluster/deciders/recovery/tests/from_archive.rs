//! From the archive: only where nothing else is left, only with consent, and then with empty volumes.
use node_contract::{FormingPhase, status::AutoRestoreStatus};
use operator_api::{
    cluster::Archive,
    recovery::{RecoveryMode, RecoveryPhase},
    status::{ArchiveStatus, BootstrapRestoreState, QUORUM_LOST},
    store::{S3, StoreTarget},
};

use crate::cluster::{
    action::Action,
    facts::observation::{NodeStatus, PrepareReport},
    fixture::Fixture,
};

fn archive() -> Archive {
    Archive {
        target: StoreTarget {
            s3: Some(S3 {
                bucket: "bkt".to_owned(),
                prefix: Some("demo".to_owned()),
                ..S3::default()
            }),
            ..StoreTarget::default()
        },
        ..Archive::default()
    }
}

/// Three voters with an archive up to index 90, of which `lost` have lost their volumes; the others are
/// stopped.
fn outage(lost: &[&str]) -> Fixture {
    let mut fixture = Fixture::running(3, 0);
    fixture.seen.cluster.spec.archive = Some(archive());
    let lineage = fixture.status().lineage.unwrap().id;
    let status = fixture.seen.cluster.status.as_mut().unwrap();
    status.archive = Some(ArchiveStatus {
        uri: Some(archive().target.uri()),
        lineage: Some(lineage),
        archived_index: Some(90),
        archived_time: Some("2026-11-29T08:00:00Z".into()),
        ..ArchiveStatus::default()
    });
    for name in ["demo-0", "demo-1", "demo-2"] {
        fixture.down(name, "");
        fixture.pod(name).stuck = None;
        if lost.contains(&name) {
            fixture.claim(name).lost = Some("its machine is gone".to_owned());
        }
    }
    fixture.reconcile();
    fixture
}

const ALL: [&str; 3] = ["demo-0", "demo-1", "demo-2"];

fn wish(fixture: &mut Fixture, consent: bool) -> String {
    let name = fixture.recovery(|spec| {
        spec.mode = RecoveryMode::FromArchive;
        spec.accept_data_loss = consent;
    });
    fixture.later(60);
    name
}

fn said(fixture: &Fixture, name: &str) -> (RecoveryPhase, String) {
    let status = fixture.recovery_status(name);
    (status.phase.unwrap(), status.message.unwrap_or_default())
}

#[test]
fn what_is_lost_is_announced_and_needs_consent() {
    let mut fixture = outage(&ALL);
    fixture.later(1000);
    fixture.reconcile();
    let (is_lost, _, text) = fixture.condition(QUORUM_LOST);
    assert!(is_lost, "{text}");
    for part in [
        "reaches to index 90",
        "at most 10 entries",
        "FromArchive",
        "--from-archive",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let name = wish(&mut fixture, false);
    assert_eq!(fixture.action(), None);
    let (phase, text) = said(&fixture, &name);
    assert_eq!(phase, RecoveryPhase::AwaitingApproval, "{text}");
    assert!(text.contains("at most 10 entries"), "{text}");
    assert_eq!(
        fixture.recovery_status(&name).possibly_lost_entries,
        Some(10)
    );
    let dry = fixture.recovery(|spec| {
        spec.mode = RecoveryMode::FromArchive;
        spec.dry_run = true;
    });
    assert_eq!(fixture.action(), None);
    let (phase, text) = said(&fixture, &dry);
    assert_eq!(phase, RecoveryPhase::Succeeded, "{text}");
}

#[test]
fn it_is_refused_while_data_may_be_left() {
    let refused = |fixture: &mut Fixture, part: &str| {
        let name = wish(fixture, true);
        assert_eq!(fixture.action(), None, "{part}");
        let (phase, text) = said(fixture, &name);
        assert_eq!(phase, RecoveryPhase::Rejected, "{part}: {text}");
        assert!(text.contains(part), "{text}");
        assert!(fixture.status().bootstrapped_at.is_some());
    };
    // One of three is only stopped, unreachable, or on a machine that may come back.
    refused(&mut outage(&["demo-0", "demo-1"]), "demo-2");
    let mut fixture = outage(&["demo-0", "demo-1"]);
    fixture.pod("demo-2").ready = true;
    refused(&mut fixture, "Unreachable");
    refused(&mut outage(&[]), "demo-0");
    // It answers, and has more than the archive.
    let alive = |last: u64| {
        let mut fixture = outage(&["demo-0", "demo-1"]);
        let node = Fixture::running(3, 0).node("demo-2").clone();
        let node = NodeStatus {
            leader: None,
            ready: false,
            last_log_index: last,
            ..node
        };
        let answer = crate::cluster::facts::observation::ProbeResult::Ok(node);
        fixture.seen.nodes.insert("demo-2".to_owned(), answer);
        fixture
    };
    refused(&mut alive(95), "demo-2");
    // It answers, and has less: the archive loses less.
    let mut fixture = alive(50);
    let name = wish(&mut fixture, true);
    let action = fixture.action();
    assert!(
        matches!(action, Some(Action::SetReplicas { to: 0, .. })),
        "{action:?} {:?}",
        said(&fixture, &name)
    );
    // The node that is to restore has a volume with data that is of no use: a person deletes it.
    let mut fixture = outage(&["demo-1", "demo-2"]);
    fixture.pod("demo-0").prepared = Some(PrepareReport {
        state: "Damaged".to_owned(),
        cluster_id: None,
        lineage: None,
        raft_id: None,
        last_log: None,
        reason: "a page is torn".to_owned(),
    });
    refused(&mut fixture, "delete its claim and its pod");
    // Without an archive there is nothing to begin from.
    let mut fixture = outage(&ALL);
    fixture.seen.cluster.spec.archive = None;
    refused(&mut fixture, "has no archive");
    // A healthy cluster.
    let mut fixture = Fixture::running(3, 0);
    fixture.seen.cluster.spec.archive = Some(archive());
    refused(&mut fixture, "leads");
}

#[test]
#[expect(clippy::too_many_lines, reason = "one walk from loss to service")]
fn all_volumes_lost_one_object_and_service_is_back() {
    let mut fixture = outage(&ALL);
    let before = fixture.status();
    let name = wish(&mut fixture, true);
    let action = fixture.action();
    assert!(
        matches!(action, Some(Action::SetReplicas { to: 0, .. })),
        "{action:?}"
    );
    fixture.seen.voters.as_mut().unwrap().replicas = 0;
    fixture.seen.pods.clear();
    fixture.seen.nodes.clear();
    // Lost claims are deleted, one after another, by uid.
    for _ in 0..3 {
        let action = fixture.action();
        let Some(Action::DeleteClaim { uid, .. }) = action else {
            panic!("{action:?} {:?}", said(&fixture, &name));
        };
        fixture.seen.claims.retain(|claim| claim.uid != uid);
    }
    fixture.reconcile();
    let status = fixture.status();
    assert!(status.bootstrapped_at.is_none() && status.members.is_empty());
    assert_eq!(status.cluster_id, before.cluster_id);
    let (old, new) = (before.lineage.unwrap(), status.lineage.clone().unwrap());
    assert!(new.id != old.id && new.epoch == old.epoch + 1, "{new:?}");
    let record = status.bootstrap_restore.clone().unwrap();
    assert_eq!(record.state, BootstrapRestoreState::Restoring);
    let source = record.source.unwrap();
    assert!(
        source.contains(&old.id) && source.contains("at its end"),
        "{source}"
    );
    assert_eq!(said(&fixture, &name).0, RecoveryPhase::Restoring);
    let action = fixture.action();
    assert!(
        matches!(action, Some(Action::SetReplicas { to: 1, .. })),
        "{action:?}"
    );
    let state = fixture.seen.state.clone().unwrap();
    assert_eq!(state.phase, FormingPhase::Forming);
    assert_eq!((state.expect, state.members.len()), (1, 1));
    // The first node restores.
    let one = Fixture::running(1, 0);
    fixture.seen.voters.as_mut().unwrap().replicas = 1;
    fixture.seen.pods = one.seen.pods;
    fixture.seen.claims = one.seen.claims;
    fixture.seen.nodes = one.seen.nodes;
    fixture.claim("demo-0").uid = "new".to_owned();
    fixture.pod("demo-0").ready = false;
    let lineage = (&new).into();
    let node = fixture.node("demo-0");
    node.lineage = Some(lineage);
    node.cluster_id = before.cluster_id;
    node.ready = false;
    fixture.reconcile();
    assert!(fixture.status().bootstrapped_at.is_none());
    let node = fixture.node("demo-0");
    node.ready = true;
    node.auto_restore = Some(AutoRestoreStatus {
        state: AutoRestoreStatus::RESTORED.to_owned(),
        index: Some(90),
        ..AutoRestoreStatus::default()
    });
    fixture.pod("demo-0").ready = true;
    fixture.reconcile();
    let status = fixture.status();
    assert!(status.bootstrapped_at.is_some(), "{:?}", status.conditions);
    assert_eq!(said(&fixture, &name).0, RecoveryPhase::Rejoining);
    // The others come, as by any scaling.
    let grown = (0..6).find_map(|_| {
        let action = fixture.reconcile().action;
        action.filter(|action| matches!(action, Action::SetReplicas { to: 2, .. }))
    });
    assert!(grown.is_some(), "{:?}", fixture.status().conditions);
    assert_eq!(said(&fixture, &name).0, RecoveryPhase::Rejoining);
}
