//! SQL text, analyzed without a database: statement classes, PRAGMAs, script splitting, dates, syntax.
pub(crate) mod classify;
pub(crate) mod dates;
pub(crate) mod pragma;
pub(crate) mod result_size;
pub(crate) mod script;
pub(crate) mod slow_log;
pub(crate) mod syntax;
pub(crate) mod text;
