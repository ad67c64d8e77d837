//! Who leads, as this node knows it: what openraft reports, unless the leader has gone silent or says itself
//! that it has no quorum.
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
    /// This node is the leader.
    pub mine: bool,
    /// Raft term.
    pub term: u64,
    /// Number of voters.
    pub voters: usize,
}

/// How often the leader's last contact is checked, besides at every change that openraft reports.
const LEADERSHIP_INTERVAL: Duration = Duration::from_millis(100);

/// Follows openraft's server metrics with a small value of its own, so that readers never hold openraft's
/// guard. openraft keeps naming a leader that has gone silent (and, after a restart, the leader of the stored
/// vote); here another node leads only while messages from it arrive.
pub(crate) fn watch(
    raft: &Raft,
    local: &Arc<Local>,
    election_timeout: Duration,
) -> watch::Receiver<Leadership> {
    let mut metrics = raft.server_metrics();
    let local = Arc::clone(local);
    let contact_timeout = election_timeout * 3 / 2;
    let (sender, receiver) = watch::channel(Leadership::default());
    let data = raft.data_metrics();
    let mut leader_term = LeaderTerm::default();
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
                            .is_some_and(|since| since < contact_timeout);
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
            let without_quorum = leader_term.is_without_quorum(&now, acked, election_timeout);
            local.set_leads_without_quorum(without_quorum);
            local.note_leader_known(now.leader.is_some() && !without_quorum);
            sender.send_if_modified(|held| {
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
    receiver
}

fn addresses(membership: &Membership) -> BTreeMap<String, String> {
    let nodes = membership.nodes();
    nodes
        .map(|(id, member)| (id.to_string(), member.raft_addr.clone()))
        .collect()
}

/// The term in which this node leads, and since when; `None` if it does not lead.
#[derive(Debug, Default)]
struct LeaderTerm(Option<(u64, Instant)>);

impl LeaderTerm {
    /// Whether this leader has had no response from a quorum for `lease`, and its leadership is older than
    /// that. `acked`: time since a quorum last responded.
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
            ("no contact", now(true, 3), long, long_ago, true),
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
            let mut leader_term = LeaderTerm(began.map(|began| (3, began)));
            assert_eq!(
                leader_term.is_without_quorum(&now, acked, lease),
                without,
                "{name}"
            );
        }
        let mut leader_term = LeaderTerm(long_ago.map(|began| (2, began)));
        assert!(
            !leader_term.is_without_quorum(&now(true, 3), None, lease),
            "a leadership of an earlier term"
        );
    }
}
