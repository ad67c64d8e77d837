//! Log replication to one target: requests are sent ahead of their responses; an append that is too large for
//! the target is reported.
use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt, stream};
use openraft::{
    EntryPayload,
    errors::{RPCError, Unreachable},
    raft::{AppendEntriesRequest, StreamAppendError},
};
use parking_lot::Mutex;
use tokio::{io::AsyncWriteExt, sync::mpsc, time::timeout};
use tokio_util::task::AbortOnDropHandle;

use super::messages::{Request, Response, unexpected_response, unreachable};
use crate::{
    internode::wire::{
        Connection, MAX_FRAME_BYTES, Reader, WireError, Writer, read_frame, withdrawn,
        write_frame_within,
    },
    local::Local,
    metrics::Counter,
    raft::{
        codec::{AppendRecord, AppendResponseRecord, from_id},
        types::{LogId, RaftId, Types},
    },
    transport::Link,
};

/// Appends sent ahead of their responses. Eight frames hide the round trip and bound the memory of a slow
/// follower.
const APPENDS_IN_FLIGHT: usize = 8;
/// A follower that does not respond for this long counts as unreachable; its disk may be slow, so this is far
/// above a round trip.
const APPEND_RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// A large append gets more time, at this rate; otherwise it could never arrive over a slow network.
const SLOWEST_BYTES_PER_SEC: usize = 1 << 20;
/// Largest append. Before requests were limited, a body of 32 MiB could make an entry of some 84 MiB; logs
/// that hold one must still replicate.
pub(super) const MAX_APPEND_BYTES: usize = 128 << 20;
/// Allowance for the vote, positions and lengths around the commands of an append.
const APPEND_OVERHEAD_BYTES: usize = 64 << 10;

/// Appends that are too large for their target, by target; they block its replication. Shown in the log, the
/// metrics and `/status`.
#[derive(Clone, Debug, Default)]
pub struct Unsendable(Arc<Mutex<BTreeMap<RaftId, String>>>);

impl Unsendable {
    /// The blocked members, with the reason.
    pub fn all(&self) -> BTreeMap<RaftId, String> {
        self.0.lock().clone()
    }

    fn note(&self, local: &Local, target: &RaftId, why: String) {
        local.metrics.count(Counter::StoreAppendsUnsendable);
        let mut all = self.0.lock();
        if all.get(target) != Some(&why) {
            tracing::error!(target: "raft", "node {} cannot be replicated to: {why}", target.name());
            all.insert(target.clone(), why);
        }
    }

    fn forget(&self, target: &RaftId) {
        let mut all = self.0.lock();
        all.remove(target);
    }
}

pub(super) type StreamItem =
    Result<Result<Option<LogId>, StreamAppendError<Types>>, RPCError<Types>>;

/// An append, which also says whether its sender still hears a quorum.
pub(super) fn append(local: &Local, rpc: &AppendEntriesRequest<Types>) -> Request {
    Request::Append(AppendRecord {
        without_quorum: local.leads_without_quorum(),
        ..rpc.into()
    })
}

/// The log ids before the first and of the last entry of an append, to which its response refers.
pub(super) type Range = (Option<LogId>, Option<LogId>);

pub(super) fn range_of(rpc: &AppendEntriesRequest<Types>) -> Range {
    (
        rpc.prev_log_id,
        rpc.entries.last().map(|e| e.log_id).or(rpc.prev_log_id),
    )
}

pub(super) fn stream_result(
    response: AppendResponseRecord,
    (prev, last): Range,
    address: &str,
) -> StreamItem {
    Ok(match response {
        AppendResponseRecord::Success => Ok(last),
        AppendResponseRecord::Partial(upto) => Ok(upto.map(from_id)),
        AppendResponseRecord::Conflict => match prev {
            Some(prev) => Err(StreamAppendError::Conflict(prev)),
            None => {
                return Err(RPCError::Unreachable(Unreachable::from_string(format!(
                    "{address}: conflict before the first entry"
                ))));
            }
        },
        AppendResponseRecord::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote.into())),
        AppendResponseRecord::Unable(reason) => {
            return Err(RPCError::Unreachable(Unreachable::from_string(format!(
                "{address}: {reason}"
            ))));
        }
    })
}

/// An append that has been sent.
struct Sent {
    range: Range,
    bytes: usize,
}

/// Approximate bytes of an append: everything but the commands is small.
fn bytes_of(rpc: &AppendEntriesRequest<Types>) -> usize {
    let commands = rpc.entries.iter().map(|entry| match &entry.payload {
        EntryPayload::Normal(command) => command.bytes().len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    });
    APPEND_OVERHEAD_BYTES + commands.sum::<usize>()
}

/// The largest append that a node of this format version accepts.
fn max_append_bytes(version: u16) -> usize {
    if version >= 2 {
        MAX_APPEND_BYTES
    } else {
        MAX_FRAME_BYTES
    }
}

fn response_limit(bytes: usize) -> Duration {
    let for_bytes = u64::try_from(bytes / SLOWEST_BYTES_PER_SEC).unwrap_or(u64::MAX);
    APPEND_RESPONSE_TIMEOUT.saturating_add(Duration::from_secs(for_bytes))
}

/// The pipelined replication stream: a task writes requests as they come, and this side reads the responses
/// in order.
struct Pipeline<'s> {
    connection: &'s mut Option<Connection>,
    reader: Reader,
    address: String,
    version: u16,
    link: Option<Arc<Link>>,
    in_flight: mpsc::Receiver<Sent>,
    writing: AbortOnDropHandle<Option<Writer>>,
    target: Target<'s>,
}

/// The target of the appends, and where one that is too large is recorded.
pub(super) struct Target<'s> {
    pub(super) local: &'s Arc<Local>,
    pub(super) target: &'s RaftId,
    pub(super) unsendable: &'s Unsendable,
}

/// Sends `input` over `connection`, and returns that to `put_back` once everything has a response.
pub(super) fn replicate<'s, S>(
    connection: Connection,
    put_back: &'s mut Option<Connection>,
    input: S,
    target: Target<'s>,
) -> impl Stream<Item = StreamItem> + Send + 's
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
{
    let Connection {
        reader,
        writer,
        address,
        version,
        link,
    } = connection;
    let (sent, in_flight) = mpsc::channel(APPENDS_IN_FLIGHT);
    let local = Arc::clone(target.local);
    let writing = tokio::spawn(write_appends(local, writer, version, input, sent));
    let pipeline = Pipeline {
        connection: put_back,
        reader,
        address,
        version,
        link,
        in_flight,
        writing: AbortOnDropHandle::new(writing),
        target,
    };
    stream::unfold(
        Some(pipeline),
        |pipeline| async move { pipeline?.next().await },
    )
}

async fn write_appends<S>(
    local: Arc<Local>,
    mut writer: Writer,
    version: u16,
    mut input: S,
    in_flight: mpsc::Sender<Sent>,
) -> Option<Writer>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin,
{
    let max_bytes = max_append_bytes(version);
    while let Some(rpc) = input.next().await {
        let (range, bytes) = (range_of(&rpc), bytes_of(&rpc));
        in_flight.send(Sent { range, bytes }).await.ok()?;
        if bytes > max_bytes {
            // The reading side reports it.
            return None;
        }
        write_frame_within(&mut writer, &append(&local, &rpc), max_bytes)
            .await
            .ok()?;
        writer.flush().await.ok()?;
    }
    Some(writer)
}

/// What was sent and not answered is sent again, over another connection.
fn distrusted(address: &str) -> RPCError<Types> {
    let text = format!("{address}: its certificate is not trusted any more");
    RPCError::Unreachable(Unreachable::from_string(text))
}

impl Pipeline<'_> {
    async fn next(mut self) -> Option<(StreamItem, Option<Self>)> {
        let sent = tokio::select! {
            biased;
            () = withdrawn(self.link.as_ref()) => return Some((Err(distrusted(&self.address)), None)),
            sent = self.in_flight.recv() => sent,
        };
        let Some(sent) = sent else {
            // The input has ended. Only a connection without outstanding responses is kept.
            if let Ok(Some(writer)) = self.writing.await {
                *self.connection = Some(Connection {
                    reader: self.reader,
                    writer,
                    address: self.address,
                    version: self.version,
                    link: self.link,
                });
            }
            return None;
        };
        let item = self.response(&sent).await;
        let more = matches!(item, Ok(Ok(_))).then_some(self);
        Some((item, more))
    }

    async fn response(&mut self, sent: &Sent) -> StreamItem {
        let Target {
            local,
            target,
            unsendable,
        } = &self.target;
        let max_bytes = max_append_bytes(self.version);
        if sent.bytes > max_bytes {
            let hint = if max_bytes < MAX_APPEND_BYTES {
                "; a newer rqlited there takes more"
            } else {
                ""
            };
            let why = format!(
                "an append of {} bytes is over the {max_bytes} that it takes{hint}",
                sent.bytes
            );
            unsendable.note(local, target, why.clone());
            return Err(RPCError::Unreachable(Unreachable::from_string(why)));
        }
        let response = read_frame::<_, Response>(&mut self.reader, MAX_FRAME_BYTES);
        let source = match timeout(response_limit(sent.bytes), response).await {
            Ok(Ok(Some(Response::Append(response)))) => {
                unsendable.forget(target);
                return stream_result(response, sent.range, &self.address);
            }
            Ok(Ok(Some(Response::Vote(_) | Response::Transfer(_) | Response::HoldsVote(_)))) => {
                return Err(unexpected_response(&self.address));
            }
            Ok(Ok(None)) => io::ErrorKind::UnexpectedEof.into(),
            Ok(Err(source)) => source,
            Err(_) => {
                return Err(unreachable(&WireError::Timeout {
                    address: self.address.clone(),
                }));
            }
        };
        Err(unreachable(&WireError::Broken {
            address: self.address.clone(),
            source,
        }))
    }
}

#[cfg(test)]
mod tests;
