//! Running the statements of a read, on whichever thread and connection.
use std::time::{Duration, Instant};

use node_api::{Statement, StatementResult};
use rusqlite::{Batch, ErrorCode, fallible_iterator::FallibleIterator as _};

use super::{Job, ReadJob, Reader};
use crate::{
    Origin, Outcome, Read,
    connection::internal,
    control::Control,
    fault::message,
    query::{self, Arguments, Failure, Rules},
    slow, sql,
};

pub(super) fn refusal(text: &str) -> Outcome {
    Outcome {
        results: Vec::new(),
        error: Some(text.to_owned()),
    }
}

/// Statement number `at` of a read, for lists.
pub(super) fn shown(read: &Read, at: usize) -> String {
    let text = read.statements.get(at).map_or("", |one| one.sql.as_str());
    slow::shortened(text)
}

pub(super) fn run_job(job: Job, reader: Option<&Reader>, slow: Option<Duration>) {
    match (job, reader) {
        // A reply that nobody waits for any more is not worth the work.
        (Job::Read(job), _) if job.reply.is_closed() => {}
        (Job::Read(job), None) => {
            let _ = job
                .reply
                .send(refusal("unable to open the database for reading"));
        }
        (Job::Read(job), Some(reader)) => {
            let outcome = outcome(&job, reader, slow);
            let _ = job.reply.send(outcome);
        }
        (Job::Classify { sql, reply }, reader) => {
            let read_only = reader.is_some_and(|reader| {
                let prepared = Batch::new(&reader.conn, &sql).next();
                let _ = reader.guard.take_refusal();
                matches!(prepared, Ok(Some(statement)) if statement.readonly())
            });
            let _ = reply.send(read_only);
        }
    }
}

fn outcome(job: &ReadJob, reader: &Reader, slow: Option<Duration>) -> Outcome {
    let timeout = job.read.timeout;
    let deadline = timeout.and_then(|timeout| job.since.checked_add(timeout));
    if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
        return refusal("context deadline exceeded");
    }
    job.control.arm(deadline, None);
    let slow = slow.map(|limit| (limit, &job.origin));
    run_read(reader, &job.control, &job.read, slow)
}

/// `slow`: from when on a statement is logged, and for whom.
pub(super) fn run_read(
    reader: &Reader,
    control: &Control,
    read: &Read,
    slow: Option<(Duration, &Origin)>,
) -> Outcome {
    if read
        .statements
        .iter()
        .any(|statement| sql::disallowed_pragma(&statement.sql))
    {
        return refusal("disallowed pragma");
    }
    let rules = Rules {
        kind: read.kind,
        qualify_columns: read.qualify_columns,
        wanted: true,
        counters: false,
    };
    // One statement is a read transaction of its own.
    let transaction = read.transaction && read.statements.len() > 1;
    if transaction && let Err(error) = internal(&reader.conn, &reader.guard, "BEGIN") {
        return refusal(&message(&error));
    }
    let statements = read.statements.iter().enumerate();
    let results = statements
        .filter(|(_, statement)| !statement.sql.is_empty())
        .map(|(at, statement)| {
            control.set_statement(at);
            let begun = slow.map(|_| Instant::now());
            let result = run_statement(reader, control, statement, rules);
            if let (Some((limit, origin)), Some(begun)) = (slow, begun)
                && begun.elapsed() >= limit
            {
                let ended = control.is_stopped().then(|| control.reason().text());
                slow::log("read", &shown(read, at), begun.elapsed(), origin, ended);
            }
            result
        })
        .collect();
    if transaction && let Err(error) = internal(&reader.conn, &reader.guard, "ROLLBACK") {
        return refusal(&message(&error));
    }
    Outcome {
        results,
        error: None,
    }
}

fn run_statement(
    reader: &Reader,
    control: &Control,
    statement: &Statement,
    rules: Rules,
) -> StatementResult {
    // What ended a statement ends those behind it.
    if control.is_stopped() || control.is_late() {
        return StatementResult::Error(control.stopped_text());
    }
    let mut arguments = Arguments::new(&statement.parameters);
    let reading = sql::reading_form(&statement.sql);
    let text = reading.as_deref().unwrap_or(&statement.sql);
    let result = if !sql::is_plain_single(text) {
        run_several(reader, text, &mut arguments, rules)
    } else if sql::is_about_schema(text) {
        run_anew(reader, text, &mut arguments, rules)
    } else {
        reader
            .conn
            .prepare_cached(text)
            .map_err(Failure::Sqlite)
            .and_then(|mut prepared| query::run(&reader.conn, &mut prepared, &mut arguments, rules))
    };
    let refusal = reader.guard.take_refusal();
    match result {
        Ok(result) => result,
        Err(Failure::Refused(text)) => StatementResult::Error(text),
        Err(Failure::Sqlite(error))
            if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) =>
        {
            StatementResult::Error(control.stopped_text())
        }
        Err(Failure::Sqlite(error)) => StatementResult::Error(
            refusal
                .text()
                .map_or_else(|| message(&error), str::to_owned),
        ),
    }
}

/// Makes SQLite notice a schema that the writer changed. It does so when a statement looks at a table; EXPLAIN and some PRAGMAs look
/// at none, and would answer from the schema of the last statement that did.
fn refresh_schema(reader: &Reader) -> rusqlite::Result<()> {
    let mut look = reader
        .conn
        .prepare_cached("SELECT 1 FROM sqlite_schema LIMIT 1")?;
    look.query([])?.next().map(|_| ())
}

/// Runs a statement that answers from the schema, or one that changes the connection while it is prepared: never from the cache.
fn run_anew(
    reader: &Reader,
    sql: &str,
    arguments: &mut Arguments<'_>,
    rules: Rules,
) -> Result<StatementResult, Failure> {
    refresh_schema(reader)?;
    let mut statement = reader.conn.prepare(sql)?;
    query::run(&reader.conn, &mut statement, arguments, rules)
}

fn run_several(
    reader: &Reader,
    sql: &str,
    arguments: &mut Arguments<'_>,
    rules: Rules,
) -> Result<StatementResult, Failure> {
    refresh_schema(reader)?;
    let mut batch = Batch::new(&reader.conn, sql);
    let mut last = StatementResult::Write(node_api::WriteResult::default());
    while let Some(mut statement) = batch.next()? {
        last = query::run(&reader.conn, &mut statement, arguments, rules)?;
    }
    Ok(last)
}
