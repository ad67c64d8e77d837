//! The serving side of the inter-node port: which connections it accepts, and how it answers the requests of
//! other nodes.
mod administration;
pub mod admission;
mod archive;
mod audited;
mod caller;
mod forwarded;
pub mod listener;
mod membership;
pub mod requests;
mod transfer;
