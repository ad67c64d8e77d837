//! `GET /db/backup`: streams a copy of the database, compressed if requested.
use std::{
    io::{self, Write as _},
    mem,
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use flate2::{Compression, write::GzEncoder};
use futures_util::stream;
use hyper::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use node_api::{BackupFormat as Format, QueryParams};
use node_db::BackupFormat;
use tempfile::TempPath;
use tokio::{fs::File, io::AsyncReadExt, task::spawn_blocking};

use super::{
    error::Failure,
    param::Call,
    redirect,
    reply::{ReplyBody, Response},
    state::HttpState,
};
use crate::{metrics::Counter, store::Copy};

/// Bytes that are read and compressed at a time: so many that the switch to a blocking thread does not
/// matter.
const CHUNK_BYTES: usize = 256 << 10;
/// Index of an entry that the copy holds, with all before it; it may hold some more.
pub(crate) const RAFT_INDEX: HeaderName = HeaderName::from_static("x-rqlite-raft-index");

pub(super) async fn handle(state: &Arc<HttpState>, call: &Call) -> Result<Response, Failure> {
    let params = &call.params;
    let format = format(params)?;
    let content_type = match format {
        BackupFormat::Sql { .. } => HeaderValue::from_static("application/sql"),
        _ => HeaderValue::from_static("application/octet-stream"),
    };
    if !params.noleader
        && let Some(elsewhere) = redirect::to_leader(state, call).await?
    {
        return Ok(elsewhere);
    }
    let remote = !params.noleader && !state.store.is_leader();
    let Copy { path, index } = state
        .store
        .backup(format, params.noleader, &call.caller())
        .await
        .map_err(Failure::Call)?;
    let opened = async {
        io::Result::Ok((
            File::open(&path).await?,
            tokio::fs::metadata(&path).await?.len(),
        ))
    };
    let (file, len_bytes) = opened
        .await
        .map_err(|error| Failure::Machine(error.to_string()))?;
    state.metrics.count(Counter::HttpBackups);
    if remote {
        state.metrics.count(Counter::ProxyRemoteBackups);
    }
    let gzip = params
        .compress
        .then(|| GzEncoder::new(Vec::new(), Compression::default()));
    let length = gzip.is_none().then_some(len_bytes);
    let source = Source {
        file,
        unsent_bytes: length,
        gzip,
        done: false,
        state: Arc::clone(state),
        _path: path,
    };
    let chunks = ReplyBody::Chunks(Box::pin(stream::unfold(source, Source::next)));
    let mut response = state.replies.content(content_type, chunks);
    if let Some(index) = index {
        response
            .headers_mut()
            .insert(RAFT_INDEX, HeaderValue::from(index));
    }
    if let Some(length) = length {
        response
            .headers_mut()
            .insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(response)
}

fn format(params: &QueryParams) -> Result<BackupFormat, Failure> {
    match (params.fmt, params.vacuum) {
        (Format::Binary, false) => Ok(BackupFormat::Binary),
        (Format::Binary, true) => Ok(BackupFormat::Vacuumed),
        (Format::Delete, false) => Ok(BackupFormat::Delete),
        (Format::Sql, false) => Ok(BackupFormat::Sql {
            tables: params.tables.clone(),
        }),
        (Format::Delete | Format::Sql, true) => Err(Failure::BackupFormat),
    }
}

/// A backup that is being sent. Its file is deleted when dropped.
struct Source {
    file: File,
    /// Bytes not sent yet, if the length is announced: hyper does not poll again after them.
    unsent_bytes: Option<u64>,
    gzip: Option<GzEncoder<Vec<u8>>>,
    done: bool,
    state: Arc<HttpState>,
    _path: TempPath,
}

impl Source {
    async fn next(mut self) -> Option<(io::Result<Bytes>, Self)> {
        if self.done {
            return None;
        }
        let chunk = self.chunk().await;
        match chunk {
            Ok(Some(bytes)) => {
                if let Some(unsent) = &mut self.unsent_bytes {
                    *unsent = unsent.saturating_sub(bytes.len() as u64);
                    if *unsent == 0 {
                        self.state.note_backup(crate::clock::now());
                    }
                }
                Some((Ok(bytes), self))
            }
            Ok(None) => {
                self.state.note_backup(crate::clock::now());
                None
            }
            Err(error) => {
                tracing::error!("backup broke off: {error}");
                self.done = true;
                Some((Err(error), self))
            }
        }
    }

    async fn chunk(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let mut bytes = BytesMut::with_capacity(CHUNK_BYTES);
            let at_end = self.file.read_buf(&mut bytes).await? == 0;
            let Some(mut gzip) = self.gzip.take() else {
                return Ok((!at_end).then(|| bytes.freeze()));
            };
            if at_end {
                // The encoder is gone, so the next call, again at the end of the file, ends the stream.
                return spawn_blocking(move || gzip.finish())
                    .await?
                    .map(|rest| Some(Bytes::from(rest)));
            }
            let (gzip, packed) = spawn_blocking(move || {
                gzip.write_all(&bytes)?;
                let packed = mem::take(gzip.get_mut());
                io::Result::Ok((gzip, packed))
            })
            .await??;
            self.gzip = Some(gzip);
            if !packed.is_empty() {
                return Ok(Some(Bytes::from(packed)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let shown = |query: &str| match format(&QueryParams::parse(query).unwrap()) {
            Ok(format) => format!("{format:?}"),
            Err(failure) => format!("{:?}", failure.status_and_text()),
        };
        assert_eq!(shown(""), "Binary");
        assert_eq!(shown("fmt=nonsense"), "Binary");
        assert_eq!(shown("vacuum"), "Vacuumed");
        assert_eq!(shown("fmt=delete"), "Delete");
        assert_eq!(shown("fmt=sql&tables=a,b"), r#"Sql { tables: ["a", "b"] }"#);
        assert_eq!(
            shown("fmt=sql&vacuum"),
            r#"(500, Some("invalid backup format"))"#
        );
        assert_eq!(
            shown("fmt=delete&vacuum"),
            r#"(500, Some("invalid backup format"))"#
        );
    }
}
