//! The table of cases.
use super::*;
use node_contract::{Peer, SeedExpectation};

fn lineage(epoch: u64) -> Lineage {
    Lineage {
        id: format!("l{epoch}"),
        epoch,
    }
}

fn state(phase: FormingPhase, epoch: u64) -> StateFile {
    StateFile {
        cluster_id: "c".into(),
        lineage: lineage(epoch),
        phase,
        members: vec!["a".into(), "b".into()],
        expect: 3,
        park: std::collections::BTreeMap::new(),
        parked: None,
    }
}

fn observed(name: &str, holds: Contents) -> Observation {
    Observation {
        name: name.into(),
        format: (2, 2),
        damage: Vec::new(),
        holds,
        recovering_to: None,
        plan_done: None,
        parking: None,
        retired: None,
    }
}

#[test]
fn data_of_a_newer_program_is_left_alone() {
    let mut seen = Observation {
        format: (3, 2),
        damage: vec!["looks broken to this program".to_owned()],
        ..observed("a", data("c", 0))
    };
    let formed = state(FormingPhase::Formed, 0);
    let stopped = decide(&seen, &formed, None);
    let Action::Stop(StopReason::NewerFormat, reason) = stopped else {
        panic!("{stopped:?}");
    };
    assert!(
        reason.contains("format version 3") && reason.contains("run a newer one"),
        "{reason}"
    );
    (seen.format, seen.damage) = ((2, 3), Vec::new());
    assert_eq!(decide(&seen, &formed, None), Action::Start);
}

#[test]
fn data_of_a_removed_member_is_put_away() {
    let retired = |holds, damage: &[&str]| Observation {
        retired: Some("t".into()),
        damage: damage.iter().map(|d| (*d).into()).collect(),
        ..observed("a", holds)
    };
    let away = Action::Retire("t".into());
    let formed = state(FormingPhase::Formed, 0);
    assert_eq!(decide(&retired(data("c", 0), &[]), &formed, None), away);
    assert_eq!(
        decide(&retired(Contents::Nothing, &[]), &formed, None),
        away
    );
    assert_eq!(
        decide(&retired(data("c", 0), &["torn"]), &formed, None),
        away
    );
    let foreign = decide(&retired(data("other", 0), &[]), &formed, None);
    assert!(
        matches!(foreign, Action::Stop(StopReason::Foreign, _)),
        "{foreign:?}"
    );
    let recovering = decide(
        &retired(data("c", 0), &[]),
        &state(FormingPhase::Recovering, 0),
        None,
    );
    assert!(matches!(recovering, Action::Hold(_)), "{recovering:?}");
}

/// Like `data("c", 0)`, with these differences.
fn other_data(incarnation: &str, last_log: LogPosition) -> Contents {
    Contents::Data {
        owner: None,
        cluster_id: Some("c".into()),
        lineage: Some(lineage(0)),
        incarnation: incarnation.into(),
        last_log: Some(last_log),
    }
}

fn data(cluster: &str, epoch: u64) -> Contents {
    Contents::Data {
        owner: None,
        cluster_id: Some(cluster.into()),
        lineage: Some(lineage(epoch)),
        incarnation: "inc".into(),
        last_log: Some(LogPosition { term: 3, index: 30 }),
    }
}

fn born(cluster: &str) -> Contents {
    Contents::Birth {
        cluster_id: cluster.into(),
    }
}

fn plan(others: Others) -> PlanFile {
    PlanFile {
        plan_id: "p".into(),
        cluster_id: "c".into(),
        from_lineage: lineage(0),
        to_lineage: lineage(1),
        seed: "a".into(),
        expect: SeedExpectation {
            incarnation: "inc".into(),
            min_last_log: LogPosition { term: 3, index: 30 },
        },
        peers: vec![Peer {
            id: "a".into(),
            address: "a:1".into(),
            non_voter: false,
        }],
        others,
    }
}

fn create(may_form: bool) -> Action {
    Action::Create { may_form }
}

/// `Stop` and `Hold` reduced to their kind; the texts are for people.
fn kind(action: Action) -> String {
    match action {
        Action::Stop(reason, text) => {
            assert!(!text.is_empty());
            format!("{reason:?}")
        }
        Action::Hold(_) => "Hold".into(),
        other => format!("{other:?}"),
    }
}

/// The decision without a plan.
fn alone(name: &str, holds: Contents, phase: FormingPhase, epoch: u64) -> String {
    kind(decide(&observed(name, holds), &state(phase, epoch), None))
}

#[test]
fn a_directory_without_data() {
    use FormingPhase::{Formed, Forming, Recovering};
    let (forming, joining) = (kind(create(true)), kind(create(false)));
    let nothing = || Contents::Nothing;
    assert_eq!(alone("a", nothing(), Forming, 0), forming, "listed");
    assert_eq!(alone("z", nothing(), Forming, 0), joining, "not listed");
    assert_eq!(
        alone("a", nothing(), Formed, 0),
        joining,
        "too late to form"
    );
    assert_eq!(alone("a", nothing(), Recovering, 0), "Hold");
    assert_eq!(alone("a", born("c"), Forming, 0), forming, "once more");
    assert_eq!(
        alone("a", born("c"), Formed, 0),
        joining,
        "the gate has closed"
    );
    assert_eq!(alone("a", born("d"), Forming, 0), "Foreign");
}

#[test]
fn a_directory_with_data() {
    use FormingPhase::{Formed, Forming, Recovering};
    let start = kind(Action::Start);
    assert_eq!(alone("a", data("c", 0), Formed, 0), start);
    assert_eq!(
        alone("a", data("c", 0), Forming, 0),
        start,
        "formed just now"
    );
    for phase in [Forming, Formed, Recovering] {
        assert_eq!(alone("a", data("d", 0), phase, 0), "Foreign", "{phase:?}");
    }
    assert_eq!(alone("a", data("c", 0), Formed, 1), "StaleLineage");
    assert_eq!(
        alone("a", data("c", 2), Formed, 1),
        "UnknownLineage",
        "recovered by hand"
    );
    assert_eq!(alone("a", data("c", 0), Recovering, 0), "Hold");
    let Contents::Data {
        cluster_id,
        lineage,
        incarnation,
        last_log,
        ..
    } = data("c", 0)
    else {
        unreachable!()
    };
    let of_b = Contents::Data {
        owner: Some("b".into()),
        cluster_id,
        lineage,
        incarnation,
        last_log,
    };
    assert_eq!(
        alone("a", of_b.clone(), Formed, 0),
        "Refused",
        "another node's disk"
    );
    assert_eq!(alone("b", of_b, Formed, 0), start);
}

#[test]
fn damage_comes_first() {
    let mut observed = observed("a", data("c", 0));
    observed.damage = vec!["rot".into()];
    let action = decide(&observed, &state(FormingPhase::Formed, 0), None);
    assert_eq!(action, Action::Stop(StopReason::Damaged, "rot".into()));
}

#[test]
fn the_seed_follows_its_plan() {
    let recovering = state(FormingPhase::Recovering, 0);
    let other_disk = other_data("other", LogPosition { term: 3, index: 30 });
    let shorter = other_data("inc", LogPosition { term: 2, index: 90 });
    let cases = [
        ("as expected", observed("a", data("c", 0)), "Recover"),
        ("done, not marked", observed("a", data("c", 1)), "Mark"),
        ("a later lineage", observed("a", data("c", 2)), "Refused"),
        ("another disk", observed("a", other_disk), "Refused"),
        (
            "an older log entry, though longer",
            observed("a", shorter),
            "Refused",
        ),
        ("empty", observed("a", Contents::Nothing), "Refused"),
        ("not the seed", observed("b", data("c", 0)), "Hold"),
        (
            "done",
            Observation {
                plan_done: Some("p".into()),
                ..observed("a", data("c", 1))
            },
            "Start",
        ),
        (
            "another plan done",
            Observation {
                plan_done: Some("q".into()),
                ..observed("a", data("c", 0))
            },
            "Recover",
        ),
        (
            "interrupted",
            Observation {
                recovering_to: Some(lineage(1)),
                ..observed("a", Contents::Nothing)
            },
            "Recover",
        ),
        (
            "another one interrupted",
            Observation {
                recovering_to: Some(lineage(7)),
                ..observed("a", data("c", 0))
            },
            "Refused",
        ),
    ];
    for (name, observed, want) in cases {
        assert_eq!(
            kind(decide(&observed, &recovering, Some(&plan(Others::Park)))),
            want,
            "{name}"
        );
    }
    let mut foreign = plan(Others::Park);
    foreign.cluster_id = "d".into();
    assert_eq!(
        kind(decide(
            &observed("a", data("c", 0)),
            &recovering,
            Some(&foreign)
        )),
        "Refused"
    );
}

#[test]
fn listed_others_follow_a_plan_that_keeps_them() {
    let mut plan = plan(Others::Recover);
    plan.peers.push(Peer {
        id: "b".into(),
        address: "b:1".into(),
        non_voter: false,
    });
    let recovering = state(FormingPhase::Recovering, 0);
    for (name, want) in [("a", "Recover"), ("b", "Recover"), ("z", "Hold")] {
        assert_eq!(
            kind(decide(
                &observed(name, data("c", 0)),
                &recovering,
                Some(&plan)
            )),
            want,
            "{name}"
        );
    }
    assert_eq!(
        kind(decide(
            &observed("b", data("c", 0)),
            &state(FormingPhase::Formed, 1),
            Some(&plan)
        )),
        "StaleLineage"
    );
}

#[test]
fn the_others_are_parked_once_the_lineage_is_in_force() {
    let formed = state(FormingPhase::Formed, 1);
    let interrupted = Observation {
        damage: vec!["half moved".into()],
        parking: Some("p".into()),
        ..observed("b", Contents::Nothing)
    };
    let cases = [
        (
            "another node's old data",
            observed("b", data("c", 0)),
            "Park",
        ),
        ("half-way", interrupted, "Park"),
        (
            "parked before",
            observed("b", born("c")),
            "Create { may_form: false }",
        ),
        ("joined again", observed("b", data("c", 1)), "Start"),
        (
            "the seed's old data is never moved",
            observed("a", data("c", 0)),
            "StaleLineage",
        ),
        ("the seed", observed("a", data("c", 1)), "Start"),
        (
            "the seed's disk was lost since",
            observed("a", Contents::Nothing),
            "Create { may_form: false }",
        ),
        (
            "foreign data is never moved",
            observed("b", data("d", 0)),
            "Foreign",
        ),
    ];
    for (name, observed, want) in cases {
        assert_eq!(
            kind(decide(&observed, &formed, Some(&plan(Others::Park)))),
            want,
            "{name}"
        );
    }
    let later = state(FormingPhase::Formed, 2);
    assert_eq!(
        kind(decide(
            &observed("b", data("c", 0)),
            &later,
            Some(&plan(Others::Park))
        )),
        "StaleLineage",
        "a plan of the past"
    );
}
