//! Backups and uploads between nodes: their bytes follow the response or the request.
use std::io;

use node_db::BackupFormat;
use tokio::io::AsyncWriteExt;

use super::{
    admission::Standing,
    audited::note_result,
    caller::{Peer, origin_of, while_connected},
    requests::RequestServer,
};
use crate::{
    auth::Perm,
    internode::{
        messages::{PeerRequest, PeerResponse},
        transfer::copy_exactly,
        wire::Connection,
    },
    metrics::Counter,
    store::Copy,
    store_types::{Credentials, StoreError},
};

impl RequestServer {
    /// Serves `Backup` and `Load`.
    pub(super) async fn transfer(
        &self,
        connection: &mut Connection,
        peer: Peer<'_>,
        request: PeerRequest,
    ) -> io::Result<()> {
        match request {
            PeerRequest::Backup {
                format,
                credentials,
            } => self.backup(connection, peer, format, credentials).await,
            PeerRequest::Load {
                len_bytes,
                credentials,
            } => {
                let allowed = self.may_load(credentials.as_ref(), peer).await;
                self.load(connection, len_bytes, allowed, peer).await
            }
            _ => Ok(()),
        }
    }

    async fn backup(
        &self,
        connection: &mut Connection,
        peer: Peer<'_>,
        format: BackupFormat,
        credentials: Option<Credentials>,
    ) -> io::Result<()> {
        self.metrics.count(Counter::ClusterNumBackupReq);
        let allowed = self.authorized(credentials.as_ref(), &[Perm::Backup], "backup", peer);
        let path = match allowed.await {
            Ok(()) => {
                let origin = origin_of(peer.hello, &credentials);
                let backup = self.store.backup_here(format, origin);
                match while_connected(connection, backup).await {
                    Some(path) => path,
                    None => return Ok(()),
                }
            }
            Err(e) => Err(e),
        };
        note(peer, path.as_ref().err());
        send_backup(connection, path).await
    }

    /// Checks an upload before any of its bytes is read.
    async fn may_load(
        &self,
        credentials: Option<&Credentials>,
        peer: Peer<'_>,
    ) -> Result<(), StoreError> {
        self.authorized(credentials, &[Perm::Load], "load", peer)
            .await?;
        match self.consensus.get() {
            None => Err(StoreError::NotOpen),
            Some(consensus) if !consensus.leads() => Err(StoreError::NotLeader),
            Some(_) => Ok(()),
        }
    }

    async fn load(
        &self,
        connection: &mut Connection,
        len_bytes: u64,
        allowed: Result<(), StoreError>,
        peer: Peer<'_>,
    ) -> io::Result<()> {
        self.metrics.count(Counter::ClusterNumLoadReq);
        if let Err(why) = allowed {
            note(peer, Some(&why));
            return decline_load(connection, why, len_bytes, peer.standing).await;
        }
        let path = self.store.scratch().map_err(io::Error::other)?;
        let mut file = tokio::fs::File::create(&path).await?;
        copy_exactly(&mut connection.reader, &mut file, len_bytes).await?;
        file.flush().await?;
        let served = self.store.load_as_leader(&path).await;
        note(peer, served.as_ref().err());
        connection.send(&PeerResponse::Served(served)).await
    }
}

/// Notes in the audit log why a transfer failed.
fn note(peer: Peer<'_>, error: Option<&StoreError>) {
    if let Some(notes) = peer.note() {
        note_result(notes, error);
    }
}

/// Refuses an upload. A node of format version 1 reads the response only after it has sent everything, so the
/// upload of a node of this cluster is read and discarded.
async fn decline_load(
    connection: &mut Connection,
    why: StoreError,
    len_bytes: u64,
    standing: Standing,
) -> io::Result<()> {
    connection.send(&PeerResponse::Served(Err(why))).await?;
    if standing == Standing::Unknown {
        return Ok(());
    }
    copy_exactly(&mut connection.reader, &mut tokio::io::sink(), len_bytes).await
}

async fn send_backup(
    connection: &mut Connection,
    copy: Result<Copy, StoreError>,
) -> io::Result<()> {
    let copy = match copy {
        Ok(copy) => copy,
        Err(e) => return connection.send(&PeerResponse::Backup(Err(e))).await,
    };
    let mut file = tokio::fs::File::open(&copy.path).await?;
    let len = file.metadata().await?.len();
    connection.send(&PeerResponse::Backup(Ok(len))).await?;
    copy_exactly(&mut file, &mut connection.writer, len).await?;
    // Which index it holds. Older nodes have closed the connection by then, or ignore it.
    if let Some(index) = copy.index {
        connection.writer.write_all(&index.to_be_bytes()).await?;
    }
    connection.writer.flush().await
}
