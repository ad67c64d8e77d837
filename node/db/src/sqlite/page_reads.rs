//! How many pages a connection has read.
#![allow(
    unsafe_code,
    reason = "rusqlite has no call for this function of SQLite"
)]

use rusqlite::{Connection, ffi};

/// Counts the pages that a connection reads from its file. Only for the progress handler of that connection:
/// SQLite calls it while the connection is open, on the thread that runs a statement on it.
pub(crate) struct PageReads(*mut ffi::sqlite3);

// SAFETY: the pointer is used only where the connection is used; see the type.
unsafe impl Send for PageReads {}

impl PageReads {
    pub(crate) fn of(conn: &Connection) -> Self {
        // SAFETY: the handle is only stored here.
        Self(unsafe { conn.handle() })
    }

    /// Pages read since the connection was opened.
    pub(crate) fn count(&self) -> u64 {
        let (mut now, mut high) = (0, 0);
        // SAFETY: the connection is open and used by this thread alone; both places are valid. The call only
        // reads counters, which a progress handler may do.
        unsafe {
            ffi::sqlite3_db_status(
                self.0,
                ffi::SQLITE_DBSTATUS_CACHE_MISS,
                &raw mut now,
                &raw mut high,
                0,
            );
        }
        u64::from(now.unsigned_abs())
    }
}
