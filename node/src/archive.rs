//! The continuous archive: every committed entry (in segments) and regular copies of the database (bases), in
//! an object store, so that the state at any time can be restored.
//!
//! Every node knows which entries are archived and keeps its log until they are; the leader writes.
//! `decide.rs`, a function without I/O, decides the next step; `task.rs` carries it out. DESIGN.md says why
//! the archive has neither gaps nor forks.
mod base;
mod chain;
mod decide;
mod links;
mod manifest;
mod notices;
pub mod parent;
mod pending;
mod place;
mod retention;
mod segment;
pub mod settings;
mod shared;
mod task;

pub use self::{
    settings::{Settings, SettingsError},
    shared::Archive,
    task::{Parts, run},
};
