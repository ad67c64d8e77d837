//! Messages between nodes besides Raft's: joining, forming and leaving a cluster, and work forwarded to the
//! leader.
//!
//! They are encoded with postcard: the order of variants and fields is the format on the wire. New variants
//! go at the end, and are sent only once the cluster's format version says that every member understands them
//! (`version.rs`, `FORMATS.md`).
use std::{net::SocketAddr, time::Duration};

use node_contract::Lineage;
use node_db::{BackupFormat, Bounds, Outcome, Read, Request};
use serde::{Deserialize, Serialize};

use crate::{
    command::logged::LoggedEntry,
    identity::Cluster,
    store_types::{
        Comparison, CopyDecision, Credentials, HashReport, ReadOptions, Served, StoreError,
    },
};

/// A request to another node.
#[derive(Debug, Serialize, Deserialize)]
pub enum PeerRequest {
    /// Metadata of the receiving node.
    Meta,
    /// Add the sender to the cluster.
    Join(JoinRequest),
    /// The sender's state while a cluster is being formed; the response carries the receiver's.
    Notify(Notice),
    /// Pledge to take part in forming this cluster, and no other.
    Pledge {
        /// The cluster to be formed.
        cluster: Cluster,
        /// Raft ids of all its initial members, sorted; the first one coordinates.
        members: Vec<String>,
        /// Credentials with permission to join.
        credentials: Option<Credentials>,
    },
    /// Withdraw the pledge for this cluster: it will not be formed.
    Release(Cluster),
    /// Remove a member by name.
    Remove {
        /// Node name.
        name: String,
        /// The caller's credentials.
        credentials: Option<Credentials>,
    },
    /// Transfer leadership.
    StepDown {
        /// To this node; `None`: to the best candidate.
        to: Option<String>,
        /// Respond only when another node leads.
        wait: bool,
        /// The caller's credentials.
        credentials: Option<Credentials>,
    },
    /// Client writes (and mixed requests), each with its caller's credentials.
    Write(Vec<ForwardedWrite>),
    /// A client read.
    Read {
        /// The statements.
        read: Read,
        /// Consistency options.
        options: ReadOptions,
        /// The caller's credentials.
        credentials: Option<Credentials>,
    },
    /// A backup; its bytes follow the response.
    Backup {
        /// File format and options.
        format: BackupFormat,
        /// The caller's credentials.
        credentials: Option<Credentials>,
    },
    /// An upload whose bytes follow the request; the response comes after them.
    Load {
        /// Length of the upload.
        len_bytes: u64,
        /// The caller's credentials.
        credentials: Option<Credentials>,
    },
    /// Whether the receiver's disk has room to rewrite the whole database.
    RoomToVacuum,
    /// The hash of the receiver's content at this entry. From format version 2.
    ContentHash {
        /// Index of the entry that requested the hash.
        index: u64,
    },
    /// The leader's decision on the sender's copy at this entry. From format version 2.
    CopyDecision {
        /// Index of the entry that requested the hash.
        index: u64,
    },
    /// Compare the copies of all members. From format version 2.
    Compare {
        /// How long to wait for hashes.
        limit: Duration,
        /// The caller's credentials.
        credentials: Option<Credentials>,
    },
    /// A client read whose result may come in parts. From format version 2.
    ReadParts {
        /// The statements.
        read: Read,
        /// Consistency options.
        options: ReadOptions,
        /// The caller's credentials.
        credentials: Option<Credentials>,
        /// Address that the client is connected from.
        client: Option<SocketAddr>,
    },
    /// As `Write`, with the execution bounds of each write. From format version 2.
    BoundedWrite(Vec<ForwardedWrite>, Vec<Bounds>),
    /// How many bytes are free on the receiver's disk beside the reserve. From format version 2.
    Room,
    /// The leader has archived everything up to this entry, so the receiver's log need not keep it for that.
    /// Nodes without an archive ignore it; older ones close the connection.
    Archived {
        /// The lineage that is archived.
        lineage: Lineage,
        /// Index of the entry.
        index: u64,
        /// Its time, in microseconds since the Unix epoch.
        unix_micros: i64,
    },
    /// Applied entries of the receiver's log, for a leader that lacks what is not archived yet. Older nodes
    /// close the connection.
    LoggedEntries {
        /// The lineage that is archived.
        lineage: Lineage,
        /// Index of the first one.
        from: u64,
    },
}

/// One write on its way to the leader.
#[derive(Debug, Serialize, Deserialize)]
pub struct ForwardedWrite {
    /// The statements.
    pub request: Request,
    /// The caller's credentials.
    pub credentials: Option<Credentials>,
}

/// A request to join.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JoinRequest {
    /// Raft id.
    pub id: String,
    /// Advertised Raft address.
    pub raft_addr: String,
    /// Join as a voter; otherwise as a read-only node.
    pub voter: bool,
    /// The cluster that the node already is a member of, if any.
    pub cluster: Option<Cluster>,
    /// Credentials of the user named by `-join-as`.
    pub credentials: Option<Credentials>,
}

/// The state of a node that takes part in forming a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Raft id.
    pub id: String,
    /// Advertised Raft address.
    pub raft_addr: String,
    /// The node's state.
    pub state: NoticeState,
    /// Credentials of the user named by `-join-as`; `None` in responses.
    pub credentials: Option<Credentials>,
}

/// A node's state in the forming of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoticeState {
    /// The node has no log and no vote. It may have pledged to form a cluster.
    Empty {
        /// Members of the cluster that it has pledged to form.
        pledged: Option<Vec<String>>,
    },
    /// The node has a log: it belongs to a cluster.
    Member,
    /// The node has no log and may not form a cluster, for example because it is read-only: it can only join.
    Bystander,
}

/// The response to a [`PeerRequest`].
#[derive(Debug, Serialize, Deserialize)]
pub enum PeerResponse {
    /// To `Meta`.
    Meta(Meta),
    /// To `Join`.
    Join(JoinResponse),
    /// To `Notify`.
    Notify(Notice),
    /// To `Pledge`, `Release`, `Remove`, `StepDown`.
    Done(Result<(), StoreError>),
    /// To `Write` and `BoundedWrite`: one result per write, in order.
    Write(Vec<Result<WriteResponse, StoreError>>),
    /// To `Read` and `Load`, and to `ReadParts` if the result is small.
    Served(Result<Served, StoreError>),
    /// To `Backup`: its length; the bytes follow.
    Backup(Result<u64, StoreError>),
    /// To `RoomToVacuum`; `Refused` says what is missing.
    Room(Result<(), StoreError>),
    /// To `ContentHash`.
    ContentHash(HashReport),
    /// To `CopyDecision`.
    CopyDecision(Result<CopyDecision, StoreError>),
    /// To `Compare`.
    Compared(Result<Comparison, StoreError>),
    /// To `ReadParts` if the result is large: frames with one [`node_db::Part`] each follow, up to
    /// [`node_db::Part::Done`].
    Parts,
    /// To `Room`: free bytes beside the reserve.
    Spare(Result<u64, StoreError>),
    /// To `LoggedEntries`: some of them, without holes; none if the receiver lacks the first one.
    LoggedEntries(Result<Vec<LoggedEntry>, StoreError>),
}

/// The result of a forwarded write.
#[derive(Debug, Serialize, Deserialize)]
pub struct WriteResponse {
    /// Its results.
    pub outcome: Outcome,
    /// Index of its log entry.
    pub raft_index: u64,
}

/// Metadata of a node; all empty in responses to nodes that have not proven to be members.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Meta {
    /// Node name.
    pub name: String,
    /// Raft id.
    pub raft_id: String,
    /// Advertised HTTP URL.
    pub api_url: String,
    /// Program version.
    pub version: String,
    /// Highest log index that the node knows to be committed.
    pub commit_index: u64,
    /// The node leads.
    pub leader: bool,
}

/// The response to a [`JoinRequest`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum JoinResponse {
    /// The node is a member now.
    Joined(Cluster),
    /// The receiver does not lead: ask the node at this Raft address, or try again later.
    NotLeader(Option<String>),
    /// The node cannot join; the text says why and what to change.
    Refused(String),
    /// The credentials do not permit joining.
    Unauthorized,
}
