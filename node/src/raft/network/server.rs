//! The receiving side of Raft's messages: which connections are admitted, and passing their requests to
//! openraft.
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt;
use openraft::raft::{StreamAppendError, TransferLeaderRequest};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Mutex, mpsc},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    messages::{Request, Response, SnapshotHeader, SnapshotReply},
    pipeline::MAX_APPEND_BYTES,
};
use crate::{
    disk::Disk,
    identity::{Cluster, Skipped},
    internode::wire::{
        Connection, Hello, MAX_FRAME_BYTES, Purpose, Welcome, read_frame, withdrawn, write_frame,
    },
    local::Local,
    metrics::Counter,
    raft::{
        codec::{AppendRecord, AppendResponseRecord, VoteRecord, from_id, id},
        storage::{
            log::Log,
            state_machine::{Raft, Snapshot, SnapshotData, SnapshotMeta},
        },
        thread::Thread,
        types::Types,
    },
    version,
};

/// Requests of one connection waiting for openraft; the sender keeps at most eight in flight.
const QUEUE: usize = 64;
/// Limit for one response of openraft's core. The other side gives up far earlier; the connection ends, so
/// that a core that is busy for long does not hold the slots of connections that nobody waits at.
const RESPONSE_LIMIT: Duration = Duration::from_secs(10);
/// A sender that makes no progress with a snapshot for this long is gone.
const RECEIVE_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The disk space for the rest of a snapshot is checked again after this many bytes.
const RECEIVE_CHECK_BYTES: u64 = 16 << 20;
/// Snapshot bytes read from the socket at a time.
const RECEIVE_PIECE_BYTES: usize = 256 << 10;

/// Serves Raft connections of one node.
#[derive(Clone, Debug)]
pub struct Server {
    /// openraft's handle.
    pub(crate) raft: Raft,
    /// The log, which holds the vote.
    pub(crate) log: Log,
    /// This node.
    pub(crate) local: Arc<Local>,
    /// The thread on which messages are served.
    pub(crate) thread: Arc<Thread>,
    /// The disk, for the check whether entries fit.
    pub(crate) disk: Arc<Disk>,
    /// The file into which a snapshot is received, one at a time.
    pub(crate) incoming: Arc<Mutex<std::path::PathBuf>>,
}

/// Part of the refusal of a node that is reached in place of another one; the caller looks for it.
pub(crate) const ANOTHER_DIRECTORY: &str = "its data directory is another one";

/// Whether this connection may carry Raft's messages, decided from both identities alone.
///
/// # Errors
/// The reason, for the other side's log. A caller of another cluster learns no identity but its own.
pub fn admit(hello: &Hello, raft_id: &str, own: Option<&Cluster>) -> Result<(), String> {
    // A node without a cluster accepts a caller that knows its random Raft id: it sent that only to the nodes
    // that it asked to join.
    if let (Some(own), Some(theirs)) = (own, &hello.cluster) {
        if own.id != theirs.id {
            return Err(format!(
                "this node does not belong to cluster {}",
                theirs.id
            ));
        }
        if own.lineage != theirs.lineage {
            return Err(other_lineage(&hello.from, raft_id, own, theirs));
        }
    }
    match (&hello.to, &hello.cluster) {
        (Some(to), _) if to != raft_id => Err(format!("this is not {to}: {ANOTHER_DIRECTORY}")),
        (Some(_), Some(_)) => Ok(()),
        (Some(_), None) => Err(format!("{} is not a member of a cluster", hello.from)),
        (None, _) => Err("the connection names no target".into()),
    }
}

/// The refusal, and the way out, when data of two lineages meet.
fn other_lineage(from: &str, raft_id: &str, own: &Cluster, theirs: &Cluster) -> String {
    let (here, there) = (&own.lineage, &theirs.lineage);
    // The node that has not skipped the entry is given the command to run.
    let (ahead, behind, lineage) = match here.epoch >= there.epoch {
        true => (raft_id, from, here),
        false => (from, raft_id, there),
    };
    if let Some(skipped) = Skipped::of(lineage).filter(|_| here.epoch != there.epoch) {
        return format!(
            "{ahead} has skipped entry {} of the log and {behind} has not: stop {behind} and run `{}`, or give it an empty data directory to join with",
            skipped.index,
            skipped.command("<its data directory>")
        );
    }
    let left_out = match here.epoch.cmp(&there.epoch) {
        std::cmp::Ordering::Equal => {
            return format!(
                "recovered with a different peers.json, or from different data: {raft_id} is of lineage {}, {from} of lineage {}, both of epoch {}; \
                 keep the node whose data you want and give the other one an empty data directory to join with",
                here.id, there.id, here.epoch
            );
        }
        std::cmp::Ordering::Greater => from,
        std::cmp::Ordering::Less => raft_id,
    };
    format!(
        "{left_out} was left out of a recovery of the cluster: {raft_id} is of lineage {} (epoch {}), {from} of lineage {} (epoch {}); \
         give {left_out} an empty data directory to join with (or the same peers.json, if that lists it)",
        here.id, here.epoch, there.id, there.epoch
    )
}

impl Server {
    /// Responds to the hello and serves the connection until it ends.
    ///
    /// # Errors
    /// The connection broke; the caller cannot do anything about it.
    pub async fn serve(self, mut connection: Connection, hello: Hello) -> io::Result<()> {
        let admitted = admit(&hello, self.local.raft_id(), self.local.cluster().as_ref());
        let in_effect = self.local.format_version();
        let admitted =
            admitted.and_then(|()| version::may_take_part(&hello.from, hello.version, in_effect));
        if let Err(reason) = admitted {
            tracing::debug!(target: "raft", "refused {:?} connection of {}: {reason}", hello.purpose, hello.from);
            return connection.respond(&Welcome::Refused(reason)).await;
        }
        self.local
            .note_supported_version(&hello.from, hello.version);
        match hello.purpose {
            Purpose::Append | Purpose::Beat => {
                let thread = Arc::clone(&self.thread);
                let messages = async move { self.messages(connection.moved_here()?, hello).await };
                thread.run(messages).await?
            }
            Purpose::Snapshot => self.snapshot(connection, hello).await,
            Purpose::Cluster => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a Raft connection",
            )),
        }
    }

    /// A leader has sent a message: from now on this node belongs to its cluster.
    fn adopt(&self, hello: &Hello) -> io::Result<()> {
        match &hello.cluster {
            Some(cluster) => self.local.adopt(cluster).map_err(io::Error::other),
            None => Ok(()),
        }
    }

    async fn messages(self, mut connection: Connection, hello: Hello) -> io::Result<()> {
        connection.accepted().await?;
        let Connection {
            mut reader,
            mut writer,
            link,
            ..
        } = connection;
        let (responses, mut outgoing) = mpsc::channel::<Response>(QUEUE);
        let writing = AbortOnDropHandle::new(tokio::spawn(async move {
            while let Some(response) = outgoing.recv().await {
                write_frame(&mut writer, &response).await?;
                if outgoing.is_empty() {
                    writer.flush().await?;
                }
            }
            io::Result::Ok(())
        }));
        let (appends, incoming) = mpsc::channel(QUEUE);
        let appending = AbortOnDropHandle::new(tokio::spawn(
            self.clone().append(incoming, responses.clone()),
        ));
        let max_bytes = match hello.purpose {
            Purpose::Append => MAX_APPEND_BYTES,
            _ => MAX_FRAME_BYTES,
        };
        loop {
            let request = tokio::select! {
                biased;
                () = withdrawn(link.as_ref()) => None,
                read = read_frame::<_, Request>(&mut reader, max_bytes) => read?,
            };
            let Some(request) = request else { break };
            let gone = match request {
                Request::Append(record) => {
                    self.adopt(&hello)?;
                    if !record.entries.is_empty()
                        && let Err(full) = self.disk.check()
                    {
                        responses
                            .send(Response::Append(AppendResponseRecord::Unable(
                                full.to_string(),
                            )))
                            .await
                            .is_err()
                    } else {
                        appends.send(record).await.is_err()
                    }
                }
                request => {
                    let response = timeout(RESPONSE_LIMIT, self.response(request))
                        .await
                        .map_err(|_| io::ErrorKind::TimedOut)??;
                    responses.send(response).await.is_err()
                }
            };
            if gone {
                break;
            }
        }
        // The other side has gone, or wants no responses any more. What it sent is with openraft; nobody
        // waits for the results, because the connection's slot is needed by its successor.
        drop((appends, responses, appending, writing));
        Ok(())
    }

    async fn append(
        self,
        incoming: mpsc::Receiver<AppendRecord>,
        responses: mpsc::Sender<Response>,
    ) {
        // The sender's last statement, applied to all that it has sent.
        let without_quorum = Arc::new(AtomicBool::new(false));
        let reported = Arc::clone(&without_quorum);
        let requests = futures_util::stream::unfold(
            (incoming, reported),
            |(mut incoming, reported)| async move {
                let record = incoming.recv().await?;
                reported.store(record.without_quorum, Ordering::Relaxed);
                let commit = record.commit.map(|c| c.1);
                match record.request() {
                    Ok(rpc) => Some(((rpc, commit), (incoming, reported))),
                    Err(e) => {
                        tracing::error!(target: "raft", "append refused: {e}");
                        None
                    }
                }
            },
        );
        let local = Arc::clone(&self.local);
        let requests = requests.map(move |(rpc, commit)| {
            commit
                .into_iter()
                .for_each(|index| local.leader_committed(index));
            rpc
        });
        let mut results = std::pin::pin!(self.raft.stream_append(requests));
        while let Some(result) = results.next().await {
            let response = match result {
                Ok(Ok(last)) => {
                    self.local
                        .followed_leader(without_quorum.load(Ordering::Relaxed));
                    AppendResponseRecord::Partial(last.as_ref().map(id))
                }
                Ok(Err(StreamAppendError::Conflict(_))) => AppendResponseRecord::Conflict,
                Ok(Err(StreamAppendError::HigherVote(vote))) => {
                    AppendResponseRecord::HigherVote((&vote).into())
                }
                Err(fatal) => AppendResponseRecord::Unable(fatal.to_string()),
            };
            if responses.send(Response::Append(response)).await.is_err() {
                return;
            }
        }
    }

    async fn response(&self, request: Request) -> io::Result<Response> {
        if self.local.cluster().is_none() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "received a vote request before a leader admitted this node",
            ));
        }
        Ok(match request {
            Request::Vote(request) => Response::Vote(
                self.raft
                    .vote(request.into())
                    .await
                    .map_err(io::Error::other)?
                    .into(),
            ),
            Request::PreVote(request) => Response::Vote(
                self.raft
                    .pre_vote(request.into())
                    .await
                    .map_err(io::Error::other)?
                    .into(),
            ),
            Request::Transfer { from, to, last } => {
                let rpc = TransferLeaderRequest::<Types>::new(from.into(), to, last.map(from_id));
                let response = self
                    .raft
                    .handle_transfer_leader(rpc)
                    .await
                    .map_err(io::Error::other)?;
                Response::Transfer(response.map_err(|refusal| refusal.to_string()))
            }
            // The vote on disk, not openraft's metrics, which may lag: see `leader/confirm.rs`.
            Request::HoldsVote(vote) => {
                Response::HoldsVote(self.log.vote().as_ref() == Some(&vote))
            }
            Request::Append(_) => {
                return Err(io::Error::other("appends are served in their own order"));
            }
        })
    }

    async fn snapshot(self, mut connection: Connection, hello: Hello) -> io::Result<()> {
        connection.accepted().await?;
        let Some(head) = connection.receive::<SnapshotHeader>().await? else {
            return Ok(());
        };
        self.adopt(&hello)?;
        let path = self.incoming.lock().await;
        let response = match self.receive(&mut connection, head, &path).await {
            Ok(vote) => SnapshotReply::Done(vote),
            Err(e) => {
                self.local.metrics.count(Counter::SnapshotSinkFail);
                tracing::warn!(target: "raft", "receiving a snapshot from {} failed: {e}", hello.from);
                let _ = tokio::fs::remove_file(&*path).await;
                SnapshotReply::Failed(e.to_string())
            }
        };
        connection.send(&response).await
    }

    fn check_space_for_snapshot(&self, left_bytes: u64) -> io::Result<()> {
        let spare = self.disk.spare_bytes();
        if left_bytes <= spare {
            return Ok(());
        }
        let text = format!(
            "no space for a snapshot: {left_bytes} bytes of it are missing, and {spare} are available on the disk of the data directory"
        );
        Err(io::Error::new(io::ErrorKind::StorageFull, text))
    }

    async fn receive(
        &self,
        connection: &mut Connection,
        head: SnapshotHeader,
        path: &std::path::Path,
    ) -> io::Result<VoteRecord> {
        tracing::info!(target: "raft", "receiving a snapshot of {} bytes", head.len_bytes);
        self.check_space_for_snapshot(head.len_bytes)?;
        let mut file = tokio::fs::File::create(path).await?;
        let mut piece = vec![0; RECEIVE_PIECE_BYTES];
        let mut left = head.len_bytes;
        let mut crc = crc32fast::Hasher::new();
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
            let Some(part) = piece.get_mut(..want) else {
                break;
            };
            let got = timeout(RECEIVE_IDLE_TIMEOUT, connection.reader.read(part))
                .await
                .map_err(|_| io::ErrorKind::TimedOut)??;
            let Some(part) = part.get(..got).filter(|p| !p.is_empty()) else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            crc.update(part);
            file.write_all(part).await?;
            if left % RECEIVE_CHECK_BYTES < got as u64 {
                self.check_space_for_snapshot(left)?;
            }
            left -= got as u64;
            self.local.heard_from_leader();
        }
        if connection.reader.read_u32_le().await? != crc.finalize() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "snapshot checksum does not match",
            ));
        }
        file.flush().await?;
        file.sync_all().await?;
        drop(file);
        let meta = SnapshotMeta {
            last_log_id: head.last.map(from_id),
            last_membership: head.membership.stored().map_err(io::Error::other)?,
        };
        let snapshot = Snapshot {
            meta,
            snapshot: SnapshotData::Incoming {
                format_version: head.format_version,
            },
        };
        let response = self
            .raft
            .install_full_snapshot(head.vote.into(), snapshot)
            .await
            .map_err(io::Error::other)?;
        tracing::info!(target: "raft", "snapshot installed");
        Ok((&response.vote).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Lineage;

    fn cluster(id: &str, epoch: u64) -> Cluster {
        Cluster {
            id: id.into(),
            lineage: Lineage {
                id: format!("{id}-{epoch}"),
                epoch,
            },
        }
    }

    #[test]
    fn who_may_speak() {
        let (x, y, x_recovered) = (cluster("x", 0), cluster("y", 0), cluster("x", 1));
        let hello = |to: Option<&str>, cluster: Option<&Cluster>| Hello {
            purpose: Purpose::Append,
            from: "b#1".into(),
            to: to.map(Into::into),
            cluster: cluster.cloned(),
            version: version::NEWEST,
        };
        let cases = [
            ("same cluster", hello(Some("a#1"), Some(&x)), Some(&x), true),
            (
                "a new node is contacted by the node that it asked",
                hello(Some("a#1"), Some(&x)),
                None,
                true,
            ),
            (
                "meant for the former disk",
                hello(Some("a#0"), Some(&x)),
                Some(&x),
                false,
            ),
            (
                "meant for the former disk, empty now",
                hello(Some("a#0"), Some(&x)),
                None,
                false,
            ),
            ("no target", hello(None, Some(&x)), Some(&x), false),
            ("no cluster", hello(Some("a#1"), None), Some(&x), false),
            (
                "another cluster on our address",
                hello(Some("a#1"), Some(&y)),
                Some(&x),
                false,
            ),
            (
                "left out of a recovery",
                hello(Some("a#1"), Some(&x)),
                Some(&x_recovered),
                false,
            ),
            (
                "we were left out",
                hello(Some("a#1"), Some(&x_recovered)),
                Some(&x),
                false,
            ),
        ];
        for (name, hello, own, allowed) in cases {
            assert_eq!(admit(&hello, "a#1", own).is_ok(), allowed, "{name}");
        }
    }

    #[test]
    fn who_was_left_out_is_told() {
        let (x, x_recovered) = (cluster("x", 0), cluster("x", 1));
        let mut x_otherwise = x_recovered.clone();
        x_otherwise.lineage.id = "z".into();
        let mut x_skipped = x_recovered.clone();
        x_skipped.lineage.id = "skip-9-3-0123456789abcdef-0123456789abcdef".into();
        let cases = [
            (&x, &x_recovered, "b#1 was left out of a recovery"),
            (&x_recovered, &x, "a#1 was left out of a recovery"),
            (
                &x_otherwise,
                &x_recovered,
                "recovered with a different peers.json",
            ),
            (
                &x,
                &x_skipped,
                "a#1 has skipped entry 9 of the log and b#1 has not: stop b#1 and run `rqlited skip-entry --index 9 --term 3 ",
            ),
            (
                &x_skipped,
                &x,
                "b#1 has skipped entry 9 of the log and a#1 has not",
            ),
        ];
        for (theirs, own, text) in cases {
            let hello = Hello {
                purpose: Purpose::Append,
                from: "b#1".into(),
                to: Some("a#0".into()),
                cluster: Some(theirs.clone()),
                version: version::NEWEST,
            };
            let reason = admit(&hello, "a#1", Some(own)).unwrap_err();
            assert!(
                reason.starts_with(text) && reason.contains("empty data directory"),
                "{reason}"
            );
        }
    }
}
