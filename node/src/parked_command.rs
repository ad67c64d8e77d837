//! `rqlited parked`: lists, exports and deletes parked copies, also while the node runs.
mod archive;

use std::{ffi::OsString, io, path::PathBuf};

use clap::{Parser, Subcommand};
use node_contract::parked::ParkedPolicy;

use crate::{
    data_dir::PARKED_DIR,
    inspect::CommandOutput,
    parked::{delete, list, status},
};

#[derive(Debug, Parser)]
#[command(
    name = "rqlited parked",
    about = "Lists, exports and deletes copies of data that were parked in a data directory. The node may run.",
    after_help = "Exit codes: 0 done; 1 failed; 2 wrong command line.",
    disable_help_subcommand = true
)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Lists the copies, the newest first.
    List {
        /// As JSON, like `store.parked` of /status.
        #[arg(long)]
        json: bool,
        /// The node's data directory.
        data: PathBuf,
    },
    /// Writes a copy to standard output as a tar archive: a data directory for `rqlited inspect` or a new
    /// node.
    Export {
        /// The node's data directory.
        data: PathBuf,
        /// Name of the copy.
        name: String,
    },
    /// Deletes a copy. This cannot be undone.
    Drop {
        /// The node's data directory.
        data: PathBuf,
        /// Name of the copy.
        name: String,
    },
}

/// Runs the subcommand; `arguments` are those after the word `parked`. `None`: everything has been written.
pub fn run(arguments: impl Iterator<Item = OsString>) -> Option<CommandOutput> {
    let words = std::iter::once(OsString::from("rqlited parked")).chain(arguments);
    let args = match Args::try_parse_from(words) {
        Ok(args) => args,
        Err(error) => return Some(CommandOutput::of_clap(&error)),
    };
    let done = match args.verb {
        Verb::List { json, data } => Ok(Some(shown(&data, json))),
        Verb::Export { data, name } => known(&data, &name).and_then(|()| {
            let dir = data.join(PARKED_DIR).join(&name);
            let mut out = io::BufWriter::new(io::stdout().lock());
            let written = archive::write(&mut out, &dir, &name);
            written.map(|()| None).map_err(|e| format!("{name}: {e}"))
        }),
        Verb::Drop { data, name } => known(&data, &name).and_then(|()| {
            let deleted = delete(&data, &name);
            deleted
                .map(|()| Some(format!("{name} is deleted")))
                .map_err(|e| format!("{name}: {e}"))
        }),
    };
    match done {
        Ok(text) => text.map(|text| CommandOutput {
            exit_code: 0,
            text,
            is_error: false,
        }),
        Err(text) => Some(CommandOutput {
            exit_code: 1,
            text,
            is_error: true,
        }),
    }
}

/// Only what is listed can be named: nothing outside of the directory.
fn known(data: &std::path::Path, name: &str) -> Result<(), String> {
    let copies = list(data);
    if copies.iter().any(|copy| copy.name == name) {
        return Ok(());
    }
    Err(format!(
        "{} has no parked copy {name}: see rqlited parked list",
        data.display()
    ))
}

fn shown(data: &std::path::Path, json: bool) -> String {
    let parked = status(data, ParkedPolicy::default()).unwrap_or_default();
    if json {
        // This type always serializes.
        return serde_json::to_string(&parked).unwrap_or_default();
    }
    if parked.copies.is_empty() {
        return "no parked copies".to_owned();
    }
    let mut lines = vec!["NAME  BYTES  PARKED  NOTE".to_owned()];
    for copy in &parked.copies {
        let note = if copy.may_hold_lost_writes {
            "may hold writes that a recovery has lost; kept until you drop it"
        } else {
            ""
        };
        let line = format!("{}  {}  {}  {note}", copy.name, copy.bytes, copy.parked_at);
        lines.push(line.trim_end().to_owned());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn listed_and_dropped_and_never_parked_again_under_the_same_name() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path();
        let copy = data.join("parked/copy-7");
        fs::create_dir_all(copy.join("raft")).unwrap();
        fs::write(copy.join("db.sqlite"), "0123456789").unwrap();
        fs::write(copy.join(".parked"), "").unwrap();
        let run_words = |words: &[&str]| {
            let words = words.iter().map(|w| OsString::from(*w));
            run(words.chain([])).unwrap()
        };
        let path = data.to_str().unwrap();
        let listed = run_words(&["list", path]).text;
        assert!(listed.contains("copy-7  10  "), "{listed}");
        for wrong in ["../x", "copy-8", ""] {
            assert_eq!(run_words(&["drop", path, wrong]).exit_code, 1, "{wrong}");
        }
        assert_eq!(run_words(&["drop", path, "copy-7"]).exit_code, 0);
        assert!(!copy.join("db.sqlite").exists());
        assert!(crate::data_dir::is_parked(data, "copy-7"));
        assert_eq!(run_words(&["list", path]).text, "no parked copies");
        assert_eq!(run_words(&["list"]).exit_code, 2);
    }
}
