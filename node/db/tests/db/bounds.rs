//! A request that exceeds a bound fails identically, whatever ran before it and beside it, and affects no
//! other request.
use std::sync::Arc;

use node_db::{Bounds, Entry, Kind, Outcome, Position, ReplyTo, Request, Rules, Work};
use node_values::{StatementResult, Value};

use crate::support::{Db, TERM, error, request, sql, stamp, timeless, with, write};

const ENDLESS: &str = "INSERT INTO t(a) WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT x FROM c";
const MIB: u64 = 1 << 20;

fn counted(limit: u64) -> String {
    format!(
        "INSERT INTO t(a) WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c LIMIT {limit}) SELECT x FROM c"
    )
}

fn blobs(count: u64) -> String {
    format!(
        "INSERT INTO t(a) WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c LIMIT {count}) SELECT zeroblob(100000) FROM c"
    )
}

fn steps(vm_steps: u64) -> Bounds {
    Bounds {
        vm_steps,
        ..Bounds::NONE
    }
}

fn disk(disk_bytes: u64) -> Bounds {
    Bounds {
        disk_bytes,
        ..Bounds::NONE
    }
}

fn bounded(bounds: Bounds, request: Request) -> Request {
    Request {
        rules: Rules::V2(bounds),
        ..request
    }
}

fn execute(bounds: Bounds, texts: &[&str]) -> Request {
    let statements = texts.iter().map(|text| sql(text)).collect();
    bounded(bounds, request(Kind::Execute, false, statements))
}

fn prepared() -> Db {
    let mut db = Db::new();
    for text in [
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a)",
        "CREATE TABLE guarded(x)",
        "CREATE TRIGGER guard BEFORE INSERT ON guarded BEGIN SELECT RAISE(ROLLBACK, 'no'); END",
        "CREATE VIRTUAL TABLE words USING fts5(x)",
    ] {
        db.must(text);
    }
    db
}

/// Applies the requests, `per_entry` in an entry and `per_run` entries in a run.
fn apply(db: &mut Db, requests: &[Request], per_entry: usize, per_run: usize) -> Vec<Outcome> {
    let entries: Vec<Entry> = requests
        .chunks(per_entry)
        .map(|requests| Entry {
            position: db.position(),
            work: Work::Requests(Arc::new(requests.to_vec())),
            reply_to: ReplyTo::Caller,
        })
        .collect();
    let mut outcomes = Vec::new();
    let mut entries = entries.into_iter().peekable();
    while entries.peek().is_some() {
        let run = entries.by_ref().take(per_run).collect();
        let applied = db.db.apply(run).blocking_recv().unwrap().unwrap();
        outcomes.extend(applied.into_iter().flatten().map(timeless));
    }
    outcomes
}

#[test]
fn an_endless_write_fails_and_its_neighbours_do_not() {
    let mut db = prepared();
    let requests = [
        execute(steps(1_000_000), &["INSERT INTO t(a) VALUES('before')"]),
        execute(
            steps(1_000_000),
            &[
                "INSERT INTO t(a) VALUES('same request')",
                ENDLESS,
                "INSERT INTO t(a) VALUES('too late')",
            ],
        ),
        execute(steps(1_000_000), &["INSERT INTO t(a) VALUES('after')"]),
    ];
    let outcomes = apply(&mut db, &requests, 3, 1);
    assert_eq!(write(&outcomes[0].results[0]), (1, 1));
    assert_eq!(write(&outcomes[1].results[0]), (2, 1));
    let text = "interrupted: the request takes more than 1000000 steps of SQLite's virtual machine; give it more with db_timeout";
    assert_eq!(error(&outcomes[1].results[1]), text);
    assert_eq!(error(&outcomes[1].results[2]), text);
    assert_eq!(write(&outcomes[2].results[0]), (3, 1));
    assert_eq!(db.shown("SELECT a FROM t"), "before|same request|after");
}

#[test]
fn a_transaction_that_passes_its_bound_is_undone_as_a_whole() {
    let mut db = prepared();
    let statements = vec![sql("INSERT INTO t(a) VALUES(1)"), sql(ENDLESS), sql("x")];
    let transaction = bounded(steps(1_000_000), request(Kind::Execute, true, statements));
    let outcomes = apply(
        &mut db,
        &[
            execute(steps(1_000_000), &["INSERT INTO t(a) VALUES('before')"]),
            transaction,
        ],
        2,
        1,
    );
    assert_eq!(outcomes[1].results.len(), 2);
    assert!(error(&outcomes[1].results[1]).starts_with("interrupted"));
    assert_eq!(outcomes[1].error, None);
    assert_eq!(db.shown("SELECT a FROM t"), "before");
}

#[test]
fn reads_and_scripts_in_one_text_are_bounded_too() {
    let mut db = prepared();
    let endless =
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT count(*) FROM c";
    let read = bounded(
        steps(1_000_000),
        request(Kind::Query, false, vec![sql(endless), sql("SELECT 1")]),
    );
    let of_caller = Bounds {
        maintenance_vm_steps: 1_000_000,
        ..steps(1_000_000)
    };
    let limited = bounded(of_caller, read.clone());
    let text = format!("INSERT INTO t(a) VALUES(1); {ENDLESS}; INSERT INTO t(a) VALUES(2)");
    let write = execute(steps(1_000_000), &[&text]);
    let outcomes = apply(&mut db, &[read, write, limited], 3, 1);
    assert!(error(&outcomes[0].results[0]).starts_with("interrupted"));
    assert!(error(&outcomes[1].results[0]).starts_with("interrupted"));
    assert_eq!(error(&outcomes[2].results[0]), "query timeout");
    assert_eq!(db.shown("SELECT a FROM t"), "1");
}

#[test]
fn upkeep_has_a_bound_of_its_own() {
    let mut db = prepared();
    db.must(&counted(200_000));
    let index = "CREATE INDEX i ON t(a)";
    let short = Bounds {
        maintenance_vm_steps: 500_000,
        ..steps(100_000)
    };
    let long = Bounds {
        maintenance_vm_steps: 100_000_000,
        ..steps(100_000)
    };
    let outcomes = apply(
        &mut db,
        &[
            execute(short, &[index]),
            execute(long, &["UPDATE t SET a = a + 1"]),
            execute(
                long,
                &[index, "VACUUM", "ANALYZE", "INSERT INTO t(a) VALUES(1)"],
            ),
        ],
        1,
        3,
    );
    assert!(error(&outcomes[0].results[0]).starts_with("interrupted"));
    assert!(error(&outcomes[1].results[0]).starts_with("interrupted"));
    for result in &outcomes[2].results {
        write(result);
    }
    assert_eq!(db.shown("SELECT count(*) FROM t"), "200001");
}

/// Requests near their bounds, so that a small error in counting changes the verdict.
fn near_the_bounds() -> Vec<Request> {
    let mut requests = Vec::new();
    for at in 0..60_u64 {
        let request = match at % 6 {
            0 => execute(steps(150_000), &[&counted(5_000 + 250 * at)]),
            1 => execute(disk(3 * MIB), &[&blobs(1 + at)]),
            2 => execute(steps(1_000_000), &["INSERT INTO guarded VALUES(1)"]),
            3 => bounded(
                disk(2 * MIB),
                request(
                    Kind::Execute,
                    at % 2 == 0,
                    vec![with(
                        "UPDATE t SET a = ? || hex(zeroblob(150 * (id % 40))) WHERE id < ?",
                        &[
                            Value::Text("z".into()),
                            Value::Integer(i64::try_from(at * 6).unwrap()),
                        ],
                    )],
                ),
            ),
            4 => bounded(
                steps(60_000 + 2_000 * at),
                request(
                    Kind::Unified,
                    at % 4 == 0,
                    vec![
                        with("INSERT INTO t(a) VALUES(?)", &[Value::Text("x".into())]),
                        with(
                            "INSERT INTO words WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c LIMIT ?) SELECT 'w' || x || ' ' || (x*x) FROM c",
                            &[Value::Integer(2_500)],
                        ),
                        with(
                            "UPDATE t SET a = a || ? WHERE id % 7 = 1",
                            &[Value::Text("y".into())],
                        ),
                    ],
                ),
            ),
            _ => execute(
                Bounds {
                    max_pages: 300 + 40 * u32::try_from(at).unwrap(),
                    ..Bounds::NONE
                },
                &[&blobs(4), "DELETE FROM t WHERE id % 3 = 0"],
            ),
        };
        requests.push(Request {
            stamp: stamp(at),
            ..request
        });
    }
    requests
}

#[test]
fn the_verdict_is_the_same_however_it_comes_to_be() {
    let requests = near_the_bounds();
    let mut alone = prepared();
    let expected = apply(&mut alone, &requests, 1, 1);
    let failed = expected
        .iter()
        .flat_map(|outcome| &outcome.results)
        .filter(|result| matches!(result, StatementResult::Error(text) if text.contains("interrupted") || text.contains("full")))
        .count();
    assert!((10..50).contains(&failed), "{failed} of {}", requests.len());
    let dump = alone.dump();

    for (per_entry, per_run) in [(1, 60), (7, 3), (60, 1)] {
        let mut other = prepared();
        assert_eq!(apply(&mut other, &requests, per_entry, per_run), expected);
        assert_eq!(other.dump(), dump);
    }
    // A page cache and a statement cache full of other content, and a restart in the middle.
    let mut other = prepared();
    other.must("CREATE TABLE other(a)");
    for at in 0..600 {
        other.must(&format!(
            "INSERT INTO other VALUES(zeroblob(20000)); SELECT {at}"
        ));
    }
    other.must("DROP TABLE other");
    let (first, second) = requests.split_at(31);
    let mut outcomes = apply(&mut other, first, 2, 2);
    other.checkpoint();
    let mut other = other.restart();
    outcomes.extend(apply(&mut other, second, 5, 5));
    // The file was longer from the start, so bounds of pages have other results; the other bounds do not.
    for (at, (outcome, expected)) in outcomes.iter().zip(&expected).enumerate() {
        if at % 6 != 5 && !expected.results.is_empty() {
            let texts = |outcome: &Outcome| {
                outcome
                    .results
                    .iter()
                    .map(|result| matches!(result, StatementResult::Error(_)))
                    .collect::<Vec<_>>()
            };
            assert_eq!(texts(outcome), texts(expected), "{at}");
        }
    }
}

#[test]
fn what_does_not_fit_the_disk_fails_in_words() {
    let mut db = prepared();
    db.must(&blobs(60));
    let outcomes = apply(
        &mut db,
        &[
            execute(
                disk(20 * MIB),
                &[&blobs(1_000_000), "INSERT INTO t(a) VALUES(1)"],
            ),
            execute(disk(11 * MIB), &["VACUUM"]),
            execute(disk(13 * MIB), &["VACUUM"]),
            execute(
                Bounds {
                    max_pages: 1_600,
                    ..Bounds::NONE
                },
                &[&blobs(10), "INSERT INTO t(a) VALUES(2)"],
            ),
            // A sort that spills.
            execute(
                disk(4 * MIB),
                &[
                    "UPDATE t SET a = (SELECT count(*) FROM (SELECT printf('%.20000d', x) AS y FROM (WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c LIMIT 1000) SELECT x FROM c) ORDER BY y DESC LIMIT -1 OFFSET 1)) WHERE id = 1",
                ],
            ),
        ],
        5,
        1,
    );
    assert!(
        error(&outcomes[0].results[0]).starts_with("database or disk is full"),
        "{outcomes:?}"
    );
    write(&outcomes[0].results[1]);
    assert!(error(&outcomes[1].results[0]).contains("a VACUUM takes"));
    write(&outcomes[2].results[0]);
    assert_eq!(error(&outcomes[3].results[0]), "database or disk is full");
    write(&outcomes[3].results[1]);
    assert!(
        error(&outcomes[4].results[0]).starts_with("database or disk is full"),
        "{outcomes:?}"
    );
    assert_eq!(db.shown("SELECT count(*) FROM t"), "62");
}

#[test]
fn values_are_limited_where_the_entry_says_so() {
    let mut db = prepared();
    let limited = Bounds {
        value_bytes: 1_000_000,
        ..Bounds::NONE
    };
    db.must("INSERT INTO t VALUES(1, zeroblob(2000000))");
    let outcomes = apply(
        &mut db,
        &[
            execute(limited, &["INSERT INTO t(a) VALUES(zeroblob(1000001))"]),
            execute(limited, &["INSERT INTO t(a) VALUES(randomblob(1000001))"]),
            execute(
                limited,
                &[
                    "CREATE TABLE wide(a, b)",
                    "INSERT INTO wide VALUES(zeroblob(600000), zeroblob(600000))",
                ],
            ),
            execute(limited, &["INSERT INTO t(a) VALUES(zeroblob(900000))"]),
            execute(limited, &["UPDATE t SET a = a || 'x' WHERE id = 1"]),
            // Existing large values can be deleted and copied.
            execute(limited, &["VACUUM"]),
            execute(limited, &["DELETE FROM t WHERE id = 1"]),
            execute(
                Bounds::NONE,
                &["INSERT INTO t(a) VALUES(zeroblob(1000001))"],
            ),
        ],
        8,
        1,
    );
    let big = "string or blob too big";
    assert_eq!(error(&outcomes[0].results[0]), big);
    assert_eq!(error(&outcomes[1].results[0]), big);
    assert_eq!(error(&outcomes[2].results[1]), big);
    write(&outcomes[3].results[0]);
    assert_eq!(error(&outcomes[4].results[0]), big);
    for outcome in &outcomes[5..] {
        write(&outcome.results[0]);
    }
}

#[test]
fn an_endless_write_does_not_hold_up_the_end() {
    let mut db = prepared();
    let applied = db.db.apply(vec![Entry {
        position: Position {
            term: TERM,
            index: 1_000,
        },
        work: Work::Requests(Arc::new(vec![request(
            Kind::Execute,
            false,
            vec![sql(ENDLESS)],
        )])),
        reply_to: ReplyTo::Caller,
    }]);
    let started = std::time::Instant::now();
    std::thread::sleep(std::time::Duration::from_millis(50));
    db.db.close();
    assert!(started.elapsed() < std::time::Duration::from_secs(20));
    assert!(applied.blocking_recv().unwrap().is_err());
    db = db.restart();
    db.must("CREATE TABLE again(x)");
}
