//! What makes SQLite deterministic on the writing connection: a clock and a random generator that follow the request's
//! [`Stamp`], and counters that forget what happened before the request. Also tells a full disk from SQLite's other uses
//! of "database or disk is full". The crate's only `unsafe` lives here.
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

use crate::Stamp;

/// Name under which the stamped VFS is registered.
pub(crate) const VFS: &CStr = c"node-stamped";
/// Milliseconds from the Julian epoch, which SQLite counts from, to the Unix epoch.
const JULIAN_TO_UNIX_MS: i64 = 210_866_760_000_000;
const MS_PER_DAY: f64 = 86_400_000.0;

thread_local! {
    // SQLite calls the VFS and the functions on the thread that steps the statement, so the state of a writer can live
    // with its thread; one process may then hold several databases.
    static NOW_MICROS: Cell<Option<i64>> = const { Cell::new(None) };
    static RANDOM: Cell<u64> = const { Cell::new(0) };
    static CHANGES_BEFORE: Cell<u64> = const { Cell::new(0) };
    static DISK_FULL: Cell<bool> = const { Cell::new(false) };
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
    /// Address of the table that it stands for.
    original: usize,
    wrapped: ffi::sqlite3_io_methods,
}

static OPEN: OnceLock<OpenFn> = OnceLock::new();
/// The default VFS's own `xWrite`, the same in all its tables.
static WRITE: OnceLock<WriteFn> = OnceLock::new();
/// The default VFS has one table for the main file and one for files that need no locks, and some for odd file systems.
static METHODS: [OnceLock<Methods>; 4] = [const { OnceLock::new() }; 4];

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
            && let Some(wrapped) = wrap((*file).pMethods)
        {
            (*file).pMethods = wrapped;
        }
        code
    }
}

/// The table to use in the place of `original`; `None` leaves the file as it is.
///
/// # Safety
/// `original` is null or lives as long as the process.
unsafe fn wrap(original: *const ffi::sqlite3_io_methods) -> Option<*const ffi::sqlite3_io_methods> {
    // SAFETY: as promised by the caller.
    let table = unsafe { original.as_ref() }?;
    let write = table.xWrite?;
    if !ptr::fn_addr_eq(*WRITE.get_or_init(|| write), write) {
        return None;
    }
    METHODS.iter().find_map(|slot| {
        let methods = slot.get_or_init(|| Methods {
            original: original.addr(),
            wrapped: ffi::sqlite3_io_methods {
                xWrite: Some(write_file),
                ..*table
            },
        });
        (methods.original == original.addr()).then_some(&raw const methods.wrapped)
    })
}

unsafe extern "C" fn write_file(
    file: *mut ffi::sqlite3_file,
    data: *const c_void,
    len: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    #[cfg(test)]
    if let Some(code) = fault::next() {
        DISK_FULL.set(DISK_FULL.get() || code == ffi::SQLITE_FULL);
        return code;
    }
    let Some(write) = WRITE.get() else {
        return ffi::SQLITE_IOERR;
    };
    // SAFETY: only files whose own method is this one come here.
    let code = unsafe { write(file, data, len, offset) };
    if code & 0xff == ffi::SQLITE_FULL {
        DISK_FULL.set(true);
    }
    code
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

/// Whether the disk refused a write on this thread since the last call. SQLite says "database or disk is full" also when
/// an AUTOINCREMENT column has used its last number, which is the statement's fault and happens on every node.
pub(crate) fn take_disk_full() -> bool {
    DISK_FULL.replace(false)
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
    let max_bytes = i64::from(conn.limit(rusqlite::limits::Limit::SQLITE_LIMIT_LENGTH)?);
    conn.create_scalar_function("randomblob", 1, flags, move |ctx| {
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
        if len > max_bytes {
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
    }

    /// The write after `skip` more writes, and all later ones, fail with `code`; `None` ends that.
    pub(crate) fn set(fault: Option<(u32, c_int)>) {
        AFTER.set(fault);
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
