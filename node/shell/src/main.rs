//! `rqlite`: the command-line shell. Reads arguments, hands them to [`run`], and turns the outcome into an exit code;
//! nothing below this file ends the process.

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

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    match run::run(arguments, &mut std::io::stdout().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        // Either a statement failed in a run that reports failures, or standard output is gone and nobody can be told.
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}
