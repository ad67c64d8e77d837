//! The VFS of the writing connection: SQLite's default VFS with the request's time as its clock and a check
//! before each write.
//!
//! The check informs the [`meter`], so that a full disk can be distinguished from SQLite's other uses of the
//! error "database or disk is full". Reads and writes also count as work there.
#![allow(unsafe_code, reason = "an SQLite VFS is a table of C functions")]

use std::{
    cell::Cell,
    ffi::{CStr, c_int, c_void},
    ptr,
    sync::OnceLock,
    time::{SystemTime, UNIX_EPOCH},
};

use rusqlite::ffi;

use crate::sqlite::meter::{self, Target, WriteRefused};

/// The name under which the VFS is registered.
pub(crate) const VFS: &CStr = c"node-stamped";
/// Milliseconds from the Julian epoch, which SQLite counts from, to the Unix epoch.
const JULIAN_TO_UNIX_MS: i64 = 210_866_760_000_000;
const MS_PER_DAY: f64 = 86_400_000.0;

thread_local! {
    // SQLite calls the VFS on the thread that steps the statement, so the clock of a writer can be
    // thread-local.
    static NOW_MICROS: Cell<Option<i64>> = const { Cell::new(None) };
}

/// Sets the time that statements of this thread see, in microseconds since the Unix epoch.
pub(crate) fn set_now(unix_micros: i64) {
    NOW_MICROS.set(Some(unix_micros));
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

type ReadFn =
    unsafe extern "C" fn(*mut ffi::sqlite3_file, *mut c_void, c_int, ffi::sqlite3_int64) -> c_int;

/// A method table of the default VFS with our `xRead` and `xWrite`.
struct Methods {
    /// Address of the replaced table, and the kind of its files.
    original: (usize, Target),
    wrapped: ffi::sqlite3_io_methods,
}

static OPEN: OnceLock<OpenFn> = OnceLock::new();
/// The default VFS's own `xWrite`; it is the same in all its tables.
static WRITE: OnceLock<WriteFn> = OnceLock::new();
/// The default VFS's own `xRead`; it is the same in all its tables.
static READ: OnceLock<ReadFn> = OnceLock::new();
/// The default VFS has one table for the main file, one for files that need no locks, and some for unusual
/// file systems. Each may occur once per [`Target`].
static METHODS: [OnceLock<Methods>; 12] = [const { OnceLock::new() }; 12];

/// Registers the VFS, once per process.
pub(crate) fn register() -> Result<(), String> {
    static REGISTERED: OnceLock<Result<(), String>> = OnceLock::new();
    REGISTERED.get_or_init(register_once).clone()
}

fn register_once() -> Result<(), String> {
    // SAFETY: the default VFS lives as long as the process. The copy is leaked, so it does too; it differs
    // only in functions that keep the default's contracts, and `pAppData` may be shared because the default
    // only reads it.
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
    // SAFETY: SQLite passes what the default xOpen expects; after success `pMethods` is null or a static
    // table.
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

/// The kind of a file that SQLite opens with these flags.
fn target(flags: c_int) -> Target {
    /// Sorts, materialized tables, statement journals, and the copy that VACUUM makes.
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

/// The table that replaces `original`; `None` leaves the file unchanged.
///
/// # Safety
/// `original` is null or lives as long as the process.
unsafe fn wrap(
    original: *const ffi::sqlite3_io_methods,
    target: Target,
) -> Option<*const ffi::sqlite3_io_methods> {
    // SAFETY: as promised by the caller.
    let table = unsafe { original.as_ref() }?;
    let (read, write) = (table.xRead?, table.xWrite?);
    if !ptr::fn_addr_eq(*WRITE.get_or_init(|| write), write)
        || !ptr::fn_addr_eq(*READ.get_or_init(|| read), read)
    {
        return None;
    }
    let original = (original.addr(), target);
    METHODS.iter().find_map(|slot| {
        let methods = slot.get_or_init(|| Methods {
            original,
            wrapped: ffi::sqlite3_io_methods {
                xRead: Some(read_file),
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

unsafe extern "C" fn read_file(
    file: *mut ffi::sqlite3_file,
    data: *mut c_void,
    len: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    meter::note_work();
    let Some(read) = READ.get() else {
        return ffi::SQLITE_IOERR;
    };
    // SAFETY: the same contract; only files whose own method is this one come here.
    unsafe { read(file, data, len, offset) }
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
/// As for `xWrite`, for a file opened by [`open_file`].
unsafe fn write_file(
    target: Target,
    file: *mut ffi::sqlite3_file,
    data: *const c_void,
    len: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    #[cfg(test)]
    if let Some(code) = crate::disk_faults::next() {
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
        // Only for temporary files is the length read: the WAL is counted by its offsets, the main file not
        // at all. SAFETY: as promised by the caller.
        Target::Temporary => end.saturating_sub(unsafe { length(file) }),
        Target::Wal | Target::Main => u64::from(len.unsigned_abs()),
    };
    if let Err(WriteRefused) = meter::before_write(target, end, grows_by) {
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
    // SAFETY: SQLite passes a valid pointer for the result.
    unsafe { *out = now_julian_ms() };
    ffi::SQLITE_OK
}

unsafe extern "C" fn current_time(_vfs: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    #[expect(
        clippy::cast_precision_loss,
        reason = "this SQLite call is defined in doubles"
    )]
    // SAFETY: SQLite passes a valid pointer for the result.
    unsafe {
        *out = now_julian_ms() as f64 / MS_PER_DAY;
    };
    ffi::SQLITE_OK
}
