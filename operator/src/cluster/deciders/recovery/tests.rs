use super::*;
use crate::cluster::{
    action::Action,
    facts::observation::Prepared,
    scene::{NAME, Scene},
};
use operator_api::{
    cluster::{QuorumRecovery, RecoveryPolicy},
    names,
    recovery::{RecoveryMode, RecoveryPhase, RecoveryRecord},
    state::FormingPhase,
    status::{OperationType, Phase, Pool, Step},
};

use RecoveryPhase::{
    Applying, AwaitingApproval, Failed, Fencing, Inspecting, Rejected, Rejoining, Succeeded,
    Verifying,
};

/// Two of three voters have lost their claims; `demo-2` is left.
fn two_of_three() -> Scene {
    let mut scene = Scene::running(3, 0);
    scene.wipe("demo-0");
    scene.wipe("demo-1");
    scene.leaderless();
    scene.pass();
    scene
}

fn phase(scene: &Scene, name: &str) -> RecoveryPhase {
    scene.told(name).phase.unwrap()
}

/// Passes until the survivor has been checked and the recovery says something that lasts.
fn inspect(scene: &mut Scene, survivor: &str) {
    match scene.action() {
        Some(Action::CheckMember { name, .. }) => assert_eq!(name, survivor),
        other => panic!("{other:?}"),
    }
    scene.check(survivor, false, None);
    scene.pass();
}

#[test]
fn without_consent_it_stops_and_says_what_may_be_lost() {
    let mut scene = two_of_three();
    scene.node("demo-2").last_log_index = 97;
    scene.node("demo-2").commit_index = 96;
    let name = scene.recovery(|_| {});
    inspect(&mut scene, "demo-2");
    let told = scene.told(&name);
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
    assert_eq!(scene.action(), None, "nothing is touched");
    assert_eq!(scene.seen.voters.as_ref().unwrap().replicas, 3);
    // The next one takes over.
    scene.later(1);
    let next = scene.recovery(|s| s.accept_data_loss = true);
    scene.pass();
    assert_eq!(phase(&scene, &name), Rejected);
    assert_eq!(phase(&scene, &next), Fencing);
}

/// A recovery with consent, `consents`, of the second of the first one and before it by name.
fn consents_in_the_same_second(scene: &mut Scene) {
    scene.recovery(|s| s.accept_data_loss = true);
    let created = scene.seen.recoveries[0].metadata.creation_timestamp.clone();
    let consents = scene.seen.recoveries.last_mut().unwrap();
    consents.metadata.creation_timestamp = created;
    consents.metadata.name = Some("consents".to_owned());
}

#[test]
fn of_two_of_the_same_second_the_one_that_was_not_looked_at_takes_over() {
    let mut scene = two_of_three();
    let asked = scene.recovery(|_| {});
    inspect(&mut scene, "demo-2");
    assert_eq!(phase(&scene, &asked), AwaitingApproval);
    consents_in_the_same_second(&mut scene);
    scene.pass();
    assert_eq!(phase(&scene, &asked), Rejected);
    assert_eq!(phase(&scene, "consents"), Fencing);
}

#[test]
fn who_was_rejected_for_another_does_not_take_over_from_it() {
    let mut scene = two_of_three();
    let asked = scene.recovery(|_| {});
    scene.pass();
    // Looked at more than once: its survivor is still to be checked.
    consents_in_the_same_second(&mut scene);
    scene.pass();
    assert_eq!(phase(&scene, &asked), Rejected);
    assert_eq!(phase(&scene, "consents"), Inspecting);
    inspect(&mut scene, "demo-2");
    assert_eq!(phase(&scene, "consents"), Fencing);
}

#[test]
fn a_dry_run_touches_nothing() {
    let mut scene = two_of_three();
    let name = scene.recovery(|s| {
        s.dry_run = true;
        s.accept_data_loss = true;
    });
    inspect(&mut scene, "demo-2");
    assert_eq!(phase(&scene, &name), Succeeded);
    assert!(scene.told(&name).message.unwrap().starts_with("dry run"));
    assert_eq!(scene.status().operation, None);
    assert_eq!(scene.action(), None);
}

#[test]
fn refused_where_a_quorum_may_come_back() {
    let reject = |scene: &mut Scene, change: &dyn Fn(&mut operator_api::RqliteRecoverySpec)| {
        let name = scene.recovery(|s| {
            s.accept_data_loss = true;
            change(s);
        });
        scene.pass();
        scene.later(i64::try_from(PATIENCE_SECONDS).unwrap());
        scene.pass();
        let told = scene.told(&name);
        assert_eq!(told.phase, Some(Rejected), "{told:?}");
        assert_ne!(
            scene.status().operation.map(|o| o.kind),
            Some(OperationType::Recover)
        );
        told.message.unwrap()
    };
    let mut led = Scene::running(3, 0);
    assert!(reject(&mut led, &|_| {}).contains("demo-0 leads"));

    let mut cut_off = Scene::running(3, 0);
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

    // Two lost, one unschedulable of five: three may be there.
    let mut five = Scene::running(5, 0);
    five.wipe("demo-0");
    five.wipe("demo-1");
    five.down("demo-2", "0/3 nodes are available");
    five.leaderless();
    let text = reject(&mut five, &|_| {});
    assert!(text.contains("3 of 5 voters may come back"), "{text}");

    let mut asleep = two_of_three();
    asleep.seen.cluster.spec.hibernated = true;
    assert!(reject(&mut asleep, &|_| {}).contains("hibernated"));

    let mut nobody = Scene::running(1, 0);
    nobody.wipe("demo-0");
    nobody.leaderless();
    assert!(reject(&mut nobody, &|_| {}).contains("load a backup"));
}

#[test]
fn the_newest_log_by_term_then_index() {
    let mut scene = Scene::running(5, 0);
    for lost in ["demo-0", "demo-1", "demo-2"] {
        scene.wipe(lost);
    }
    scene.leaderless();
    scene.pass();
    // A longer log of an older term is not newer.
    (
        scene.node("demo-3").last_log_term,
        scene.node("demo-3").last_log_index,
    ) = (2, 500);
    (
        scene.node("demo-4").last_log_term,
        scene.node("demo-4").last_log_index,
    ) = (3, 101);
    let name = scene.recovery(|_| {});
    inspect(&mut scene, "demo-4");
    assert_eq!(scene.told(&name).survivor.as_deref(), Some("demo-4"));
    assert_eq!(scene.told(&name).candidates.len(), 5);
}

#[test]
fn a_corrupt_survivor_is_passed_over() {
    let mut scene = Scene::running(5, 0);
    for lost in ["demo-0", "demo-1", "demo-2"] {
        scene.wipe(lost);
    }
    scene.leaderless();
    scene.node("demo-4").last_log_index = 110;
    scene.pass();
    let name = scene.recovery(|_| {});
    assert!(matches!(scene.action(), Some(Action::CheckMember { name, .. }) if name == "demo-4"));
    scene.check("demo-4", false, Some("row 7 missing from index"));
    inspect(&mut scene, "demo-3");
    let told = scene.told(&name);
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
        let mut scene = Scene::running(5, 0);
        for name in ["demo-1", "demo-2", "demo-4"] {
            scene.wipe(name);
        }
        scene.leaderless();
        scene.node("demo-3").leader = Some(left.to_owned());
        scene.pass();
        let name = scene.recovery(|s| s.accept_data_loss = true);
        let action = scene.action();
        (scene.told(&name), action)
    };
    // demo-0 answers and knows that it leads nobody; demo-1 lost its disk.
    assert!(matches!(lost("demo-0").1, Some(Action::CheckMember { .. })));
    assert!(matches!(lost("demo-1").1, Some(Action::CheckMember { .. })));
    let mut scene = Scene::running(5, 0);
    for name in ["demo-1", "demo-2", "demo-4"] {
        scene.wipe(name);
    }
    scene.down("demo-0", "NodeLost");
    scene.leaderless();
    scene.node("demo-3").leader = Some("demo-0".to_owned());
    scene.pass();
    let name = scene.recovery(|s| s.accept_data_loss = true);
    assert_eq!(scene.action(), None);
    assert_eq!(
        scene.told(&name).phase,
        Some(Inspecting),
        "it may lead somewhere"
    );
}

#[test]
fn whoever_has_not_spoken_is_waited_for() {
    let mut scene = Scene::running(5, 0);
    for lost in ["demo-0", "demo-1", "demo-2"] {
        scene.wipe(lost);
    }
    scene.down("demo-3", "CrashLoopBackOff");
    scene.leaderless();
    scene.pass();
    let name = scene.recovery(|s| s.accept_data_loss = true);
    scene.later(1000);
    scene.pass();
    let told = scene.told(&name);
    assert_eq!(told.phase, Some(Inspecting));
    assert!(told.message.unwrap().contains("demo-3"));
    scene.later(1);
    let next = scene.recovery(|s| {
        s.accept_data_loss = true;
        s.ignore_members = vec!["demo-3".to_owned()];
    });
    inspect(&mut scene, "demo-4");
    assert_eq!(phase(&scene, &next), Fencing);
}

#[test]
fn a_read_replica_only_if_a_person_names_it() {
    let mut scene = Scene::running(3, 1);
    scene.wipe("demo-0");
    scene.wipe("demo-1");
    scene.leaderless();
    scene.node("demo-ro-0").last_log_index = 105;
    scene.pass();
    let name = scene.recovery(|s| s.accept_data_loss = true);
    scene.pass();
    let told = scene.told(&name);
    assert_eq!(told.phase, Some(AwaitingApproval));
    assert!(told.message.unwrap().contains("demo-ro-0 has a newer log"));
    scene.later(1);
    let next = scene.recovery(|s| {
        s.accept_data_loss = true;
        s.survivor = Some("demo-ro-0".to_owned());
    });
    inspect(&mut scene, "demo-ro-0");
    assert_eq!(phase(&scene, &next), Fencing);
    assert_eq!(scene.status().recovery.unwrap().survivor, "demo-ro-0");
}

fn stopped(scene: &mut Scene) {
    scene.seen.pods.clear();
    scene.seen.nodes.clear();
}

fn set(scene: &mut Scene, replicas: i32) {
    scene.seen.voters.as_mut().unwrap().replicas = replicas;
}

/// The survivor runs again, as the only member of the new history.
fn survivor_runs(scene: &mut Scene, model: &Scene, name: &str, lineage: &str, epoch: i64) {
    let pod = model.seen.pods.iter().find(|p| p.name == name).unwrap();
    scene.seen.pods.push(pod.clone());
    let node = model.seen.nodes[name].clone();
    scene.seen.nodes.insert(name.to_owned(), node);
    let node = scene.node(name);
    node.raft_id = format!("{name}#new");
    node.lineage = Some(operator_api::state::StateLineage {
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

/// Up to the moment when the survivor is to be started.
fn fenced() -> (Scene, String) {
    let mut scene = two_of_three();
    let name = scene.recovery(|s| s.accept_data_loss = true);
    inspect(&mut scene, "demo-2");
    assert_eq!(phase(&scene, &name), Fencing);
    assert_eq!(scene.status().phase, Some(Phase::Recovering));
    assert!(matches!(
        scene.action(),
        Some(Action::SetReplicas { from: 3, to: 0, .. })
    ));
    assert_eq!(
        scene.seen.state.as_ref().unwrap().phase,
        FormingPhase::Formed,
        "no plan before all have stopped"
    );
    set(&mut scene, 0);
    scene.pass();
    let text = scene.told(&name).message.unwrap();
    assert!(
        text.contains("demo-0 on m1, demo-1 on m1, demo-2 on m1"),
        "{text}"
    );
    stopped(&mut scene);
    scene.pass();
    assert_eq!(phase(&scene, &name), Applying);
    (scene, name)
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story, step by step")]
fn from_fencing_to_the_end() {
    let (mut scene, name) = fenced();
    let model = Scene::running(3, 0);
    // First the files, and only what was seen to be there is relied on.
    let plan = scene.pass();
    assert_eq!(plan.action, None);
    let state = scene.seen.state.clone().unwrap();
    assert_eq!(
        (state.phase, state.lineage.epoch),
        (FormingPhase::Recovering, 0)
    );
    assert!(
        matches!(
            scene.action(),
            Some(Action::SetReplicas { from: 0, to: 3, .. })
        ),
        "the pods below the survivor's start as well, and are held"
    );
    set(&mut scene, 3);
    let uid = format!("uid-{name}");
    survivor_runs(&mut scene, &model, "demo-2", &uid, 1);
    scene.pass();
    assert_eq!(phase(&scene, &name), Verifying);
    assert!(matches!(scene.action(), Some(Action::CheckMember { name, .. }) if name == "demo-2"));
    assert_eq!(
        scene.status().lineage.unwrap().epoch,
        0,
        "not before it is proven"
    );
    scene.check("demo-2", true, None);
    scene.pass();
    let status = scene.status();
    assert_eq!(phase(&scene, &name), Rejoining);
    let lineage = status.lineage.clone().unwrap();
    assert_eq!((lineage.epoch, lineage.id.as_str()), (1, uid.as_str()));
    assert_eq!(status.operation, None);
    scene.pass();
    let state = scene.seen.state.clone().unwrap();
    assert_eq!(
        (state.phase, state.lineage.epoch),
        (FormingPhase::Formed, 1)
    );
    let plan = scene.seen.plan.clone().unwrap();
    assert_eq!(
        plan.to_lineage, state.lineage,
        "data that comes back is put aside"
    );
    assert_eq!(scene.status().members.len(), 1);
    // The others have joined.
    for other in ["demo-0", "demo-1"] {
        survivor_runs(&mut scene, &model, other, &uid, 1);
        scene.node(other).is_leader = false;
        scene.node(other).leader = Some("demo-2".to_owned());
    }
    let config: Vec<_> = ["demo-0", "demo-1", "demo-2"]
        .map(|n| crate::cluster::facts::observation::ConfigMember {
            raft_id: format!("{n}#new"),
            name: n.to_owned(),
            voter: true,
        })
        .to_vec();
    for node in ["demo-0", "demo-1", "demo-2"] {
        scene.node(node).config.clone_from(&config);
    }
    scene.pass();
    let told = scene.told(&name);
    assert_eq!(told.phase, Some(Succeeded), "{told:?}");
    let entered: Vec<_> = told.steps.iter().map(|s| s.phase).collect();
    assert_eq!(
        entered,
        [
            Inspecting, Fencing, Applying, Verifying, Rejoining, Succeeded
        ]
    );
    assert_eq!(told.conditions[0].status, "True");
    scene.pass();
    assert_eq!(
        scene.status().phase,
        Some(Phase::Running),
        "{:?}",
        scene.status()
    );
}

#[test]
fn the_plan_is_what_the_nodes_read() {
    let (mut scene, _) = fenced();
    scene.pass();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/plan.json");
    let text = serde_json::to_string_pretty(scene.seen.plan.as_ref().unwrap()).unwrap();
    if std::env::var_os("GOLDEN").is_some() {
        std::fs::write(golden, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(golden).unwrap());
}

#[test]
fn a_pod_that_may_still_run_holds_everything_up() {
    let mut scene = two_of_three();
    let name = scene.recovery(|s| {
        s.accept_data_loss = true;
        s.assume_stopped = vec!["demo-0".to_owned()];
    });
    inspect(&mut scene, "demo-2");
    set(&mut scene, 0);
    scene.seen.pods.retain(|p| p.name != "demo-2");
    scene.seen.nodes.clear();
    scene.later(10_000);
    scene.pass();
    assert_eq!(phase(&scene, &name), Fencing, "demo-1 may run");
    let text = scene.told(&name).message.unwrap();
    assert!(
        text.contains("demo-1 on m1") && !text.contains("demo-0"),
        "{text}"
    );
    scene.seen.pods.retain(|p| p.name != "demo-1");
    scene.pass();
    assert_eq!(
        phase(&scene, &name),
        Applying,
        "a person says that demo-0 has stopped"
    );
}

#[test]
fn what_ends_it_amid() {
    // A leader appears while nodes are being stopped.
    let mut scene = two_of_three();
    let name = scene.recovery(|s| s.accept_data_loss = true);
    inspect(&mut scene, "demo-2");
    let led = Scene::running(3, 0);
    scene.seen.nodes.clone_from(&led.seen.nodes);
    scene.seen.pods.clone_from(&led.seen.pods);
    scene.pass();
    assert_eq!(phase(&scene, &name), Failed);
    assert_eq!(scene.status().operation, None);

    // The survivor's disk goes as well.
    let (mut scene, name) = fenced();
    scene.pass();
    scene.claim("demo-2").lost = Some("its machine is gone".to_owned());
    scene.pass();
    assert_eq!(phase(&scene, &name), Failed);
    scene.pass();
    assert_eq!(
        scene.seen.state.as_ref().unwrap().phase,
        FormingPhase::Formed
    );

    // Its preparation says that the plan does not fit.
    let (mut scene, name) = fenced();
    scene.pass();
    set(&mut scene, 3);
    let model = Scene::running(3, 0);
    scene.seen.pods.clone_from(&model.seen.pods);
    scene.down("demo-2", "prepare: Error");
    scene.pod("demo-2").prepared = Some(Prepared {
        state: "Refused".to_owned(),
        cluster_id: None,
        lineage: None,
        raft_id: None,
        last_log: None,
        reason: "the log ends at index 9".to_owned(),
    });
    scene.pass();
    assert_eq!(phase(&scene, &name), Applying, "it may be a passing fault");
    scene.later(121);
    scene.pass();
    assert_eq!(phase(&scene, &name), Failed);
    assert!(scene.told(&name).message.unwrap().contains("index 9"));
}

#[test]
fn a_survivor_that_started_without_the_plan_is_started_again() {
    let (mut scene, _) = fenced();
    scene.pass();
    set(&mut scene, 3);
    let model = Scene::running(3, 0);
    survivor_runs(&mut scene, &model, "demo-2", "fresh-0-0", 0);
    scene.leaderless();
    assert!(matches!(scene.action(), Some(Action::DeletePod { name, .. }) if name == "demo-2"));
}

#[test]
fn all_voters_under_new_addresses() {
    let mut scene = Scene::running(3, 1);
    scene.leaderless();
    scene.later(60);
    let name = scene.recovery(|s| s.mode = RecoveryMode::RewriteAddresses);
    inspect(&mut scene, "demo-0");
    assert_eq!(phase(&scene, &name), Fencing, "{:?}", scene.told(&name));
    scene.seen.readers.as_mut().unwrap().replicas = 0;
    set(&mut scene, 0);
    stopped(&mut scene);
    scene.pass();
    scene.pass();
    let plan = scene.seen.plan.clone().unwrap();
    assert_eq!(plan.others, operator_api::state::PlanOthers::Recover);
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
        scene.action(),
        Some(Action::SetReplicas { from: 0, to: 3, .. })
    ));
    set(&mut scene, 3);
    // Two of three are a quorum, but the third one could not follow the plan any more once it is closed.
    rewritten(&mut scene, &["demo-0", "demo-1"]);
    for _ in 0..3 {
        assert_eq!(scene.pass().action, None);
    }
    assert_eq!(phase(&scene, &name), Verifying);
    let text = scene.told(&name).message.unwrap();
    assert!(text.contains("until demo-2 has followed"), "{text}");
    rewritten(&mut scene, &["demo-2"]);
    assert!(matches!(scene.action(), Some(Action::CheckMember { name, .. }) if name == "demo-0"));
}

/// These follow a plan that keeps everybody's data; demo-0 leads.
fn rewritten(scene: &mut Scene, names: &[&str]) {
    let model = Scene::running(3, 1);
    let plan = scene.seen.plan.clone().unwrap();
    let member = |name: &str, voter: bool| crate::cluster::facts::observation::ConfigMember {
        raft_id: format!("{name}#new"),
        name: name.to_owned(),
        voter,
    };
    let peers = plan.peers.iter();
    let config: Vec<_> = peers.map(|p| member(&p.id, !p.non_voter)).collect();
    for name in names {
        let (lineage, epoch) = (&plan.to_lineage.id, plan.to_lineage.epoch);
        survivor_runs(scene, &model, name, lineage, epoch);
        let node = scene.node(name);
        (node.leader, node.is_leader) = (Some("demo-0".to_owned()), *name == "demo-0");
        node.config.clone_from(&config);
    }
}

#[test]
fn of_a_cluster_of_which_nothing_is_known_yet_nothing_is_refused() {
    let mut scene = Scene::running(3, 0);
    scene.leaderless();
    for name in ["demo-0", "demo-1", "demo-2"] {
        scene.node(name).config_index = 5;
    }
    let nodes = std::mem::take(&mut scene.seen.nodes);
    let status = scene.seen.cluster.status.as_mut().unwrap();
    // As after an adoption.
    status.members.clear();
    status.configuration_index = None;
    let name = scene.recovery(|s| s.mode = RecoveryMode::RewriteAddresses);
    scene.pass();
    assert_eq!(phase(&scene, &name), Inspecting, "{:?}", scene.told(&name));
    scene.seen.nodes = nodes;
    scene.pass();
    inspect(&mut scene, "demo-0");
    assert_eq!(phase(&scene, &name), Fencing, "{:?}", scene.told(&name));
}

fn automatic_policy(scene: &mut Scene, accept_data_loss: bool) {
    scene.seen.cluster.spec.quorum_recovery = Some(QuorumRecovery {
        policy: Some(RecoveryPolicy::Automatic),
        accept_data_loss,
        ..QuorumRecovery::default()
    });
}

#[test]
fn by_itself_only_within_its_guards() {
    let created = |scene: &mut Scene| {
        scene.later(1801);
        match scene.action() {
            Some(Action::CreateRecovery { name, .. }) => Some(name),
            None => None,
            other => panic!("{other:?}"),
        }
    };
    let mut scene = two_of_three();
    assert_eq!(created(&mut scene), None, "not asked for");
    automatic_policy(&mut scene, false);
    assert_eq!(created(&mut scene), None, "something may be lost");
    automatic_policy(&mut scene, true);
    assert_eq!(created(&mut scene).as_deref(), Some("demo-automatic-1"));
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
    let mut four = Scene::running(4, 0);
    four.wipe("demo-0");
    four.wipe("demo-1");
    four.leaderless();
    four.pass();
    automatic_policy(&mut four, false);
    assert!(
        created(&mut four).is_some(),
        "half of an even number has everything"
    );
    let mut silent = Scene::running(5, 0);
    for lost in ["demo-0", "demo-1", "demo-2"] {
        silent.wipe(lost);
    }
    silent.down("demo-4", "CrashLoopBackOff");
    silent.leaderless();
    silent.pass();
    automatic_policy(&mut silent, true);
    assert_eq!(created(&mut silent), None, "one has not spoken");
}

#[test]
fn the_object_that_it_creates() {
    let scene = Scene::running(3, 0);
    let object = object(
        &scene.seen.cluster,
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
    let (scene, _) = fenced();
    let operation = scene.status().operation.unwrap();
    assert_eq!(
        (operation.kind, operation.step),
        (OperationType::Recover, Step::Apply)
    );
}

#[test]
fn a_corrected_template_lets_a_survivor_start_that_could_not() {
    let mut scene = two_of_three();
    let name = scene.recovery(|s| s.accept_data_loss = true);
    inspect(&mut scene, "demo-2");
    scene.pass();
    assert_eq!(phase(&scene, &name), Fencing);
    // All have stopped, and the survivor's new pod is of an image that does not exist.
    let survivor = scene.pod("demo-2").clone();
    scene.seen.pods.clear();
    scene.seen.nodes.clear();
    scene.seen.voters.as_mut().unwrap().replicas = 0;
    for _ in 0..3 {
        scene.pass();
    }
    assert_eq!(phase(&scene, &name), Applying);
    scene.seen.voters.as_mut().unwrap().replicas = 3;
    scene.seen.pods.push(survivor);
    scene.down("demo-2", "ImagePullBackOff");
    assert_eq!(scene.action(), None);
    scene.keeps_pods = true;
    scene.seen.cluster.spec.image = Some(operator_api::cluster::Image {
        tag: Some("2".to_owned()),
        ..operator_api::cluster::Image::default()
    });
    let action = scene.action();
    assert!(
        matches!(&action, Some(Action::DeletePod { name, .. }) if name == "demo-2"),
        "{action:?}"
    );
    assert_eq!(phase(&scene, &name), Applying);
}

#[test]
fn a_survivor_whose_pod_somebody_takes_away_is_started_again_at_every_step() {
    for step in [Step::Apply, Step::Verify] {
        let mut scene = two_of_three();
        let name = scene.recovery(|s| s.accept_data_loss = true);
        inspect(&mut scene, "demo-2");
        scene.seen.pods.clear();
        scene.seen.nodes.clear();
        scene.seen.voters.as_mut().unwrap().replicas = 0;
        for _ in 0..4 {
            scene.pass();
        }
        assert_eq!(phase(&scene, &name), Applying);
        let status = scene.seen.cluster.status.as_mut().unwrap();
        status.operation.as_mut().unwrap().step = step;
        scene.seen.voters.as_mut().unwrap().replicas = 1;
        let action = scene.action();
        assert!(
            matches!(action, Some(Action::SetReplicas { from: 1, to: 3, .. })),
            "{step:?}: {action:?}"
        );
    }
}

#[test]
fn read_replicas_that_were_put_away_are_not_waited_for_unless_nobody_else_is_left() {
    let put_away = |lost: &[&str]| {
        let mut scene = Scene::running(3, 1);
        scene.leaderless();
        let readers = scene.seen.cluster.spec.read_replicas.as_mut().unwrap();
        readers.replicas = Some(0);
        scene.seen.readers.as_mut().unwrap().replicas = 0;
        scene.seen.pods.retain(|pod| pod.pool == Pool::Voter);
        scene.seen.nodes.remove("demo-ro-0");
        for name in lost {
            scene.wipe(name);
        }
        scene.pass();
        scene
    };
    let mut scene = put_away(&["demo-0", "demo-1"]);
    let name = scene.recovery(|s| s.accept_data_loss = true);
    inspect(&mut scene, "demo-2");
    assert_eq!(phase(&scene, &name), Fencing);
    let told = scene.told(&name).candidates;
    let reader = told.iter().find(|c| c.member == "demo-ro-0").unwrap();
    let reason = reader.reason.as_deref().unwrap();
    assert!(reason.contains("readReplicas.replicas to 1"), "{reason}");
    let mut scene = put_away(&["demo-0", "demo-1", "demo-2"]);
    let name = scene.recovery(|s| s.accept_data_loss = true);
    scene.pass();
    let told = scene.told(&name);
    assert_eq!(told.phase, Some(Inspecting));
    let message = told.message.unwrap();
    assert!(message.contains("readReplicas.replicas to 1"), "{message}");
    // As told; without a leader it is started all the same.
    let readers = scene.seen.cluster.spec.read_replicas.as_mut().unwrap();
    readers.replicas = Some(1);
    assert!(matches!(
        scene.action(),
        Some(Action::SetReplicas { from: 0, to: 1, .. })
    ));
}

#[test]
fn a_read_replica_that_joined_unseen_can_be_the_survivor() {
    let mut scene = Scene::running(1, 1);
    // The last configuration on record is without it.
    let status = scene.seen.cluster.status.as_mut().unwrap();
    status.members.retain(|m| m.name == "demo-0");
    status.configuration_index = Some(3);
    scene.node("demo-ro-0").config_index = 5;
    scene.wipe("demo-0");
    scene.leaderless();
    scene.pass();
    let name = scene.recovery(|s| s.accept_data_loss = true);
    scene.pass();
    assert_eq!(phase(&scene, &name), AwaitingApproval);
    let message = scene.told(&name).message.unwrap();
    assert!(
        message.contains("the read replica demo-ro-0 is"),
        "{message}"
    );
}

#[test]
fn a_voting_read_replica_is_given_back_only_where_the_others_decide_without_it() {
    let removes = |surplus: &[&str]| {
        let mut scene = Scene::running(3, 1);
        let mut config = scene.node("demo-0").config.clone();
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
            scene.node(name).config.clone_from(&config);
        }
        let status = scene.seen.cluster.status.as_mut().unwrap();
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
            let action = scene.pass().action;
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
    let mut scene = Scene::running(4, 0);
    for name in ["demo-0", "demo-1", "demo-2", "demo-3"] {
        for member in &mut scene.node(name).config {
            member.voter = member.name != "demo-3";
        }
    }
    scene.pass();
    scene.wipe("demo-0");
    scene.wipe("demo-1");
    scene.leaderless();
    scene.pass();
    let name = scene.recovery(|_| {});
    inspect(&mut scene, "demo-2");
    assert_eq!(phase(&scene, &name), AwaitingApproval);
    let message = scene.told(&name).message.unwrap();
    assert!(message.contains("1 of 3 voters left"), "{message}");
}

#[test]
fn who_left_the_configuration_is_the_last_hope_and_only_by_name() {
    let smaller = |lost: &[&str]| {
        let mut scene = Scene::running(3, 0);
        scene.seen.cluster.spec.replicas = 2;
        for name in ["demo-0", "demo-1"] {
            let node = scene.node(name);
            node.config.retain(|m| m.name != "demo-2");
            node.config_index = 9;
        }
        scene.node("demo-2").last_log_index = 98;
        scene.pass();
        for name in lost {
            scene.wipe(name);
        }
        scene.leaderless();
        scene.pass();
        scene
    };
    // Somebody of the configuration is left.
    let mut scene = smaller(&["demo-0"]);
    let name = scene.recovery(|s| s.survivor = Some("demo-2".to_owned()));
    scene.pass();
    assert_eq!(phase(&scene, &name), Rejected);
    let name = scene.recovery(|s| s.accept_data_loss = true);
    inspect(&mut scene, "demo-1");
    assert_eq!(phase(&scene, &name), Fencing);
    // Nobody is.
    let mut scene = smaller(&["demo-0", "demo-1"]);
    let name = scene.recovery(|s| s.accept_data_loss = true);
    assert_eq!(scene.action(), None);
    let told = scene.told(&name);
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
    scene.later(1);
    let named = |s: &mut operator_api::RqliteRecoverySpec| s.survivor = Some("demo-2".to_owned());
    let name = scene.recovery(named);
    inspect(&mut scene, "demo-2");
    let told = scene.told(&name);
    assert_eq!(told.phase, Some(AwaitingApproval));
    assert_eq!(told.possibly_lost_entries, Some(2));
    scene.later(1);
    let name = scene.recovery(|s| {
        named(s);
        s.accept_data_loss = true;
    });
    scene.pass();
    assert_eq!(phase(&scene, &name), Fencing);
    assert_eq!(scene.status().recovery.unwrap().survivor, "demo-2");
    // Without data there is no hope.
    let mut scene = smaller(&["demo-0", "demo-1"]);
    scene.node("demo-2").config.clear();
    let name = scene.recovery(|s| s.accept_data_loss = true);
    scene.pass();
    assert_eq!(phase(&scene, &name), Rejected);
}

#[test]
fn who_started_before_the_plan_was_there_is_started_again() {
    let (mut scene, _) = fenced();
    scene.pass();
    // Somebody has raised the StatefulSet while all stopped: this one runs in the former history.
    let model = Scene::running(3, 0);
    set(&mut scene, 3);
    for (name, history) in [("demo-2", "uid"), ("demo-0", "fresh-0-0")] {
        survivor_runs(&mut scene, &model, name, history, 0);
    }
    let to = scene.status().recovery.unwrap().to;
    scene
        .node("demo-2")
        .lineage
        .as_mut()
        .unwrap()
        .id
        .clone_from(&to.id);
    scene.node("demo-0").is_leader = false;
    scene.node("demo-0").leader = None;
    for step in [Step::Apply, Step::Verify] {
        let status = scene.seen.cluster.status.as_mut().unwrap();
        status.operation.as_mut().unwrap().step = step;
        let action = scene.action();
        assert!(
            matches!(&action, Some(Action::DeletePod { uid, .. }) if uid == "pod-demo-0"),
            "{step:?}: {action:?}"
        );
    }
    scene.pod("demo-0").deleting = true;
    assert!(matches!(scene.action(), Some(Action::CheckMember { name, .. }) if name == "demo-2"));
}
