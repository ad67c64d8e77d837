//! SQL text, analyzed without SQLite: statement classes, PRAGMAs, script splitting, dates.
pub(crate) mod classify;
pub(crate) mod dates;
pub(crate) mod pragma;
pub(crate) mod result_size;
pub(crate) mod script;
pub(crate) mod slow_log;
pub(crate) mod text;
