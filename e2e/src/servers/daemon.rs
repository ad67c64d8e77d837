//! A server's process: its directory, its log, its signals. Nothing outlives the value.
use std::{
    ffi::OsStr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use crate::{
    child::{Log, die_with_parent},
    wait,
};

/// How long a server may take to answer after its start, or to end: generous, for two busy cores.
pub const LIMIT: Duration = Duration::from_secs(30);
/// Lines of the log that a failing test shows.
const LOG_TAIL: usize = 30;

/// One server process with a directory of its own.
#[derive(Debug)]
pub struct Daemon {
    program: PathBuf,
    args: Vec<String>,
    root: TempDir,
    child: Option<Child>,
}

impl Daemon {
    /// A server that is not started yet.
    ///
    /// # Errors
    /// When no directory can be had.
    pub fn new(program: PathBuf) -> Result<Self> {
        let root = tempfile::Builder::new()
            .prefix("rq-server-")
            .tempdir()
            .context("create a server's directory")?;
        Ok(Self {
            program,
            args: Vec::new(),
            root,
            child: None,
        })
    }

    /// Its directory; deleted with the value.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.root.path()
    }

    /// Starts the process with these arguments and waits until `ready` is content.
    ///
    /// # Errors
    /// When it cannot be started, ends, or is not ready within [`LIMIT`]; with the end of its log.
    pub fn start(
        &mut self,
        args: Vec<String>,
        ready: impl FnMut() -> Result<(), String>,
    ) -> Result<()> {
        self.args = args;
        self.start_again(ready)
    }

    /// Starts a process that was killed once more, with the same arguments and directory.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn start_again(&mut self, mut ready: impl FnMut() -> Result<(), String>) -> Result<()> {
        if self.child.is_some() {
            bail!("{} runs already", self.name());
        }
        self.spawn()?;
        let what = format!("{} to be ready", self.name());
        let mut ended = None;
        let done = wait::until(&what, LIMIT, || {
            ended = self
                .child
                .as_mut()
                .and_then(|child| child.try_wait().ok().flatten());
            if ended.is_some() { Ok(()) } else { ready() }
        });
        if let Some(status) = ended {
            bail!(
                "{} ended with {status}; its log:\n{}",
                self.name(),
                self.log_tail()
            );
        }
        done.with_context(|| format!("log of {}:\n{}", self.name(), self.log_tail()))
    }

    fn spawn(&mut self) -> Result<()> {
        let log = self.printed().open()?;
        let program = self.program.as_os_str();
        let mut words = die_with_parent().iter().map(OsStr::new).chain([program]);
        let child = Command::new(words.next().unwrap_or(program))
            .args(words)
            .args(&self.args)
            .current_dir(self.root.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share the log file")?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {}", self.program.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Ends the process at once (SIGKILL) and reaps it. Does nothing if it does not run.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }

    /// Freezes the process (SIGSTOP): connections are taken by the kernel and nothing answers.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a frozen process go on (SIGCONT).
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Everything it has printed, over all its starts.
    #[must_use]
    pub fn log(&self) -> String {
        self.printed().text()
    }

    /// The last lines of [`Daemon::log`].
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.printed().tail(LOG_TAIL)
    }

    fn printed(&self) -> Log {
        Log::in_dir(self.root.path())
    }

    fn name(&self) -> String {
        self.program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    fn signal(&self, signal: Signal) {
        let pid = self
            .child
            .as_ref()
            .and_then(|child| i32::try_from(child.id()).ok())
            .and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process_group(pid, signal);
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Test output is shown only for a test that failed.
        println!("--- log of {} ---\n{}", self.name(), self.log_tail());
        self.kill();
    }
}
