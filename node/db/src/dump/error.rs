//! Errors of a dump.
use std::io;

use crate::sqlite::error::message;

/// Why a dump stopped.
pub(crate) enum DumpError {
    Sqlite(rusqlite::Error),
    Io(io::Error),
}

impl From<rusqlite::Error> for DumpError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<io::Error> for DumpError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl DumpError {
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Sqlite(error) => message(error),
            Self::Io(error) => error.to_string(),
        }
    }
}
