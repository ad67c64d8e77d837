//! One key in Consul or etcd names the leader: what a node without state does about what it reads there. Plain values in, a step out.
//!
//! Invariants, tested below: a node founds a cluster only under a key that names its own data directory and has done so for
//! [`SETTLE`]; a living leader that checks the key more often than that takes it back first.
use std::time::Duration;

use crate::discovery::LeaderRecord;

/// A claim stands this long before its owner founds a cluster: two looks of a leader whose key was lost ([`CHECK_INTERVAL`]).
pub const SETTLE: Duration = Duration::from_secs(2);
/// How often a leader looks whether the key still names it.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The deciding node; it has no state, or it would not decide.
#[derive(Clone, Debug)]
pub struct Own {
    /// Raft id, which is that of one data directory.
    pub raft_id: String,
    /// Advertised Raft address.
    pub raft_addr: String,
    /// It may found a cluster.
    pub voter: bool,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write the key, if it still is absent.
    Claim,
    /// Our claim has settled: found the cluster.
    Found,
    /// Join through this address.
    Join(String),
    /// Nothing yet; why, for a person.
    Wait(String),
}

/// Decides from what the key holds. `claimed_for` is how long this process has seen its own claim there.
pub fn next(own: &Own, held: Option<&LeaderRecord>, claimed_for: Option<Duration>) -> Step {
    let Some(held) = held else {
        return if own.voter {
            Step::Claim
        } else {
            Step::Wait("no leader is named yet, and a read-only node cannot found a cluster".into())
        };
    };
    if held.raft_id == own.raft_id {
        return match claimed_for {
            Some(age) if age >= SETTLE => Step::Found,
            Some(_) | None => Step::Wait("this node has claimed the key and will lead".into()),
        };
    }
    if held.addr == own.raft_addr {
        return Step::Wait(format!(
            "the key names node {} at this node's own address, but this data directory is not that node's: its disk was lost or replaced. \
             If other members are up they will name their leader; if that cluster is gone for good, delete the key",
            held.id
        ));
    }
    Step::Join(held.addr.clone())
}

/// What a leader does about what the key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// It names this leader.
    Nothing,
    /// Name this leader, if the key still is absent.
    Create,
    /// Name this leader, if nobody changed the key meanwhile.
    Replace,
    /// Two clusters share the key; leave it, and say so.
    Conflict {
        /// The other cluster's id.
        cluster_id: String,
    },
}

/// Decides a leader's report. A record without a cluster id is an empty node's claim (or rqlite's), which a leader overrides.
pub fn report(own: &LeaderRecord, held: Option<&LeaderRecord>) -> Report {
    match held {
        None => Report::Create,
        Some(held) if held == own => Report::Nothing,
        Some(held) if !held.cluster_id.is_empty() && held.cluster_id != own.cluster_id => {
            Report::Conflict {
                cluster_id: held.cluster_id.clone(),
            }
        }
        Some(_) => Report::Replace,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(id: &str, incarnation: u32, cluster: &str) -> LeaderRecord {
        LeaderRecord {
            id: id.into(),
            api_addr: format!("http://{id}:4001"),
            addr: format!("{id}:4002"),
            raft_id: format!("{id}#{incarnation:016x}"),
            cluster_id: cluster.into(),
        }
    }

    fn own(id: &str, incarnation: u32, voter: bool) -> Own {
        let record = record(id, incarnation, "");
        Own {
            raft_id: record.raft_id,
            raft_addr: record.addr,
            voter,
        }
    }

    #[test]
    fn steps() {
        let a = own("a", 1, true);
        assert_eq!(next(&a, None, None), Step::Claim);
        assert!(matches!(
            next(&own("a", 1, false), None, None),
            Step::Wait(_)
        ));
        let mine = record("a", 1, "");
        assert!(matches!(next(&a, Some(&mine), None), Step::Wait(_)));
        assert!(matches!(
            next(&a, Some(&mine), Some(SETTLE / 2)),
            Step::Wait(_)
        ));
        assert_eq!(next(&a, Some(&mine), Some(SETTLE)), Step::Found);
        assert_eq!(
            next(&a, Some(&record("b", 1, "c")), Some(SETTLE)),
            Step::Join("b:4002".into())
        );
        let former = next(&a, Some(&record("a", 7, "c")), Some(SETTLE));
        assert!(
            matches!(&former, Step::Wait(why) if why.contains("delete the key")),
            "{former:?}"
        );
        let from_rqlite = LeaderRecord {
            raft_id: String::new(),
            ..record("b", 1, "")
        };
        assert_eq!(
            next(&a, Some(&from_rqlite), None),
            Step::Join("b:4002".into())
        );
    }

    #[test]
    fn reports() {
        let me = record("a", 1, "c1");
        let cases = [
            (None, Report::Create),
            (Some(me.clone()), Report::Nothing),
            (Some(record("b", 1, "c1")), Report::Replace),
            (Some(record("b", 1, "")), Report::Replace),
            (
                Some(record("b", 1, "c2")),
                Report::Conflict {
                    cluster_id: "c2".into(),
                },
            ),
        ];
        for (held, want) in cases {
            assert_eq!(report(&me, held.as_ref()), want, "{held:?}");
        }
    }

    #[derive(Clone, Debug)]
    enum Event {
        /// An empty node runs a step.
        Run(usize),
        /// The leader looks at the key.
        Check,
        /// Time passes, in eighths of [`SETTLE`].
        Pass(u32),
        /// Somebody deletes the key.
        Delete,
        /// A node loses its disk.
        Wipe(usize),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            6 => (0..3_usize).prop_map(Event::Run),
            2 => Just(Event::Check),
            3 => (1..4_u32).prop_map(Event::Pass),
            1 => Just(Event::Delete),
            1 => (0..3_usize).prop_map(Event::Wipe),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        /// Three empty nodes beside a cluster whose leader looks at the key in time, however often the key is lost: none of them founds one.
        /// Without that leader, and without lost keys, at most one does.
        #[test]
        fn never_two_founders(events in proptest::collection::vec(event(), 1..150), leader in any::<bool>()) {
            let led = record("l", 1, "c");
            let mut key = leader.then(|| led.clone());
            let mut incarnations = [1_u32; 3];
            let mut claims: [Option<Duration>; 3] = [None; 3];
            let (mut now, mut checked) = (Duration::ZERO, Duration::ZERO);
            let mut founded: Vec<String> = Vec::new();
            for event in events {
                match event {
                    Event::Pass(eighths) => now += SETTLE / 8 * eighths,
                    Event::Check => {}
                    Event::Delete if leader => key = None,
                    Event::Delete => {}
                    Event::Wipe(n) => { incarnations[n] += 1; claims[n] = None; }
                    Event::Run(n) => {
                        let me = own(["x", "y", "z"][n], incarnations[n], true);
                        if founded.contains(&me.raft_id) { continue; }
                        let mine = key.as_ref().is_some_and(|k| k.raft_id == me.raft_id);
                        claims[n] = mine.then(|| claims[n].unwrap_or(now));
                        match next(&me, key.as_ref(), claims[n].map(|since| now - since)) {
                            Step::Claim => key = Some(record(["x", "y", "z"][n], incarnations[n], "")),
                            Step::Found => founded.push(me.raft_id),
                            Step::Join(_) | Step::Wait(_) => {}
                        }
                    }
                }
                if leader && (now - checked >= CHECK_INTERVAL || matches!(event, Event::Check)) {
                    checked = now;
                    if report(&led, key.as_ref()) != Report::Nothing { key = Some(led.clone()); }
                }
                prop_assert!(founded.len() <= usize::from(!leader), "{founded:?}");
            }
        }
    }
}
