//! The serving side of the inter-node port: which connections it accepts, and how it answers requests of other nodes.
mod administration;
pub mod admission;
mod forwarded;
pub mod listener;
pub mod requests;
mod transfer;
