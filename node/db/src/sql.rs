//! SQL text and single statements: classification, script splitting, execution, value formats.
pub(crate) mod classify;
pub(crate) mod dates;
pub(crate) mod script;
pub(crate) mod slow_log;
pub(crate) mod statement;
