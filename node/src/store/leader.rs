//! Calls to the leader: waited for while one is elected, and not waited for any more once another node leads
//! and the called one gives no sign of life.
//!
//! A leader that loses its machine's power, network or processor leaves its connections open. What was sent
//! to it would be waited for until the callers' time is over, by them and by whoever queues behind them,
//! although another node has led for long.
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

/// An election takes one or two election timeouts, a few when votes are split. A cluster that has been
/// without a leader for longer than this many has no majority, most likely: its callers are told so at once.
const PATIENCE_ELECTIONS: u32 = 10;
/// Between looks at who leads, besides at each change: a new leader needs a moment until it may serve.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// How long a call goes on that certainly has had no effect so far, because nobody led, or whoever did went
/// away.
#[derive(Debug)]
pub(super) struct Patience {
    until: Instant,
}

impl Patience {
    /// For a call whose caller waits until `deadline`; begins with its first failure.
    pub(super) fn new(local: &Local, election_timeout: Duration, deadline: Instant) -> Self {
        let left = patience_left(local.unled_for(), election_timeout);
        Self {
            until: deadline.min(Instant::now() + left),
        }
    }

    /// Waits for another leader, or a moment. False when the time is over.
    pub(super) async fn again(&self, leadership: &watch::Receiver<Leadership>) -> bool {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let mut leadership = leadership.clone();
        leadership.mark_unchanged();
        let _ = timeout(left.min(LOOK_INTERVAL), leadership.changed()).await;
        true
    }
}

fn patience_left(unled_for: Duration, election_timeout: Duration) -> Duration {
    (election_timeout * PATIENCE_ELECTIONS).saturating_sub(unled_for)
}

/// Who is there answers so soon: [`PeerRequest::Meta`] waits for nothing.
const SIGN_OF_LIFE_LIMIT: Duration = Duration::from_secs(1);
/// Pause before a deposed leader that is still at work is looked for again.
const SIGN_OF_LIFE_INTERVAL: Duration = Duration::from_secs(1);

/// Asks the leader at `address`. `deposed` runs when another node is seen to lead; the answer is waited for
/// all the same, because a leader that has handed over still says what became of its last writes, unless it
/// is [`WireError::Unresponsive`].
///
/// # Errors
/// See [`WireError`].
pub(super) async fn call(
    peers: &Peers,
    leadership: &watch::Receiver<Leadership>,
    address: &str,
    ask: &PeerRequest,
    limit: Duration,
    deposed: impl FnOnce(),
) -> Result<PeerResponse, WireError> {
    let answered = ask_for_more(peers, leadership, address, ask, limit, deposed).await;
    answered.map(|(answer, _)| answer)
}

/// The same, with the connection if more follows on it.
///
/// # Errors
/// See [`WireError`].
pub(super) async fn ask_for_more(
    peers: &Peers,
    leadership: &watch::Receiver<Leadership>,
    address: &str,
    ask: &PeerRequest,
    limit: Duration,
    deposed: impl FnOnce(),
) -> Result<(PeerResponse, Option<Connection>), WireError> {
    let mut leadership = leadership.clone();
    let silence = async {
        let another = |now: &Leadership| now.addr.as_deref().is_some_and(|addr| addr != address);
        if leadership.wait_for(another).await.is_err() {
            // The node is stopping.
            return pending().await;
        }
        deposed();
        let sign_of_life = || peers.call(address, &PeerRequest::Meta, SIGN_OF_LIFE_LIMIT);
        while sign_of_life().await.is_ok() {
            sleep(SIGN_OF_LIFE_INTERVAL).await;
        }
    };
    peers.call_for_parts(address, ask, limit, silence).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_late_to_a_cluster_without_a_majority_is_not_kept_waiting() {
        let seconds = Duration::from_secs;
        for (unled_for, want) in [(0, 10), (1, 9), (9, 1), (10, 0), (3600, 0)] {
            assert_eq!(patience_left(seconds(unled_for), seconds(1)), seconds(want));
        }
    }
}
