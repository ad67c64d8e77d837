//! Checkpoints, pins and restarts.
use node_db::{Checkpoint, Database, OpenError, Position, ReplyTo, Urgency, Work};

use crate::support::{Db, options, read, sql, until};

const LONG: &str =
    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n) SELECT count(*) FROM n, t";

#[test]
fn only_what_was_checkpointed_survives() {
    let mut db = Db::new();
    assert_eq!(db.recovered.position, None);
    assert!(matches!(db.checkpoint(), Checkpoint::Unchanged(None)));
    assert!(db.db.pin().is_none());
    db.must("CREATE TABLE t(a)");
    db.must("INSERT INTO t VALUES(1)");
    db.work(Work::Meta(b"members".as_slice().into()));
    let position = db.position();
    db.db
        .apply(vec![node_db::Entry {
            position,
            work: Work::Nothing,
            reply_to: ReplyTo::Nobody,
        }])
        .blocking_recv()
        .unwrap()
        .unwrap();
    assert!(db.db.wal_bytes() > 0);
    assert!(matches!(db.checkpoint(), Checkpoint::Done(at) if at == position));
    assert_eq!(db.db.wal_bytes(), 0);
    assert!(matches!(db.checkpoint(), Checkpoint::Unchanged(Some(at)) if at == position));
    db.must("INSERT INTO t VALUES(2)");
    let mut db = db.restart();
    assert_eq!(db.recovered.position, Some(position));
    assert_eq!(db.db.applied(), Some(position));
    assert_eq!(&db.recovered.meta[..], b"members");
    assert_eq!(db.shown("SELECT a FROM t"), "1");
    // Entries without changes advance the position, too.
    db.work(Work::Nothing);
    assert!(matches!(db.checkpoint(), Checkpoint::Done(_)));
    let db = db.restart();
    assert_eq!(
        db.recovered.position,
        Some(Position {
            index: position.index + 1,
            ..position
        })
    );
}

#[test]
fn a_pin_holds_the_file_still() {
    let mut db = Db::new();
    db.must("CREATE TABLE t(a)");
    db.checkpoint();
    let pinned = db.db.pin().unwrap();
    let path = db.dir.path().join("db.sqlite");
    let before = std::fs::read(&path).unwrap();
    assert_eq!(before.len() as u64, pinned.len_bytes);
    assert_eq!(Some(pinned.position), db.db.applied());
    db.must("INSERT INTO t VALUES(1)");
    assert!(matches!(db.checkpoint(), Checkpoint::Busy(_)));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    drop(pinned);
    assert!(matches!(db.checkpoint(), Checkpoint::Done(_)));
    assert_eq!(db.shown("SELECT a FROM t"), "1");
}

#[test]
fn a_pin_that_lasts_is_moved() {
    let mut db = Db::new();
    db.must("CREATE TABLE t(a)");
    db.must("INSERT INTO t VALUES(randomblob(3000000))");
    db.checkpoint();
    let pinned = db.db.pin().unwrap();
    let before = std::fs::read(db.dir.path().join("db.sqlite")).unwrap();
    db.must("UPDATE t SET a = 1");
    until("a checkpoint beside a pin", || {
        matches!(
            db.db
                .checkpoint_with(Urgency::Overdue)
                .blocking_recv()
                .unwrap()
                .unwrap(),
            Checkpoint::Done(_)
        )
    });
    assert_eq!(db.db.oldest_pin(), Some(pinned.position));
    let mut found = vec![0; before.len() + 1];
    let mut at = 0;
    while at < before.len() {
        at += pinned.read_at(&mut found[at..], at as u64).unwrap();
    }
    assert!(found[..at] == before, "another file");
    drop(pinned);
    assert_eq!(db.db.oldest_pin(), None);
    assert_eq!(db.shown("SELECT a FROM t"), "1");
}

#[test]
fn a_checkpoint_that_must_come_ends_long_reads() {
    let mut db = Db::new();
    db.must("CREATE TABLE t(a)");
    db.must("INSERT INTO t VALUES(1)");
    let long = db.db.read(read(vec![sql(LONG)]));
    let mut at = 2;
    until("a busy checkpoint", || {
        db.must(&format!("INSERT INTO t VALUES({at})"));
        at += 1;
        matches!(db.checkpoint(), Checkpoint::Busy(_))
    });
    let must = db.db.checkpoint_with(Urgency::Must).blocking_recv();
    assert!(matches!(must.unwrap().unwrap(), Checkpoint::Done(_)));
    let outcome = long.blocking_recv().unwrap();
    assert_eq!(
        crate::support::error(&outcome.results[0]),
        "query interrupted to free the database file"
    );
}

#[test]
fn a_long_read_hinders_neither_writes_nor_other_reads() {
    let mut db = Db::new();
    db.must("CREATE TABLE t(a)");
    db.must("INSERT INTO t VALUES(1)");
    let long = db.db.read(read(vec![sql(LONG)]));
    let mut at = 2;
    // The read is visible once a checkpoint is busy because of it.
    until("a busy checkpoint", || {
        db.must(&format!("INSERT INTO t VALUES({at})"));
        at += 1;
        matches!(db.checkpoint(), Checkpoint::Busy(_))
    });
    for _ in 0..10 {
        db.must("INSERT INTO t VALUES(0)");
        assert!(matches!(db.checkpoint(), Checkpoint::Busy(_)));
    }
    assert_eq!(db.shown("SELECT count(*) > 10 FROM t"), "1");
    // Only closing or replacing the database ends it; an install is tested elsewhere.
    let incoming = db.db.incoming_path();
    db.db
        .backup(&node_db::BackupFormat::Binary, &incoming)
        .unwrap();
    let position = db.position();
    db.db
        .install(position, bytes::Bytes::new())
        .blocking_recv()
        .unwrap()
        .unwrap();
    let outcome = long.blocking_recv().unwrap();
    assert_eq!(
        crate::support::error(&outcome.results[0]),
        "query interrupted to free the database file"
    );
    assert_eq!(db.shown("SELECT count(*) > 10 FROM t"), "1");
    db.must("INSERT INTO t VALUES(0)");
    assert!(matches!(db.checkpoint(), Checkpoint::Done(_)));
}

#[test]
fn reads_go_on_while_checkpoints_come() {
    let mut db = Db::new();
    db.must("CREATE TABLE t(a)");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let database = db.db.clone();
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut last = 0;
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        let outcome = database
                            .read(read(vec![sql("SELECT count(*), sum(a) FROM t")]))
                            .blocking_recv()
                            .unwrap();
                        let rows = crate::support::rows(outcome.results[0].clone());
                        let node_values::Cell::Integer(count) = rows.values[0][0] else {
                            panic!("{rows:?}")
                        };
                        assert!(count >= last);
                        last = count;
                    }
                })
            })
            .collect();
        let mut done = 0;
        for at in 0..100 {
            db.must(&format!("INSERT INTO t VALUES({at})"));
            let checkpoint = db.db.checkpoint_with(Urgency::Overdue).blocking_recv();
            done += usize::from(matches!(checkpoint.unwrap().unwrap(), Checkpoint::Done(_)));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for reader in readers {
            reader.join().unwrap();
        }
        assert!(done > 50, "only {done} of 100 checkpoints came through");
    });
    let db = db.restart();
    assert!(db.shown("SELECT count(*) FROM t").parse::<u32>().unwrap() > 50);
}

fn open_error(dir: &std::path::Path) -> String {
    match Database::open(options(dir)) {
        Err(OpenError::Corrupt(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn damage_is_told_clearly() {
    let mut db = Db::new();
    db.must("CREATE TABLE t(a)");
    db.checkpoint();
    let dir = db.dir;
    drop(db.db);
    let state = dir.path().join("state");
    let good = std::fs::read(&state).unwrap();
    std::fs::write(&state, &good[..good.len() - 1]).unwrap();
    assert!(open_error(dir.path()).contains("checksum"));
    std::fs::remove_file(&state).unwrap();
    assert!(open_error(dir.path()).contains("missing"));
    std::fs::write(&state, &good).unwrap();
    let main = dir.path().join("db.sqlite");
    let content = std::fs::read(&main).unwrap();
    std::fs::write(&main, &content[..content.len() - 1]).unwrap();
    assert!(open_error(dir.path()).contains("cut short"));
    std::fs::remove_file(&main).unwrap();
    assert!(open_error(dir.path()).contains("cut short"));
    std::fs::write(&main, &content).unwrap();
    std::fs::write(dir.path().join("db.sqlite-wal"), b"rubbish").unwrap();
    std::fs::write(dir.path().join("incoming-snapshot.part"), b"rubbish").unwrap();
    let (db, recovered) = Database::open(options(dir.path())).unwrap();
    assert_eq!(recovered.position.unwrap().index, 1);
    assert!(!db.incoming_path().exists());
}
