//! Raft's messages between members: both ends of the connections that carry them.
pub mod client;
mod messages;
pub(super) mod pipeline;
pub mod server;
