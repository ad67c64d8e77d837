//! Raft's messages between members, and the errors that openraft gets for them.
use openraft::errors::{RPCError, Unreachable};
use serde::{Deserialize, Serialize};

use crate::{
    internode::wire::unstated_is_one,
    raft::{
        codec::{
            AppendRecord, AppendResponseRecord, Id, MembershipRecord, VoteRecord,
            VoteRequestRecord, VoteResponseRecord,
        },
        types::{RaftId, Types},
    },
};

/// A request to another node.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    Append(AppendRecord),
    Vote(VoteRequestRecord),
    PreVote(VoteRequestRecord),
    Transfer {
        from: VoteRecord,
        to: RaftId,
        last: Option<Id>,
    },
    /// Does the receiver still hold this vote on its disk?
    HoldsVote(VoteRecord),
}

/// The response to a [`Request`] of the same kind.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Response {
    Append(AppendResponseRecord),
    Vote(VoteResponseRecord),
    /// `Err` says why the node does not take over leadership.
    Transfer(Result<(), String>),
    /// Whether it holds the vote.
    HoldsVote(bool),
}

/// Begins a snapshot transfer; the file's bytes follow, then their CRC-32.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SnapshotHeader {
    pub(super) vote: VoteRecord,
    pub(super) last: Option<Id>,
    pub(super) membership: MembershipRecord,
    pub(super) len_bytes: u64,
    /// The format version in effect at `last`.
    #[serde(deserialize_with = "unstated_is_one")]
    pub(super) format_version: u16,
}

/// Ends a snapshot transfer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum SnapshotReply {
    Done(VoteRecord),
    Failed(String),
}

pub(super) fn unreachable<E: std::error::Error + 'static>(e: &E) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(e))
}

pub(super) fn unexpected_response(address: &str) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::from_string(format!(
        "{address} sent an unexpected response"
    )))
}
