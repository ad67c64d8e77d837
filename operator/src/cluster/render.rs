//! What follows from facts and decisions: Kubernetes objects, the status, and texts for people.
pub mod blockers;
pub mod build;
pub(crate) mod disks;
pub mod edits;
pub mod report;
pub mod runbook;
pub mod secrets;
pub mod strays;
pub mod unknown_members;
