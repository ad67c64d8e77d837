//! What another member says of the archive, and the entries that it lacks for it.
use node_contract::Lineage;

use super::requests::RequestServer;
use crate::{
    internode::messages::{PeerRequest, PeerResponse},
    raft::storage::logged::Logged,
    store_types::StoreError,
};

/// Bytes of entries in one response.
const RESPONSE_BYTES: usize = 4 << 20;
/// A larger entry does not fit in a frame.
const MAX_ENTRY_BYTES: usize = 60 << 20;

impl RequestServer {
    pub(super) async fn archived(&self, request: PeerRequest) -> PeerResponse {
        match request {
            PeerRequest::Archived {
                lineage,
                index,
                unix_micros,
            } => {
                if self.is_own(&lineage)
                    && let Some(archive) = &self.archive
                {
                    archive.note_archived(&lineage, index, Some(unix_micros));
                }
                PeerResponse::Done(Ok(()))
            }
            PeerRequest::LoggedEntries { lineage, from } => {
                PeerResponse::LoggedEntries(if self.is_own(&lineage) {
                    self.logged_entries(from).await
                } else {
                    Err(StoreError::Refused(
                        "this node is of another lineage".into(),
                    ))
                })
            }
            _ => PeerResponse::Done(Err(StoreError::Refused("not about the archive".into()))),
        }
    }

    fn is_own(&self, lineage: &Lineage) -> bool {
        self.local
            .cluster()
            .is_some_and(|own| own.lineage == *lineage)
    }

    async fn logged_entries(
        &self,
        from: u64,
    ) -> Result<Vec<crate::command::logged::LoggedEntry>, StoreError> {
        let refused = |text: String| StoreError::Refused(text);
        let consensus = self.consensus.get().cloned().ok_or(StoreError::NotOpen)?;
        let read = move || consensus.applied_entries(from, RESPONSE_BYTES);
        let read = tokio::task::spawn_blocking(read);
        let read = read.await.map_err(|e| refused(e.to_string()))?;
        match read.map_err(|e| refused(e.to_string()))? {
            Logged::Purged(_) => Ok(Vec::new()),
            Logged::Entries(entries) => {
                if entries
                    .iter()
                    .any(|entry| entry.bytes.len() > MAX_ENTRY_BYTES)
                {
                    return Err(refused("an entry is too large for a message".into()));
                }
                Ok(entries)
            }
        }
    }
}
