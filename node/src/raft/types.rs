//! openraft's type parameters, chosen once, and short names for what they give.
use std::{fmt, sync::Arc};

use openraft::{RaftTypeConfig, impls::leader_id_std};
use serde::{Deserialize, Serialize};

use crate::command::Encoded;

/// A member's Raft id, `<name>#<incarnation>`: unique to one data directory, never reused (see
/// `identity.rs`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RaftId(pub Arc<str>);

impl fmt::Display for RaftId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for RaftId {
    fn from(id: &str) -> Self {
        Self(id.into())
    }
}

impl From<String> for RaftId {
    fn from(id: String) -> Self {
        Self(id.into())
    }
}

impl RaftId {
    /// What users call the node.
    pub fn name(&self) -> &str {
        crate::identity::name_of(&self.0)
    }

    /// Whether both ids are of the same data directory, possibly under different node names.
    pub fn same_directory(&self, other: &Self) -> bool {
        let incarnation = |id: &Self| {
            id.0.rsplit_once(crate::identity::SEPARATOR)
                .map(|(_, incarnation)| incarnation.to_owned())
        };
        incarnation(self).is_some_and(|own| incarnation(other) == Some(own))
    }
}

/// What the membership records about each member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Advertised Raft address, `host:port`; resolved again for each connection.
    pub raft_addr: String,
    /// It joined as a voter. While it is a learner, the leader promotes it once it has caught up.
    pub wants_vote: bool,
}

/// Response of the state machine to one entry: an outcome for each packed request. Empty if no caller waits
/// or the caller already has its outcomes.
#[derive(Debug, Default)]
pub struct Applied(pub Vec<node_db::Outcome>);

/// openraft's type configuration.
#[derive(Debug, Clone, Copy, Default, Eq, PartialEq, Ord, PartialOrd)]
pub struct Types;

impl RaftTypeConfig for Types {
    type D = Encoded;
    type R = Applied;
    type NodeId = RaftId;
    type Node = Member;
    type Term = u64;
    type LeaderId = leader_id_std::LeaderId<u64, RaftId>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Encoded, RaftId, Member>;
    type Entry = openraft::impls::Entry<CommittedLeaderId, Self::Payload>;
    type AsyncRuntime = openraft::impls::TokioRuntime;
    type Responder<T>
        = openraft::impls::ProgressResponder<Self, T>
    where
        T: Send + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: Send + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// The part of a leader's identity that a log id carries: its term.
pub type CommittedLeaderId =
    <leader_id_std::LeaderId<u64, RaftId> as openraft::vote::RaftLeaderId>::Committed;
/// Term and index of an entry.
pub type LogId = openraft::LogId<CommittedLeaderId>;
/// A log entry.
pub type Entry = <Types as RaftTypeConfig>::Entry;
/// An entry's content.
pub type Payload = <Types as RaftTypeConfig>::Payload;
/// A vote or a leadership.
pub type Vote = <Types as RaftTypeConfig>::Vote;
/// Voters and learners.
pub type Membership = openraft::Membership<RaftId, Member>;
/// A membership and the entry that carried it.
pub type StoredMembership = openraft::StoredMembership<CommittedLeaderId, RaftId, Member>;
/// openraft's metrics.
pub type Metrics = openraft::RaftMetrics<Types>;

/// Makes a log id.
pub fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term), index)
}

/// A database position from a log id.
pub fn position(id: &LogId) -> node_db::Position {
    node_db::Position {
        term: id.leader_id.term,
        index: id.index,
    }
}

/// A log id from a database position.
pub fn log_id_of(position: node_db::Position) -> LogId {
    log_id(position.term, position.index)
}
