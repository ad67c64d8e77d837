//! Results too large to buffer are streamed at the pace of their receiver.
use node_db::{Kind, Origin, Part, Parts, Read, ReadOutput};
use node_values::{Cell, StatementResult};

use crate::support::{Db, error, read, request, rows, sql, until};

const ROWS: i64 = 30_000;

/// `n` rows of about 100 bytes.
fn many(n: i64) -> String {
    format!(
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT {n}) SELECT x, printf('%090d', x) AS t FROM n"
    )
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

fn ask(db: &Db, read: Read) -> ReadOutput {
    block_on(db.db.read_streamed(read, Origin::default())).unwrap()
}

fn parts(answer: ReadOutput) -> Parts {
    match answer {
        ReadOutput::Streamed(parts) => parts,
        ReadOutput::Complete(outcome) => panic!("came whole: {} results", outcome.results.len()),
    }
}

/// Collects all parts; rows are counted and checked.
fn all(mut parts: Parts) -> Vec<String> {
    let mut seen = Vec::new();
    let mut count = 0;
    while let Some(part) = block_on(parts.next()) {
        match part {
            Part::Result(StatementResult::Rows(rows)) => {
                seen.push(format!("{} rows", rows.values.len()));
            }
            Part::Result(result) => seen.push(format!("{result:?}")),
            Part::Begin { columns, types } => {
                count = 0;
                seen.push(format!("{columns:?} {types:?}"));
            }
            Part::Rows(rows) => {
                for row in rows {
                    count += 1;
                    assert_eq!(row[0], Cell::Integer(count));
                }
            }
            Part::End { error, .. } => seen.push(format!("{count} rows, {error:?}")),
            Part::Done { error } => seen.push(format!("done {error:?}")),
        }
    }
    seen
}

#[test]
fn large_results_come_in_pieces_and_small_ones_whole() {
    let db = Db::new();
    let small = ask(&db, read(vec![sql(&many(100))]));
    assert!(matches!(small, ReadOutput::Complete(outcome) if outcome.results.len() == 1));
    for transaction in [false, true] {
        let mut mixed = read(vec![
            sql("SELECT 1"),
            sql(&many(ROWS)),
            sql("SELECT nonsense"),
            sql(""),
            sql(&format!("SELECT 7; {} ;", many(ROWS))),
            sql("SELECT 2 UNION SELECT 3"),
        ]);
        mixed.transaction = transaction;
        assert_eq!(
            all(parts(ask(&db, mixed))),
            [
                "1 rows",
                r#"["x", "t"] ["integer", "text"]"#,
                "30000 rows, None",
                r#"Error("no such column: nonsense")"#,
                r#"["x", "t"] ["integer", "text"]"#,
                "30000 rows, None",
                "2 rows",
                "done None",
            ]
        );
    }
}

#[test]
fn a_result_that_fails_late_says_so_at_its_end() {
    let db = Db::new();
    let fails = format!(
        "SELECT x, t, abs(iif(x = {ROWS}, -9223372036854775808, 0)) FROM ({})",
        many(ROWS)
    );
    let seen = all(parts(ask(&db, read(vec![sql(&fails), sql("SELECT 1")]))));
    assert!(
        seen[1].ends_with(r#" rows, Some("integer overflow")"#),
        "{seen:?}"
    );
    assert_eq!(seen[2..], ["1 rows", "done None"]);
}

#[test]
fn a_read_waits_for_a_slow_client_and_ends_with_it() {
    let db = Db::new();
    let mut slow = parts(ask(&db, read(vec![sql(&many(i64::MAX))])));
    until("a read that waits for its client", || {
        db.db.running(9).first().is_some_and(|one| one.waiting)
    });
    // Other reads are served meanwhile.
    assert_eq!(db.shown("SELECT 1"), "1");
    for _ in 0..20 {
        assert!(block_on(slow.next()).is_some());
    }
    assert_eq!(db.db.running(9).len(), 1);
    drop(slow);
    until("no read that runs", || db.db.running(9).is_empty());
}

#[test]
fn a_killed_read_says_so_behind_its_rows() {
    let db = Db::new();
    let doomed = parts(ask(&db, read(vec![sql(&many(i64::MAX)), sql("SELECT 1")])));
    let id = db.db.running(1)[0].id;
    assert!(db.db.kill(id));
    let seen = all(doomed);
    let why = "query ended by an administrator";
    assert!(seen[1].ends_with(&format!("Some({why:?})")), "{seen:?}");
    assert_eq!(
        seen[2..],
        [format!("Error({why:?})"), "done None".to_owned()]
    );
}

#[test]
fn what_cannot_come_in_pieces_has_a_limit() {
    let mut db = Db::new();
    let blobs = |count: u32| {
        format!(
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT {count}) SELECT randomblob(1000000) FROM n"
        )
    };
    let outcome = db.read(vec![sql(&blobs(60)), sql("SELECT 1")]);
    assert!(error(&outcome.results[0]).starts_with("the result is larger than 48 MiB"));
    assert_eq!(rows(outcome.results[1].clone()).values.len(), 1);

    // Through the log: the statement has its effect, and a transaction continues.
    db.must("CREATE TABLE t(a, b)");
    let returning = format!(
        "INSERT INTO t SELECT 1, 2 FROM ({}) RETURNING randomblob(1000000)",
        blobs(40)
    );
    let statements = vec![sql(&returning), sql("INSERT INTO t VALUES(3, 4)")];
    let outcome = db.apply(request(Kind::Execute, true, statements));
    assert!(
        error(&outcome.results[0]).starts_with("the result is larger than 32 MiB"),
        "{:?}",
        error(&outcome.results[0])
    );
    assert!(matches!(outcome.results[1], StatementResult::Write(_)));
    assert_eq!(db.shown("SELECT count(*) FROM t"), "41");
}
