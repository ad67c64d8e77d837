//! Calls to the leader. A call waits while a leader is elected, and stops waiting for a leader that no longer
//! responds once another node leads.
//!
//! A leader whose machine loses power, network or processor leaves its connections open. Without this, its
//! callers, and those that queue behind them, would wait for it until their timeouts, although another node
//! has led for long.
use std::{
    future::pending,
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    internode::{
        client::Peers,
        messages::{PeerRequest, PeerResponse},
        wire::{Connection, WireError},
    },
    local::Local,
    raft::Leadership,
};

/// An election takes one or two election timeouts, a few when votes are split. A cluster that has had no
/// leader for longer than this many most likely has no majority: its callers get the error at once.
const RETRY_ELECTIONS: u32 = 10;
/// Interval at which leadership is checked, besides at each change: a new leader needs a moment until it can
/// serve.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// How long a call is retried that certainly has had no effect so far, because no node led or the leader went
/// away.
#[derive(Debug)]
pub(super) struct RetryLimit {
    until: Instant,
}

impl RetryLimit {
    /// For a call whose caller waits until `deadline`; starts with the first failure.
    pub(super) fn new(local: &Local, election_timeout: Duration, deadline: Instant) -> Self {
        let left = time_left(local.leaderless_for(), election_timeout);
        Self {
            until: deadline.min(Instant::now() + left),
        }
    }

    /// Waits for another leader, or for a moment. False when the limit is reached.
    pub(super) async fn again(&self, leadership: &watch::Receiver<Leadership>) -> bool {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let mut leadership = leadership.clone();
        leadership.mark_unchanged();
        let _ = timeout(left.min(CHECK_INTERVAL), leadership.changed()).await;
        true
    }
}

fn time_left(leaderless_for: Duration, election_timeout: Duration) -> Duration {
    (election_timeout * RETRY_ELECTIONS).saturating_sub(leaderless_for)
}

/// A node that is reachable responds within this time: [`PeerRequest::Meta`] waits for nothing.
const LIVENESS_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause before a deposed leader that still responds is checked again.
const LIVENESS_INTERVAL: Duration = Duration::from_secs(1);

/// How long a call may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct CallLimit {
    /// The time for talking to the leader.
    pub(super) time: Duration,
    /// Longer, while the leader says that it leads: what it was sent may take as long as its statements need.
    /// The leader itself answers when its database makes no progress, or no quorum commits the entry.
    pub(super) is_patient: bool,
}

/// Sends a request to the leader at `address`. `deposed` runs when another node is known to lead; the
/// response is still awaited, because a leader that has transferred its leadership reports the results of its
/// last writes, unless it is [`WireError::Unresponsive`].
///
/// # Errors
/// See [`WireError`].
pub(super) async fn call(
    peers: &Peers,
    leadership: &watch::Receiver<Leadership>,
    address: &str,
    request: &PeerRequest,
    limit: CallLimit,
    deposed: impl FnOnce(),
) -> Result<PeerResponse, WireError> {
    let answered = call_with_connection(peers, leadership, address, request, limit, deposed).await;
    answered.map(|(answer, _)| answer)
}

/// As [`call`], with the connection if more follows on it.
///
/// # Errors
/// See [`WireError`].
pub(super) async fn call_with_connection(
    peers: &Peers,
    leadership: &watch::Receiver<Leadership>,
    address: &str,
    request: &PeerRequest,
    limit: CallLimit,
    deposed: impl FnOnce(),
) -> Result<(PeerResponse, Option<Connection>), WireError> {
    let mut leadership = leadership.clone();
    let unresponsive = async {
        let another = |now: &Leadership| now.addr.as_deref().is_some_and(|addr| addr != address);
        if leadership.wait_for(another).await.is_err() {
            // The node is stopping.
            return pending().await;
        }
        deposed();
        let is_alive = || peers.call(address, &PeerRequest::Meta, LIVENESS_TIMEOUT);
        while is_alive().await.is_ok() {
            sleep(LIVENESS_INTERVAL).await;
        }
    };
    let idle = async {
        let ask = || peers.call(address, &PeerRequest::Meta, LIVENESS_TIMEOUT);
        while limit.is_patient
            && let Ok(PeerResponse::Meta(meta)) = ask().await
            && meta.leader
        {
            sleep(LIVENESS_INTERVAL).await;
        }
    };
    peers
        .call_for_parts(address, request, (limit.time, idle), unresponsive)
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_late_to_a_cluster_without_a_majority_is_not_kept_waiting() {
        let seconds = Duration::from_secs;
        for (leaderless_for, want) in [(0, 10), (1, 9), (9, 1), (10, 0), (3600, 0)] {
            assert_eq!(
                time_left(seconds(leaderless_for), seconds(1)),
                seconds(want)
            );
        }
    }
}
