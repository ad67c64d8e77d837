//! The crate's behaviour as its caller sees it.
#![allow(missing_docs, reason = "a test binary has no public interface")]

mod backups;
mod checkpoints;
mod determinism;
mod loads;
mod reads;
mod results;
mod support;
