//! Tests with tables, and a random walk of forming clusters with lost disks, late starts, cut links and
//! restarts.
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn notice(id: &str, state: NoticeState) -> Option<Notice> {
    Some(Notice {
        id: id.into(),
        raft_addr: format!("{}:4002", name_of(id)),
        state,
        credentials: None,
    })
}

fn empty(id: &str) -> Option<Notice> {
    notice(id, NoticeState::Empty { pledged: None })
}

fn pledged(id: &str, to: &[&str]) -> Option<Notice> {
    notice(
        id,
        NoticeState::Empty {
            pledged: Some(to.iter().map(ToString::to_string).collect()),
        },
    )
}

/// The decision of a node that is one of the listed ones, without callers.
fn decide(own: &Own, listed: usize, notices: &[Option<Notice>]) -> Decision {
    let round = Round {
        listed,
        from_listed: notices,
        from_callers: &[],
    };
    super::decide(own, &round)
}

fn own(id: &str, expect: usize, pledged: Option<&[&str]>) -> Own {
    Own {
        id: id.into(),
        raft_addr: format!("{}:4002", name_of(id)),
        is_listed: true,
        expect,
        pledged: pledged.map(|p| p.iter().map(ToString::to_string).collect()),
    }
}

fn form(ids: &[&str]) -> Decision {
    Decision::Form(
        ids.iter()
            .map(|id| ((*id).to_owned(), format!("{}:4002", name_of(id))))
            .collect(),
    )
}

fn is_wait(decision: &Decision) -> bool {
    matches!(decision, Decision::Wait(_))
}

#[test]
fn three_of_three() {
    let list = 3;
    let me = own("a#1", 3, None);
    assert!(
        is_wait(&decide(&me, list, &[empty("a#1"), empty("b#1"), None])),
        "one is missing"
    );
    assert_eq!(
        decide(&me, list, &[empty("a#1"), empty("b#1"), empty("c#1")]),
        form(&["a#1", "b#1", "c#1"])
    );
    assert!(
        is_wait(&decide(
            &own("b#1", 3, None),
            list,
            &[empty("a#1"), empty("b#1"), empty("c#1")]
        )),
        "a coordinates"
    );
}

#[test]
fn a_node_with_state_stops_every_forming() {
    let list = 3;
    let answers = [
        empty("a#2"),
        empty("b#2"),
        notice("c#1", NoticeState::Member),
    ];
    for expect in 1..=3 {
        assert!(
            is_wait(&decide(&own("a#2", expect, None), list, &answers)),
            "expect {expect}"
        );
    }
}

#[test]
fn more_than_half_of_the_list_is_needed() {
    assert_eq!(
        [
            needed(1, 1),
            needed(1, 3),
            needed(3, 3),
            needed(3, 5),
            needed(2, 5),
            needed(5, 3)
        ],
        [1, 2, 3, 3, 3, 5]
    );
    let list = 5;
    let two = [empty("a#1"), empty("b#1"), None, None, None];
    assert!(is_wait(&decide(&own("a#1", 2, None), list, &two)));
}

#[test]
fn read_only_nodes_do_not_count() {
    let list = 3;
    let answers = [
        empty("a#1"),
        empty("b#1"),
        notice("c#1", NoticeState::Bystander),
    ];
    assert!(is_wait(&decide(&own("a#1", 3, None), list, &answers)));
}

#[test]
fn the_coordinator_repeats_itself_until_all_have_pledged() {
    let list = 3;
    let set = ["a#1", "b#1", "c#1"];
    let me = own("a#1", 3, Some(&set));
    assert!(is_wait(&decide(
        &me,
        list,
        &[pledged("a#1", &set), None, empty("c#1")]
    )));
    assert_eq!(
        decide(
            &me,
            list,
            &[pledged("a#1", &set), pledged("b#1", &set), empty("c#1")]
        ),
        form(&set)
    );
    assert_eq!(
        decide(
            &me,
            list,
            &[pledged("a#1", &set), empty("b#2"), empty("c#1")]
        ),
        Decision::Release,
        "b lost its disk"
    );
}

#[test]
fn a_pledge_ends_only_on_certainty() {
    let list = 3;
    let set = ["a#1", "b#1", "c#1"];
    let me = own("b#1", 3, Some(&set));
    assert!(
        is_wait(&decide(
            &me,
            list,
            &[None, pledged("b#1", &set), empty("c#1")]
        )),
        "the coordinator is silent"
    );
    assert!(
        is_wait(&decide(&me, list, &[pledged("a#1", &set), None, None])),
        "it still tries"
    );
    assert_eq!(
        decide(&me, list, &[empty("a#1"), None, None]),
        Decision::Release,
        "it gave up"
    );
    assert!(
        is_wait(&decide(&me, list, &[empty("a#2"), None, None])),
        "it lost its disk, c may know more"
    );
    assert_eq!(
        decide(&me, list, &[empty("a#2"), None, empty("c#1")]),
        Decision::Release,
        "it lost its disk, c is empty"
    );
    assert!(
        is_wait(&decide(
            &me,
            list,
            &[empty("a#2"), None, notice("c#1", NoticeState::Member)]
        )),
        "c has state"
    );
}

#[test]
fn two_nodes_of_one_name_form_nothing() {
    let twice = [empty("a#1"), empty("x#1"), empty("x#2"), empty("c#1")];
    let moved = Some(Notice {
        raft_addr: "y:4002".into(),
        ..empty("x#2").unwrap()
    });
    for (me, seen) in [
        ("a#1", &twice[..]),
        ("x#1", &twice[..]),
        ("x#2", &[empty("a#1"), empty("x#1"), None, empty("c#1")][..]),
        (
            "a#1",
            &[empty("a#1"), empty("x#1"), moved, empty("c#1")][..],
        ),
    ] {
        for expect in 1..=4 {
            let decision = decide(&own(me, expect, None), 4, seen);
            assert!(
                matches!(&decision, Decision::Wait(why) if why.contains("node ID x is in use by two nodes, at x:4002 and at ")),
                "{me}, expect {expect}: {decision:?}"
            );
        }
    }
    assert_eq!(
        decide(
            &own("a#1", 3, None),
            3,
            &[empty("a#1"), empty("x#2"), empty("c#1")]
        ),
        form(&["a#1", "c#1", "x#2"]),
        "x lost its disk, and its former incarnation is silent"
    );
}

#[test]
fn nodes_that_are_listed_nowhere_count_as_found() {
    // All name only `b`.
    let round = |listed, callers: &[Option<Notice>], own: &Own| {
        let round = Round {
            listed,
            from_listed: &[empty("b#1")],
            from_callers: callers,
        };
        super::decide(own, &round)
    };
    let unlisted = |id| Own {
        is_listed: false,
        ..own(id, 3, None)
    };
    let all = form(&["a#1", "b#1", "c#1"]);
    assert_eq!(
        round(1, &[empty("b#1"), empty("c#1")], &unlisted("a#1")),
        all
    );
    assert!(is_wait(&round(
        1,
        &[empty("a#1"), empty("c#1")],
        &own("b#1", 3, None)
    )));
    assert!(is_wait(&round(1, &[], &unlisted("a#1"))), "c is missing");
    // Of three listed nodes, two must take part.
    let others = [empty("c#1"), empty("d#1"), empty("e#1")];
    assert!(is_wait(&round(3, &others, &unlisted("a#1"))));
    // Listed nodes come first.
    assert_eq!(
        super::decide(
            &own("b#1", 3, None),
            &Round {
                listed: 3,
                from_listed: &[empty("b#1"), empty("c#1"), empty("d#1")],
                from_callers: &[empty("a#1")],
            }
        ),
        form(&["b#1", "c#1", "d#1"])
    );
}

#[test]
fn the_text_says_why_more_nodes_are_needed_than_expected() {
    let three = [empty("a#1"), empty("b#1"), empty("c#1"), None, None, None];
    let Decision::Wait(why) = decide(&own("a#1", 3, None), 6, &three) else {
        panic!("formed");
    };
    for part in [
        "3 of 4 nodes seen",
        "-bootstrap-expect is 3, but 6 addresses are listed",
        "remove stale",
    ] {
        assert!(why.contains(part), "{why}");
    }
}

/// A simulated node: the content of its disk.
#[derive(Clone, Debug, Default)]
struct Disk {
    incarnation: u32,
    pledge: Option<Vec<String>>,
    /// The members with which its Raft was initialized.
    formed: Option<Vec<String>>,
}

#[derive(Clone, Debug)]
enum Step {
    Start(usize),
    Stop(usize),
    Wipe(usize),
    Cut(usize, usize),
    Heal(usize, usize),
    /// The node runs a round. It requests pledges in order, and the walk may crash it after some of them.
    Round {
        node: usize,
        crash_after: usize,
    },
}

const NODES: usize = 5;

fn step() -> impl Strategy<Value = Step> {
    let node = 0..NODES;
    prop_oneof![
        3 => node.clone().prop_map(Step::Start),
        1 => node.clone().prop_map(Step::Stop),
        1 => node.clone().prop_map(Step::Wipe),
        1 => (0..NODES, 0..NODES).prop_map(|(a, b)| Step::Cut(a, b)),
        2 => (0..NODES, 0..NODES).prop_map(|(a, b)| Step::Heal(a, b)),
        8 => (node, 0..12_usize).prop_map(|(node, crash_after)| Step::Round { node, crash_after }),
    ]
}

struct World {
    disks: Vec<Disk>,
    up: Vec<bool>,
    cut: BTreeSet<(usize, usize)>,
    expect: usize,
    /// The first nodes are listed; the others are known to those that they have contacted.
    listed: usize,
    /// By node: those that have contacted it, or were introduced to it.
    callers: Vec<BTreeSet<usize>>,
    /// All sets of members that were ever initialized, by coordinator.
    formed: Vec<Vec<String>>,
    /// Raft ids of lost disks.
    wiped: BTreeSet<String>,
}

impl World {
    fn id(&self, node: usize) -> String {
        format!("n{node}#{:016x}", self.disks[node].incarnation)
    }

    fn reach(&self, a: usize, b: usize) -> bool {
        self.up[a] && self.up[b] && !self.cut.contains(&(a.min(b), a.max(b)))
    }

    fn node_of(&self, id: &str) -> Option<usize> {
        (0..NODES).find(|n| self.id(*n) == id)
    }

    fn notice(&self, node: usize, other: usize) -> Option<Notice> {
        (other == node || self.reach(node, other)).then(|| Notice {
            id: self.id(other),
            raft_addr: format!("n{other}:4002"),
            state: if self.disks[other].formed.is_some() {
                NoticeState::Member
            } else {
                NoticeState::Empty {
                    pledged: self.disks[other].pledge.clone(),
                }
            },
            credentials: None,
        })
    }

    fn round(&mut self, node: usize, crash_after: usize) {
        if !self.up[node] || self.disks[node].formed.is_some() {
            return;
        }
        let callers: Vec<usize> = self.callers[node].iter().copied().collect();
        let contacted = (0..self.listed).chain(callers.iter().copied());
        let reached: Vec<usize> = contacted.filter(|other| self.reach(node, *other)).collect();
        for other in &reached {
            let introduced = callers
                .iter()
                .filter(|c| reached.contains(c))
                .chain([&node]);
            let new = introduced.filter(|c| **c >= self.listed && *c != other);
            self.callers[*other].extend(new);
        }
        let own = Own {
            id: self.id(node),
            raft_addr: format!("n{node}:4002"),
            is_listed: node < self.listed,
            expect: self.expect,
            pledged: self.disks[node].pledge.clone(),
        };
        let notices = |of: Vec<usize>| -> Vec<_> {
            of.into_iter()
                .map(|other| self.notice(node, other))
                .collect()
        };
        let round = Round {
            listed: self.listed,
            from_listed: &notices((0..self.listed).collect()),
            from_callers: &notices(callers),
        };
        match super::decide(&own, &round) {
            Decision::Wait(_) => {}
            Decision::Release => self.disks[node].pledge = None,
            Decision::Form(members) => self.coordinate(node, &members, crash_after),
        }
    }

    fn coordinate(&mut self, node: usize, members: &BTreeMap<String, String>, crash_after: usize) {
        let set: Vec<String> = members.keys().cloned().collect();
        self.disks[node].pledge = Some(set.clone());
        let mut steps = 0;
        for id in &set {
            steps += 1;
            if steps > crash_after {
                self.up[node] = false;
                return;
            }
            if *id == self.id(node) {
                continue;
            }
            let Some(other) = self.node_of(id).filter(|other| self.reach(node, *other)) else {
                return;
            };
            let disk = &mut self.disks[other];
            let free = disk.formed.is_none() && disk.pledge.as_ref().is_none_or(|p| *p == set);
            if !free {
                self.disks[node].pledge = None;
                return;
            }
            disk.pledge = Some(set.clone());
        }
        self.formed.push(set.clone());
        self.disks[node].formed = Some(set.clone());
        // The leader replicates its log to the nodes that it reaches; they have state from then on.
        for id in &set {
            if let Some(other) = self.node_of(id).filter(|other| self.reach(node, *other)) {
                self.disks[other].formed = Some(set.clone());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// For any sequence of starts, stops, lost disks and cut links: two formed clusters always share a node
    /// (each has more than half of the list), and a second one is formed only if every shared node has lost
    /// its disk. If all listed nodes are expected, that means all disks.
    #[test]
    fn never_two_clusters(steps in proptest::collection::vec(step(), 1..120), expect in 1..=NODES, listed in 1..=NODES) {
        let mut world = World {
            disks: (0..NODES).map(|_| Disk::default()).collect(),
            up: vec![false; NODES],
            cut: BTreeSet::new(),
            expect,
            listed,
            callers: vec![BTreeSet::new(); NODES],
            formed: Vec::new(),
            wiped: BTreeSet::new(),
        };
        for step in steps {
            match step {
                Step::Start(n) => world.up[n] = true,
                Step::Stop(n) => world.up[n] = false,
                Step::Wipe(n) => {
                    world.wiped.insert(world.id(n));
                    world.up[n] = false;
                    world.disks[n] = Disk { incarnation: world.disks[n].incarnation + 1, ..Disk::default() };
                }
                Step::Cut(a, b) => { world.cut.insert((a.min(b), a.max(b))); }
                Step::Heal(a, b) => { world.cut.remove(&(a.min(b), a.max(b))); }
                Step::Round { node, crash_after } => world.round(node, crash_after),
            }
            for (n, first) in world.formed.iter().enumerate() {
                for second in &world.formed[n + 1..] {
                    let shared: Vec<_> =
                        first.iter().filter(|id| second.iter().any(|other| name_of(other) == name_of(id))).collect();
                    prop_assert!(!shared.is_empty(), "disjoint: {first:?} and {second:?}");
                    prop_assert!(
                        first == second || shared.iter().all(|id| world.wiped.contains(*id)),
                        "two clusters: {first:?} and {second:?}, lost: {:?}",
                        world.wiped
                    );
                }
            }
        }
    }

    /// If all nodes run and are connected, a cluster is formed.
    #[test]
    fn a_quiet_world_forms(expect in 1..=NODES, listed in 1..=NODES, order in Just((0..NODES).collect::<Vec<_>>()).prop_shuffle()) {
        let mut world = World {
            disks: (0..NODES).map(|_| Disk::default()).collect(),
            up: vec![true; NODES],
            cut: BTreeSet::new(),
            expect,
            listed,
            callers: vec![BTreeSet::new(); NODES],
            formed: Vec::new(),
            wiped: BTreeSet::new(),
        };
        for node in order.iter().cycle().take(4 * NODES) {
            world.round(*node, usize::MAX);
        }
        prop_assert_eq!(world.formed.len(), 1);
    }
}
