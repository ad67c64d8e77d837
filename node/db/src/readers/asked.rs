//! Whoever waits for a read or a backup: what they wait for ends when they go.
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::sync::oneshot;

use crate::{
    entry::Outcome,
    readers::{
        control::{Control, StopOnDrop, StopReason},
        parts::ReadOutput,
    },
    types::Origin,
};

/// A read that was asked for; gives its answer. Dropping it ends the read.
#[derive(Debug)]
pub struct PendingRead {
    pub(super) receiver: oneshot::Receiver<ReadOutput>,
    pub(super) ends: Option<StopOnDrop>,
}

impl Future for PendingRead {
    type Output = Result<ReadOutput, oneshot::error::RecvError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut polled = Pin::new(&mut self.receiver).poll(context);
        match &mut polled {
            // It goes on for as long as somebody takes its pieces.
            Poll::Ready(Ok(ReadOutput::Streamed(parts))) => parts.ends = self.ends.take(),
            Poll::Ready(_) => {
                if let Some(ends) = self.ends.take() {
                    ends.forget();
                }
            }
            Poll::Pending => {}
        }
        polled
    }
}

/// A read whose outcome comes in one go. Dropping it ends the read.
#[derive(Debug)]
pub struct PendingOutcome(pub(super) PendingRead);

impl PendingOutcome {
    /// Waits on a thread without a runtime.
    ///
    /// # Errors
    /// The database was closed.
    pub fn blocking_recv(self) -> Result<Outcome, oneshot::error::RecvError> {
        let PendingRead { receiver, ends } = self.0;
        let answer = receiver.blocking_recv();
        if let Some(ends) = ends {
            ends.forget();
        }
        answer.map(whole)
    }
}

impl Future for PendingOutcome {
    type Output = Result<Outcome, oneshot::error::RecvError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = Pin::new(&mut self.0).poll(context);
        polled.map(|answer| answer.map(whole))
    }
}

/// Pieces come only to whoever asked for them.
fn whole(answer: ReadOutput) -> Outcome {
    match answer {
        ReadOutput::Complete(outcome) => outcome,
        ReadOutput::Streamed(_) => Outcome::refused("the result came in pieces"),
    }
}

/// Whoever waits for something longer, such as a backup. Dropping it ends what it waits for.
#[derive(Debug)]
pub struct CancelGuard(Arc<Control>);

/// What somebody may be waiting for.
#[derive(Clone, Debug)]
pub struct Cancellation {
    pub(super) control: Arc<Control>,
    pub(super) origin: Origin,
}

impl Default for Cancellation {
    fn default() -> Self {
        Self {
            control: Control::new(),
            origin: Origin::default(),
        }
    }
}

impl Cancellation {
    /// Something that `origin` asked for, and whoever waits for it.
    pub fn new(origin: Origin) -> (CancelGuard, Self) {
        let control = Control::new();
        (CancelGuard(Arc::clone(&control)), Self { control, origin })
    }
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        self.0.stop(StopReason::ClientGone);
    }
}
