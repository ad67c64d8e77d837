//! Futures and guards for callers that wait for a read or a backup; dropping one cancels the work.
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

/// A submitted read; resolves to its output. Dropping it cancels the read.
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
            // The read continues as long as its parts are taken; dropping them cancels it from now on.
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

/// A submitted read with a buffered outcome. Dropping it cancels the read.
#[derive(Debug)]
pub struct PendingOutcome(pub(super) PendingRead);

impl PendingOutcome {
    /// Blocks until the read has ended, for threads without a runtime.
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

/// Only callers that asked for streaming receive parts.
fn whole(answer: ReadOutput) -> Outcome {
    match answer {
        ReadOutput::Complete(outcome) => outcome,
        ReadOutput::Streamed(_) => Outcome::refused("the result was streamed"),
    }
}

/// Held by the caller of a longer operation, such as a backup. Dropping it cancels the operation.
#[derive(Debug)]
pub struct CancelGuard(Arc<Control>);

/// Given to a longer operation, so that it can be cancelled and listed.
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
    /// A cancellation for work requested by `origin`, with the guard that triggers it.
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
