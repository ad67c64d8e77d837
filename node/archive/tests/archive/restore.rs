//! A restore as a node does it, of the model's entries: base, segments, records.
use futures_util::StreamExt;
use node_archive::{
    base::{DecodeError, Decoder},
    plan::{Sequence, Target},
    reader::{ArchiveError, Reader},
    store::Store,
};

use crate::{
    memory::{Memory, now},
    writer::folder,
};

/// The database at this point, and the index of the last entry in it.
pub(crate) fn restore(
    reader: Reader<'_, Memory>,
    target: Target,
) -> Result<(Vec<u8>, u64), ArchiveError> {
    let plan = now(reader.plan(&folder(), target))?;
    let name = format!("{}{}", folder().bases(), plan.base.object);
    let mut database = Vec::new();
    let mut decoder = Decoder::new(&name, &plan.base, reader.keys).unwrap();
    let mut sink = |bytes: &[u8]| {
        database.extend_from_slice(bytes);
        Ok(())
    };
    let object = |e: DecodeError| match e {
        DecodeError::Object(e) => ArchiveError::from(e),
        DecodeError::Sink(e) => panic!("{e}"),
    };
    let mut parts = now(reader.store.read(&name))?;
    while let Some(part) = now(parts.next()) {
        decoder.push(&part?, &mut sink).map_err(object)?;
    }
    decoder.finish(&mut sink).map_err(object)?;
    let mut sequence = Sequence::after(&plan.base);
    let mut last = plan.base.index;
    for header in &plan.segments {
        let segment = now(reader.segment(&folder(), header.first))?;
        sequence.follow(&folder().segment(header.first), &segment)?;
        for record in segment.records()? {
            let record = record?;
            if plan.includes(&record) && record.index > last {
                assert_eq!(record.index, last + 1, "no entry is left out");
                database.extend_from_slice(&record.content);
                last = record.index;
            }
        }
    }
    Ok((database, last))
}
