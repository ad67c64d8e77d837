//! The operator's requests to nodes. The planner decides; an implementation of this trait only executes.
mod access;
mod http;
mod reply;

use std::{future::Future, time::Duration};

use node_contract::{RestoreRequest, RestoreState};

use crate::cluster::{Failure, NodeStatus};

pub use access::Accesses;
pub use http::Http;

/// Timeout of a status request. A node that takes longer counts as unreachable.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Timeout of a request that changes something. The node's own limits are shorter; after this timeout the
/// outcome is unknown.
pub const CHANGE_TIMEOUT: Duration = Duration::from_secs(12);
/// Timeout of a database check by a node of an earlier version, in which SQLite reads the whole database
/// while the operator waits. Shorter than the limit of a reconcile.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(45);

/// Reply to the request for a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckStart {
    /// It runs, or has ended.
    Started,
    /// Another one runs, as this text says.
    Busy(String),
    /// The node is of a version that does not check in the background.
    Unsupported,
}

/// Client of a node's HTTP API; nodes are addressed by `host:port`.
pub trait NodeClient: Send + Sync {
    /// Reads the node's status.
    ///
    /// # Errors
    /// Why there is no usable response.
    fn status(&self, address: &str) -> impl Future<Output = Result<NodeStatus, Failure>> + Send;

    /// Reads the node's status without its readiness, in one request: for questions that are asked every
    /// second.
    ///
    /// # Errors
    /// Why there is no usable response.
    fn leadership(&self, address: &str)
    -> impl Future<Output = Result<NodeStatus, Failure>> + Send;

    /// Requests the leader at `address` to transfer leadership to the node `to`, and waits for the transfer.
    ///
    /// # Errors
    /// The node is not the leader, or the transfer did not succeed in time. The outcome may be unknown: read
    /// the status.
    fn transfer_leader(
        &self,
        address: &str,
        to: &str,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Requests the leader at `address` to remove a member, and waits until the removal is committed.
    ///
    /// # Errors
    /// The node is not the leader, or there was no response. The outcome may be unknown: read the
    /// configuration.
    fn remove(&self, address: &str, name: &str)
    -> impl Future<Output = Result<(), Failure>> + Send;

    /// Proves by a linearizable read that the node leads.
    ///
    /// # Errors
    /// It does not lead, or there was no response.
    fn read_as_leader(&self, address: &str) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Starts a check of the node's database in the background, unless one of this id was started. The node's
    /// status shows its result.
    ///
    /// # Errors
    /// There was no response, or the node refused.
    fn start_check(
        &self,
        address: &str,
        id: &str,
        limit: Duration,
    ) -> impl Future<Output = Result<CheckStart, Failure>> + Send;

    /// Ends that check. It is no error if it does not run.
    ///
    /// # Errors
    /// There was no response.
    fn end_check(
        &self,
        address: &str,
        id: &str,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Requests a restore in place from the leader, or only what it would undo. A refusal by the node is a
    /// failed restore, with its text.
    ///
    /// # Errors
    /// There was no response: its id in [`Self::restore_state`] shows whether the restore began.
    fn restore(
        &self,
        address: &str,
        request: &RestoreRequest,
    ) -> impl Future<Output = Result<RestoreState, Failure>> + Send;

    /// The running restore of the node, or the last one; None if the node knows none.
    ///
    /// # Errors
    /// There was no response.
    fn restore_state(
        &self,
        address: &str,
    ) -> impl Future<Output = Result<Option<RestoreState>, Failure>> + Send;

    /// Checks the database of a node of an earlier version by `PRAGMA quick_check`, and waits. Returns what
    /// is wrong with it, or None.
    ///
    /// # Errors
    /// There was no response: nothing is known.
    fn check_now(
        &self,
        address: &str,
    ) -> impl Future<Output = Result<Option<String>, Failure>> + Send;
}
