//! Which copies of data belong together, and how far a copy goes.
use serde::{Deserialize, Serialize};

/// A lineage: the unbroken history of a cluster's data. A recovery from a lost quorum, and the skipping of a
/// log entry, begin a new one; data of different lineages is never mixed. Its fields' order is part of the
/// node protocol's encoding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// Random, or derived from what began it. Never empty.
    pub id: String,
    /// Number of recoveries before it, from 0.
    pub epoch: u64,
}

/// A position in a Raft log. Ordered by term, then index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogPosition {
    /// Raft term of the entry.
    pub term: u64,
    /// Index of the entry.
    pub index: u64,
}
