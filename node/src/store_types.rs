//! Values that the store, the messages between nodes and the HTTP API share: credentials, read options,
//! results, errors, and comparisons of copies. No behaviour beyond that of the values.
use std::{fmt, time::Duration};

use node_api::param::Level;
use node_db::ContentHash;
use node_values::StatementResult;
use serde::{Deserialize, Serialize};

use crate::command::size::TooLarge;

/// End of the texts of a write whose result is unknown.
const MAY_TAKE_EFFECT: &str = "; the write may still take effect";

/// Name and password of a client. The node that serves the call checks them again.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password in clear text, as HTTP Basic carries it.
    pub password: String,
}

impl fmt::Debug for Credentials {
    /// Does not show the password.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Credentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// The result of a call that was served.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Served {
    /// One result per statement that ran.
    pub results: Vec<StatementResult>,
    /// Why the request as a whole was refused (`disallowed pragma`, `stale read`); shown with HTTP 200.
    pub error: Option<String>,
    /// Raft index of the entry that carried the call, if it went through the log.
    pub raft_index: Option<u64>,
    /// This node's advertised HTTP address, or the leader's Raft address if the call was forwarded.
    pub served_by: String,
}

/// How a read is to be served.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReadOptions {
    /// Read consistency level.
    pub level: Level,
    /// At level `none`: refuse data older than this. Zero means no limit.
    pub freshness: Duration,
    /// At level `none`: also consider how far the applied state is behind the committed log.
    pub freshness_strict: bool,
    /// At level `linearizable`: the longest wait for the read index to be applied.
    pub linearizable_timeout: Duration,
}

/// Why a call failed as a whole. Each variant changes what the caller can do.
#[derive(Clone, Debug, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub enum StoreError {
    /// No leader is known, on this node or on the node that the call was forwarded to: try again later. HTTP
    /// 503.
    #[error("leader not found")]
    LeaderNotFound,
    /// This node is not the leader and may not forward the call (`/boot`).
    #[error("not leader")]
    NotLeader,
    /// The leader denied the caller's credentials; the text names the operation, e.g. `remote Execute not
    /// authorized`. HTTP 401.
    #[error("{0}")]
    Unauthorized(String),
    /// The database is not open yet.
    #[error("store not open")]
    NotOpen,
    /// The database is open, but there is no leader yet, or a restore is in progress.
    #[error("store not ready")]
    NotReady,
    /// The call may or may not take effect; the text says why that is not known.
    #[error("{0}")]
    Unknown(String),
    /// The call certainly had no effect; the text says why.
    #[error("{0}")]
    Refused(String),
    /// The call is too large for the log; the text says what to do. This is known before anything is sent, so
    /// it never comes from another node. HTTP 413.
    #[error("{0}")]
    TooLarge(String),
}

impl StoreError {
    /// The call had no effect because the node that was to serve it does not lead, or no longer leads. The
    /// next leader may serve it.
    pub fn is_no_leader(&self) -> bool {
        matches!(self, Self::LeaderNotFound | Self::NotLeader)
    }

    /// The error to report when a call's time is over: the caller need not know that some other node was
    /// asked and did not lead.
    pub fn at_deadline(self) -> Self {
        match self {
            Self::NotLeader => Self::LeaderNotFound,
            error => error,
        }
    }
}

impl StoreError {
    /// The error of a read that went the way of a write: nothing can take effect later.
    pub fn of_read(self) -> Self {
        match self {
            Self::Unknown(text) => {
                let text = text.strip_suffix(MAY_TAKE_EFFECT).unwrap_or(&text);
                Self::Refused(text.to_owned())
            }
            error => error,
        }
    }
}

impl From<TooLarge> for StoreError {
    fn from(error: TooLarge) -> Self {
        Self::TooLarge(error.to_string())
    }
}

/// One member's copy of the database in a comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberCopy {
    /// Raft id.
    pub id: String,
    /// The member is a voter.
    pub voter: bool,
    /// Hash of the content; `None` if it is not known, see `note`.
    pub hash: Option<ContentHash>,
    /// Why there is no hash; empty if there is one.
    pub note: String,
}

/// The result of comparing the hashes of all members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// All known hashes are equal.
    Equal,
    /// More than half of the voters have the same hash; other members have another one.
    Differ {
        /// The majority's hash.
        right: ContentHash,
        /// Raft ids of the members with another hash.
        wrong: Vec<String>,
    },
    /// There are several hashes, and none has a majority: a person has to decide.
    Undecided,
}

/// A comparison of all members' copies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// Index of the log entry at which every member hashed its content.
    pub index: u64,
    /// When the comparison was completed, in microseconds since the Unix epoch.
    pub unix_micros: u64,
    /// All members.
    pub copies: Vec<MemberCopy>,
    /// The result.
    pub verdict: Verdict,
}

/// A member's report of its hash at an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HashReport {
    /// The entry is not applied yet, or hashing is in progress.
    Pending,
    /// The hash.
    Done(ContentHash),
    /// There will be no hash; the text says why.
    Unavailable(String),
}

/// The leader's decision on one member's copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyDecision {
    /// The majority's hash at the requested index; `None` if the comparison is not complete or has no
    /// majority.
    pub right: Option<ContentHash>,
    /// The other voters have a quorum without this member, so it may drop its copy and rejoin.
    pub may_leave: bool,
    /// Raft addresses of the other members.
    pub addresses: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_does_not_speak_of_effects() {
        let unknown = |text: &str| StoreError::Unknown(text.to_owned()).of_read();
        for (text, wanted) in [
            ("no quorum; the write may still take effect", "no quorum"),
            ("the node is stopping", "the node is stopping"),
        ] {
            assert_eq!(unknown(text), StoreError::Refused(wanted.to_owned()));
        }
        assert_eq!(StoreError::NotLeader.of_read(), StoreError::NotLeader);
    }
}
