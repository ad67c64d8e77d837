//! Whose fault an SQLite error is: the statement's, which every node repeats, or this machine's, which others may not have.
use rusqlite::{Error, ErrorCode, ffi};

use crate::{Fatal, clock};

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

/// Whether the error may be absent on another node that runs the same statement. Asks (and resets) the thread's record of
/// refused disk writes, so it belongs on the writing thread.
pub(crate) fn is_machine_fault(error: &Error) -> bool {
    let Some(code) = error.sqlite_error() else {
        return false;
    };
    let disk_full = clock::take_disk_full();
    match code.code {
        ErrorCode::DiskFull => disk_full,
        // Virtual tables report this when a client wrote nonsense into their shadow tables.
        ErrorCode::DatabaseCorrupt => !matches!(
            code.extended_code,
            ffi::SQLITE_CORRUPT_VTAB | ffi::SQLITE_CORRUPT_SEQUENCE
        ),
        ErrorCode::SystemIoFailure
        | ErrorCode::OutOfMemory
        | ErrorCode::ReadOnly
        | ErrorCode::CannotOpen
        | ErrorCode::NotADatabase
        | ErrorCode::OperationInterrupted
        | ErrorCode::DatabaseBusy
        | ErrorCode::FileLockingProtocolFailed
        | ErrorCode::NoLargeFileSupport => true,
        _ => false,
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
