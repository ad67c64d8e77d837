//! Reading an object as a stream.
use std::{fmt, io::SeekFrom, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::BoxStream};
use object_store::{GetOptions, GetRange, GetResultPayload, path::Path};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

use crate::{
    error::{Kind, ObjectError, explain},
    store::{Store, limit_for},
    tls::IDLE_LIMIT,
};

/// Bytes read from a file at once.
const FILE_CHUNK_BYTES: usize = 256 << 10;
/// Broken connections in a row, without a byte in between, after which reading fails.
const MAX_BREAKS: u32 = 5;
const BREAK_PAUSE: Duration = Duration::from_millis(300);
const DOING: &str = "reading";

enum Body {
    Stream(BoxStream<'static, object_store::Result<Bytes>>),
    File(tokio::fs::File),
}

/// An object's bytes, in order. After a broken connection, reading continues at the same offset, if the
/// content is still the same.
pub struct Reader {
    store: Store,
    path: Path,
    body: Body,
    at: u64,
    end: u64,
    e_tag: Option<String>,
    breaks: u32,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader({} at {} of {})", self.path, self.at, self.end)
    }
}

impl Store {
    /// A stream of an object from `start` on. It survives broken connections, and fails if the object is
    /// replaced meanwhile.
    ///
    /// # Errors
    /// See [`ObjectError`].
    pub async fn read(&self, name: &str, start: u64) -> Result<Reader, ObjectError> {
        let path = self.path(name, "reading")?;
        Reader::open(self.clone(), path, start).await
    }
}

impl Reader {
    pub(crate) async fn open(store: Store, path: Path, start: u64) -> Result<Self, ObjectError> {
        let (body, end, e_tag) = body(&store, &path, start, None).await?;
        Ok(Self {
            store,
            path,
            body,
            at: start,
            end,
            e_tag,
            breaks: 0,
        })
    }

    /// The object's whole length in bytes, whatever the start.
    pub fn object_bytes(&self) -> u64 {
        self.end
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// See [`ObjectError`]; [`Kind::Changed`] if the object was replaced meanwhile.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ObjectError> {
        loop {
            if self.at >= self.end {
                return Ok(None);
            }
            match self.next_of_body().await {
                Ok(bytes) => {
                    self.at += bytes.len() as u64;
                    self.breaks = 0;
                    return Ok(Some(bytes));
                }
                Err(e) if e.kind.is_passing() && self.breaks < MAX_BREAKS => {
                    self.breaks += 1;
                    tokio::time::sleep(BREAK_PAUSE * self.breaks).await;
                    let e_tag = self.e_tag.clone();
                    (self.body, ..) = body(&self.store, &self.path, self.at, e_tag).await?;
                }
                Err(e) => return Err(e),
            }
        }
    }

    async fn next_of_body(&mut self) -> Result<Bytes, ObjectError> {
        let early = "it ends early";
        match &mut self.body {
            Body::Stream(stream) => match tokio::time::timeout(IDLE_LIMIT, stream.next()).await {
                Ok(Some(Ok(bytes))) => Ok(bytes),
                Ok(Some(Err(e))) => {
                    let (kind, why) = explain(&e);
                    Err(self.store.error(&self.path, DOING, kind, why))
                }
                Ok(None) => Err(self.fail(Kind::Unreachable, early.to_owned())),
                Err(_) => {
                    let why = format!("nothing came for {IDLE_LIMIT:.0?}");
                    Err(self.fail(Kind::Slow, why))
                }
            },
            Body::File(file) => {
                let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
                let mut buffer = vec![0; left.min(FILE_CHUNK_BYTES)];
                match file.read(&mut buffer).await {
                    Ok(0) => Err(self.fail(Kind::Changed, early.to_owned())),
                    Ok(read) => {
                        buffer.truncate(read);
                        Ok(buffer.into())
                    }
                    Err(e) => Err(self.fail(Kind::Other, e.to_string())),
                }
            }
        }
    }

    fn fail(&self, kind: Kind, why: String) -> ObjectError {
        self.store.error(&self.path, DOING, kind, why)
    }

    /// Writes the remaining bytes to a file; returns their number.
    ///
    /// # Errors
    /// The object cannot be read, or the file cannot be written.
    pub async fn copy_to(mut self, file: &mut tokio::fs::File) -> Result<u64, ObjectError> {
        let start = self.at;
        while let Some(bytes) = self.next().await? {
            let written = file.write_all(&bytes).await;
            written.map_err(|e| self.not_written(&e))?;
        }
        file.flush().await.map_err(|e| self.not_written(&e))?;
        Ok(self.at - start)
    }

    fn not_written(&self, error: &std::io::Error) -> ObjectError {
        let kind = match error.kind() {
            std::io::ErrorKind::StorageFull => Kind::Full,
            _ => Kind::Other,
        };
        self.fail(kind, format!("writing it to a file: {error}"))
    }
}

async fn body(
    store: &Store,
    path: &Path,
    start: u64,
    e_tag: Option<String>,
) -> Result<(Body, u64, Option<String>), ObjectError> {
    let options = GetOptions {
        range: (start > 0).then_some(GetRange::Offset(start)),
        if_match: e_tag,
        ..GetOptions::default()
    };
    let get = store.inner.backend.get_opts(path, options);
    let found = store.run(path, DOING, limit_for(0), get).await?;
    let (end, e_tag) = (found.meta.size, found.meta.e_tag.clone());
    let body = match found.payload {
        GetResultPayload::Stream(stream) => Body::Stream(stream),
        GetResultPayload::File(file, _) => {
            let mut file = tokio::fs::File::from_std(file);
            let sought = file.seek(SeekFrom::Start(start)).await;
            sought.map_err(|e| store.error(path, DOING, Kind::Other, e.to_string()))?;
            Body::File(file)
        }
    };
    Ok((body, end, e_tag))
}
