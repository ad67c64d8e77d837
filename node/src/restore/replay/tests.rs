//! A replay against a database that applied the same entries one by one.
use std::sync::Arc;

use node_db::{Bounds, Kind, LoadChunk, LoadContent, LoadFinish, Request, Rules, Stamp, hash_file};
use node_values::Statement;

use super::*;
use crate::command::BoundedRequests;

fn request(sql: &str, stamp: i64, rules: Rules) -> Request {
    Request {
        kind: Kind::Execute,
        transaction: false,
        qualify_columns: false,
        statements: vec![Statement {
            sql: sql.to_owned(),
            ..Statement::default()
        }],
        stamp: Stamp {
            unix_micros: stamp,
            seed: 7,
        },
        rules,
    }
}

fn bytes(command: Command) -> Option<Bytes> {
    Some(Encoded::new(command).unwrap().bytes().clone())
}

fn old(sql: &str) -> Option<Bytes> {
    bytes(Command::Requests(Arc::new(vec![request(
        sql,
        1,
        Rules::V1,
    )])))
}

fn bounded(sql: &str) -> Option<Bytes> {
    let rules = Rules::V2(Bounds {
        vm_steps: 1_000_000,
        ..Bounds::NONE
    });
    bytes(Command::Bounded(BoundedRequests::new(vec![request(
        sql, 2_000_000, rules,
    )])))
}

fn chunk(script: &str, from: usize, to: usize) -> Option<Bytes> {
    let finish = (to == script.len()).then(|| LoadFinish {
        content: LoadContent::Script,
        total_bytes: script.len() as u64,
        crc32: crc32fast::hash(script.as_bytes()),
        stamp: Stamp::default(),
    });
    bytes(Command::Load(LoadChunk {
        load_id: 9,
        offset: from as u64,
        data: Bytes::copy_from_slice(&script.as_bytes()[from..to]),
        finish,
    }))
}

/// Every kind of entry: both formats, a schema change, VACUUM, errors, a load in two pieces with a write
/// between them, an abandoned load, a hashing, a change of version.
fn history() -> Vec<Option<Bytes>> {
    let script = "INSERT INTO t VALUES('from the script');";
    let mut all = vec![
        None,
        old("CREATE TABLE t(x, at DEFAULT CURRENT_TIMESTAMP, r DEFAULT (random()))"),
        bytes(Command::RaiseVersion(2)),
        bounded("INSERT INTO t(x) VALUES(1)"),
        bounded("INSERT INTO nothing VALUES(1)"),
        bytes(Command::HashContent),
        bounded("ALTER TABLE t DROP COLUMN r"),
        bounded("INSERT INTO t SELECT x, at FROM t"),
        chunk("INSERT INTO t(x) VALUES('one');", 0, 9),
        bounded("INSERT INTO t(x) VALUES('between')"),
        chunk("INSERT INTO t(x) VALUES('one');", 9, 31),
        bounded("VACUUM"),
        chunk(script, 0, 5),
        bytes(Command::LoadAbort(9)),
        None,
    ];
    all.extend((0..200).map(|n| bounded(&format!("INSERT INTO t(x) VALUES({n})"))));
    all
}

async fn begun(dir: &Path) -> Replay {
    let mut replay = Replay::begin(dir, false).unwrap();
    let conn = dir.join("seed.db");
    let (db, _) = Database::open(node_db::Options {
        dir: conn.clone(),
        foreign_keys: false,
        readers: 1,
        max_readers: 1,
        slow_statement: None,
    })
    .unwrap();
    db.apply(vec![Entry {
        position: Position { term: 1, index: 1 },
        work: Work::Nothing,
        reply_to: ReplyTo::Nobody,
    }])
    .await
    .unwrap()
    .unwrap();
    db.checkpoint().await.unwrap().unwrap();
    db.close();
    drop(db);
    std::fs::rename(offline::release(&conn).unwrap(), replay.base_path()).unwrap();
    std::fs::remove_dir_all(conn).unwrap();
    replay
        .install(Position { term: 1, index: 1 }, 1)
        .await
        .unwrap();
    replay
}

fn at(index: u64) -> Position {
    Position { term: 1, index }
}

#[tokio::test]
async fn every_point_is_what_one_entry_after_the_other_makes() {
    let dir = tempfile::tempdir().unwrap();
    let history = history();
    let mut reference = begun(dir.path()).await;
    let mut hashes = vec![reference.content_hash().await.unwrap()];
    for (index, command) in (2..).zip(&history) {
        reference
            .apply_and_report(at(index), command.clone())
            .await
            .unwrap();
        hashes.push(reference.content_hash().await.unwrap());
    }
    for point in [0, 2, 3, 4, 7, 8, 9, 10, 11, 12, 13, 14, 80, history.len()] {
        let mut replay = begun(dir.path()).await;
        for (index, command) in (2..).zip(&history).take(point) {
            replay.apply(at(index), command.clone()).await.unwrap();
        }
        let restored = replay.finish().await.unwrap();
        assert_eq!(restored.position.index as usize, point + 1);
        assert_eq!(hash_file(&restored.path).unwrap(), hashes[point], "{point}");
        let header = std::fs::read(&restored.path).unwrap();
        assert_eq!(header[18..20], [1, 1], "an ordinary file");
        let scratch = restored.path.parent().unwrap().to_owned();
        drop(restored);
        assert!(!scratch.exists());
    }
    assert_ne!(
        hashes[9], hashes[10],
        "a write between two pieces of a load"
    );
}

#[tokio::test]
async fn outcomes_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let mut replay = begun(dir.path()).await;
    replay.apply(at(2), old("CREATE TABLE t(x)")).await.unwrap();
    let outcomes = replay
        .apply_and_report(at(3), old("INSERT INTO t VALUES(1), (2)"))
        .await
        .unwrap();
    let [node_values::StatementResult::Write(written)] = &outcomes[0].results[..] else {
        panic!("{outcomes:?}");
    };
    assert_eq!(written.rows_affected, 2);
    let outcomes = replay
        .apply_and_report(at(4), old("nonsense"))
        .await
        .unwrap();
    assert!(matches!(
        outcomes[0].results[..],
        [node_values::StatementResult::Error(_)]
    ));
}

#[tokio::test]
async fn entries_out_of_order_damaged_or_newer_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    for (position, command, says) in [
        (at(3), None, "entry 3: it cannot follow entry 1"),
        (at(1), None, "entry 1: it cannot follow"),
        (
            Position { term: 0, index: 2 },
            None,
            "entry 2: it cannot follow",
        ),
        (
            at(2),
            Some(Bytes::from_static(&[1, 77])),
            "entry 2: log entry cannot be decoded",
        ),
        (at(2), Some(Bytes::from_static(&[2, 0])), "newer"),
        (
            at(2),
            bytes(Command::RaiseVersion(version::NEWEST + 1)),
            "use a newer rqlited",
        ),
    ] {
        let mut replay = begun(dir.path()).await;
        let error = replay
            .apply(position, command)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(says), "{error}");
    }
}
