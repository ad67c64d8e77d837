//! The shared transaction of a batch: commit, rollback, and what stops a batch.
use crate::{
    entry::{Bounds, Request},
    sqlite::{
        connection::Session,
        error::{ErrorClass, classify_error, fatal},
        meter,
    },
    types::Fatal,
};

/// Why a batch stopped.
pub(crate) enum Stop {
    /// This machine failed.
    Fatal(Fatal),
    /// The request rolled back the shared transaction, or cannot run inside it, or may exceed its bounds. It
    /// must run alone.
    RunAlone,
    /// The disk is full.
    DiskFull,
}

impl From<Fatal> for Stop {
    fn from(fatal: Fatal) -> Self {
        Self::Fatal(fatal)
    }
}

pub(crate) fn reopen(session: &mut Session) -> Result<(), Fatal> {
    session
        .reopen()
        .map_err(|error| fatal("reopen the database", &error))
}

/// Commits the shared transaction, if one is open.
pub(crate) fn commit(session: &Session) -> Result<(), Stop> {
    if session.conn.is_autocommit() {
        return Ok(());
    }
    // The commit is counted for no single request.
    meter::end();
    session
        .internal("COMMIT")
        .map_err(|error| match classify_error(&error) {
            ErrorClass::DiskFull => Stop::DiskFull,
            _ => Stop::Fatal(fatal("commit", &error)),
        })?;
    session.authorizer.forget_analyze();
    Ok(())
}

/// Rolls back the open transaction, if there is one.
pub(crate) fn rollback(session: &Session) -> Result<(), Fatal> {
    meter::end();
    if session.conn.is_autocommit() {
        return Ok(());
    }
    session
        .internal("ROLLBACK")
        .and_then(|()| session.restore_statistics())
        .map_err(|error| fatal("roll back", &error))
}

pub(crate) fn is_bounded(request: &Request) -> bool {
    request.rules.bounds() != Bounds::NONE
}

/// Rolls back the open transaction, gives its disk space back, and returns when a retry is worthwhile.
pub(crate) fn wait_for_space(session: &Session) -> Result<(), Fatal> {
    let taken_bytes = meter::taken_bytes();
    rollback(session)?;
    session.shorten_wal();
    session.meters.disk_wait.wait(taken_bytes)?;
    meter::begin_transaction();
    Ok(())
}
