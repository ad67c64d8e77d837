//! Tests only: makes writes of a thread fail, as a full or broken disk would.
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

pub(crate) fn next() -> Option<c_int> {
    let (skip, code) = AFTER.get()?;
    if skip == 0 {
        return Some(code);
    }
    AFTER.set(Some((skip - 1, code)));
    None
}
