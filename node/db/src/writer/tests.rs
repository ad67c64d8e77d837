//! Crashes of the writer at every step, and disks that refuse writes.
use std::{fs, path::Path};

use node_values::{Statement, StatementResult};
use rusqlite::ffi;
use tempfile::TempDir;

use super::*;
use crate::{
    disk_faults,
    entry::{Kind, LoadChunk, LoadContent, LoadFinish, Stamp},
    files::sidecar::Base,
    recovery::recover::recover,
    sqlite::connection::open_plain,
    types::OpenError,
};

/// Recovery without a log that holds all entries.
fn recover_alone(files: &Files) -> Result<Base, OpenError> {
    recover(files, &|_| false)
}

fn writer(dir: &Path) -> Writer {
    let files = Files::new(dir);
    let main = MainFile::new(recover_alone(&files).unwrap());
    let readers = Readers::new(crate::readers::state::Settings::few(files.main.clone()));
    Writer::new(files, false, readers, main, Arc::new(Progress::default())).unwrap()
}

fn entry(index: u64, texts: &[&str]) -> Entry {
    let statements = texts
        .iter()
        .map(|text| Statement {
            sql: (*text).to_owned(),
            parameters: Vec::new(),
        })
        .collect();
    let stamp = Stamp {
        unix_micros: 0,
        seed: index,
    };
    let request = Request {
        kind: Kind::Execute,
        transaction: false,
        qualify_columns: false,
        statements,
        stamp,
        rules: crate::entry::Rules::V1,
    };
    Entry {
        position: Position { term: 1, index },
        work: Work::Requests(Arc::new(vec![request])),
        reply_to: ReplyTo::Caller,
    }
}

/// Position and content after a restart. It starts twice, because a start may crash, too.
fn state_after_restart(dir: &Path) -> (u64, i64) {
    let files = Files::new(dir);
    let base = recover_alone(&files).unwrap();
    assert_eq!(recover_alone(&files).unwrap(), base);
    let count = |conn: &rusqlite::Connection| {
        conn.query_row("SELECT count(*) FROM t", [], |row| row.get(0))
            .unwrap()
    };
    let conn = open_plain(&files.main).unwrap();
    let answer: String = conn
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(answer, "ok");
    let counted = count(&conn);
    drop(conn);
    assert!(!files.snapshot.exists() && !files.load.exists() && !files.replacement.exists());
    (base.position.unwrap().index, counted)
}

const ROWS: &str = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n LIMIT 100) \
                    INSERT INTO t SELECT x, randomblob(200) FROM n";

/// A directory with 100 rows checkpointed at 1, and 300 rows at 2 in the WAL.
fn two_states() -> (TempDir, Writer) {
    let dir = TempDir::new().unwrap();
    let mut writer = writer(dir.path());
    writer
        .apply(&[entry(
            1,
            &["CREATE TABLE t(x, y)", "CREATE INDEX i ON t(y)", ROWS],
        )])
        .unwrap();
    assert!(matches!(writer.checkpoint().unwrap(), Checkpoint::Done(_)));
    writer
        .apply(&[entry(2, &[ROWS, "UPDATE t SET x = x + 1", ROWS])])
        .unwrap();
    (dir, writer)
}

#[test]
fn a_checkpoint_may_die_anywhere() {
    let steps = [
        ("wal synced", (1, 100)),
        ("intent written", (2, 300)),
        ("pages copied", (2, 300)),
        ("main synced", (2, 300)),
        ("state written", (2, 300)),
    ];
    for (step, expected) in steps {
        let (dir, mut writer) = two_states();
        writer.crash_at = Some(step);
        let Err(Fatal(text)) = writer.checkpoint() else {
            panic!("{step} was not passed")
        };
        assert_eq!(text, format!("crash at {step}"));
        drop(writer);
        assert_eq!(state_after_restart(dir.path()), expected, "{step}");
    }
}

/// The directory after a crash of a checkpoint at `step`.
fn died_at(step: &'static str) -> (TempDir, Files) {
    let (dir, mut writer) = two_states();
    writer.crash_at = Some(step);
    assert!(writer.checkpoint().is_err());
    let files = writer.files.clone();
    (dir, files)
}

#[test]
fn a_half_copied_main_file_is_completed() {
    const PAGE: usize = 4096;
    let (_old_dir, old) = died_at("intent written");
    let (_new_dir, new) = died_at("pages copied");
    let (old_main, new_main) = (fs::read(&old.main).unwrap(), fs::read(&new.main).unwrap());
    assert!(old_main.len() < new_main.len());
    // Every second page is already new; the end of the file may or may not be there.
    for (first, len) in [
        (0, new_main.len()),
        (1, new_main.len()),
        (0, old_main.len()),
        (1, old_main.len() + PAGE),
    ] {
        let (dir, files) = died_at("intent written");
        let mut mixed = old_main.clone();
        mixed.resize(len, 0);
        for (at, page) in mixed.chunks_mut(PAGE).enumerate() {
            if at % 2 == first {
                page.copy_from_slice(&new_main[at * PAGE..(at + 1) * PAGE]);
            }
        }
        fs::write(&files.main, mixed).unwrap();
        assert_eq!(state_after_restart(dir.path()), (2, 300));
        assert_eq!(fs::read(&files.main).unwrap().len(), new_main.len());
    }
}

#[test]
fn a_wal_that_is_not_what_was_intended_is_told() {
    let (_dir, files) = died_at("intent written");
    let wal = fs::read(&files.wal).unwrap();
    for damage in [wal.len() / 2, wal.len() - 10] {
        fs::write(&files.wal, &wal[..damage]).unwrap();
        let Err(OpenError::Corrupt(text)) = recover_alone(&files) else {
            panic!("cut at {damage} was not noticed")
        };
        assert!(text.contains("frames are valid"), "{text}");
    }
    let (_other_dir, other) = died_at("intent written");
    fs::copy(&other.wal, &files.wal).unwrap();
    let Err(OpenError::Corrupt(text)) = recover_alone(&files) else {
        panic!("another WAL was not noticed")
    };
    assert!(text.contains("not the recorded ones"), "{text}");
}

/// Every file with its content.
fn content(dir: &Path) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

/// A first checkpoint of 100 rows at position 1 that crashed at `step`.
fn first_died_at(step: &'static str) -> (TempDir, Files) {
    let dir = TempDir::new().unwrap();
    let mut writer = writer(dir.path());
    writer
        .apply(&[entry(1, &["CREATE TABLE t(x, y)", ROWS])])
        .unwrap();
    writer.crash_at = Some(step);
    assert!(writer.checkpoint().is_err(), "{step} was not passed");
    let files = writer.files.clone();
    (dir, files)
}

#[test]
fn a_first_checkpoint_may_die_anywhere() {
    for step in ["main file synced", "wal synced"] {
        let (_dir, files) = first_died_at(step);
        assert_eq!(recover_alone(&files).unwrap(), Base::default(), "{step}");
        assert!(!files.main.exists() && !files.wal.exists());
    }
    for step in [
        "intent written",
        "pages copied",
        "main synced",
        "state written",
    ] {
        let (dir, _) = first_died_at(step);
        assert_eq!(state_after_restart(dir.path()), (1, 100), "{step}");
    }
}

/// What versions before the sync of the main file left behind after a power cut. SQLite would empty the WAL
/// beside an empty main file.
#[test]
fn a_first_checkpoint_needs_nothing_but_its_wal() {
    for main in [None, Some(0), Some(100), Some(4096)] {
        let (dir, files) = first_died_at("pages copied");
        match main {
            None => fs::remove_file(&files.main).unwrap(),
            Some(len) => fs::write(&files.main, vec![0; len]).unwrap(),
        }
        assert_eq!(state_after_restart(dir.path()), (1, 100), "{main:?}");
    }
}

#[test]
fn doubt_is_the_same_at_every_start_and_ends_where_the_log_holds_all() {
    type Damage = fn(&Files);
    let damages: [(&str, Damage, bool); 6] = [
        (
            "WAL emptied",
            |files| fs::write(&files.wal, "").unwrap(),
            true,
        ),
        (
            "WAL gone",
            |files| fs::remove_file(&files.wal).unwrap(),
            true,
        ),
        (
            "WAL of zeros",
            |files| fs::write(&files.wal, [0; 9000]).unwrap(),
            true,
        ),
        (
            "main gone",
            |files| fs::remove_file(&files.main).unwrap(),
            false,
        ),
        (
            "main emptied",
            |files| fs::write(&files.main, "").unwrap(),
            false,
        ),
        (
            "both emptied",
            |files| {
                fs::write(&files.main, "").unwrap();
                fs::write(&files.wal, "").unwrap();
            },
            true,
        ),
    ];
    for (name, damage, first_too) in damages {
        for first in [true, false] {
            if first && !first_too {
                continue;
            }
            let (dir, files) = if first {
                first_died_at("intent written")
            } else {
                died_at("intent written")
            };
            damage(&files);
            let before = content(dir.path());
            let refused = || match recover_alone(&files) {
                Err(OpenError::Corrupt(text)) => text,
                other => panic!("{name}: {other:?}"),
            };
            assert_eq!(refused(), refused(), "{name}");
            assert!(
                content(dir.path()) == before,
                "{name}: evidence was changed"
            );
            let asked = std::cell::Cell::new(0);
            let holds = |position: Position| {
                asked.set(position.index);
                true
            };
            assert_eq!(recover(&files, &holds).unwrap(), Base::default(), "{name}");
            assert_eq!(asked.get(), if first { 1 } else { 2 }, "{name}");
            assert!(!files.main.exists() && !files.wal.exists());
            assert_eq!(recover_alone(&files).unwrap(), Base::default(), "{name}");
        }
    }
}

#[test]
fn a_replacement_may_die_anywhere() {
    let steps = [
        ("replacement ready", (1, 100)),
        ("replacement intended", (9, 7)),
        ("wal removed", (9, 7)),
        ("replacement renamed", (9, 7)),
        ("replacement stated", (9, 7)),
    ];
    for (step, expected) in steps {
        for by_load in [false, true] {
            let (dir, mut writer) = two_states();
            let other = rusqlite::Connection::open(&writer.files.snapshot).unwrap();
            other
                .execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES(1),(2),(3),(4),(5),(6),(7)")
                .unwrap();
            drop(other);
            writer.crash_at = Some(step);
            let position = Position { term: 1, index: 9 };
            let result = if by_load {
                let data = Bytes::from(fs::read(&writer.files.snapshot).unwrap());
                fs::remove_file(&writer.files.snapshot).unwrap();
                let finish = LoadFinish {
                    content: LoadContent::File,
                    total_bytes: data.len() as u64,
                    crc32: crc32fast::hash(&data),
                    stamp: Stamp::default(),
                };
                let chunk = LoadChunk {
                    load_id: 1,
                    offset: 0,
                    data,
                    finish: Some(finish),
                };
                writer
                    .apply(&[Entry {
                        position,
                        work: Work::Load(chunk),
                        reply_to: ReplyTo::Caller,
                    }])
                    .map(|_| ())
            } else {
                writer.install(position, Bytes::from_static(b"meta"))
            };
            assert_eq!(result.unwrap_err().0, format!("crash at {step}"));
            drop(writer);
            assert_eq!(state_after_restart(dir.path()), expected, "{step}");
        }
    }
}

#[test]
fn a_dead_first_start_leaves_nothing_behind() {
    let dir = TempDir::new().unwrap();
    drop(writer(dir.path()));
    // Crashed with tables in the WAL and before any checkpoint.
    let mut first = writer(dir.path());
    first.apply(&[entry(1, &["CREATE TABLE t(x)"])]).unwrap();
    drop(first);
    let mut second = writer(dir.path());
    assert_eq!(second.applied, None);
    let outcome = second.apply(&[entry(1, &["CREATE TABLE t(x)"])]).unwrap();
    assert!(matches!(
        outcome[0][0].results[0],
        StatementResult::Write(_)
    ));
}

#[test]
fn a_refusing_disk_is_never_a_statements_result() {
    let texts = [
        "CREATE TABLE t(x)",
        "INSERT INTO t VALUES(randomblob(100000))",
        "UPDATE t SET x = randomblob(200000)",
    ];
    for code in [ffi::SQLITE_IOERR_WRITE] {
        let mut hit = 0;
        for skip in 0..60 {
            let dir = TempDir::new().unwrap();
            let mut writer = writer(dir.path());
            disk_faults::set(Some((skip, code)));
            let result = writer
                .unless_failed(|writer| writer.apply(&[entry(1, &texts[..2]), entry(2, &texts)]));
            disk_faults::set(None);
            match result {
                Err(_) => {
                    hit += 1;
                    // The disk works again, but the state of this writer is unknown.
                    assert!(
                        writer
                            .unless_failed(|writer| writer.apply(&[entry(3, &texts)]))
                            .is_err()
                    );
                    assert_eq!(writer.applied, None);
                }
                Ok(outcomes) => {
                    let errors = outcomes
                        .iter()
                        .flatten()
                        .flat_map(|outcome| &outcome.results);
                    let errors =
                        errors.filter(|result| matches!(result, StatementResult::Error(_)));
                    // Only the second CREATE TABLE fails, as expected.
                    assert_eq!(errors.count(), 1);
                }
            }
        }
        assert!(hit > 20, "only {hit} writes were refused");
    }
}

#[test]
fn a_full_disk_is_waited_for_and_nothing_happens_twice() {
    // A script in autocommit, a request that runs alone, and requests that share a transaction.
    let texts: [&[&str]; 4] = [
        &[
            "CREATE TABLE t(id INTEGER PRIMARY KEY, x)",
            "CREATE TABLE guarded(x)",
            "CREATE TRIGGER guard BEFORE INSERT ON guarded BEGIN SELECT RAISE(ROLLBACK, 'no'); END",
        ],
        &[
            "INSERT INTO t(x) VALUES(randomblob(100000))",
            "INSERT INTO t(x) VALUES(random())",
        ],
        &[
            "INSERT INTO t(x) VALUES(randomblob(100000))",
            "INSERT INTO guarded VALUES(1)",
            "INSERT INTO t(x) VALUES(randomblob(100000) || last_insert_rowid())",
            "PRAGMA foreign_keys=ON",
            "UPDATE t SET x = randomblob(200000)",
        ],
        &["INSERT INTO t(x) SELECT x FROM t"],
    ];
    let outcomes_and_rows = |skip: Option<u32>| {
        let dir = TempDir::new().unwrap();
        let mut writer = writer(dir.path());
        disk_faults::set(skip.map(|skip| (skip, ffi::SQLITE_FULL)));
        let entries: Vec<Entry> = (1..)
            .zip(texts)
            .map(|(at, texts)| entry(at, texts))
            .collect();
        let outcomes = writer.unless_failed(|writer| writer.apply(&entries));
        disk_faults::set(None);
        assert_eq!(writer.progress.meters.disk_wait.waiting(), None);
        let rows: String = writer
            .session()
            .unwrap()
            .conn
            .query_row(
                "SELECT group_concat(id || ':' || hex(x)) FROM t",
                [],
                |row| row.get(0),
            )
            .unwrap();
        let outcomes: Vec<String> = outcomes
            .unwrap()
            .into_iter()
            .flatten()
            .flat_map(|outcome| outcome.results)
            .map(|result| match result {
                StatementResult::Write(write) => {
                    format!("{} {}", write.last_insert_id, write.rows_affected)
                }
                other => format!("{other:?}"),
            })
            .collect();
        (outcomes, rows)
    };
    let expected = outcomes_and_rows(None);
    let before = disk_faults::end_full();
    for skip in (0..400).step_by(6) {
        assert!(outcomes_and_rows(Some(skip)) == expected, "{skip}");
    }
    let hit = disk_faults::end_full() - before;
    assert!(hit > 30, "the disk was full {hit} times");
}

#[test]
fn a_refusing_disk_fails_the_checkpoint_and_the_next_start_is_sound() {
    for code in [ffi::SQLITE_FULL, ffi::SQLITE_IOERR_WRITE] {
        for skip in [0, 1, 5] {
            let (dir, mut writer) = two_states();
            disk_faults::set(Some((skip, code)));
            let result = writer.unless_failed(Writer::checkpoint);
            disk_faults::set(None);
            assert!(result.is_err());
            assert!(writer.main.pin(&writer.files.main).is_none());
            drop(writer);
            assert_eq!(state_after_restart(dir.path()), (2, 300));
        }
    }
}
