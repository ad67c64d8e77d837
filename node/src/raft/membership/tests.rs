//! Tables of joins that are admitted, recorded, probed first or refused, and of removals.
use super::*;

fn present(id: &str, addr: &str, voter: bool, alive: bool) -> MemberView {
    MemberView {
        id: id.into(),
        member: Member {
            raft_addr: addr.into(),
            wants_vote: voter,
        },
        voter,
        alive,
        unreachable_for: None,
        probed: None,
    }
}

fn joiner(id: &str, addr: &str, voter: bool) -> Joiner {
    Joiner {
        id: id.into(),
        raft_addr: addr.into(),
        voter,
    }
}

fn ids(ids: &[&str]) -> BTreeSet<RaftId> {
    ids.iter().map(|id| RaftId::from(*id)).collect()
}

fn admit(replace: &[&str]) -> JoinPlan {
    JoinPlan::Admit {
        replace: ids(replace),
    }
}

fn ask(of: &[&str]) -> JoinPlan {
    JoinPlan::Probe(ids(of))
}

#[test]
fn joins() {
    let members = [
        present("a#a1", "a:4002", true, true),
        present("b#b1", "b:4002", true, false),
        present("c#c1", "c:4002", false, true),
    ];
    let leader = RaftId::from("a#a1");
    let cases = [
        ("new", joiner("d#d1", "d:4002", true), admit(&[])),
        (
            "the same again",
            joiner("b#b1", "b:4002", true),
            JoinPlan::Nothing,
        ),
        ("moved", joiner("b#b1", "x:4002", true), JoinPlan::Record),
        (
            "a read-only node moved",
            joiner("c#c1", "x:4002", false),
            JoinPlan::Record,
        ),
        (
            "its disk was lost",
            joiner("b#b2", "b:4002", true),
            ask(&["b#b1"]),
        ),
        (
            "its disk was lost and it moved",
            joiner("b#b2", "x:4002", true),
            ask(&["b#b1"]),
        ),
        (
            "new name on an old address",
            joiner("e#e1", "b:4002", true),
            ask(&["b#b1"]),
        ),
        (
            "name of one, address of another, neither directory",
            joiner("b#b2", "c:4002", true),
            ask(&["b#b1", "c#c1"]),
        ),
        (
            "new name and address, same data directory",
            joiner("e#b1", "x:4002", true),
            admit(&["b#b1"]),
        ),
        (
            "moved to where another was",
            joiner("b#b1", "c:4002", true),
            JoinPlan::Record,
        ),
        (
            "read-only becomes voter",
            joiner("c#c1", "c:4002", true),
            JoinPlan::Record,
        ),
        (
            "voter becomes read-only",
            joiner("b#b1", "b:4002", false),
            admit(&["b#b1"]),
        ),
    ];
    for (name, joiner, want) in cases {
        assert_eq!(plan_join(&members, &leader, &joiner), want, "{name}");
    }
}

#[test]
fn refused_joins() {
    let members = [
        present("a#a1", "a:4002", true, true),
        present("c#c1", "c:4002", false, true),
    ];
    let leader = RaftId::from("a#a1");
    for (name, joiner) in [
        ("the leader's name", joiner("a#a2", "x:4002", true)),
        ("the leader's address", joiner("x#x1", "a:4002", true)),
        (
            "a copy of the leader's directory",
            joiner("a#a1", "x:4002", true),
        ),
        ("a live node's name", joiner("c#c2", "x:4002", true)),
    ] {
        assert!(
            matches!(plan_join(&members, &leader, &joiner), JoinPlan::Refuse(_)),
            "{name}"
        );
    }
}

/// Whether the record of `b` is replaced when another data directory joins with its name or its address.
#[test]
fn a_live_member_is_not_driven_out() {
    use ProbeResult::{Member, NoResponse, OtherNode};
    let leader = RaftId::from("a#a1");
    let (same_name, same_addr, both) = (
        joiner("b#b2", "x:4002", true),
        joiner("e#e1", "b:4002", true),
        joiner("b#b2", "b:4002", true),
    );
    // (what, joiner, alive, unreachable for s, probe result, its record is replaced; `None`: the join is
    // refused)
    let (gives, stays, refused) = (Some(true), Some(false), None);
    let table = [
        ("it answers", &same_name, false, Some(60), Member, refused),
        ("it answers", &same_addr, false, Some(60), Member, refused),
        ("it answers", &both, false, Some(60), Member, refused),
        ("heard", &same_name, true, Some(0), NoResponse, refused),
        ("heard", &same_name, true, Some(0), OtherNode, refused),
        (
            "heard: elsewhere",
            &same_addr,
            true,
            Some(0),
            OtherNode,
            stays,
        ),
        ("a hiccup", &same_name, false, Some(1), NoResponse, refused),
        ("a hiccup", &same_addr, false, Some(1), NoResponse, refused),
        ("a new leader", &same_name, false, None, NoResponse, refused),
        ("gone", &same_name, false, Some(10), NoResponse, gives),
        ("gone", &same_addr, false, Some(10), NoResponse, gives),
        ("its disk is new", &both, false, Some(0), OtherNode, gives),
        ("its disk is new", &both, false, None, OtherNode, gives),
        (
            "moved, disk lost",
            &same_name,
            false,
            None,
            OtherNode,
            gives,
        ),
    ];
    for (what, joiner, alive, unreachable_for, probed, want) in table {
        let mut b = present("b#b1", "b:4002", true, alive);
        b.unreachable_for = unreachable_for.map(Duration::from_secs);
        b.probed = Some(probed);
        let members = [present("a#a1", "a:4002", true, true), b];
        let got = match plan_join(&members, &leader, joiner) {
            JoinPlan::Admit { replace } => Some(replace == ids(&["b#b1"])),
            JoinPlan::Refuse(_) => None,
            other => panic!("{what}: {other:?}"),
        };
        assert_eq!(got, want, "{what}: {joiner:?}, {probed:?}");
    }
}

#[test]
fn removals() {
    let members = [
        present("a#a1", "a:1", true, true),
        present("b#b1", "b:1", false, true),
    ];
    assert_eq!(
        plan_removal(&members, &"a#a1".into(), "b"),
        Ok(ids(&["b#b1"]))
    );
    assert_eq!(
        plan_removal(&members, &"a#a1".into(), "nobody"),
        Ok(BTreeSet::new())
    );
    assert!(plan_removal(&members, &"a#a1".into(), "a").is_err());
}

#[test]
fn of_several_nodes_with_one_name_the_stopped_ones_are_removed() {
    let leader = RaftId::from("l#l1");
    let three = |first, second| {
        [
            present("l#l1", "l:1", true, false),
            present("x#x1", "x:1", true, first),
            present("x#x2", "y:1", true, second),
        ]
    };
    assert_eq!(
        plan_removal(&three(true, false), &leader, "x"),
        Ok(ids(&["x#x2"]))
    );
    assert_eq!(
        plan_removal(&three(false, true), &leader, "x"),
        Ok(ids(&["x#x1"]))
    );
    let both = ids(&["x#x1", "x#x2"]);
    assert_eq!(plan_removal(&three(false, false), &leader, "x"), Ok(both));
    let refused = plan_removal(&three(true, true), &leader, "x").unwrap_err();
    assert!(refused.contains("x:1 and at y:1"), "{refused}");
    let leads = RaftId::from("x#x1");
    assert_eq!(
        plan_removal(&three(false, false), &leads, "x"),
        Ok(ids(&["x#x2"]))
    );
}

#[test]
fn a_learner_votes_once_it_has_got_past_all_that_was_there() {
    let member = |wants_vote| Member {
        raft_addr: "x".into(),
        wants_vote,
    };
    let members = [
        (RaftId::from("a#1"), member(true), true),
        (RaftId::from("b#1"), member(true), false),
        (RaftId::from("c#1"), member(false), false),
    ];
    let mut goals = Goals::new();
    // (end of the log, what b has, promoted)
    for (last, matched, want) in [
        (100, None, false),
        (100, Some(0), false),
        // An entry that it cannot take, close to the end: it is never promoted.
        (100, Some(99), false),
        (110, Some(99), false),
        // It has everything of its first goal, but lags behind what was added since.
        (200, Some(150), false),
        (200, Some(184), true),
    ] {
        let ready = promotable(&members, &mut goals, last, |id| {
            if id.name() == "c" {
                Some(last)
            } else {
                matched
            }
        });
        assert_eq!(ready == ids(&["b#1"]), want, "{last}, {matched:?}");
        assert_eq!(ready.is_empty(), !want, "{last}, {matched:?}");
    }
    // Removed and admitted again: its goal is set again.
    promotable(&members[..1], &mut goals, 300, |_| None);
    assert!(promotable(&members, &mut goals, 300, |_| Some(299)).is_empty());
}
