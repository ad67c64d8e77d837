//! Large answers, piece by piece: what a read gives, and the pipe from its thread to whoever sends it on.
use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use node_values::{Cell, StatementResult};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::{entry::Outcome, readers::control::StopOnDrop};

/// Bytes of an answer that are gathered before it is sent piece by piece. Smaller ones have a length and come in one go.
pub(crate) const BUFFERED_BYTES: usize = 1 << 20;
/// Bytes of a piece.
pub(crate) const PIECE_BYTES: usize = 256 << 10;
/// Bytes that wait in the pipe, beyond which the read waits.
const PIPE_BYTES: usize = 1 << 20;

/// A piece of a large answer. Append only: nodes send it to each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Part {
    /// A whole result.
    Result(StatementResult),
    /// A result with rows begins.
    Begin {
        /// See [`Rows::columns`].
        columns: Vec<String>,
        /// See [`Rows::types`].
        types: Vec<String>,
    },
    /// Rows of the result that has begun; none as a sign of life.
    Rows(Vec<Vec<Cell>>),
    /// The result that has begun ends.
    End {
        /// Seconds the statement took.
        time_secs: f64,
        /// Why it broke off.
        error: Option<String>,
    },
    /// The answer ends.
    Done {
        /// See [`Outcome::error`].
        error: Option<String>,
    },
}

/// What a read gives.
#[derive(Debug)]
pub enum ReadOutput {
    /// All of it.
    Complete(Outcome),
    /// More than is held in memory.
    Streamed(Parts),
}

/// The pieces of a large answer. Dropping it ends the read.
#[derive(Debug)]
pub struct Parts {
    pipe: Arc<Pipe>,
    pub(crate) ends: Option<StopOnDrop>,
}

impl Parts {
    /// The next piece, [`Part::Done`] at the end; `None` after it, or if the database was closed. Nothing is lost when this is dropped.
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
    /// Pieces that were taken out so far.
    taken: u64,
    /// Nothing comes any more.
    ended: bool,
}

/// From the thread of a read to a task.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    waiting: Mutex<Waiting>,
    /// Signals the read: there is room.
    room: Condvar,
    arrived: Notify,
}

impl Pipe {
    /// Both ends.
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

    /// `None`: nothing yet. `Some(None)`: nothing any more.
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

    /// Puts a piece in, whether there is room or not.
    pub(crate) fn put(&self, part: Part, bytes: usize) {
        let mut waiting = self.waiting();
        waiting.parts.push_back((part, bytes));
        waiting.bytes += bytes;
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Nothing comes any more.
    pub(crate) fn end(&self) {
        self.waiting().ended = true;
        self.arrived.notify_one();
    }

    pub(crate) fn has_room(&self) -> bool {
        self.waiting().bytes < PIPE_BYTES
    }

    /// Waits up to `limit` for room; gives how many pieces have been taken out so far.
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
        assert!(!pipe.has_room());
        assert_eq!(pipe.wait_for_space(Duration::ZERO), 0);
        pipe.end();
        assert_eq!(parts.next().await, Some(Part::Rows(Vec::new())));
        assert!(pipe.has_room());
        assert_eq!(pipe.wait_for_space(Duration::ZERO), 1);
        assert_eq!(parts.next().await, Some(Part::Done { error: None }));
        assert_eq!(parts.next().await, None);
    }

    /// Nodes of different versions read each other's pieces.
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
