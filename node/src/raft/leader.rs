//! The leader's side for clients: who leads, proposals and their commits, confirmed reads.
mod applying;
pub mod commit;
pub(super) mod confirm;
pub mod leadership;
pub mod proposer;
pub(super) mod read_index;
pub(super) mod version_gate;
