//! Reads that do not end by themselves: other reads are served beside them, and several events end them.
use std::time::{Duration, Instant};

use node_db::{BackupFormat, Cancellation, Database, Origin};

use crate::support::{Db, error, options, read, rows, sql, until};

const ENDLESS: &str =
    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n";

fn endless(db: &Db, client: u16) -> node_db::PendingOutcome {
    let origin = Origin {
        client: Some(([127, 0, 0, 1], client).into()),
        user: Some("bob".into()),
        via: None,
    };
    db.db
        .read_for(read(vec![sql("SELECT 1"), sql(ENDLESS)]), origin)
}

fn nothing_runs(db: &Db) -> bool {
    db.db.running(100).is_empty()
}

#[test]
fn a_read_ends_with_its_client() {
    let db = Db::new();
    let reads: Vec<_> = (0..6).map(|client| endless(&db, client)).collect();
    until("six reads that run", || db.db.running(100).len() == 6);
    until("four that wait for their turn", || {
        let waiting = |one: &&node_db::RunningStatement| one.waiting;
        db.db.running(100).iter().filter(waiting).count() == 4
    });
    let running = db.db.running(100);
    assert!(running[0].text.starts_with("WITH RECURSIVE"), "{running:?}");
    assert_eq!(running[0].origin.user.as_deref(), Some("bob"));
    drop(reads);
    until("no read that runs", || nothing_runs(&db));
    assert_eq!(db.shown("SELECT 1"), "1");
}

#[test]
fn short_reads_are_served_beside_any_number_of_long_ones() {
    let db = Db::new();
    let reads: Vec<_> = (0..40).map(|client| endless(&db, client)).collect();
    until("all reads that run", || db.db.running(100).len() == 40);
    for _ in 0..20 {
        let begun = Instant::now();
        assert_eq!(db.shown("SELECT 1"), "1");
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "took {:?}",
            begun.elapsed()
        );
    }
    drop(reads);
    until("no read that runs", || nothing_runs(&db));
}

#[test]
fn long_reads_all_come_to_their_end() {
    let db = Db::new();
    let long = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 300000) SELECT count(*) FROM n";
    let endless: Vec<_> = (0..4).map(|client| endless(&db, client)).collect();
    let reads: Vec<_> = (0..6).map(|_| db.db.read(read(vec![sql(long)]))).collect();
    for one in reads {
        let outcome = one.blocking_recv().unwrap();
        assert_eq!(rows(outcome.results[0].clone()).values.len(), 1);
    }
    drop(endless);
}

#[test]
fn more_long_reads_than_places_are_refused_and_short_ones_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut few = options(dir.path());
    few.max_readers = 5;
    let (db, _) = Database::open(few).unwrap();
    let mut reads: Vec<_> = (0..4).map(|_| db.read(read(vec![sql(ENDLESS)]))).collect();
    let refused = until_some(|| {
        reads.iter_mut().position(|one| {
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            let polled = Future::poll(std::pin::Pin::new(one), &mut context);
            matches!(polled, std::task::Poll::Ready(Ok(outcome))
                if error(&outcome.results[0]).starts_with("too many long reads are running"))
        })
    });
    reads.remove(refused);
    let short = db.read(read(vec![sql("SELECT 1")])).blocking_recv();
    assert!(short.unwrap().error.is_none());
}

fn until_some<T>(mut find: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    until("something to be found", || {
        found = find();
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn an_administrator_ends_a_read() {
    let db = Db::new();
    let doomed = endless(&db, 1);
    until("a read that runs", || !nothing_runs(&db));
    let id = db.db.running(1)[0].id;
    assert!(!db.db.kill(id + 1000));
    assert!(db.db.kill(id));
    let outcome = doomed.blocking_recv().unwrap();
    assert_eq!(
        error(&outcome.results[1]),
        "query ended by an administrator"
    );
    until("no read that runs", || nothing_runs(&db));
    assert!(!db.db.kill(id));
}

#[test]
fn closing_ends_what_runs() {
    let db = Db::new();
    let reads: Vec<_> = (0..5).map(|client| endless(&db, client)).collect();
    until("five reads that run", || db.db.running(100).len() == 5);
    let begun = Instant::now();
    db.db.close();
    assert!(begun.elapsed() < Duration::from_secs(3));
    for one in reads {
        let outcome = one.blocking_recv().unwrap();
        assert_eq!(
            error(&outcome.results[1]),
            "query ended because the node is stopping"
        );
    }
}

#[test]
fn a_backup_ends_with_whoever_waits_for_it() {
    let mut db = Db::new();
    db.must("CREATE TABLE t(a)");
    for format in [
        BackupFormat::Binary,
        BackupFormat::Vacuumed,
        BackupFormat::Sql { tables: Vec::new() },
    ] {
        db.must("INSERT INTO t WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 3000) SELECT randomblob(100) FROM n");
        let (waiter, watched) = Cancellation::new(Origin::default());
        drop(waiter);
        let to = db.dir.path().join("backup");
        let refused = db
            .db
            .backup_cancellable(&format, &to, &watched)
            .unwrap_err();
        assert_eq!(refused, "backup ended because its client went away");
    }
}
