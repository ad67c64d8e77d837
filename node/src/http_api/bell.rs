//! The stop, as connections hear it: thousands of them listen, and none asks at each of its wake-ups.
use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::atomic::{AtomicBool, Ordering},
    task::{Poll, Waker},
};

use tokio::sync::Notify;

/// Rung once, for everybody.
///
/// Polling a token or a [`Notify`] takes a lock that all connections share, and a busy connection would do it twice a request. Here that
/// happens once: a task that has registered its waker is woken by the ringing, and looks at a flag.
#[derive(Debug, Default)]
pub(super) struct Bell {
    rung: AtomicBool,
    listeners: Notify,
}

impl Bell {
    pub(super) fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        self.listeners.notify_waiters();
    }

    /// What `work` gives, or `None` as soon as the bell has rung.
    pub(super) async fn or<T>(&self, mut work: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        // From here on no ringing is missed, whether polled or not.
        let mut ringing = pin!(self.listeners.notified());
        let mut registered: Option<Waker> = None;
        poll_fn(|context| {
            if self.rung.load(Ordering::Acquire) {
                return Poll::Ready(None);
            }
            let waker = context.waker();
            if !registered.as_ref().is_some_and(|own| own.will_wake(waker)) {
                if ringing.as_mut().poll(context).is_ready() {
                    return Poll::Ready(None);
                }
                registered = Some(waker.clone());
            }
            work.as_mut().poll(context).map(Some)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::Arc};

    use tokio::task::yield_now;

    use super::*;

    #[tokio::test]
    async fn everybody_hears_it_before_during_and_after() {
        let bell = Arc::new(Bell::default());
        assert_eq!(bell.or(pin!(async { 1 })).await, Some(1));
        let listens = |bell: &Arc<Bell>| {
            let bell = Arc::clone(bell);
            tokio::spawn(async move { bell.or(pin!(pending::<()>())).await })
        };
        let (first, second) = (listens(&bell), listens(&bell));
        yield_now().await;
        assert!(!first.is_finished() && !second.is_finished());
        bell.ring();
        assert_eq!(first.await.unwrap(), None);
        assert_eq!(second.await.unwrap(), None);
        assert_eq!(listens(&bell).await.unwrap(), None, "rung already");
    }

    #[tokio::test]
    async fn a_new_waker_is_registered_too() {
        let bell = Bell::default();
        let mut never = pin!(pending::<()>());
        let mut listening = Box::pin(bell.or(never.as_mut()));
        let mut unwoken = std::task::Context::from_waker(Waker::noop());
        assert!(listening.as_mut().poll(&mut unwoken).is_pending());
        let ring = async {
            yield_now().await;
            bell.ring();
        };
        let (heard, ()) = tokio::join!(listening, ring);
        assert_eq!(heard, None);
    }
}
