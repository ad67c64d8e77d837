//! Comparisons with hashes: few at a time, in fair order, and slowly where they fail, so that wrong passwords
//! take neither the node's processors nor its memory.
use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    task::spawn_blocking,
    time::{sleep, timeout},
};

use super::{
    remembered::{Refused, Remembered},
    rules::Work,
    turns::{Busy, LoginFrom, Turns},
};
use crate::metrics::{Counter, Metrics};

/// How long a login waits for its turn.
const MAX_WAIT: Duration = Duration::from_secs(20);
/// Most comparisons at a time, on machines with many processors. Each takes 19 MiB and more.
const MAX_AT_A_TIME: usize = 2;
/// One in this many processors hashes passwords.
const PROCESSORS_PER_COMPARISON: usize = 4;

/// One comparison that waits.
struct Job {
    work: Work,
    password: String,
    result: oneshot::Sender<bool>,
}

struct State {
    turns: Turns<Job>,
    /// Tasks that work on the queue.
    workers: usize,
    remembered: Remembered,
    refused: Refused,
}

/// Compares passwords with hashes.
#[derive(Clone)]
pub(super) struct Checker {
    state: Arc<Mutex<State>>,
    metrics: Arc<Metrics>,
    max_workers: usize,
}

impl fmt::Debug for Checker {
    /// Shows no waiting passwords.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Checker").finish_non_exhaustive()
    }
}

impl Checker {
    /// At most `max_waiting` comparisons wait.
    pub(super) fn new(max_waiting: usize, metrics: Arc<Metrics>) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            state: Arc::new(Mutex::new(State {
                turns: Turns::new(max_waiting),
                workers: 0,
                remembered: Remembered::default(),
                refused: Refused::default(),
            })),
            metrics,
            max_workers: (processors / PROCESSORS_PER_COMPARISON).clamp(1, MAX_AT_A_TIME),
        }
    }

    /// True if the password is right.
    ///
    /// # Errors
    /// It was not compared.
    pub(super) async fn check(
        &self,
        work: Work,
        password: &str,
        from: LoginFrom,
    ) -> Result<bool, Busy> {
        let id = work.id;
        let compared = {
            let mut state = self.state.lock();
            if let Some(known) = state.remembered.get(&work.id) {
                return Ok(known);
            }
            let (result, compared) = oneshot::channel();
            let user = work.bucket;
            let again = state.refused.contains(&id);
            let job = Job {
                work,
                password: password.to_owned(),
                result,
            };
            if let Err(busy) = state.turns.push(from, again, user, job) {
                state.refused.put(&id);
                self.metrics.count(Counter::AuthLoginsRefused);
                return Err(busy);
            }
            if state.workers < self.max_workers {
                state.workers += 1;
                tokio::spawn(self.clone().work());
            }
            compared
        };
        if let Ok(Ok(right)) = timeout(MAX_WAIT, compared).await {
            return Ok(right);
        }
        self.state.lock().refused.put(&id);
        self.metrics.count(Counter::AuthLoginsRefused);
        Err(Busy::Node)
    }

    /// The next job whose client still waits. `None`, and one worker less, if there is none.
    fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        while let Some(job) = state.turns.pop() {
            if job.result.is_closed() {
                continue;
            }
            // The same login may have waited twice.
            match state.remembered.get(&job.work.id) {
                Some(known) => {
                    let _ = job.result.send(known);
                }
                None => return Some(job),
            }
        }
        state.workers -= 1;
        None
    }

    async fn work(self) {
        while let Some(job) = self.next() {
            let Job {
                work,
                password,
                result,
            } = job;
            let (id, started) = (work.id, Instant::now());
            let compared = spawn_blocking(move || work.matches(&password)).await;
            let Ok(right) = compared else {
                // The process is stopping. The client gets no result.
                continue;
            };
            self.state.lock().remembered.put(id, right);
            self.metrics.count(Counter::AuthHashChecks);
            let _ = result.send(right);
            if !right {
                self.metrics.count(Counter::AuthHashChecksWrong);
                // Wrong passwords take at most half of the time.
                sleep(started.elapsed()).await;
            }
        }
    }
}
