//! Recovery: opening the database after a crash, and work on a directory whose database is not open.
pub(crate) mod classify;
pub mod offline;
pub(crate) mod recover;
