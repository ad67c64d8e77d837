//! The operator: keeps each `RqliteCluster` as its user wants it.
//!
//! [`cluster`] decides: an observation in, a plan out, nothing else. [`definitions`] prints the custom resource definitions.
//! [`node_api`] is what is asked of nodes.
pub mod cluster;
pub mod definitions;
pub mod node_api;
