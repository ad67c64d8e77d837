//! Classification of SQLite errors: caused by the statement, so that every node gets them, or by this machine
//! alone.
use rusqlite::{Error, ErrorCode, ffi};

use crate::{
    sqlite::meter::{self, ExceededBound},
    types::Fatal,
};

/// SQLite's error message as clients see it.
pub(crate) fn message(error: &Error) -> String {
    match error {
        Error::SqliteFailure(_, Some(text)) | Error::SqlInputError { msg: text, .. } => {
            text.clone()
        }
        Error::SqliteFailure(code, None) => ffi::code_to_str(code.extended_code).to_owned(),
        other => other.to_string(),
    }
}

/// The cause of an SQLite error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorClass {
    /// The statement, or the content of the database: every node gets the same error.
    Statement,
    /// The request has exceeded one of its bounds.
    Bound(ExceededBound),
    /// This machine's disk is full.
    DiskFull,
    /// This machine, for another reason: other nodes may not get the error.
    Machine,
}

/// The cause of an error. Reads and resets the thread's record of refused writes and exceeded bounds, so it
/// must be called on the writer thread.
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
        // Caused by the content: an index that does not match its table, or invalid data that a client wrote
        // into the shadow tables of a virtual table. It came through the log or in a loaded file, so every
        // node has it.
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

/// A [`Fatal`] with the operation that failed.
pub(crate) fn fatal(doing: &str, error: &Error) -> Fatal {
    Fatal(format!("{doing}: {}", message(error)))
}

/// The same for errors of the file system.
pub(crate) fn fatal_io(doing: &str, error: &std::io::Error) -> Fatal {
    Fatal(format!("{doing}: {error}"))
}
