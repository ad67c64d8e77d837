//! One cluster: from what is seen to what is to be done. Everything in this room is a function of values; DESIGN.md argues the rules.
//!
//! [`observation`] (what is seen) → [`view`] (what that means) → [`mod@plan`] (asks the deciders in order: [`deletion`], [`hibernate`],
//! [`recovery`], [`bootstrap`], [`quorum`], [`membership`], [`replace`], [`reap`], [`scale`], [`storage`], [`rollout`]) → [`build`] (the objects) and [`report`] (the
//! status; with [`hindrance`], what keeps pods from starting, and [`edits`], what others did).
pub mod action;
pub mod bootstrap;
pub mod build;
pub mod deletion;
pub mod edits;
pub mod heritage;
pub mod hibernate;
pub mod hindrance;
pub mod membership;
pub mod observation;
pub mod plan;
pub mod quorum;
pub mod readers;
pub mod reap;
pub mod recovery;
pub mod replace;
pub mod report;
pub mod rollout;
pub mod runbook;
pub mod scale;
#[cfg(test)]
pub(crate) mod scene;
pub mod storage;
pub mod validate;
pub mod view;
pub mod volume;

pub use action::{Action, Decision};
pub use observation::{Failure, NodeStatus, Observation};
pub use plan::{Plan, plan};
