//! What the operator asks of a node. The planner decides; whoever implements this only carries out.
mod http;
mod reply;

use std::{future::Future, time::Duration};

use crate::cluster::{Failure, NodeStatus};

pub use http::Http;

/// Limit of one question; a node that takes longer counts as not answering.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Limit of one request that changes something. The node's own limits are shorter; after this the outcome is unknown.
pub const CHANGE_TIMEOUT: Duration = Duration::from_secs(12);
/// Limit of a check of a database: SQLite reads all of it. Below that of a pass.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(45);

/// A node as the operator reaches it, by `host:port` of its HTTP API.
pub trait NodeClient: Send + Sync {
    /// Everything that the planner wants to know of it.
    ///
    /// # Errors
    /// Why it gave no usable answer.
    fn status(&self, address: &str) -> impl Future<Output = Result<NodeStatus, Failure>> + Send;

    /// Asks the leader at `address` to hand over to the node of this name, and waits until it has.
    ///
    /// # Errors
    /// It is not the leader, or the other node did not take over in time. The outcome may be unknown: look at the status.
    fn transfer_leader(
        &self,
        address: &str,
        to: &str,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Asks the leader at `address` to remove a member, and waits until that is committed.
    ///
    /// # Errors
    /// It is not the leader, or there was no answer. The outcome may be unknown: look at the configuration.
    fn remove(&self, address: &str, name: &str)
    -> impl Future<Output = Result<(), Failure>> + Send;

    /// Has SQLite check the node's database, after a linearizable read if it leads. What is wrong with it, or None.
    ///
    /// # Errors
    /// There was no answer: nothing is known.
    fn check(
        &self,
        address: &str,
        as_leader: bool,
    ) -> impl Future<Output = Result<Option<String>, Failure>> + Send;
}
