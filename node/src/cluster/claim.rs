//! Decisions on the key in Consul or etcd that names the leader: of a node without state, and of a leader.
//! Pure functions.
//!
//! Invariants, tested below: a node forms a cluster only if the key has named its own data directory for
//! [`SETTLE`]; a running leader checks the key more often than that and takes it back first.
use std::time::Duration;

use crate::discovery::LeaderRecord;

/// How long a claim must exist before its owner forms a cluster: two checks of a leader whose key was lost
/// ([`CHECK_INTERVAL`]).
pub const SETTLE: Duration = Duration::from_secs(2);
/// How often a leader checks whether the key still names it.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The deciding node. It has no state.
#[derive(Clone, Debug)]
pub struct Own {
    /// Raft id, which identifies its data directory.
    pub raft_id: String,
    /// Advertised Raft address.
    pub raft_addr: String,
    /// It is a voter, so it may form a cluster.
    pub voter: bool,
}

/// The next action of a node without state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write the key if it is absent.
    Claim,
    /// This node's claim has settled: form the cluster.
    Form,
    /// Join through this address.
    Join(String),
    /// Wait. The text says why, for the log.
    Wait(String),
}

/// Decides from the value of the key. `claimed_for` is the time for which this process has seen its own claim
/// there.
pub fn next(own: &Own, held: Option<&LeaderRecord>, claimed_for: Option<Duration>) -> Step {
    let Some(held) = held else {
        return if own.voter {
            Step::Claim
        } else {
            Step::Wait("no leader is named yet, and a read-only node cannot form a cluster".into())
        };
    };
    if held.raft_id == own.raft_id {
        return match claimed_for {
            Some(age) if age >= SETTLE => Step::Form,
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

/// The next action of a leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// None: the key names this leader.
    Nothing,
    /// Write this leader's record if the key is absent.
    Create,
    /// Write this leader's record if the key has not changed meanwhile.
    Replace,
    /// Two clusters share the key: do not write it, and report that.
    Conflict {
        /// The other cluster's id.
        cluster_id: String,
    },
}

/// Decides for a leader. A record without a cluster id is the claim of an empty node (or rqlite's record); a
/// leader overwrites it.
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
        assert_eq!(next(&a, Some(&mine), Some(SETTLE)), Step::Form);
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
        /// The leader checks the key.
        Check,
        /// Time passes, in eighths of [`SETTLE`].
        Wait(u32),
        /// The key is deleted.
        Delete,
        /// A node loses its disk.
        Wipe(usize),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            6 => (0..3_usize).prop_map(Event::Run),
            2 => Just(Event::Check),
            3 => (1..4_u32).prop_map(Event::Wait),
            1 => Just(Event::Delete),
            1 => (0..3_usize).prop_map(Event::Wipe),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        /// Three empty nodes beside a cluster whose leader checks the key in time: however often the key is
        /// lost, none of them forms a cluster. Without that leader, and without lost keys, at most one does.
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
                    Event::Wait(eighths) => now += SETTLE / 8 * eighths,
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
                            Step::Form => founded.push(me.raft_id),
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
