//! Makes a base. The main database file, as of the last checkpoint, is a consistent snapshot, so it is pinned
//! and streamed without a second copy.
use std::io;

use bytes::Bytes;
use node_archive::{
    base::{Encoder, Stored},
    decide::Reason,
    documents::{self, Base, FORMAT, Writer},
    moment::Moment,
    names::Folder,
};
use node_contract::Lineage;
use node_db::Pinned;
use node_objects::{Created, Metadata};
use tokio::sync::mpsc;

use super::place::{Failure, Place};

/// Bytes read from the main file at once. In memory are one such piece, two on their way to the store, and
/// the store's parts.
const PIECE_BYTES: usize = 256 << 10;
const PIECES: usize = 2;
/// Where the database header has the number of pages (SQLite's file format, 1.3.7): 4 bytes, big-endian.
const PAGES_AT: std::ops::Range<usize> = 28..32;

/// What the base's document says that does not depend on its data.
#[derive(Clone, Debug)]
pub(super) struct About {
    pub(super) lineage: Lineage,
    pub(super) folder: Folder,
    pub(super) writer: Writer,
    pub(super) reason: Reason,
    /// Time of its last entry.
    pub(super) time: Moment,
    pub(super) now: Moment,
}

/// Streams the pinned file into the store, then writes its document. Returns the base that is then in the
/// archive; it may be one that another node made at the same index.
pub(super) async fn make(place: &Place, pinned: Pinned, about: About) -> Result<Base, Failure> {
    let position = pinned.position;
    let bytes_expected = pinned.len_bytes;
    let random = format!("{:016x}", rand::random::<u64>());
    let object = about.folder.base_data(position.index, &random);
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(PIECES);
    let name = object.clone();
    let keys = place.keys.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let read = read(&pinned, &name, keys.as_ref(), &sender);
        if let Err(e) = &read {
            let _ = sender.blocking_send(Err(io::Error::new(e.kind(), e.to_string())));
        }
        read
    });
    let put = store(place, &object, bytes_expected, receiver).await;
    let read = reading.await.map_err(|e| Failure(e.to_string()))?;
    put?;
    let (stored, pages) = read?;
    let name = about.folder.base(position.index);
    let base = Base {
        format: FORMAT,
        lineage: about.lineage,
        index: position.index,
        term: position.term,
        time: about.time,
        created_at: about.now,
        bytes: stored.bytes,
        sha256: stored.sha256,
        pages,
        object: object.rsplit('/').next().unwrap_or_default().to_owned(),
        object_bytes: stored.object_bytes,
        writer: about.writer,
        content_hash: None,
        reason: about.reason.word().to_owned(),
    };
    let bytes = documents::encode(&base, &name, place.keys.as_ref())?;
    match place.store.create(&name, bytes.into()).await? {
        Created::Yes => Ok(base),
        Created::No => {
            let there = super::chain::read_base(place, &about.folder, position.index).await?;
            if there.object != base.object {
                // Another leader's base is in the archive; no document names these data.
                place.store.delete(&object).await?;
            }
            Ok(there)
        }
    }
}

/// Writes to the store what is read.
async fn store(
    place: &Place,
    object: &str,
    bytes_expected: u64,
    mut parts: mpsc::Receiver<io::Result<Bytes>>,
) -> Result<(), Failure> {
    let none = Metadata::new();
    let mut writer = place
        .store
        .writer(object, &none, Some(bytes_expected))
        .await?;
    while let Some(part) = parts.recv().await {
        let written = match part {
            Ok(part) => writer.write(&part).await.map_err(Failure::from),
            Err(e) => Err(Failure(format!("reading the database for a base: {e}"))),
        };
        if let Err(failure) = written {
            writer.abort().await;
            return Err(failure);
        }
    }
    writer.finish().await?;
    Ok(())
}

fn read(
    pinned: &Pinned,
    object: &str,
    keys: Option<&node_archive::keys::Keys>,
    to: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<(Stored, u64)> {
    let mut encoder = Encoder::new(object, keys)?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut out = Vec::with_capacity(PIECE_BYTES * 2);
    let mut at = 0;
    let mut pages = 0;
    let ended = || io::Error::new(io::ErrorKind::BrokenPipe, "the upload ended early");
    while at < pinned.len_bytes {
        let left = usize::try_from(pinned.len_bytes - at).unwrap_or(usize::MAX);
        let wanted = piece.get_mut(..left.min(PIECE_BYTES)).unwrap_or_default();
        let got = pinned.read_at(wanted, at)?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let data = wanted.get(..got).unwrap_or_default();
        if at == 0 {
            let number = data.get(PAGES_AT).and_then(|b| b.try_into().ok());
            pages = u64::from(number.map_or(0, u32::from_be_bytes));
        }
        encoder.push(data, &mut out)?;
        at += got as u64;
        if out.len() >= PIECE_BYTES {
            let next = Vec::with_capacity(PIECE_BYTES * 2);
            let full = Bytes::from(std::mem::replace(&mut out, next));
            to.blocking_send(Ok(full)).map_err(|_| ended())?;
        }
    }
    let stored = encoder.finish(&mut out)?;
    to.blocking_send(Ok(out.into())).map_err(|_| ended())?;
    Ok((stored, pages))
}
