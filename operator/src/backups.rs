//! Backups: `RqliteBackup` (one Job each) and `RqliteScheduledBackup`. `cron`, `schedule`, `retention`,
//! `backup` and `job` decide, as functions of values; `carry_out` looks and does, `controller` says when.
pub mod backup;
pub mod carry_out;
pub mod controller;
pub mod cron;
pub mod job;
pub mod retention;
pub mod schedule;
