//! Opening after a crash, and work on a database directory that is not open.
pub(crate) mod classify;
pub mod offline;
pub(crate) mod recover;
