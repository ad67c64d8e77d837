//! The crate's behaviour as its caller sees it.
#![allow(missing_docs, reason = "a test binary has no public interface")]
#![allow(
    clippy::unwrap_used,
    reason = "helpers outside the test functions fail the test, too"
)]
#![allow(clippy::too_many_lines, reason = "tables of cases")]

mod backups;
mod bounds;
mod checkpoints;
mod checks;
mod determinism;
mod dumps;
mod large;
mod loads;
mod reads;
mod results;
mod runaway;
mod schema;
mod statements;
mod support;
