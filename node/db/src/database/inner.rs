//! The shared state behind all handles of an open database, and its threads.
use std::{
    sync::{
        Arc,
        mpsc::{SyncSender, TrySendError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{
    files::{layout::Files, main_file::MainFile},
    readers::state::Readers,
    sqlite::connection::STACK_BYTES,
    types::{OpenError, Options},
    writer::{Command, Progress},
};

/// How long the current run may continue when the database is closed. The log replays it if it is
/// interrupted.
const GRACE: Duration = Duration::from_secs(2);
/// Interval between checks whether the writer has ended.
const PAUSE: Duration = Duration::from_millis(2);

pub(crate) struct Inner {
    pub(crate) files: Files,
    pub(crate) options: Options,
    pub(super) commands: SyncSender<Command>,
    pub(crate) readers: Arc<Readers>,
    pub(crate) main: Arc<MainFile>,
    pub(crate) progress: Arc<Progress>,
    pub(super) threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Inner {
    pub(super) fn spawn(
        &self,
        name: String,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<(), OpenError> {
        let thread = thread::Builder::new()
            .name(name)
            .stack_size(STACK_BYTES)
            .spawn(body)
            .map_err(|source| OpenError::Io {
                context: "start a database thread".to_owned(),
                source,
            })?;
        self.threads.lock().push(thread);
        Ok(())
    }

    pub(super) fn close(&self) {
        let disk_wait = &self.progress.meters.disk_wait;
        disk_wait.stop();
        self.readers.stop();
        let deadline = Instant::now() + GRACE;
        // The queue is full, or a statement does not end.
        while let Err(TrySendError::Full(_)) = self.commands.try_send(Command::Close) {
            if Instant::now() > deadline {
                disk_wait.interrupt();
            }
            thread::sleep(PAUSE);
        }
        while !self.writer_has_ended() {
            if Instant::now() > deadline {
                disk_wait.interrupt();
            }
            thread::sleep(PAUSE);
        }
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a database thread panicked");
            }
        }
        if !self.readers.wait_for_end() {
            tracing::error!("a read does not end; the disk may not answer");
        }
    }
}

impl Inner {
    /// The writer's thread is the first in the list.
    fn writer_has_ended(&self) -> bool {
        let threads = self.threads.lock();
        threads.first().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}
