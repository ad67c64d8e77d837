//! `rqlited inspect DATA`: shows the content of a data directory while no node runs on it. Changes nothing,
//! reports damage as facts, and reports `empty` for an empty directory.
mod facts;
mod table;

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use clap::Parser;

use crate::identity::Skipped;

pub use facts::{DirectoryState, Facts, Member, Members};

/// The exit code for a directory that is damaged, in use, or cannot be read.
const UNHEALTHY: u8 = 1;
/// The exit code for a wrong command line.
const USAGE: u8 = 2;

#[derive(Debug, Parser)]
#[command(
    name = "rqlited inspect",
    about = "Shows what a data directory holds: identity, log, database, membership. No node may be running on it.",
    after_help = "Exit codes: 0 healthy or empty; 1 damaged, in use, or unreadable; 2 wrong command line. Nothing in the directory is changed: the log is looked at in a copy in the temporary directory (TMPDIR).",
    disable_help_subcommand = true
)]
struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Skip reading the whole database file.
    #[arg(long)]
    quick: bool,
    /// Show this entry of the log instead: term, checksum, beginning of its SQL, and the command that skips
    /// it.
    #[arg(long, value_name = "INDEX")]
    entry: Option<u64>,
    /// The node's data directory.
    data: PathBuf,
}

/// The output of a subcommand: an exit code, and text for standard output or, in case of an error, for
/// standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandOutput {
    /// 0 means success.
    pub exit_code: u8,
    /// Without a trailing newline.
    pub text: String,
    /// The text belongs on standard error.
    pub is_error: bool,
}

impl CommandOutput {
    /// A wrong command line, or a request for help.
    pub(crate) fn of_clap(error: &clap::Error) -> Self {
        Self {
            exit_code: if error.use_stderr() { USAGE } else { 0 },
            text: error.to_string().trim_end().to_owned(),
            is_error: error.use_stderr(),
        }
    }
}

/// Parses the command line of a subcommand whose options may begin with one dash, as the node's own flags do.
pub(crate) fn parsed<T: Parser>(
    name: &str,
    arguments: impl Iterator<Item = OsString>,
) -> Result<T, CommandOutput> {
    let words = std::iter::once(OsString::from(name)).chain(arguments.map(two_dashes));
    T::try_parse_from(words).map_err(|error| CommandOutput::of_clap(&error))
}

/// `-config` as `--config`.
fn two_dashes(word: OsString) -> OsString {
    match word.as_encoded_bytes() {
        [b'-', letter, _, ..] if letter.is_ascii_alphabetic() => {
            let mut longer = OsString::from("-");
            longer.push(&word);
            longer
        }
        _ => word,
    }
}

/// Runs the subcommand; `arguments` are those after the word `inspect`.
pub fn run(arguments: impl Iterator<Item = OsString>) -> CommandOutput {
    let words = std::iter::once(OsString::from("rqlited inspect")).chain(arguments);
    let args = match Args::try_parse_from(words) {
        Ok(args) => args,
        Err(error) => return CommandOutput::of_clap(&error),
    };
    if let Some(index) = args.entry {
        let shown = show_entry(&args.data, index);
        return CommandOutput {
            exit_code: if shown.is_ok() { 0 } else { UNHEALTHY },
            is_error: shown.is_err(),
            text: shown.unwrap_or_else(|e| e),
        };
    }
    match inspect(&args.data, !args.quick) {
        Ok(facts) => CommandOutput {
            exit_code: if facts.is_healthy() { 0 } else { UNHEALTHY },
            text: if args.json {
                facts.json()
            } else {
                table::show(&facts)
            },
            is_error: false,
        },
        Err(error) => CommandOutput {
            exit_code: UNHEALTHY,
            text: error.to_string(),
            is_error: true,
        },
    }
}

/// Why a directory cannot be inspected.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// A node is running, so the files are changing.
    #[error("the data directory {} is in use by a running rqlited; stop it, or ask it for /status instead", .0.display())]
    InUse(PathBuf),
    /// A file system operation failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
}

/// Inspects a data directory under its lock. `whole`: SQLite also checks the whole main file.
///
/// # Errors
/// See [`InspectError`]. Damage inside the directory is a fact, not an error.
pub fn inspect(data_dir: &Path, whole: bool) -> Result<Facts, InspectError> {
    let _lock = lock_if_there(data_dir)?;
    Ok(facts::read(data_dir, whole))
}

/// Shows one log entry to a person who wants to skip it.
fn show_entry(data_dir: &Path, index: u64) -> Result<String, String> {
    let _lock = lock_if_there(data_dir).map_err(|e| e.to_string())?;
    let found = facts::entry(&data_dir.join("raft").join("log"), index)
        .map_err(|e| e.to_string())?
        .ok_or_else(|| {
            format!(
                "the log in {} does not hold entry {index}",
                data_dir.display()
            )
        })?;
    let mut lines = vec![
        format!("index     {index}"),
        format!("term      {}", found.term),
        format!("checksum  {}", found.checksum),
        format!("content   {}", found.what),
    ];
    if found.can_be_skipped {
        let entry = Skipped {
            index,
            term: found.term,
            checksum: found.checksum,
        };
        lines.push(format!(
            "To skip it on every node, all of them stopped: {}",
            entry.command(&data_dir.display().to_string())
        ));
    }
    Ok(lines.join("\n"))
}

/// Inspects a data directory whose lock the caller holds, without checking the whole main file.
pub(crate) fn read_locked(data_dir: &Path) -> Facts {
    facts::read(data_dir, false)
}

/// Takes the lock that a running node holds. A directory without a lock file never had a node.
fn lock_if_there(data_dir: &Path) -> Result<Option<fs::File>, InspectError> {
    let path = data_dir.join("lock");
    let file = match fs::File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(InspectError::Io { path, source }),
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Err(InspectError::InUse(data_dir.to_owned())),
        Err(fs::TryLockError::Error(source)) => Err(InspectError::Io { path, source }),
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
        let help = run_words(&["-h"]);
        assert_eq!((help.exit_code, help.is_error), (0, false));
        assert!(
            help.text.contains("rqlited inspect") && help.text.contains("--json"),
            "{}",
            help.text
        );
        assert_eq!(run_words(&[]).exit_code, USAGE);
        assert_eq!(run_words(&["--nonsense", "x"]).exit_code, USAGE);
    }

    #[test]
    fn nothing_is_not_damage_and_nothing_is_created() {
        let dir = tempfile::tempdir().unwrap();
        for data in [dir.path().to_owned(), dir.path().join("missing")] {
            let answer = run_words(&["--json", &data.display().to_string()]);
            assert_eq!(answer.exit_code, 0, "{}", answer.text);
            assert!(
                answer.text.contains(r#""state": "empty""#),
                "{}",
                answer.text
            );
        }
        assert!(
            fs::read_dir(dir.path()).unwrap().next().is_none(),
            "created files"
        );
    }

    #[test]
    fn a_directory_in_use_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let lock = fs::File::create(dir.path().join("lock")).unwrap();
        lock.lock().unwrap();
        let error = inspect(dir.path(), true).unwrap_err();
        assert!(matches!(error, InspectError::InUse(_)), "{error}");
        drop(lock);
        assert!(inspect(dir.path(), true).is_ok());
    }
}
