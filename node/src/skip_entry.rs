//! `rqlited skip-entry DATA`: the last resort for an entry that no node can apply. The rules are in
//! `recovery/skip.rs`.
use std::{ffi::OsString, path::PathBuf};

use clap::Parser;

use crate::{
    data_dir,
    identity::Skipped,
    inspect::CommandOutput,
    recovery::skip::{Done, skip},
};

#[derive(Debug, Parser)]
#[command(
    name = "rqlited skip-entry",
    about = "Makes a stopped node skip one entry of the Raft log, as if nobody had written it. The last resort for an entry that stops every node.",
    after_help = "Stop ALL nodes first, run `rqlited inspect --entry N DATA` on each, compare term and checksum, run this on each, then start them. \
                  A node that did not skip the entry is refused by those that did. What the entry wrote is lost. Exit codes: 0 done, also before; 1 refused; 2 wrong command line.",
    disable_help_subcommand = true
)]
struct Args {
    /// The entry's index, from the log line of the node that cannot go on.
    #[arg(long)]
    index: u64,
    /// Its term, as `inspect --entry` shows it.
    #[arg(long)]
    term: u64,
    /// Its checksum, as `inspect --entry` shows it.
    #[arg(long)]
    checksum: String,
    /// The node's data directory.
    data: PathBuf,
}

/// Runs the subcommand; `arguments` are those after the word `skip-entry`.
pub fn run(arguments: impl Iterator<Item = OsString>) -> CommandOutput {
    let words = std::iter::once(OsString::from("rqlited skip-entry")).chain(arguments);
    let args = match Args::try_parse_from(words) {
        Ok(args) => args,
        Err(error) => return CommandOutput::of_clap(&error),
    };
    let refused = |text: String| CommandOutput {
        exit_code: 1,
        text,
        is_error: true,
    };
    // Nothing is created in a directory without a node.
    if !args.data.join("raft").is_dir() {
        return refused(format!("{} holds no node's data", args.data.display()));
    }
    let _lock = match data_dir::lock(&args.data) {
        Ok(lock) => lock,
        Err(e) => return refused(e.to_string()),
    };
    let entry = Skipped {
        index: args.index,
        term: args.term,
        checksum: args.checksum,
    };
    let done = match skip(&args.data, &entry) {
        Ok(done) => done,
        Err(e) => return refused(e.to_string()),
    };
    let (what, lineage) = match done {
        Done::Skipped(lineage) => ("entry is skipped", lineage),
        Done::BeyondLog(lineage) => (
            "log ends before the entry: it will come without content",
            lineage,
        ),
        Done::AlreadySkipped(lineage) => ("entry had been skipped before", lineage),
    };
    CommandOutput {
        exit_code: 0,
        text: format!(
            "The {what}. The lineage is {} (epoch {}) now: every other node is refused until it has done the same:\n  {}",
            lineage.id,
            lineage.epoch,
            entry.command("<its data directory>")
        ),
        is_error: false,
    }
}
