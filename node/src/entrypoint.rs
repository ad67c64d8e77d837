//! `rqlited entrypoint [run | FLAGS... | PROGRAM...]`: the entry point of a container image. Converts the
//! environment variables of rqlite's image to flags, then executes the node or another program. The image
//! needs no shell. Other subcommands ignore these variables.
use std::{
    collections::BTreeMap, ffi::OsString, fs, os::unix::process::CommandExt, path::Path,
    process::Command, time::Duration,
};

use tokio::signal::unix::{SignalKind, signal};

use crate::inspect::CommandOutput;

mod decide;

use decide::{Container, Start, decide};

/// The file with the full name of the container's host.
const HOSTS: &str = "/etc/hosts";
/// The exit code if no program could be executed.
const REFUSED: u8 = 1;
/// The node's `argv[0]`.
const NAME: &str = "rqlited";

/// Executes the program that the arguments and the environment select. Returns only if that fails, or after a
/// signal.
pub fn run(words: impl IntoIterator<Item = OsString>) -> CommandOutput {
    let words: Vec<String> = words.into_iter().map(text).collect();
    let variables: BTreeMap<String, String> = std::env::vars_os()
        .map(|(name, value)| (text(name), text(value)))
        .collect();
    let host_name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let container = Container {
        variables: &variables,
        hosts: &fs::read_to_string(HOSTS).unwrap_or_default(),
        host_name: &host_name,
        exists: &|path| Path::new(path).exists(),
    };
    match decide(&words, &container).and_then(|start| execute(&start)) {
        Ok(output) => output,
        Err(text) => CommandOutput {
            exit_code: REFUSED,
            text,
            is_error: true,
        },
    }
}

fn text(word: OsString) -> String {
    word.to_string_lossy().into_owned()
}

/// Executes the program; does not return if that succeeds.
fn execute(start: &Start) -> Result<CommandOutput, String> {
    match start {
        Start::Own { words, delay } => {
            let is_stopped =
                stopped_within(*delay).map_err(|e| format!("fatal: waiting START_DELAY: {e}"))?;
            if is_stopped {
                return Ok(CommandOutput {
                    exit_code: 0,
                    text: "stopped during START_DELAY".to_owned(),
                    is_error: true,
                });
            }
            let program =
                std::env::current_exe().map_err(|e| format!("fatal: finding this program: {e}"))?;
            let e = Command::new(program).arg0(NAME).args(words).exec();
            Err(format!("fatal: starting {NAME}: {e}"))
        }
        Start::Other { program, words } => {
            let e = Command::new(program).args(words).exec();
            Err(format!(
                "fatal: starting {program}: {e}. The image has rqlited and rqlite; flags of the node begin with a dash"
            ))
        }
    }
}

/// Waits for `delay` and returns false, or true after a stop signal. The first process of a container
/// receives only signals that it handles, so a plain sleep would delay every stop.
fn stopped_within(delay: Duration) -> std::io::Result<bool> {
    if delay.is_zero() {
        return Ok(false);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        Ok(tokio::select! {
            _ = terminate.recv() => true,
            _ = interrupt.recv() => true,
            () = tokio::time::sleep(delay) => false,
        })
    })
}
