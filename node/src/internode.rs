//! What nodes say to each other on the inter-node port: connections and frames, messages besides Raft's, and the calling side.
pub mod client;
pub mod wire;
