//! Administrators' requests to the leader that another node forwards, and comparisons of copies.
use super::{caller::Peer, requests::RequestServer};
use crate::{
    auth::Perm,
    internode::messages::{PeerRequest, PeerResponse},
    metrics::Counter,
    store_types::StoreError,
};

impl RequestServer {
    /// Serves `Remove` and `StepDown`.
    pub(super) async fn administer(&self, request: PeerRequest, peer: Peer<'_>) -> PeerResponse {
        match request {
            PeerRequest::Remove { name, credentials } => {
                self.metrics.count(Counter::ClusterNumRemoveNodeReq);
                let allowed =
                    self.authorized(credentials.as_ref(), &[Perm::Remove], "remove node", peer);
                PeerResponse::Done(match allowed.await {
                    Ok(()) => self.store.remove_as_leader(&name).await,
                    Err(e) => Err(e),
                })
            }
            PeerRequest::StepDown {
                to,
                wait,
                credentials,
            } => {
                self.metrics.count(Counter::ClusterNumStepdownReq);
                let allowed =
                    self.authorized(credentials.as_ref(), &[Perm::LeaderOps], "stepdown", peer);
                PeerResponse::Done(match allowed.await {
                    Ok(()) => self.store.stepdown_as_leader(to.as_deref(), wait).await,
                    Err(e) => Err(e),
                })
            }
            _ => PeerResponse::Done(Err(StoreError::Refused(
                "not an administrator's request".into(),
            ))),
        }
    }

    /// Serves `Compare`, `CopyDecision` and `ContentHash`.
    pub(super) async fn compare_copies(
        &self,
        request: PeerRequest,
        peer: Peer<'_>,
    ) -> PeerResponse {
        match request {
            PeerRequest::Compare { limit, credentials } => {
                let allowed =
                    self.authorized(credentials.as_ref(), &[Perm::LeaderOps], "compare", peer);
                PeerResponse::Compared(match allowed.await {
                    Ok(()) => self.store.compare_as_leader(limit).await,
                    Err(e) => Err(e),
                })
            }
            PeerRequest::CopyDecision { index } => {
                PeerResponse::CopyDecision(self.store.copy_decision(index, &peer.hello.from))
            }
            PeerRequest::ContentHash { index } => {
                PeerResponse::ContentHash(self.store.hash_at(index))
            }
            _ => PeerResponse::Done(Err(StoreError::Refused(
                "not a request about copies".into(),
            ))),
        }
    }
}
