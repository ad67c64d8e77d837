//! Running requests on the writing connection, many in one transaction, so that each gives what it would give alone.
use std::sync::atomic::Ordering::Relaxed;

use node_api::{Statement, StatementResult, WriteResult};
use rusqlite::{Batch, fallible_iterator::FallibleIterator as _};

use crate::{
    Fatal, Kind, Outcome, Request, Stamp, clock,
    connection::Session,
    fault::{fatal, is_machine_fault, message},
    guard::{self, Mode, Refusal},
    query::{self, Arguments, Failure, Rules},
    sql::{self, Mentions},
};

/// Why a run of requests stopped.
pub(crate) enum Stop {
    /// The machine failed.
    Fatal(Fatal),
    /// The request undid, or cannot end inside, the transaction it shares with others.
    RunAlone,
}

impl From<Fatal> for Stop {
    fn from(fatal: Fatal) -> Self {
        Self::Fatal(fatal)
    }
}

/// What a client's whole request gets for a forbidden PRAGMA.
const DISALLOWED_PRAGMA: &str = "disallowed pragma";

/// Runs requests in order inside as few transactions as possible and commits. `requests` gives each with whether its
/// outcome is wanted.
pub(crate) fn run_all(
    session: &mut Session,
    requests: &[(&Request, bool)],
) -> Result<Vec<Outcome>, Fatal> {
    let mut outcomes = vec![Outcome::default(); requests.len()];
    // Requests from here on are in the open transaction.
    let mut first_open = 0;
    let mut alone = None;
    let mut at = 0;
    while let Some(&(request, wanted)) = requests.get(at) {
        if !wanted && request.kind == Kind::Query {
            at += 1;
            continue;
        }
        let solo = alone == Some(at);
        if solo {
            commit(session)?;
        } else if session.conn.is_autocommit() {
            session
                .internal("BEGIN")
                .map_err(|error| fatal("begin a transaction", &error))?;
        }
        match run_request(session, request, wanted, solo) {
            Ok(outcome) => {
                outcomes[at] = outcome;
                if request.rules.is_v2() {
                    session
                        .end_request()
                        .map_err(|error| fatal("end a request", &error))?;
                }
                at += 1;
                if session.guard.is_dirty() {
                    commit(session)?;
                    session
                        .reopen()
                        .map_err(|error| fatal("reopen the database", &error))?;
                }
                if session.conn.is_autocommit() {
                    first_open = at;
                }
            }
            Err(Stop::Fatal(fatal)) => return Err(fatal),
            Err(Stop::RunAlone) => {
                // Everything in the transaction is deterministic, so its requests give the same again.
                rollback(session)?;
                session.guard.note_schema_change();
                alone = Some(at);
                at = first_open;
            }
        }
    }
    commit(session)?;
    session.guard.set_mode(Mode::Internal);
    Ok(outcomes)
}

/// Ends the shared transaction, if one is open.
pub(crate) fn commit(session: &Session) -> Result<(), Fatal> {
    if session.conn.is_autocommit() {
        return Ok(());
    }
    session
        .internal("COMMIT")
        .map_err(|error| fatal("commit", &error))?;
    session.guard.forget_analyze();
    Ok(())
}

/// Undoes the open transaction, if any.
pub(crate) fn rollback(session: &Session) -> Result<(), Fatal> {
    if session.conn.is_autocommit() {
        return Ok(());
    }
    session
        .internal("ROLLBACK")
        .and_then(|()| session.restore_statistics())
        .map_err(|error| fatal("roll back", &error))
}

fn run_request(
    session: &mut Session,
    request: &Request,
    wanted: bool,
    solo: bool,
) -> Result<Outcome, Stop> {
    let mentions = mentions(&request.statements);
    let v2 = request.rules.is_v2();
    session.follow(request.rules);
    if mentions.pragma
        && request
            .statements
            .iter()
            .any(|statement| sql::disallowed_pragma_by(&statement.sql, v2))
    {
        return Ok(Outcome {
            results: Vec::new(),
            error: Some(DISALLOWED_PRAGMA.to_owned()),
        });
    }
    session
        .begin_request(request.stamp, mentions.changes)
        .map_err(|error| fatal("begin a request", &error))?;
    let rules = Rules {
        kind: request.kind,
        qualify_columns: request.qualify_columns,
        wanted,
        counters: true,
    };
    let mut run = Run {
        session,
        rules,
        solo,
        transaction: request.transaction,
        mentions,
        stamp: request.stamp,
    };
    if request.transaction {
        run.begin()?;
    }
    let mut results = Vec::with_capacity(if wanted { request.statements.len() } else { 0 });
    let mut room = query::room_for_results();
    let mut failed = false;
    for statement in request
        .statements
        .iter()
        .filter(|statement| !statement.sql.is_empty())
    {
        let result = run.statement(statement)?;
        let error = matches!(result, StatementResult::Error(_));
        if error {
            run.session.meters.failed.fetch_add(1, Relaxed);
        }
        if wanted {
            results.push(query::within(&mut room, result));
        }
        if error && request.transaction && request.kind != Kind::Query {
            failed = true;
            break;
        }
    }
    let error = if request.transaction {
        run.end(failed)?
    } else {
        None
    };
    Ok(Outcome { results, error })
}

fn mentions(statements: &[Statement]) -> Mentions {
    statements
        .iter()
        .map(|statement| sql::mentions(&statement.sql))
        .fold(Mentions::default(), |all, one| Mentions {
            pragma: all.pragma || one.pragma,
            changes: all.changes || one.changes,
        })
}

/// One request under way.
struct Run<'s> {
    session: &'s mut Session,
    rules: Rules,
    /// Not inside the transaction of other requests.
    solo: bool,
    transaction: bool,
    mentions: Mentions,
    stamp: Stamp,
}

impl Run<'_> {
    fn begin(&self) -> Result<(), Fatal> {
        let sql = if self.solo {
            "BEGIN"
        } else {
            "SAVEPOINT request"
        };
        self.session
            .internal(sql)
            .map_err(|error| fatal("begin a request's transaction", &error))
    }

    /// Ends the request's own transaction; gives the reason if it could not be committed.
    fn end(&self, failed: bool) -> Result<Option<String>, Fatal> {
        let internal = |sql| self.session.internal(sql);
        let context = |error| fatal("end a request's transaction", &error);
        if self.session.conn.is_autocommit() {
            // A statement rolled everything back.
            return Ok(None);
        }
        if self.solo {
            let committed = if failed { Ok(()) } else { internal("COMMIT") };
            if let Err(error) = &committed
                && is_machine_fault(error)
            {
                return Err(fatal("commit", error));
            }
            rollback(self.session)?;
            return Ok(committed.err().map(|error| message(&error)));
        }
        let violated = !failed && clock::has_deferred_violations(&self.session.conn);
        if failed || violated {
            internal("ROLLBACK TO request").map_err(context)?;
            self.session.restore_statistics().map_err(context)?;
        }
        internal("RELEASE request").map_err(context)?;
        Ok(violated.then(|| "FOREIGN KEY constraint failed".to_owned()))
    }

    /// Steps one prepared statement.
    fn step(
        &self,
        statement: &mut rusqlite::Statement<'_>,
        arguments: &mut Arguments<'_>,
        vacuum: bool,
    ) -> Result<StatementResult, Failure> {
        let guard = &self.session.guard;
        let writes = statement.is_explain() == 0 && !statement.readonly();
        if writes && guard.is_local() {
            return Err(Failure::Refused(guard::LOCAL_TEXT.to_owned()));
        }
        guard.set_writes(writes);
        guard.set_vacuum(vacuum);
        let result = query::run(&self.session.conn, statement, arguments, self.rules);
        guard.set_vacuum(false);
        guard.set_writes(false);
        if vacuum && result.is_ok() {
            self.session.meters.upkeep.vacuumed(self.stamp);
        }
        // A refusal can come while stepping, too: VACUUM and table-valued pragmas prepare statements of their own.
        result.map_err(|failure| match failure {
            Failure::Sqlite(error) => refused(guard.take_refusal(), error),
            other => other,
        })
    }

    fn statement(&mut self, statement: &Statement) -> Result<StatementResult, Stop> {
        let fresh = self.mentions.pragma
            && !self.transaction
            && sql::needs_fresh_connection(&statement.sql);
        if fresh {
            self.leave_transaction()?;
            self.session
                .reopen()
                .map_err(|error| fatal("reopen the database", &error))?;
            clock::forget_changes(&self.session.conn);
        }
        let mut arguments = Arguments::new(&statement.parameters);
        let reading = if self.mentions.pragma && self.session.guard.is_v2() {
            sql::reading_form(&statement.sql)
        } else {
            None
        };
        let text = reading.as_deref().unwrap_or(&statement.sql);
        let result = if sql::is_plain_single(text) {
            self.single(text, &mut arguments)
        } else {
            self.several(text, &mut arguments)
        };
        let result = self.finish(result?)?;
        if fresh && !matches!(result, StatementResult::Error(_)) {
            self.session.meters.upkeep.optimized(self.stamp);
        }
        Ok(result)
    }

    /// Judges what a statement gave, and whether it left the shared transaction as it must be.
    fn finish(&self, result: Result<StatementResult, Failure>) -> Result<StatementResult, Stop> {
        let result = match result {
            Ok(result) => result,
            Err(Failure::Refused(text)) => StatementResult::Error(text),
            Err(Failure::Sqlite(error)) => {
                if is_machine_fault(&error) {
                    return Err(Stop::Fatal(fatal("run a statement", &error)));
                }
                if !self.solo && self.session.conn.is_autocommit() {
                    return Err(Stop::RunAlone);
                }
                self.session
                    .restore_statistics()
                    .map_err(|error| fatal("read the statistics", &error))?;
                StatementResult::Error(message(&error))
            }
        };
        if !self.solo
            && !self.transaction
            && self.session.enforces_foreign_keys()
            && clock::has_deferred_violations(&self.session.conn)
        {
            return Err(Stop::RunAlone);
        }
        Ok(result)
    }

    fn single(
        &mut self,
        sql: &str,
        arguments: &mut Arguments<'_>,
    ) -> Result<Result<StatementResult, Failure>, Stop> {
        let vacuum = sql::is_vacuum(sql);
        if vacuum && !self.transaction {
            self.leave_transaction()?;
        }
        loop {
            self.session
                .guard
                .set_mode(mode(self.transaction, self.solo));
            let error = match self.session.prepare(sql, !arguments.is_empty()) {
                Ok(mut prepared) => return Ok(self.step(prepared.statement(), arguments, vacuum)),
                Err(error) => error,
            };
            match self.session.guard.take_refusal() {
                Refusal::NeedsSolo => self.leave_transaction()?,
                refusal => return Ok(Err(refused(refusal, error))),
            }
        }
    }

    /// Statements one after the other; each is prepared when those before it have run.
    fn several(
        &mut self,
        sql: &str,
        arguments: &mut Arguments<'_>,
    ) -> Result<Result<StatementResult, Failure>, Stop> {
        let mut batch = Batch::new(&self.session.conn, sql);
        let mut last = StatementResult::Write(WriteResult::default());
        loop {
            let guard = &self.session.guard;
            guard.set_mode(mode(self.transaction, self.solo));
            guard.start_statement();
            match batch.next() {
                Ok(None) => return Ok(Ok(last)),
                Ok(Some(mut statement)) => {
                    let vacuum = is_vacuum(&statement);
                    if vacuum && !self.transaction {
                        commit(self.session)?;
                        self.solo = true;
                    }
                    match self.step(&mut statement, arguments, vacuum) {
                        Ok(result) => last = result,
                        failed => return Ok(failed),
                    }
                    if !self.solo
                        && !self.transaction
                        && self.session.enforces_foreign_keys()
                        && clock::has_deferred_violations(&self.session.conn)
                    {
                        return Err(Stop::RunAlone);
                    }
                }
                Err(error) => match self.session.guard.take_refusal() {
                    Refusal::NeedsSolo => {
                        commit(self.session)?;
                        self.solo = true;
                    }
                    refusal => return Ok(Err(refused(refusal, error))),
                },
            }
        }
    }

    /// From here on the request runs in autocommit. What it did so far is committed with those before it, which is the
    /// same: outside a transaction of its own, each of its statements stands alone.
    fn leave_transaction(&mut self) -> Result<(), Fatal> {
        commit(self.session)?;
        self.solo = true;
        Ok(())
    }
}

fn mode(transaction: bool, solo: bool) -> Mode {
    match (transaction, solo) {
        (true, _) => Mode::Transaction,
        (false, true) => Mode::Solo,
        (false, false) => Mode::Batch,
    }
}

fn is_vacuum(statement: &rusqlite::Statement<'_>) -> bool {
    statement
        .expanded_sql()
        .is_some_and(|sql| sql::is_vacuum(&sql))
}

fn refused(refusal: Refusal, error: rusqlite::Error) -> Failure {
    match refusal.text() {
        Some(text) => Failure::Refused(text.to_owned()),
        None => Failure::Sqlite(error),
    }
}
