//! What the operator asks of a node. The planner decides; whoever implements this only carries out.
use std::{future::Future, time::Duration};

use crate::cluster::{Failure, NodeStatus};

/// Limit of one question; a node that takes longer counts as not answering.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// A node as the operator reaches it, by the host name of its pod.
pub trait NodeApi: Send + Sync {
    /// Everything that the planner wants to know of it.
    ///
    /// # Errors
    /// Why it gave no usable answer.
    fn status(&self, host: &str) -> impl Future<Output = Result<NodeStatus, Failure>> + Send;

    /// Asks the leader at `host` to hand over to the node of this name, and waits until it has.
    ///
    /// # Errors
    /// It is not the leader, or the other node did not take over in time. The outcome may be unknown: look at the status.
    fn transfer_leader(
        &self,
        host: &str,
        to: &str,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Asks the leader at `host` to remove a member, and waits until that is committed.
    ///
    /// # Errors
    /// It is not the leader, or there was no answer. The outcome may be unknown: look at the configuration.
    fn remove(&self, host: &str, name: &str) -> impl Future<Output = Result<(), Failure>> + Send;
}
