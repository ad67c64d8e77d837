//! Asking to be admitted: through any member, following the word of who leads.
use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{ClusterError, Forming};
use crate::internode::client::{Answer, Ask, JoinAnswer, JoinAsk};

/// Hints to the leader followed for one address.
const MAX_REDIRECTS: usize = 10;
/// One ask; the leader answers after the membership entry is committed.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Looking whether an HTTP server sits on a join address.
const HTTP_PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why one round over the addresses did not lead into a cluster. All of it may be otherwise in the next round: also a refusal, once somebody
/// has changed the credentials file or removed the old member.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct JoinError(String);

/// Tries every address once; returns the one that let us in.
///
/// # Errors
/// The last address's; see [`JoinError`].
pub async fn join_once(forming: &Forming, addresses: &[String]) -> Result<String, JoinError> {
    let mut last = JoinError("no join address".into());
    for address in addresses {
        match join_at(forming, address).await {
            Ok(()) => return Ok(address.clone()),
            Err(e) => {
                let hint = if forming.plan.credentials.is_none() {
                    " (did you forget to set -join-as?)"
                } else {
                    ""
                };
                tracing::info!(target: "cluster-join", "failed to join via node at {address}: {e}{hint}");
                last = e;
            }
        }
    }
    Err(last)
}

async fn join_at(forming: &Forming, first: &str) -> Result<(), JoinError> {
    let mut address = first.to_owned();
    let has_state = forming
        .consensus
        .is_initialized()
        .await
        .map_err(|e| JoinError(e.to_string()))?;
    for _ in 0..MAX_REDIRECTS {
        let ask = Ask::Join(JoinAsk {
            id: forming.local.raft_id().to_owned(),
            raft_addr: forming.local.raft_addr.clone(),
            voter: forming.plan.voter,
            // A pledge to a forming that has not happened is not a membership.
            cluster: forming.local.cluster().filter(|_| has_state),
            credentials: forming.plan.credentials.clone(),
        });
        let answer = forming
            .peers
            .call(&address, &ask, JOIN_TIMEOUT)
            .await
            .map_err(|e| JoinError(e.to_string()))?;
        match answer {
            Answer::Join(JoinAnswer::Joined(cluster)) => {
                let adopted = if has_state {
                    forming.local.adopt(&cluster)
                } else {
                    forming.local.enter(&cluster)
                };
                return adopted.map_err(|e| JoinError(e.to_string()));
            }
            Answer::Join(JoinAnswer::NotLeader(Some(leader))) if leader != address => {
                address = leader
            }
            Answer::Join(JoinAnswer::NotLeader(_)) => {
                return Err(JoinError("no leader".into()));
            }
            Answer::Join(JoinAnswer::Refused(reason)) => return Err(JoinError(reason)),
            Answer::Join(JoinAnswer::Unauthorized) => {
                return Err(JoinError("unauthorized".into()));
            }
            _ => {
                return Err(JoinError(format!("{address} answered another question")));
            }
        }
    }
    Err(JoinError("max redirects exceeded".into()))
}

/// An address that talks HTTP is the commonest mistake in `-join`; it is named at once.
pub async fn refuse_http(address: &str) -> Result<(), ClusterError> {
    let probe = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let ask = format!("GET /status HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(ask.as_bytes()).await.ok()?;
        let mut start = [0; 5];
        stream.read_exact(&mut start).await.ok()?;
        (&start == b"HTTP/").then_some(())
    };
    match timeout(HTTP_PROBE_TIMEOUT, probe).await {
        Ok(Some(())) => Err(ClusterError::ServesHttp(address.to_owned())),
        Ok(None) | Err(_) => Ok(()),
    }
}
