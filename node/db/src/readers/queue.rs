//! The queue of reads for the reader threads.
use std::{
    sync::{Arc, MutexGuard},
    time::Instant,
};

use tokio::sync::oneshot;

use super::state::{Job, Phase, ReadJob, Readers, State, lock};
use crate::{
    entry::Outcome,
    readers::{
        control::{Control, StopOnDrop},
        parts::ReadOutput,
        pending::{PendingOutcome, PendingRead},
    },
    types::{Origin, Read},
};

/// Limit of queued reads. Beyond it a read is refused at once instead of waiting.
const QUEUE: usize = 16 * 1024;

impl Readers {
    /// Queues a read with a buffered outcome.
    pub(crate) fn read(&self, read: Read, origin: Origin) -> PendingOutcome {
        PendingOutcome(self.submit(read, origin, false))
    }

    /// Queues a read. With `streams`, large results are streamed.
    pub(crate) fn submit(&self, read: Read, origin: Origin, streams: bool) -> PendingRead {
        let (reply, receiver) = oneshot::channel();
        let control = Control::new();
        let job = ReadJob {
            read: Arc::new(read),
            origin,
            since: Instant::now(),
            control: Arc::clone(&control),
            reply,
            streams,
        };
        if let Err(Job::Read(job)) = self.push(Job::Read(Box::new(job))) {
            let refused = Outcome::refused("too many reads are waiting");
            let _ = job.reply.send(ReadOutput::Complete(refused));
        }
        let ends = StopOnDrop::new(control, self.own.clone());
        PendingRead {
            receiver,
            ends: Some(ends),
        }
    }

    /// Whether SQLite considers the first statement of `sql` read-only.
    pub(crate) fn classify(&self, sql: &str) -> oneshot::Receiver<bool> {
        let (reply, receiver) = oneshot::channel();
        if let Err(Job::Classify { reply, .. }) = self.push(Job::Classify {
            sql: sql.to_owned(),
            reply,
        }) {
            let _ = reply.send(false);
        }
        receiver
    }

    fn push(&self, job: Job) -> Result<(), Job> {
        let mut state = lock(&self.state);
        if state.jobs.len() >= QUEUE || state.phase == Phase::Stopped {
            return Err(job);
        }
        state.jobs.push_back(job);
        self.dispatch(state);
        Ok(())
    }

    /// Wakes a thread for a queued job that may start, or starts a thread.
    pub(super) fn dispatch(&self, mut state: MutexGuard<'_, State>) {
        let may_begin = state.jobs.len().min(state.lanes.free_slots());
        if may_begin == 0 || state.phase != Phase::Open {
            return;
        }
        // A thread that was woken counts as idle until it runs.
        let starts = state.idle < may_begin && state.threads < self.settings.most_threads();
        state.threads += usize::from(starts);
        drop(state);
        self.work.notify_one();
        if starts && let Err(error) = self.spawn() {
            tracing::warn!(%error, "cannot start another thread for reads");
        }
    }
}
