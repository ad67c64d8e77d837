//! Requests to join: sent to any member, then to the leader that it names.
use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::bootstrapper::{Bootstrapper, ClusterError};
use crate::internode::{
    client::unexpected_response,
    messages::{JoinRequest, JoinResponse, PeerRequest, PeerResponse},
};

/// Redirects to the leader that are followed for one address.
const MAX_REDIRECTS: usize = 10;
/// Time limit of one request. The leader responds after the membership entry is committed.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an admitted node waits until it is a member for good, and how often it checks.
const VOTE_LIMIT: Duration = Duration::from_secs(30);
const VOTE_PAUSE: Duration = Duration::from_millis(10);
/// Time limit for finding out whether an HTTP server listens at a join address.
const HTTP_PROBE_TIMEOUT: Duration = Duration::from_secs(2);

const UNAUTHORIZED: &str = "unauthorized";

/// Why a round over the addresses failed. The next round may succeed, also after a refusal: the credentials
/// file may have been changed, or the old member removed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct JoinError(String);

/// Tries every address once; returns the one through which the node joined.
///
/// # Errors
/// The failure at the last address; see [`JoinError`].
pub(super) async fn join_once(
    bootstrapper: &Bootstrapper,
    addresses: &[String],
) -> Result<String, JoinError> {
    let mut last = JoinError("no join address".into());
    for address in addresses {
        match join_at(bootstrapper, address).await {
            Ok(()) => return Ok(address.clone()),
            Err(e) => {
                let refused = e.0 == UNAUTHORIZED;
                let anonymous = bootstrapper.options.own_user.credentials().is_none();
                let hint = if refused && anonymous {
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

async fn join_at(bootstrapper: &Bootstrapper, first: &str) -> Result<(), JoinError> {
    let local = &bootstrapper.local;
    let mut address = first.to_owned();
    let has_state = bootstrapper
        .consensus
        .is_initialized()
        .await
        .map_err(|e| JoinError(e.to_string()))?;
    for _ in 0..MAX_REDIRECTS {
        let request = PeerRequest::Join(JoinRequest {
            id: local.raft_id().to_owned(),
            raft_addr: local.raft_addr.clone(),
            voter: bootstrapper.options.voter,
            // A node that has only pledged to form a cluster is not a member of it.
            cluster: local.cluster().filter(|_| has_state),
            credentials: bootstrapper.options.own_user.credentials(),
        });
        let response = bootstrapper
            .peers
            .call(&address, &request, JOIN_TIMEOUT)
            .await
            .map_err(|e| JoinError(e.to_string()))?;
        let PeerResponse::Join(response) = response else {
            return Err(JoinError(unexpected_response(&address)));
        };
        match response {
            JoinResponse::Joined(cluster) => {
                let adopted = if has_state {
                    local.adopt(&cluster)
                } else {
                    local.enter(&cluster)
                };
                adopted.map_err(|e| JoinError(e.to_string()))?;
                if !has_state {
                    await_vote(bootstrapper).await;
                }
                return Ok(());
            }
            JoinResponse::NotLeader(Some(leader)) if leader != address => address = leader,
            JoinResponse::NotLeader(_) => return Err(JoinError("no leader".into())),
            JoinResponse::Refused(reason) => return Err(JoinError(reason)),
            JoinResponse::Unauthorized => return Err(JoinError(UNAUTHORIZED.into())),
        }
    }
    Err(JoinError("max redirects exceeded".into()))
}

/// Waits until this node votes, as far as it is to, and the log has said so.
async fn await_vote(bootstrapper: &Bootstrapper) {
    let deadline = Instant::now() + VOTE_LIMIT;
    while bootstrapper.consensus.awaits_vote() {
        if Instant::now() >= deadline {
            tracing::info!(target: "cluster-join", "admitted, but still without what was written before: it is a member once it has that");
            return;
        }
        tokio::time::sleep(VOTE_PAUSE).await;
    }
}

/// Fails if an HTTP server listens at `address`: the most common mistake in `-join`, so it is reported at
/// once.
pub(super) async fn refuse_http(address: &str) -> Result<(), ClusterError> {
    let probe = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!("GET /status HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut start = [0; 5];
        stream.read_exact(&mut start).await.ok()?;
        (&start == b"HTTP/").then_some(())
    };
    match timeout(HTTP_PROBE_TIMEOUT, probe).await {
        Ok(Some(())) => Err(ClusterError::ServesHttp(address.to_owned())),
        Ok(None) | Err(_) => Ok(()),
    }
}
