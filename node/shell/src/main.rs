//! `rqlite`: the command-line shell. Passes the arguments to [`run`] and turns the result into an exit code;
//! no other file ends the process.

mod args;
mod client;
mod command;
mod commands;
mod host;
mod input;
mod proxy;
mod reply;
mod run;
mod settings;
mod table;
mod tls;
mod tree;
mod user;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    match run::run(arguments, &mut std::io::stdout().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        // Either a statement failed and `--exit-on-error` is set, or standard output is closed.
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}
