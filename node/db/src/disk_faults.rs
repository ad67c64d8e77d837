//! For tests: makes writes of a thread fail, as on a full or broken disk.
use std::{cell::Cell, ffi::c_int};

thread_local! {
    static AFTER: Cell<Option<(u32, c_int)>> = const { Cell::new(None) };
    static ENDED: Cell<u32> = const { Cell::new(0) };
}

/// All writes after the next `skip` writes fail with `code`; `None` ends that.
pub(crate) fn set(fault: Option<(u32, c_int)>) {
    AFTER.set(fault);
}

/// Ends a simulated full disk. Returns how often that has happened on this thread.
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

pub(crate) fn next() -> Option<c_int> {
    let (skip, code) = AFTER.get()?;
    if skip == 0 {
        return Some(code);
    }
    AFTER.set(Some((skip - 1, code)));
    None
}
