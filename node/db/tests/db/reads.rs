//! Reads on reader threads and on the caller's thread.
use std::time::Duration;

use node_db::Kind;
use node_values::{Cell, Value};

use crate::support::{Db, error, read, rows, sql, with};

const ENDLESS: &str =
    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n) SELECT count(*) FROM n";

#[test]
fn reads_cannot_write() {
    let mut db = Db::new();
    db.must("CREATE TABLE t(a)");
    let cases = [
        (
            "INSERT INTO t VALUES(1)",
            "attempt to change database via query operation",
        ),
        (
            "DELETE FROM t RETURNING a",
            "attempt to change database via query operation",
        ),
        (
            "CREATE TABLE u(a)",
            "attempt to change database via query operation",
        ),
        (
            "SELECT 1; DROP TABLE t",
            "attempt to change database via query operation",
        ),
        (
            "PRAGMA user_version=5",
            "attempt to change database via query operation",
        ),
        ("VACUUM", "attempt to change database via query operation"),
        (
            "BEGIN",
            "BEGIN and SAVEPOINT are not allowed, use the transaction parameter of the request",
        ),
        (
            "ATTACH 'x' AS x",
            "ATTACH and DETACH are not allowed, load the other database's tables with /db/load",
        ),
        ("SELECT load_extension('x')", "not authorized"),
        ("SELECT x", "no such column: x"),
    ];
    for (text, expected) in cases {
        let outcome = db.read(vec![sql(text), sql("SELECT 1")]);
        assert_eq!(error(&outcome.results[0]), expected, "{text}");
        assert_eq!(
            rows(outcome.results[1].clone()).values,
            [[Cell::Integer(1)]]
        );
    }
    assert!(
        !rows(
            db.read(vec![sql("EXPLAIN INSERT INTO t VALUES(1)")])
                .results
                .remove(0)
        )
        .values
        .is_empty()
    );
}

#[test]
fn a_late_read_times_out_and_the_next_one_does_not() {
    let db = Db::new();
    let mut late = read(vec![sql("SELECT 1"), sql(ENDLESS), sql("SELECT 2")]);
    late.timeout = Some(Duration::from_millis(50));
    for transaction in [false, true] {
        late.transaction = transaction;
        let outcome = db.db.read(late.clone()).blocking_recv().unwrap();
        assert_eq!(
            rows(outcome.results[0].clone()).values,
            [[Cell::Integer(1)]]
        );
        assert_eq!(error(&outcome.results[1]), "query timeout");
        assert_eq!(error(&outcome.results[2]), "query timeout");
    }
    late.timeout = Some(Duration::ZERO);
    assert_eq!(
        db.db.read(late).blocking_recv().unwrap().error.as_deref(),
        Some("context deadline exceeded")
    );
    assert_eq!(db.shown("SELECT 1"), "1");
}

#[test]
fn inline_reads_give_up_when_long() {
    let mut db = Db::new();
    db.must("CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
    db.must("INSERT INTO t VALUES(1, 'x')");
    let point = read(vec![with(
        "SELECT a FROM t WHERE id = ?",
        &[Value::Integer(1)],
    )]);
    for _ in 0..5000 {
        let outcome = db.db.read_inline(&point, 2000).unwrap();
        assert_eq!(
            rows(outcome.results[0].clone()).values,
            [[Cell::Text("x".into())]]
        );
    }
    assert!(db.db.read_inline(&read(vec![sql(ENDLESS)]), 2000).is_none());
    assert!(
        db.db
            .read_inline(&read(vec![sql("SELECT 1"), sql("SELECT 2")]), 2000)
            .is_none()
    );
    assert!(
        db.db
            .read_inline(&read(vec![sql("SELECT 1; SELECT 2")]), 2000)
            .is_none()
    );
    assert!(db.db.read_inline(&point, 2000).is_some());
    let write = db
        .db
        .read_inline(&read(vec![sql("DELETE FROM t")]), 2000)
        .unwrap();
    assert_eq!(
        error(&write.results[0]),
        "attempt to change database via query operation"
    );
}

#[test]
fn a_changed_schema_reaches_cached_statements() {
    let mut db = Db::new();
    db.must("CREATE TABLE t(a)");
    db.must("INSERT INTO t VALUES(1)");
    assert_eq!(db.shown("SELECT * FROM t"), "1");
    let one = read(vec![sql("SELECT * FROM t")]);
    assert!(db.db.read_inline(&one, 2000).is_some());
    db.must("ALTER TABLE t ADD COLUMN b DEFAULT 2");
    let found = rows(db.read(vec![sql("SELECT * FROM t")]).results.remove(0));
    assert_eq!(
        (found.columns.len(), found.values),
        (2, vec![vec![Cell::Integer(1), Cell::Integer(2)]])
    );
    assert_eq!(
        rows(db.db.read_inline(&one, 2000).unwrap().results[0].clone())
            .columns
            .len(),
        2
    );
    let outcome = db.request(Kind::Query, false, vec![sql("SELECT * FROM t")]);
    assert_eq!(rows(outcome.results[0].clone()).columns.len(), 2);
}

#[test]
fn read_only_by_text() {
    let mut db = Db::new();
    db.must("CREATE TABLE t(a)");
    let cases = [
        ("SELECT 1", true),
        ("WITH x AS (SELECT 1) SELECT * FROM x", true),
        ("WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x", false),
        ("WITH x AS (SELECT 1) SELECT * FROM missing", false),
        ("INSERT INTO t VALUES(1)", false),
        ("EXPLAIN DELETE FROM t", true),
        ("PRAGMA table_info(t)", true),
        ("PRAGMA foreign_keys=1", true),
        ("PRAGMA user_version=1", false),
        ("SELECT 1; DELETE FROM t", true),
        ("nonsense", false),
        ("", false),
    ];
    let statements: Vec<_> = cases.iter().map(|(text, _)| sql(text)).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let answers = runtime.block_on(db.db.read_only(&statements));
    for ((text, expected), answer) in cases.into_iter().zip(answers) {
        assert_eq!(answer, expected, "{text}");
    }
}

#[test]
fn readers_see_what_was_applied_and_real_time() {
    let mut db = Db::new();
    db.must("CREATE TABLE t(a DEFAULT CURRENT_TIMESTAMP)");
    db.must("INSERT INTO t DEFAULT VALUES");
    assert_eq!(db.shown("SELECT a FROM t"), "2023-11-14 22:13:20");
    assert_eq!(db.shown("SELECT CURRENT_TIMESTAMP > '2024'"), "1");
    let random = db.shown("SELECT random()");
    assert_ne!(random, db.shown("SELECT random()"));
}
