//! Loads a whole database or a script: validated first, then carried by the log in pieces, so that memory
//! stays constant for any size.
use std::{path::Path, time::Duration};

use bytes::Bytes;
use node_db::{Bounds, Database, LoadChunk, LoadContent, LoadFinish, Outcome, Stamp};
use tokio::io::AsyncReadExt;

use super::{Caller, LoadSource, Opened, Store};
use crate::{
    bounds,
    internode::messages::PeerRequest,
    metrics::Counter,
    raft::Consensus,
    store_types::{Served, StoreError},
};

/// Bytes of a load in one log entry.
const CHUNK_BYTES: usize = 1 << 20;
/// Pause between attempts to undo a load.
const ABORT_PAUSE: Duration = Duration::from_millis(100);
/// The beginning of every SQLite file, as far as rqlite checks it.
const SQLITE_MAGIC: &[u8] = b"SQLite format";

impl Store {
    /// Loads an uploaded file: an SQLite database replaces the data, anything else runs as SQL.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn load(&self, source: LoadSource, caller: &Caller) -> Result<Served, StoreError> {
        let opened = self.open()?;
        if self.is_restoring() {
            return Err(StoreError::NotReady);
        }
        if opened.consensus.is_mine() {
            match self.load_here(opened, &source.path).await {
                Err(StoreError::NotLeader) => {}
                result => return result,
            }
        }
        let Some(address) = Self::elsewhere(opened) else {
            return Err(StoreError::LeaderNotFound);
        };
        let len_bytes = tokio::fs::metadata(&source.path)
            .await
            .map_err(|e| StoreError::Refused(e.to_string()))?
            .len();
        let ask = PeerRequest::Load {
            len_bytes,
            credentials: caller.credentials.clone(),
        };
        let served = self
            .0
            .peers
            .send_load(&address, &ask, &source.path, caller.timeout)
            .await?;
        Ok(Served {
            served_by: address,
            ..served
        })
    }

    /// As [`Store::load`], but only for an SQLite file, on the leader of a cluster of one; followed by a
    /// snapshot.
    ///
    /// # Errors
    /// `not leader`, `not single-node`, `invalid SQLite data`, or as for load.
    pub async fn boot(&self, source: LoadSource) -> Result<(), StoreError> {
        let opened = self.open()?;
        if self.is_restoring() {
            return Err(StoreError::NotReady);
        }
        if !opened.consensus.leads() {
            return Err(StoreError::NotLeader);
        }
        if opened.consensus.members().len() != 1 {
            return Err(StoreError::Refused("not single-node".into()));
        }
        if !is_sqlite(&source.path).await? {
            return Err(StoreError::Refused("invalid SQLite data".into()));
        }
        self.load_here(opened, &source.path).await?;
        self.0.local.metrics.count(Counter::StoreNumBoots);
        if let Err(why) = opened.consensus.checkpoint(&opened.db, Some(0)).await {
            tracing::warn!(target: "store", "booted, but no snapshot yet: {why}");
        }
        Ok(())
    }

    /// Serves a forwarded load; never forwards again.
    ///
    /// # Errors
    /// As [`Store::load`], with `not leader` if this node does not lead.
    pub async fn load_as_leader(&self, path: &Path) -> Result<Served, StoreError> {
        if self.is_restoring() {
            return Err(StoreError::NotReady);
        }
        self.load_here(self.open()?, path).await
    }

    /// Loads a restored file, on the leader only; also before clients may write. Returns the indexes of its
    /// first and last entry. `at_last` is called before the last piece is proposed: until then the load has
    /// no effect if this future is dropped, after that it may have.
    ///
    /// # Errors
    /// As [`Store::load`]; a load that the nodes refused is [`StoreError::Refused`].
    pub async fn load_restored(
        &self,
        path: &Path,
        at_last: impl Fn() + Send,
    ) -> Result<(u64, u64), StoreError> {
        let (served, first) = self.load_file(self.open()?, path, at_last).await?;
        match (served.error, first, served.raft_index) {
            (Some(error), ..) => Err(StoreError::Refused(error)),
            (None, Some(first), Some(last)) => Ok((first, last)),
            (None, ..) => Err(StoreError::Refused("the file is empty".into())),
        }
    }

    async fn load_here(&self, opened: &Opened, path: &Path) -> Result<Served, StoreError> {
        let (served, _) = self.load_file(opened, path, || ()).await?;
        Ok(served)
    }

    /// Also returns the index of its first entry.
    async fn load_file(
        &self,
        opened: &Opened,
        path: &Path,
        at_last: impl Fn() + Send,
    ) -> Result<(Served, Option<u64>), StoreError> {
        let _alone = self.0.loading.lock().await;
        if !opened.consensus.leads() {
            return Err(StoreError::NotLeader);
        }
        let io = |e: std::io::Error| StoreError::Refused(format!("reading the upload: {e}"));
        let total_bytes = tokio::fs::metadata(path).await.map_err(io)?.len();
        if total_bytes == 0 {
            return Ok((self.served(Outcome::default(), None), None));
        }
        let content = match check(path).await? {
            LoadContent::Script if self.0.local.format_version() >= 2 => {
                // A dump may be restored whatever the size of its values; the disks limit the total.
                let bounds = Bounds {
                    value_bytes: 0,
                    ..bounds::of_caller(None)
                };
                LoadContent::BoundedScript(opened.consensus.disk().bound(bounds))
            }
            content => content,
        };
        let unfinished = Unfinished::begin(&opened.consensus);
        let result = self
            .propose_chunks(opened, path, unfinished.id, total_bytes, content, at_last)
            .await;
        if result.is_ok() {
            unfinished.finished();
        }
        self.0.local.metrics.count(Counter::StoreNumLoads);
        let (mut served, first) = result?;
        if content == LoadContent::File && served.error.is_none() {
            // rqlite returns no results for a binary load.
            served.results.clear();
        }
        Ok((served, Some(first)))
    }

    async fn propose_chunks(
        &self,
        opened: &Opened,
        path: &Path,
        load_id: u64,
        total_bytes: u64,
        content: LoadContent,
        at_last: impl Fn() + Send,
    ) -> Result<(Served, u64), StoreError> {
        let io = |e: std::io::Error| StoreError::Refused(format!("reading the upload: {e}"));
        let mut file = tokio::fs::File::open(path).await.map_err(io)?;
        let mut crc = crc32fast::Hasher::new();
        let mut offset = 0;
        let mut first = None;
        loop {
            let want = usize::try_from(total_bytes - offset)
                .unwrap_or(usize::MAX)
                .min(CHUNK_BYTES);
            let mut data = vec![0; want];
            file.read_exact(&mut data).await.map_err(io)?;
            crc.update(&data);
            let end = offset + want as u64;
            let finish = (end == total_bytes).then(|| LoadFinish {
                content,
                total_bytes,
                crc32: crc.clone().finalize(),
                stamp: Stamp::default(),
            });
            let last = finish.is_some();
            if last {
                at_last();
            }
            let chunk = LoadChunk {
                load_id,
                offset,
                data: Bytes::from(data),
                finish,
            };
            let committed = opened.consensus.proposer().load(chunk).await?;
            let first = *first.get_or_insert(committed.index);
            if last {
                let outcome = committed.outcomes.into_iter().next().unwrap_or_default();
                return Ok((self.served(outcome, Some(committed.index)), first));
            }
            offset = end;
        }
    }
}

/// A load whose last piece is not known to be applied. While its pieces are staged, no node makes a
/// checkpoint; so it is undone when it fails, or when its client disconnects and the call is dropped.
struct Unfinished {
    consensus: Option<Consensus>,
    term: u64,
    id: u64,
}

impl Unfinished {
    fn begin(consensus: &Consensus) -> Self {
        Self {
            consensus: Some(consensus.clone()),
            term: consensus.leadership().term,
            id: rand::random(),
        }
    }

    /// Applied, or refused by every node alike: nothing is staged any more.
    fn finished(mut self) {
        self.consensus = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(consensus) = self.consensus.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(abort(consensus, self.term, self.id));
        }
    }
}

/// Proposes the end of a load until it is certain: by this entry, or by the first entry of another term,
/// which ends every earlier load.
async fn abort(consensus: Consensus, term: u64, load_id: u64) {
    while consensus.leadership().term == term {
        match consensus.proposer().load_abort(load_id).await {
            Ok(_) => {
                tracing::info!(target: "store", "an unfinished load was undone");
                return;
            }
            Err(error) => {
                tracing::debug!(target: "store", "undoing a load: {error}");
                tokio::time::sleep(ABORT_PAUSE).await;
            }
        }
    }
}

/// The kind of file, if every node can load it.
async fn check(path: &Path) -> Result<LoadContent, StoreError> {
    let owned = path.to_owned();
    let (content, what) = match is_sqlite(path).await? {
        true => (LoadContent::File, "invalid SQLite data"),
        false => (LoadContent::Script, "invalid SQL text"),
    };
    let checked = tokio::task::spawn_blocking(move || match content {
        LoadContent::File => Database::validate_file(&owned),
        _ => Database::validate_script(&owned),
    });
    checked
        .await
        .map_err(|e| StoreError::Refused(e.to_string()))?
        .map_err(|e| StoreError::Refused(format!("{what}: {e}")))?;
    Ok(content)
}

async fn is_sqlite(path: &Path) -> Result<bool, StoreError> {
    let io = |e: std::io::Error| StoreError::Refused(format!("reading the upload: {e}"));
    let mut start = Vec::new();
    let file = tokio::fs::File::open(path).await.map_err(io)?;
    file.take(SQLITE_MAGIC.len() as u64 + 1)
        .read_to_end(&mut start)
        .await
        .map_err(io)?;
    Ok(start.len() > SQLITE_MAGIC.len() && start.starts_with(SQLITE_MAGIC))
}
