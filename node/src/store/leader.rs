//! Calls to the leader, not waited for once another node leads and the called one gives no sign of life.
//!
//! A leader that loses its machine's power, network or processor leaves its connections open. What was sent to it would be waited for until the
//! callers' time is over, by them and by whoever queues behind them, although another node has led for long.
use std::{future::pending, time::Duration};

use tokio::{sync::watch, time::sleep};

use crate::{
    peer::{Answer, Ask, Peers},
    raft::Leadership,
    wire::WireError,
};

/// Who is there answers so soon: [`Ask::Meta`] waits for nothing.
const SIGN_OF_LIFE_LIMIT: Duration = Duration::from_secs(1);
/// Pause before a deposed leader that is still at work is looked for again.
const SIGN_OF_LIFE_INTERVAL: Duration = Duration::from_secs(1);

/// Asks the leader at `address`. `deposed` runs when another node is seen to lead; the answer is waited for all the same, because a
/// leader that has handed over still says what became of its last writes, unless it is [`WireError::Silent`].
///
/// # Errors
/// See [`WireError`].
pub(super) async fn call(
    peers: &Peers,
    leadership: &watch::Receiver<Leadership>,
    address: &str,
    ask: &Ask,
    limit: Duration,
    deposed: impl FnOnce(),
) -> Result<Answer, WireError> {
    let mut leadership = leadership.clone();
    let silence = async {
        let another = |now: &Leadership| now.addr.as_deref().is_some_and(|addr| addr != address);
        if leadership.wait_for(another).await.is_err() {
            // The node is stopping.
            return pending().await;
        }
        deposed();
        let sign_of_life = || peers.call(address, &Ask::Meta, SIGN_OF_LIFE_LIMIT);
        while sign_of_life().await.is_ok() {
            sleep(SIGN_OF_LIFE_INTERVAL).await;
        }
    };
    peers.call_until(address, ask, limit, silence).await
}
