//! `rqlited archive list|show|verify|restore|drill`: inspects an archive and restores from it, without a
//! node.
mod drill;
mod list;
mod place;
mod restore;
mod show;
mod verify;

use std::ffi::OsString;

use clap::{Parser, Subcommand};

use self::{
    drill::DrillArgs,
    list::ListArgs,
    place::{Done, Verdict},
    restore::RestoreArgs,
    show::ShowArgs,
    verify::VerifyArgs,
};
use crate::inspect::{CommandOutput, parsed};

const FAILED: u8 = 1;
const MISUSED: u8 = 2;
const UNKNOWN: u8 = 3;

#[derive(Debug, Parser)]
#[command(
    name = "rqlited archive",
    about = "Looks at an archive of a cluster's past, and restores any point of it. No node is needed.",
    after_help = "Options may begin with one dash or two. Exit codes: 0 done; 1 refused, or something is wrong with the archive; 2 wrong command line; 3 verify: something else than the archive failed, so it is not known.",
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Lists timelines, bases, and the range of indexes and times that can be restored.
    List(ListArgs),
    /// Shows entries: index, time and SQL text; with --effects also what they did.
    Show(ShowArgs),
    /// Checks every object; with --full also replays everything and compares content.
    Verify(VerifyArgs),
    /// Makes a database file of a point of the past.
    Restore(RestoreArgs),
    /// Restores the newest point, checks it, and throws it away: does the archive work?
    Drill(DrillArgs),
}

impl What {
    /// What is wrong with the command line, beyond what clap checks.
    fn misuse(&self) -> Option<String> {
        match self {
            Self::List(args) => args.place.misuse(),
            Self::Show(args) => args.misuse(),
            Self::Verify(args) => args.place.misuse(),
            Self::Restore(args) => args.misuse(),
            Self::Drill(args) => args.place.misuse(),
        }
    }
}

/// Runs the subcommand; `arguments` are those after the word `archive`.
pub fn run(arguments: impl Iterator<Item = OsString>) -> CommandOutput {
    let arguments: Arguments = match parsed("rqlited archive", arguments) {
        Ok(arguments) => arguments,
        Err(output) => return output,
    };
    if let Some(text) = arguments.what.misuse() {
        return CommandOutput {
            exit_code: MISUSED,
            text,
            is_error: true,
        };
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(async {
            match arguments.what {
                What::List(args) => list::run(&args).await,
                What::Show(args) => show::run(&args).await,
                What::Verify(args) => verify::run(&args).await,
                What::Restore(args) => restore::run(&args).await,
                What::Drill(args) => drill::run(&args).await,
            }
        }),
        Err(error) => Err(format!("starting the runtime: {error}")),
    };
    let is_error = done.is_err();
    let (exit_code, text) = match done {
        Ok(Done { verdict, text }) => match verdict {
            Verdict::Sound => (0, text),
            Verdict::Unsound => (FAILED, text),
            Verdict::Unknown => (UNKNOWN, text),
        },
        Err(text) => (FAILED, text),
    };
    CommandOutput {
        exit_code,
        text,
        is_error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_words(words: &[&str]) -> CommandOutput {
        run(words.iter().map(OsString::from))
    }

    #[test]
    fn the_command_line() {
        for words in [&["-help"][..], &["restore", "--help"], &["show", "-h"]] {
            let help = run_words(words);
            assert_eq!((help.exit_code, help.is_error), (0, false), "{}", help.text);
        }
        for words in [
            &[][..],
            &["nonsense"],
            &[
                "restore",
                "-config",
                "x",
                "-output",
                "y",
                "-to-index",
                "many",
            ],
            &[
                "restore",
                "-config",
                "x",
                "-output",
                "y",
                "-to-index",
                "1",
                "-to-time",
                "2026-01-01T00:00:00Z",
            ],
            &[
                "restore",
                "-config",
                "x",
                "-output",
                "y",
                "-to-time",
                "yesterday",
            ],
            &["list", "-wrong"],
            &["list"],
            &["restore", "-config", "x"],
            &["show", "-config", "x", "-limit", "0"],
            &["show", "-config", "x", "-from-index", "5", "-to-index", "4"],
        ] {
            assert_eq!(run_words(words).exit_code, 2, "{words:?}");
        }
    }

    #[test]
    fn a_wrong_configuration_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.json");
        std::fs::write(&file, r#"{"type":"tape","sub":{}}"#).unwrap();
        let file = file.display().to_string();
        for (words, says) in [
            (
                vec!["list", "-config", "/nowhere/x.json"],
                "/nowhere/x.json",
            ),
            (
                vec!["verify", "-config", &file],
                "unsupported storage type 'tape'",
            ),
        ] {
            let got = run_words(&words);
            assert!(
                got.exit_code == 1 && got.is_error && got.text.contains(says),
                "{}",
                got.text
            );
        }
    }
}
