//! Raft's own thread. openraft's core, its state machine worker, replication, the proposer and the
//! connections that carry Raft's messages run on it, so that they pass work on without waking another thread
//! and never wait behind HTTP requests.
use std::{future::Future, io};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};
use tokio_util::task::AbortOnDropHandle;

/// The thread; it ends when this value is dropped.
#[derive(Debug)]
pub(crate) struct Thread {
    handle: Handle,
    _keep_alive: oneshot::Sender<()>,
}

impl Thread {
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (keep_alive, dropped) = oneshot::channel::<()>();
        std::thread::Builder::new()
            .name("raft".to_owned())
            .spawn(move || {
                let _ = runtime.block_on(dropped);
            })?;
        Ok(Self {
            handle,
            _keep_alive: keep_alive,
        })
    }

    /// Runs `work`, and everything that it spawns, on the thread. Dropping the future aborts the work.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> io::Result<T> {
        AbortOnDropHandle::new(self.handle.spawn(work))
            .await
            .map_err(io::Error::other)
    }
}
