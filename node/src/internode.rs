//! How nodes talk to each other: connections and frames, the messages besides Raft's, and the client that
//! sends them.
//!
//! The serving side is `internode_server`, above the store; Raft's own messages are in `raft/network.rs` and
//! `raft/codec.rs`.
pub mod client;
pub mod messages;
pub mod transfer;
pub mod wire;
