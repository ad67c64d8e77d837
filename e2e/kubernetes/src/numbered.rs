//! The numbered writer: a program that runs in a pod, writes rows 1, 2, 3, … through a Service, and records
//! which were acknowledged and when. A test learns from it how long no write succeeded, and whether an
//! acknowledged row was lost.
//!
//! Uses only the standard library at run time, because it shares a small machine with what it measures.
//! Reading order: [`http`] (one request) → [`record`] (acknowledged rows) → [`mod@write`] (writing) →
//! [`report`] (gaps) → [`check`] (the rows in the database). [`crate::writer`] is the test's side.

pub mod check;
pub mod http;
pub mod record;
pub mod report;
pub mod write;

/// The table that is written.
pub const TABLE: &str = "numbered";
