//! What a node knows about comparisons of copies: the last one, and how its own copy differs.
use node_db::ContentHash;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::store_types::Comparison;

/// How this node's copy differs from the majority's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The index of the comparison.
    pub index: u64,
    /// The hash of this node's copy.
    pub own: ContentHash,
    /// The hash of the majority.
    pub right: ContentHash,
}

/// What a node knows about comparisons.
#[derive(Debug, Default)]
pub(in crate::store) struct ComparisonState {
    pub(in crate::store) last: Mutex<Option<Comparison>>,
    pub(in crate::store) difference: Mutex<Option<Difference>>,
    /// Held while this node compares as leader.
    pub(in crate::store) comparing: tokio::sync::Mutex<()>,
    /// Cancelled when the process must restart and join again.
    pub(in crate::store) leave: CancellationToken,
}
