//! Backups: `RqliteBackup` (one Job each), `RqliteScheduledBackup`, and drills (trial restores) of clusters'
//! archives. `cron`, `schedule`, `retention`, `backup`, `drill` and the jobs decide, as functions without
//! I/O; `carry_out`, `drilling` and `scheduling` read objects and carry decisions out; the controllers run
//! them.
pub mod backup;
pub mod base;
pub mod carry_out;
pub mod controller;
pub mod cron;
pub mod drill;
pub mod drill_controller;
pub mod drill_job;
pub mod drilling;
pub mod job;
pub mod job_secrets;
pub mod job_seen;
pub mod pod;
pub mod retention;
pub mod schedule;
pub mod scheduling;
