//! The same log gives the same results and the same content, however it is divided into runs and wherever it
//! restarts.
use node_db::{Checkpoint, Entry, Kind, Outcome, ReplyTo, Request, Rules};
use node_values::Value;
use proptest::prelude::*;

use crate::support::{self, Db, entry, request, rows, sql, stamp, timeless, with};

/// Statements that exercise every rule; `{n}` becomes a small number.
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

fn statement() -> impl Strategy<Value = node_values::Statement> {
    (0..TEXTS.len(), 0..12_i64, any::<bool>()).prop_map(|(at, n, bound)| {
        let text = TEXTS[at];
        // A text with a bound number goes through the statement cache, one with a literal mostly does not.
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

/// A copy of an entry. `Entry` is not `Clone`, because an entry is applied only once.
fn again(entry: &Entry) -> Entry {
    Entry {
        position: entry.position,
        work: entry.work.clone(),
        reply_to: ReplyTo::Caller,
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

        // A checkpoint and a restart in the middle; some entries after the checkpoint are applied twice, as
        // after a crash.
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
                matches!(outcome.results[0], node_values::StatementResult::Write(_)),
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
        entry.reply_to = ReplyTo::Nobody;
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

/// Requests on full-text tables, directly and by triggers, with transactions, failures and changes of the
/// tables between them.
fn full_text_requests() -> impl Strategy<Value = Vec<Request>> {
    const TEXTS: &[&str] = &[
        "INSERT INTO {f}(rowid, x) VALUES({n}, 'alpha beta {n}')",
        "INSERT INTO {f}(x) SELECT 'gamma ' || value || ' delta' FROM json_each('[1,2,3,4,5,6,7,8]')",
        "INSERT INTO {f}(x) VALUES('epsilon zeta eta theta {n}')",
        "UPDATE {f} SET x = x || ' kappa{n}' WHERE rowid % 7 = {n} % 7",
        "DELETE FROM {f} WHERE rowid = {n}",
        "INSERT INTO {f}({f}) VALUES('optimize')",
        "INSERT INTO doc(x) VALUES('iota lambda {n}')",
        "DELETE FROM doc WHERE id % 5 = {n} % 5",
        "INSERT OR ROLLBACK INTO {f}(rowid, x) VALUES({n}, 'mu'), ({n}, 'nu')",
        "INSERT INTO doc(id, x) VALUES(1, 'xi'), (1, 'xi')",
        "INSERT INTO plain VALUES({n})",
        "SELECT count(*) FROM {f} WHERE {f} MATCH 'alpha'",
        "PRAGMA foreign_keys=ON",
    ];
    let statement = (0..TEXTS.len(), 0..30_i64, any::<bool>()).prop_map(|(at, n, five)| {
        let table = if five { "five" } else { "four" };
        sql(&TEXTS[at]
            .replace("{f}", table)
            .replace("{n}", &n.to_string()))
    });
    let one = (any::<bool>(), prop::collection::vec(statement, 1..5));
    let one =
        one.prop_map(|(transaction, statements)| request(Kind::Execute, transaction, statements));
    prop::collection::vec(one, 1..60)
}

const FULL_TEXT: &[&str] = &[
    "CREATE VIRTUAL TABLE five USING fts5(x)",
    "INSERT INTO five(five, rank) VALUES('pgsz', 64)",
    "CREATE TABLE doc(id INTEGER PRIMARY KEY, x)",
    "CREATE VIRTUAL TABLE of USING fts5(x, content = 'doc', content_rowid = 'id')",
    "CREATE TRIGGER ai AFTER INSERT ON doc BEGIN INSERT INTO of(rowid, x) VALUES(new.id, new.x); END",
    "CREATE TRIGGER ad AFTER DELETE ON doc BEGIN INSERT INTO of(of, rowid, x) VALUES('delete', old.id, old.x); END",
    "CREATE TABLE plain(x)",
];

/// The full content of the shadow tables, which a dump leaves out.
fn below(db: &Db) -> String {
    let tables = db.shown("SELECT name FROM pragma_table_list WHERE type = 'shadow' ORDER BY 1");
    let mut all = String::new();
    for table in tables.split('|').filter(|table| !table.is_empty()) {
        let rows = db.shown(&format!("SELECT * FROM {table} ORDER BY 1, 2"));
        all.push_str(&format!("{table}: {rows}\n"));
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn full_text_tables_do_not_depend_on_the_cut(
        requests in full_text_requests(), run in 2..40_usize, cut in 0..60_usize, four in any::<bool>(),
    ) {
        let prepare = || {
            let mut db = Db::new();
            for text in FULL_TEXT {
                db.must(text);
            }
            if four {
                db.must("CREATE VIRTUAL TABLE four USING fts4(x)");
            } else {
                db.must("CREATE TABLE four(x, four)");
            }
            db
        };
        let first = FULL_TEXT.len() as u64 + 2;
        let entries: Vec<Entry> =
            requests.into_iter().zip(first..).map(|(request, index)| entry(index, vec![request])).collect();
        let alone = prepare();
        let expected = apply(&alone, &entries, 1);
        let together = prepare();
        prop_assert_eq!(&apply(&together, &entries, run), &expected);
        prop_assert_eq!(below(&together), below(&alone));
        prop_assert_eq!(together.dump(), alone.dump());

        let mut restarted = prepare();
        let cut = cut.min(entries.len());
        apply(&restarted, &entries[..cut], 11);
        prop_assert!(!matches!(restarted.checkpoint(), Checkpoint::Busy(_)));
        restarted = restarted.restart();
        apply(&restarted, &entries[cut..], run);
        prop_assert_eq!(below(&restarted), below(&alone));
    }
}

#[test]
fn a_write_cannot_store_what_tells_about_the_node() {
    let mut db = Db::new();
    db.must("CREATE TABLE t(a)");
    db.must("CREATE TABLE d(a, v DEFAULT (sqlite_version()))");
    db.must("CREATE TABLE src(a)");
    db.must("CREATE VIEW v AS SELECT file AS a FROM pragma_database_list");
    db.must("CREATE TRIGGER g AFTER INSERT ON src BEGIN INSERT INTO t SELECT a FROM v; END");
    // `temp` holds an internal table once a request mentions `changes()`.
    db.must("INSERT INTO t SELECT changes()");
    db.must("DELETE FROM t");
    let refused =
        "a statement that writes cannot use a table or function that differs from node to node";
    let version =
        "a statement that writes cannot use sqlite_version(): it differs from node to node";
    let cases = [
        (
            "INSERT INTO t SELECT file FROM pragma_database_list",
            refused,
        ),
        (
            "INSERT INTO t SELECT * FROM pragma_compile_options",
            refused,
        ),
        (
            "INSERT INTO t SELECT page_count FROM pragma_page_count",
            refused,
        ),
        (
            "INSERT INTO t SELECT count(*) FROM pragma_freelist_count",
            refused,
        ),
        ("INSERT INTO t SELECT name FROM pragma_table_list", refused),
        ("INSERT INTO t SELECT a FROM v", refused),
        ("INSERT INTO src VALUES(1)", refused),
        (
            "UPDATE t SET a = (SELECT cache_size FROM pragma_cache_size)",
            refused,
        ),
        (
            "DELETE FROM t WHERE a IN (SELECT pageno FROM dbstat)",
            refused,
        ),
        (
            "CREATE TABLE u AS SELECT * FROM pragma_module_list",
            refused,
        ),
        ("INSERT INTO t SELECT name FROM sqlite_temp_schema", refused),
        ("INSERT INTO t VALUES(sqlite_compileoption_get(0))", refused),
        ("CREATE VIRTUAL TABLE st USING dbstat(main)", refused),
        ("INSERT INTO t VALUES(sqlite_version())", version),
        ("INSERT INTO d(a) VALUES(1)", version),
    ];
    for transaction in [false, true] {
        // Three times: the third time it would come from the statement cache.
        for (text, expected) in cases.iter().cycle().take(3 * cases.len()) {
            let outcome = db.request(Kind::Unified, transaction, vec![sql(text)]);
            assert_eq!(support::error(&outcome.results[0]), *expected, "{text}");
        }
    }
    assert_eq!(
        db.shown(
            "SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM src), (SELECT count(*) FROM d)"
        ),
        "0,0,0"
    );
    // A write may store what the database itself says, and reads may query anything, also beside writes.
    for text in [
        "INSERT INTO t SELECT name FROM pragma_table_info('t')",
        "INSERT INTO t SELECT user_version FROM pragma_user_version",
        "INSERT INTO t SELECT name FROM sqlite_schema",
        "SELECT sqlite_version(), sqlite_source_id(), (SELECT count(*) FROM pragma_database_list)",
        "SELECT count(*) FROM dbstat",
        "EXPLAIN INSERT INTO t SELECT file FROM pragma_database_list",
    ] {
        db.must(text);
    }
    // A cached statement is authorized again when a view that it reads has changed.
    db.must("CREATE VIEW later AS SELECT a FROM src");
    let insert = "INSERT INTO t SELECT a FROM later";
    for _ in 0..4 {
        db.must(insert);
    }
    db.must("DROP VIEW later; CREATE VIEW later AS SELECT file AS a FROM pragma_database_list");
    assert_eq!(support::error(&db.execute(insert)), refused);
    // An entry of the first format has its old effect.
    let mut old = request(
        Kind::Execute,
        false,
        vec![sql(
            "INSERT INTO t SELECT cache_size FROM pragma_cache_size",
        )],
    );
    old.rules = Rules::V1;
    assert_eq!(support::write(&db.apply(old).results[0]).1, 1);
}

/// The planner uses the statistics in memory. Those of a rolled-back ANALYZE must not stay there.
#[test]
fn statistics_of_an_undone_analyze_are_forgotten() {
    let fill = |db: &mut Db| {
        db.must("CREATE TABLE t(a, b, c)");
        db.must("CREATE INDEX ia ON t(a)");
        db.must("CREATE INDEX ib ON t(b)");
        db.must("INSERT INTO t SELECT 1, 1, 1");
        // The table of statistics already exists, so that an ANALYZE changes no schema.
        db.must("ANALYZE");
        db.must("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 2000) INSERT INTO t SELECT i, i % 2, i FROM n");
        db.must("UPDATE t SET a = 5 WHERE rowid > 1000");
        db.must("UPDATE t SET b = rowid");
    };
    let plan = |db: &mut Db| {
        let explain = sql("EXPLAIN QUERY PLAN SELECT c FROM t WHERE a = 5 AND b = 7");
        let outcome = db.request(Kind::Query, false, vec![explain]);
        format!("{:?}", rows(outcome.results[0].clone()).values)
    };
    for (transaction, texts) in [
        (true, vec!["ANALYZE", "nonsense"]),
        (false, vec!["ANALYZE; INSERT OR ROLLBACK INTO u VALUES(1)"]),
        (
            true,
            vec![
                "PRAGMA analysis_limit=0",
                "ANALYZE main.t",
                "INSERT INTO u VALUES(1)",
            ],
        ),
    ] {
        let mut db = Db::new();
        fill(&mut db);
        db.must("CREATE TABLE u(x PRIMARY KEY)");
        db.must("INSERT INTO u VALUES(1)");
        let before = plan(&mut db);
        // The same text again; it must not come from the cache.
        for _ in 0..3 {
            let statements = texts.iter().map(|text| sql(text)).collect();
            let outcome = db.request(Kind::Execute, transaction, statements);
            support::error(outcome.results.last().unwrap());
        }
        let after = plan(&mut db);
        let shown = db.shown("SELECT group_concat(stat) FROM sqlite_stat1");
        let restarted = plan(&mut db.restart_after_checkpoint());
        assert_eq!(after, restarted, "{texts:?}: {before}, {shown}");
    }
}
