//! Only the named entry is skipped, and after any crash the same command finishes the skip.
use super::*;
use crate::raft::{
    codec::{Id, PayloadRecord, VoteRecord},
    storage::rewrite::{
        NewMember, NewMembership,
        samples::{entries, write_log},
    },
};

/// Entries 15 to 60; every tenth is a membership, the one after it has no content.
const WRITTEN: u64 = 33;

struct Sample {
    dir: tempfile::TempDir,
    before: Vec<(Id, PayloadRecord)>,
}

impl Sample {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let raft_dir = dir.path().join("raft");
        fs::create_dir_all(&raft_dir).unwrap();
        let member = NewMember {
            id: "a#1".into(),
            raft_addr: "a:1".into(),
            voter: true,
        };
        let vote = VoteRecord {
            term: 5,
            voted_for: "a#1".into(),
            committed: true,
        };
        let membership = NewMembership::new(&[member]).unwrap();
        write_log(&raft_dir.join("log"), 4, 0, 60, &vote, &membership);
        let mut identity = Identity::new("a");
        identity.cluster = Some(from());
        identity.save(&raft_dir).unwrap();
        let before = entries(&raft_dir.join("log"));
        Self { dir, before }
    }

    fn raft(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join("raft").join(name)
    }

    fn entry(&self, index: u64) -> Skipped {
        let log = Log::open(&self.raft("log")).unwrap();
        let found = log.describe(index).unwrap().unwrap();
        Skipped {
            index,
            term: found.term,
            checksum: found.checksum,
        }
    }

    fn skip(&self, entry: &Skipped) -> Result<Done, RecoverError> {
        skip(self.dir.path(), entry)
    }

    /// Everything is as before except this entry.
    fn check_skipped(&self, entry: &Skipped) {
        let mut wanted = self.before.clone();
        for (id, payload) in &mut wanted {
            if id.1 == entry.index {
                *payload = PayloadRecord::Blank;
            }
        }
        assert_eq!(entries(&self.raft("log")), wanted);
        let log = Log::open(&self.raft("log")).unwrap();
        assert_eq!(log.vote().map(|vote| vote.term), Some(5));
        let cluster = Identity::load(&self.raft("")).unwrap().unwrap().cluster;
        assert_eq!(cluster.unwrap().lineage, lineage(&from(), entry));
        refuse_if_interrupted(self.dir.path()).unwrap();
        for name in [JOURNAL_FILE, NEW_LOG, OLD_LOG] {
            assert!(!self.raft(name).exists(), "{name} is left");
        }
    }
}

fn from() -> Cluster {
    Cluster {
        id: "c".into(),
        lineage: Lineage {
            id: "l".into(),
            epoch: 2,
        },
    }
}

/// Nodes of different versions must agree, so this value never changes.
#[test]
fn golden() {
    let entry = Skipped {
        index: 9,
        term: 3,
        checksum: "0123456789abcdef".into(),
    };
    let to = lineage(&from(), &entry);
    assert_eq!(to.id, "skip-9-3-0123456789abcdef-db23566258fb4135");
    assert_eq!((to.epoch, Skipped::of(&to)), (3, Some(entry)));
}

#[test]
fn one_entry_is_skipped_and_no_other() {
    let sample = Sample::new();
    let entry = sample.entry(WRITTEN);
    let to = lineage(&from(), &entry);
    assert_eq!(sample.skip(&entry).unwrap(), Done::Skipped(to.clone()));
    sample.check_skipped(&entry);
    assert_eq!(sample.skip(&entry).unwrap(), Done::AlreadySkipped(to));
    sample.check_skipped(&entry);
    // The next skip starts another lineage.
    let next = sample.entry(WRITTEN + 1);
    assert!(matches!(sample.skip(&next).unwrap(), Done::Skipped(to) if to.epoch == 4));
}

#[test]
fn a_log_that_ends_before_the_entry_takes_the_lineage() {
    let sample = Sample::new();
    let entry = Skipped {
        index: 61,
        ..sample.entry(WRITTEN)
    };
    let to = lineage(&from(), &entry);
    assert_eq!(sample.skip(&entry).unwrap(), Done::BeyondLog(to));
    sample.check_skipped(&entry);
}

#[test]
fn what_is_not_meant_is_refused_and_changes_nothing() {
    let sample = Sample::new();
    let meant = sample.entry(WRITTEN);
    let other = |entry: Skipped, words: &str| {
        let error = sample.skip(&entry).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert_eq!(entries(&sample.raft("log")), sample.before);
        let identity = Identity::load(&sample.raft("")).unwrap().unwrap();
        assert_eq!(identity.cluster, Some(from()));
        refuse_if_interrupted(sample.dir.path()).unwrap();
    };
    let index = |index| Skipped {
        index,
        ..meant.clone()
    };
    other(index(WRITTEN + 1), "another entry");
    other(
        Skipped {
            term: 3,
            ..meant.clone()
        },
        "another entry",
    );
    other(sample.entry(30), "only what clients wrote");
    other(sample.entry(31), "only what clients wrote");
    fs::write(sample.raft(PEERS_FILE), "[]").unwrap();
    other(meant.clone(), "recovery is to come");
}

#[test]
fn killed_anywhere_and_run_again() {
    for state in 0..5 {
        let sample = Sample::new();
        let entry = sample.entry(WRITTEN);
        let to = Cluster {
            lineage: lineage(&from(), &entry),
            ..from()
        };
        let journal = Journal {
            entry: entry.clone(),
            to,
        };
        save(&sample.raft(""), &journal).unwrap();
        let (log, new, old) = (
            sample.raft("log"),
            sample.raft(NEW_LOG),
            sample.raft(OLD_LOG),
        );
        match state {
            0 => {}
            1 => {
                fs::create_dir(&new).unwrap();
                fs::write(new.join("r-00_000_000_000_000_000_000.wal"), "half").unwrap();
            }
            _ => {
                rewrite_without(&log, &new, WRITTEN).unwrap();
                fs::rename(&log, &old).unwrap();
                if state > 2 {
                    fs::rename(&new, &log).unwrap();
                }
                if state > 3 {
                    fs::remove_dir_all(&old).unwrap();
                }
            }
        }
        let describe_error = refuse_if_interrupted(sample.dir.path()).unwrap_err();
        assert!(
            describe_error
                .to_string()
                .contains("rqlited skip-entry --index 33")
        );
        let another = Skipped {
            index: 34,
            ..entry.clone()
        };
        assert!(sample.skip(&another).is_err(), "state {state}");
        assert!(matches!(sample.skip(&entry).unwrap(), Done::Skipped(_)));
        sample.check_skipped(&entry);
    }
}
