//! Schema changes: everything in SQLite's documentation of ALTER TABLE, alone, in requests and in
//! transactions.
use node_db::{Kind, Rules};
use node_values::StatementResult;

use crate::support::{Db, error, request, rows, sql};

/// Statements, a query, and the result of the query after them.
type Case = (&'static [&'static str], &'static str, &'static str);

const CASES: &[Case] = &[
    (
        &[
            "CREATE TABLE t(a, b)",
            "INSERT INTO t VALUES(1, 2)",
            "ALTER TABLE t RENAME TO u",
        ],
        "SELECT a, b, (SELECT sql FROM sqlite_schema) FROM u",
        "1,2,CREATE TABLE \"u\"(a, b)",
    ),
    (
        &[
            "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, a)",
            "INSERT INTO t(a) VALUES(5)",
            "CREATE INDEX i ON t(a) WHERE a > 0",
            "CREATE VIEW v AS SELECT t.a AS x FROM t",
            "CREATE TABLE log(x)",
            "CREATE TRIGGER g AFTER INSERT ON t BEGIN INSERT INTO log SELECT max(a) FROM t; END",
            "CREATE TABLE child(p REFERENCES t(id))",
            "ALTER TABLE t RENAME TO \"odd \"\"name\"",
            "INSERT INTO \"odd \"\"name\"(a) VALUES(6)",
        ],
        "SELECT (SELECT group_concat(x) FROM v), (SELECT x FROM log), (SELECT seq FROM sqlite_sequence), \
         (SELECT \"table\" FROM pragma_foreign_key_list('child')), (SELECT tbl_name FROM sqlite_schema WHERE name = 'i')",
        "5,6,6,2,odd \"name,odd \"name",
    ),
    (
        &[
            "CREATE TABLE t(a PRIMARY KEY, b UNIQUE, c AS (a || b) STORED, CHECK(b > 0))",
            "CREATE INDEX i ON t(b, c)",
            "CREATE VIEW v AS SELECT b FROM t",
            "CREATE TABLE log(x)",
            "CREATE TRIGGER g AFTER UPDATE OF b ON t WHEN new.b > 1 BEGIN INSERT INTO log VALUES(new.b); END",
            "INSERT INTO t(a, b) VALUES(1, 1)",
            "ALTER TABLE t RENAME COLUMN b TO \"new b\"",
            "UPDATE t SET \"new b\" = 7",
            "ALTER TABLE t RENAME a TO z",
        ],
        "SELECT z, \"new b\", c, (SELECT x FROM log), (SELECT \"new b\" FROM v) FROM t",
        "1,7,17,7,7",
    ),
    (
        &[
            "CREATE TABLE p(id INTEGER PRIMARY KEY)",
            "CREATE TABLE c(p REFERENCES p(id))",
            "ALTER TABLE p RENAME COLUMN id TO key",
        ],
        "SELECT \"to\" FROM pragma_foreign_key_list('c')",
        "key",
    ),
    (
        &[
            "CREATE TABLE t(a, b, c)",
            "INSERT INTO t VALUES(1, 2, 3)",
            "ALTER TABLE t DROP COLUMN b",
            "ALTER TABLE t DROP c",
        ],
        "SELECT * FROM t",
        "1",
    ),
    (
        &[
            "CREATE TABLE t(a INT, b TEXT, PRIMARY KEY(a)) STRICT, WITHOUT ROWID",
            "INSERT INTO t VALUES(1, 'x')",
            "ALTER TABLE t ADD COLUMN d REAL NOT NULL DEFAULT 1.5",
            "ALTER TABLE t ADD COLUMN g ANY AS (a + d) VIRTUAL",
            "ALTER TABLE t RENAME COLUMN b TO e",
            "ALTER TABLE t RENAME TO s",
            "ALTER TABLE s DROP COLUMN e",
        ],
        "SELECT a, d, g FROM s",
        "1,1.5,2.5",
    ),
    (
        &[
            "CREATE VIRTUAL TABLE t USING fts5(a)",
            "INSERT INTO t VALUES('hello world')",
            "ALTER TABLE t RENAME TO u",
            "INSERT INTO u VALUES('hello again')",
            "CREATE VIRTUAL TABLE r USING rtree(id, x0, x1)",
            "INSERT INTO r VALUES(1, 0, 1)",
            "ALTER TABLE r RENAME TO r2",
            "CREATE VIRTUAL TABLE f USING fts4(a)",
            "INSERT INTO f VALUES('one two')",
            "ALTER TABLE f RENAME TO f2",
        ],
        "SELECT (SELECT count(*) FROM u WHERE u MATCH 'hello'), (SELECT count(*) FROM r2), (SELECT count(*) FROM f2 WHERE f2 MATCH 'two')",
        "2,1,1",
    ),
    (
        &[
            "CREATE TABLE t(a, b)",
            "INSERT INTO t VALUES(1, 2)",
            "ALTER TABLE t ALTER COLUMN a SET NOT NULL",
            "ALTER TABLE t ADD CONSTRAINT positive CHECK (b > 0)",
            "ALTER TABLE t ADD CHECK (a < 9)",
        ],
        "SELECT sql FROM sqlite_schema",
        "CREATE TABLE t(a NOT NULL, b, CONSTRAINT positive CHECK (b > 0), CHECK (a < 9))",
    ),
    (
        &[
            "CREATE TABLE t(a NOT NULL, b, CONSTRAINT positive CHECK (b > 0))",
            "ALTER TABLE t ALTER a DROP NOT NULL",
            "ALTER TABLE t DROP CONSTRAINT positive",
        ],
        "SELECT sql FROM sqlite_schema",
        "CREATE TABLE t(a, b)",
    ),
];

const KINDS: [Kind; 4] = [
    Kind::Execute,
    Kind::Unified,
    Kind::ExecutePlain,
    Kind::UnifiedPlain,
];

/// A statement that changes the schema never returns columns.
fn assert_done(result: &StatementResult, text: &str) {
    assert!(
        matches!(result, StatementResult::Write(_)),
        "{text}: {result:?}"
    );
}

#[test]
fn alter_table() {
    for (texts, query, expected) in CASES {
        for kind in KINDS {
            for foreign_keys in [false, true] {
                let new = || {
                    if foreign_keys {
                        Db::with_foreign_keys()
                    } else {
                        Db::new()
                    }
                };
                let statements = || texts.iter().map(|text| sql(text)).collect::<Vec<_>>();
                let mut alone = new();
                for text in *texts {
                    let outcome = alone.request(kind, false, vec![sql(text)]);
                    assert_done(&outcome.results[0], text);
                }
                assert_eq!(&alone.shown(query), expected, "{texts:?}");
                for transaction in [false, true] {
                    let mut together = new();
                    let outcome = together.request(kind, transaction, statements());
                    assert_eq!(outcome.error, None);
                    for (result, text) in outcome.results.iter().zip(*texts) {
                        assert_done(result, text);
                    }
                    assert_eq!(outcome.results.len(), texts.len());
                    assert_eq!(&together.shown(query), expected, "{texts:?} {transaction}");
                    assert_eq!(together.shown("PRAGMA integrity_check"), "ok");
                }
                let mut script = new();
                script.must(&texts.join(";\n"));
                assert_eq!(&script.shown(query), expected, "{texts:?}");
                assert_eq!(
                    &script.restart_after_checkpoint().shown(query),
                    expected,
                    "{texts:?}"
                );
            }
        }
    }
}

#[test]
fn alter_table_that_cannot_be_done_changes_nothing() {
    let mut db = Db::new();
    db.must("CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE, b)");
    db.must("CREATE TABLE u(x)");
    db.must("CREATE VIEW v AS SELECT b FROM t");
    db.must("INSERT INTO t VALUES(1, 1, NULL)");
    let before = db.dump();
    let cases = [
        (
            "ALTER TABLE t RENAME TO u",
            "there is already another table or index with this name: u",
        ),
        ("ALTER TABLE nope RENAME TO w", "no such table: nope"),
        ("ALTER TABLE v RENAME TO w", "view v may not be altered"),
        (
            "ALTER TABLE t RENAME COLUMN nope TO w",
            "no such column: \"nope\"",
        ),
        (
            "ALTER TABLE t DROP COLUMN id",
            "cannot drop PRIMARY KEY column: \"id\"",
        ),
        (
            "ALTER TABLE t DROP COLUMN a",
            "cannot drop UNIQUE column: \"a\"",
        ),
        (
            "ALTER TABLE t DROP COLUMN b",
            "error in view v after drop column: no such column: b",
        ),
        (
            "ALTER TABLE sqlite_schema RENAME TO w",
            "table sqlite_master may not be altered",
        ),
        ("ALTER TABLE t ALTER b SET NOT NULL", "constraint failed"),
        ("ALTER TABLE t ADD CHECK (a > 5)", "constraint failed"),
        (
            "ALTER TABLE t ADD COLUMN n NOT NULL",
            "Cannot add a NOT NULL column with default value NULL",
        ),
        ("ALTER TABLE temp.t RENAME TO w", "no such table: temp.t"),
        (
            "UPDATE sqlite_temp_schema SET sql = ''",
            "table sqlite_temp_master may not be modified",
        ),
    ];
    for transaction in [false, true] {
        for (text, expected) in cases {
            let outcome = db.request(
                Kind::Execute,
                transaction,
                vec![
                    sql("INSERT INTO u VALUES(1)"),
                    sql("DELETE FROM u"),
                    sql(text),
                ],
            );
            assert_eq!(error(&outcome.results[2]), expected, "{text}");
        }
    }
    assert_eq!(db.dump(), before);
}

/// https://sqlite.org/lang_altertable.html#otheralter, in one request with the transaction inside it.
#[test]
fn other_changes_by_the_documented_procedure() {
    let mut db = Db::with_foreign_keys();
    db.must("CREATE TABLE x(id INTEGER PRIMARY KEY, a TEXT, old)");
    db.must("CREATE TABLE child(x REFERENCES x(id) ON DELETE CASCADE)");
    db.must("CREATE INDEX i ON x(a)");
    db.must("CREATE VIEW v AS SELECT a FROM x");
    db.must("INSERT INTO x VALUES(1, 'one', 1), (2, 'two', 2)");
    db.must("INSERT INTO child VALUES(1), (2)");
    let steps = [
        "PRAGMA foreign_keys=OFF",
        "PRAGMA legacy_alter_table=ON",
        "CREATE TABLE new_x(id INTEGER PRIMARY KEY, a TEXT NOT NULL CHECK (a <> ''))",
        "INSERT INTO new_x SELECT id, a FROM x",
        "DROP TABLE x",
        "ALTER TABLE new_x RENAME TO x",
        "CREATE INDEX i ON x(a)",
        "PRAGMA foreign_key_check",
        "PRAGMA foreign_keys=ON",
    ];
    // `PRAGMA foreign_keys` has no effect inside a transaction, so the request is not one.
    let outcome = db.request(
        Kind::Unified,
        false,
        steps.iter().map(|text| sql(text)).collect(),
    );
    for (result, text) in outcome.results.iter().zip(steps) {
        assert!(
            !matches!(result, StatementResult::Error(_)),
            "{text}: {result:?}"
        );
    }
    assert_eq!(rows(outcome.results[7].clone()).values.len(), 0);
    assert_eq!(
        db.shown("SELECT (SELECT group_concat(a) FROM v), (SELECT count(*) FROM child)"),
        "one,two,2"
    );
    assert_eq!(
        error(&db.execute("INSERT INTO child VALUES(3)")),
        "FOREIGN KEY constraint failed"
    );

    // In a transaction: with deferred constraints, and with the legacy meaning of RENAME.
    let steps = [
        "PRAGMA defer_foreign_keys=ON",
        "PRAGMA legacy_alter_table=ON",
        "CREATE TABLE new_x(id INTEGER PRIMARY KEY, a TEXT, n INT DEFAULT 3)",
        "INSERT INTO new_x(id, a) SELECT id, a FROM x",
        "ALTER TABLE x RENAME TO old_x",
        "ALTER TABLE new_x RENAME TO x",
        "DROP VIEW v",
        "CREATE VIEW v AS SELECT n FROM x",
        "PRAGMA legacy_alter_table=OFF",
    ];
    let outcome = db.request(
        Kind::Execute,
        true,
        steps.iter().map(|text| sql(text)).collect(),
    );
    assert_eq!(outcome.error, None);
    for (result, text) in outcome.results.iter().zip(steps) {
        assert_done(result, text);
    }
    assert_eq!(db.shown("SELECT group_concat(n) FROM v"), "3,3");
}

#[test]
fn entries_of_the_first_format_keep_their_refusals() {
    let mut db = Db::new();
    db.must("CREATE TABLE t(a, b)");
    let temporary =
        "temporary tables, views, triggers and indexes are not allowed, use lasting ones";
    // Twice each: a statement prepared under one format's rules is not reused under the other's.
    for _ in 0..2 {
        for text in ["ALTER TABLE t RENAME TO u", "ALTER TABLE t DROP COLUMN b"] {
            for _ in 0..3 {
                let mut old = request(Kind::Execute, false, vec![sql(text)]);
                old.rules = Rules::V1;
                assert_eq!(error(&db.apply(old).results[0]), temporary, "{text}");
            }
        }
        db.must("ALTER TABLE t RENAME TO u");
        db.must("ALTER TABLE u RENAME TO t");
    }
    let mut old = request(
        Kind::Execute,
        false,
        vec![
            sql("PRAGMA busy_timeout=5000"),
            sql("INSERT INTO t VALUES(1, 2)"),
        ],
    );
    old.rules = Rules::V1;
    assert_eq!(db.apply(old).error.as_deref(), Some("disallowed pragma"));
}
