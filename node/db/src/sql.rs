//! SQL text without SQLite: classification, PRAGMAs, script splitting, value formats.
pub(crate) mod classify;
pub(crate) mod dates;
pub(crate) mod pragma;
pub(crate) mod result_size;
pub(crate) mod script;
pub(crate) mod slow_log;
pub(crate) mod text;
