//! SQLite's list of statements, alone, in transactions and without inspection of their text; its PRAGMAs; and
//! answers that follow schema changes.
use node_db::{Kind, Read};
use node_values::{Cell, StatementResult};

use crate::support::{Db, error, read, request, rows, sql, write};

/// Statements that must succeed in this order; each uses the ones before.
const STATEMENTS: &[&str] = &[
    "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE, b DEFAULT 0, c AS (a * 2) STORED, d AS (a + 1))",
    "CREATE TABLE IF NOT EXISTS t(x)",
    "CREATE TABLE w(k TEXT PRIMARY KEY, v ANY) STRICT, WITHOUT ROWID",
    "INSERT INTO t(a) VALUES(1), (2), (3)",
    "INSERT INTO t(a) VALUES(4) RETURNING *",
    "INSERT INTO t(a) VALUES(1) ON CONFLICT(a) DO UPDATE SET b = excluded.a + 10 WHERE b = 0 RETURNING id, b AS n",
    "INSERT INTO t(a) VALUES(1) ON CONFLICT DO NOTHING",
    "INSERT OR IGNORE INTO t(a) VALUES(1)",
    "REPLACE INTO t(id, a) VALUES(1, 1) RETURNING(id)",
    "INSERT INTO w VALUES('a', 1) ON CONFLICT(k) DO UPDATE SET v = v + 1",
    "WITH s(x) AS (VALUES(100), (101)) INSERT INTO t(a) SELECT x FROM s RETURNING a",
    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 5) INSERT INTO w SELECT 'k' || x, x FROM n",
    "WITH o AS MATERIALIZED (SELECT 1 AS x) UPDATE t SET b = o.x FROM o WHERE t.id = o.x RETURNING t.id",
    "UPDATE OR REPLACE t SET (a, b) = (SELECT 7, 8) WHERE id = 2 RETURNING\tid",
    "WITH o AS (SELECT 3 AS x) DELETE FROM t WHERE a IN (SELECT x FROM o) RETURNING c, d",
    "DELETE FROM t WHERE id > 1000",
    "CREATE TABLE copy AS SELECT * FROM t",
    "CREATE UNIQUE INDEX i ON t(a, b DESC) WHERE b IS NOT NULL",
    "CREATE INDEX ie ON t(abs(a) COLLATE NOCASE)",
    "REINDEX",
    "REINDEX t",
    "REINDEX nocase",
    "ANALYZE",
    "ANALYZE main.t",
    "CREATE VIEW v(x, y) AS SELECT a, b FROM t",
    "CREATE TRIGGER vi INSTEAD OF INSERT ON v BEGIN INSERT INTO t(a, b) VALUES(new.x, new.y); END",
    "CREATE TRIGGER vu INSTEAD OF UPDATE OF y ON v BEGIN UPDATE t SET b = new.y WHERE a = old.x; END",
    "CREATE TRIGGER vd INSTEAD OF DELETE ON v BEGIN DELETE FROM t WHERE a = old.x; END",
    "INSERT INTO v VALUES(50, 51)",
    "UPDATE v SET y = 52 WHERE x = 50",
    "DELETE FROM v WHERE x = 50",
    "CREATE TRIGGER IF NOT EXISTS tb BEFORE UPDATE ON t FOR EACH ROW WHEN new.b < 0 BEGIN SELECT RAISE(IGNORE); END",
    "UPDATE t SET b = -1",
    "SELECT a, row_number() OVER w, sum(a) FILTER (WHERE a > 1) OVER (ORDER BY a ROWS 1 PRECEDING) FROM t WINDOW w AS (ORDER BY a)",
    "SELECT * FROM t LEFT JOIN w ON t.a = w.v FULL OUTER JOIN copy USING (a) ORDER BY 1 NULLS LAST LIMIT 2 OFFSET 1",
    "SELECT a FROM t UNION SELECT v FROM w EXCEPT SELECT 1 INTERSECT SELECT 2",
    "VALUES(1, 'x'), (2, 'y')",
    "SELECT json('{a:1,}'), jsonb('[1]') -> 0, json_extract(jsonb_set('{}', '$.a', 1), '$.a'), '{\"a\":1}' ->> 'a'",
    "SELECT key, value FROM json_each('{\"a\":1}')",
    "SELECT iif(1, 2, 3), format('%d', 4), unixepoch('2000-01-01'), string_agg(a, ',' ORDER BY a) FROM t",
    "SELECT a IS DISTINCT FROM b, a GLOB '*', a LIKE 'x' ESCAPE '!' FROM t GROUP BY a HAVING count(*) > 0",
    "EXPLAIN SELECT * FROM t",
    "EXPLAIN QUERY PLAN SELECT * FROM t WHERE a = 1",
    "EXPLAIN INSERT INTO t(a) VALUES(1)",
    "EXPLAIN QUERY PLAN UPDATE t SET b = 1 WHERE a = 1",
    "EXPLAIN CREATE TABLE zz(x)",
    "EXPLAIN DROP TABLE t",
    "EXPLAIN ALTER TABLE t RENAME TO zz",
    "EXPLAIN PRAGMA table_info(t)",
    "EXPLAIN VACUUM",
    "CREATE VIRTUAL TABLE f USING fts5(title, body, tokenize = 'porter', content = '', contentless_delete = 1)",
    "INSERT INTO f(rowid, title, body) VALUES(1, 'running', 'far')",
    "SELECT rowid, rank FROM f('run')",
    "INSERT INTO f(f) VALUES('optimize')",
    "CREATE VIRTUAL TABLE fv USING fts5vocab(f, 'row')",
    "SELECT term, doc FROM fv",
    "DROP TABLE fv",
    "DROP TABLE f",
    "CREATE VIRTUAL TABLE f4 USING fts4(x)",
    "INSERT INTO f4 VALUES('one two')",
    "SELECT snippet(f4) FROM f4 WHERE f4 MATCH 'two'",
    "DROP TABLE f4",
    "CREATE VIRTUAL TABLE r USING rtree(id, x0, x1, +note)",
    "INSERT INTO r VALUES(1, 0, 10, 'n')",
    "SELECT * FROM r WHERE x0 < 5",
    "DROP TABLE r",
    "CREATE VIRTUAL TABLE g USING geopoly(name)",
    "INSERT INTO g(name, _shape) VALUES('x', '[[0,0],[1,0],[1,1],[0,0]]')",
    "SELECT geopoly_area(_shape) FROM g",
    "DROP TABLE g",
    "SELECT name FROM pragma_table_info('t')",
    "SELECT name FROM pragma_table_list WHERE schema = 'main'",
    "SELECT count(*) FROM dbstat",
    "SELECT sqlite_version()",
    "DROP TRIGGER vi",
    "DROP VIEW v",
    "DROP INDEX IF EXISTS ie",
    "DROP TABLE IF EXISTS nope",
    "DROP TABLE copy",
];

const KINDS: [Kind; 4] = [
    Kind::Execute,
    Kind::Unified,
    Kind::ExecutePlain,
    Kind::UnifiedPlain,
];

#[test]
fn sqlites_statements() {
    let mut dumps = Vec::new();
    for kind in KINDS {
        let mut db = Db::new();
        for text in STATEMENTS {
            let outcome = db.request(kind, false, vec![sql(text)]);
            assert!(
                !matches!(outcome.results[0], StatementResult::Error(_)),
                "{text}: {outcome:?}"
            );
        }
        dumps.push(db.dump());
        let mut db = Db::new();
        let outcome = db.request(
            kind,
            true,
            STATEMENTS.iter().map(|text| sql(text)).collect(),
        );
        assert_eq!(outcome.error, None);
        for (result, text) in outcome.results.iter().zip(STATEMENTS) {
            assert!(
                !matches!(result, StatementResult::Error(_)),
                "{text}: {result:?}"
            );
        }
        dumps.push(db.dump());
    }
    assert!(dumps.iter().all(|dump| dump == &dumps[0]));
}

#[test]
fn readers_answer_every_statement_that_reads() {
    let mut db = Db::new();
    let mut seen = 0;
    for text in STATEMENTS {
        let reads = ["SELECT", "VALUES", "EXPLAIN"]
            .iter()
            .any(|word| text.starts_with(word));
        if reads {
            let result = db.read(vec![sql(text)]).results.remove(0);
            // The same as through the log.
            let logged = db
                .request(Kind::Query, false, vec![sql(text)])
                .results
                .remove(0);
            if text.contains("dbstat") || text.starts_with("EXPLAIN ") {
                assert_eq!(rows(result).columns, rows(logged).columns, "{text}");
            } else {
                assert_eq!(rows(result), rows(logged), "{text}");
            }
            seen += 1;
        } else {
            db.must(text);
        }
    }
    assert!(seen > 25);
}

/// Each PRAGMA of SQLite: the reading form's first value if any, and what the form with the value `1` gives
/// to a query, to a request (both as the number of columns, or an error) and as part of a script.
const PRAGMAS: &[(&str, &str)] = &[
    ("analysis_limit", "1"),
    ("application_id", "write"),
    ("auto_vacuum", "0"),
    ("automatic_index", "0"),
    ("busy_timeout", "1"),
    ("cache_size", "0"),
    ("cache_spill", "0"),
    ("case_sensitive_like", "0"),
    ("cell_size_check", "0"),
    ("checkpoint_fullfsync", "0"),
    ("collation_list", "2"),
    ("compile_options", "1"),
    ("count_changes", "0"),
    ("data_store_directory", "disallowed"),
    ("data_version", "1"),
    ("database_list", "3"),
    ("default_cache_size", "0"),
    ("defer_foreign_keys", "0"),
    ("empty_result_callbacks", "0"),
    ("encoding", "0"),
    ("foreign_key_list", "8"),
    ("foreign_keys", "0"),
    ("freelist_count", "1"),
    ("full_column_names", "0"),
    ("fullfsync", "0"),
    ("function_list", "6"),
    ("hard_heap_limit", "1"),
    ("ignore_check_constraints", "0"),
    ("index_info", "3"),
    ("index_list", "5"),
    ("index_xinfo", "6"),
    ("integrity_check", "1"),
    ("journal_mode", "disallowed"),
    ("journal_size_limit", "1"),
    ("legacy_alter_table", "0"),
    ("locking_mode", "1"),
    ("max_page_count", "1"),
    ("mmap_size", "1"),
    ("module_list", "1"),
    ("no_such_pragma", "0"),
    ("page_count", "1"),
    ("page_size", "0"),
    ("pragma_list", "1"),
    ("query_only", "disallowed"),
    ("quick_check", "1"),
    ("read_uncommitted", "0"),
    ("recursive_triggers", "0"),
    ("reverse_unordered_selects", "0"),
    ("schema_version", "disallowed"),
    ("secure_delete", "1"),
    ("short_column_names", "0"),
    ("shrink_memory", "0"),
    ("soft_heap_limit", "1"),
    ("synchronous", "disallowed"),
    ("table_info", "6"),
    ("table_list", "6"),
    ("table_xinfo", "7"),
    ("temp_store", "0"),
    ("temp_store_directory", "disallowed"),
    ("threads", "1"),
    ("trusted_schema", "0"),
    ("user_version", "write"),
    ("wal_autocheckpoint", "disallowed"),
    ("wal_checkpoint", "disallowed"),
    ("writable_schema", "disallowed"),
];

fn columns(result: &StatementResult) -> String {
    match result {
        StatementResult::Rows(rows) => rows.columns.len().to_string(),
        StatementResult::Write(_) => "counters".to_owned(),
        StatementResult::Error(text) => text.clone(),
    }
}

#[test]
fn pragmas_with_a_value() {
    let settings = "SELECT (SELECT * FROM pragma_busy_timeout), (SELECT * FROM pragma_cache_size), \
        (SELECT * FROM pragma_foreign_keys), (SELECT * FROM pragma_locking_mode), \
        (SELECT * FROM pragma_page_size), (SELECT * FROM pragma_max_page_count), (SELECT * FROM pragma_threads), \
        (SELECT * FROM pragma_recursive_triggers), (SELECT * FROM pragma_temp_store), 'A' LIKE 'a'";
    let mut db = Db::new();
    db.must("CREATE TABLE x(a)");
    let mut inserted = 0;
    let before = (db.shown(settings), through_log(&mut db, settings));
    for (name, expected) in PRAGMAS {
        for text in [
            format!("PRAGMA {name}=1"),
            format!("pragma main.{name} ( 1 ) ;"),
        ] {
            let query = db.read(vec![sql(&text)]);
            let inline = db
                .db
                .read_inline(&read(vec![sql(&text)]), 1_000_000)
                .unwrap();
            let unified = db.request(Kind::Unified, false, vec![sql(&text)]);
            let strong = db.request(Kind::Query, false, vec![sql(&text)]);
            let script = db.request(
                Kind::Execute,
                false,
                vec![sql(&text), sql("INSERT INTO x VALUES(1)")],
            );
            let one_text = db.request(
                Kind::Execute,
                false,
                vec![sql(&format!("{text}; INSERT INTO x VALUES(1)"))],
            );
            if *expected == "disallowed" {
                for outcome in [query, inline, unified, strong, script, one_text] {
                    assert_eq!(
                        outcome.error.as_deref(),
                        Some("disallowed pragma"),
                        "{text}"
                    );
                }
                continue;
            }
            inserted += 2;
            assert_eq!(write(&script.results[1]), (inserted - 1, 1), "{text}");
            assert_eq!(write(&one_text.results[0]), (inserted, 1), "{text}");
            assert!(
                matches!(script.results[0], StatementResult::Write(_)),
                "{text}"
            );
            if *expected == "write" {
                for outcome in [query, inline, strong] {
                    assert_eq!(
                        error(&outcome.results[0]),
                        "attempt to change database via query operation"
                    );
                }
                continue;
            }
            for outcome in [query, inline, unified, strong] {
                assert_eq!(columns(&outcome.results[0]), *expected, "{text}");
            }
            // No effect outlives the request, and harmful ones do not occur at all.
            assert_eq!(db.shown(settings), before.0, "{text}");
            assert_eq!(through_log(&mut db, settings), before.1, "{text}");
        }
    }
    assert_eq!(db.shown("SELECT count(*) FROM x"), inserted.to_string());
    // The value of disallowed ones can be read.
    for (name, value) in [
        ("journal_mode", "wal"),
        ("synchronous", "0"),
        ("query_only", "1"),
        ("writable_schema", "0"),
    ] {
        assert_eq!(db.shown(&format!("PRAGMA {name}")), value, "{name}");
        if name != "query_only" {
            let logged = through_log(&mut db, &format!("PRAGMA {name};"));
            assert_eq!(
                logged[0][0].clone(),
                db.query(&format!("PRAGMA {name}"))[0][0],
                "{name}"
            );
        }
    }
}

fn through_log(db: &mut Db, text: &str) -> Vec<Vec<Cell>> {
    rows(
        db.request(Kind::Query, false, vec![sql(text)])
            .results
            .remove(0),
    )
    .values
}

#[test]
fn pragmas_hold_for_the_rest_of_their_request() {
    let mut db = Db::new();
    db.must("CREATE TABLE p(id INTEGER PRIMARY KEY)");
    let texts = [
        "PRAGMA case_sensitive_like=ON",
        "SELECT 'A' LIKE 'a'",
        "PRAGMA foreign_keys=ON",
        "PRAGMA foreign_keys",
    ];
    let statements = || texts.iter().map(|text| sql(text)).collect::<Vec<_>>();
    for _ in 0..3 {
        let outcomes = [
            db.read(statements()),
            db.request(Kind::Query, false, statements()),
        ];
        for outcome in outcomes {
            assert_eq!(
                rows(outcome.results[1].clone()).values,
                [[Cell::Integer(0)]]
            );
            assert_eq!(
                rows(outcome.results[3].clone()).values,
                [[Cell::Integer(1)]]
            );
        }
        assert_eq!(db.shown("SELECT 'A' LIKE 'a'"), "1");
        assert_eq!(db.shown("PRAGMA foreign_keys"), "0");
    }
    // A PRAGMA alone, immediately followed by a checkpoint and by reads on both kinds of reader.
    for _ in 0..5 {
        db.read(vec![sql("PRAGMA reverse_unordered_selects=1")]);
        db.must("INSERT INTO p DEFAULT VALUES");
        db.checkpoint();
        assert_eq!(db.shown("PRAGMA reverse_unordered_selects"), "0");
    }
}

/// A text must give the same result as when it runs for the first time.
#[test]
fn answers_follow_the_schema() {
    let texts = [
        "EXPLAIN QUERY PLAN SELECT * FROM t WHERE a = 1",
        "EXPLAIN QUERY PLAN INSERT INTO t(a) SELECT a FROM t WHERE a = 1",
        "SELECT * FROM t",
        "SELECT * FROM v",
        "SELECT a FROM t",
        "SELECT * FROM t WHERE a = 99",
        "PRAGMA table_info(t)",
        "PRAGMA table_xinfo(v)",
        "PRAGMA index_list(t)",
        "PRAGMA index_info(i)",
        "PRAGMA foreign_key_list(t)",
        "PRAGMA table_list",
        "SELECT * FROM pragma_table_info('t')",
        "SELECT name FROM pragma_index_list('t')",
        "SELECT type, name, sql FROM sqlite_schema",
        "-- a comment\nPRAGMA table_info(t)",
        "SELECT 1; PRAGMA table_info(t)",
    ];
    let changes = [
        "INSERT INTO t(a) VALUES(1), (2)",
        "CREATE INDEX i ON t(a)",
        "ALTER TABLE t ADD COLUMN b DATE DEFAULT 0",
        "ALTER TABLE t RENAME COLUMN a TO aa; ALTER TABLE t RENAME COLUMN aa TO a",
        "DROP INDEX i",
        "CREATE INDEX i ON t(b, a)",
        "ALTER TABLE t ADD COLUMN p REFERENCES t(a)",
        "DROP INDEX i; ALTER TABLE t DROP COLUMN b; CREATE UNIQUE INDEX i ON t(a)",
        "DROP TABLE t; CREATE TABLE t(z BOOLEAN, a TEXT)",
        "INSERT INTO t VALUES(1, 1)",
        "ANALYZE",
    ];
    let mut db = Db::new();
    db.must("CREATE TABLE t(a)");
    db.must("CREATE VIEW v AS SELECT * FROM t");
    let look = |db: &mut Db, fresh: bool| -> Vec<String> {
        let mut answers = Vec::new();
        for qualify_columns in [false, true] {
            for text in texts {
                // A new text is in no cache.
                let text = if fresh {
                    format!("{text} -- {}", answers.len())
                } else {
                    text.to_owned()
                };
                let read = Read {
                    qualify_columns,
                    ..read(vec![sql(&text)])
                };
                let mut logged = request(Kind::Query, false, vec![sql(&text)]);
                logged.qualify_columns = qualify_columns;
                let outcomes = [
                    db.db.read(read.clone()).blocking_recv().unwrap(),
                    db.db
                        .read_inline(&read, 1_000_000)
                        .unwrap_or_else(|| db.db.read(read).blocking_recv().unwrap()),
                    db.apply(logged),
                ];
                let outcomes = outcomes.map(crate::support::timeless);
                assert_eq!(outcomes[0].results.len(), 1);
                answers.push(
                    format!("{text}: {outcomes:?}").replace(&format!(" -- {}", answers.len()), ""),
                );
            }
        }
        answers
    };
    for change in changes {
        for _ in 0..3 {
            look(&mut db, false);
        }
        db.must(change);
        let first = look(&mut db, false);
        db = db.restart_after_checkpoint();
        for (held, fresh) in first.iter().zip(look(&mut db, true)) {
            assert_eq!(held, &fresh, "after {change}");
        }
    }
    assert!(
        db.shown("EXPLAIN QUERY PLAN SELECT * FROM t WHERE a = 1")
            .contains("SCAN")
    );
    db.must("CREATE INDEX j ON t(a)");
    assert!(
        db.shown("EXPLAIN QUERY PLAN SELECT * FROM t WHERE a = 1")
            .contains("USING INDEX j")
    );
}
