//! The same log gives the same results and the same content, however it is cut into runs and wherever it restarts.
use node_api::Value;
use node_db::{Checkpoint, Entry, Kind, Outcome, Request, Rules, Wanted};
use proptest::prelude::*;

use crate::support::{self, Db, entry, request, rows, sql, stamp, timeless, with};

/// Statements that try every rule; `{n}` becomes a small number.
const TEXTS: &[&str] = &[
    "INSERT INTO t(a) VALUES({n})",
    "INSERT INTO t(id, a) VALUES({n}, 'explicit')",
    "INSERT OR ROLLBACK INTO t(id) VALUES({n})",
    "INSERT OR FAIL INTO t(id) VALUES(50), ({n}), (51)",
    "INSERT OR REPLACE INTO t(id, a) VALUES({n}, random())",
    "INSERT OR IGNORE INTO t(id) VALUES({n})",
    "INSERT INTO guarded VALUES({n})",
    "UPDATE t SET a = a || 'x', b = b WHERE id % 3 = {n} % 3",
    "DELETE FROM t WHERE id = {n}",
    "DELETE FROM t WHERE id = {n} RETURNING id, a",
    "INSERT INTO t(a) SELECT changes() + 10 * last_insert_rowid()",
    "INSERT INTO counted DEFAULT VALUES",
    "CREATE TABLE IF NOT EXISTS extra{n}(x)",
    "DROP TABLE IF EXISTS extra{n}",
    "INSERT INTO extra{n} VALUES(randomblob({n}))",
    "INSERT INTO t(a) VALUES(strftime('%f', 'now')); INSERT INTO t(a) VALUES(1); INSERT OR ROLLBACK INTO t(id) VALUES({n})",
    "WITH c(x) AS (SELECT random()) INSERT INTO t(a) SELECT x FROM c",
    "PRAGMA user_version={n}",
    "PRAGMA foreign_keys=ON; INSERT INTO child VALUES({n})",
    "INSERT INTO child VALUES({n})",
    "VACUUM",
    "SELECT id, a FROM t ORDER BY id LIMIT {n}",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "nonsense {n}",
    "PRAGMA recursive_triggers=OFF",
    "ALTER TABLE counted ADD COLUMN c{n}",
    "ALTER TABLE counted RENAME COLUMN c{n} TO d{n}",
    "ALTER TABLE extra{n} RENAME TO extra5",
    "ALTER TABLE counted DROP COLUMN d{n}",
    "ALTER TABLE guarded ADD CHECK (x < {n})",
    "ALTER TABLE log RENAME TO log",
    "PRAGMA busy_timeout={n}",
    "PRAGMA legacy_alter_table=ON; ALTER TABLE t RENAME TO t2; ALTER TABLE t2 RENAME TO t",
    "INSERT INTO t(a) SELECT name FROM pragma_table_info('counted')",
    "INSERT INTO t(a) SELECT cache_size FROM pragma_cache_size",
    "PRAGMA optimize(65538)",
    "ANALYZE",
];

const SCHEMA: &[&str] = &[
    "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b DEFAULT CURRENT_TIMESTAMP)",
    "CREATE TABLE guarded(x)",
    "CREATE TRIGGER guard BEFORE INSERT ON guarded WHEN new.x % 2 BEGIN SELECT RAISE(ROLLBACK, 'odd'); END",
    "CREATE TABLE counted(a DEFAULT (changes()), r DEFAULT (random()), d DEFAULT (datetime('now', 'subsec')))",
    "CREATE TABLE log(x DEFAULT (random()), y, z)",
    "CREATE TRIGGER watch AFTER INSERT ON t BEGIN INSERT INTO log(y, z) VALUES(new.id, changes()); END",
    "CREATE TABLE child(t REFERENCES t(id) DEFERRABLE INITIALLY DEFERRED)",
];

fn statement() -> impl Strategy<Value = node_api::Statement> {
    (0..TEXTS.len(), 0..12_i64, any::<bool>()).prop_map(|(at, n, bound)| {
        let text = TEXTS[at];
        // A bound number goes through the statement cache, a literal one mostly not.
        if bound && text.matches("({n}").count() == 1 && text.starts_with("INSERT INTO t") {
            return with(&text.replace("{n}", "?"), &[Value::Integer(n)]);
        }
        sql(&text.replace("{n}", &n.to_string()))
    })
}

fn requests() -> impl Strategy<Value = Vec<Request>> {
    let one = (
        0..3_usize,
        any::<bool>(),
        prop::collection::vec(statement(), 1..5),
        any::<u64>(),
        prop::bool::weighted(0.8),
    );
    let one = one.prop_map(|(kind, transaction, statements, seed, newest)| {
        let kind = [Kind::Execute, Kind::Unified, Kind::Execute][kind];
        Request {
            stamp: stamp(seed),
            rules: if newest { support::newest() } else { Rules::V1 },
            ..request(kind, transaction, statements)
        }
    });
    prop::collection::vec(one, 1..40)
}

/// The same entry once more: an entry is applied once, so the type cannot be cloned.
fn again(entry: &Entry) -> Entry {
    Entry {
        position: entry.position,
        work: entry.work.clone(),
        wanted: Wanted::Caller,
    }
}

fn apply(db: &Db, entries: &[Entry], run: usize) -> Vec<Outcome> {
    entries
        .chunks(run)
        .map(|run| run.iter().map(again).collect())
        .flat_map(|run: Vec<Entry>| db.db.apply(run).blocking_recv().unwrap().unwrap())
        .flatten()
        .map(timeless)
        .collect()
}

fn prepare(foreign_keys: bool) -> Db {
    let mut db = if foreign_keys {
        Db::with_foreign_keys()
    } else {
        Db::new()
    };
    for text in SCHEMA {
        db.must(text);
    }
    db
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn batching_and_restarts_change_nothing(
        requests in requests(), run in 2..40_usize, cut in 0..40_usize, foreign_keys in any::<bool>(),
    ) {
        let first = SCHEMA.len() as u64 + 1;
        let entries: Vec<Entry> =
            requests.into_iter().zip(first..).map(|(request, index)| entry(index, vec![request])).collect();
        let alone = prepare(foreign_keys);
        let expected = apply(&alone, &entries, 1);

        let together = prepare(foreign_keys);
        prop_assert_eq!(&apply(&together, &entries, run), &expected);
        prop_assert_eq!(together.dump(), alone.dump());

        // A checkpoint and a restart in the middle; some entries after the checkpoint are applied twice, as after a crash.
        let mut restarted = prepare(foreign_keys);
        let cut = cut.min(entries.len());
        let mut outcomes = apply(&restarted, &entries[..cut], 7);
        prop_assert!(!matches!(restarted.checkpoint(), Checkpoint::Busy(_)));
        apply(&restarted, &entries[cut..entries.len().min(cut + 5)], 3);
        restarted.db.close();
        drop(restarted.db);
        restarted = Db::open_in(restarted.dir, |options| options.foreign_keys = foreign_keys);
        outcomes.extend(apply(&restarted, &entries[cut..], run));
        prop_assert_eq!(&outcomes, &expected);
        prop_assert_eq!(restarted.dump(), alone.dump());
    }
}

#[test]
fn time_and_chance_come_from_the_stamp() {
    let fill = || {
        let mut db = prepare(false);
        for (seed, text) in [
            (1, "INSERT INTO t(a) VALUES(random())"),
            (2, "INSERT INTO t(a) VALUES(hex(randomblob(20)))"),
            (
                3,
                "INSERT INTO t(a) SELECT date() || time('now', '+1 hour') || julianday('now') || unixepoch()",
            ),
            (
                4,
                "INSERT INTO t(a) VALUES(CURRENT_DATE || CURRENT_TIME || strftime('%s'))",
            ),
            (5, "INSERT INTO counted DEFAULT VALUES"),
            (
                6,
                "INSERT INTO t(a) SELECT value FROM json_each('[1,2,3]') ORDER BY random()",
            ),
        ] {
            let outcome = db.apply(Request {
                stamp: stamp(seed),
                ..request(Kind::Execute, false, vec![sql(text)])
            });
            assert!(
                matches!(outcome.results[0], node_api::StatementResult::Write(_)),
                "{text}: {outcome:?}"
            );
        }
        db.dump()
    };
    let dump = fill();
    std::thread::sleep(std::time::Duration::from_millis(5));
    assert_eq!(fill(), dump);
    assert!(dump.contains("2023-11-14 22:13:20.123"), "{dump}");
    // Each draw differs.
    let mut db = Db::new();
    let outcome = db.request(
        Kind::Query,
        false,
        vec![sql(
            "SELECT random() <> random(), length(randomblob(0)), length(randomblob(13))",
        )],
    );
    assert_eq!(
        format!("{:?}", rows(outcome.results[0].clone()).values),
        "[[Integer(1), Integer(1), Integer(13)]]"
    );
}

#[test]
fn neighbours_of_a_rollback_keep_their_results() {
    let requests: Vec<Request> = (0..64)
        .map(|at| {
            let text = match at % 16 {
                3 => "INSERT OR ROLLBACK INTO t(id) VALUES(1)".to_owned(),
                7 => "INSERT INTO guarded VALUES(1)".to_owned(),
                _ => format!("INSERT INTO t(a) VALUES({at})"),
            };
            Request {
                stamp: stamp(at),
                ..request(Kind::Execute, at % 5 == 0, vec![sql(&text)])
            }
        })
        .collect();
    let first = SCHEMA.len() as u64 + 1;
    let entries = |requests: &[Request]| vec![entry(first, requests.to_vec())];
    let db = prepare(false);
    let outcomes = apply(&db, &entries(&requests), 1);
    for (at, outcome) in outcomes.iter().enumerate() {
        match at % 16 {
            3 => assert_eq!(
                support::error(&outcome.results[0]),
                "UNIQUE constraint failed: t.id"
            ),
            7 => assert_eq!(support::error(&outcome.results[0]), "odd"),
            _ => assert_eq!(support::write(&outcome.results[0]).1, 1, "{at}"),
        }
    }
    assert_eq!(db.shown("SELECT count(*) FROM t"), "56");
}

#[test]
fn unwanted_entries_have_the_same_effects() {
    let db = prepare(false);
    let first = SCHEMA.len() as u64 + 1;
    let mut run = vec![
        entry(
            first,
            vec![request(
                Kind::Execute,
                false,
                vec![sql("INSERT INTO t(a) VALUES(1) RETURNING id")],
            )],
        ),
        entry(
            first + 1,
            vec![request(Kind::Query, false, vec![sql("SELECT * FROM t")])],
        ),
        entry(
            first + 2,
            vec![request(
                Kind::Unified,
                true,
                vec![sql("INSERT INTO t(a) VALUES(2)"), sql("bad")],
            )],
        ),
    ];
    for entry in &mut run {
        entry.wanted = Wanted::Nobody;
    }
    let outcomes = db.db.apply(run).blocking_recv().unwrap().unwrap();
    assert!(
        outcomes
            .iter()
            .flatten()
            .all(|outcome| outcome.results.is_empty())
    );
    assert_eq!(db.shown("SELECT a FROM t"), "1");
    assert_eq!(db.db.applied().unwrap().index, first + 2);
}
