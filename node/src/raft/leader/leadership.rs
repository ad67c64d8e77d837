//! Who leads, as this node knows it: openraft's word, unless the leader fell silent or says itself that it has no quorum.
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use openraft::{Instant as _, ServerState, type_config::async_runtime::WatchReceiver};
use tokio::sync::watch;

use crate::{
    local::Local,
    metrics::Counter,
    raft::{
        storage::state_machine::Raft,
        types::{Membership, RaftId},
    },
};

/// Who leads, as this node knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The leader's Raft id.
    pub leader: Option<RaftId>,
    /// Its advertised Raft address.
    pub addr: Option<String>,
    /// This node is it.
    pub mine: bool,
    /// Raft term.
    pub term: u64,
    /// Number of voters.
    pub voters: usize,
}

/// How often a silent leader is looked for, besides at every change that openraft tells of.
const LEADERSHIP_INTERVAL: Duration = Duration::from_millis(100);

/// Follows openraft's server metrics with a small value of our own, so that readers never hold openraft's guard. openraft goes on naming a
/// leader that fell silent (and, after a restart, the one of the stored vote); here another node leads only while it is heard.
pub(crate) fn watch(
    raft: &Raft,
    local: &Arc<Local>,
    election_timeout: Duration,
) -> watch::Receiver<Leadership> {
    let mut metrics = raft.server_metrics();
    let local = Arc::clone(local);
    let patience = election_timeout * 3 / 2;
    let (tell, told) = watch::channel(Leadership::default());
    let data = raft.data_metrics();
    let mut office = Office::default();
    let mut recorded = None;
    tokio::spawn(async move {
        loop {
            let now = {
                let m = metrics.borrow_watched();
                let membership = m.membership_config.membership();
                if recorded != Some(*m.membership_config.log_id()) {
                    recorded = Some(*m.membership_config.log_id());
                    local.note_recorded(addresses(membership));
                }
                let mine =
                    m.state == ServerState::Leader && m.current_leader.as_ref() == Some(&m.id);
                let heard = mine
                    || !local.leader_is_without_quorum()
                        && local
                            .since_leader_contact()
                            .is_some_and(|since| since < patience);
                let leader = m.current_leader.clone().filter(|_| heard);
                Leadership {
                    addr: leader
                        .as_ref()
                        .and_then(|id| membership.get_node(id))
                        .map(|n| n.raft_addr.clone()),
                    mine,
                    leader,
                    term: m.vote.leader_id.term,
                    voters: membership.voter_ids().count(),
                }
            };
            let acked = data.borrow_watched().last_quorum_acked;
            let acked = acked.map(|at| at.into_inner().elapsed());
            let without_quorum = office.is_without_quorum(&now, acked, election_timeout);
            local.set_leads_without_quorum(without_quorum);
            local.note_led(now.leader.is_some() && !without_quorum);
            tell.send_if_modified(|held| {
                let changed = *held != now;
                if changed {
                    if held.leader != now.leader {
                        local.metrics.count(Counter::StoreLeaderChangesObserved);
                    }
                    log_leadership(held, &now);
                    *held = now;
                }
                changed
            });
            if let Ok(Err(_)) = tokio::time::timeout(LEADERSHIP_INTERVAL, metrics.changed()).await {
                return;
            }
        }
    });
    told
}

fn addresses(membership: &Membership) -> BTreeMap<String, String> {
    let nodes = membership.nodes();
    nodes
        .map(|(id, member)| (id.to_string(), member.raft_addr.clone()))
        .collect()
}

/// In which term and since when this node leads, if it does.
#[derive(Debug, Default)]
struct Office(Option<(u64, Instant)>);

impl Office {
    /// No quorum heard for `lease`, nor did this leadership begin within it. `acked`: since a quorum was last heard.
    fn is_without_quorum(
        &mut self,
        now: &Leadership,
        acked: Option<Duration>,
        lease: Duration,
    ) -> bool {
        if !now.mine {
            self.0 = None;
            return false;
        }
        let began = match self.0 {
            Some((term, began)) if term == now.term => began,
            _ => Instant::now(),
        };
        self.0 = Some((now.term, began));
        now.voters > 1 && acked.unwrap_or(Duration::MAX).min(began.elapsed()) >= lease
    }
}

fn log_leadership(before: &Leadership, now: &Leadership) {
    if before.leader == now.leader {
        return;
    }
    match (&now.leader, &now.addr) {
        (Some(id), Some(addr)) if now.mine => {
            tracing::info!(target: "store", "this node (ID={}, addr={addr}) is now Leader", id.name());
        }
        (Some(id), Some(addr)) => {
            tracing::info!(target: "store", "node {} at {addr} is now Leader", id.name())
        }
        (Some(id), None) => tracing::info!(target: "store", "node {} is now Leader", id.name()),
        (None, _) => tracing::info!(target: "store", "Leader is now unknown"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_knows_that_it_has_no_quorum() {
        let now = |mine, voters| Leadership {
            mine,
            voters,
            term: 3,
            ..Leadership::default()
        };
        let (lease, short) = (Duration::from_secs(1), Some(Duration::from_millis(900)));
        let long = Some(Duration::from_millis(1100));
        let long_ago = Instant::now().checked_sub(Duration::from_secs(9));
        let cases = [
            ("heard lately", now(true, 3), short, long_ago, false),
            ("silence", now(true, 3), long, long_ago, true),
            ("never heard", now(true, 3), None, long_ago, true),
            (
                "just elected, not heard yet",
                now(true, 3),
                None,
                None,
                false,
            ),
            ("alone by design", now(true, 1), None, long_ago, false),
            ("a follower", now(false, 3), None, long_ago, false),
        ];
        for (name, now, acked, began, without) in cases {
            let mut office = Office(began.map(|began| (3, began)));
            assert_eq!(
                office.is_without_quorum(&now, acked, lease),
                without,
                "{name}"
            );
        }
        let mut office = Office(long_ago.map(|began| (2, began)));
        assert!(
            !office.is_without_quorum(&now(true, 3), None, lease),
            "a leadership of an earlier term"
        );
    }
}
