//! Raft's own thread: openraft's core, its state machine worker, replication, the proposer and the connections that carry Raft's messages run on
//! one, so that they hand work to each other without waking anybody, and never wait behind HTTP requests.
use std::{future::Future, io};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};
use tokio_util::task::AbortOnDropHandle;

/// The thread; it ends when the value goes.
#[derive(Debug)]
pub(crate) struct Thread {
    handle: Handle,
    _alive: oneshot::Sender<()>,
}

impl Thread {
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (alive, gone) = oneshot::channel::<()>();
        std::thread::Builder::new()
            .name("raft".to_owned())
            .spawn(move || {
                let _ = runtime.block_on(gone);
            })?;
        Ok(Self {
            handle,
            _alive: alive,
        })
    }

    /// Runs `work` on the thread, with everything that it spawns, as long as the caller waits for it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> io::Result<T> {
        AbortOnDropHandle::new(self.handle.spawn(work))
            .await
            .map_err(io::Error::other)
    }
}
