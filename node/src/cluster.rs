//! Becoming part of a cluster: joining an existing one, or forming the first one with other nodes.
//!
//! The decisions are pure functions in `decide.rs` and `claim.rs`; the other files contact nodes and act.
//! DESIGN.md lists the cases and the dangers in them. Requests of other nodes to join or to form are served
//! by `internode_server`.
mod bootstrapper;
pub mod callers;
pub mod claim;
pub mod decide;
mod form;
mod join;
pub mod moved;
mod notices;
pub mod register;
mod rejoin;
mod start;

pub use self::bootstrapper::{AddressSource, BootstrapOptions, Bootstrapper, ClusterError};
