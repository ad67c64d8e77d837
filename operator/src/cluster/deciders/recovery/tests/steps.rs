//! The steps of an admitted recovery, up to its end.
use super::*;

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
    let requested = requested(&mut fixture, "demo-2");
    assert!(matches!(
        &requested,
        Action::CheckMember {
            as_leader: true,
            ..
        }
    ));
    assert_eq!(
        fixture.status().lineage.unwrap().epoch,
        0,
        "not before it is proven"
    );
    fixture.check(&requested, None);
    fixture.reconcile();
    let status = fixture.status();
    assert_eq!(phase(&fixture, &name), Rejoining);
    let lineage = status.lineage.clone().unwrap();
    assert_eq!((lineage.epoch, lineage.id.as_str()), (1, uid.as_str()));
    assert_eq!(status.operation, None);
    // A survivor of a lower ordinal would run alone now: the number of pods is still the operator's.
    set(&mut fixture, 1);
    assert_eq!(fixture.reconcile().edits, []);
    set(&mut fixture, 3);
    let state = fixture.seen.state.clone().unwrap();
    assert_eq!(
        (state.phase, state.lineage.epoch),
        (FormingPhase::Formed, 1)
    );
    let plan = fixture.seen.plan.clone().unwrap();
    assert_eq!(
        plan.to_lineage, state.lineage,
        "data that comes back is parked"
    );
    assert_eq!(fixture.status().members.len(), 1);
    // The others have joined.
    for other in ["demo-0", "demo-1"] {
        survivor_runs(&mut fixture, &model, other, &uid, 1);
        fixture.node(other).is_leader = false;
        fixture.node(other).leader = Some("demo-2".to_owned());
    }
    let config: Vec<_> = ["demo-0", "demo-1", "demo-2"]
        .map(|n| ConfigMember {
            raft_id: format!("{n}#new"),
            name: n.to_owned(),
            voter: true,
        })
        .to_vec();
    for node in ["demo-0", "demo-1", "demo-2"] {
        fixture.node(node).config.clone_from(&config);
    }
    fixture.reconcile();
    let status = fixture.recovery_status(&name);
    assert_eq!(status.phase, Some(Succeeded), "{status:?}");
    let entered: Vec<_> = status.steps.iter().map(|s| s.phase).collect();
    assert_eq!(
        entered,
        [
            Inspecting, Fencing, Applying, Verifying, Rejoining, Succeeded
        ]
    );
    assert_eq!(status.conditions[0].status, "True");
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
    let text = message(&fixture, &name);
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
    assert!(message(&fixture, &name).contains("index 9"));
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
    let text = message(&fixture, &name);
    assert!(text.contains("until demo-2 has followed"), "{text}");
    rewritten(&mut fixture, &["demo-2"]);
    assert!(matches!(fixture.action(), Some(Action::CheckMember { name, .. }) if name == "demo-0"));
}

/// These nodes follow a plan that keeps everybody's data; demo-0 leads.
fn rewritten(fixture: &mut Fixture, names: &[&str]) {
    let model = Fixture::running(3, 1);
    let plan = fixture.seen.plan.clone().unwrap();
    let member = |name: &str, voter: bool| ConfigMember {
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
fn a_voting_read_replica_is_given_back_only_where_the_others_decide_without_it() {
    let removes = |surplus: &[&str]| {
        let mut fixture = Fixture::running(3, 1);
        let mut config = fixture.node("demo-0").config.clone();
        for member in &mut config {
            member.voter = true;
        }
        config.extend(surplus.iter().map(|name| ConfigMember {
            raft_id: format!("{name}#i0"),
            name: (*name).to_owned(),
            voter: true,
        }));
        for name in ["demo-0", "demo-1", "demo-2", "demo-ro-0"] {
            fixture.node(name).config.clone_from(&config);
        }
        let status = fixture.seen.cluster.status.as_mut().unwrap();
        let lineage = status.lineage.clone().unwrap();
        status.recovery = Some(RecoveryRecord {
            name: "recovery".to_owned(),
            uid: "uid-recovery".to_owned(),
            mode: RecoveryMode::SingleSurvivor,
            to_time: None,
            to_index: None,
            phase: Rejoining,
            survivor: "demo-ro-0".to_owned(),
            incarnation: "i0".to_owned(),
            last_log: operator_api::recovery::LogPosition { term: 1, index: 1 },
            from: lineage.clone(),
            to: lineage,
            peers: Vec::new(),
            assume_stopped: Vec::new(),
            read_replicas: None,
            possibly_lost_entries: Some(0),
            skip_database_check: false,
            database_check_timeout: None,
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
fn who_started_before_the_plan_was_there_is_started_again() {
    let (mut fixture, _) = fenced();
    fixture.reconcile();
    // Somebody has raised the StatefulSet during the fencing: this node runs in the former lineage.
    let model = Fixture::running(3, 0);
    set(&mut fixture, 3);
    for (name, lineage) in [("demo-2", "uid"), ("demo-0", "fresh-0-0")] {
        survivor_runs(&mut fixture, &model, name, lineage, 0);
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
