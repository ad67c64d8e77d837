//! What nodes say to each other besides Raft: joining, forming, leaving, work forwarded to the leader. Messages and the calling side.
//!
//! A call is never repeated by itself once any of it was sent: what failed after that may have taken effect.
use std::{
    collections::HashMap,
    future::{Future, pending},
    io,
    net::SocketAddr,
    path::Path,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use node_db::{BackupFormat, Bounds, Outcome, Read, Request};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::wire::{Connection, Hello, MAX_FRAME_BYTES, Purpose, WireError, read_frame};
use crate::{
    identity::Cluster,
    local::Local,
    metrics::{Counter, Metrics},
    store::{
        Credentials, ReadOptions, Served, StoreError,
        compare::{Comparison, Judgement, Told},
    },
    version,
};

/// Idle connections kept per address; beyond them a call opens and closes its own.
const POOL_SIZE: usize = 8;
/// Bytes of a backup or an upload moved at a time.
const PIECE_BYTES: usize = 256 << 10;
/// A transfer between nodes in which no byte moves for this long has ended.
pub const TRANSFER_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Why the other side has closed while something was sent to it has arrived by then, if it said so.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);

/// A request to another node.
#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Who are you?
    Meta,
    /// Admit me.
    Join(JoinAsk),
    /// Here I am, with nothing; how are you?
    Notify(Notice),
    /// Take part in forming this cluster, and in no other.
    Pledge {
        /// The cluster to be.
        cluster: Cluster,
        /// Raft ids of all its first members, sorted; the first coordinates.
        members: Vec<String>,
        /// Credentials with permission to join.
        credentials: Option<Credentials>,
    },
    /// The forming that you pledged yourself to will not happen.
    Release(Cluster),
    /// Remove a member by name.
    Remove {
        /// Node name.
        name: String,
        /// The caller's.
        credentials: Option<Credentials>,
    },
    /// Hand over leadership.
    StepDown {
        /// To this node, or to the best one.
        to: Option<String>,
        /// Answer when another node leads.
        wait: bool,
        /// The caller's.
        credentials: Option<Credentials>,
    },
    /// Client writes (and mixed requests), each with its caller's credentials.
    Write(Vec<ForwardedWrite>),
    /// A client read.
    Read {
        /// What to read.
        read: Read,
        /// How.
        options: ReadOptions,
        /// The caller's.
        credentials: Option<Credentials>,
    },
    /// A backup; its bytes follow the answer.
    Backup {
        /// Its shape.
        format: BackupFormat,
        /// The caller's.
        credentials: Option<Credentials>,
    },
    /// An upload of this many bytes, which follow; the answer comes after them.
    Load {
        /// Length of the upload.
        len_bytes: u64,
        /// The caller's.
        credentials: Option<Credentials>,
    },
    /// Is there room on your disk to rewrite the whole database?
    RoomToVacuum,
    /// What is the hash of your content at this entry? From version 2 on.
    ContentHash {
        /// Index of the entry that asked for it.
        index: u64,
    },
    /// What is your judgement, as leader, on my copy at this entry? From version 2 on.
    Judgement {
        /// Index of the entry.
        index: u64,
    },
    /// Compare the copies of all members. From version 2 on.
    Compare {
        /// How long to wait for hashes.
        limit: Duration,
        /// The caller's.
        credentials: Option<Credentials>,
    },
    /// A client read, whose result may come in pieces. From format version 2 on.
    ReadParts {
        /// What to read.
        read: Read,
        /// How.
        options: ReadOptions,
        /// The caller's.
        credentials: Option<Credentials>,
        /// Where the client is connected from.
        client: Option<SocketAddr>,
    },
    /// As `Write`, with how far each may go. Format version 2.
    BoundedWrite(Vec<ForwardedWrite>, Vec<Bounds>),
    /// How much room is to spare on your disk? Format version 2.
    Room,
}

/// One write on its way to the leader.
#[derive(Debug, Serialize, Deserialize)]
pub struct ForwardedWrite {
    /// What to do.
    pub request: Request,
    /// The caller's.
    pub credentials: Option<Credentials>,
}

/// A request to join.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JoinAsk {
    /// Raft id.
    pub id: String,
    /// Advertised Raft address.
    pub raft_addr: String,
    /// Wants to vote.
    pub voter: bool,
    /// The cluster it is a member of, if any.
    pub cluster: Option<Cluster>,
    /// Of the user named by `-join-as`.
    pub credentials: Option<Credentials>,
}

/// What a node that takes part in forming a cluster says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Raft id.
    pub id: String,
    /// Advertised Raft address.
    pub raft_addr: String,
    /// Where it stands.
    pub state: NoticeState,
    /// Of the user named by `-join-as`; empty in answers.
    pub credentials: Option<Credentials>,
}

/// Where a node stands in the forming of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoticeState {
    /// No log, no vote; possibly pledged to a forming.
    Empty {
        /// Members of the forming it is pledged to.
        pledged: Option<Vec<String>>,
    },
    /// It has a log: it belongs to a cluster.
    Member,
    /// Read-only and empty: it can only join.
    Bystander,
}

/// The answer to an [`Ask`].
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// To `Meta`.
    Meta(Meta),
    /// To `Join`.
    Join(JoinAnswer),
    /// To `Notify`.
    Notify(Notice),
    /// To `Pledge`, `Release`, `Remove`, `StepDown`.
    Done(Result<(), StoreError>),
    /// To `Write`: one per write.
    Write(Vec<Result<WriteAnswer, StoreError>>),
    /// To `Read` and `Load`.
    Served(Result<Served, StoreError>),
    /// To `Backup`: its length; the bytes follow.
    Backup(Result<u64, StoreError>),
    /// To `RoomToVacuum`; `Refused` says what is missing.
    Room(Result<(), StoreError>),
    /// To `ContentHash`.
    ContentHash(Told),
    /// To `Judgement`.
    Judgement(Result<Judgement, StoreError>),
    /// To `Compare`.
    Compared(Result<Comparison, StoreError>),
    /// To `ReadParts`, when the result is large: frames with one [`node_db::Part`] each follow, up to [`node_db::Part::Done`].
    Parts,
    /// To `Room`: bytes beside the reserve.
    Spare(Result<u64, StoreError>),
}

/// What became of a forwarded write.
#[derive(Debug, Serialize, Deserialize)]
pub struct WriteAnswer {
    /// Its results.
    pub outcome: Outcome,
    /// Index of its entry.
    pub raft_index: u64,
}

/// A node about itself; all empty for a stranger.
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
    /// Highest index it knows to be committed.
    pub commit_index: u64,
    /// It leads.
    pub leader: bool,
}

/// What a join asks for, answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum JoinAnswer {
    /// A member now.
    Joined(Cluster),
    /// Ask there, or later.
    NotLeader(Option<String>),
    /// No; the text says why and what to change.
    Refused(String),
    /// Not with these credentials.
    Unauthorized,
}

/// How far a call came, for whoever asks when its time is over.
#[derive(Debug, Default)]
struct Reached {
    connected: AtomicBool,
    sent: AtomicBool,
}

impl Reached {
    fn count_timeout(&self, metrics: &Metrics) {
        match (self.connected.load(Relaxed), self.sent.load(Relaxed)) {
            (false, _) => {}
            (true, false) => metrics.count(Counter::ClusterNumClientWriteTimeouts),
            (true, true) => metrics.count(Counter::ClusterNumClientReadTimeouts),
        }
    }
}

/// Calls other nodes over pooled connections.
#[derive(Clone, Debug)]
pub struct Peers {
    local: Arc<Local>,
    connect_timeout: Duration,
    idle: Arc<Mutex<HashMap<String, Vec<Connection>>>>,
}

impl Peers {
    /// `connect_timeout` is `-cluster-connect-timeout` (default 30 s).
    pub fn new(local: Arc<Local>, connect_timeout: Duration) -> Self {
        Self {
            local,
            connect_timeout,
            idle: Arc::default(),
        }
    }

    /// The cluster's format version, which says what may be asked.
    pub fn format_version(&self) -> u16 {
        self.local.format_version()
    }

    /// One request, one answer. A pooled connection that turns out to be stale before anything could be sent is replaced once.
    ///
    /// # Errors
    /// See [`WireError`].
    pub async fn call(
        &self,
        address: &str,
        ask: &Ask,
        limit: Duration,
    ) -> Result<Answer, WireError> {
        self.call_until(address, ask, limit, pending()).await
    }

    /// As [`Self::call`], given up as [`WireError::Silent`] when `silence` ends.
    ///
    /// # Errors
    /// See [`WireError`].
    pub async fn call_until(
        &self,
        address: &str,
        ask: &Ask,
        limit: Duration,
        silence: impl Future<Output = ()>,
    ) -> Result<Answer, WireError> {
        let answered = self.ask_until(address, ask, limit, silence).await;
        answered.map(|(answer, _)| answer)
    }

    /// As [`Self::call_until`], with the connection if more follows on it.
    ///
    /// # Errors
    /// See [`WireError`].
    pub async fn ask_until(
        &self,
        address: &str,
        ask: &Ask,
        limit: Duration,
        silence: impl Future<Output = ()>,
    ) -> Result<(Answer, Option<Connection>), WireError> {
        let reached = Reached::default();
        tokio::select! {
            biased;
            answered = timeout(limit, self.exchange(address, ask, limit, &reached)) => {
                answered.unwrap_or_else(|_| {
                    reached.count_timeout(&self.local.metrics);
                    Err(WireError::Timeout { address: address.to_owned() })
                })
            }
            () = silence => Err(WireError::Silent {
                address: address.to_owned(),
                nothing_sent: !reached.connected.load(Relaxed),
            }),
        }
    }

    async fn exchange(
        &self,
        address: &str,
        ask: &Ask,
        limit: Duration,
        reached: &Reached,
    ) -> Result<(Answer, Option<Connection>), WireError> {
        let (mut connection, of_member) = self.connect(address, limit).await?;
        reached.connected.store(true, Relaxed);
        connection
            .send(ask)
            .await
            .map_err(|e| connection.broken(e))?;
        reached.sent.store(true, Relaxed);
        let answer = connection
            .receive()
            .await
            .map_err(|e| connection.broken(e))?;
        let answer =
            answer.ok_or_else(|| connection.broken(io::ErrorKind::UnexpectedEof.into()))?;
        if matches!(answer, Answer::Parts) {
            return Ok((answer, Some(connection)));
        }
        // Greeted as a stranger it may not ask what a member may, and the next request may be a member's.
        if of_member {
            self.keep(address, connection);
        }
        Ok((answer, None))
    }

    /// A connection, and whether its hello named this node's cluster.
    async fn connect(
        &self,
        address: &str,
        limit: Duration,
    ) -> Result<(Connection, bool), WireError> {
        let mut stale = false;
        loop {
            let pooled = self
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_mut(address)
                .and_then(Vec::pop);
            let Some(mut connection) = pooled else { break };
            if connection.is_idle() {
                return Ok((connection, true));
            }
            stale = true;
        }
        if stale {
            let metrics = &self.local.metrics;
            metrics.count(Counter::ClusterNumClientForceNewConn);
        }
        let hello = Hello {
            purpose: Purpose::Cluster,
            from: self.local.raft_id().to_owned(),
            to: None,
            cluster: self.local.cluster(),
            version: version::NEWEST,
        };
        let dialed = Connection::dial(address, &hello, self.connect_timeout.min(limit)).await?;
        Ok((dialed, hello.cluster.is_some()))
    }

    fn keep(&self, address: &str, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let pool = idle.entry(address.to_owned()).or_default();
        if pool.len() < POOL_SIZE {
            pool.push(connection);
        }
    }

    /// Fetches a backup into `to`. The connection is not reused.
    ///
    /// # Errors
    /// The other node's refusal, or what went wrong on the way (a backup has no effect, so all of it is a refusal).
    pub async fn fetch_backup(
        &self,
        address: &str,
        ask: &Ask,
        to: &Path,
        limit: Duration,
    ) -> Result<(), StoreError> {
        let refused = |e: &dyn std::fmt::Display| StoreError::Refused(e.to_string());
        let (mut connection, _) = self
            .connect(address, limit)
            .await
            .map_err(|e| refused(&e))?;
        connection.send(ask).await.map_err(|e| refused(&e))?;
        let answer = connection
            .receive::<Answer>()
            .await
            .map_err(|e| refused(&e))?;
        let Some(Answer::Backup(len)) = answer else {
            return Err(StoreError::Refused(format!(
                "{address} answered another question"
            )));
        };
        let mut file = tokio::fs::File::create(to).await.map_err(|e| refused(&e))?;
        copy_exactly(&mut connection.reader, &mut file, len?)
            .await
            .map_err(|e| refused(&e))?;
        file.flush().await.map_err(|e| refused(&e))
    }

    /// Sends an upload and waits for what became of it.
    ///
    /// # Errors
    /// The leader's, or `Unknown` for what broke on the way.
    pub async fn send_load(
        &self,
        address: &str,
        ask: &Ask,
        from: &Path,
        limit: Duration,
    ) -> Result<Served, StoreError> {
        let (mut connection, _) = self
            .connect(address, limit)
            .await
            .map_err(|e| StoreError::Refused(e.to_string()))?;
        let unknown =
            |e: io::Error| StoreError::Unknown(format!("forwarding the load to {address}: {e}"));
        let mut file = tokio::fs::File::open(from)
            .await
            .map_err(|e| StoreError::Refused(e.to_string()))?;
        let len = file
            .metadata()
            .await
            .map_err(|e| StoreError::Refused(e.to_string()))?
            .len();
        connection.send(ask).await.map_err(unknown)?;
        let Connection { reader, writer, .. } = &mut connection;
        let mut answer = pin!(read_frame::<_, Answer>(reader, MAX_FRAME_BYTES));
        let sending = async {
            copy_exactly(&mut file, writer, len).await?;
            writer.flush().await
        };
        // A leader that refuses does so before it has all.
        let answered = tokio::select! {
            biased;
            early = &mut answer => early,
            sent = sending => match sent {
                Ok(()) => answer.await,
                Err(e) => match timeout(LAST_WORDS_TIMEOUT, answer).await {
                    Ok(Ok(Some(refusal))) => Ok(Some(refusal)),
                    _ => Err(e),
                },
            },
        };
        match answered.map_err(unknown)? {
            Some(Answer::Served(served)) => served,
            _ => Err(StoreError::Unknown(format!(
                "{address} did not say what became of the load"
            ))),
        }
    }
}

/// Moves exactly `len` bytes, with an idle limit.
///
/// # Errors
/// Either side broke or stalled, or the source is shorter.
pub async fn copy_exactly<R, W>(reader: &mut R, writer: &mut W, len: u64) -> io::Result<()>
where
    R: tokio::io::AsyncRead + Unpin,
    W: tokio::io::AsyncWrite + Unpin,
{
    let mut piece = vec![0; PIECE_BYTES];
    let mut left = len;
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        let Some(part) = piece.get_mut(..want) else {
            break;
        };
        let stalled = |_| io::Error::from(io::ErrorKind::TimedOut);
        let got = timeout(TRANSFER_IDLE_TIMEOUT, reader.read(part))
            .await
            .map_err(stalled)??;
        let Some(part) = part.get(..got).filter(|p| !p.is_empty()) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        timeout(TRANSFER_IDLE_TIMEOUT, writer.write_all(part))
            .await
            .map_err(stalled)??;
        left -= got as u64;
    }
    Ok(())
}
