//! What all child processes of a test share: a log file, and being killed together with the test.
use std::{
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context, Result};

/// Output of a process, over all its starts.
#[derive(Debug)]
pub(crate) struct Log(PathBuf);

impl Log {
    /// The log file in the process's directory `dir`.
    pub(crate) fn in_dir(dir: &Path) -> Self {
        Self(dir.join("log"))
    }

    /// Opens the file for a process to write to.
    pub(crate) fn open(&self) -> Result<File> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.0)
            .context("open the log file")
    }

    /// The whole log; empty before the first start.
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

/// Command prefix that kills the process when the thread that started it ends, where `setpriv` is available.
/// It covers a test run that is itself killed, in which case no destructor runs.
pub(crate) fn die_with_parent() -> &'static [&'static str] {
    const PREFIX: [&str; 3] = ["setpriv", "--pdeathsig", "KILL"];
    static KNOWN: OnceLock<bool> = OnceLock::new();
    let known = KNOWN.get_or_init(|| {
        let mut probe = Command::new(PREFIX[0]);
        probe
            .args(&PREFIX[1..])
            .arg("true")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    });
    if *known { &PREFIX } else { &[] }
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
