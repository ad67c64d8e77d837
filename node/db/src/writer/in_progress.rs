//! The write that the writer is running, for the list of running statements.
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use node_values::Statement;
use parking_lot::Mutex;

use crate::{
    entry::Request,
    sql::slow_log,
    types::{Origin, RunningStatement},
};

/// Shorter runs are not listed: under load one is always in progress.
const LISTED_AFTER: Duration = Duration::from_millis(100);

/// The requests that the writer applies as one run, and its progress.
#[derive(Debug, Default)]
pub(crate) struct WriteInProgress {
    run: Mutex<Option<Run>>,
    /// Index of the request that runs, counted over all entries of the run.
    request: AtomicUsize,
}

#[derive(Debug)]
struct Run {
    since: Instant,
    what: What,
}

#[derive(Debug)]
enum What {
    /// The requests of each entry.
    Requests(Vec<Arc<Vec<Request>>>),
    /// A chunk of a load.
    Load,
}

impl WriteInProgress {
    /// Records the start of a run of these entries' requests.
    pub(crate) fn begin_requests(&self, entries: impl Iterator<Item = Arc<Vec<Request>>>) {
        self.request.store(0, Relaxed);
        self.begin(What::Requests(entries.collect()));
    }

    /// Records the start of a chunk of a load.
    pub(crate) fn begin_load(&self) {
        self.begin(What::Load);
    }

    fn begin(&self, what: What) {
        let since = Instant::now();
        *self.run.lock() = Some(Run { since, what });
    }

    /// Records that the writer has reached this request of the run.
    pub(crate) fn reach(&self, request: usize) {
        self.request.store(request, Relaxed);
    }

    /// Records the end of the run.
    pub(crate) fn end(&self) {
        *self.run.lock() = None;
    }

    /// The running request, if its run started a while ago. Its client is unknown, because entries carry
    /// none. Its id is 0, because it cannot be ended: every node applies it, and its bounds end it
    /// identically on all nodes.
    pub(crate) fn listed(&self) -> Option<RunningStatement> {
        let run = self.run.lock();
        let run = run.as_ref()?;
        let age = run.since.elapsed();
        if age < LISTED_AFTER {
            return None;
        }
        let text = match &run.what {
            What::Load => "a load".to_owned(),
            What::Requests(entries) => {
                let mut requests = entries.iter().flat_map(|entry| entry.iter());
                shown(&requests.nth(self.request.load(Relaxed))?.statements)?
            }
        };
        Some(RunningStatement {
            id: 0,
            age,
            text,
            origin: Origin::default(),
            waiting: false,
            writes: true,
        })
    }
}

/// The first statement, and the number of statements after it.
fn shown(statements: &[Statement]) -> Option<String> {
    let first = slow_log::shortened(&statements.first()?.sql);
    Some(match statements.len() - 1 {
        0 => first,
        more => format!("{first} (and {more} more statements)"),
    })
}
