//! Raft's values as bytes, on disk (log entries, votes, memberships) and on the wire. Both use the same
//! encoding, postcard over mirror types, so that an upgrade of openraft cannot silently change what is
//! stored. Fields and variants are append only.
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::{
    EntryPayload,
    raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse},
};
use serde::{Deserialize, Serialize};

use super::types::{
    Entry, LogId, Member, Membership, Payload, RaftId, StoredMembership, Types, Vote, log_id,
};
use crate::command::Encoded;

/// `(term, index)`.
pub type Id = (u64, u64);

/// A vote: the candidate's term and id, and whether a quorum granted it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteRecord {
    /// Term voted in.
    pub term: u64,
    /// Raft id voted for.
    pub voted_for: RaftId,
    /// A quorum granted it, so the candidate leads.
    pub committed: bool,
}

/// A membership: one voter set, or two while joint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipRecord {
    /// Log id of its entry.
    pub log_id: Option<Id>,
    /// Voter sets.
    pub voters: Vec<BTreeSet<RaftId>>,
    /// All members with their addresses.
    pub nodes: BTreeMap<RaftId, Member>,
}

/// An entry's content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PayloadRecord {
    /// A new leader's first entry.
    Blank,
    /// An encoded command.
    Command(Bytes),
    /// A membership (its `log_id` is the entry's own and left `None`).
    Membership(MembershipRecord),
}

/// An entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EntryRecord {
    /// Its log id.
    pub id: Id,
    /// Its content.
    pub payload: PayloadRecord,
}

/// A log replication request; a heartbeat if it has no entries.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AppendRecord {
    /// The leader's vote.
    pub vote: VoteRecord,
    /// Entry before the first.
    pub prev: Option<Id>,
    /// Entries, possibly none.
    pub entries: Vec<EntryRecord>,
    /// The last entry that the leader knows to be committed.
    pub commit: Option<Id>,
    /// The leader has had no response from a quorum for an election timeout.
    #[serde(deserialize_with = "absent_is_false")]
    pub without_quorum: bool,
}

/// For a last field that older nodes do not send: missing bytes mean false.
fn absent_is_false<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(bool::deserialize(deserializer).unwrap_or(false))
}

/// Response to [`AppendRecord`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum AppendResponseRecord {
    /// All entries are durable here.
    Success,
    /// Entries up to this one are durable here.
    Partial(Option<Id>),
    /// `prev` is not in this log.
    Conflict,
    /// This node has seen a higher vote.
    HigherVote(VoteRecord),
    /// This node cannot accept entries now (its disk is full); the text is for a person.
    Unable(String),
}

/// A request for a vote or, as a pre-vote, for the promise of one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VoteRequestRecord {
    /// The candidate's vote.
    pub vote: VoteRecord,
    /// Its last entry.
    pub last: Option<Id>,
    /// The leader has transferred its leadership to this candidate.
    pub transfer: bool,
}

/// Response to [`VoteRequestRecord`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VoteResponseRecord {
    /// The responder's vote.
    pub vote: VoteRecord,
    /// Granted.
    pub granted: bool,
    /// The responder's last entry.
    pub last: Option<Id>,
}

/// `(term, index)` of a log id.
pub fn id(id: &LogId) -> Id {
    (id.leader_id.term, id.index)
}

/// A log id of `(term, index)`.
pub fn from_id((term, index): Id) -> LogId {
    log_id(term, index)
}

impl From<&Vote> for VoteRecord {
    fn from(vote: &Vote) -> Self {
        Self {
            term: vote.leader_id.term,
            voted_for: vote.leader_id.voted_for.clone(),
            committed: vote.committed,
        }
    }
}

impl From<VoteRecord> for Vote {
    fn from(record: VoteRecord) -> Self {
        let leader_id = openraft::impls::leader_id_std::LeaderId {
            term: record.term,
            voted_for: record.voted_for,
        };
        Self {
            leader_id,
            committed: record.committed,
        }
    }
}

/// Ordered as Raft orders votes: by term; within a term only votes for the same candidate compare.
impl PartialOrd for VoteRecord {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Vote::from(self.clone()).partial_cmp(&Vote::from(other.clone()))
    }
}

/// A membership record that names voters without an address.
#[derive(Debug, thiserror::Error)]
#[error("membership names voters without an address: {0}")]
pub struct InvalidMembership(String);

impl MembershipRecord {
    /// From openraft's type.
    pub fn new(membership: &Membership, log_id: Option<&LogId>) -> Self {
        Self {
            log_id: log_id.map(id),
            voters: membership.get_joint_config().clone(),
            nodes: membership
                .nodes()
                .map(|(id, node)| (id.clone(), node.clone()))
                .collect(),
        }
    }

    /// To openraft's.
    ///
    /// # Errors
    /// A voter without an address, or an empty voter set.
    pub fn membership(self) -> Result<Membership, InvalidMembership> {
        if self.voters.is_empty() && self.nodes.is_empty() {
            return Ok(Membership::default());
        }
        Membership::new(self.voters, self.nodes).map_err(|e| InvalidMembership(e.to_string()))
    }

    /// To openraft's type, with the log id of its entry.
    ///
    /// # Errors
    /// As [`MembershipRecord::membership`].
    pub fn stored(self) -> Result<StoredMembership, InvalidMembership> {
        let log_id = self.log_id.map(from_id);
        Ok(StoredMembership::new(log_id, self.membership()?))
    }
}

impl From<&Payload> for PayloadRecord {
    fn from(payload: &Payload) -> Self {
        match payload {
            EntryPayload::Blank => Self::Blank,
            EntryPayload::Normal(command) => Self::Command(command.bytes().clone()),
            EntryPayload::Membership(m) => Self::Membership(MembershipRecord::new(m, None)),
        }
    }
}

impl PayloadRecord {
    /// To openraft's.
    ///
    /// # Errors
    /// An invalid membership.
    pub fn payload(self) -> Result<Payload, InvalidMembership> {
        Ok(match self {
            Self::Blank => EntryPayload::Blank,
            Self::Command(bytes) => EntryPayload::Normal(Encoded::from_bytes(bytes)),
            Self::Membership(m) => EntryPayload::Membership(m.membership()?),
        })
    }
}

impl From<&AppendEntriesRequest<Types>> for AppendRecord {
    fn from(rpc: &AppendEntriesRequest<Types>) -> Self {
        Self {
            vote: (&rpc.vote).into(),
            prev: rpc.prev_log_id.as_ref().map(id),
            entries: rpc
                .entries
                .iter()
                .map(|e| EntryRecord {
                    id: id(&e.log_id),
                    payload: (&e.payload).into(),
                })
                .collect(),
            commit: rpc.leader_commit.as_ref().map(id),
            without_quorum: false,
        }
    }
}

impl AppendRecord {
    /// To openraft's.
    ///
    /// # Errors
    /// An invalid membership among the entries.
    pub fn request(self) -> Result<AppendEntriesRequest<Types>, InvalidMembership> {
        let entries = self
            .entries
            .into_iter()
            .map(|e| {
                Ok(Entry {
                    log_id: from_id(e.id),
                    payload: e.payload.payload()?,
                })
            })
            .collect::<Result<_, InvalidMembership>>()?;
        Ok(AppendEntriesRequest {
            vote: self.vote.into(),
            prev_log_id: self.prev.map(from_id),
            entries,
            leader_commit: self.commit.map(from_id),
        })
    }
}

impl From<AppendEntriesResponse<Types>> for AppendResponseRecord {
    fn from(response: AppendEntriesResponse<Types>) -> Self {
        match response {
            AppendEntriesResponse::Success => Self::Success,
            AppendEntriesResponse::PartialSuccess(upto) => Self::Partial(upto.as_ref().map(id)),
            AppendEntriesResponse::Conflict => Self::Conflict,
            AppendEntriesResponse::HigherVote(vote) => Self::HigherVote((&vote).into()),
        }
    }
}

impl AppendResponseRecord {
    /// To openraft's type; `Err` carries the reason of [`AppendResponseRecord::Unable`].
    ///
    /// # Errors
    /// The follower cannot accept entries now.
    pub fn response(self) -> Result<AppendEntriesResponse<Types>, String> {
        Ok(match self {
            Self::Success => AppendEntriesResponse::Success,
            Self::Partial(upto) => AppendEntriesResponse::PartialSuccess(upto.map(from_id)),
            Self::Conflict => AppendEntriesResponse::Conflict,
            Self::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote.into()),
            Self::Unable(reason) => return Err(reason),
        })
    }
}

impl From<VoteRequest<Types>> for VoteRequestRecord {
    fn from(rpc: VoteRequest<Types>) -> Self {
        Self {
            vote: (&rpc.vote).into(),
            last: rpc.last_log_id.as_ref().map(id),
            transfer: rpc.leadership_transfer,
        }
    }
}

impl From<VoteRequestRecord> for VoteRequest<Types> {
    fn from(record: VoteRequestRecord) -> Self {
        let mut rpc = Self::new(record.vote.into(), record.last.map(from_id));
        rpc.leadership_transfer = record.transfer;
        rpc
    }
}

impl From<VoteResponse<Types>> for VoteResponseRecord {
    fn from(response: VoteResponse<Types>) -> Self {
        Self {
            vote: (&response.vote).into(),
            granted: response.vote_granted,
            last: response.last_log_id.as_ref().map(id),
        }
    }
}

impl From<VoteResponseRecord> for VoteResponse<Types> {
    fn from(response: VoteResponseRecord) -> Self {
        Self {
            vote: response.vote.into(),
            vote_granted: response.granted,
            last_log_id: response.last.map(from_id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Old and new nodes understand each other: an older one neither sends nor reads the last field.
    #[test]
    fn an_append_of_an_older_node_has_a_quorum() {
        let record = AppendRecord {
            vote: VoteRecord {
                term: 1,
                voted_for: "a#1".into(),
                committed: true,
            },
            prev: Some((1, 2)),
            entries: Vec::new(),
            commit: None,
            without_quorum: true,
        };
        let bytes = postcard::to_stdvec(&record).unwrap();
        let read: AppendRecord = postcard::from_bytes(&bytes).unwrap();
        assert!(read.without_quorum);
        let older = &bytes[..bytes.len() - 1];
        let read: AppendRecord = postcard::from_bytes(older).unwrap();
        assert!(!read.without_quorum);
        assert_eq!(read.prev, record.prev);
        assert!(
            postcard::from_bytes::<AppendRecord>(&older[..older.len() - 2]).is_err(),
            "but nothing else may be missing"
        );
    }
}
