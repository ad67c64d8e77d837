//! The result of each statement, by the rules of the three kinds of request.
use node_db::Kind;
use node_values::{Cell, StatementResult, Value};

use crate::support::{Db, error, named, request, rows, sql, with, write};

fn table() -> Db {
    let mut db = Db::new();
    db.must("CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)");
    db
}

#[test]
fn counters() {
    let mut db = Db::new();
    let cases = [
        ("CREATE TABLE t(id INTEGER PRIMARY KEY, a)", (0, 0)),
        ("INSERT INTO t(a) VALUES(1)", (1, 1)),
        ("INSERT INTO t(a) VALUES(2),(3)", (3, 2)),
        // A request does not see the counters of the one before it.
        ("CREATE TABLE u(x)", (0, 0)),
        ("UPDATE t SET a = 5", (0, 3)),
        ("UPDATE t SET a = 6 WHERE id = 99", (0, 0)),
        ("DELETE FROM t", (0, 3)),
        ("SELECT 1", (0, 0)),
        ("EXPLAIN INSERT INTO t(a) VALUES(1)", (0, 0)),
        ("", (-1, -1)),
        (" -- nothing\n", (0, 0)),
        (";", (0, 0)),
        (
            "INSERT INTO t(a) VALUES(1); INSERT INTO t(a) VALUES(2),(3);",
            (3, 2),
        ),
    ];
    for (text, expected) in cases {
        let outcome = db.request(Kind::Execute, false, vec![sql(text)]);
        assert_eq!(outcome.error, None);
        match outcome.results.first() {
            None => assert_eq!((-1, -1), expected, "{text}"),
            Some(result) => assert_eq!(write(result), expected, "{text}"),
        }
    }
    // Within a request a statement without changes shows the counters of the one before it, as in SQLite.
    let statements = vec![
        sql("CREATE TABLE v(x)"),
        sql("INSERT INTO v VALUES(7)"),
        sql("CREATE TABLE w(x)"),
    ];
    let outcome = db.request(Kind::Execute, false, statements);
    assert_eq!(
        outcome.results.iter().map(write).collect::<Vec<_>>(),
        [(0, 0), (1, 1), (1, 1)]
    );
}

#[test]
fn error_texts_are_sqlites() {
    let mut db = table();
    db.must("INSERT INTO t(id) VALUES(1)");
    let cases = [
        ("SELECT * FROM x", "no such table: x"),
        ("bad", "near \"bad\": syntax error"),
        (
            "INSERT INTO t(id) VALUES(1)",
            "UNIQUE constraint failed: t.id",
        ),
        (
            "BEGIN",
            "BEGIN and SAVEPOINT are not allowed, use the transaction parameter of the request",
        ),
        (
            "SAVEPOINT x",
            "BEGIN and SAVEPOINT are not allowed, use the transaction parameter of the request",
        ),
        ("COMMIT", "cannot commit - no transaction is active"),
        ("END", "cannot commit - no transaction is active"),
        ("ROLLBACK", "cannot rollback - no transaction is active"),
        (
            "ATTACH 'x.db' AS x",
            "ATTACH and DETACH are not allowed, load the other database's tables with /db/load",
        ),
        (
            "ATTACH '' AS x",
            "ATTACH and DETACH are not allowed, load the other database's tables with /db/load",
        ),
        (
            "ATTACH 'x' || 'y' AS x",
            "ATTACH and DETACH are not allowed, load the other database's tables with /db/load",
        ),
        (
            "DETACH main",
            "ATTACH and DETACH are not allowed, load the other database's tables with /db/load",
        ),
        (
            "VACUUM INTO 'x.db'",
            "VACUUM INTO is not allowed, use /db/backup?vacuum",
        ),
        ("ROLLBACK TO x", "no such savepoint"),
        ("RELEASE x", "no such savepoint"),
        (
            "CREATE TEMP TABLE x(a)",
            "temporary tables, views, triggers and indexes are not allowed, use lasting ones",
        ),
        (
            "CREATE TABLE temp.x(a)",
            "temporary tables, views, triggers and indexes are not allowed, use lasting ones",
        ),
        (
            "CREATE TEMP VIEW x AS SELECT 1",
            "temporary tables, views, triggers and indexes are not allowed, use lasting ones",
        ),
        ("SELECT load_extension('x')", "not authorized"),
        (
            "SELECT total_changes()",
            "not authorized to use function: total_changes",
        ),
        ("EXPLAIN PRAGMA journal_mode=off", "disallowed pragma"),
        ("SELECT sqrt(4)", "no such function: sqrt"),
    ];
    for (text, expected) in cases {
        let result = db.execute(text);
        assert_eq!(
            result,
            StatementResult::Error(expected.to_owned()),
            "{text}"
        );
    }
    assert_eq!(db.shown("SELECT count(*) FROM t"), "1");
}

#[test]
fn disallowed_pragmas_refuse_the_request() {
    let mut db = table();
    for text in [
        "PRAGMA journal_mode=DELETE",
        "PRAGMA synchronous(1)",
        "SELECT 1; pragma wal_checkpoint",
    ] {
        let outcome = db.request(
            Kind::Execute,
            false,
            vec![sql("INSERT INTO t(id) VALUES(1)"), sql(text)],
        );
        assert_eq!(
            (outcome.results, outcome.error.as_deref()),
            (vec![], Some("disallowed pragma")),
            "{text}"
        );
        assert_eq!(
            db.read(vec![sql(text)]).error.as_deref(),
            Some("disallowed pragma"),
            "{text}"
        );
    }
    assert_eq!(db.shown("SELECT count(*) FROM t"), "0");
}

#[test]
fn returning_gives_rows_however_it_is_written() {
    let mut db = table();
    let found = rows(db.execute("INSERT INTO t(a) VALUES(5) RETURNING\tid, a"));
    assert_eq!(found.columns, ["id", "a"]);
    assert_eq!(found.types, ["integer", "integer"]);
    assert_eq!(found.values, [[Cell::Integer(1), Cell::Integer(5)]]);
    let found = rows(db.execute("UPDATE t SET a = 6 WHERE id = 9 RETURNING id"));
    assert!(found.values.is_empty());
    // Rows of a plain SELECT are dropped.
    assert_eq!(write(&db.execute("SELECT * FROM t")), (0, 0));
    // Every statement of a text runs; the last one's result is returned.
    let found =
        rows(db.execute("INSERT INTO t(a) VALUES(7); INSERT INTO t(a) VALUES(8) RETURNING id"));
    assert_eq!(found.values, [[Cell::Integer(3)]]);
}

#[test]
fn kinds_differ() {
    let mut db = table();
    let query = |db: &mut Db, text: &str| {
        db.request(Kind::Query, false, vec![sql(text)])
            .results
            .remove(0)
    };
    let unified = |db: &mut Db, text: &str| {
        db.request(Kind::Unified, false, vec![sql(text)])
            .results
            .remove(0)
    };
    assert_eq!(
        error(&query(&mut db, "INSERT INTO t(a) VALUES(1)")),
        "attempt to change database via query operation"
    );
    assert_eq!(rows(query(&mut db, "SELECT 1 AS x")).columns, ["x"]);
    assert_eq!(
        rows(query(&mut db, "SELECT 1; SELECT 2 AS y")).columns,
        ["y"]
    );
    assert_eq!(
        write(&unified(&mut db, "INSERT INTO t(a) VALUES(1)")),
        (1, 1)
    );
    assert_eq!(
        rows(unified(&mut db, "SELECT count(*) FROM t")).values,
        [[Cell::Integer(1)]]
    );
    assert!(
        rows(unified(&mut db, "EXPLAIN INSERT INTO t(a) VALUES(1)"))
            .columns
            .len()
            > 3
    );
    assert_eq!(
        rows(unified(&mut db, "INSERT INTO t(a) VALUES(2) RETURNING id")).values,
        [[Cell::Integer(2)]]
    );
    assert_eq!(
        rows(unified(&mut db, "PRAGMA table_info(t)")).values.len(),
        3
    );
    let info = rows(unified(&mut db, "PRAGMA table_info(t)"));
    assert_eq!(
        info.types,
        ["integer", "text", "text", "integer", "", "integer"]
    );
}

#[test]
fn parameters() {
    let mut db = table();
    let two = "INSERT INTO t(a, b) VALUES(?, ?)";
    let cases = [
        (
            with(two, &[Value::Integer(1), Value::Text("x".into())]),
            Ok("1,x"),
        ),
        (with(two, &[]), Ok("NULL,NULL")),
        (
            with(two, &[Value::Integer(1)]),
            Err("not enough args to execute query: want 2 got 1"),
        ),
        (
            with(two, &[Value::Integer(1), Value::Real(0.5), Value::Null]),
            Ok("1,0.5"),
        ),
        (
            with(two, &[Value::Blob(vec![1, 255]), Value::Null]),
            Ok("[01, ff],NULL"),
        ),
        (
            named("INSERT INTO t(a, b) VALUES(:n, @m)", &[("m", 2), ("n", 1)]),
            Ok("1,2"),
        ),
        (
            named("INSERT INTO t(a, b) VALUES($n, $n)", &[("n", 1)]),
            Ok("1,1"),
        ),
        (
            named("INSERT INTO t(a, b) VALUES(:n, ?)", &[("n", 1), ("", 2)]),
            Ok("1,2"),
        ),
        (
            named("INSERT INTO t(a, b) VALUES(?, :n)", &[("n", 2), ("", 1)]),
            Ok("1,2"),
        ),
        (
            named("INSERT INTO t(a, b) VALUES(:a, :b)", &[("", 1), ("", 2)]),
            Ok("1,2"),
        ),
        (
            named("INSERT INTO t(a, b) VALUES(:n, 1)", &[("unknown", 2)]),
            Ok("NULL,1"),
        ),
        (
            with(
                "INSERT INTO t(a, b) VALUES(?2, ?1)",
                &[Value::Integer(1), Value::Integer(2)],
            ),
            Ok("2,1"),
        ),
        (
            with(
                "INSERT INTO t(a) VALUES(?); INSERT INTO t(a, b) VALUES(?, ?)",
                &[Value::Integer(1), Value::Integer(2), Value::Integer(3)],
            ),
            Ok("2,3"),
        ),
    ];
    for (statement, expected) in cases {
        let text = format!("{statement:?}");
        let result = db
            .request(Kind::Execute, false, vec![statement])
            .results
            .remove(0);
        match expected {
            Ok(row) => {
                write(&result);
                assert_eq!(
                    db.shown("SELECT a, b FROM t ORDER BY id DESC LIMIT 1"),
                    row,
                    "{text}"
                );
            }
            Err(expected) => assert_eq!(error(&result), expected, "{text}"),
        }
    }
    let outcome = db.read(vec![sql("SELECT ?")]);
    assert_eq!(
        error(&outcome.results[0]),
        "not enough args to execute query: want 1 got 0"
    );
}

#[test]
fn declared_types_decide() {
    let mut db = Db::new();
    db.must("CREATE TABLE t(i INTEGER, f BOOLEAN, d DATETIME, v VARCHAR(10), n, j TEXT)");
    db.must("INSERT INTO t VALUES(1, 2, 1700000000, x'00ff', x'01', x'02')");
    db.must("INSERT INTO t VALUES(2, 0, '2024-02-29 10:11:12', 'v', 1.0, 'j')");
    db.must("INSERT INTO t VALUES(NULL, 'x', 'no date', NULL, NULL, NULL)");
    let found = rows(
        db.read(vec![sql("SELECT *, i+1, max(d) OVER () FROM t")])
            .results
            .remove(0),
    );
    assert_eq!(
        found.types,
        [
            "integer",
            "boolean",
            "datetime",
            "varchar(10)",
            "blob",
            "text",
            "integer",
            "text"
        ]
    );
    assert_eq!(found.values[0][1], Cell::Boolean(true));
    assert_eq!(
        found.values[0][2],
        Cell::Text("2023-11-14T22:13:20Z".into())
    );
    assert_eq!(found.values[0][3], Cell::Blob(vec![0, 255]));
    assert_eq!(found.values[0][5], Cell::Blob(vec![2]));
    assert_eq!(found.values[1][1], Cell::Boolean(false));
    assert_eq!(
        found.values[1][2],
        Cell::Text("2024-02-29T10:11:12Z".into())
    );
    assert_eq!(found.values[2][1], Cell::Text("x".into()));
    assert_eq!(found.values[2][2], Cell::Text("no date".into()));
    assert_eq!(found.values[0][7], Cell::Text("no date".into()));
    let found = rows(
        db.read(vec![sql("SELECT n, i+1 FROM t WHERE 0")])
            .results
            .remove(0),
    );
    assert_eq!(found.types, ["", ""]);
}

#[test]
fn qualified_columns() {
    let mut db = table();
    let mut request = request(
        Kind::Query,
        false,
        vec![sql("SELECT id, a AS x, 1 AS one FROM t AS other")],
    );
    request.qualify_columns = true;
    let found = rows(db.apply(request).results.remove(0));
    assert_eq!(found.columns, ["t.id", "t.x", "one"]);
}

#[test]
fn transactions() {
    let insert = |id: i64| sql(&format!("INSERT INTO t(id) VALUES({id})"));
    let mut db = table();
    let run = |db: &mut Db, kind, statements| db.request(kind, true, statements);
    // The first failure, while running or preparing, ends and rolls back the transaction.
    for bad in [insert(1), sql("INSERT INTO missing VALUES(1)")] {
        for kind in [Kind::Execute, Kind::Unified] {
            let outcome = run(
                &mut db,
                kind,
                vec![insert(1), insert(2), bad.clone(), insert(3)],
            );
            assert_eq!(outcome.results.len(), 3);
            assert!(matches!(outcome.results[2], StatementResult::Error(_)));
            assert_eq!(db.shown("SELECT count(*) FROM t"), "0");
        }
    }
    let outcome = run(&mut db, Kind::Execute, vec![insert(1), insert(2)]);
    assert_eq!(outcome.results.len(), 2);
    assert_eq!(db.shown("SELECT count(*) FROM t"), "2");
    // A transaction of a query continues after a failure.
    let outcome = run(
        &mut db,
        Kind::Query,
        vec![sql("SELECT 1"), sql("SELECT x"), sql("SELECT 2")],
    );
    assert_eq!(outcome.results.len(), 3);
    assert!(matches!(outcome.results[2], StatementResult::Rows(_)));
    // Without a transaction all statements run.
    let outcome = db.request(
        Kind::Execute,
        false,
        vec![insert(1), insert(3), sql("bad"), insert(4)],
    );
    assert_eq!(outcome.results.len(), 4);
    assert_eq!(db.shown("SELECT count(*) FROM t"), "4");
    let outcome = run(&mut db, Kind::Execute, vec![sql("VACUUM")]);
    assert_eq!(
        error(&outcome.results[0]),
        "cannot VACUUM from within a transaction"
    );
}

#[test]
fn deferred_foreign_keys_fail_the_request_that_broke_them() {
    let mut db = Db::with_foreign_keys();
    db.must("CREATE TABLE p(id INTEGER PRIMARY KEY)");
    db.must("CREATE TABLE c(p REFERENCES p(id) DEFERRABLE INITIALLY DEFERRED)");
    // Without a transaction each statement is one by itself.
    let outcome = db.request(
        Kind::Execute,
        false,
        vec![
            sql("INSERT INTO p VALUES(5)"),
            sql("INSERT INTO c VALUES(1)"),
            sql("INSERT INTO p VALUES(1)"),
        ],
    );
    assert_eq!(error(&outcome.results[1]), "FOREIGN KEY constraint failed");
    assert_eq!(
        db.shown("SELECT (SELECT count(*) FROM p), (SELECT count(*) FROM c)"),
        "2,0"
    );
    // In a transaction the order of violations does not matter, only the state at its end.
    let outcome = db.request(
        Kind::Execute,
        true,
        vec![
            sql("INSERT INTO c VALUES(2)"),
            sql("INSERT INTO p VALUES(2)"),
        ],
    );
    assert_eq!(outcome.error, None);
    let outcome = db.request(Kind::Execute, true, vec![sql("INSERT INTO c VALUES(3)")]);
    assert_eq!(
        outcome.error.as_deref(),
        Some("FOREIGN KEY constraint failed")
    );
    assert_eq!(db.shown("SELECT p FROM c"), "2");
}

#[test]
fn pragmas_end_with_their_request() {
    let mut db = Db::with_foreign_keys();
    db.must("CREATE TABLE p(id INTEGER PRIMARY KEY)");
    db.must("CREATE TABLE c(p REFERENCES p(id))");
    assert_eq!(
        error(&db.execute("INSERT INTO c VALUES(1)")),
        "FOREIGN KEY constraint failed"
    );
    let off = "PRAGMA foreign_keys=OFF";
    let outcome = db.request(
        Kind::Execute,
        false,
        vec![sql(off), sql("INSERT INTO c VALUES(1)")],
    );
    assert_eq!(write(&outcome.results[1]), (1, 1));
    assert_eq!(
        error(&db.execute("INSERT INTO c VALUES(2)")),
        "FOREIGN KEY constraint failed"
    );
    db.must("PRAGMA foreign_keys=OFF; INSERT INTO c VALUES(3)");
    assert_eq!(
        error(&db.execute("INSERT INTO c VALUES(4)")),
        "FOREIGN KEY constraint failed"
    );
    db.must("PRAGMA user_version=7");
    assert_eq!(db.shown("PRAGMA user_version"), "7");
    assert_eq!(db.shown("PRAGMA foreign_keys"), "1");
    db.must("PRAGMA optimize(65538)");
    db.must("VACUUM");
    db.must("INSERT INTO c VALUES(NULL); VACUUM; PRAGMA incremental_vacuum");
    assert_eq!(db.shown("SELECT count(*) FROM c"), "3");
    assert_eq!(db.shown("PRAGMA integrity_check"), "ok");
}

#[test]
fn sqlite_as_rqlites_clients_know_it() {
    let mut db = table();
    db.must("INSERT INTO t(a) VALUES(\"fiona\")");
    assert_eq!(db.shown("SELECT a FROM t WHERE a = \"fiona\""), "fiona");
    db.must("CREATE TABLE r(n); CREATE TRIGGER rt AFTER INSERT ON r WHEN new.n > 0 BEGIN INSERT INTO r VALUES(new.n - 1); END");
    db.must("INSERT INTO r VALUES(3)");
    assert_eq!(
        db.shown("SELECT count(*) FROM r"),
        "4",
        "recursive triggers"
    );
    for module in [
        "fts3(x)",
        "fts4(x)",
        "fts5(x)",
        "rtree(id, a, b)",
        "geopoly(x)",
    ] {
        db.must(&format!("CREATE VIRTUAL TABLE v USING {module}"));
        db.must("DROP TABLE v");
    }
    assert_eq!(
        db.shown("SELECT json_extract('{\"a\":[1,2]}', '$.a[1]')"),
        "2"
    );
    assert_eq!(db.shown("PRAGMA foreign_keys"), "0");
    assert_eq!(
        write(&db.execute("INSERT INTO t(a) VALUES(1) -- trailing")),
        (2, 1)
    );
}

#[test]
fn last_autoincrement_is_the_statements_fault() {
    let mut db = Db::new();
    db.must("CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT)");
    db.must("INSERT INTO t VALUES(9223372036854775807)");
    assert_eq!(
        error(&db.execute("INSERT INTO t DEFAULT VALUES")),
        "database or disk is full"
    );
    db.must("CREATE TABLE u(x)");
}
