//! `instr()` and `replace()` in linear time. SQLite's own versions compare at every position, so that one
//! call on a value of 60 MB could take days, and no limit on instructions applies within a call. The results
//! are the same.
#![allow(
    unsafe_code,
    reason = "only SQLite itself turns numbers into text as its own functions do"
)]

use std::{
    ffi::{CStr, c_int, c_void},
    ptr, slice,
};

use memchr::memmem;
use rusqlite::{Connection, ffi};

type Function =
    unsafe extern "C" fn(*mut ffi::sqlite3_context, c_int, *mut *mut ffi::sqlite3_value);

/// Replaces SQLite's functions.
pub(crate) fn install(conn: &Connection) -> rusqlite::Result<()> {
    create(conn, c"instr", 2, instr)?;
    create(conn, c"replace", 3, replace)
}

fn create(
    conn: &Connection,
    name: &CStr,
    arguments: c_int,
    function: Function,
) -> rusqlite::Result<()> {
    let flags = ffi::SQLITE_UTF8 | ffi::SQLITE_DETERMINISTIC | ffi::SQLITE_INNOCUOUS;
    // SAFETY: the handle is open, the name ends in a zero, and the function lives as long as the process.
    let code = unsafe {
        ffi::sqlite3_create_function_v2(
            conn.handle(),
            name.as_ptr(),
            arguments,
            flags,
            ptr::null_mut::<c_void>(),
            Some(function),
            None,
            None,
            None,
        )
    };
    if code == ffi::SQLITE_OK {
        Ok(())
    } else {
        Err(rusqlite::Error::SqliteFailure(
            ffi::Error::new(code),
            Some("cannot replace a function".to_owned()),
        ))
    }
}

/// The value as text; `None` if it is NULL or memory is exhausted.
///
/// # Safety
/// `value` comes from SQLite or is a copy. The slice is valid until the next call on the same value.
unsafe fn text<'a>(value: *mut ffi::sqlite3_value) -> Option<&'a [u8]> {
    // SAFETY: SQLite's text has as many bytes as it says afterwards.
    unsafe {
        let start = ffi::sqlite3_value_text(value);
        if start.is_null() {
            return None;
        }
        let len = usize::try_from(ffi::sqlite3_value_bytes(value)).unwrap_or(0);
        Some(slice::from_raw_parts(start, len))
    }
}

/// The bytes of a BLOB.
///
/// # Safety
/// As for [`text`].
unsafe fn blob<'a>(value: *mut ffi::sqlite3_value) -> &'a [u8] {
    // SAFETY: SQLite's blob has as many bytes as it says; an empty one may be null.
    unsafe {
        let len = usize::try_from(ffi::sqlite3_value_bytes(value)).unwrap_or(0);
        let start = ffi::sqlite3_value_blob(value).cast::<u8>();
        if start.is_null() || len == 0 {
            &[]
        } else {
            slice::from_raw_parts(start, len)
        }
    }
}

/// A copy of a value, which can be converted to text without changing the original.
struct Copied(*mut ffi::sqlite3_value);

impl Drop for Copied {
    fn drop(&mut self) {
        // SAFETY: made by `sqlite3_value_dup`; null is fine.
        unsafe { ffi::sqlite3_value_free(self.0) };
    }
}

unsafe extern "C" fn instr(
    context: *mut ffi::sqlite3_context,
    _count: c_int,
    arguments: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: registered with two arguments.
    unsafe {
        let (hay, needle) = (*arguments, *arguments.add(1));
        let kinds = (
            ffi::sqlite3_value_type(hay),
            ffi::sqlite3_value_type(needle),
        );
        if kinds.0 == ffi::SQLITE_NULL || kinds.1 == ffi::SQLITE_NULL {
            return;
        }
        if ffi::sqlite3_value_bytes(needle) == 0 {
            return ffi::sqlite3_result_int(context, 1);
        }
        let blobs = (kinds.0 == ffi::SQLITE_BLOB, kinds.1 == ffi::SQLITE_BLOB);
        let place = match blobs {
            (true, true) => Some(place_of_bytes(blob(hay), blob(needle))),
            (false, false) => both(text(hay), text(needle)),
            _ => {
                let (hay, needle) = (
                    Copied(ffi::sqlite3_value_dup(hay)),
                    Copied(ffi::sqlite3_value_dup(needle)),
                );
                both(text(hay.0), text(needle.0))
            }
        };
        match place {
            Some(place) => {
                ffi::sqlite3_result_int64(context, i64::try_from(place).unwrap_or(i64::MAX));
            }
            None => ffi::sqlite3_result_error_nomem(context),
        }
    }
}

fn both(hay: Option<&[u8]>, needle: Option<&[u8]>) -> Option<usize> {
    Some(place_of_text(hay?, needle?))
}

fn place_of_bytes(hay: &[u8], needle: &[u8]) -> usize {
    memmem::find(hay, needle).map_or(0, |at| at + 1)
}

fn continues(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

/// Position in characters, from 1; 0 if not found. Comparisons start at character boundaries and at the first
/// byte.
fn place_of_text(hay: &[u8], needle: &[u8]) -> usize {
    let found = if needle.first().copied().is_some_and(continues) {
        hay.starts_with(needle).then_some(0)
    } else {
        memmem::find(hay, needle)
    };
    let before = |at: usize| hay[1.min(at)..at].iter();
    found.map_or(0, |at| match at {
        0 => 1,
        _ => 2 + before(at).filter(|byte| !continues(**byte)).count(),
    })
}

unsafe extern "C" fn replace(
    context: *mut ffi::sqlite3_context,
    _count: c_int,
    arguments: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: registered with three arguments; SQLite copies the result.
    unsafe {
        let Some(whole) = text(*arguments) else {
            return;
        };
        let Some(pattern) = text(*arguments.add(1)) else {
            return;
        };
        let replaced = if matches!(pattern.first(), None | Some(0)) {
            Some(whole.to_vec())
        } else {
            let Some(by) = text(*arguments.add(2)) else {
                return;
            };
            let db = ffi::sqlite3_context_db_handle(context);
            let limit = ffi::sqlite3_limit(db, ffi::SQLITE_LIMIT_LENGTH, -1);
            replaced(whole, pattern, by, usize::try_from(limit).unwrap_or(0))
        };
        match replaced {
            Some(bytes) => ffi::sqlite3_result_text64(
                context,
                bytes.as_ptr().cast(),
                bytes.len() as u64,
                ffi::SQLITE_TRANSIENT(),
                ffi::SQLITE_UTF8 as u8,
            ),
            None => ffi::sqlite3_result_error_toobig(context),
        }
    }
}

/// `None` if the result is longer than `limit`.
fn replaced(whole: &[u8], pattern: &[u8], by: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(whole.len());
    let mut from = 0;
    for at in memmem::find_iter(whole, pattern) {
        out.extend_from_slice(&whole[from..at]);
        out.extend_from_slice(by);
        from = at + pattern.len();
        if out.len() > limit {
            return None;
        }
    }
    out.extend_from_slice(&whole[from..]);
    (out.len() <= limit).then_some(out)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn answers_are_sqlites() {
        let own = Connection::open_in_memory().unwrap();
        let ours = Connection::open_in_memory().unwrap();
        install(&ours).unwrap();
        let values = [
            "NULL",
            "''",
            "'a'",
            "'aba'",
            "'ababab'",
            "'äöäö'",
            "'ö'",
            "x''",
            "x'61'",
            "x'b6'",
            "x'c3b6'",
            "'xäx'",
            "1",
            "11",
            "1.5",
            "0.1",
            "1e300",
            "char(0)",
            "'a' || char(0) || 'b'",
            "'b'",
            "'€uro'",
            "'ro'",
            "cast(x'b6' as text)",
            "cast(x'80a180' as text)",
            "x'a1'",
        ];
        let mut compared = 0;
        for one in values {
            for two in values {
                let texts = values.iter().take(8).map(|three| {
                    format!("SELECT hex(replace({one},{two},{three})), typeof(replace({one},{two},{three}))")
                });
                let instr = format!("SELECT instr({one},{two}), typeof(instr({one},{two}))");
                for sql in texts.chain([instr]) {
                    let answer = |conn: &Connection| {
                        conn.query_row(&sql, [], |row| {
                            Ok((
                                row.get::<_, rusqlite::types::Value>(0)?,
                                row.get::<_, String>(1)?,
                            ))
                        })
                        .unwrap()
                    };
                    assert_eq!(answer(&ours), answer(&own), "{sql}");
                    compared += 1;
                }
            }
        }
        assert!(compared > 5000, "{compared}");
    }

    #[test]
    fn a_long_comparison_is_short() {
        let conn = Connection::open_in_memory().unwrap();
        install(&conn).unwrap();
        let started = Instant::now();
        for sql in [
            "SELECT instr(zeroblob(16000000), zeroblob(8000000) || x'01')",
            "SELECT length(replace(printf('%.16000000c', 'a'), printf('%.8000000c', 'a') || 'b', ''))",
        ] {
            conn.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        }
        assert!(started.elapsed() < Duration::from_secs(20));
        let limited = conn.set_limit(rusqlite::limits::Limit::SQLITE_LIMIT_LENGTH, 1000);
        limited.unwrap();
        let sql = "SELECT replace(printf('%.900c', 'a'), 'a', 'bb')";
        let error = conn.query_row(sql, [], |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("too big"), "{error}");
    }
}
