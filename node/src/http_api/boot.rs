//! `POST /boot`: makes an SQLite file the database of a cluster of one.
use std::{io, sync::Arc};

use hyper::StatusCode;
use tokio::{fs::File, io::AsyncReadExt};

use super::{
    Edge,
    body::{RequestBody, upload},
    error::Failure,
    reply::Response,
};
use crate::{metrics::Counter, store::LoadSource, store_types::StoreError};

/// What rqlite reads before it looks at anything.
const MIN_BYTES: u64 = 32;
/// How every SQLite file begins.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

pub(super) async fn answer(edge: &Arc<Edge>, body: impl RequestBody) -> Result<Response, Failure> {
    edge.metrics.count(Counter::HttpBoot);
    // Said before the upload is taken; the store checks again.
    if !edge.store.is_open() {
        return Err(Failure::Boot(StoreError::NotOpen));
    }
    if !edge.store.is_leader() {
        return Err(Failure::Boot(StoreError::NotLeader));
    }
    let upload = upload(body, &edge.settings.data_dir, &edge.memory).await?;
    if upload.len_bytes < MIN_BYTES {
        return Err(Failure::BootTooShort);
    }
    let is_database = begins_like_a_database(&upload.path).await;
    if !is_database.map_err(|error| Failure::Machine(error.to_string()))? {
        return Err(Failure::BootData);
    }
    let source = LoadSource {
        path: upload.path.to_path_buf(),
    };
    edge.store.boot(source).await.map_err(Failure::Boot)?;
    Ok(edge.replies.empty(StatusCode::OK))
}

async fn begins_like_a_database(path: &std::path::Path) -> io::Result<bool> {
    let mut begin = [0; MAGIC.len()];
    File::open(path).await?.read_exact(&mut begin).await?;
    Ok(begin == *MAGIC)
}
