//! Runs one request on the writing connection, inside a shared transaction or alone.
use std::{sync::atomic::Ordering::Relaxed, time::Instant};

use node_values::{Statement, StatementResult, WriteResult};
use rusqlite::{Batch, fallible_iterator::FallibleIterator as _};

use crate::{
    entry::{Bounds, Kind, Outcome, Request, Stamp},
    sql::{
        classify,
        pragma::{self, Mentions},
        slow_log,
    },
    sqlite::{
        authorizer::{self, Mode, Refusal},
        connection::Session,
        determinism,
        error::{ErrorClass, classify_error, fatal, message},
        meter::{self, ExceededBound, Limits},
        statement::{self, Arguments, Failure, StatementRules},
    },
    types::{Fatal, Origin},
    writer::transaction::{Stop, commit, is_bounded, reopen, rollback, wait_for_space},
};

/// The error of a request that contains a disallowed PRAGMA.
const DISALLOWED_PRAGMA: &str = "disallowed pragma";
/// The error of a read beyond its caller's limit.
const QUERY_TIMEOUT: &str = "query timeout";

pub(crate) fn run_request(
    session: &mut Session,
    request: &Request,
    wanted: bool,
    alone: bool,
) -> Result<Outcome, Stop> {
    let mentions = mentions(&request.statements);
    let v2 = request.rules.is_v2();
    session.use_rules(request.rules);
    if mentions.pragma
        && request
            .statements
            .iter()
            .any(|statement| pragma::disallowed_pragma_by(&statement.sql, v2))
    {
        return Ok(Outcome {
            results: Vec::new(),
            error: Some(DISALLOWED_PRAGMA.to_owned()),
        });
    }
    session
        .begin_request(request.stamp, mentions.changes)
        .and_then(|()| session.limit(request.rules.bounds()))
        .map_err(|error| fatal("begin a request", &error))?;
    let rules = StatementRules {
        kind: request.kind,
        qualify_columns: request.qualify_columns,
        keep_rows: wanted,
        counters: true,
    };
    let mut run = RequestRun {
        session,
        rules,
        alone,
        isolated: alone && is_bounded(request),
        transaction: request.transaction,
        mentions,
        stamp: request.stamp,
        bounds: request.rules.bounds(),
        used_steps: 0,
        maintenance: false,
        steps_exhausted: false,
    };
    if request.transaction {
        run.begin()?;
    }
    let (results, failed) = run_statements(&mut run, request, wanted)?;
    let error = if request.transaction {
        run.end(failed)?
    } else {
        None
    };
    meter::end();
    Ok(Outcome { results, error })
}

/// The results, if they are wanted, and whether a statement failed that ends the transaction.
fn run_statements(
    run: &mut RequestRun<'_>,
    request: &Request,
    wanted: bool,
) -> Result<(Vec<StatementResult>, bool), Stop> {
    let mut results = Vec::with_capacity(if wanted { request.statements.len() } else { 0 });
    let mut room = statement::max_result_bytes();
    let mut failed = false;
    for statement in request
        .statements
        .iter()
        .filter(|statement| !statement.sql.is_empty())
    {
        let result = run.run_logged(statement)?;
        let error = matches!(result, StatementResult::Error(_));
        if error {
            run.session.meters.failed.fetch_add(1, Relaxed);
        }
        if wanted {
            results.push(statement::cap_result(&mut room, result));
        }
        if error && request.transaction && request.kind != Kind::Query {
            failed = true;
            break;
        }
    }
    Ok((results, failed))
}

fn mentions(statements: &[Statement]) -> Mentions {
    statements
        .iter()
        .map(|statement| pragma::mentions(&statement.sql))
        .fold(Mentions::default(), |all, one| Mentions {
            pragma: all.pragma || one.pragma,
            changes: all.changes || one.changes,
        })
}

/// A running request.
struct RequestRun<'s> {
    session: &'s mut Session,
    rules: StatementRules,
    /// It runs outside the transaction shared with other requests.
    alone: bool,
    /// It runs on a connection opened for it, so that what is counted depends on nothing else.
    isolated: bool,
    transaction: bool,
    mentions: Mentions,
    stamp: Stamp,
    bounds: Bounds,
    /// Steps used by the earlier statements of the request.
    used_steps: u64,
    /// The current statement is a maintenance statement: its run time is bounded by the size of the database.
    maintenance: bool,
    /// A statement has used up the steps of the request.
    steps_exhausted: bool,
}

impl RequestRun<'_> {
    fn begin(&self) -> Result<(), Fatal> {
        let sql = if self.alone {
            "BEGIN"
        } else {
            "SAVEPOINT request"
        };
        if self.alone {
            meter::begin_transaction();
        }
        self.session
            .internal(sql)
            .map_err(|error| fatal("begin a request's transaction", &error))
    }

    /// Ends the request's own transaction. Returns the reason if it could not be committed.
    fn end(&self, failed: bool) -> Result<Option<String>, Stop> {
        let internal = |sql| self.session.internal(sql);
        let context = |error| Stop::Fatal(fatal("end a request's transaction", &error));
        if self.session.conn.is_autocommit() {
            // A statement rolled back everything.
            return Ok(None);
        }
        meter::end();
        if self.alone {
            // COMMIT writes the pages still in the cache, which count for this request.
            meter::begin(Limits {
                steps: u64::MAX,
                ..self.limits_for(false)
            });
            let committed = if failed { Ok(()) } else { internal("COMMIT") };
            let error = match committed {
                Ok(()) => None,
                Err(error) => Some(match classify_error(&error) {
                    ErrorClass::DiskFull => return Err(Stop::DiskFull),
                    ErrorClass::Machine => return Err(Stop::Fatal(fatal("commit", &error))),
                    ErrorClass::Bound(over) => self.exceeded_text(over),
                    ErrorClass::Statement => message(&error),
                }),
            };
            rollback(self.session)?;
            return Ok(error);
        }
        let violated = !failed && determinism::has_deferred_violations(&self.session.conn);
        if failed || violated {
            internal("ROLLBACK TO request").map_err(context)?;
            self.session.restore_statistics().map_err(context)?;
        }
        internal("RELEASE request").map_err(context)?;
        Ok(violated.then(|| "FOREIGN KEY constraint failed".to_owned()))
    }

    /// The limits of the next statement.
    fn limits_for(&self, maintenance: bool) -> Limits {
        let allowed = Limits {
            steps: if maintenance {
                self.bounds.maintenance_vm_steps
            } else {
                self.bounds.vm_steps
            },
            disk_bytes: self.bounds.disk_bytes,
        };
        let allowed = if self.isolated {
            allowed
        } else {
            allowed.half()
        };
        Limits {
            steps: allowed.steps.saturating_sub(self.used_steps),
            ..allowed
        }
    }

    /// The error text for a request that exceeded a bound. A read that exceeds its caller's limit says what
    /// it says where that limit is a time.
    fn exceeded_text(&self, over: ExceededBound) -> String {
        let of_caller = self.bounds.maintenance_vm_steps != u64::MAX;
        if over == ExceededBound::Steps && of_caller && self.rules.kind == Kind::Query {
            return QUERY_TIMEOUT.to_owned();
        }
        over.text(self.bounds)
    }

    /// Whether the statement runs in autocommit, in no shared transaction.
    fn is_autocommit_statement(&self) -> bool {
        self.alone && !self.transaction
    }

    /// Runs one prepared statement.
    fn step(
        &self,
        statement: &mut rusqlite::Statement<'_>,
        arguments: &mut Arguments<'_>,
        vacuum: bool,
    ) -> Result<StatementResult, Failure> {
        if vacuum && self.isolated && !self.transaction {
            check_space_to_vacuum(self.session, self.bounds)?;
            self.session.limit(Bounds::NONE)?;
            meter::begin(Limits {
                disk_bytes: u64::MAX,
                ..self.limits_for(true)
            });
            let result = self.step_once(statement, arguments, vacuum);
            self.session.limit(self.bounds)?;
            return result;
        }
        let before = (determinism::save(&self.session.conn), arguments.mark());
        loop {
            if self.is_autocommit_statement() {
                meter::begin_transaction();
            }
            let result = self.step_once(statement, arguments, vacuum);
            // The earlier statements of the request are committed, so only this one is repeated.
            if self.is_autocommit_statement()
                && let Err(Failure::Sqlite(error)) = &result
                && error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
                && meter::take_full()
            {
                if wait_for_space(self.session).is_ok() {
                    determinism::restore(&self.session.conn, before.0);
                    arguments.go_back(before.1);
                    meter::begin(self.limits_for(self.maintenance));
                    continue;
                }
                meter::note_full();
            }
            return result;
        }
    }

    fn step_once(
        &self,
        statement: &mut rusqlite::Statement<'_>,
        arguments: &mut Arguments<'_>,
        vacuum: bool,
    ) -> Result<StatementResult, Failure> {
        let authorizer = &self.session.authorizer;
        let writes = statement.is_explain() == 0 && !statement.readonly();
        if writes && authorizer.is_node_local() {
            return Err(Failure::Refused(authorizer::NODE_LOCAL_TEXT.to_owned()));
        }
        authorizer.set_writes(writes);
        authorizer.set_vacuum(vacuum);
        let result = statement::run(&self.session.conn, statement, arguments, self.rules);
        authorizer.set_vacuum(false);
        authorizer.set_writes(false);
        if vacuum && result.is_ok() {
            self.session.meters.maintenance.vacuumed(self.stamp);
        }
        // SQLite may ask the authorizer during a step, too: VACUUM and table-valued pragmas prepare
        // statements of their own.
        result.map_err(|failure| match failure {
            Failure::Sqlite(error) => refused(authorizer.take_refusal(), error),
            other => other,
        })
    }

    /// Runs a statement, and logs it if it was slow. Its client is unknown here, because entries do not name
    /// clients.
    fn run_logged(&mut self, statement: &Statement) -> Result<StatementResult, Stop> {
        let begun = self
            .session
            .meters
            .slow
            .map(|limit| (limit, Instant::now()));
        let result = self.statement(statement);
        if let Some((limit, begun)) = begun
            && begun.elapsed() >= limit
        {
            let text = slow_log::shortened(&statement.sql);
            slow_log::log("write", &text, begun.elapsed(), &Origin::default(), None);
        }
        result
    }

    fn statement(&mut self, statement: &Statement) -> Result<StatementResult, Stop> {
        if self.steps_exhausted {
            return Ok(StatementResult::Error(
                self.exceeded_text(ExceededBound::Steps),
            ));
        }
        let fresh = self.mentions.pragma
            && !self.transaction
            && pragma::needs_fresh_connection(&statement.sql);
        if fresh {
            self.leave_transaction()?;
            reopen(self.session)?;
            determinism::forget_changes(&self.session.conn);
        }
        let single = classify::is_plain_single(&statement.sql);
        self.maintenance = single && classify::is_maintenance(&statement.sql);
        meter::begin(self.limits_for(self.maintenance));
        let mut arguments = Arguments::new(&statement.parameters);
        let reading = if self.mentions.pragma && self.session.authorizer.is_v2() {
            pragma::reading_form(&statement.sql)
        } else {
            None
        };
        let text = reading.as_deref().unwrap_or(&statement.sql);
        let result = if classify::is_plain_single(text) {
            self.single(text, &mut arguments)
        } else {
            self.several(text, &mut arguments)
        };
        let result = self.finish(result?)?;
        if !self.maintenance {
            self.used_steps = self.used_steps.saturating_add(meter::steps());
        }
        if fresh && !matches!(result, StatementResult::Error(_)) {
            self.session.meters.maintenance.optimized(self.stamp);
        }
        Ok(result)
    }

    /// Turns the result of a statement into its outcome, and checks that the shared transaction is still
    /// intact.
    fn finish(
        &mut self,
        result: Result<StatementResult, Failure>,
    ) -> Result<StatementResult, Stop> {
        let result = match result {
            Ok(result) => result,
            Err(Failure::Refused(text)) => StatementResult::Error(text),
            Err(Failure::Sqlite(error)) => {
                let classify_error = classify_error(&error);
                // What follows is not counted for the request.
                meter::end();
                match classify_error {
                    ErrorClass::Machine => {
                        return Err(Stop::Fatal(fatal("run a statement", &error)));
                    }
                    ErrorClass::DiskFull => return Err(Stop::DiskFull),
                    ErrorClass::Bound(_) if !self.isolated => return Err(Stop::RunAlone),
                    ErrorClass::Bound(_) | ErrorClass::Statement => {}
                }
                if !self.alone && self.session.conn.is_autocommit() {
                    return Err(Stop::RunAlone);
                }
                self.session
                    .restore_statistics()
                    .map_err(|error| fatal("read the statistics", &error))?;
                if let ErrorClass::Bound(over) = classify_error {
                    self.steps_exhausted = over == ExceededBound::Steps;
                    StatementResult::Error(self.exceeded_text(over))
                } else {
                    StatementResult::Error(message(&error))
                }
            }
        };
        if !self.alone
            && !self.transaction
            && self.session.enforces_foreign_keys()
            && determinism::has_deferred_violations(&self.session.conn)
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
        let vacuum = classify::is_vacuum(sql);
        if vacuum && !self.transaction {
            self.leave_transaction()?;
        }
        loop {
            self.session
                .authorizer
                .set_mode(mode(self.transaction, self.alone));
            let kept = !self.isolated;
            let error = match self.session.prepare(sql, !arguments.is_empty(), kept) {
                Ok(mut prepared) => return Ok(self.step(prepared.statement(), arguments, vacuum)),
                Err(error) => error,
            };
            match self.session.authorizer.take_refusal() {
                Refusal::NeedsAutocommit => self.leave_transaction()?,
                refusal => return Ok(Err(refused(refusal, error))),
            }
        }
    }

    /// Runs several statements in sequence; each is prepared after the ones before it have run.
    fn several(
        &mut self,
        sql: &str,
        arguments: &mut Arguments<'_>,
    ) -> Result<Result<StatementResult, Failure>, Stop> {
        let mut batch = Batch::new(&self.session.conn, sql);
        let mut last = StatementResult::Write(WriteResult::default());
        loop {
            let authorizer = &self.session.authorizer;
            authorizer.set_mode(mode(self.transaction, self.alone));
            authorizer.start_statement();
            match batch.next() {
                Ok(None) => return Ok(Ok(last)),
                Ok(Some(mut statement)) => {
                    let vacuum = is_vacuum(&statement);
                    if vacuum && !self.transaction {
                        leave_transaction(self.session, self.bounds, &mut self.alone)?;
                    }
                    match self.step(&mut statement, arguments, vacuum) {
                        Ok(result) => last = result,
                        failed => return Ok(failed),
                    }
                    if !self.alone
                        && !self.transaction
                        && self.session.enforces_foreign_keys()
                        && determinism::has_deferred_violations(&self.session.conn)
                    {
                        return Err(Stop::RunAlone);
                    }
                }
                Err(error) => match self.session.authorizer.take_refusal() {
                    Refusal::NeedsAutocommit => {
                        leave_transaction(self.session, self.bounds, &mut self.alone)?;
                    }
                    refusal => return Ok(Err(refused(refusal, error))),
                },
            }
        }
    }

    fn leave_transaction(&mut self) -> Result<(), Stop> {
        leave_transaction(self.session, self.bounds, &mut self.alone)
    }
}

/// Continues the request in autocommit. What it did so far is committed together with the requests before it.
/// That is equivalent, because outside a transaction of its own each statement stands alone. A request with
/// bounds starts over alone instead.
fn leave_transaction(session: &Session, bounds: Bounds, alone: &mut bool) -> Result<(), Stop> {
    if *alone {
        return Ok(());
    }
    if bounds != Bounds::NONE {
        return Err(Stop::RunAlone);
    }
    commit(session)?;
    *alone = true;
    Ok(())
}

/// Checks the space for a VACUUM: it writes the whole database to a temporary file and from there into the
/// WAL. A checkpoint does not make the main file longer afterwards.
pub(crate) fn check_space_to_vacuum(session: &Session, bounds: Bounds) -> Result<(), Failure> {
    let needed_bytes = session.wal_bytes_of_all_pages()? * 2;
    if needed_bytes <= bounds.disk_bytes {
        return Ok(());
    }
    Err(Failure::Refused(format!(
        "database or disk is full: a VACUUM takes {needed_bytes} bytes of disk, {} are to spare",
        bounds.disk_bytes
    )))
}

fn mode(transaction: bool, alone: bool) -> Mode {
    match (transaction, alone) {
        (true, _) => Mode::Transaction,
        (false, true) => Mode::Autocommit,
        (false, false) => Mode::Batch,
    }
}

fn is_vacuum(statement: &rusqlite::Statement<'_>) -> bool {
    statement
        .expanded_sql()
        .is_some_and(|sql| classify::is_vacuum(&sql))
}

fn refused(refusal: Refusal, error: rusqlite::Error) -> Failure {
    match refusal.text() {
        Some(text) => Failure::Refused(text.to_owned()),
        None => Failure::Sqlite(error),
    }
}
