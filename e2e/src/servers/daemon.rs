//! A server's process: its directory, its log, its signals. It is killed when the value is dropped.
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

/// How long a server may take to become ready or to exit: generous, for two busy cores.
pub const LIMIT: Duration = Duration::from_secs(30);
/// Lines of the log that a failing test shows.
const LOG_TAIL: usize = 30;

/// One server process with its own directory.
#[derive(Debug)]
pub struct Daemon {
    program: PathBuf,
    args: Vec<String>,
    root: TempDir,
    child: Option<Child>,
}

impl Daemon {
    /// A server that has not been started yet.
    ///
    /// # Errors
    /// If no directory is available.
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

    /// Its directory; deleted when the value is dropped.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.root.path()
    }

    /// Starts the process with these arguments and waits until `ready` returns `Ok`.
    ///
    /// # Errors
    /// If it cannot be started, exits, or is not ready within [`LIMIT`]; shows the end of its log.
    pub fn start(
        &mut self,
        args: Vec<String>,
        ready: impl FnMut() -> Result<(), String>,
    ) -> Result<()> {
        self.args = args;
        self.start_again(ready)
    }

    /// Starts a killed process again with the same arguments and directory.
    ///
    /// # Errors
    /// See [`Daemon::start`].
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
        let mut command_line = die_with_parent().iter().map(OsStr::new).chain([program]);
        let child = Command::new(command_line.next().unwrap_or(program))
            .args(command_line)
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

    /// Kills the process (SIGKILL) and reaps it. Does nothing if it is not running.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }

    /// Freezes the process (SIGSTOP): the kernel still accepts connections, but nothing answers.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Continues a frozen process (SIGCONT).
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
        // Cargo shows a test's output only if it failed.
        println!("--- log of {} ---\n{}", self.name(), self.log_tail());
        self.kill();
    }
}
