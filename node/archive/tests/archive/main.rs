//! The archive as a whole, on a store in memory: damage of every kind, and a random walk of writers.
#![expect(clippy::unwrap_used, reason = "tests")]
mod damage;
mod memory;
mod restore;
mod walk;
mod writer;
