//! Writing an object as a stream of parts.
use std::fmt;

use bytes::{Bytes, BytesMut};
use object_store::{Attributes, MultipartUpload, PutMultipartOptions, PutOptions, path::Path};
use tokio::task::JoinHandle;

use crate::{
    error::{Kind, ObjectError},
    store::{Metadata, Store, limit_for},
};

/// Size of a part. Two are in memory: one is being filled, one is being sent. There are three for a moment if
/// the HTTP client has not released the one before.
const PART_BYTES: u64 = 8 << 20;
/// Number of parts that the part size is chosen for. S3 allows 10,000, so an object may exceed its expected
/// length 2.5 times.
const MAX_PARTS_EXPECTED: u64 = 4_000;
const MAX_PARTS: u64 = 10_000;
const DOING: &str = "writing";

/// An object that is being written. If it is dropped, no object appears; [`Self::abort`] also deletes the
/// parts at the store.
pub struct Writer {
    store: Store,
    path: Path,
    attributes: Attributes,
    part_bytes: u64,
    filling: BytesMut,
    /// The part that is sent or was sent last: its buffer is reused. An allocator would keep the buffer of
    /// each part for a while, because another thread frees it.
    last: Option<Bytes>,
    upload: Option<Box<dyn MultipartUpload>>,
    sending: Option<JoinHandle<Result<(), ObjectError>>>,
    parts: u64,
    bytes: u64,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Writer({}, {} bytes)", self.path, self.bytes)
    }
}

impl Store {
    /// Begins to write an object of unknown length, part by part. It appears with [`Writer::finish`]. The
    /// size of the parts is chosen for `expected_bytes`.
    ///
    /// # Errors
    /// See [`ObjectError`].
    pub async fn writer(
        &self,
        name: &str,
        metadata: &Metadata,
        expected_bytes: Option<u64>,
    ) -> Result<Writer, ObjectError> {
        let path = self.path(name, DOING)?;
        self.may_write(&path, DOING).await?;
        let attributes = self.attributes(metadata);
        Ok(Writer::new(self.clone(), path, attributes, expected_bytes))
    }
}

/// The size of all parts (some stores require equal ones), large enough for the expected length.
fn part_bytes(expected: Option<u64>) -> u64 {
    let fitting = expected.unwrap_or(0).div_ceil(MAX_PARTS_EXPECTED);
    fitting.max(PART_BYTES).next_multiple_of(1 << 20)
}

/// The buffer of a part that is no longer in use.
fn emptied(part: Bytes) -> Option<BytesMut> {
    let mut room = part.try_into_mut().ok()?;
    room.clear();
    Some(room)
}

impl Writer {
    pub(crate) fn new(
        store: Store,
        path: Path,
        attributes: Attributes,
        expected: Option<u64>,
    ) -> Self {
        Self {
            store,
            path,
            attributes,
            part_bytes: part_bytes(expected),
            filling: BytesMut::new(),
            last: None,
            upload: None,
            sending: None,
            parts: 0,
            bytes: 0,
        }
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds bytes; waits while the store is slower than the caller.
    ///
    /// # Errors
    /// See [`ObjectError`]; afterwards only [`Self::abort`] makes sense.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), ObjectError> {
        let part_bytes = usize::try_from(self.part_bytes).unwrap_or(usize::MAX);
        self.bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            // Reserving the whole part avoids copies while it grows; pages that are not written take no
            // memory.
            self.filling
                .reserve(part_bytes.saturating_sub(self.filling.len()));
            let room = part_bytes.saturating_sub(self.filling.len());
            let (now, later) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
            self.filling.extend_from_slice(now);
            bytes = later;
            if self.filling.len() >= part_bytes {
                let part = std::mem::take(&mut self.filling).freeze();
                self.send(part).await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self, part: Bytes) -> Result<(), ObjectError> {
        self.sent().await?;
        self.filling = self.last.take().and_then(emptied).unwrap_or_default();
        self.last = Some(part.clone());
        self.parts += 1;
        if self.parts > MAX_PARTS {
            let why = format!("longer than {MAX_PARTS} parts of {} bytes", self.part_bytes);
            return Err(self.store.error(&self.path, DOING, Kind::TooLarge, why));
        }
        if self.upload.is_none() {
            let options = PutMultipartOptions {
                attributes: self.attributes.clone(),
                ..PutMultipartOptions::default()
            };
            let backend = &self.store.inner.backend;
            let begin = backend.put_multipart_opts(&self.path, options);
            let begun = self
                .store
                .run(&self.path, DOING, limit_for(0), begin)
                .await?;
            self.upload = Some(begun);
        }
        let Some(upload) = &mut self.upload else {
            return Ok(());
        };
        let limit = limit_for(part.len() as u64);
        let (store, path) = (self.store.clone(), self.path.clone());
        let sending = upload.put_part(part.into());
        self.sending = Some(tokio::spawn(async move {
            store.run(&path, DOING, limit, sending).await
        }));
        Ok(())
    }

    /// Waits for the part that is being sent.
    async fn sent(&mut self) -> Result<(), ObjectError> {
        let Some(sending) = &mut self.sending else {
            return Ok(());
        };
        let ended = sending.await;
        self.sending = None;
        match ended {
            Ok(result) => result,
            Err(e) => Err(self
                .store
                .error(&self.path, DOING, Kind::Other, e.to_string())),
        }
    }

    /// Makes the whole object appear, in the place of one of the same name. Returns its length in bytes.
    ///
    /// # Errors
    /// See [`ObjectError`]; the parts that were sent are deleted if possible.
    pub async fn finish(mut self) -> Result<u64, ObjectError> {
        match self.complete().await {
            Ok(()) => Ok(self.bytes),
            Err(e) => {
                self.abort().await;
                Err(e)
            }
        }
    }

    async fn complete(&mut self) -> Result<(), ObjectError> {
        let last = std::mem::take(&mut self.filling).freeze();
        if self.upload.is_none() {
            let options = PutOptions {
                attributes: self.attributes.clone(),
                ..PutOptions::default()
            };
            let limit = limit_for(last.len() as u64);
            let put = self
                .store
                .inner
                .backend
                .put_opts(&self.path, last.into(), options);
            return self
                .store
                .run(&self.path, DOING, limit, put)
                .await
                .map(|_| ());
        }
        if !last.is_empty() {
            self.send(last).await?;
        }
        self.sent().await?;
        let Some(upload) = &mut self.upload else {
            return Ok(());
        };
        // Some stores copy the parts to assemble the object, which takes time.
        let limit = limit_for(self.bytes);
        let completing = upload.complete();
        self.store.run(&self.path, DOING, limit, completing).await?;
        self.upload = None;
        Ok(())
    }

    /// Gives up, and deletes the parts that were sent.
    pub async fn abort(mut self) {
        if let Some(sending) = self.sending.take() {
            sending.abort();
            let _ = sending.await;
        }
        if let Some(mut upload) = self.upload.take() {
            let aborting = upload.abort();
            if let Err(e) = self
                .store
                .run(&self.path, "deleting parts of", limit_for(0), aborting)
                .await
            {
                tracing::debug!(target: "objects", "{e}");
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(sending) = self.sending.take() {
            sending.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_of_a_part_is_used_again_once_it_was_sent() {
        let mut filling = BytesMut::with_capacity(1 << 20);
        filling.extend_from_slice(&vec![7; 1 << 20]);
        let room = filling.as_ptr();
        let part = filling.freeze();
        let sending = part.clone();
        assert!(emptied(part.clone()).is_none(), "while it is sent");
        drop(sending);
        let again = emptied(part).unwrap();
        assert_eq!((again.as_ptr(), again.len()), (room, 0));
        assert!(again.capacity() >= 1 << 20);
    }

    #[test]
    fn parts_fit_the_expected_length() {
        assert_eq!(part_bytes(None), PART_BYTES);
        assert_eq!(part_bytes(Some(1)), PART_BYTES);
        for expected in [100 << 30, 5 << 40] {
            let part = part_bytes(Some(expected));
            assert!(part * MAX_PARTS_EXPECTED >= expected && part.is_multiple_of(1 << 20));
        }
    }
}
