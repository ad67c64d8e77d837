//! What follows from facts and decisions: Kubernetes objects, the status, and texts for people.
pub mod build;
pub mod edits;
pub mod hindrance;
pub mod report;
pub mod runbook;
