//! Deterministic functions and counters of the writing connection: `random()`, `randomblob()`, `changes()`
//! and `last_insert_rowid()` depend only on the request's [`Stamp`] and its own statements.
#![allow(
    unsafe_code,
    reason = "rusqlite has no call for these functions of SQLite"
)]

use std::cell::Cell;

use rusqlite::{Connection, ffi, functions::FunctionFlags};

use crate::{entry::Stamp, sqlite::vfs};

/// SQLite's own limit of a text, a blob or a row.
const SQLITE_VALUE_BYTES: i32 = 1_000_000_000;
/// SQLite's own limit of the pattern of LIKE and GLOB.
const SQLITE_PATTERN_BYTES: i32 = 50_000;
/// The limit of patterns where values are limited, because matching takes time proportional to the product of
/// both lengths.
const PATTERN_BYTES: i32 = 4_096;

thread_local! {
    // SQLite calls the functions on the thread that steps the statement, so the state of a writer can be
    // thread-local, and one process can have several databases open.
    static RANDOM: Cell<u64> = const { Cell::new(0) };
    static CHANGES_BEFORE: Cell<u64> = const { Cell::new(0) };
    static VALUE_BYTES: Cell<i64> = const { Cell::new(SQLITE_VALUE_BYTES as i64) };
}

/// Sets time, randomness and counters for a request, independent of what ran before on this connection.
pub(crate) fn begin_request(conn: &Connection, stamp: Stamp) {
    vfs::set_now(stamp.unix_micros);
    RANDOM.set(stamp.seed);
    CHANGES_BEFORE.set(conn.total_changes());
    // SAFETY: the handle is open and used by this thread alone.
    unsafe { ffi::sqlite3_set_last_insert_rowid(conn.handle(), 0) };
}

/// Limits texts, blobs, rows, and patterns of LIKE and GLOB; 0 restores SQLite's own limits.
pub(crate) fn limit_values(conn: &Connection, bytes: u32) -> rusqlite::Result<()> {
    use rusqlite::limits::Limit::{SQLITE_LIMIT_LENGTH, SQLITE_LIMIT_LIKE_PATTERN_LENGTH};
    let (value, pattern) = match i32::try_from(bytes) {
        Ok(1..) => (bytes.cast_signed().min(SQLITE_VALUE_BYTES), PATTERN_BYTES),
        _ => (SQLITE_VALUE_BYTES, SQLITE_PATTERN_BYTES),
    };
    conn.set_limit(SQLITE_LIMIT_LENGTH, value)?;
    conn.set_limit(SQLITE_LIMIT_LIKE_PATTERN_LENGTH, pattern)?;
    VALUE_BYTES.set(i64::from(value));
    Ok(())
}

/// Resets the counter after the connection was replaced in the middle of a request.
pub(crate) fn forget_changes(conn: &Connection) {
    CHANGES_BEFORE.set(conn.total_changes());
}

/// Rows changed by the last INSERT, UPDATE or DELETE of this request; 0 before the first. SQLite's own
/// counter would also show statements of earlier requests, which a restarted node has forgotten.
pub(crate) fn changes(conn: &Connection) -> u64 {
    // Whenever SQLite sets the counter to n, the total grows by n. If the total has not grown, the counter
    // was not set or was set to 0.
    if conn.total_changes() == CHANGES_BEFORE.get() {
        0
    } else {
        conn.changes()
    }
}

/// Whether there are violations of deferred foreign keys. They would fail the COMMIT of the whole batch.
pub(crate) fn has_deferred_violations(conn: &Connection) -> bool {
    let (mut now, mut high) = (0, 0);
    // SAFETY: the handle is open; both places are valid.
    let code = unsafe {
        ffi::sqlite3_db_status(
            conn.handle(),
            ffi::SQLITE_DBSTATUS_DEFERRED_FKS,
            &raw mut now,
            &raw mut high,
            0,
        )
    };
    code == ffi::SQLITE_OK && now > 0
}

/// State that a failed statement may have changed and that must be restored before it is repeated.
#[derive(Clone, Copy)]
pub(crate) struct Saved {
    random: u64,
    last_insert_rowid: i64,
}

/// Saves the state before a statement.
pub(crate) fn save(conn: &Connection) -> Saved {
    Saved {
        random: RANDOM.get(),
        last_insert_rowid: conn.last_insert_rowid(),
    }
}

/// Restores the state after a failed statement.
pub(crate) fn restore(conn: &Connection, saved: Saved) {
    RANDOM.set(saved.random);
    // SAFETY: the handle is open and used by this thread alone.
    unsafe { ffi::sqlite3_set_last_insert_rowid(conn.handle(), saved.last_insert_rowid) };
}

/// SplitMix64: small, fast and good enough for ids. `random()` need not be unpredictable.
fn next_random() -> u64 {
    let state = RANDOM.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
    RANDOM.set(state);
    let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn random_bytes(len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&next_random().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Replaces the functions whose results would differ from node to node.
pub(crate) fn install_functions(conn: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_INNOCUOUS;
    conn.create_scalar_function("random", 0, flags, |_| Ok(next_random().cast_signed()))?;
    conn.create_scalar_function("randomblob", 1, flags, |ctx| {
        let len = match ctx.get_raw(0) {
            rusqlite::types::ValueRef::Integer(n) => n,
            #[expect(
                clippy::cast_possible_truncation,
                reason = "as SQLite's own conversion, it saturates"
            )]
            rusqlite::types::ValueRef::Real(r) => r as i64,
            rusqlite::types::ValueRef::Text(t) => std::str::from_utf8(t)
                .ok()
                .and_then(|t| t.trim().parse().ok())
                .unwrap_or(0),
            _ => 0,
        };
        if len > VALUE_BYTES.get() {
            return Err(failure("string or blob too big"));
        }
        Ok(random_bytes(usize::try_from(len.max(1)).unwrap_or(1)))
    })?;
    // The authorizer refuses this function, but does not see it inside a column's DEFAULT.
    conn.create_scalar_function("total_changes", 0, flags, |_| -> rusqlite::Result<i64> {
        Err(failure(
            "total_changes() is not supported: it would differ from node to node",
        ))
    })
}

fn failure(text: &str) -> rusqlite::Error {
    rusqlite::Error::UserFunctionError(text.into())
}
