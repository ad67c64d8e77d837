//! Runs the statements of a read on any thread and connection.
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use node_values::{Rows, Statement, StatementResult};
use rusqlite::{Batch, ErrorCode, fallible_iterator::FallibleIterator as _};

use super::{
    sink::{Buffered, Sink, Streaming},
    state::{Job, ReadJob, Reader, Readers, shown},
};
use crate::{
    entry::Outcome,
    readers::{control::Control, parts::ReadOutput},
    sql::{classify, pragma, slow_log},
    sqlite::{
        connection::internal,
        error::message,
        statement::{self, Arguments, Failure, Overflow, StatementRules},
    },
    types::{Origin, Read},
};

pub(super) fn run_job(readers: &Arc<Readers>, id: u64, job: Job, reader: Option<&Reader>) {
    match (job, reader) {
        // The caller has gone.
        (Job::Read(job), _) if job.reply.is_closed() => {}
        (Job::Read(job), None) => {
            let refused = Outcome::refused("unable to open the database for reading");
            let _ = job.reply.send(ReadOutput::Complete(refused));
        }
        (Job::Read(job), Some(reader)) => answer(readers, id, *job, reader),
        (Job::Classify { sql, reply }, reader) => {
            let read_only = reader.is_some_and(|reader| {
                let prepared = Batch::new(&reader.conn, &sql).next();
                let _ = reader.authorizer.take_refusal();
                matches!(prepared, Ok(Some(statement)) if statement.readonly())
            });
            let _ = reply.send(read_only);
        }
    }
}

fn answer(readers: &Arc<Readers>, id: u64, job: ReadJob, reader: &Reader) {
    let ReadJob {
        read,
        origin,
        since,
        control,
        reply,
        streams,
    } = job;
    let deadline = read.timeout.and_then(|timeout| since.checked_add(timeout));
    if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
        let late = Outcome::refused("context deadline exceeded");
        let _ = reply.send(ReadOutput::Complete(late));
        return;
    }
    control.arm(deadline, None);
    let slow = readers.settings.slow.map(|limit| (limit, &origin));
    if streams {
        let mut flowing = Streaming::new(readers, id, &control, reply);
        let error = run_read(reader, &control, &read, &mut flowing, slow);
        flowing.finish(error);
    } else {
        let mut whole = Buffered::new(&control);
        let error = run_read(reader, &control, &read, &mut whole, slow);
        let results = whole.results;
        let _ = reply.send(ReadOutput::Complete(Outcome { results, error }));
    }
}

/// Runs the statements. Returns the reason if the read as a whole was refused. `slow`: the threshold and the
/// origin for logging slow statements.
pub(super) fn run_read(
    reader: &Reader,
    control: &Control,
    read: &Read,
    sink: &mut dyn Sink,
    slow: Option<(Duration, &Origin)>,
) -> Option<String> {
    if read
        .statements
        .iter()
        .any(|statement| pragma::disallowed_pragma(&statement.sql))
    {
        return Some("disallowed pragma".to_owned());
    }
    let rules = StatementRules {
        kind: read.kind,
        qualify_columns: read.qualify_columns,
        keep_rows: true,
        counters: false,
    };
    // A single statement is a read transaction by itself.
    let transaction = read.transaction && read.statements.len() > 1;
    if transaction && let Err(error) = internal(&reader.conn, &reader.authorizer, "BEGIN") {
        return Some(message(&error));
    }
    let statements = read.statements.iter().enumerate();
    for (at, statement) in statements.filter(|(_, statement)| !statement.sql.is_empty()) {
        control.set_statement(at);
        let begun = slow.map(|_| Instant::now());
        let result = run_statement(reader, control, statement, rules, sink);
        sink.result(result);
        if let (Some((limit, origin)), Some(begun)) = (slow, begun)
            && begun.elapsed() >= limit
        {
            let ended = control.is_stopped().then(|| control.reason().text());
            slow_log::log("read", &shown(read, at), begun.elapsed(), origin, ended);
        }
    }
    if transaction && let Err(error) = internal(&reader.conn, &reader.authorizer, "ROLLBACK") {
        return Some(message(&error));
    }
    None
}

fn run_statement(
    reader: &Reader,
    control: &Control,
    statement: &Statement,
    rules: StatementRules,
    sink: &mut dyn Sink,
) -> StatementResult {
    // A reason that stopped one statement applies to the later ones, too.
    if control.is_stopped() || control.is_late() {
        return StatementResult::Error(control.stopped_text());
    }
    let mut arguments = Arguments::new(&statement.parameters);
    let reading = pragma::reading_form(&statement.sql);
    let text = reading.as_deref().unwrap_or(&statement.sql);
    let result = if !classify::is_plain_single(text) {
        run_several(reader, text, &mut arguments, rules, sink)
    } else if classify::is_about_schema(text) {
        run_again(reader, text, &mut arguments, rules, sink)
    } else {
        reader
            .conn
            .prepare_cached(text)
            .map_err(Failure::Sqlite)
            .and_then(|mut prepared| {
                statement::run_into(&reader.conn, &mut prepared, &mut arguments, rules, sink)
            })
    };
    let refusal = reader.authorizer.take_refusal();
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

/// Makes SQLite notice a schema change by the writer. SQLite checks the schema when a statement reads a
/// table. EXPLAIN and some PRAGMAs read none and would answer from an outdated schema.
fn refresh_schema(reader: &Reader) -> rusqlite::Result<()> {
    let mut look = reader
        .conn
        .prepare_cached("SELECT 1 FROM sqlite_schema LIMIT 1")?;
    look.query([])?.next().map(|_| ())
}

/// Runs a statement that answers from the schema or changes the connection while it is prepared: never from
/// the statement cache.
fn run_again(
    reader: &Reader,
    sql: &str,
    arguments: &mut Arguments<'_>,
    rules: StatementRules,
    sink: &mut dyn Sink,
) -> Result<StatementResult, Failure> {
    refresh_schema(reader)?;
    let mut statement = reader.conn.prepare(sql)?;
    statement::run_into(&reader.conn, &mut statement, arguments, rules, sink)
}

/// Runs several statements. Only the last one's result is returned, so only that one may become large.
fn run_several(
    reader: &Reader,
    sql: &str,
    arguments: &mut Arguments<'_>,
    rules: StatementRules,
    sink: &mut dyn Sink,
) -> Result<StatementResult, Failure> {
    refresh_schema(reader)?;
    let conn = &reader.conn;
    let mut batch = Batch::new(conn, sql);
    let mut next = batch.next()?;
    while let Some(mut statement) = next {
        let following = batch.next();
        if matches!(following, Ok(None)) {
            return statement::run_into(conn, &mut statement, arguments, rules, sink);
        }
        statement::run_into(conn, &mut statement, arguments, rules, &mut Unseen)?;
        next = following?;
    }
    Ok(StatementResult::Write(node_values::WriteResult::default()))
}

/// Discards rows of results that are not returned.
struct Unseen;

impl Overflow for Unseen {
    fn limit(&self) -> usize {
        0
    }

    fn take(&mut self, rows: &mut Rows) -> Result<(), Failure> {
        rows.values.clear();
        Ok(())
    }
}
