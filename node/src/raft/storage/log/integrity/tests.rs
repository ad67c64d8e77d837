//! Logs written by the log itself, then torn in every way that a crash can cause, and damaged in ways that it
//! cannot.
use std::collections::BTreeMap;

use bytes::Bytes;
use openraft::EntryPayload;
use raft_log::{api::raft_log_writer::RaftLogWriter, codeq::OffsetSize};

use super::*;
use crate::{
    command::Encoded,
    raft::{
        codec::VoteRecord,
        storage::log::{Log, StoredPayload, StoredVote, files, path_of},
    },
};

/// Small files, so that a short log has several.
const FILE_BYTES: usize = 6000;

/// Splitmix: the same cases in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((x ^ (x >> 31)) % limit as u64).unwrap()
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// A log, and where each sync ended.
#[derive(Clone)]
struct Sample {
    files: BTreeMap<u64, Vec<u8>>,
    syncs: Vec<u64>,
}

/// What entries hold.
#[derive(Clone, Copy, PartialEq)]
enum Content {
    /// No zeros.
    Dense,
    /// Runs of zeros, longer than sectors.
    Zeros,
}

fn payload(dice: &mut Dice, content: Content) -> StoredPayload {
    let length = dice.pick(&[1, 30, 100, 500, 600, 2500]) + dice.below(80);
    let mut bytes: Vec<u8> = (0..length)
        .map(|_| u8::try_from(1 + dice.below(255)).unwrap())
        .collect();
    if content == Content::Zeros {
        let from = dice.below(length);
        let to = (from + dice.below(2000)).min(length);
        bytes[from..to].fill(0);
    }
    StoredPayload(EntryPayload::Normal(Encoded::from_bytes(Bytes::from(
        bytes,
    ))))
}

/// Writes like a node: votes, one or several entries, commit marks with them, a purge.
fn sample(seed: u64, content: Content, writes: usize) -> Sample {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open_with_files_of(dir.path(), FILE_BYTES).unwrap();
    let dice = &mut Dice(seed);
    let vote = VoteRecord {
        term: 2,
        voted_for: "node-1#0123456789abcdef".into(),
        committed: true,
    };
    log.lock().save_vote(StoredVote(vote.clone())).unwrap();
    let mut syncs = Vec::new();
    let mut sync = || {
        log.sync_here().unwrap();
        syncs.push(log.lock().append([]).unwrap().end().0);
    };
    sync();
    let mut next = 0;
    for _ in 0..writes {
        let mut raw = log.lock();
        if next > 0 && !dice.one_in(3) {
            raw.commit((2, next - 1)).unwrap();
        }
        match dice.below(12) {
            0 => drop(raw.save_vote(StoredVote(vote.clone())).unwrap()),
            1 if next > 3 && dice.one_in(4) => drop(raw.purge((2, next / 2)).unwrap()),
            2 => {
                // A node that stops in order.
                raw.flush(false, None).unwrap();
                continue;
            }
            _ => {
                for _ in 0..=dice.pick(&[0, 0, 0, 1, 4]) {
                    raw.append([((2, next), payload(dice, content))]).unwrap();
                    next += 1;
                }
            }
        }
        drop(raw);
        sync();
    }
    drop(log);
    let mut files: BTreeMap<u64, Vec<u8>> = files(dir.path())
        .unwrap()
        .into_iter()
        .map(|file| (file, std::fs::read(path_of(dir.path(), file)).unwrap()))
        .collect();
    // Dropping the log has written what was still buffered.
    let end = *syncs.last().unwrap();
    let (start, newest) = files.iter_mut().next_back().unwrap();
    newest.truncate(usize::try_from(end - start).unwrap());
    Sample { files, syncs }
}

impl Sample {
    fn end(&self) -> u64 {
        *self.syncs.last().unwrap()
    }

    fn classify(&self, synced: u64) -> Result<Sound, Damage> {
        let files: Vec<u64> = self.files.keys().copied().collect();
        classify(&files, synced, |file| Ok(self.files[&file].clone())).unwrap()
    }

    /// What remains of it after the cut, as one string of bytes with its start offset.
    fn after(&self, sound: &Sound) -> (u64, Vec<u8>) {
        let start = *self.files.keys().next().unwrap();
        let mut bytes = Vec::new();
        for (file, content) in &self.files {
            if !sound.remove.contains(file) {
                let keep = sound.cut.filter(|(cut, _)| cut == file);
                let keep = keep.map_or(content.len(), |(_, keep)| usize::try_from(keep).unwrap());
                bytes.extend(&content[..keep]);
            }
        }
        (start, bytes)
    }

    /// Everything that the files hold.
    fn bytes(&self) -> Vec<u8> {
        self.files.values().flatten().copied().collect()
    }

    /// Offsets up to which everything may be synced at a crash: after each sync, and where a file begins (the
    /// one before it is synced then).
    fn steps(&self) -> Vec<u64> {
        let first = *self.files.keys().next().unwrap();
        let mut steps: Vec<u64> = self
            .syncs
            .iter()
            .chain(self.files.keys())
            .copied()
            .collect();
        // Files are purged once what comes after them is synced.
        steps.retain(|step| *step > first || first == 0);
        steps.sort_unstable();
        steps.dedup();
        steps
    }

    /// The log after a power cut during the write that follows `synced` and would have ended at `end`.
    fn crashed(&self, dice: &mut Dice, synced: u64, end: u64) -> Self {
        let mut files = self.files.clone();
        let later = files.split_off(&end);
        let (start, bytes) = files.iter_mut().next_back().unwrap();
        let at = |place: u64| usize::try_from(place - start).unwrap();
        let (kept, end_at) = (at(synced), at(end));
        bytes.truncate(end_at);
        let likely = dice.pick(&[1, 2, 8]);
        let mut from = kept;
        while from < end_at {
            let to = ((from / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end_at);
            if dice.one_in(likely) {
                bytes[from..to].fill(0);
            }
            from = to;
        }
        match dice.below(3) {
            0 => bytes.truncate(kept + dice.below(end_at - kept + 1)),
            1 => bytes.truncate((kept / SECTOR_BYTES + 1 + dice.below(4)) * SECTOR_BYTES),
            _ => {}
        }
        // The next file is created before this one is synced.
        if later.contains_key(&end) && dice.one_in(2) {
            files.insert(end, Vec::new());
        }
        Self {
            files,
            syncs: self.syncs.clone(),
        }
    }
}

#[test]
fn what_a_crash_leaves_opens_with_everything_that_was_synced() {
    let mut torn = 0;
    for seed in 0..24 {
        let content = match seed % 2 {
            0 => Content::Dense,
            _ => Content::Zeros,
        };
        let sample = sample(seed, content, 30);
        let dice = &mut Dice(seed + 1000);
        let steps = sample.steps();
        for _ in 0..150 {
            let step = dice.below(steps.len() - 1);
            let (synced, end) = (steps[step], steps[step + 1]);
            let crashed = sample.crashed(dice, synced, end);
            // The mark may be older than the crash, or lost.
            let marks: Vec<u64> = sample
                .syncs
                .iter()
                .copied()
                .filter(|s| *s <= synced)
                .collect();
            let mark = dice.pick(&[
                0,
                *marks.last().unwrap_or(&0),
                marks.first().copied().unwrap_or(0),
            ]);
            let sound = crashed
                .classify(mark)
                .unwrap_or_else(|e| panic!("seed {seed}, {synced} to {end}, mark {mark}: {e:?}"));
            assert!(
                sound.end >= synced,
                "{sound:?}: lost what was synced up to {synced}"
            );
            let (start, left) = crashed.after(&sound);
            assert_eq!(start + left.len() as u64, sound.end);
            assert!(
                sample.bytes().starts_with(&left),
                "kept what was never written"
            );
            torn += usize::from(sound.dropped > 0);
        }
    }
    assert!(torn > 1000, "only {torn} crashes tore anything");
}

#[test]
fn damage_to_what_was_synced_is_refused() {
    for seed in 0..16 {
        let content = match seed % 2 {
            0 => Content::Dense,
            _ => Content::Zeros,
        };
        let sample = sample(seed, content, 20);
        let dice = &mut Dice(seed + 2000);
        assert_eq!(sample.classify(sample.end()).unwrap().dropped, 0);
        for _ in 0..250 {
            let mut damaged = sample.clone();
            let names: Vec<u64> = damaged.files.keys().copied().collect();
            let name = dice.pick(&names);
            let file = damaged.files.get_mut(&name).unwrap();
            let at = dice.below(file.len());
            match dice.below(4) {
                0 => file[at] ^= 1 << dice.below(8),
                1 => file[at..]
                    .iter_mut()
                    .take(512)
                    .for_each(|byte| *byte = !*byte),
                2 => {
                    let to = file.len().min(at + SECTOR_BYTES);
                    file[at..to].fill(0);
                }
                _ => file.truncate(at),
            }
            if damaged.files == sample.files {
                continue;
            }
            let damage = damaged.classify(sample.end()).unwrap_err();
            let file = damage.file.unwrap();
            assert!(
                file <= name && file + damage.offset <= name + at as u64,
                "{damage:?}"
            );
        }
        let mut shorter = sample.clone();
        shorter.files.pop_last();
        assert!(
            shorter.classify(sample.end()).is_err(),
            "the newest file is gone"
        );
        if shorter.files.len() > 1 {
            let second = *shorter.files.keys().nth(1).unwrap();
            let mut gap = sample.clone();
            gap.files.remove(&second);
            assert!(gap.classify(0).is_err(), "a file in between is gone");
        }
    }
}

/// Also by a node without a mark: after an upgrade, or if the power cut lost the mark.
#[test]
fn a_damaged_byte_is_refused_without_a_mark() {
    let mut bytes = 0;
    for seed in 0..4 {
        let sample = sample(seed, Content::Dense, 12);
        let names: Vec<u64> = sample.files.keys().copied().collect();
        for name in names {
            for at in 0..sample.files[&name].len() {
                let bit = 1 << (at % 8);
                for change in [bit, 0xff] {
                    let mut damaged = sample.clone();
                    let file = damaged.files.get_mut(&name).unwrap();
                    file[at] ^= change;
                    let result = damaged.classify(0);
                    bytes += 1;
                    // The one case that is ambiguous: the record's first bytes are at the end of a sector,
                    // and the only one that was not zero has become zero.
                    let lost = result.as_ref().is_ok_and(|sound| {
                        sound.cut.is_some_and(|(file, keep)| {
                            let keep = usize::try_from(keep).unwrap();
                            lacks_a_sector(&damaged.files[&file], keep, keep + 1)
                        })
                    });
                    assert!(
                        result.is_err() || lost,
                        "file {name}, byte {at}: {result:?}"
                    );
                }
            }
        }
    }
    assert!(bytes > 20_000, "{bytes}");
}

#[test]
fn a_damaged_length_is_refused_whatever_it_says() {
    for seed in 0..10 {
        let sample = sample(seed, Content::Zeros, 15);
        let (&newest, bytes) = sample.files.iter().next_back().unwrap();
        let mut at = 0;
        while let Some((kind, length, _)) = whole_record(&bytes[at..]) {
            for wrong in [0_u32, 1, 77, 4096, 0x7fff_ffff, u32::MAX] {
                let field = match kind {
                    Kind::Append => at + 20,
                    Kind::Vote => at + 4,
                    Kind::Checkpoint => at + 6,
                    _ => continue,
                };
                let mut damaged = sample.clone();
                let file = damaged.files.get_mut(&newest).unwrap();
                file[field..field + 4].copy_from_slice(&wrong.to_be_bytes());
                assert!(
                    damaged.classify(0).is_err(),
                    "seed {seed}, {kind:?} at {at}, {wrong}"
                );
            }
            at += length;
        }
    }
}

#[test]
fn nothing_written_yet() {
    let none = Sample {
        files: BTreeMap::new(),
        syncs: vec![0],
    };
    assert_eq!(none.classify(0), Ok(Sound::default()));
    assert_eq!(none.classify(9).unwrap_err().what, MISSING);
    for content in [vec![], vec![0; 300], vec![0, 0, 0, 5, 1]] {
        let begun = Sample {
            files: BTreeMap::from([(0, content)]),
            syncs: vec![0],
        };
        assert_eq!(begun.classify(0).unwrap().remove, [0]);
        assert!(begun.classify(9).is_err());
    }
    let later = Sample {
        files: BTreeMap::from([(700, vec![0; 300])]),
        syncs: vec![0],
    };
    assert_eq!(later.classify(0).unwrap_err().what, FIRST_MISSING);
}
