//! Loads through the log and received snapshots.
use bytes::Bytes;
use node_db::{
    BackupFormat, Bounds, Checkpoint, Database, Entry, Kind, LoadChunk, LoadContent, LoadFinish,
    Outcome, Position, ReplyTo, Work,
};
use node_values::Value;

use crate::support::{Db, error, sql, stamp, with, write};

fn chunks(id: u64, content: LoadContent, bytes: &[u8], size: usize) -> Vec<LoadChunk> {
    let mut chunks: Vec<LoadChunk> = bytes
        .chunks(size)
        .scan(0, |offset, data| {
            let chunk = LoadChunk {
                load_id: id,
                offset: *offset,
                data: Bytes::copy_from_slice(data),
                finish: None,
            };
            *offset += data.len() as u64;
            Some(chunk)
        })
        .collect();
    let finish = LoadFinish {
        content,
        total_bytes: bytes.len() as u64,
        crc32: crc32fast::hash(bytes),
        stamp: stamp(3),
    };
    chunks.last_mut().unwrap().finish = Some(finish);
    chunks
}

pub(crate) fn load(db: &mut Db, content: LoadContent, bytes: &[u8]) -> Outcome {
    let mut last = Vec::new();
    for chunk in chunks(7, content, bytes, 3000) {
        assert!(last.is_empty());
        last = db.work(Work::Load(chunk));
    }
    last.remove(0)
}

fn database_file(format: &BackupFormat) -> Vec<u8> {
    let mut db = Db::new();
    db.must("CREATE TABLE loaded(a); CREATE INDEX i ON loaded(a); PRAGMA user_version=42");
    db.must("INSERT INTO loaded VALUES('x'), (randomblob(9000))");
    let to = db.dir.path().join("copy");
    db.db.backup(format, &to).unwrap();
    std::fs::read(to).unwrap()
}

#[test]
fn a_file_replaces_the_database_durably() {
    for format in [
        BackupFormat::Binary,
        BackupFormat::Delete,
        BackupFormat::Vacuumed,
    ] {
        let mut db = Db::new();
        db.must("CREATE TABLE old(a)");
        assert_eq!(db.shown("SELECT count(*) FROM old"), "0");
        let outcome = load(&mut db, LoadContent::File, &database_file(&format));
        assert_eq!(outcome, Outcome::default(), "{format:?}");
        let at = db.db.applied().unwrap();
        assert_eq!(db.db.pin().unwrap().position, at);
        assert_eq!(
            db.shown("SELECT count(*), (SELECT a FROM loaded LIMIT 1) FROM loaded"),
            "2,x"
        );
        db.must("INSERT INTO loaded VALUES('later')");
        let db = db.restart();
        assert_eq!(db.recovered.position, Some(at));
        assert_eq!(db.shown("SELECT count(*) FROM loaded"), "2");
        assert_eq!(db.shown("PRAGMA user_version"), "42");
        assert_eq!(db.shown("PRAGMA integrity_check"), "ok");
    }
}

#[test]
fn a_bad_file_changes_nothing() {
    let good = database_file(&BackupFormat::Delete);
    let mut truncated = good.clone();
    truncated.truncate(good.len() - 4096);
    let mut broken = good.clone();
    broken[4096..5096].fill(0x5a);
    let mut odd = good.clone();
    odd.push(0);
    let mut db = Db::new();
    db.must("CREATE TABLE old(a)");
    let bad: [&[u8]; 5] = [
        b"SQLite format 3\0 but then nothing that fits",
        &truncated,
        &broken,
        &odd,
        &good[..100],
    ];
    for bytes in bad {
        let outcome = load(&mut db, LoadContent::File, bytes);
        let text = outcome.error.unwrap();
        assert!(text.starts_with("invalid SQLite data: "), "{text}");
        let path = db.dir.path().join("candidate");
        std::fs::write(&path, bytes).unwrap();
        assert!(Database::validate_file(&path).is_err());
    }
    assert_eq!(db.shown("SELECT count(*) FROM old"), "0");
    let path = db.dir.path().join("candidate #1?%");
    std::fs::write(&path, &good).unwrap();
    assert_eq!(Database::validate_file(&path), Ok(()));
}

/// Another node may load the same bytes successfully, so a failing disk must not make the copies differ.
#[test]
fn a_load_that_this_machine_cannot_read_back_is_fatal() {
    type Fault = fn(&std::path::Path);
    let faults: [(&str, Fault); 2] = [
        ("cannot open it", |path| std::fs::remove_file(path).unwrap()),
        ("does not give back", |path| {
            let mut bytes = std::fs::read(path).unwrap();
            bytes[..16].fill(0);
            std::fs::write(path, bytes).unwrap();
        }),
    ];
    for (want, fault) in faults {
        let mut db = Db::new();
        db.must("CREATE TABLE old(a)");
        db.checkpoint();
        let mut parts = chunks(
            7,
            LoadContent::File,
            &database_file(&BackupFormat::Delete),
            3000,
        );
        // Only the last chunk is missing then; the others have been written before.
        let last = parts.last_mut().unwrap();
        let end = LoadChunk {
            offset: last.offset + last.data.len() as u64,
            data: Bytes::new(),
            load_id: last.load_id,
            finish: last.finish.take(),
        };
        for part in parts {
            assert!(db.work(Work::Load(part)).is_empty());
        }
        fault(&db.dir.path().join("incoming-load.part"));
        let entry = Entry {
            position: db.position(),
            work: Work::Load(end),
            reply_to: ReplyTo::Caller,
        };
        let applied = db.db.apply(vec![entry]).blocking_recv().unwrap();
        let text = applied.unwrap_err().0;
        assert!(text.contains(want), "{text}");
        let db = db.restart();
        assert_eq!(db.shown("SELECT count(*) FROM old"), "0");
    }
}

#[test]
fn an_unfinished_load_blocks_checkpoints_until_dropped() {
    let mut db = Db::new();
    db.must("CREATE TABLE t(a)");
    let parts = chunks(
        9,
        LoadContent::Script,
        b"INSERT INTO t VALUES(1); INSERT INTO t VALUES(2);",
        10,
    );
    let begin = |db: &mut Db| {
        for part in &parts[..2] {
            assert!(db.work(Work::Load(part.clone())).is_empty());
        }
        assert!(matches!(db.checkpoint(), Checkpoint::Busy(_)));
    };
    begin(&mut db);
    db.work(Work::LoadAbort(1));
    assert!(matches!(db.checkpoint(), Checkpoint::Busy(_)));
    db.work(Work::LoadAbort(9));
    assert!(matches!(db.checkpoint(), Checkpoint::Done(_)));
    begin(&mut db);
    // In another term its proposer is gone. The remaining chunks of the load then have no effect.
    let mut position = db.position();
    position.term += 1;
    let entry = Entry {
        position,
        work: Work::Nothing,
        reply_to: ReplyTo::Nobody,
    };
    db.db.apply(vec![entry]).blocking_recv().unwrap().unwrap();
    assert!(matches!(db.checkpoint(), Checkpoint::Done(_)));
    let mut last = Vec::new();
    for part in &parts[2..] {
        position.index += 1;
        let entry = Entry {
            position,
            work: Work::Load(part.clone()),
            reply_to: ReplyTo::Caller,
        };
        last = db
            .db
            .apply(vec![entry])
            .blocking_recv()
            .unwrap()
            .unwrap()
            .remove(0);
    }
    assert_eq!(
        last[0].error.as_deref(),
        Some("the load was interrupted, send it again")
    );
    assert_eq!(db.shown("SELECT count(*) FROM t"), "0");
}

#[test]
fn a_snapshot_ends_a_load() {
    let mut db = Db::new();
    db.must("CREATE TABLE t(a)");
    for part in &chunks(9, LoadContent::Script, &[b' '; 30], 10)[..2] {
        db.work(Work::Load(part.clone()));
    }
    assert!(matches!(db.checkpoint(), Checkpoint::Busy(_)));
    std::fs::write(db.db.incoming_path(), database_file(&BackupFormat::Binary)).unwrap();
    let at = Position {
        term: crate::support::TERM,
        index: 1000,
    };
    db.db
        .install(at, Bytes::new())
        .blocking_recv()
        .unwrap()
        .unwrap();
    assert!(!db.dir.path().join("incoming-load.part").exists());
    let insert = with("INSERT INTO loaded VALUES(1)", &[]);
    let request = crate::support::request(Kind::Execute, false, vec![insert]);
    let entry = crate::support::entry(1001, vec![request]);
    db.db.apply(vec![entry]).blocking_recv().unwrap().unwrap();
    assert!(matches!(db.checkpoint(), Checkpoint::Done(_)));
}

#[test]
fn a_damaged_load_is_refused() {
    let mut db = Db::new();
    let mut parts = chunks(9, LoadContent::Script, b"CREATE TABLE t(a)", 100);
    if let Some(finish) = &mut parts[0].finish {
        finish.crc32 ^= 1;
    }
    let outcome = db.work(Work::Load(parts.remove(0))).remove(0);
    assert_eq!(
        outcome.error.as_deref(),
        Some("the load arrived damaged, send it again")
    );
    assert_eq!(db.shown("SELECT count(*) FROM sqlite_schema"), "0");
}

#[test]
fn scripts() {
    let mut db = Db::with_foreign_keys();
    let script = "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\nCREATE TABLE t(a PRIMARY KEY, b DEFAULT CURRENT_TIMESTAMP);\n\
                  INSERT INTO t(a) VALUES(1);\nCREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; SELECT 2; END;\nCOMMIT;\n";
    let outcome = load(&mut db, LoadContent::Script, script.as_bytes());
    assert_eq!(write(&outcome.results[0]), (1, 1));
    assert_eq!(db.shown("SELECT * FROM t"), "1,2023-11-14 22:13:20");
    assert_eq!(db.shown("PRAGMA foreign_keys"), "1");
    db.must("CREATE TABLE c(x REFERENCES t(a))");
    assert!(matches!(
        db.execute("INSERT INTO c VALUES(8)"),
        node_values::StatementResult::Error(_)
    ));
    let cases = [
        (
            "INSERT INTO t(a) VALUES(2); INSERT INTO missing VALUES(1); INSERT INTO t(a) VALUES(3)",
            "no such table: missing",
            "2",
        ),
        (
            "BEGIN; INSERT INTO t(a) VALUES(4); bad",
            "near \"bad\": syntax error",
            "2",
        ),
        (
            "BEGIN; INSERT INTO t(a) VALUES(5)",
            "the script began a transaction without COMMIT",
            "2",
        ),
        (
            "ATTACH 'x' AS x",
            "ATTACH and DETACH are not allowed, load the other database's tables with /db/load",
            "2",
        ),
        ("PRAGMA journal_mode=delete", "disallowed pragma", "2"),
    ];
    for (script, expected, count) in cases {
        let outcome = load(&mut db, LoadContent::Script, script.as_bytes());
        assert_eq!(error(&outcome.results[0]), expected, "{script}");
        assert_eq!(db.shown("SELECT count(*) FROM t"), count, "{script}");
    }
    let outcome = load(&mut db, LoadContent::Script, b"SELECT '\xff'");
    assert_eq!(outcome.error.as_deref(), Some("the SQL text is not UTF-8"));
    let outcome = load(
        &mut db,
        LoadContent::Script,
        b"VACUUM; INSERT INTO t(a) VALUES(9)",
    );
    assert_eq!(write(&outcome.results[0]), (3, 1));
}

#[test]
fn a_big_script_is_not_quadratic() {
    let mut db = Db::new();
    let mut script = String::from("CREATE TABLE t(a); BEGIN;");
    for at in 0..20_000 {
        script.push_str(&format!("INSERT INTO t VALUES('{at} some text that makes the whole script long enough to matter');\n"));
    }
    script.push_str("COMMIT;");
    let outcome = load(&mut db, LoadContent::Script, script.as_bytes());
    assert_eq!(write(&outcome.results[0]).1, 1);
    assert_eq!(db.shown("SELECT count(*) FROM t"), "20000");
}

#[test]
fn install_replaces_everything_and_takes_the_position() {
    let mut db = Db::new();
    db.must("CREATE TABLE old(a)");
    db.checkpoint();
    let old = db.db.pin().unwrap();
    for round in 0..2 {
        std::fs::write(db.db.incoming_path(), database_file(&BackupFormat::Binary)).unwrap();
        let at = Position {
            term: 5,
            index: 1000 + round,
        };
        db.db
            .install(at, Bytes::from_static(b"m"))
            .blocking_recv()
            .unwrap()
            .unwrap();
        assert_eq!(db.db.applied(), Some(at));
        assert_eq!(db.shown("SELECT count(*) FROM loaded"), "2");
        let pinned = db.db.pin().unwrap();
        assert_eq!((pinned.position, &pinned.meta[..]), (at, b"m".as_slice()));
        assert_eq!(
            pinned.len_bytes,
            std::fs::metadata(db.dir.path().join("db.sqlite"))
                .unwrap()
                .len()
        );
    }
    // The old pin still reads the old file and blocks nothing.
    let mut bytes = vec![0; 1 << 20];
    assert_eq!(old.read_at(&mut bytes, 0).unwrap() as u64, old.len_bytes);
    let insert = with("INSERT INTO loaded VALUES(?)", &[Value::Integer(1)]);
    let request = crate::support::request(Kind::Execute, false, vec![insert]);
    let mut entry = crate::support::entry(1002, vec![request]);
    entry.position.term = 5;
    db.db.apply(vec![entry]).blocking_recv().unwrap().unwrap();
    assert!(matches!(db.checkpoint(), Checkpoint::Done(_)));
    drop(old);
    let db = db.restart();
    assert_eq!(
        db.recovered.position,
        Some(Position {
            term: 5,
            index: 1002
        })
    );
    assert_eq!(&db.recovered.meta[..], b"m");
    assert_eq!(db.shown("SELECT count(*) FROM loaded"), "3");
}

#[test]
fn a_tiny_snapshot_is_fatal_before_anything_is_lost() {
    let mut db = Db::new();
    db.must("CREATE TABLE t(a)");
    db.checkpoint();
    std::fs::write(db.db.incoming_path(), b"tiny").unwrap();
    let result = db
        .db
        .install(Position { term: 2, index: 9 }, Bytes::new())
        .blocking_recv()
        .unwrap();
    assert!(result.unwrap_err().0.contains("too few"));
    // From now on everything is refused.
    let entry = crate::support::entry(
        3,
        vec![crate::support::request(
            Kind::Execute,
            false,
            vec![sql("SELECT 1")],
        )],
    );
    assert!(db.db.apply(vec![entry]).blocking_recv().unwrap().is_err());
    assert!(db.db.pin().is_none());
    let db = db.restart();
    assert_eq!(db.shown("SELECT count(*) FROM t"), "0");
}

/// A file whose index differs from its table; SQLite's quick check does not notice.
fn stale_index(dir: &std::path::Path) -> std::path::PathBuf {
    let path = dir.join("stale.sqlite");
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.execute_batch(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, x); INSERT INTO t VALUES(1, 'a'), (2, 'b'); CREATE INDEX i ON t(x);
         CREATE TABLE saved AS SELECT * FROM sqlite_schema WHERE name = 'i'; PRAGMA writable_schema=ON;
         DELETE FROM sqlite_schema WHERE name = 'i'",
    )
    .unwrap();
    drop(conn);
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.execute_batch(
        "UPDATE t SET x = 'c' WHERE id = 2; PRAGMA writable_schema=ON; INSERT INTO sqlite_schema SELECT * FROM saved; DROP TABLE saved",
    )
    .unwrap();
    path
}

#[test]
fn a_stale_index_is_found_before_and_fails_only_the_statement_after() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = stale_index(dir.path());
    let reported = Database::validate_file(&path).unwrap_err();
    assert!(reported.contains("index i"), "{reported}");
    // As if an older node had loaded it.
    let mut db = Db::new();
    let bytes = std::fs::read(&path).unwrap();
    let outcome = load(&mut db, LoadContent::File, &bytes);
    assert_eq!(outcome.error, None);
    let deleted = db.execute("DELETE FROM t WHERE id = 2");
    assert_eq!(error(&deleted), "database disk image is malformed");
    db.must("INSERT INTO t VALUES(4, 'd')");
    db.must("REINDEX");
    db.must("DELETE FROM t WHERE id = 2");
    assert_eq!(db.shown("SELECT id FROM t"), "1|4");
}

#[test]
fn statements_of_a_script_are_bounded() {
    let mut db = Db::new();
    let bounds = Bounds {
        vm_steps: 1_000_000,
        disk_bytes: 10 << 20,
        ..Bounds::NONE
    };
    let content = LoadContent::BoundedScript(bounds);
    let script = "CREATE TABLE t(x); BEGIN; INSERT INTO t VALUES(1); COMMIT; INSERT INTO t VALUES(2);
        INSERT INTO t WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c) SELECT i FROM c; INSERT INTO t VALUES(3)";
    let outcome = load(&mut db, content, script.as_bytes());
    assert!(
        error(&outcome.results[0]).starts_with("interrupted"),
        "{outcome:?}"
    );
    assert_eq!(db.shown("SELECT x FROM t"), "1|2");
    let script = "BEGIN; INSERT INTO t WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c LIMIT 40) SELECT zeroblob(100000) FROM c;
        INSERT INTO t SELECT x FROM t; INSERT INTO t SELECT x FROM t; COMMIT";
    let outcome = load(&mut db, content, script.as_bytes());
    assert!(
        error(&outcome.results[0]).starts_with("database or disk is full"),
        "{outcome:?}"
    );
    assert_eq!(db.shown("SELECT x FROM t"), "1|2");
    let outcome = load(
        &mut db,
        content,
        b"INSERT INTO t VALUES(3); VACUUM; SELECT 1",
    );
    assert_eq!(outcome.error, None);
    db.must("INSERT INTO t VALUES(4)");
    assert_eq!(db.shown("SELECT x FROM t"), "1|2|3|4");
}
