//! Which write the writer runs now, so that other threads can list it.
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use node_values::Statement;

use crate::{
    entry::Request,
    sql::slow_log,
    types::{Origin, RunningStatement},
};

/// A shorter run is not listed: under load there would always be one.
const LISTED_AFTER: Duration = Duration::from_millis(100);

/// The requests that the writer applies in one go, and how far it has come.
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
    /// The writer begins with these entries' requests.
    pub(crate) fn begin_requests(&self, entries: impl Iterator<Item = Arc<Vec<Request>>>) {
        self.request.store(0, Relaxed);
        self.begin(What::Requests(entries.collect()));
    }

    /// The writer begins with a chunk of a load.
    pub(crate) fn begin_load(&self) {
        self.begin(What::Load);
    }

    fn begin(&self, what: What) {
        let since = Instant::now();
        *self.lock() = Some(Run { since, what });
    }

    /// The writer has come to this request of the run.
    pub(crate) fn reach(&self, request: usize) {
        self.request.store(request, Relaxed);
    }

    /// The run has ended.
    pub(crate) fn end(&self) {
        *self.lock() = None;
    }

    /// The request that runs, if its run began a while ago. Its client is not known: entries carry none. Its id is 0,
    /// because nobody can end it: every node applies it, and its bounds end it everywhere alike.
    pub(crate) fn listed(&self) -> Option<RunningStatement> {
        let run = self.lock();
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

    fn lock(&self) -> MutexGuard<'_, Option<Run>> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first statement, and how many follow it.
fn shown(statements: &[Statement]) -> Option<String> {
    let first = slow_log::shortened(&statements.first()?.sql);
    Some(match statements.len() - 1 {
        0 => first,
        more => format!("{first} (and {more} more statements)"),
    })
}
