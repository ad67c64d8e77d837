//! hyper's timer for the heads of one connection's requests, which costs a request next to nothing.
use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::rt::{Sleep, Timer};
use tokio::time::Instant;

/// The connection's only tokio timer.
type Alarm = Pin<Box<tokio::time::Sleep>>;

/// hyper makes a sleep for each head it waits for and drops it when the head is there. Each would be put into the runtime's wheel and taken
/// out again, under a lock that all connections share. Here they share one alarm, which is moved only when it has rung too early: as
/// deadlines only get later, that is once in the length of a sleep.
///
/// For one sleep at a time: the last one polled is woken.
#[derive(Clone)]
pub(super) struct HeadTimer(Arc<Mutex<Alarm>>);

struct HeadSleep {
    alarm: Arc<Mutex<Alarm>>,
    deadline: Instant,
}

impl HeadTimer {
    /// Within a runtime with time.
    pub(super) fn new() -> Self {
        let rung = tokio::time::sleep_until(Instant::now());
        Self(Arc::new(Mutex::new(Box::pin(rung))))
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(HeadSleep {
            alarm: Arc::clone(&self.0),
            deadline: deadline.into(),
        })
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into()
    }
}

impl Future for HeadSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut alarm = self.alarm.lock().unwrap_or_else(PoisonError::into_inner);
        if alarm.deadline() > self.deadline {
            alarm.as_mut().reset(self.deadline);
        }
        loop {
            ready!(alarm.as_mut().poll(context));
            if Instant::now() >= self.deadline {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(self.deadline);
        }
    }
}

impl Sleep for HeadSleep {}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(120);

    #[tokio::test(start_paused = true)]
    async fn every_sleep_ends_at_its_own_deadline() {
        let timer = HeadTimer::new();
        let start = Instant::now();
        for (after, seconds) in [(0, 120), (30, 100), (1, 5), (0, 0), (10, 120)] {
            tokio::time::sleep(Duration::from_secs(after)).await;
            let begun = Instant::now();
            timer.sleep(Duration::from_secs(seconds)).await;
            assert_eq!(begun.elapsed().as_secs(), seconds, "{:?}", start.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn dropped_sleeps_leave_the_alarm_where_it_is() {
        let timer = HeadTimer::new();
        let mut waited = Vec::new();
        for _ in 0..200 {
            let head = timer.sleep(LIMIT);
            tokio::select! {
                biased;
                () = head => waited.push("too early"),
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        }
        assert!(waited.is_empty());
        let silent = Instant::now();
        timer.sleep(LIMIT).await;
        assert_eq!(silent.elapsed().as_secs(), LIMIT.as_secs());
    }
}
