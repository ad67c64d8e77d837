//! Backups and uploads between nodes: their bytes follow the answer, or the request.
use std::io;

use node_db::BackupFormat;
use tokio::io::AsyncWriteExt;

use super::{
    admission::Standing,
    forwarded::{unless_gone, via},
    requests::ClusterServer,
};
use crate::{
    auth::Perm,
    internode::{
        client::{Answer, copy_exactly},
        wire::{Connection, Hello},
    },
    metrics::Counter,
    store::{Credentials, StoreError},
};

impl ClusterServer {
    pub(super) async fn backup(
        &self,
        connection: &mut Connection,
        hello: &Hello,
        format: BackupFormat,
        credentials: Option<Credentials>,
    ) -> io::Result<()> {
        self.metrics.count(Counter::ClusterNumBackupReq);
        let path = match self.authorized(credentials.as_ref(), Perm::Backup, "backup") {
            Ok(()) => {
                let backup = self.store.backup_here(format, via(hello, &credentials));
                match unless_gone(connection, backup).await {
                    Some(path) => path,
                    None => return Ok(()),
                }
            }
            Err(e) => Err(e),
        };
        send_backup(connection, path).await
    }

    /// Asked before the first byte is taken.
    pub(super) fn may_load(&self, credentials: Option<&Credentials>) -> Result<(), StoreError> {
        self.authorized(credentials, Perm::Load, "load")?;
        match self.consensus.get() {
            None => Err(StoreError::NotOpen),
            Some(consensus) if !consensus.leads() => Err(StoreError::NotLeader),
            Some(_) => Ok(()),
        }
    }

    pub(super) async fn load(
        &self,
        connection: &mut Connection,
        len_bytes: u64,
        allowed: Result<(), StoreError>,
        standing: Standing,
    ) -> io::Result<()> {
        self.metrics.count(Counter::ClusterNumLoadReq);
        if let Err(why) = allowed {
            return decline_load(connection, why, len_bytes, standing).await;
        }
        let path = self.store.scratch().map_err(io::Error::other)?;
        let mut file = tokio::fs::File::create(&path).await?;
        copy_exactly(&mut connection.reader, &mut file, len_bytes).await?;
        file.flush().await?;
        let served = self.store.load_as_leader(&path).await;
        connection.send(&Answer::Served(served)).await
    }
}

/// Says no without taking the upload. A node of the first version listens only when it has sent everything, so what a fellow node sends is thrown away.
async fn decline_load(
    connection: &mut Connection,
    why: StoreError,
    len_bytes: u64,
    standing: Standing,
) -> io::Result<()> {
    connection.send(&Answer::Served(Err(why))).await?;
    if standing == Standing::Stranger {
        return Ok(());
    }
    copy_exactly(&mut connection.reader, &mut tokio::io::sink(), len_bytes).await
}

async fn send_backup(
    connection: &mut Connection,
    path: Result<tempfile::TempPath, StoreError>,
) -> io::Result<()> {
    let path = match path {
        Ok(path) => path,
        Err(e) => return connection.send(&Answer::Backup(Err(e))).await,
    };
    let mut file = tokio::fs::File::open(&path).await?;
    let len = file.metadata().await?.len();
    connection.send(&Answer::Backup(Ok(len))).await?;
    copy_exactly(&mut file, &mut connection.writer, len).await?;
    connection.writer.flush().await
}
