//! Log replication to one target: requests sent ahead of their answers, and what is said of one that cannot be sent.
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

use super::messages::{Answer, Ask, another_question, unreachable};
use crate::{
    internode::wire::{
        Connection, MAX_FRAME_BYTES, Reader, WireError, Writer, read_frame, write_frame_within,
    },
    local::Local,
    metrics::Counter,
    raft::{
        codec::{AppendAnswer, AppendRecord, from_id},
        types::{LogId, RaftId, Types},
    },
};

/// Appends sent ahead of their answers. Eight frames hide the round trip and bound what a slow follower holds in memory.
const APPENDS_IN_FLIGHT: usize = 8;
/// A follower that owes an answer this long is treated as gone; its disk may be slow, so this is far above a round trip.
const APPEND_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A large append gets more time, at this rate: what takes longer than that on its way would never arrive otherwise.
const SLOWEST_BYTES_PER_SEC: usize = 1 << 20;
/// Largest append. Before requests were limited a body of 32 MiB could make an entry of some 84 MiB; logs that hold one must still replicate.
pub(super) const MAX_APPEND_BYTES: usize = 128 << 20;
/// For the vote, positions and lengths around the commands of an append.
const APPEND_OVERHEAD_BYTES: usize = 64 << 10;

/// Appends that cannot be sent, by target: nothing gets past them. For the log, the metrics and `/status`.
#[derive(Clone, Debug, Default)]
pub struct Unsendable(Arc<Mutex<BTreeMap<RaftId, String>>>);

impl Unsendable {
    /// Who does not get on, and why.
    pub fn all(&self) -> BTreeMap<RaftId, String> {
        self.0.lock().clone()
    }

    fn note(&self, local: &Local, target: &RaftId, why: String) {
        local.metrics.count(Counter::StoreAppendsUnsendable);
        let mut all = self.0.lock();
        if all.get(target) != Some(&why) {
            tracing::error!(target: "raft", "node {} cannot get on: {why}", target.name());
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

/// Every append, and so every heartbeat, says whether a quorum still hears its sender.
pub(super) fn append(local: &Local, rpc: &AppendEntriesRequest<Types>) -> Ask {
    Ask::Append(AppendRecord {
        without_quorum: local.leads_without_quorum(),
        ..rpc.into()
    })
}

/// Ends of an append request: what an answer to it speaks about.
pub(super) type Range = (Option<LogId>, Option<LogId>);

pub(super) fn range_of(rpc: &AppendEntriesRequest<Types>) -> Range {
    (
        rpc.prev_log_id,
        rpc.entries.last().map(|e| e.log_id).or(rpc.prev_log_id),
    )
}

pub(super) fn stream_result(
    answer: AppendAnswer,
    (prev, last): Range,
    address: &str,
) -> StreamItem {
    Ok(match answer {
        AppendAnswer::Success => Ok(last),
        AppendAnswer::Partial(upto) => Ok(upto.map(from_id)),
        AppendAnswer::Conflict => match prev {
            Some(prev) => Err(StreamAppendError::Conflict(prev)),
            None => {
                return Err(RPCError::Unreachable(Unreachable::from_string(format!(
                    "{address}: conflict before the first entry"
                ))));
            }
        },
        AppendAnswer::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote.into())),
        AppendAnswer::Unable(reason) => {
            return Err(RPCError::Unreachable(Unreachable::from_string(format!(
                "{address}: {reason}"
            ))));
        }
    })
}

/// An append on its way.
struct Sent {
    range: Range,
    bytes: usize,
}

/// Bytes of the commands in an append; everything else is small.
fn bytes_of(rpc: &AppendEntriesRequest<Types>) -> usize {
    let commands = rpc.entries.iter().map(|entry| match &entry.payload {
        EntryPayload::Normal(command) => command.bytes().len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    });
    APPEND_OVERHEAD_BYTES + commands.sum::<usize>()
}

/// Bytes of an append that a node takes that speaks this format version.
fn most_bytes(version: u16) -> usize {
    if version >= 2 {
        MAX_APPEND_BYTES
    } else {
        MAX_FRAME_BYTES
    }
}

fn answer_limit(bytes: usize) -> Duration {
    let for_bytes = u64::try_from(bytes / SLOWEST_BYTES_PER_SEC).unwrap_or(u64::MAX);
    APPEND_ANSWER_TIMEOUT.saturating_add(Duration::from_secs(for_bytes))
}

/// The pipelined replication stream: a task writes requests as they come, this side reads the answers in order.
struct Pipeline<'s> {
    connection: &'s mut Option<Connection>,
    reader: Reader,
    address: String,
    version: u16,
    in_flight: mpsc::Receiver<Sent>,
    writing: AbortOnDropHandle<Option<Writer>>,
    told: Told<'s>,
}

/// Whom to tell of an append that cannot be sent.
pub(super) struct Told<'s> {
    pub(super) local: &'s Arc<Local>,
    pub(super) target: &'s RaftId,
    pub(super) unsendable: &'s Unsendable,
}

/// Sends `input` over `connection`; puts that back once everything is answered.
pub(super) fn replicate<'s, S>(
    connection: Connection,
    put_back: &'s mut Option<Connection>,
    input: S,
    told: Told<'s>,
) -> impl Stream<Item = StreamItem> + Send + 's
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
{
    let Connection {
        reader,
        writer,
        address,
        version,
    } = connection;
    let (sent, in_flight) = mpsc::channel(APPENDS_IN_FLIGHT);
    let local = Arc::clone(told.local);
    let writing = tokio::spawn(write_appends(local, writer, version, input, sent));
    let pipeline = Pipeline {
        connection: put_back,
        reader,
        address,
        version,
        in_flight,
        writing: AbortOnDropHandle::new(writing),
        told,
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
    let most = most_bytes(version);
    while let Some(rpc) = input.next().await {
        let (range, bytes) = (range_of(&rpc), bytes_of(&rpc));
        in_flight.send(Sent { range, bytes }).await.ok()?;
        if bytes > most {
            // The reading side says so.
            return None;
        }
        write_frame_within(&mut writer, &append(&local, &rpc), most)
            .await
            .ok()?;
        writer.flush().await.ok()?;
    }
    Some(writer)
}

impl Pipeline<'_> {
    async fn next(mut self) -> Option<(StreamItem, Option<Self>)> {
        let Some(sent) = self.in_flight.recv().await else {
            // The input ended. Only a connection with nothing owed on it is kept.
            if let Ok(Some(writer)) = self.writing.await {
                *self.connection = Some(Connection {
                    reader: self.reader,
                    writer,
                    address: self.address,
                    version: self.version,
                });
            }
            return None;
        };
        let item = self.answer(&sent).await;
        let more = matches!(item, Ok(Ok(_))).then_some(self);
        Some((item, more))
    }

    async fn answer(&mut self, sent: &Sent) -> StreamItem {
        let Told {
            local,
            target,
            unsendable,
        } = &self.told;
        let most = most_bytes(self.version);
        if sent.bytes > most {
            let hint = if most < MAX_APPEND_BYTES {
                "; a newer rqlited there takes more"
            } else {
                ""
            };
            let why = format!(
                "an append of {} bytes is over the {most} that it takes{hint}",
                sent.bytes
            );
            unsendable.note(local, target, why.clone());
            return Err(RPCError::Unreachable(Unreachable::from_string(why)));
        }
        let answer = read_frame::<_, Answer>(&mut self.reader, MAX_FRAME_BYTES);
        let source = match timeout(answer_limit(sent.bytes), answer).await {
            Ok(Ok(Some(Answer::Append(answer)))) => {
                unsendable.forget(target);
                return stream_result(answer, sent.range, &self.address);
            }
            Ok(Ok(Some(Answer::Vote(_) | Answer::Transfer(_) | Answer::Holds(_)))) => {
                return Err(another_question(&self.address));
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
