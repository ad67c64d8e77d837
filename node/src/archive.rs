//! The continuous archive: every committed entry, in sealed segments, and now and then a base, in a store of
//! objects, so that any moment of the past can be restored.
//!
//! Every node knows how far the archive is and keeps its log until then; the leader writes. What it does next
//! is decided in `decide.rs`, a function of values; `task.rs` does it. DESIGN.md says why there is neither a
//! gap nor a fork.
mod base;
mod chain;
mod decide;
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
