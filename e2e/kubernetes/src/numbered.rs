//! The numbered writer: a program that runs in a pod, writes rows 1, 2, 3, … through a Service, and knows which were acknowledged and when.
//! From that a test learns for how long nobody could write, and whether an acknowledged row was lost.
//!
//! Needs nothing but the standard library at run time, as it shares a small machine with what it measures. Reading order: [`http`] (one
//! request) → [`record`] (what was acknowledged) → [`lane`] (writing) → [`report`] (gaps) → [`check`] (what is in the database).
//! [`crate::writer`] is the test's side of it.

pub mod check;
pub mod http;
pub mod lane;
pub mod record;
pub mod report;

/// The table that is written.
pub const TABLE: &str = "numbered";
