//! Whether the segments after the newest base follow one another. Those from before this leadership are read
//! once, in parts; afterwards, listings show whether one of them has gone.
use node_archive::{
    decide::hole,
    documents::{Base, Gap},
    names::Folder,
    plan::{self, Target},
    reader::ArchiveError,
    store::StoreError,
};

use super::place::{Failure, Place, is_lost};

/// Headers read in one step: segments that are due wait no longer than this takes.
const AT_ONCE: usize = 128;

/// The segments after the newest base.
#[derive(Clone, Debug, Default)]
pub(super) struct Links {
    /// First indexes of those whose header is still to be read.
    unread: Vec<u64>,
    /// First and last index of the others.
    known: Vec<(u64, u64)>,
    /// Entries that were archived and are gone, so that nothing after them can be restored.
    hole: Option<Gap>,
}

impl Links {
    /// Of the segments with these first indexes (ascending), those that a restore from the base needs.
    pub(super) fn after(base: Option<&Base>, firsts: &[u64]) -> Self {
        let wanted = base.map(|base| plan::wanted(firsts, base, &[], Target::End));
        Self {
            unread: wanted.unwrap_or_default().to_vec(),
            ..Self::default()
        }
    }

    pub(super) fn is_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    pub(super) fn hole(&self) -> Option<Gap> {
        self.hole
    }

    /// Reads the next headers. A segment that is damaged for good, or gone, is left out.
    pub(super) async fn read(&mut self, place: &Place, folder: &Folder) -> Result<(), Failure> {
        let rest = self.unread.len().saturating_sub(AT_ONCE);
        let part = self.unread.get(rest..).unwrap_or_default().to_vec();
        let reader = place.reader();
        match reader.headers(folder, &part).await {
            Ok(headers) => self.known.extend(headers.iter().map(|h| (h.first, h.last))),
            // One of them is bad: which?
            Err(ArchiveError::Object(_) | ArchiveError::Store(StoreError::NotFound { .. })) => {
                for first in &part {
                    match reader.header(&folder.segment(*first)).await {
                        Ok(header) => self.known.push((header.first, header.last)),
                        Err(ArchiveError::Object(why)) if is_lost(&why) => {
                            tracing::error!(target: "archive", "{why}");
                        }
                        Err(ArchiveError::Store(StoreError::NotFound { .. })) => {}
                        Err(e) => return Err(e.into()),
                    }
                }
            }
            Err(e) => return Err(e.into()),
        }
        self.unread.truncate(rest);
        Ok(())
    }

    /// A segment was stored.
    pub(super) fn add(&mut self, first: u64, last: u64) {
        self.known.push((first, last));
    }

    /// There is a base at this index: what it contains matters no more.
    pub(super) fn based(&mut self, index: u64) {
        self.known.retain(|(_, last)| *last > index);
        self.hole = self.hole.filter(|hole| hole.last > index);
    }

    /// The store holds only the segments with these first indexes (ascending).
    pub(super) fn listed(&mut self, firsts: &[u64]) {
        self.known
            .retain(|(first, _)| firsts.binary_search(first).is_ok());
    }

    /// Looks for entries after the base and up to `end` that are in no segment; returns them when they are
    /// found for the first time.
    pub(super) fn look(&mut self, base: u64, end: u64) -> Option<Gap> {
        if self.is_unread() || self.hole.is_some() {
            return None;
        }
        self.hole = hole(base, &self.known, end);
        self.hole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_that_goes_is_a_hole_until_the_next_base() {
        let mut links = Links::default();
        links.add(11, 12);
        links.add(13, 14);
        links.add(15, 20);
        assert_eq!(links.look(10, 20), None);
        links.listed(&[1, 11, 13, 15]);
        assert_eq!(links.look(10, 20), None);
        links.listed(&[1, 11, 15]);
        let gap = Gap {
            first: 13,
            last: 14,
        };
        assert_eq!(links.look(10, 20), Some(gap));
        assert_eq!(links.look(10, 20), None, "it is reported once");
        links.add(21, 22);
        links.based(13);
        assert_eq!(links.hole(), Some(gap));
        links.based(20);
        assert_eq!(links.hole(), None);
        assert_eq!(links.look(20, 22), None);
    }
}
