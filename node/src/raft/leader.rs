//! What a leader does for clients: it takes proposals, confirms its leadership for reads, and every node knows who leads.
pub mod commit;
pub(super) mod confirm;
pub mod leadership;
pub mod proposer;
pub(super) mod read_index;
pub(super) mod version_gate;
