//! `POST /boot`: replaces the database of a single-node cluster by an SQLite file.
use std::{io, sync::Arc};

use hyper::StatusCode;
use tokio::{fs::File, io::AsyncReadExt};

use super::{
    body::{RequestBody, upload},
    error::Failure,
    reply::Response,
    state::HttpState,
};
use crate::{metrics::Counter, store::LoadSource, store_types::StoreError};

/// rqlite reads this many bytes before it checks anything.
const MIN_BYTES: u64 = 32;
/// The first bytes of every SQLite file.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

pub(super) async fn handle(
    state: &Arc<HttpState>,
    body: impl RequestBody,
) -> Result<Response, Failure> {
    state.metrics.count(Counter::HttpBoot);
    // Checked before the upload is received; the store checks again.
    if !state.store.is_open() {
        return Err(Failure::Boot(StoreError::NotOpen));
    }
    if !state.store.is_leader() {
        return Err(Failure::Boot(StoreError::NotLeader));
    }
    let upload = upload(body, &state.settings.scratch_dir, &state.memory).await?;
    if upload.len_bytes < MIN_BYTES {
        return Err(Failure::BootTooShort);
    }
    let is_database = has_sqlite_magic(&upload.path).await;
    if !is_database.map_err(|error| Failure::Machine(error.to_string()))? {
        return Err(Failure::BootData);
    }
    let source = LoadSource {
        path: upload.path.to_path_buf(),
    };
    state.store.boot(source).await.map_err(Failure::Boot)?;
    Ok(state.replies.empty(StatusCode::OK))
}

async fn has_sqlite_magic(path: &std::path::Path) -> io::Result<bool> {
    let mut begin = [0; MAGIC.len()];
    File::open(path).await?.read_exact(&mut begin).await?;
    Ok(begin == *MAGIC)
}
