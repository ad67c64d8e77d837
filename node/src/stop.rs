//! The forced end of a process that does not stop in time after the stop signal.
use std::{thread, time::Duration};

/// Time after the stop signal until running statements are interrupted, and until the process is ended in any
/// case. Documented are ten seconds.
const HURRY_AFTER: Duration = Duration::from_secs(2);
const END_AFTER: Duration = Duration::from_secs(8);

/// Ends the process a limited time after the stop signal, whatever is running: load balancers and Kubernetes
/// wait less than a statement may take. Acknowledged writes are on disk, and entries that were being applied
/// are in the log.
pub fn end_in_time(hurry: impl FnOnce() + Send + 'static) {
    let watch = move || {
        thread::sleep(HURRY_AFTER);
        hurry();
        thread::sleep(END_AFTER - HURRY_AFTER);
        tracing::warn!(target: "rqlited", "some work does not end; exiting without it");
        #[expect(
            clippy::exit,
            reason = "a thread inside SQLite cannot be ended otherwise"
        )]
        std::process::exit(0);
    };
    let started = thread::Builder::new()
        .name("stop-watchdog".to_owned())
        .spawn(watch);
    if let Err(e) = started {
        tracing::warn!(target: "rqlited", "no watchdog for the stop: {e}");
    }
}
