//! Applies a batch of requests on the writing connection, many in one transaction. Each has the same outcome
//! as if it ran alone in autocommit.
use crate::{
    entry::{Kind, Outcome, Request},
    sqlite::{
        authorizer::Mode,
        connection::Session,
        error::{ErrorClass, classify_error, fatal},
        meter,
    },
    types::Fatal,
    writer::{
        in_progress::WriteInProgress,
        request::run_request,
        transaction::{Stop, commit, is_bounded, reopen, rollback, wait_for_space},
    },
};

/// Progress through a batch.
struct BatchState {
    at: usize,
    /// Requests from this one on are in the open transaction.
    first_open: usize,
    /// The request that must run alone.
    alone: Option<usize>,
    outcomes: Vec<Outcome>,
}

/// Runs the requests in order, in as few transactions as possible, and commits. Each comes with whether its
/// outcome is needed.
pub(crate) fn run_all(
    session: &mut Session,
    requests: &[(&Request, bool)],
    in_progress: &WriteInProgress,
) -> Result<Vec<Outcome>, Fatal> {
    let mut progress = BatchState {
        at: 0,
        first_open: 0,
        alone: None,
        outcomes: vec![Outcome::default(); requests.len()],
    };
    loop {
        let stop = match run_from(session, requests, in_progress, &mut progress) {
            Ok(()) => break,
            Err(stop) => stop,
        };
        // Everything in the transaction is deterministic, so a second run of its requests has the same
        // outcomes.
        match stop {
            Stop::Fatal(fatal) => return Err(fatal),
            Stop::RunAlone => {
                rollback(session)?;
                progress.alone = Some(progress.at);
            }
            Stop::DiskFull => wait_for_space(session)?,
        }
        session.authorizer.note_schema_change();
        progress.at = progress.first_open;
    }
    meter::end();
    session.meters.disk_wait.found();
    session.authorizer.set_mode(Mode::Internal);
    Ok(progress.outcomes)
}

fn run_from(
    session: &mut Session,
    requests: &[(&Request, bool)],
    in_progress: &WriteInProgress,
    progress: &mut BatchState,
) -> Result<(), Stop> {
    while let Some(&(request, wanted)) = requests.get(progress.at) {
        if !wanted && request.kind == Kind::Query {
            progress.at += 1;
            continue;
        }
        in_progress.reach(progress.at);
        let alone = progress.alone == Some(progress.at);
        if alone {
            commit(session)?;
            progress.first_open = progress.at;
            if is_bounded(request) {
                // Resource use is counted identically on all nodes only from a common starting point.
                reopen(session)?;
            }
        } else if session.conn.is_autocommit() {
            meter::begin_transaction();
            session
                .internal("BEGIN")
                .map_err(|error| fatal("begin a transaction", &error))?;
        }
        progress.outcomes[progress.at] = run_request(session, request, wanted, alone)?;
        if request.rules.is_v2() {
            session
                .end_request()
                .map_err(|error| match classify_error(&error) {
                    ErrorClass::DiskFull => Stop::DiskFull,
                    ErrorClass::Machine => Stop::Fatal(fatal("end a request", &error)),
                    // What a full-text table writes at the end of the request exceeds a bound. Alone, the
                    // statement itself fails.
                    ErrorClass::Bound(_) | ErrorClass::Statement => Stop::RunAlone,
                })?;
        }
        progress.at += 1;
        if session.authorizer.is_dirty() {
            commit(session)?;
            reopen(session)?;
        }
        if session.conn.is_autocommit() {
            progress.first_open = progress.at;
        }
    }
    commit(session)
}
