//! One cluster: from an observation to a plan. Every function in this module depends on its arguments alone:
//! no I/O, no clock, no random numbers. DESIGN.md gives the reasons for the rules.
//!
//! The modules, each of which uses only those before it:
//! * [`facts`]: the observation and what it means,
//! * [`action`]: what a reconcile may do, and what a decider may answer,
//! * [`deciders`]: one for each kind of change,
//! * [`render`]: objects, status and texts,
//! * [`mod@plan`]: asks the deciders in order of urgency and renders the result.
pub mod action;
pub mod deciders;
pub mod facts;
#[cfg(test)]
pub(crate) mod fixture;
pub mod plan;
pub mod render;

pub use action::{Action, Decision};
pub use facts::observation::{Failure, NodeStatus, Observation};
pub use plan::{Plan, plan};
