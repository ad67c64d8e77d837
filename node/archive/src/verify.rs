//! Verifies a timeline: reads every object, checks it, and finds out which points can be restored.
use futures_util::StreamExt;
use serde::Serialize;

use crate::{
    base::{DecodeError, Decoder},
    documents::{Base, Gap, Manifest, Timeline},
    moment::Moment,
    names::Folder,
    reader::{ArchiveError, Contents, Reader},
    segment::{Header, Segment},
    store::Store,
};

/// A range of indexes, each of which can be restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Range {
    /// First index.
    pub first: u64,
    /// Its time.
    pub first_time: Moment,
    /// Last index.
    pub last: u64,
    /// Its time.
    pub last_time: Moment,
}

/// What [`verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Bases read.
    pub bases: u64,
    /// Segments read.
    pub segments: u64,
    /// Entries in them.
    pub entries: u64,
    /// Bytes of all objects.
    pub bytes: u64,
    /// What can be restored, oldest first.
    pub restorable: Vec<Range>,
    /// Ranges that were never archived, each ended by a base. They are known, and no damage.
    pub gaps: Vec<Gap>,
    /// What is wrong; each text begins with an object's name. Empty if every object is as it was written.
    pub problems: Vec<String>,
}

/// Reads every object of a timeline, with at most one segment in memory. Damage is reported, not returned as
/// an error, so that one report names all of it.
///
/// # Errors
/// A request to the store failed, other than for a missing object. Whether that object is damaged is not
/// known.
pub async fn verify<S: Store + ?Sized>(
    reader: Reader<'_, S>,
    folder: &Folder,
) -> Result<Report, ArchiveError> {
    let contents = reader.contents(folder).await?;
    let mut report = Report {
        bytes: contents.bytes,
        ..Report::default()
    };
    let timeline = reader.document::<Timeline>(&folder.timeline()).await;
    report.note(timeline.map(drop))?;
    let manifest = match reader.manifest(folder).await {
        Ok(manifest) => manifest,
        Err(e) => {
            report.note(Err(e))?;
            None
        }
    };
    for name in &contents.foreign {
        report
            .problems
            .push(format!("{name}: is no object of an archive"));
    }
    let bases = verify_bases(reader, folder, &contents, &mut report).await?;
    let mut walk = Walk {
        folder,
        bases: &bases,
        range: None,
        last: None,
    };
    for first in &contents.segments {
        let read = reader.segment(folder, *first).await;
        let checked = read.and_then(|segment| Ok(segment.check().map(|()| segment)?));
        match checked {
            Ok(segment) => walk.segment(&segment, &mut report),
            Err(e) => report.note(Err(e))?,
        }
    }
    walk.end(manifest.as_ref(), &mut report);
    Ok(report)
}

/// Reads bases and their data; returns the undamaged ones, by index.
async fn verify_bases<S: Store + ?Sized>(
    reader: Reader<'_, S>,
    folder: &Folder,
    contents: &Contents,
    report: &mut Report,
) -> Result<Vec<Base>, ArchiveError> {
    let mut whole = Vec::new();
    for index in &contents.bases {
        report.bases += 1;
        match reader.document::<Base>(&folder.base(*index)).await {
            Ok(base) => match verify_data(reader, folder, &base).await {
                Ok(()) => whole.push(base),
                Err(e) => report.note(Err(e))?,
            },
            Err(e) => report.note(Err(e))?,
        }
    }
    if contents.bases.is_empty() {
        let nothing = format!(
            "{}: there is no base, so nothing can be restored",
            folder.bases()
        );
        report.problems.push(nothing);
    }
    Ok(whole)
}

async fn verify_data<S: Store + ?Sized>(
    reader: Reader<'_, S>,
    folder: &Folder,
    base: &Base,
) -> Result<(), ArchiveError> {
    let name = format!("{}{}", folder.bases(), base.object);
    let broken = |e: DecodeError| match e {
        DecodeError::Object(e) => ArchiveError::from(e),
        DecodeError::Sink(e) => ArchiveError::from(crate::store::StoreError::Other {
            object: name.clone(),
            message: e.to_string(),
        }),
    };
    let mut parts = reader.store.read(&name).await?;
    let decoder = Decoder::new(&name, base, reader.keys);
    let mut decoder = decoder.map_err(|e| broken(DecodeError::Sink(e)))?;
    while let Some(part) = parts.next().await {
        decoder.push(&part?, |_| Ok(())).map_err(broken)?;
    }
    decoder.finish(|_| Ok(())).map_err(broken)
}

impl Report {
    /// Records why an object is refused, or that it is missing; another error of the store ends the
    /// verification.
    fn note(&mut self, result: Result<(), ArchiveError>) -> Result<(), ArchiveError> {
        use crate::store::StoreError;
        match result {
            Ok(()) => Ok(()),
            Err(ArchiveError::Store(e @ StoreError::Other { .. })) => Err(e.into()),
            Err(e) => {
                self.problems.push(e.to_string());
                Ok(())
            }
        }
    }
}

/// Checks the order and the links of segments, which are passed to it by their first index.
struct Walk<'a> {
    folder: &'a Folder,
    bases: &'a [Base],
    /// What can be restored up to the last segment.
    range: Option<Range>,
    last: Option<(Header, String)>,
}

impl Walk<'_> {
    fn segment(&mut self, segment: &Segment, report: &mut Report) {
        let header = segment.header();
        report.segments += 1;
        report.entries += header.last - header.first + 1;
        let name = self.folder.segment(header.first);
        if self.last.is_none()
            && let Some(oldest) = self.bases.first().map(|base| base.index.saturating_add(1))
            && header.first > oldest
        {
            self.hole(oldest, header, report);
        }
        if let Some((last, sha256)) = &self.last {
            let next = last.last.saturating_add(1);
            if header.first > next {
                self.hole(next, header, report);
            }
            let linked = header.previous.as_ref().filter(|_| header.first == next);
            if let Some(previous) = linked.filter(|p| p.first != last.first || p.sha256 != *sha256)
            {
                report.problems.push(format!(
                    "{name}: was written after segment {} with SHA-256 {}, but {} with {sha256} is before it: one of \
                     the two was replaced",
                    previous.first, previous.sha256, last.first
                ));
            }
        }
        self.reach(header, report);
        if self
            .last
            .as_ref()
            .is_none_or(|(last, _)| last.last < header.last)
        {
            self.last = Some((header.clone(), segment.sha256()));
        }
    }

    /// Entries from `next` up to the segment are in no segment that could be read.
    fn hole(&self, next: u64, after: &Header, report: &mut Report) {
        let gap = Gap {
            first: next,
            last: after.first - 1,
        };
        // If the log no longer held the entries, the writer made a base and continued after it: no object was
        // lost.
        let begun_by_base = self.bases.iter().any(|base| base.index == gap.last);
        if after.previous.is_none() && begun_by_base {
            report.gaps.push(gap);
            return;
        }
        let name = match &after.previous {
            Some(previous) if previous.first >= next => self.folder.segment(previous.first),
            _ => self.folder.segment(next),
        };
        report.problems.push(format!(
            "{name}: missing or unreadable: entries {} to {} are in no segment",
            gap.first, gap.last
        ));
    }

    /// Extends the range that can be restored by a segment, or begins a new range at a base.
    fn reach(&mut self, header: &Header, report: &mut Report) {
        let range = self.range.take();
        let seamless = range
            .as_ref()
            .is_some_and(|r| header.first <= r.last.saturating_add(1));
        let base = self.bases.iter().find(|base| {
            let next = base.index.saturating_add(1);
            (header.first..=header.last).contains(&next) || base.index == header.last
        });
        self.range = match (range, base) {
            (Some(range), _) if seamless => Some(Range {
                last: range.last.max(header.last),
                last_time: range.last_time.max(header.last_time),
                ..range
            }),
            (old, base) => {
                report.restorable.extend(old);
                base.map(|base| Range {
                    first: base.index,
                    first_time: base.time,
                    last: header.last,
                    last_time: header.last_time,
                })
            }
        };
    }

    fn end(self, manifest: Option<&Manifest>, report: &mut Report) {
        let end = self.last.as_ref().map(|(last, _)| last.last);
        let end = end.max(self.bases.iter().map(|base| base.index).max());
        if let Some(manifest) = manifest
            && end.is_none_or(|end| end < manifest.archived_index)
        {
            let next = || {
                self.folder
                    .segment(end.map_or(0, |end| end.saturating_add(1)))
            };
            report.problems.push(format!(
                "{}: missing or unreadable: the manifest says that entries up to {} are archived",
                manifest.newest_segment.clone().unwrap_or_else(next),
                manifest.archived_index
            ));
        }
        let reached = self.range.as_ref().map(|range| range.last);
        report.restorable.extend(self.range);
        // Bases without adjacent segments can be restored, too.
        for base in self.bases {
            let within = |r: &Range| (r.first..=r.last).contains(&base.index);
            if reached.is_none_or(|last| base.index > last) && !report.restorable.iter().any(within)
            {
                report.restorable.push(Range {
                    first: base.index,
                    first_time: base.time,
                    last: base.index,
                    last_time: base.time,
                });
            }
        }
    }
}
