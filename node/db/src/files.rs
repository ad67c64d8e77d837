//! The database's files: their names, durable writes, the main file and its pins, the sidecar, and the WAL as
//! bytes.
pub mod durable;
pub(crate) mod layout;
pub(crate) mod main_file;
pub(crate) mod pin_copy;
pub(crate) mod sidecar;
pub(crate) mod space;
pub(crate) mod wal_file;
