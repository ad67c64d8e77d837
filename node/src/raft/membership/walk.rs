//! A random walk through joins, moves, removals and deaths of leaders, over a model of openraft's membership
//! changes.
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::*;

type Change = ChangeMembers<RaftId, Member>;

/// openraft's membership: one set of voters, or two during a change.
#[derive(Clone, Debug, PartialEq)]
struct Model {
    configs: Vec<BTreeSet<RaftId>>,
    nodes: BTreeMap<RaftId, Member>,
}

impl Model {
    fn voters(&self) -> BTreeSet<RaftId> {
        self.configs.iter().flatten().cloned().collect()
    }

    fn members(&self) -> Vec<(RaftId, Member, bool)> {
        let voters = self.voters();
        self.nodes
            .iter()
            .map(|(id, member)| (id.clone(), member.clone(), voters.contains(id)))
            .collect()
    }

    /// `Membership::compute_target_membership`.
    fn target(&mut self, change: Change, goal: &mut BTreeSet<RaftId>) {
        match change {
            ChangeMembers::AddVoterIds(ids) => goal.extend(ids),
            ChangeMembers::RemoveVoters(ids) => goal.retain(|id| !ids.contains(id)),
            ChangeMembers::AddNodes(nodes) => {
                for (id, member) in nodes {
                    self.nodes.entry(id).or_insert(member);
                }
            }
            ChangeMembers::SetNodes(nodes) => self.nodes.extend(nodes),
            ChangeMembers::RemoveNodes(ids) => self.nodes.retain(|id, _| !ids.contains(id)),
            ChangeMembers::Batch(changes) => changes
                .into_iter()
                .for_each(|change| self.target(change, goal)),
            other => panic!("not used: {other:?}"),
        }
    }

    /// `Membership::change`: the next entry towards the requested membership. `None`: refused.
    fn next(&self, change: Change, retain: bool) -> Option<Self> {
        let mut next = self.clone();
        let mut goal = self.configs.last()?.clone();
        next.target(change, &mut goal);
        next.configs = if self.configs.contains(&goal) {
            vec![goal]
        } else {
            vec![self.configs.last()?.clone(), goal]
        };
        let voters = next.voters();
        if !retain {
            let lost = self.voters();
            next.nodes
                .retain(|id, _| voters.contains(id) || !lost.contains(id));
        }
        let valid = voters.iter().all(|id| next.nodes.contains_key(id))
            && next.configs.iter().all(|config| !config.is_empty());
        valid.then_some(next)
    }
}

struct Walk {
    model: Model,
    rng: StdRng,
    /// Who lives, and where.
    living: BTreeMap<RaftId, String>,
    /// Members whose removal was begun and that have not joined again since.
    leaving: BTreeSet<RaftId>,
    incarnations: u32,
}

impl Walk {
    fn new(seed: u64) -> Self {
        let ids = ["a#a0", "b#b0", "c#c0"].map(RaftId::from);
        let at = |id: &RaftId| format!("{}:4002", id.name());
        let member = |id: &RaftId| Member {
            raft_addr: at(id),
            wants_vote: true,
        };
        Self {
            model: Model {
                configs: vec![ids.clone().into()],
                nodes: ids.iter().map(|id| (id.clone(), member(id))).collect(),
            },
            living: ids.iter().map(|id| (id.clone(), at(id))).collect(),
            rng: StdRng::seed_from_u64(seed),
            leaving: BTreeSet::new(),
            incarnations: 0,
        }
    }

    fn leader(&mut self) -> Option<RaftId> {
        let living = &self.living;
        let voters: Vec<_> = self.model.voters().into_iter().collect();
        let voters: Vec<_> = voters.iter().filter(|id| living.contains_key(id)).collect();
        voters.choose(&mut self.rng).map(|id| (*id).clone())
    }

    /// Appends both entries of a change, or as many as its leader lives for. False if it died.
    fn change(&mut self, change: Change) -> bool {
        if self.rng.random_bool(0.1) {
            return false;
        }
        let Some(next) = self.model.next(change, false) else {
            return false;
        };
        self.model = next;
        if self.model.configs.len() > 1 {
            if self.rng.random_bool(0.3) {
                return false;
            }
            let nobody = ChangeMembers::AddVoterIds(BTreeSet::new());
            self.model = self.model.next(nobody, false).expect("the second half");
        }
        true
    }

    fn remove(&mut self, ids: &BTreeSet<RaftId>) -> bool {
        let changes = removal(&self.model.members(), ids);
        changes.into_iter().all(|change| {
            let done = self.change(change);
            let nodes = &self.model.nodes;
            let begun = |id: &&RaftId| nodes.get(*id).is_none_or(|member| !member.wants_vote);
            self.leaving.extend(ids.iter().filter(begun).cloned());
            done
        })
    }

    fn join(&mut self, leader: &RaftId, joiner: &Joiner) {
        let seen = |probed: bool| {
            let members = self.model.members().into_iter();
            members
                .map(|(id, member, voter)| {
                    let at = self.living.get(&id);
                    MemberView {
                        alive: at.is_some(),
                        unreachable_for: at.is_none().then_some(REPLACE_AFTER),
                        probed: match at {
                            _ if !probed => None,
                            Some(at) if *at == member.raft_addr => Some(ProbeResult::Member),
                            _ if self.living.values().any(|at| *at == member.raft_addr) => {
                                Some(ProbeResult::OtherNode)
                            }
                            _ => Some(ProbeResult::NoResponse),
                        },
                        id,
                        member,
                        voter,
                    }
                })
                .collect::<Vec<_>>()
        };
        let plan = match plan_join(&seen(false), leader, joiner) {
            JoinPlan::Probe(_) => plan_join(&seen(true), leader, joiner),
            plan => plan,
        };
        let member = Member {
            raft_addr: joiner.raft_addr.clone(),
            wants_vote: joiner.voter,
        };
        let record = BTreeMap::from([(joiner.id.clone(), member)]);
        let voters = self.model.configs.last().cloned();
        match plan {
            JoinPlan::Nothing | JoinPlan::Refuse(_) => {}
            JoinPlan::Probe(again) => panic!("asked about {again:?} twice"),
            JoinPlan::Record => {
                self.leaving.remove(&joiner.id);
                self.change(ChangeMembers::SetNodes(record));
                assert_eq!(
                    self.model.configs.last().cloned(),
                    voters,
                    "an address is not a vote"
                );
            }
            JoinPlan::Admit { replace } => {
                let driven_out =
                    |id: &&RaftId| self.living.contains_key(id) && !id.same_directory(&joiner.id);
                assert_eq!(replace.iter().find(driven_out), None, "for {joiner:?}");
                if self.remove(&replace) && self.change(ChangeMembers::AddNodes(record)) {
                    self.leaving.remove(&joiner.id);
                }
            }
        }
    }

    /// The member maintenance: completes what a former leader left unfinished, else promotes. An older
    /// version keeps a member that thereby loses its vote as a learner.
    fn keep(&mut self) {
        if self.model.configs.len() > 1 {
            if self.rng.random_bool(0.3) {
                let nobody = ChangeMembers::AddVoterIds(BTreeSet::new());
                self.model = self.model.next(nobody, true).expect("the second half");
                return;
            }
            self.change(ChangeMembers::AddVoterIds(BTreeSet::new()));
            return;
        }
        let ready = promotable(&self.model.members(), &mut Goals::new(), 1, |id| {
            self.living.contains_key(id).then_some(1)
        });
        if !ready.is_empty() {
            self.change(ChangeMembers::AddVoterIds(ready));
        }
    }

    fn new_address(&mut self) -> String {
        format!(
            "{}:4002",
            ["a", "b", "c", "d", "x", "y"]
                .choose(&mut self.rng)
                .unwrap()
        )
    }

    /// An address without a node.
    fn free_address(&mut self) -> Option<String> {
        let address = self.new_address();
        (!self.living.values().any(|at| *at == address)).then_some(address)
    }

    fn step(&mut self) {
        let ids: Vec<_> = self.model.nodes.keys().cloned().collect();
        let id = ids.choose(&mut self.rng).unwrap().clone();
        let Some(leader) = self.leader() else {
            // Somebody comes back.
            if let Some(address) = self.free_address() {
                self.living.insert(id, address);
            }
            return;
        };
        match self.rng.random_range(0..8) {
            0 if self.living.len() > 2 => _ = self.living.remove(&id),
            1 => {
                if let Some(address) = self.free_address() {
                    self.living.insert(id.clone(), address);
                }
            }
            2 => {
                let members = self.seen_for_removal();
                if let Ok(gone) = plan_removal(&members, &leader, id.name())
                    && !gone.contains(&leader)
                {
                    self.remove(&gone);
                }
            }
            3 => {
                // A new data directory under some name, at a free address (where it then runs) or, wrongly,
                // at a used one.
                self.incarnations += 1;
                let name = *["a", "b", "c", "d"].choose(&mut self.rng).unwrap();
                let id = RaftId::from(format!("{name}#{name}{}", self.incarnations));
                let address = self.new_address();
                if !self.living.values().any(|at| *at == address) {
                    self.living.insert(id.clone(), address.clone());
                }
                let voter = self.rng.random_bool(0.8);
                self.join(
                    &leader,
                    &Joiner {
                        id,
                        raft_addr: address,
                        voter,
                    },
                );
            }
            4 | 5 => {
                let living: Vec<_> = self.living.clone().into_iter().collect();
                let (id, address) = living.choose(&mut self.rng).unwrap().clone();
                // Removed members do not join again; otherwise the walk could not tell.
                if self.model.nodes.contains_key(&id) && !self.leaving.contains(&id) {
                    let voter = self.rng.random_bool(0.9);
                    self.join(
                        &leader,
                        &Joiner {
                            id,
                            raft_addr: address,
                            voter,
                        },
                    );
                }
            }
            _ => self.keep(),
        }
    }

    fn seen_for_removal(&self) -> Vec<MemberView> {
        let members = self.model.members().into_iter();
        members
            .map(|(id, member, voter)| MemberView {
                id,
                member,
                voter,
                alive: false,
                unreachable_for: None,
                probed: None,
            })
            .collect()
    }

    fn check(&self) {
        let voters = self.model.configs.last().unwrap();
        assert!(!voters.is_empty());
        let back = voters.intersection(&self.leaving).collect::<Vec<_>>();
        assert!(back.is_empty(), "{back:?} were removed, and vote again");
    }
}

#[test]
fn who_was_removed_does_not_vote_again_and_who_lives_is_not_driven_out() {
    for seed in 0..400 {
        let mut walk = Walk::new(seed);
        for step in 0..200 {
            let before = walk.model.clone();
            walk.step();
            let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| walk.check()));
            assert!(
                checked.is_ok(),
                "seed {seed}, step {step}: from {before:?} to {:?}",
                walk.model
            );
        }
        // A leader that lives long enough leaves nothing unfinished.
        for _ in 0..100 {
            walk.keep();
        }
        assert_eq!(walk.model.configs.len(), 1, "seed {seed}");
    }
}
