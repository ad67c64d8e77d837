//! Exchanging notices: each node reports its state and learns the states of the others.
use std::time::Duration;

use super::{bootstrapper::Bootstrapper, moved::note_member};
use crate::internode::messages::{Notice, NoticeState, PeerRequest, PeerResponse};

/// Time limit for exchanging notices with one address.
pub(super) const NOTICE_TIMEOUT: Duration = Duration::from_secs(5);

impl Bootstrapper {
    /// Sends this node's notice to all addresses at once. Returns their notices in the same order; `None`
    /// where there was no response.
    pub(super) async fn exchange_notices(
        &self,
        addresses: &[String],
        state: NoticeState,
    ) -> Vec<Option<Notice>> {
        let notice = Notice {
            id: self.local.raft_id().to_owned(),
            raft_addr: self.local.raft_addr.clone(),
            state,
            credentials: self.options.own_user.credentials(),
        };
        let calls = addresses.iter().map(|address| {
            let request = PeerRequest::Notify(notice.clone());
            async move {
                match self.peers.call(address, &request, NOTICE_TIMEOUT).await {
                    Ok(PeerResponse::Notify(theirs)) => Some(theirs),
                    Ok(_) => None,
                    Err(e) => {
                        tracing::debug!(target: "cluster-bootstrap", "notice to {address}: {e}");
                        None
                    }
                }
            }
        });
        futures_util::future::join_all(calls).await
    }

    /// Reports this member's address to the others and notes theirs.
    pub(super) async fn exchange_addresses(&self, addresses: &[String]) {
        let notices = self.exchange_notices(addresses, NoticeState::Member).await;
        for notice in notices.iter().flatten() {
            note_member(&self.local, notice);
        }
    }
}
