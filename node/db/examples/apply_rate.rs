//! Prints how many rows a second the writer applies and how many reads a second the readers answer.
//!
//! `cargo run --release -p node-db --example apply_rate`
use std::{error::Error, sync::Arc, time::Instant};

use node_db::{Database, Entry, Kind, Options, Position, Read, ReplyTo, Request, Stamp, Work};
use node_values::{Parameter, Statement, Value};

const ROWS: u64 = 400_000;
const READS: usize = 200_000;

fn statement(sql: &str, values: Vec<Value>) -> Statement {
    let parameters = values
        .into_iter()
        .map(|value| Parameter { name: None, value })
        .collect();
    Statement {
        sql: sql.to_owned(),
        parameters,
    }
}

fn request(statement: Statement) -> Request {
    let stamp = Stamp {
        unix_micros: 1_700_000_000_000_000,
        seed: 7,
    };
    Request {
        kind: Kind::Execute,
        transaction: false,
        qualify_columns: false,
        statements: vec![statement],
        stamp,
        rules: node_db::Rules::V1,
    }
}

/// One entry per row, in runs of `batch`.
fn apply(
    database: &Database,
    name: &str,
    batch: u64,
    wanted: bool,
    make: impl Fn(u64) -> Statement,
) -> Result<(), Box<dyn Error>> {
    let first = database.applied().map_or(1, |position| position.index + 1);
    let runs: Vec<Vec<Entry>> = (0..ROWS / batch)
        .map(|run| {
            (0..batch)
                .map(|at| Entry {
                    position: Position {
                        term: 1,
                        index: first + run * batch + at,
                    },
                    work: Work::Requests(Arc::new(vec![request(make(run * batch + at))])),
                    reply_to: if wanted {
                        ReplyTo::Caller
                    } else {
                        ReplyTo::Nobody
                    },
                })
                .collect()
        })
        .collect();
    let started = Instant::now();
    let mut replies = std::collections::VecDeque::new();
    for run in runs {
        replies.push_back(database.apply(run));
        if replies.len() > 16
            && let Some(reply) = replies.pop_front()
        {
            reply.blocking_recv()??;
        }
    }
    for reply in replies {
        reply.blocking_recv()??;
    }
    let rate = ROWS as f64 / started.elapsed().as_secs_f64();
    println!(
        "{name:<44} {rate:>10.0} rows/s, WAL {} KiB",
        database.wal_bytes() / 1024
    );
    database.checkpoint().blocking_recv()??;
    Ok(())
}

fn read(id: i64) -> Read {
    Read {
        kind: Kind::Query,
        transaction: false,
        qualify_columns: false,
        statements: vec![statement(
            "SELECT id, name FROM foo WHERE id = ?",
            vec![Value::Integer(id)],
        )],
        timeout: None,
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let options = Options {
        dir: dir.path().to_owned(),
        foreign_keys: false,
        readers: 2,
        max_readers: 64,
        slow_statement: None,
    };
    let (database, _) = Database::open(options)?;
    let create = statement(
        "CREATE TABLE foo (id INTEGER PRIMARY KEY, name TEXT)",
        vec![],
    );
    let entry = Entry {
        position: Position { term: 1, index: 1 },
        work: Work::Requests(Arc::new(vec![request(create)])),
        reply_to: ReplyTo::Caller,
    };
    database.apply(vec![entry]).blocking_recv()??;
    let insert = |at: u64| {
        statement(
            "INSERT INTO foo(name) VALUES(?)",
            vec![Value::Text(format!("fiona {at}"))],
        )
    };
    let literal = |at: u64| {
        statement(
            &format!("INSERT INTO foo(name) VALUES('fiona {at}')"),
            vec![],
        )
    };
    let same = |_| statement("INSERT INTO foo(name) VALUES(\"fiona\")", vec![]);
    apply(&database, "parameters, runs of 64", 64, true, insert)?;
    apply(
        &database,
        "parameters, runs of 64, nobody waits",
        64,
        false,
        insert,
    )?;
    apply(&database, "parameters, runs of 1", 1, true, insert)?;
    apply(
        &database,
        "literal, each its own text, runs of 64",
        64,
        true,
        literal,
    )?;
    apply(
        &database,
        "literal, always the same text, runs of 64",
        64,
        true,
        same,
    )?;

    measure_reads(&database)
}

fn measure_reads(database: &Database) -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    for at in 0..READS {
        if database
            .read_inline(&read(at as i64 % 1000 + 1), 10_000)
            .is_none()
        {
            return Err("the inline read gave up".into());
        }
    }
    println!(
        "{:<44} {:>10.0} reads/s",
        "point reads, inline",
        READS as f64 / started.elapsed().as_secs_f64()
    );
    let started = Instant::now();
    let mut replies = std::collections::VecDeque::new();
    for at in 0..READS {
        replies.push_back(database.read(read(at as i64 % 1000 + 1)));
        if replies.len() > 64
            && let Some(reply) = replies.pop_front()
        {
            reply.blocking_recv()?;
        }
    }
    for reply in replies {
        reply.blocking_recv()?;
    }
    println!(
        "{:<44} {:>10.0} reads/s",
        "point reads, 64 in flight on 2 threads",
        READS as f64 / started.elapsed().as_secs_f64()
    );
    Ok(())
}
