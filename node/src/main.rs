//! rqlited: parse the command line, start logging, run, turn the result into an exit code.
use std::process::ExitCode;

use node::{config, run, telemetry};

/// The system's allocator keeps what many threads free; this one gives it back and is faster under the proposer's load.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A subcommand's end. `write!` and not `print!`: a closed pipe is no reason to panic.
fn answer(answer: &node::inspect::Answer) -> ExitCode {
    use std::io::Write;
    let written = if answer.is_error {
        writeln!(std::io::stderr(), "{}", answer.text)
    } else {
        writeln!(std::io::stdout(), "{}", answer.text)
    };
    match written {
        Ok(()) => ExitCode::from(answer.exit_code),
        Err(_) => ExitCode::FAILURE,
    }
}

#[expect(
    clippy::print_stderr,
    reason = "a command line tool's answers before logging starts"
)]
fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_deref().and_then(|word| word.to_str()) {
        Some("entrypoint") => return answer(&node::entrypoint::run(arguments)),
        Some("inspect") => return answer(&node::inspect::run(arguments)),
        Some("skip-entry") => return answer(&node::skip_entry::run(arguments)),
        Some("prepare") => {
            telemetry::start("INFO");
            return answer(&node::prepare::run(arguments));
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

/// Two things can only be set before a program starts, so it starts once more in the same process. SQLite's `localtime` follows the process's
/// time zone; nodes in different zones would store different rows. And huge pages would round every arena of the allocator up to 2 MiB, the
/// first one before `main`: 25 MiB of an idle node's memory, for nothing.
fn restart_prepared() -> std::io::Result<()> {
    let in_utc = std::env::var_os("TZ").is_some_and(|zone| zone == "UTC");
    // Both are looked at: the one is not to keep the other from being set.
    let had_huge_pages = leaves_huge_pages();
    if in_utc && !had_huge_pages {
        return Ok(());
    }
    Err(start_again())
}

/// The same program with the same command line in this process, in UTC. Comes back only with an error.
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

/// Switches huge pages off for this process and what it starts as. False if they were off, or if the system does not let them be switched.
fn leaves_huge_pages() -> bool {
    let were_off = rustix::thread::transparent_huge_pages_are_disabled();
    matches!(were_off, Ok(false)) && rustix::thread::disable_transparent_huge_pages(true).is_ok()
}
