//! Streaming of large results: the parts, and the pipe from the reader thread to the task that forwards them.
use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use node_values::{Cell, StatementResult};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::{entry::Outcome, readers::control::StopOnDrop};

/// Results are buffered up to this size; larger ones are streamed. Buffered results have a known length.
pub(crate) const BUFFERED_BYTES: usize = 1 << 20;
/// Size of a part.
pub(crate) const PIECE_BYTES: usize = 256 << 10;
/// Capacity of the pipe. The read waits while more than this is in it.
const PIPE_BYTES: usize = 1 << 20;

/// A part of a streamed result. Append only: nodes send parts to each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Part {
    /// A complete result.
    Result(StatementResult),
    /// The start of a result with rows.
    Begin {
        /// See [`node_values::Rows::columns`].
        columns: Vec<String>,
        /// See [`node_values::Rows::types`].
        types: Vec<String>,
    },
    /// Rows of the current result; an empty list is a keep-alive.
    Rows(Vec<Vec<Cell>>),
    /// The end of the current result.
    End {
        /// Seconds the statement took.
        time_secs: f64,
        /// Why the result is incomplete.
        error: Option<String>,
    },
    /// The end of the stream.
    Done {
        /// See [`Outcome::error`].
        error: Option<String>,
    },
}

/// The output of a read.
#[derive(Debug)]
pub enum ReadOutput {
    /// All results, buffered.
    Complete(Outcome),
    /// Results too large to buffer.
    Streamed(Parts),
}

/// The parts of a streamed result. Dropping it cancels the read.
#[derive(Debug)]
pub struct Parts {
    pipe: Arc<Pipe>,
    pub(crate) ends: Option<StopOnDrop>,
}

impl Parts {
    /// The next part, ending with [`Part::Done`]. Returns `None` after that, or if the database was closed.
    /// Cancel safe: dropping the future loses no part.
    pub async fn next(&mut self) -> Option<Part> {
        loop {
            let arrived = self.pipe.arrived.notified();
            if let Some(next) = self.pipe.take() {
                return next;
            }
            arrived.await;
        }
    }
}

#[derive(Debug, Default)]
struct Waiting {
    parts: VecDeque<(Part, usize)>,
    bytes: usize,
    /// Number of parts taken out so far.
    taken: u64,
    /// No further part will come.
    ended: bool,
}

/// From the reader thread to a task.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    waiting: Mutex<Waiting>,
    /// Notifies the reader thread that there is space.
    room: Condvar,
    arrived: Notify,
}

impl Pipe {
    /// Creates both ends.
    pub(crate) fn new() -> (Arc<Self>, Parts) {
        let pipe = Arc::new(Self::default());
        let parts = Parts {
            pipe: Arc::clone(&pipe),
            ends: None,
        };
        (pipe, parts)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: nothing yet. `Some(None)`: the stream has ended.
    fn take(&self) -> Option<Option<Part>> {
        let mut waiting = self.waiting();
        let Some((part, bytes)) = waiting.parts.pop_front() else {
            return waiting.ended.then_some(None);
        };
        waiting.bytes -= bytes;
        waiting.taken += 1;
        drop(waiting);
        self.room.notify_one();
        Some(Some(part))
    }

    /// Appends a part, even if the pipe is full.
    pub(crate) fn put(&self, part: Part, bytes: usize) {
        let mut waiting = self.waiting();
        waiting.parts.push_back((part, bytes));
        waiting.bytes += bytes;
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Marks the end of the stream.
    pub(crate) fn end(&self) {
        self.waiting().ended = true;
        self.arrived.notify_one();
    }

    pub(crate) fn has_space(&self) -> bool {
        self.waiting().bytes < PIPE_BYTES
    }

    /// Waits up to `limit` for space. Returns the number of parts taken out so far.
    pub(crate) fn wait_for_space(&self, limit: Duration) -> u64 {
        let mut waiting = self.waiting();
        if waiting.bytes >= PIPE_BYTES {
            waiting = self
                .room
                .wait_timeout(waiting, limit)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        waiting.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pieces_come_in_order_and_make_room() {
        let (pipe, mut parts) = Pipe::new();
        pipe.put(Part::Rows(Vec::new()), PIPE_BYTES);
        pipe.put(Part::Done { error: None }, 0);
        assert!(!pipe.has_space());
        assert_eq!(pipe.wait_for_space(Duration::ZERO), 0);
        pipe.end();
        assert_eq!(parts.next().await, Some(Part::Rows(Vec::new())));
        assert!(pipe.has_space());
        assert_eq!(pipe.wait_for_space(Duration::ZERO), 1);
        assert_eq!(parts.next().await, Some(Part::Done { error: None }));
        assert_eq!(parts.next().await, None);
    }

    /// Nodes of different versions read each other's parts.
    #[test]
    fn the_bytes_of_pieces_are_fixed() {
        let rows = Part::Rows(vec![vec![Cell::Null, Cell::Integer(1)]]);
        let begin = Part::Begin {
            columns: vec!["a".into()],
            types: vec!["".into()],
        };
        let end = Part::End {
            time_secs: 0.0,
            error: Some("e".into()),
        };
        let done = Part::Done { error: None };
        for (part, bytes) in [
            (
                Part::Result(StatementResult::Error("e".into())),
                &[0_u8, 2, 1, b'e'][..],
            ),
            (begin, &[1, 1, 1, b'a', 1, 0]),
            (rows, &[2, 1, 2, 0, 1, 2]),
            (end, &[3, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, b'e']),
            (done, &[4, 0]),
        ] {
            assert_eq!(postcard::to_stdvec(&part).unwrap(), bytes, "{part:?}");
            assert_eq!(postcard::from_bytes::<Part>(bytes).unwrap(), part);
        }
    }
}
