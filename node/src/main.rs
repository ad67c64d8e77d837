//! The program rqlited: parses the command line, starts logging, runs the node or a subcommand, and returns
//! the exit code.
use std::process::ExitCode;

use node::{config, run, stop, telemetry};

/// The system's allocator keeps memory that many threads free; this one returns it, and is faster under the
/// load of the proposer.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Prints the result of a subcommand. `write!` instead of `print!`, because a closed pipe must not cause a
/// panic.
fn print(output: &node::inspect::CommandOutput) -> ExitCode {
    use std::io::Write;
    let written = if output.is_error {
        writeln!(std::io::stderr(), "{}", output.text)
    } else {
        writeln!(std::io::stdout(), "{}", output.text)
    };
    match written {
        Ok(()) => ExitCode::from(output.exit_code),
        Err(_) => ExitCode::FAILURE,
    }
}

/// Runs a subcommand that a stop signal ends, and prints its result.
fn stoppable(run: impl FnOnce() -> node::inspect::CommandOutput) -> ExitCode {
    stop::end_on_signal();
    print(&run())
}

#[expect(
    clippy::print_stderr,
    reason = "output of a command line program before logging starts"
)]
fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_deref().and_then(|word| word.to_str()) {
        Some("archive") => return archive(arguments),
        Some("backup") => return stoppable(|| node::backup_command::backup(arguments)),
        Some("fetch") => return stoppable(|| node::backup_command::fetch(arguments)),
        Some("entrypoint") => return print(&node::entrypoint::run(arguments)),
        Some("hash-password") => return print(&node::hash_password::run(arguments)),
        Some("inspect") => return print(&node::inspect::run(arguments)),
        Some("skip-entry") => return print(&node::skip_entry::run(arguments)),
        Some("parked") => {
            let output = node::parked_command::run(arguments);
            return output.map_or(ExitCode::SUCCESS, |output| print(&output));
        }
        Some("prepare") => {
            telemetry::start("INFO");
            return print(&node::prepare::run(arguments));
        }
        _ => {}
    }
    let config = match config::parse(std::env::args_os().skip(1)) {
        Ok(config::Parsed::Run(config)) => config,
        Ok(config::Parsed::Help(usage)) => {
            eprintln!("{usage}");
            return ExitCode::SUCCESS;
        }
        Ok(config::Parsed::Version) => {
            eprintln!("{}", node::version_line());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{}", error.text);
            return ExitCode::from(error.exit_code);
        }
    };
    if let Err(e) = restart_prepared() {
        eprintln!("fatal: starting again with TZ=UTC: {e}");
        return ExitCode::FAILURE;
    }
    telemetry::start(&config.raft_log_level);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("fatal: starting the runtime: {e}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run::run(*config)) {
        Ok(run::End::Stopped) => {
            tracing::info!(target: "rqlited", "rqlite server stopped");
            ExitCode::SUCCESS
        }
        Ok(run::End::StartAgain) => {
            drop(runtime);
            let failed = start_again();
            tracing::error!(target: "rqlited", "fatal: starting again: {failed}");
            ExitCode::FAILURE
        }
        Err(e) => {
            tracing::error!(target: "rqlited", "fatal: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Replaying needs what a node needs: SQLite's `localtime` in UTC.
#[expect(
    clippy::print_stderr,
    reason = "output of a command line program before logging starts"
)]
fn archive(arguments: impl Iterator<Item = std::ffi::OsString>) -> ExitCode {
    if let Err(e) = restart_prepared() {
        eprintln!("starting again with TZ=UTC: {e}");
        return ExitCode::FAILURE;
    }
    stoppable(|| node::restore::command::run(arguments))
}

/// Executes the program again in the same process, because two settings take effect only at the start of a
/// program. SQLite's `localtime` uses the process's time zone, so nodes in different zones would store
/// different rows. And with huge pages every arena of the allocator, the first one before `main`, takes a
/// multiple of 2 MiB: 25 MiB more for an idle node.
fn restart_prepared() -> std::io::Result<()> {
    let in_utc = std::env::var_os("TZ").is_some_and(|zone| zone == "UTC");
    // Both are evaluated, so that both are set.
    let had_huge_pages = disable_huge_pages();
    if in_utc && !had_huge_pages {
        return Ok(());
    }
    Err(start_again())
}

/// Executes the same program with the same command line in this process, in UTC. Returns only after an error.
fn start_again() -> std::io::Error {
    use std::os::unix::process::CommandExt;
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(e) => return e,
    };
    let mut arguments = std::env::args_os();
    let mut again = std::process::Command::new(program);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    again.args(arguments).env("TZ", "UTC").exec()
}

/// Disables huge pages for this process, also after executing again. False if they were disabled already or
/// cannot be disabled.
fn disable_huge_pages() -> bool {
    let were_off = rustix::thread::transparent_huge_pages_are_disabled();
    matches!(were_off, Ok(false)) && rustix::thread::disable_transparent_huge_pages(true).is_ok()
}
