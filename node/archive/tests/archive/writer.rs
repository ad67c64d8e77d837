//! A writer as a node has it, one step at a time: the crate's decisions and bytes, without a node.
use bytes::Bytes;
use node_archive::{
    base::Encoder,
    decide::{self, Resume},
    documents::{self, Base, Timeline, Writer as Program},
    keys::Keys,
    moment::Moment,
    names::Folder,
    reader::{ArchiveError, Reader},
    record::{Kind, Record},
    segment::{Builder, Segment, Start},
    store::{Created, Store},
};
use node_contract::Lineage;

use crate::memory::{Memory, now};

pub(crate) const KEY: &str = "k AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

pub(crate) fn lineage() -> Lineage {
    Lineage {
        id: "line".into(),
        epoch: 0,
    }
}

pub(crate) fn folder() -> Folder {
    Folder::new(&lineage()).unwrap()
}

pub(crate) fn program() -> Program {
    Program {
        sqlite: "3.50.4".into(),
        sqlite_source_id: "s".into(),
        rqlited: "0.1.0".into(),
        format_version: 2,
        foreign_keys: None,
    }
}

/// The committed entry of this index, the same on every node.
pub(crate) fn entry(index: u64) -> Record {
    let blank = index % 7 == 1;
    Record {
        index,
        term: 1 + index / 20,
        kind: if blank { Kind::Blank } else { Kind::Command },
        // Of equal times, all are in a point in time; a blank entry has none of its own.
        time: Moment(if blank { 0 } else { (index / 2 * 20) as i64 }),
        content: if blank {
            Bytes::new()
        } else {
            format!("statement {index};").into()
        },
    }
}

/// The time that the archive gives this entry.
pub(crate) fn time_of(index: u64) -> Moment {
    (1..=index).map(|i| entry(i).time).max().unwrap_or_default()
}

/// What the entries up to this one make of a database.
pub(crate) fn database(index: u64) -> Vec<u8> {
    (1..=index).flat_map(|i| entry(i).content).collect()
}

/// Creates the timeline's first object.
pub(crate) fn begin(store: &Memory, keys: Option<&Keys>) {
    let timeline = Timeline {
        format: 1,
        cluster_id: "cluster".into(),
        lineage: lineage(),
        created_at: Moment(0),
        parent: None,
    };
    let name = folder().timeline();
    let bytes = documents::encode(&timeline, &name, keys).unwrap();
    store.insert(&name, bytes.into());
}

/// Where a new writer goes on.
pub(crate) fn locate(reader: Reader<'_, Memory>, log_first: u64) -> Result<Resume, ArchiveError> {
    let contents = now(reader.contents(&folder()))?;
    let bases = now(reader.bases(&folder(), &contents.bases))?;
    let last = now(reader.end(&folder(), &contents.segments))?;
    let newest = bases.readable.iter().max_by_key(|b| b.index);
    Ok(decide::resume(last.as_ref(), newest, log_first))
}

pub(crate) fn build(start: &Start, last: u64) -> Segment {
    let mut builder = Builder::new(lineage(), program(), start.clone()).unwrap();
    for index in start.first..=last {
        builder.push(entry(index)).unwrap();
    }
    builder.seal().unwrap().unwrap()
}

/// Writes a segment and says where to go on: behind it, or behind the one that was there.
pub(crate) fn append(
    reader: Reader<'_, Memory>,
    start: &Start,
    last: u64,
) -> Result<Start, ArchiveError> {
    let segment = build(start, last);
    let name = folder().segment(start.first);
    let bytes = segment.encode(&name, reader.keys).unwrap();
    match now(reader.store.create(&name, bytes))? {
        Created::Yes => Ok(segment.after()),
        Created::No => Ok(now(reader.segment(&folder(), start.first))?.after()),
    }
}

/// Writes a base's data; the document follows by [`put_document`].
pub(crate) fn put_data(
    reader: Reader<'_, Memory>,
    index: u64,
    random: u64,
) -> Result<Base, ArchiveError> {
    let object = format!("{index:020}-{random:x}.db");
    let name = format!("{}{object}", folder().bases());
    let mut encoder = Encoder::new(&name, reader.keys).unwrap();
    let mut out = Vec::new();
    encoder.push(&database(index), &mut out).unwrap();
    let stored = encoder.finish(&mut out).unwrap();
    now(reader.store.put(&name, out.into()))?;
    Ok(Base {
        format: 1,
        lineage: lineage(),
        index,
        term: entry(index).term,
        time: time_of(index),
        created_at: time_of(index),
        bytes: stored.bytes,
        sha256: stored.sha256,
        pages: 1,
        object,
        object_bytes: stored.object_bytes,
        writer: program(),
        content_hash: None,
        reason: "first".into(),
    })
}

pub(crate) fn put_document(
    reader: Reader<'_, Memory>,
    base: &Base,
) -> Result<Created, ArchiveError> {
    let name = folder().base(base.index);
    let bytes = documents::encode(base, &name, reader.keys).unwrap();
    Ok(now(reader.store.create(&name, bytes.into()))?)
}
