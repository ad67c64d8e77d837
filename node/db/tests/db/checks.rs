//! The check of the open database.
use std::{
    fs::OpenOptions,
    os::unix::fs::FileExt as _,
    sync::Arc,
    time::{Duration, Instant},
};

use node_db::{Cancellation, CheckEnd, CheckProgress, Origin};

use crate::support::{Db, until};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A database of more than a thousand pages in the main file.
fn filled() -> Db {
    let mut db = Db::new();
    db.must("CREATE TABLE t(x)");
    db.must(
        "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)
         SELECT zeroblob(1500) FROM n",
    );
    let _ = db.checkpoint();
    db
}

fn check(db: &Db, limit: Duration) -> (CheckEnd, u64, u64) {
    let progress = Arc::new(CheckProgress::default());
    let (_guard, watched) = Cancellation::new(Origin::default());
    let end = db.db.check(limit, &watched, &progress);
    (end, progress.pages_read(), progress.pages())
}

#[test]
fn a_sound_database_is_read_once_or_twice() {
    let db = filled();
    let (end, read, pages) = check(&db, DAY);
    assert_eq!(end, CheckEnd::Sound);
    assert!(pages > 1000, "{pages}");
    assert!((pages / 2..=pages * 2).contains(&read), "{read} of {pages}");
    assert_eq!(check(&Db::new(), DAY).0, CheckEnd::Sound, "empty");
}

#[test]
fn damage_is_found() {
    let db = filled();
    let main = db.dir.path().join("db.sqlite");
    let file = OpenOptions::new().write(true).open(main).unwrap();
    file.write_all_at(&[0xff; 4096], 4096 * 500).unwrap();
    let (end, ..) = check(&db, DAY);
    assert!(
        matches!(&end, CheckEnd::Damaged(what) if !what.is_empty()),
        "{end:?}"
    );
}

#[test]
fn it_ends_at_its_limit_and_with_its_caller() {
    let db = filled();
    assert_eq!(check(&db, Duration::ZERO).0, CheckEnd::TimedOut);
    let (guard, watched) = Cancellation::new(Origin::default());
    drop(guard);
    let progress = Arc::default();
    assert_eq!(db.db.check(DAY, &watched, &progress), CheckEnd::Cancelled);
    until("no check that runs", || db.db.running(9).is_empty());
    let begun = Instant::now();
    assert_eq!(db.shown("SELECT count(*) FROM t"), "4000");
    assert!(begun.elapsed() < Duration::from_secs(5));
}
