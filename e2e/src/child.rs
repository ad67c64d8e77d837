//! What every child process of a test has: a log file, and an end together with its test.
use std::{
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context, Result};

/// What a process has printed, over all its starts.
#[derive(Debug)]
pub(crate) struct Log(PathBuf);

impl Log {
    /// The log file of a process with this directory.
    pub(crate) fn in_dir(dir: &Path) -> Self {
        Self(dir.join("log"))
    }

    /// The file, for a process to print to.
    pub(crate) fn open(&self) -> Result<File> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.0)
            .context("open the log file")
    }

    /// All of it; empty before the first start.
    pub(crate) fn text(&self) -> String {
        fs::read(&self.0)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The last `count` lines.
    pub(crate) fn tail(&self, count: usize) -> String {
        let text = self.text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }
}

/// Words in front of a command line that kill the process when the thread that started it ends, where the system has
/// them: a test run that is itself killed drops nothing.
pub(crate) fn die_with_parent() -> &'static [&'static str] {
    const WORDS: [&str; 3] = ["setpriv", "--pdeathsig", "KILL"];
    static KNOWN: OnceLock<bool> = OnceLock::new();
    let known = KNOWN.get_or_init(|| {
        let mut probe = Command::new(WORDS[0]);
        probe
            .args(&WORDS[1..])
            .arg("true")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    });
    if *known { &WORDS } else { &[] }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_end_of_a_log() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::in_dir(dir.path());
        assert_eq!((log.text(), log.tail(2)), (String::new(), String::new()));
        for line in ["one", "two", "three"] {
            writeln!(log.open().unwrap(), "{line}").unwrap();
        }
        assert_eq!(log.text(), "one\ntwo\nthree\n");
        assert_eq!(log.tail(2), "two\nthree");
        assert_eq!(log.tail(9), "one\ntwo\nthree");
    }
}
