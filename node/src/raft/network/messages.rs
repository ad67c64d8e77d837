//! Raft's messages between members, and the errors that openraft is given for them.
use openraft::errors::{RPCError, Unreachable};
use serde::{Deserialize, Serialize};

use crate::{
    internode::wire::unsaid_is_one,
    raft::{
        codec::{
            AppendAnswer, AppendRecord, Id, MembershipRecord, VoteAnswer, VoteAsk, VoteRecord,
        },
        types::{RaftId, Types},
    },
};

/// What Raft asks of another node.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    Append(AppendRecord),
    Vote(VoteAsk),
    PreVote(VoteAsk),
    Transfer {
        from: VoteRecord,
        to: RaftId,
        last: Option<Id>,
    },
    /// Is this still the vote on your disk?
    Holds(VoteRecord),
}

/// The answer to an [`Ask`] of the same kind.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Append(AppendAnswer),
    Vote(VoteAnswer),
    /// `Err` says why the node will not take over.
    Transfer(Result<(), String>),
    /// Yes or no.
    Holds(bool),
}

/// Begins a snapshot transfer; the file's bytes follow, then their CRC-32.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SnapshotHead {
    pub(super) vote: VoteRecord,
    pub(super) last: Option<Id>,
    pub(super) membership: MembershipRecord,
    pub(super) len_bytes: u64,
    /// The format version in effect at `last`.
    #[serde(deserialize_with = "unsaid_is_one")]
    pub(super) format_version: u16,
}

/// Ends a snapshot transfer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum SnapshotAnswer {
    Done(VoteRecord),
    Failed(String),
}

pub(super) fn unreachable<E: std::error::Error + 'static>(e: &E) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(e))
}

pub(super) fn another_question(address: &str) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::from_string(format!(
        "{address} answered another question"
    )))
}
