//! The forced end of a process: of a node that does not stop in time after the stop signal, and of a
//! subcommand by the signal.
use std::{thread, time::Duration};

use tokio::signal::unix::{SignalKind, signal};

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

/// Ends a subcommand on SIGTERM and SIGINT. The first process of a container ignores them by default: it
/// would continue to write to a store until it is killed.
pub fn end_on_signal() {
    if let Err(e) = listen() {
        tracing::warn!(target: "rqlited", "stop signals are not listened to: {e}");
    }
}

/// The signals are caught when this returns.
fn listen() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (mut terminate, mut interrupt) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        )
    };
    let wait = async move {
        tokio::select! {
            _ = terminate.recv() => SignalKind::terminate(),
            _ = interrupt.recv() => SignalKind::interrupt(),
        }
    };
    let end = move || {
        let kind = runtime.block_on(wait);
        #[expect(clippy::exit, reason = "the end that was asked for")]
        std::process::exit(128 + kind.as_raw_value());
    };
    thread::Builder::new()
        .name("stop-signals".to_owned())
        .spawn(end)?;
    Ok(())
}
