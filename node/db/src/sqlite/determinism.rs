//! What makes SQLite deterministic on the writing connection: a clock and a random generator that follow the request's
//! [`Stamp`], and counters that forget what happened before the request. Its VFS also tells the [`meter`](crate::sqlite::meter)
//! what is written, and a full disk from SQLite's other uses of "database or disk is full". The crate's `unsafe` lives here
//! and in `linear.rs`.
#![allow(
    unsafe_code,
    reason = "the clock is an SQLite VFS, which is a table of C functions"
)]

use std::{
    cell::Cell,
    ffi::{CStr, c_int, c_void},
    ptr,
    sync::OnceLock,
    time::{SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, ffi, functions::FunctionFlags};

use crate::{
    Stamp,
    sqlite::meter::{self, Refusal, Target},
};

/// Name under which the stamped VFS is registered.
pub(crate) const VFS: &CStr = c"node-stamped";
/// Milliseconds from the Julian epoch, which SQLite counts from, to the Unix epoch.
const JULIAN_TO_UNIX_MS: i64 = 210_866_760_000_000;
const MS_PER_DAY: f64 = 86_400_000.0;
/// SQLite's own limit of a text, a blob or a row.
const SQLITE_VALUE_BYTES: i32 = 1_000_000_000;
/// SQLite's own limit of the pattern of LIKE and GLOB.
const SQLITE_PATTERN_BYTES: i32 = 50_000;
/// The same where values are limited: matching takes as long as the product of both lengths.
const PATTERN_BYTES: i32 = 4_096;

thread_local! {
    // SQLite calls the VFS and the functions on the thread that steps the statement, so the state of a writer can live
    // with its thread; one process may then hold several databases.
    static NOW_MICROS: Cell<Option<i64>> = const { Cell::new(None) };
    static RANDOM: Cell<u64> = const { Cell::new(0) };
    static CHANGES_BEFORE: Cell<u64> = const { Cell::new(0) };
    static VALUE_BYTES: Cell<i64> = const { Cell::new(SQLITE_VALUE_BYTES as i64) };
}

type OpenFn = unsafe extern "C" fn(
    *mut ffi::sqlite3_vfs,
    ffi::sqlite3_filename,
    *mut ffi::sqlite3_file,
    c_int,
    *mut c_int,
) -> c_int;
type WriteFn =
    unsafe extern "C" fn(*mut ffi::sqlite3_file, *const c_void, c_int, ffi::sqlite3_int64) -> c_int;

/// A table of file methods of the default VFS with our `xWrite` in it.
struct Methods {
    /// Address of the table that it stands for, and what its files are.
    original: (usize, Target),
    wrapped: ffi::sqlite3_io_methods,
}

static OPEN: OnceLock<OpenFn> = OnceLock::new();
/// The default VFS's own `xWrite`, the same in all its tables.
static WRITE: OnceLock<WriteFn> = OnceLock::new();
/// The default VFS has one table for the main file and one for files that need no locks, and some for odd file systems;
/// each is wanted once for every [`Target`].
static METHODS: [OnceLock<Methods>; 12] = [const { OnceLock::new() }; 12];

/// Registers the VFS once for the process.
pub(crate) fn register() -> Result<(), String> {
    static REGISTERED: OnceLock<Result<(), String>> = OnceLock::new();
    REGISTERED.get_or_init(register_once).clone()
}

fn register_once() -> Result<(), String> {
    // SAFETY: the default VFS lives as long as the process. The copy is leaked, so it does too; it differs only in
    // functions that keep the default's contracts, and `pAppData` may be shared because the default only reads it.
    unsafe {
        let default = ffi::sqlite3_vfs_find(ptr::null());
        if default.is_null() {
            return Err("SQLite has no default VFS".to_owned());
        }
        let mut copy = Box::new(*default);
        let Some(open) = copy.xOpen else {
            return Err("SQLite's default VFS cannot open files".to_owned());
        };
        OPEN.get_or_init(|| open);
        copy.pNext = ptr::null_mut();
        copy.zName = VFS.as_ptr();
        copy.xOpen = Some(open_file);
        copy.xCurrentTime = Some(current_time);
        copy.xCurrentTimeInt64 = Some(current_time_ms);
        match ffi::sqlite3_vfs_register(Box::into_raw(copy), 0) {
            ffi::SQLITE_OK => Ok(()),
            code => Err(format!("cannot register the stamped VFS: code {code}")),
        }
    }
}

unsafe extern "C" fn open_file(
    vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let Some(open) = OPEN.get() else {
        return ffi::SQLITE_CANTOPEN;
    };
    // SAFETY: SQLite passes what the default xOpen expects; after success `pMethods` is null or a static table.
    unsafe {
        let code = open(vfs, name, file, flags, out_flags);
        if code == ffi::SQLITE_OK
            && let Some(wrapped) = wrap((*file).pMethods, target(flags))
        {
            (*file).pMethods = wrapped;
        }
        code
    }
}

/// What a file is that SQLite opens with these flags.
fn target(flags: c_int) -> Target {
    /// Sorts, materialized tables, statement journals, the copy that a VACUUM makes.
    const TEMPORARY: c_int = ffi::SQLITE_OPEN_TEMP_DB
        | ffi::SQLITE_OPEN_TRANSIENT_DB
        | ffi::SQLITE_OPEN_TEMP_JOURNAL
        | ffi::SQLITE_OPEN_SUBJOURNAL;
    if flags & ffi::SQLITE_OPEN_WAL != 0 {
        Target::Wal
    } else if flags & TEMPORARY != 0 {
        Target::Temporary
    } else {
        Target::Main
    }
}

/// The table to use in the place of `original`; `None` leaves the file as it is.
///
/// # Safety
/// `original` is null or lives as long as the process.
unsafe fn wrap(
    original: *const ffi::sqlite3_io_methods,
    target: Target,
) -> Option<*const ffi::sqlite3_io_methods> {
    // SAFETY: as promised by the caller.
    let table = unsafe { original.as_ref() }?;
    let write = table.xWrite?;
    if !ptr::fn_addr_eq(*WRITE.get_or_init(|| write), write) {
        return None;
    }
    let original = (original.addr(), target);
    METHODS.iter().find_map(|slot| {
        let methods = slot.get_or_init(|| Methods {
            original,
            wrapped: ffi::sqlite3_io_methods {
                xWrite: Some(match target {
                    Target::Main => write_main,
                    Target::Wal => write_wal,
                    Target::Temporary => write_temporary,
                }),
                ..*table
            },
        });
        (methods.original == original).then_some(&raw const methods.wrapped)
    })
}

unsafe extern "C" fn write_main(
    file: *mut ffi::sqlite3_file,
    data: *const c_void,
    len: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: the same contract.
    unsafe { write_file(Target::Main, file, data, len, offset) }
}

unsafe extern "C" fn write_wal(
    file: *mut ffi::sqlite3_file,
    data: *const c_void,
    len: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: the same contract.
    unsafe { write_file(Target::Wal, file, data, len, offset) }
}

unsafe extern "C" fn write_temporary(
    file: *mut ffi::sqlite3_file,
    data: *const c_void,
    len: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: the same contract.
    unsafe { write_file(Target::Temporary, file, data, len, offset) }
}

/// # Safety
/// That of `xWrite`, for a file that [`open_file`] opened.
unsafe fn write_file(
    target: Target,
    file: *mut ffi::sqlite3_file,
    data: *const c_void,
    len: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    #[cfg(test)]
    if let Some(code) = fault::next() {
        if code == ffi::SQLITE_FULL {
            meter::note_full();
        }
        return code;
    }
    let Some(write) = WRITE.get() else {
        return ffi::SQLITE_IOERR;
    };
    let end = u64::try_from(offset.saturating_add(i64::from(len))).unwrap_or(u64::MAX);
    let grows_by = match target {
        // Only these are asked for their length: the other two are counted by their offsets, or not at all.
        // SAFETY: as promised by the caller.
        Target::Temporary => end.saturating_sub(unsafe { length(file) }),
        Target::Wal | Target::Main => u64::from(len.unsigned_abs()),
    };
    if let Err(Refusal) = meter::before_write(target, end, grows_by) {
        return ffi::SQLITE_FULL;
    }
    // SAFETY: only files whose own method is this one come here.
    let code = unsafe { write(file, data, len, offset) };
    if code & 0xff == ffi::SQLITE_FULL {
        meter::note_full();
    }
    code
}

/// # Safety
/// `file` is open.
unsafe fn length(file: *mut ffi::sqlite3_file) -> u64 {
    let mut len = 0;
    // SAFETY: an open file has methods.
    let code = unsafe {
        (*(*file).pMethods)
            .xFileSize
            .map_or(ffi::SQLITE_IOERR, |size| size(file, &raw mut len))
    };
    if code == ffi::SQLITE_OK {
        u64::try_from(len).unwrap_or(0)
    } else {
        0
    }
}

fn now_julian_ms() -> i64 {
    let micros = NOW_MICROS.get().unwrap_or_else(|| {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    });
    micros.div_euclid(1000).saturating_add(JULIAN_TO_UNIX_MS)
}

unsafe extern "C" fn current_time_ms(
    _vfs: *mut ffi::sqlite3_vfs,
    out: *mut ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite passes a valid place for the answer.
    unsafe { *out = now_julian_ms() };
    ffi::SQLITE_OK
}

unsafe extern "C" fn current_time(_vfs: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    #[expect(
        clippy::cast_precision_loss,
        reason = "this SQLite call is defined in doubles"
    )]
    // SAFETY: SQLite passes a valid place for the answer.
    unsafe {
        *out = now_julian_ms() as f64 / MS_PER_DAY;
    };
    ffi::SQLITE_OK
}

/// Sets time, randomness and counters to what the request prescribes, whatever ran before it on this connection.
pub(crate) fn begin_request(conn: &Connection, stamp: Stamp) {
    NOW_MICROS.set(Some(stamp.unix_micros));
    RANDOM.set(stamp.seed);
    CHANGES_BEFORE.set(conn.total_changes());
    // SAFETY: the handle is open and used by this thread alone.
    unsafe { ffi::sqlite3_set_last_insert_rowid(conn.handle(), 0) };
}

/// Limits texts, blobs and rows, and the patterns that they are compared with; 0 is SQLite's own limit.
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

/// A new connection has taken over in the middle of a request.
pub(crate) fn forget_changes(conn: &Connection) {
    CHANGES_BEFORE.set(conn.total_changes());
}

/// Rows changed by the last statement of this request that changed any or could have; 0 before the first. SQLite's own
/// counter would show statements of earlier requests, which a restarted node has forgotten.
pub(crate) fn changes(conn: &Connection) -> u64 {
    // Whenever the counter is set to n, the total grows by n. An unmoved total thus means: never set, or set to 0.
    if conn.total_changes() == CHANGES_BEFORE.get() {
        0
    } else {
        conn.changes()
    }
}

/// Deferred foreign key violations wait for COMMIT, where they would fail the whole run of entries.
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

/// What a statement may change although it failed: it is to run once more as if it had not.
#[derive(Clone, Copy)]
pub(crate) struct Before {
    random: u64,
    last_insert_rowid: i64,
}

/// Before a statement.
pub(crate) fn before(conn: &Connection) -> Before {
    Before {
        random: RANDOM.get(),
        last_insert_rowid: conn.last_insert_rowid(),
    }
}

/// After it failed.
pub(crate) fn go_back(conn: &Connection, before: Before) {
    RANDOM.set(before.random);
    // SAFETY: the handle is open and used by this thread alone.
    unsafe { ffi::sqlite3_set_last_insert_rowid(conn.handle(), before.last_insert_rowid) };
}

/// SplitMix64: small, fast and good enough for ids; `random()` promises no secrecy.
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

/// Replaces the functions whose answers differ from node to node.
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
    // The authorizer refuses it first, but does not see it inside a column's DEFAULT.
    conn.create_scalar_function("total_changes", 0, flags, |_| -> rusqlite::Result<i64> {
        Err(failure(
            "total_changes() is not supported: it would differ from node to node",
        ))
    })
}

fn failure(text: &str) -> rusqlite::Error {
    rusqlite::Error::UserFunctionError(text.into())
}

/// Makes writes of this thread fail, as a full or broken disk would.
#[cfg(test)]
pub(crate) mod fault {
    use std::{cell::Cell, ffi::c_int};

    thread_local! {
        static AFTER: Cell<Option<(u32, c_int)>> = const { Cell::new(None) };
        static ENDED: Cell<u32> = const { Cell::new(0) };
    }

    /// The write after `skip` more writes, and all later ones, fail with `code`; `None` ends that.
    pub(crate) fn set(fault: Option<(u32, c_int)>) {
        AFTER.set(fault);
    }

    /// There is room again; the number of times that there was none.
    pub(crate) fn end_full() -> u32 {
        if AFTER
            .get()
            .is_some_and(|(_, code)| code == rusqlite::ffi::SQLITE_FULL)
        {
            AFTER.set(None);
            ENDED.set(ENDED.get() + 1);
        }
        ENDED.get()
    }

    pub(super) fn next() -> Option<c_int> {
        let (skip, code) = AFTER.get()?;
        if skip == 0 {
            return Some(code);
        }
        AFTER.set(Some((skip - 1, code)));
        None
    }
}
