//! Whose fault an SQLite error is: the statement's, which every node repeats, or this machine's, which others may not have.
use rusqlite::{Error, ErrorCode, ffi};

use crate::{
    sqlite::meter::{self, ExceededBound},
    types::Fatal,
};

/// SQLite's message alone, as clients see it.
pub(crate) fn message(error: &Error) -> String {
    match error {
        Error::SqliteFailure(_, Some(text)) | Error::SqlInputError { msg: text, .. } => {
            text.clone()
        }
        Error::SqliteFailure(code, None) => ffi::code_to_str(code.extended_code).to_owned(),
        other => other.to_string(),
    }
}

/// Who is to blame for an SQLite error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorClass {
    /// The statement, or what the database holds: every node gets the same.
    Statement,
    /// The request has passed one of its bounds.
    Bound(ExceededBound),
    /// This machine's disk is full.
    DiskFull,
    /// This machine, for another reason: another node that runs the same statement may not get the error.
    Machine,
}

/// Who is to blame. Asks (and resets) the thread's record of refused disk writes and passed bounds, so it belongs on the
/// writing thread.
pub(crate) fn classify_error(error: &Error) -> ErrorClass {
    let Some(code) = error.sqlite_error() else {
        return ErrorClass::Statement;
    };
    let (full, over) = (meter::take_full(), meter::take_exceeded());
    match (code.code, over) {
        (ErrorCode::DiskFull, _) if full => ErrorClass::DiskFull,
        (ErrorCode::DiskFull | ErrorCode::OperationInterrupted, Some(over)) => {
            ErrorClass::Bound(over)
        }
        (ErrorCode::DiskFull, None) => ErrorClass::Statement,
        // The content's: an index that does not fit its table, or nonsense that a client wrote into the shadow tables of a
        // virtual table. It came through the log, or in a loaded file, so every node has it.
        (ErrorCode::DatabaseCorrupt, _)
            if matches!(
                code.extended_code,
                ffi::SQLITE_CORRUPT_INDEX | ffi::SQLITE_CORRUPT_VTAB | ffi::SQLITE_CORRUPT_SEQUENCE
            ) =>
        {
            ErrorClass::Statement
        }
        (
            ErrorCode::DatabaseCorrupt
            | ErrorCode::SystemIoFailure
            | ErrorCode::OutOfMemory
            | ErrorCode::ReadOnly
            | ErrorCode::CannotOpen
            | ErrorCode::NotADatabase
            | ErrorCode::OperationInterrupted
            | ErrorCode::DatabaseBusy
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::NoLargeFileSupport,
            _,
        ) => ErrorClass::Machine,
        _ => ErrorClass::Statement,
    }
}

/// A fault with what was being done.
pub(crate) fn fatal(doing: &str, error: &Error) -> Fatal {
    Fatal(format!("{doing}: {}", message(error)))
}

/// The same for the file system's errors.
pub(crate) fn fatal_io(doing: &str, error: &std::io::Error) -> Fatal {
    Fatal(format!("{doing}: {error}"))
}
