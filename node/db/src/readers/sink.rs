//! Receivers of a read's results: buffered until the read ends, or streamed when they become large.
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use node_values::{Rows, StatementResult};
use tokio::sync::oneshot;

use super::state::{REPEAT, Readers};
use crate::{
    entry::Outcome,
    readers::{
        control::{Control, StopReason},
        parts::{BUFFERED_BYTES, PIECE_BYTES, Part, Pipe, ReadOutput},
    },
    sql::result_size::{result_bytes, row_bytes},
    sqlite::statement::{Failure, Overflow},
};

/// A client that takes no part for this long has its read ended, because the read holds a thread and the
/// database file.
const STALL_LIMIT: Duration = Duration::from_secs(30);
/// Limit for receivers that cannot take a stream: nodes of an older version (a frame between nodes has at
/// most 64 MiB).
const WHOLE_BYTES: usize = 48 << 20;
const TOO_LARGE: &str = "the result is larger than 48 MiB, more than can be forwarded to this node; query the leader directly, or read less at a time";
/// Limit of rows buffered by a read on its caller's thread.
const INLINE_BYTES: usize = 256 << 10;

/// Receives the results of a read.
pub(super) trait Sink: Overflow {
    /// Receives the next result, or the rest of it.
    fn result(&mut self, result: StatementResult);
}

/// Buffers everything.
pub(super) struct Buffered<'c> {
    pub(super) results: Vec<StatementResult>,
    held: usize,
    limit: usize,
    control: &'c Control,
    /// What a result over the limit does: stop the read for this reason, or fail only the statement (`None`).
    reason: StopReason,
}

impl<'c> Buffered<'c> {
    pub(super) fn new(control: &'c Control) -> Self {
        Self {
            results: Vec::new(),
            held: 0,
            limit: WHOLE_BYTES,
            control,
            reason: StopReason::None,
        }
    }

    /// For a read on its caller's thread, which is stopped when its result becomes large.
    pub(super) fn inline(control: &'c Control) -> Self {
        Self {
            limit: INLINE_BYTES,
            reason: StopReason::InlineBudget,
            ..Self::new(control)
        }
    }
}

impl Overflow for Buffered<'_> {
    fn limit(&self) -> usize {
        self.limit.saturating_sub(self.held)
    }

    fn take(&mut self, _rows: &mut Rows) -> Result<(), Failure> {
        if self.reason != StopReason::None {
            self.control.stop(self.reason);
        }
        Err(Failure::Refused(TOO_LARGE.to_owned()))
    }
}

impl Sink for Buffered<'_> {
    fn result(&mut self, result: StatementResult) {
        self.held += result_bytes(&result);
        self.results.push(result);
    }
}

/// Buffers small results and streams large ones.
pub(super) struct Streaming<'j> {
    pub(super) readers: &'j Arc<Readers>,
    pub(super) id: u64,
    pub(super) control: &'j Control,
    /// The caller; taken when the output has been sent.
    reply: Option<oneshot::Sender<ReadOutput>>,
    results: Vec<StatementResult>,
    held: usize,
    pipe: Option<Arc<Pipe>>,
    /// Rows of the current statement have already been sent.
    begun: bool,
}

impl<'j> Streaming<'j> {
    pub(super) fn new(
        readers: &'j Arc<Readers>,
        id: u64,
        control: &'j Control,
        reply: oneshot::Sender<ReadOutput>,
    ) -> Self {
        Self {
            readers,
            id,
            control,
            reply: Some(reply),
            results: Vec::new(),
            held: 0,
            pipe: None,
            begun: false,
        }
    }

    /// Sends what remains, and the error of the read as a whole.
    pub(super) fn finish(mut self, error: Option<String>) {
        if let Some(pipe) = &self.pipe {
            pipe.put(Part::Done { error }, 0);
        } else if let Some(reply) = self.reply.take() {
            let results = std::mem::take(&mut self.results);
            let _ = reply.send(ReadOutput::Complete(Outcome { results, error }));
        }
    }

    /// Switches to streaming.
    fn pipe(&mut self) -> Arc<Pipe> {
        if let Some(pipe) = &self.pipe {
            return Arc::clone(pipe);
        }
        let (pipe, parts) = Pipe::new();
        for result in self.results.drain(..) {
            let bytes = result_bytes(&result);
            pipe.put(Part::Result(result), bytes);
        }
        let sent = self
            .reply
            .take()
            .map(|reply| reply.send(ReadOutput::Streamed(parts)));
        if !matches!(sent, Some(Ok(()))) {
            self.control.stop(StopReason::ClientGone);
        }
        self.pipe = Some(Arc::clone(&pipe));
        pipe
    }

    /// Waits for space in the pipe and gives up the turn meanwhile.
    fn wait_for_space(&self, pipe: &Pipe) -> Result<(), Failure> {
        let ended = || Failure::Refused(self.control.stopped_text());
        if pipe.has_space() {
            return Ok(());
        }
        self.readers.park(self.id);
        let (mut since, mut taken) = (Instant::now(), pipe.wait_for_space(REPEAT));
        while !pipe.has_space() {
            if self.control.must_stop() {
                return Err(ended());
            }
            let now = pipe.wait_for_space(REPEAT);
            if now != taken {
                (since, taken) = (Instant::now(), now);
            } else if since.elapsed() > STALL_LIMIT {
                self.control.stop(StopReason::Stalled);
            }
        }
        if self.readers.unpark(self.id, self.control) {
            Ok(())
        } else {
            Err(ended())
        }
    }
}

impl Overflow for Streaming<'_> {
    fn limit(&self) -> usize {
        match self.pipe {
            Some(_) => PIECE_BYTES,
            None => BUFFERED_BYTES.saturating_sub(self.held),
        }
    }

    fn take(&mut self, rows: &mut Rows) -> Result<(), Failure> {
        let pipe = self.pipe();
        if !self.begun {
            self.begun = true;
            let begin = Part::Begin {
                columns: rows.columns.clone(),
                types: rows.types.clone(),
            };
            pipe.put(begin, 0);
        }
        self.wait_for_space(&pipe)?;
        let bytes = rows.values.iter().map(|row| row_bytes(row)).sum();
        pipe.put(Part::Rows(std::mem::take(&mut rows.values)), bytes);
        Ok(())
    }
}

impl Sink for Streaming<'_> {
    fn result(&mut self, result: StatementResult) {
        let begun = std::mem::take(&mut self.begun);
        let bytes = result_bytes(&result);
        let Some(pipe) = &self.pipe else {
            self.held += bytes;
            self.results.push(result);
            return;
        };
        if !begun {
            // It is small; a larger result would have begun.
            return pipe.put(Part::Result(result), bytes);
        }
        let (time_secs, error) = match result {
            StatementResult::Rows(rows) => {
                if !rows.values.is_empty() {
                    pipe.put(Part::Rows(rows.values), bytes);
                }
                (rows.time_secs, None)
            }
            StatementResult::Error(text) => (0.0, Some(text)),
            StatementResult::Write(_) => (0.0, None),
        };
        pipe.put(Part::End { time_secs, error }, 0);
    }
}

impl Drop for Streaming<'_> {
    /// Also runs after a panic, so that the receiver does not wait for ever.
    fn drop(&mut self) {
        if let Some(pipe) = &self.pipe {
            pipe.end();
        }
    }
}
