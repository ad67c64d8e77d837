//! Rewrites a log that is not in use: with another membership and vote, or with one entry emptied. All other
//! entries and all log ids stay.
//!
//! Always writes into another directory: truncating the live log and appending the rewritten tail would lose
//! acknowledged entries if a crash came between the two.
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
};

use openraft::EntryPayload;
use raft_log::api::raft_log_writer::RaftLogWriter;

use super::{
    log::{Log, StoredPayload, StoredVote},
    state_machine::{decode_meta, encode_meta, format_version_of},
};
use crate::raft::{
    codec::{Id, MembershipRecord, VoteRecord, id},
    types::{Entry, Member, Membership, RaftId, StoredMembership},
};

/// Payload bytes read and written at a time: the memory needed for a log of any length.
const BATCH_MAX_BYTES: usize = 4 << 20;
/// Entries at a time; small ones need more memory than their payload.
const BATCH_MAX_ENTRIES: u64 = 1024;

/// A member of the membership to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMember {
    /// Raft id.
    pub id: String,
    /// Advertised Raft address.
    pub raft_addr: String,
    /// It votes; otherwise it is a learner.
    pub voter: bool,
}

/// The membership that replaces all memberships in the log.
#[derive(Clone, Debug)]
pub struct NewMembership(Membership);

impl NewMembership {
    /// One voter set; the others are learners that do not ask to vote.
    ///
    /// # Errors
    /// No voter.
    pub fn new(members: &[NewMember]) -> io::Result<Self> {
        let voters: BTreeSet<RaftId> = members
            .iter()
            .filter(|m| m.voter)
            .map(|m| m.id.as_str().into())
            .collect();
        let nodes: BTreeMap<RaftId, Member> = members
            .iter()
            .map(|m| {
                let member = Member {
                    raft_addr: m.raft_addr.clone(),
                    wants_vote: m.voter,
                };
                (m.id.as_str().into(), member)
            })
            .collect();
        if voters.is_empty() {
            return Err(io::Error::other("a membership needs a voter"));
        }
        Membership::new(vec![voters], nodes)
            .map(Self)
            .map_err(io::Error::other)
    }

    /// The database's metadata with this membership in place of its own, under the same log id.
    ///
    /// # Errors
    /// Metadata that is not a membership.
    pub fn in_meta(&self, meta: &[u8]) -> io::Result<Vec<u8>> {
        let held = decode_meta(meta)?;
        let membership = StoredMembership::new(*held.log_id(), self.0.clone());
        encode_meta(&membership, format_version_of(meta)).map(Vec::from)
    }

    fn in_entry(&self, entry: Entry) -> Entry {
        match entry.payload {
            EntryPayload::Membership(_) => Entry {
                payload: EntryPayload::Membership(self.0.clone()),
                ..entry
            },
            EntryPayload::Blank | EntryPayload::Normal(_) => entry,
        }
    }
}

/// Copies the log of `source` durably into the empty or missing directory `target`, with `vote` as its vote
/// and every membership replaced. Works in batches.
///
/// # Errors
/// Damage in the source, a vote below the one held, an I/O error, or a result that does not match the source.
pub fn rewrite(
    source: &Path,
    target: &Path,
    membership: &NewMembership,
    vote: &VoteRecord,
) -> io::Result<()> {
    let from = Log::open(source)?;
    copy(&from, target, vote, |entry| membership.in_entry(entry))
}

/// Copies the log of `source` durably into the empty or missing directory `target`, with the entry at `index`
/// replaced by one without content.
///
/// # Errors
/// As [`rewrite`], or a log without a vote.
pub fn rewrite_without(source: &Path, target: &Path, index: u64) -> io::Result<()> {
    let from = Log::open(source)?;
    let vote = from
        .vote()
        .ok_or_else(|| io::Error::other("the log holds no vote"))?;
    copy(&from, target, &vote, |entry| match entry.log_id.index {
        at if at == index => Entry {
            payload: EntryPayload::Blank,
            ..entry
        },
        _ => entry,
    })
}

fn copy(
    from: &Log,
    target: &Path,
    vote: &VoteRecord,
    edit: impl Fn(Entry) -> Entry,
) -> io::Result<()> {
    if from.last() > from.purged() && from.range().is_none() {
        return Err(io::Error::other("the log's end is before its beginning"));
    }
    let to = Log::open(target)?;
    if to.last().is_some() || to.vote().is_some() {
        return Err(io::Error::other("the directory to write to is not empty"));
    }
    to.lock().save_vote(StoredVote(vote.clone()))?;
    to.sync_here()?;
    if let Some(purged) = from.purged() {
        to.lock().purge(purged)?;
        to.sync_here()?;
    }
    let mut next = from.purged().map_or(0, |purged| purged.1 + 1);
    loop {
        let entries = from.read(
            next,
            next.saturating_add(BATCH_MAX_ENTRIES),
            BATCH_MAX_BYTES,
        )?;
        let Some(last) = entries.last().map(|e| e.log_id.index) else {
            break;
        };
        next = last + 1;
        let records = entries
            .into_iter()
            .map(&edit)
            .map(|e| (id(&e.log_id), StoredPayload(e.payload)));
        to.lock().append(records)?;
        to.sync_here()?;
    }
    if let Some(committed) = from.committed().filter(|c| Some(*c) <= to.last()) {
        to.lock().commit(committed)?;
    }
    to.sync_here()?;
    drop(to);
    node_db::durable::sync(target)?;
    verify(from, target, vote)
}

/// Reads the written log back: the checksums of all chunks, both ends, the vote.
fn verify(from: &Log, target: &Path, vote: &VoteRecord) -> io::Result<()> {
    let written = Log::open(target)?;
    let (wanted, found) = (facts(from), facts(&written));
    if wanted != found || written.vote().as_ref() != Some(vote) {
        return Err(io::Error::other(format!(
            "the rewritten log in {} does not hold what it should: purged, last, first and last index {found:?} instead of {wanted:?}",
            target.display()
        )));
    }
    Ok(())
}

type Facts = (Option<Id>, Option<Id>, Option<(u64, u64)>);

fn facts(log: &Log) -> Facts {
    (log.purged(), log.last(), log.range())
}

impl Log {
    /// The last membership in the log, with its entry's id. `None` if the log holds none.
    ///
    /// # Errors
    /// Damage, or an I/O error.
    pub fn newest_membership(&self) -> io::Result<Option<MembershipRecord>> {
        let mut newest = None;
        let mut next = self.purged().map_or(0, |purged| purged.1 + 1);
        loop {
            let entries = self.read(
                next,
                next.saturating_add(BATCH_MAX_ENTRIES),
                BATCH_MAX_BYTES,
            )?;
            let Some(last) = entries.last().map(|e| e.log_id.index) else {
                return Ok(newest);
            };
            next = last + 1;
            for entry in entries {
                if let EntryPayload::Membership(m) = &entry.payload {
                    newest = Some(MembershipRecord::new(m, Some(&entry.log_id)));
                }
            }
        }
    }
}

/// A log on disk for tests of the code that works on closed data directories.
#[cfg(test)]
pub(crate) mod samples {
    use bytes::Bytes;

    use super::*;
    use crate::{
        command::Encoded,
        raft::{codec::PayloadRecord, types::log_id},
    };

    /// Writes entries `first..=last` of `term`, a membership every tenth, after a purge of everything below
    /// `first`.
    pub(crate) fn write_log(
        dir: &Path,
        term: u64,
        first: u64,
        last: u64,
        vote: &VoteRecord,
        old: &NewMembership,
    ) {
        let log = Log::open(dir).unwrap();
        log.lock().save_vote(StoredVote(vote.clone())).unwrap();
        log.sync_here().unwrap();
        if first > 0 {
            log.lock().purge((term, first - 1)).unwrap();
            log.sync_here().unwrap();
        }
        let entries = (first..=last).map(|index| {
            let payload = match index % 10 {
                0 => EntryPayload::Membership(old.0.clone()),
                1 => EntryPayload::Blank,
                _ => EntryPayload::Normal(Encoded::from_bytes(Bytes::from(vec![
                    7;
                    100 + index
                        as usize
                ]))),
            };
            (id(&log_id(term, index)), StoredPayload(payload))
        });
        log.lock().append(entries).unwrap();
        log.sync_here().unwrap();
        log.lock().commit((term, last - 1)).unwrap();
        log.sync_here().unwrap();
    }

    /// Everything that the log holds, as records.
    pub(crate) fn entries(dir: &Path) -> Vec<(Id, PayloadRecord)> {
        let log = Log::open(dir).unwrap();
        log.read(0, u64::MAX, usize::MAX)
            .unwrap()
            .iter()
            .map(|e| (id(&e.log_id), PayloadRecord::from(&e.payload)))
            .collect()
    }

    /// The same entries with every membership replaced.
    pub(crate) fn with_membership(
        entries: Vec<(Id, PayloadRecord)>,
        new: &NewMembership,
    ) -> Vec<(Id, PayloadRecord)> {
        entries
            .into_iter()
            .map(|(id, payload)| match payload {
                PayloadRecord::Membership(_) => (
                    id,
                    PayloadRecord::Membership(MembershipRecord::new(&new.0, None)),
                ),
                other => (id, other),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        samples::{entries, with_membership, write_log},
        *,
    };

    fn member(id: &str, voter: bool) -> NewMember {
        NewMember {
            id: id.into(),
            raft_addr: format!("{id}:4002"),
            voter,
        }
    }

    fn vote(term: u64, voted_for: &str) -> VoteRecord {
        VoteRecord {
            term,
            voted_for: voted_for.into(),
            committed: term == 3,
        }
    }

    #[test]
    fn keeps_every_entry_and_replaces_memberships() {
        let old = NewMembership::new(&[member("a#1", true), member("b#1", true)]).unwrap();
        let new = NewMembership::new(&[member("a#2", true), member("c#2", false)]).unwrap();
        for (first, last) in [(0, 0), (0, 35), (17, 3000), (20, 20)] {
            let dir = tempfile::tempdir().unwrap();
            let (source, target) = (dir.path().join("log"), dir.path().join("new"));
            write_log(&source, 3, first, last.max(1), &vote(3, "a#1"), &old);
            let before = entries(&source);
            rewrite(&source, &target, &new, &vote(4, "a#2")).unwrap();
            assert_eq!(entries(&source), before, "the source is untouched");
            assert_eq!(entries(&target), with_membership(before, &new));
            let (from, to) = (Log::open(&source).unwrap(), Log::open(&target).unwrap());
            assert_eq!(
                (to.purged(), to.committed()),
                (from.purged(), from.committed())
            );
            assert_eq!(to.vote(), Some(vote(4, "a#2")));
            assert_eq!(
                to.newest_membership().unwrap().is_some(),
                first / 10 * 10 >= first || last / 10 > first / 10
            );
        }
    }

    #[test]
    fn a_log_from_its_beginning_can_replace_a_database() {
        let new = NewMembership::new(&[member("a#2", true)]).unwrap();
        for (first, term, index, wanted) in [
            (0, 3, 0, true),
            (0, 3, 10, true),
            (0, 3, 20, true),
            (0, 3, 21, false),
            (0, 2, 10, false),
            (5, 3, 10, false),
        ] {
            let dir = tempfile::tempdir().unwrap();
            write_log(dir.path(), 3, first, 20, &vote(3, "a#1"), &new);
            let log = Log::open(dir.path()).unwrap();
            let held = log.holds_all_to(node_db::Position { term, index });
            assert_eq!(held, wanted, "{index} of term {term}, log from {first}");
        }
    }

    #[test]
    fn a_target_that_holds_something_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let new = NewMembership::new(&[member("a#2", true)]).unwrap();
        let (source, target) = (dir.path().join("log"), dir.path().join("new"));
        write_log(&source, 3, 0, 20, &vote(3, "a#1"), &new);
        rewrite(&source, &target, &new, &vote(4, "a#2")).unwrap();
        assert!(rewrite(&source, &target, &new, &vote(4, "a#2")).is_err());
        assert!(
            NewMembership::new(&[member("a#2", false)]).is_err(),
            "no voter"
        );
    }
}
