use super::*;
use crate::cluster::{
    action::Action,
    facts::observation::PrepareReport,
    fixture::{Fixture, NAME},
};
use node_contract::FormingPhase;
use operator_api::{
    cluster::{QuorumRecovery, RecoveryPolicy},
    names,
    recovery::{RecoveryMode, RecoveryPhase, RecoveryRecord},
    status::{OperationType, Phase, Pool, Step},
};

use RecoveryPhase::{
    Applying, AwaitingApproval, Failed, Fencing, Inspecting, Rejected, Rejoining, Succeeded,
    Verifying,
};

/// Two of three voters have lost their claims; `demo-2` is left.
fn two_of_three() -> Fixture {
    let mut fixture = Fixture::running(3, 0);
    fixture.wipe("demo-0");
    fixture.wipe("demo-1");
    fixture.leaderless();
    fixture.reconcile();
    fixture
}

fn phase(fixture: &Fixture, name: &str) -> RecoveryPhase {
    fixture.recovery_status(name).phase.unwrap()
}

/// Reconciles until the survivor has been checked and the recovery has left that phase.
fn inspect(fixture: &mut Fixture, survivor: &str) {
    match fixture.action() {
        Some(Action::CheckMember { name, .. }) => assert_eq!(name, survivor),
        other => panic!("{other:?}"),
    }
    fixture.check(survivor, false, None);
    fixture.reconcile();
}

#[test]
fn without_consent_it_stops_and_says_what_may_be_lost() {
    let mut fixture = two_of_three();
    fixture.node("demo-2").last_log_index = 97;
    fixture.node("demo-2").commit_index = 96;
    let name = fixture.recovery(|_| {});
    inspect(&mut fixture, "demo-2");
    let told = fixture.recovery_status(&name);
    assert_eq!(told.phase, Some(AwaitingApproval));
    assert_eq!(told.survivor.as_deref(), Some("demo-2"));
    assert_eq!(told.possibly_lost_entries, Some(3));
    let message = told.message.unwrap();
    for part in [
        "index 97 of term 3",
        "highest commit index seen: 100",
        "known to be missing: 3",
        "1 of 3 voters left",
        "acceptDataLoss: true",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(fixture.action(), None, "nothing is touched");
    assert_eq!(fixture.seen.voters.as_ref().unwrap().replicas, 3);
    // The next one takes over.
    fixture.later(1);
    let next = fixture.recovery(|s| s.accept_data_loss = true);
    fixture.reconcile();
    assert_eq!(phase(&fixture, &name), Rejected);
    assert_eq!(phase(&fixture, &next), Fencing);
}

/// A recovery with consent, named `consents`: created in the same second as the first one, but before it by
/// name.
fn consents_in_the_same_second(fixture: &mut Fixture) {
    fixture.recovery(|s| s.accept_data_loss = true);
    let created = fixture.seen.recoveries[0]
        .metadata
        .creation_timestamp
        .clone();
    let consents = fixture.seen.recoveries.last_mut().unwrap();
    consents.metadata.creation_timestamp = created;
    consents.metadata.name = Some("consents".to_owned());
}

#[test]
fn of_two_of_the_same_second_the_one_that_was_not_looked_at_takes_over() {
    let mut fixture = two_of_three();
    let asked = fixture.recovery(|_| {});
    inspect(&mut fixture, "demo-2");
    assert_eq!(phase(&fixture, &asked), AwaitingApproval);
    consents_in_the_same_second(&mut fixture);
    fixture.reconcile();
    assert_eq!(phase(&fixture, &asked), Rejected);
    assert_eq!(phase(&fixture, "consents"), Fencing);
}

#[test]
fn who_was_rejected_for_another_does_not_take_over_from_it() {
    let mut fixture = two_of_three();
    let asked = fixture.recovery(|_| {});
    fixture.reconcile();
    // Reconciled more than once: its survivor is still to be checked.
    consents_in_the_same_second(&mut fixture);
    fixture.reconcile();
    assert_eq!(phase(&fixture, &asked), Rejected);
    assert_eq!(phase(&fixture, "consents"), Inspecting);
    inspect(&mut fixture, "demo-2");
    assert_eq!(phase(&fixture, "consents"), Fencing);
}

#[test]
fn a_dry_run_touches_nothing() {
    let mut fixture = two_of_three();
    let name = fixture.recovery(|s| {
        s.dry_run = true;
        s.accept_data_loss = true;
    });
    inspect(&mut fixture, "demo-2");
    assert_eq!(phase(&fixture, &name), Succeeded);
    assert!(
        fixture
            .recovery_status(&name)
            .message
            .unwrap()
            .starts_with("dry run")
    );
    assert_eq!(fixture.status().operation, None);
    assert_eq!(fixture.action(), None);
}

#[test]
fn refused_where_a_quorum_may_come_back() {
    let reject = |fixture: &mut Fixture, change: &dyn Fn(&mut operator_api::RqliteRecoverySpec)| {
        let name = fixture.recovery(|s| {
            s.accept_data_loss = true;
            change(s);
        });
        fixture.reconcile();
        fixture.later(i64::try_from(PATIENCE_SECONDS).unwrap());
        fixture.reconcile();
        let told = fixture.recovery_status(&name);
        assert_eq!(told.phase, Some(Rejected), "{told:?}");
        assert_ne!(
            fixture.status().operation.map(|o| o.kind),
            Some(OperationType::Recover)
        );
        told.message.unwrap()
    };
    let mut led = Fixture::running(3, 0);
    assert!(reject(&mut led, &|_| {}).contains("demo-0 leads"));

    let mut cut_off = Fixture::running(3, 0);
    cut_off.silent("demo-0");
    cut_off.silent("demo-1");
    cut_off.leaderless();
    assert!(reject(&mut cut_off, &|_| {}).contains("not known to be lost"));
    let text = reject(&mut cut_off, &|s| {
        s.ignore_members = vec!["demo-0".to_owned(), "demo-1".to_owned()];
    });
    assert!(
        text.contains("demo-0 is in ignoreMembers, but it runs"),
        "{text}"
    );

    // Of five, two are lost and one is unschedulable: three may come back.
    let mut five = Fixture::running(5, 0);
    five.wipe("demo-0");
    five.wipe("demo-1");
    five.down("demo-2", "0/3 nodes are available");
    five.leaderless();
    let text = reject(&mut five, &|_| {});
    assert!(text.contains("3 of 5 voters may come back"), "{text}");

    let mut asleep = two_of_three();
    asleep.seen.cluster.spec.hibernated = true;
    assert!(reject(&mut asleep, &|_| {}).contains("hibernated"));

    let mut nobody = Fixture::running(1, 0);
    nobody.wipe("demo-0");
    nobody.leaderless();
    assert!(reject(&mut nobody, &|_| {}).contains("load a backup"));
}

#[test]
fn the_newest_log_by_term_then_index() {
    let mut fixture = Fixture::running(5, 0);
    for lost in ["demo-0", "demo-1", "demo-2"] {
        fixture.wipe(lost);
    }
    fixture.leaderless();
    fixture.reconcile();
    // A longer log of an older term is not newer.
    (
        fixture.node("demo-3").last_log_term,
        fixture.node("demo-3").last_log_index,
    ) = (2, 500);
    (
        fixture.node("demo-4").last_log_term,
        fixture.node("demo-4").last_log_index,
    ) = (3, 101);
    let name = fixture.recovery(|_| {});
    inspect(&mut fixture, "demo-4");
    assert_eq!(
        fixture.recovery_status(&name).survivor.as_deref(),
        Some("demo-4")
    );
    assert_eq!(fixture.recovery_status(&name).candidates.len(), 5);
}

#[test]
fn a_corrupt_survivor_is_passed_over() {
    let mut fixture = Fixture::running(5, 0);
    for lost in ["demo-0", "demo-1", "demo-2"] {
        fixture.wipe(lost);
    }
    fixture.leaderless();
    fixture.node("demo-4").last_log_index = 110;
    fixture.reconcile();
    let name = fixture.recovery(|_| {});
    assert!(matches!(fixture.action(), Some(Action::CheckMember { name, .. }) if name == "demo-4"));
    fixture.check("demo-4", false, Some("row 7 missing from index"));
    inspect(&mut fixture, "demo-3");
    let told = fixture.recovery_status(&name);
    assert_eq!(told.survivor.as_deref(), Some("demo-3"));
    let passed_over = told
        .candidates
        .iter()
        .find(|c| c.member == "demo-4")
        .unwrap();
    assert!(passed_over.reason.as_ref().unwrap().contains("row 7"));
}

#[test]
fn a_follower_may_believe_in_a_leader_that_is_none() {
    let lost = |left: &str| {
        let mut fixture = Fixture::running(5, 0);
        for name in ["demo-1", "demo-2", "demo-4"] {
            fixture.wipe(name);
        }
        fixture.leaderless();
        fixture.node("demo-3").leader = Some(left.to_owned());
        fixture.reconcile();
        let name = fixture.recovery(|s| s.accept_data_loss = true);
        let action = fixture.action();
        (fixture.recovery_status(&name), action)
    };
    // demo-0 answers and reports that it does not lead; demo-1 lost its disk.
    assert!(matches!(lost("demo-0").1, Some(Action::CheckMember { .. })));
    assert!(matches!(lost("demo-1").1, Some(Action::CheckMember { .. })));
    let mut fixture = Fixture::running(5, 0);
    for name in ["demo-1", "demo-2", "demo-4"] {
        fixture.wipe(name);
    }
    fixture.down("demo-0", "NodeLost");
    fixture.leaderless();
    fixture.node("demo-3").leader = Some("demo-0".to_owned());
    fixture.reconcile();
    let name = fixture.recovery(|s| s.accept_data_loss = true);
    assert_eq!(fixture.action(), None);
    assert_eq!(
        fixture.recovery_status(&name).phase,
        Some(Inspecting),
        "it may lead somewhere"
    );
}

#[test]
fn whoever_has_not_spoken_is_waited_for() {
    let mut fixture = Fixture::running(5, 0);
    for lost in ["demo-0", "demo-1", "demo-2"] {
        fixture.wipe(lost);
    }
    fixture.down("demo-3", "CrashLoopBackOff");
    fixture.leaderless();
    fixture.reconcile();
    let name = fixture.recovery(|s| s.accept_data_loss = true);
    fixture.later(1000);
    fixture.reconcile();
    let told = fixture.recovery_status(&name);
    assert_eq!(told.phase, Some(Inspecting));
    assert!(told.message.unwrap().contains("demo-3"));
    fixture.later(1);
    let next = fixture.recovery(|s| {
        s.accept_data_loss = true;
        s.ignore_members = vec!["demo-3".to_owned()];
    });
    inspect(&mut fixture, "demo-4");
    assert_eq!(phase(&fixture, &next), Fencing);
}

#[test]
fn a_read_replica_only_if_a_person_names_it() {
    let mut fixture = Fixture::running(3, 1);
    fixture.wipe("demo-0");
    fixture.wipe("demo-1");
    fixture.leaderless();
    fixture.node("demo-ro-0").last_log_index = 105;
    fixture.reconcile();
    let name = fixture.recovery(|s| s.accept_data_loss = true);
    fixture.reconcile();
    let told = fixture.recovery_status(&name);
    assert_eq!(told.phase, Some(AwaitingApproval));
    assert!(told.message.unwrap().contains("demo-ro-0 has a newer log"));
    fixture.later(1);
    let next = fixture.recovery(|s| {
        s.accept_data_loss = true;
        s.survivor = Some("demo-ro-0".to_owned());
    });
    inspect(&mut fixture, "demo-ro-0");
    assert_eq!(phase(&fixture, &next), Fencing);
    assert_eq!(fixture.status().recovery.unwrap().survivor, "demo-ro-0");
}

fn stopped(fixture: &mut Fixture) {
    fixture.seen.pods.clear();
    fixture.seen.nodes.clear();
}

fn set(fixture: &mut Fixture, replicas: i32) {
    fixture.seen.voters.as_mut().unwrap().replicas = replicas;
}

/// The survivor runs again, as the only member of the new lineage.
fn survivor_runs(fixture: &mut Fixture, model: &Fixture, name: &str, lineage: &str, epoch: u64) {
    let pod = model.seen.pods.iter().find(|p| p.name == name).unwrap();
    fixture.seen.pods.push(pod.clone());
    let node = model.seen.nodes[name].clone();
    fixture.seen.nodes.insert(name.to_owned(), node);
    let node = fixture.node(name);
    node.raft_id = format!("{name}#new");
    node.lineage = Some(node_contract::Lineage {
        id: lineage.to_owned(),
        epoch,
    });
    (node.leader, node.is_leader, node.term, node.ready) = (Some(name.to_owned()), true, 9, true);
    node.config = vec![crate::cluster::facts::observation::ConfigMember {
        raft_id: format!("{name}#new"),
        name: name.to_owned(),
        voter: true,
    }];
}

/// A recovery up to the moment when the survivor is to be started.
fn fenced() -> (Fixture, String) {
    let mut fixture = two_of_three();
    let name = fixture.recovery(|s| s.accept_data_loss = true);
    inspect(&mut fixture, "demo-2");
    assert_eq!(phase(&fixture, &name), Fencing);
    assert_eq!(fixture.status().phase, Some(Phase::Recovering));
    assert!(matches!(
        fixture.action(),
        Some(Action::SetReplicas { from: 3, to: 0, .. })
    ));
    assert_eq!(
        fixture.seen.state.as_ref().unwrap().phase,
        FormingPhase::Formed,
        "no plan before all have stopped"
    );
    set(&mut fixture, 0);
    fixture.reconcile();
    let text = fixture.recovery_status(&name).message.unwrap();
    assert!(
        text.contains("demo-0 on m1, demo-1 on m1, demo-2 on m1"),
        "{text}"
    );
    stopped(&mut fixture);
    fixture.reconcile();
    assert_eq!(phase(&fixture, &name), Applying);
    (fixture, name)
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story, step by step")]
fn from_fencing_to_the_end() {
    let (mut fixture, name) = fenced();
    let model = Fixture::running(3, 0);
    // The files come first, and the recovery goes on only once they have been observed.
    let plan = fixture.reconcile();
    assert_eq!(plan.action, None);
    let state = fixture.seen.state.clone().unwrap();
    assert_eq!(
        (state.phase, state.lineage.epoch),
        (FormingPhase::Recovering, 0)
    );
    assert!(
        matches!(
            fixture.action(),
            Some(Action::SetReplicas { from: 0, to: 3, .. })
        ),
        "the pods below the survivor's start as well, and are held"
    );
    set(&mut fixture, 3);
    let uid = format!("uid-{name}");
    survivor_runs(&mut fixture, &model, "demo-2", &uid, 1);
    fixture.reconcile();
    assert_eq!(phase(&fixture, &name), Verifying);
    assert!(matches!(fixture.action(), Some(Action::CheckMember { name, .. }) if name == "demo-2"));
    assert_eq!(
        fixture.status().lineage.unwrap().epoch,
        0,
        "not before it is proven"
    );
    fixture.check("demo-2", true, None);
    fixture.reconcile();
    let status = fixture.status();
    assert_eq!(phase(&fixture, &name), Rejoining);
    let lineage = status.lineage.clone().unwrap();
    assert_eq!((lineage.epoch, lineage.id.as_str()), (1, uid.as_str()));
    assert_eq!(status.operation, None);
    fixture.reconcile();
    let state = fixture.seen.state.clone().unwrap();
    assert_eq!(
        (state.phase, state.lineage.epoch),
        (FormingPhase::Formed, 1)
    );
    let plan = fixture.seen.plan.clone().unwrap();
    assert_eq!(
        plan.to_lineage, state.lineage,
        "data that comes back is put aside"
    );
    assert_eq!(fixture.status().members.len(), 1);
    // The others have joined.
    for other in ["demo-0", "demo-1"] {
        survivor_runs(&mut fixture, &model, other, &uid, 1);
        fixture.node(other).is_leader = false;
        fixture.node(other).leader = Some("demo-2".to_owned());
    }
    let config: Vec<_> = ["demo-0", "demo-1", "demo-2"]
        .map(|n| crate::cluster::facts::observation::ConfigMember {
            raft_id: format!("{n}#new"),
            name: n.to_owned(),
            voter: true,
        })
        .to_vec();
    for node in ["demo-0", "demo-1", "demo-2"] {
        fixture.node(node).config.clone_from(&config);
    }
    fixture.reconcile();
    let told = fixture.recovery_status(&name);
    assert_eq!(told.phase, Some(Succeeded), "{told:?}");
    let entered: Vec<_> = told.steps.iter().map(|s| s.phase).collect();
    assert_eq!(
        entered,
        [
            Inspecting, Fencing, Applying, Verifying, Rejoining, Succeeded
        ]
    );
    assert_eq!(told.conditions[0].status, "True");
    fixture.reconcile();
    assert_eq!(
        fixture.status().phase,
        Some(Phase::Running),
        "{:?}",
        fixture.status()
    );
}

#[test]
fn the_plan_is_what_the_nodes_read() {
    let (mut fixture, _) = fenced();
    fixture.reconcile();
    let plan = fixture.seen.plan.as_ref().unwrap();
    assert_eq!(plan.check(), Ok(()));
    assert_eq!(
        (plan.seed.as_str(), plan.others),
        ("demo-2", node_contract::Others::Park)
    );
    let voters: Vec<_> = plan.peers.iter().map(|p| (&*p.id, p.non_voter)).collect();
    assert_eq!(voters, [("demo-2", false)]);
    let at = (
        plan.expect.min_last_log.term,
        plan.expect.min_last_log.index,
    );
    assert_eq!((plan.expect.incarnation.as_str(), at), ("i0", (3, 100)));
    assert_eq!((plan.from_lineage.epoch, plan.to_lineage.epoch), (0, 1));
}

#[test]
fn a_pod_that_may_still_run_holds_everything_up() {
    let mut fixture = two_of_three();
    let name = fixture.recovery(|s| {
        s.accept_data_loss = true;
        s.assume_stopped = vec!["demo-0".to_owned()];
    });
    inspect(&mut fixture, "demo-2");
    set(&mut fixture, 0);
    fixture.seen.pods.retain(|p| p.name != "demo-2");
    fixture.seen.nodes.clear();
    fixture.later(10_000);
    fixture.reconcile();
    assert_eq!(phase(&fixture, &name), Fencing, "demo-1 may run");
    let text = fixture.recovery_status(&name).message.unwrap();
    assert!(
        text.contains("demo-1 on m1") && !text.contains("demo-0"),
        "{text}"
    );
    fixture.seen.pods.retain(|p| p.name != "demo-1");
    fixture.reconcile();
    assert_eq!(
        phase(&fixture, &name),
        Applying,
        "a person says that demo-0 has stopped"
    );
}

#[test]
fn what_ends_it_amid() {
    // A leader appears while nodes are being stopped.
    let mut fixture = two_of_three();
    let name = fixture.recovery(|s| s.accept_data_loss = true);
    inspect(&mut fixture, "demo-2");
    let led = Fixture::running(3, 0);
    fixture.seen.nodes.clone_from(&led.seen.nodes);
    fixture.seen.pods.clone_from(&led.seen.pods);
    fixture.reconcile();
    assert_eq!(phase(&fixture, &name), Failed);
    assert_eq!(fixture.status().operation, None);

    // The survivor's disk goes as well.
    let (mut fixture, name) = fenced();
    fixture.reconcile();
    fixture.claim("demo-2").lost = Some("its machine is gone".to_owned());
    fixture.reconcile();
    assert_eq!(phase(&fixture, &name), Failed);
    fixture.reconcile();
    assert_eq!(
        fixture.seen.state.as_ref().unwrap().phase,
        FormingPhase::Formed
    );

    // Its preparation reports that the plan does not fit.
    let (mut fixture, name) = fenced();
    fixture.reconcile();
    set(&mut fixture, 3);
    let model = Fixture::running(3, 0);
    fixture.seen.pods.clone_from(&model.seen.pods);
    fixture.down("demo-2", "prepare: Error");
    fixture.pod("demo-2").prepared = Some(PrepareReport {
        state: "Refused".to_owned(),
        cluster_id: None,
        lineage: None,
        raft_id: None,
        last_log: None,
        reason: "the log ends at index 9".to_owned(),
    });
    fixture.reconcile();
    assert_eq!(
        phase(&fixture, &name),
        Applying,
        "it may be a passing fault"
    );
    fixture.later(121);
    fixture.reconcile();
    assert_eq!(phase(&fixture, &name), Failed);
    assert!(
        fixture
            .recovery_status(&name)
            .message
            .unwrap()
            .contains("index 9")
    );
}

#[test]
fn a_survivor_that_started_without_the_plan_is_started_again() {
    let (mut fixture, _) = fenced();
    fixture.reconcile();
    set(&mut fixture, 3);
    let model = Fixture::running(3, 0);
    survivor_runs(&mut fixture, &model, "demo-2", "fresh-0-0", 0);
    fixture.leaderless();
    assert!(matches!(fixture.action(), Some(Action::DeletePod { name, .. }) if name == "demo-2"));
}

#[test]
fn all_voters_under_new_addresses() {
    let mut fixture = Fixture::running(3, 1);
    fixture.leaderless();
    fixture.later(60);
    let name = fixture.recovery(|s| s.mode = RecoveryMode::RewriteAddresses);
    inspect(&mut fixture, "demo-0");
    assert_eq!(
        phase(&fixture, &name),
        Fencing,
        "{:?}",
        fixture.recovery_status(&name)
    );
    fixture.seen.readers.as_mut().unwrap().replicas = 0;
    set(&mut fixture, 0);
    stopped(&mut fixture);
    fixture.reconcile();
    fixture.reconcile();
    let plan = fixture.seen.plan.clone().unwrap();
    assert_eq!(plan.others, node_contract::Others::Recover);
    let peers: Vec<_> = plan
        .peers
        .iter()
        .map(|p| (p.id.as_str(), p.non_voter))
        .collect();
    let expected = [
        ("demo-0", false),
        ("demo-1", false),
        ("demo-2", false),
        ("demo-ro-0", true),
    ];
    assert_eq!(peers, expected);
    assert!(
        plan.peers[1]
            .address
            .starts_with("demo-1.demo-headless.shop.svc.")
    );
    assert!(matches!(
        fixture.action(),
        Some(Action::SetReplicas { from: 0, to: 3, .. })
    ));
    set(&mut fixture, 3);
    // Two of three are a quorum, but the third could not follow the plan any more once the recovery is
    // closed.
    rewritten(&mut fixture, &["demo-0", "demo-1"]);
    for _ in 0..3 {
        assert_eq!(fixture.reconcile().action, None);
    }
    assert_eq!(phase(&fixture, &name), Verifying);
    let text = fixture.recovery_status(&name).message.unwrap();
    assert!(text.contains("until demo-2 has followed"), "{text}");
    rewritten(&mut fixture, &["demo-2"]);
    assert!(matches!(fixture.action(), Some(Action::CheckMember { name, .. }) if name == "demo-0"));
}

/// These nodes follow a plan that keeps everybody's data; demo-0 leads.
fn rewritten(fixture: &mut Fixture, names: &[&str]) {
    let model = Fixture::running(3, 1);
    let plan = fixture.seen.plan.clone().unwrap();
    let member = |name: &str, voter: bool| crate::cluster::facts::observation::ConfigMember {
        raft_id: format!("{name}#new"),
        name: name.to_owned(),
        voter,
    };
    let peers = plan.peers.iter();
    let config: Vec<_> = peers.map(|p| member(&p.id, !p.non_voter)).collect();
    for name in names {
        let (lineage, epoch) = (&plan.to_lineage.id, plan.to_lineage.epoch);
        survivor_runs(fixture, &model, name, lineage, epoch);
        let node = fixture.node(name);
        (node.leader, node.is_leader) = (Some("demo-0".to_owned()), *name == "demo-0");
        node.config.clone_from(&config);
    }
}

#[test]
fn of_a_cluster_of_which_nothing_is_known_yet_nothing_is_refused() {
    let mut fixture = Fixture::running(3, 0);
    fixture.leaderless();
    for name in ["demo-0", "demo-1", "demo-2"] {
        fixture.node(name).config_index = 5;
    }
    let nodes = std::mem::take(&mut fixture.seen.nodes);
    let status = fixture.seen.cluster.status.as_mut().unwrap();
    // For example after an adoption.
    status.members.clear();
    status.configuration_index = None;
    let name = fixture.recovery(|s| s.mode = RecoveryMode::RewriteAddresses);
    fixture.reconcile();
    assert_eq!(
        phase(&fixture, &name),
        Inspecting,
        "{:?}",
        fixture.recovery_status(&name)
    );
    fixture.seen.nodes = nodes;
    fixture.reconcile();
    inspect(&mut fixture, "demo-0");
    assert_eq!(
        phase(&fixture, &name),
        Fencing,
        "{:?}",
        fixture.recovery_status(&name)
    );
}

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
    assert_eq!(created(&mut fixture).as_deref(), Some("demo-automatic-1"));
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
    let mut silent = Fixture::running(5, 0);
    for lost in ["demo-0", "demo-1", "demo-2"] {
        silent.wipe(lost);
    }
    silent.down("demo-4", "CrashLoopBackOff");
    silent.leaderless();
    silent.reconcile();
    automatic_policy(&mut silent, true);
    assert_eq!(created(&mut silent), None, "one has not spoken");
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
}

#[test]
fn the_steps_of_the_operation_are_recorded() {
    let (fixture, _) = fenced();
    let operation = fixture.status().operation.unwrap();
    assert_eq!(
        (operation.kind, operation.step),
        (OperationType::Recover, Step::Apply)
    );
}

#[test]
fn a_corrected_template_lets_a_survivor_start_that_could_not() {
    let mut fixture = two_of_three();
    let name = fixture.recovery(|s| s.accept_data_loss = true);
    inspect(&mut fixture, "demo-2");
    fixture.reconcile();
    assert_eq!(phase(&fixture, &name), Fencing);
    // All have stopped, and the survivor's new pod has an image that does not exist.
    let survivor = fixture.pod("demo-2").clone();
    fixture.seen.pods.clear();
    fixture.seen.nodes.clear();
    fixture.seen.voters.as_mut().unwrap().replicas = 0;
    for _ in 0..3 {
        fixture.reconcile();
    }
    assert_eq!(phase(&fixture, &name), Applying);
    fixture.seen.voters.as_mut().unwrap().replicas = 3;
    fixture.seen.pods.push(survivor);
    fixture.down("demo-2", "ImagePullBackOff");
    assert_eq!(fixture.action(), None);
    fixture.keeps_pods = true;
    fixture.seen.cluster.spec.image = Some(operator_api::cluster::Image {
        tag: Some("2".to_owned()),
        ..operator_api::cluster::Image::default()
    });
    let action = fixture.action();
    assert!(
        matches!(&action, Some(Action::DeletePod { name, .. }) if name == "demo-2"),
        "{action:?}"
    );
    assert_eq!(phase(&fixture, &name), Applying);
}

#[test]
fn a_survivor_whose_pod_somebody_takes_away_is_started_again_at_every_step() {
    for step in [Step::Apply, Step::Verify] {
        let mut fixture = two_of_three();
        let name = fixture.recovery(|s| s.accept_data_loss = true);
        inspect(&mut fixture, "demo-2");
        fixture.seen.pods.clear();
        fixture.seen.nodes.clear();
        fixture.seen.voters.as_mut().unwrap().replicas = 0;
        for _ in 0..4 {
            fixture.reconcile();
        }
        assert_eq!(phase(&fixture, &name), Applying);
        let status = fixture.seen.cluster.status.as_mut().unwrap();
        status.operation.as_mut().unwrap().step = step;
        fixture.seen.voters.as_mut().unwrap().replicas = 1;
        let action = fixture.action();
        assert!(
            matches!(action, Some(Action::SetReplicas { from: 1, to: 3, .. })),
            "{step:?}: {action:?}"
        );
    }
}

#[test]
fn read_replicas_that_were_put_away_are_not_waited_for_unless_nobody_else_is_left() {
    let scaled_away = |lost: &[&str]| {
        let mut fixture = Fixture::running(3, 1);
        fixture.leaderless();
        let readers = fixture.seen.cluster.spec.read_replicas.as_mut().unwrap();
        readers.replicas = Some(0);
        fixture.seen.readers.as_mut().unwrap().replicas = 0;
        fixture.seen.pods.retain(|pod| pod.pool == Pool::Voter);
        fixture.seen.nodes.remove("demo-ro-0");
        for name in lost {
            fixture.wipe(name);
        }
        fixture.reconcile();
        fixture
    };
    let mut fixture = scaled_away(&["demo-0", "demo-1"]);
    let name = fixture.recovery(|s| s.accept_data_loss = true);
    inspect(&mut fixture, "demo-2");
    assert_eq!(phase(&fixture, &name), Fencing);
    let told = fixture.recovery_status(&name).candidates;
    let reader = told.iter().find(|c| c.member == "demo-ro-0").unwrap();
    let reason = reader.reason.as_deref().unwrap();
    assert!(reason.contains("readReplicas.replicas to 1"), "{reason}");
    let mut fixture = scaled_away(&["demo-0", "demo-1", "demo-2"]);
    let name = fixture.recovery(|s| s.accept_data_loss = true);
    fixture.reconcile();
    let told = fixture.recovery_status(&name);
    assert_eq!(told.phase, Some(Inspecting));
    let message = told.message.unwrap();
    assert!(message.contains("readReplicas.replicas to 1"), "{message}");
    // As the message says; it is started even without a leader.
    let readers = fixture.seen.cluster.spec.read_replicas.as_mut().unwrap();
    readers.replicas = Some(1);
    assert!(matches!(
        fixture.action(),
        Some(Action::SetReplicas { from: 0, to: 1, .. })
    ));
}

#[test]
fn a_read_replica_that_joined_unseen_can_be_the_survivor() {
    let mut fixture = Fixture::running(1, 1);
    // The last configuration on record does not contain it.
    let status = fixture.seen.cluster.status.as_mut().unwrap();
    status.members.retain(|m| m.name == "demo-0");
    status.configuration_index = Some(3);
    fixture.node("demo-ro-0").config_index = 5;
    fixture.wipe("demo-0");
    fixture.leaderless();
    fixture.reconcile();
    let name = fixture.recovery(|s| s.accept_data_loss = true);
    fixture.reconcile();
    assert_eq!(phase(&fixture, &name), AwaitingApproval);
    let message = fixture.recovery_status(&name).message.unwrap();
    assert!(
        message.contains("the read replica demo-ro-0 is"),
        "{message}"
    );
}

#[test]
fn a_voting_read_replica_is_given_back_only_where_the_others_decide_without_it() {
    let removes = |surplus: &[&str]| {
        let mut fixture = Fixture::running(3, 1);
        let mut config = fixture.node("demo-0").config.clone();
        for member in &mut config {
            member.voter = true;
        }
        config.extend(surplus.iter().map(|name| {
            crate::cluster::facts::observation::ConfigMember {
                raft_id: format!("{name}#i0"),
                name: (*name).to_owned(),
                voter: true,
            }
        }));
        for name in ["demo-0", "demo-1", "demo-2", "demo-ro-0"] {
            fixture.node(name).config.clone_from(&config);
        }
        let status = fixture.seen.cluster.status.as_mut().unwrap();
        let history = status.lineage.clone().unwrap();
        status.recovery = Some(RecoveryRecord {
            name: "recovery".to_owned(),
            uid: "uid-recovery".to_owned(),
            mode: RecoveryMode::SingleSurvivor,
            phase: Rejoining,
            survivor: "demo-ro-0".to_owned(),
            incarnation: "i0".to_owned(),
            last_log: operator_api::recovery::LogPosition { term: 1, index: 1 },
            from: history.clone(),
            to: history,
            peers: Vec::new(),
            assume_stopped: Vec::new(),
            read_replicas: None,
            possibly_lost_entries: 0,
            message: None,
            steps: Vec::new(),
        });
        (0..3).any(|_| {
            let action = fixture.reconcile().action;
            matches!(action, Some(Action::RemoveMember { name, .. }) if name == "demo-ro-0")
        })
    };
    assert!(removes(&[]));
    assert!(removes(&["demo-3", "demo-4"]), "three of five decide");
    assert!(
        !removes(&["demo-3", "demo-4", "demo-5"]),
        "three of six do not"
    );
}

#[test]
fn a_newcomer_without_a_vote_does_not_count_as_a_voter_that_is_left() {
    let mut fixture = Fixture::running(4, 0);
    for name in ["demo-0", "demo-1", "demo-2", "demo-3"] {
        for member in &mut fixture.node(name).config {
            member.voter = member.name != "demo-3";
        }
    }
    fixture.reconcile();
    fixture.wipe("demo-0");
    fixture.wipe("demo-1");
    fixture.leaderless();
    fixture.reconcile();
    let name = fixture.recovery(|_| {});
    inspect(&mut fixture, "demo-2");
    assert_eq!(phase(&fixture, &name), AwaitingApproval);
    let message = fixture.recovery_status(&name).message.unwrap();
    assert!(message.contains("1 of 3 voters left"), "{message}");
}

#[test]
fn who_left_the_configuration_is_the_last_hope_and_only_by_name() {
    let smaller = |lost: &[&str]| {
        let mut fixture = Fixture::running(3, 0);
        fixture.seen.cluster.spec.replicas = 2;
        for name in ["demo-0", "demo-1"] {
            let node = fixture.node(name);
            node.config.retain(|m| m.name != "demo-2");
            node.config_index = 9;
        }
        fixture.node("demo-2").last_log_index = 98;
        fixture.reconcile();
        for name in lost {
            fixture.wipe(name);
        }
        fixture.leaderless();
        fixture.reconcile();
        fixture
    };
    // A member of the configuration is left.
    let mut fixture = smaller(&["demo-0"]);
    let name = fixture.recovery(|s| s.survivor = Some("demo-2".to_owned()));
    fixture.reconcile();
    assert_eq!(phase(&fixture, &name), Rejected);
    let name = fixture.recovery(|s| s.accept_data_loss = true);
    inspect(&mut fixture, "demo-1");
    assert_eq!(phase(&fixture, &name), Fencing);
    // None is left.
    let mut fixture = smaller(&["demo-0", "demo-1"]);
    let name = fixture.recovery(|s| s.accept_data_loss = true);
    assert_eq!(fixture.action(), None);
    let told = fixture.recovery_status(&name);
    assert_eq!(told.phase, Some(AwaitingApproval));
    let message = told.message.unwrap();
    assert!(
        message.contains("demo-2 has some") && message.contains("index 98"),
        "{message}"
    );
    assert!(
        told.candidates
            .iter()
            .any(|c| c.member == "demo-2" && c.reason.is_none())
    );
    fixture.later(1);
    let named = |s: &mut operator_api::RqliteRecoverySpec| s.survivor = Some("demo-2".to_owned());
    let name = fixture.recovery(named);
    inspect(&mut fixture, "demo-2");
    let told = fixture.recovery_status(&name);
    assert_eq!(told.phase, Some(AwaitingApproval));
    assert_eq!(told.possibly_lost_entries, Some(2));
    fixture.later(1);
    let name = fixture.recovery(|s| {
        named(s);
        s.accept_data_loss = true;
    });
    fixture.reconcile();
    assert_eq!(phase(&fixture, &name), Fencing);
    assert_eq!(fixture.status().recovery.unwrap().survivor, "demo-2");
    // Without data it cannot be used.
    let mut fixture = smaller(&["demo-0", "demo-1"]);
    fixture.node("demo-2").config.clear();
    let name = fixture.recovery(|s| s.accept_data_loss = true);
    fixture.reconcile();
    assert_eq!(phase(&fixture, &name), Rejected);
}

#[test]
fn who_started_before_the_plan_was_there_is_started_again() {
    let (mut fixture, _) = fenced();
    fixture.reconcile();
    // Somebody has raised the StatefulSet during the fencing: this node runs in the former lineage.
    let model = Fixture::running(3, 0);
    set(&mut fixture, 3);
    for (name, history) in [("demo-2", "uid"), ("demo-0", "fresh-0-0")] {
        survivor_runs(&mut fixture, &model, name, history, 0);
    }
    let to = fixture.status().recovery.unwrap().to;
    fixture
        .node("demo-2")
        .lineage
        .as_mut()
        .unwrap()
        .id
        .clone_from(&to.id);
    fixture.node("demo-0").is_leader = false;
    fixture.node("demo-0").leader = None;
    for step in [Step::Apply, Step::Verify] {
        let status = fixture.seen.cluster.status.as_mut().unwrap();
        status.operation.as_mut().unwrap().step = step;
        let action = fixture.action();
        assert!(
            matches!(&action, Some(Action::DeletePod { uid, .. }) if uid == "pod-demo-0"),
            "{step:?}: {action:?}"
        );
    }
    fixture.pod("demo-0").deleting = true;
    assert!(matches!(fixture.action(), Some(Action::CheckMember { name, .. }) if name == "demo-2"));
}
