//! The writer dying at every step, and disks that refuse.
use std::{fs, path::Path};

use node_api::{Statement, StatementResult};
use rusqlite::ffi;
use tempfile::TempDir;

use super::*;
use crate::{
    Kind, LoadChunk, LoadContent, LoadFinish, OpenError, Stamp, clock::fault,
    connection::open_plain, recover::recover,
};

fn writer(dir: &Path) -> Writer {
    let files = Files::new(dir);
    let main = MainFile::new(recover(&files).unwrap());
    let readers = Readers::new(crate::readers::Settings::few(files.main.clone()));
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
        rules: crate::Rules::V1,
    };
    Entry {
        position: Position { term: 1, index },
        work: Work::Requests(Arc::new(vec![request])),
        wanted: Wanted::Caller,
    }
}

/// Position and content after a start, twice, because a start may die, too.
fn state_after_restart(dir: &Path) -> (u64, i64) {
    let files = Files::new(dir);
    let base = recover(&files).unwrap();
    assert_eq!(recover(&files).unwrap(), base);
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

/// A directory with 100 rows checkpointed at 1, and 300 rows at 2 in the WAL.
fn two_states() -> (TempDir, Writer) {
    const ROWS: &str = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n LIMIT 100) \
                        INSERT INTO t SELECT x, randomblob(200) FROM n";
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

/// The directory as it is when a checkpoint dies at `step`.
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
    // Every second page is already new; the end of the file may be there or not.
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
        let Err(OpenError::Corrupt(text)) = recover(&files) else {
            panic!("cut at {damage} was not noticed")
        };
        assert!(text.contains("frames are valid"), "{text}");
    }
    let mut other = wal.clone();
    other[17] ^= 1;
    fs::write(&files.wal, &other).unwrap();
    let Err(OpenError::Corrupt(text)) = recover(&files) else {
        panic!("another WAL was not noticed")
    };
    assert!(text.contains("not the one"), "{text}");
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
                        wanted: Wanted::Caller,
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
    // Died with tables in the WAL and before any checkpoint.
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
    for code in [ffi::SQLITE_FULL, ffi::SQLITE_IOERR_WRITE] {
        let mut hit = 0;
        for skip in 0..60 {
            let dir = TempDir::new().unwrap();
            let mut writer = writer(dir.path());
            fault::set(Some((skip, code)));
            let result = writer
                .unless_failed(|writer| writer.apply(&[entry(1, &texts[..2]), entry(2, &texts)]));
            fault::set(None);
            match result {
                Err(_) => {
                    hit += 1;
                    // The disk is well again, but what this writer holds is unknown.
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
                    // Only the second CREATE TABLE fails, as it should.
                    assert_eq!(errors.count(), 1);
                }
            }
        }
        assert!(hit > 20, "only {hit} writes were refused");
    }
}

#[test]
fn a_refusing_disk_fails_the_checkpoint_and_the_next_start_is_sound() {
    for code in [ffi::SQLITE_FULL, ffi::SQLITE_IOERR_WRITE] {
        for skip in [0, 1, 5] {
            let (dir, mut writer) = two_states();
            fault::set(Some((skip, code)));
            let result = writer.unless_failed(Writer::checkpoint);
            fault::set(None);
            assert!(result.is_err());
            assert!(writer.main.pin(&writer.files.main).is_none());
            drop(writer);
            assert_eq!(state_after_restart(dir.path()), (2, 300));
        }
    }
}
