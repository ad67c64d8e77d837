//! One `rqlited` process on loopback: its flags, its directory, its signals. It is killed when the value is
//! dropped.
use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use rustls::ClientConfig;
use tempfile::TempDir;

use crate::{
    binary,
    child::{Log, die_with_parent},
    client::Client,
    ports, wait,
};

/// How long a process may take to exit after a signal, or to open its HTTP port after its start: generous,
/// because a debug build on two busy cores replays its log slowly.
pub const PROCESS_LIMIT: Duration = Duration::from_secs(20);
/// Lines of a node's log that a failing test shows.
const LOG_TAIL: usize = 200;
/// Election settings for tests: short enough that losing a leader costs little, long enough for two busy
/// cores.
pub const FAST_ELECTION: [&str; 2] = [
    "-raft-heartbeat-timeout=500ms",
    "-raft-election-timeout=500ms",
];

/// A node that can be started, stopped, killed, paused, reconfigured and wiped.
#[derive(Debug)]
pub struct Node {
    /// Passed as `-node-id`, unless empty.
    pub name: String,
    /// `host:port` of `-http-addr`.
    pub http: String,
    /// `host:port` of `-raft-addr`.
    pub raft: String,
    /// `-raft-adv-addr`, if other nodes are to connect to another address than `raft` (a proxy).
    pub raft_adv: Option<String>,
    /// Additional flags; the last of equal flags takes effect.
    pub args: Vec<String>,
    /// Prefix of the command line, such as `ip netns exec <name>`.
    pub prefix: Vec<String>,
    /// The program, if it is not the `rqlited` under test.
    pub program: Option<PathBuf>,
    /// The data directory.
    pub data: PathBuf,
    /// How its clients speak HTTPS, and for which name its certificate must be; `None`: they speak HTTP.
    pub https: Option<(Arc<ClientConfig>, String)>,
    /// Suppresses the log's end when the value is dropped: for measurements, whose output is read.
    pub quiet: bool,
    root: TempDir,
    child: Option<Child>,
}

impl Node {
    /// A node with free ports, its own temporary directory and [`FAST_ELECTION`]; not started.
    ///
    /// # Errors
    /// If no port or directory is available.
    pub fn new(name: &str) -> Result<Self> {
        Self::new_in(name, &std::env::temp_dir())
    }

    /// Like [`Node::new`] with its directory below `base`: for measurements, where the disk matters.
    ///
    /// # Errors
    /// If no port or directory is available.
    pub fn new_in(name: &str, base: &Path) -> Result<Self> {
        let root = tempfile::Builder::new()
            .prefix("rq-e2e-")
            .tempdir_in(base)
            .context("create a test directory")?;
        Ok(Self {
            name: name.to_owned(),
            http: format!("127.0.0.1:{}", ports::reserve()?),
            raft: format!("127.0.0.1:{}", ports::reserve()?),
            raft_adv: None,
            args: FAST_ELECTION.map(str::to_owned).to_vec(),
            prefix: Vec::new(),
            program: None,
            data: root.path().join("data"),
            https: None,
            quiet: false,
            root,
            child: None,
        })
    }

    /// Adds flags.
    #[must_use]
    pub fn with(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|&arg| arg.to_owned()));
        self
    }

    /// The Raft address at which other nodes reach this one.
    #[must_use]
    pub fn advertised(&self) -> &str {
        self.raft_adv.as_deref().unwrap_or(&self.raft)
    }

    /// Starts the process without waiting for it.
    ///
    /// # Errors
    /// If it is already running or cannot be started.
    pub fn start(&mut self) -> Result<()> {
        if self.is_running() {
            bail!("node {} runs already", self.name);
        }
        let mut command_line: Vec<String> = die_with_parent()
            .iter()
            .map(|&word| word.to_owned())
            .collect();
        command_line.extend(self.prefix.iter().cloned());
        let program = match &self.program {
            Some(program) => program.clone(),
            None => binary::rqlited()?,
        };
        command_line.push(program.display().to_string());
        if !self.name.is_empty() {
            command_line.push(format!("-node-id={}", self.name));
        }
        command_line.push(format!("-http-addr={}", self.http));
        command_line.push(format!("-raft-addr={}", self.raft));
        command_line.extend(
            self.raft_adv
                .iter()
                .map(|adv| format!("-raft-adv-addr={adv}")),
        );
        command_line.extend(self.args.iter().cloned());
        command_line.push(self.data.display().to_string());
        let log = self.printed().open()?;
        let (program, rest) = command_line.split_first().context("empty command line")?;
        let child = Command::new(program)
            .args(rest)
            .current_dir(self.root.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share the log file")?)
            .stderr(log)
            // Its own process group, so that a signal also reaches the processes it has started.
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {program}"))?;
        self.child = Some(child);
        Ok(())
    }

    /// Starts the process and waits until it answers over HTTP.
    ///
    /// # Errors
    /// If it exits or does not answer; shows the end of its log.
    pub fn start_and_answer(&mut self) -> Result<()> {
        self.start()?;
        self.wait_http()
    }

    /// Starts the process and waits until it is ready for requests (has a leader).
    ///
    /// # Errors
    /// If it exits or does not become ready; shows the end of its log.
    pub fn start_and_ready(&mut self) -> Result<()> {
        self.start()?;
        self.wait_ready(PROCESS_LIMIT)
    }

    /// Waits until the node answers over HTTP.
    ///
    /// # Errors
    /// If it exits or does not answer; shows the end of its log.
    pub fn wait_http(&mut self) -> Result<()> {
        self.wait_readyz("/readyz?noleader", PROCESS_LIMIT)
    }

    /// Waits until the node knows a leader and serves requests.
    ///
    /// # Errors
    /// If it exits or does not become ready within `limit`; shows the end of its log.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<()> {
        self.wait_readyz("/readyz", limit)
    }

    fn wait_readyz(&mut self, path: &str, limit: Duration) -> Result<()> {
        let mut client = self.client();
        let what = format!("{path} of node {}", self.name);
        let done = wait::until(&what, limit, || {
            if let Some(status) = self.ended() {
                // The process has exited: stop waiting.
                return Ok(Some(status));
            }
            match client.get(path) {
                Ok(reply) if reply.status == 200 => Ok(None),
                Ok(reply) => Err(format!("{} {}", reply.status, reply.text())),
                Err(error) => Err(error.to_string()),
            }
        });
        match done {
            Ok(None) => Ok(()),
            Ok(Some(status)) => bail!(
                "node {} ended with {status}; its log:\n{}",
                self.name,
                self.log_tail()
            ),
            Err(error) => {
                Err(error.context(format!("log of node {}:\n{}", self.name, self.log_tail())))
            }
        }
    }

    /// A client for this node's HTTP address.
    #[must_use]
    pub fn client(&self) -> Client {
        let client = Client::new(&self.http);
        match &self.https {
            Some((config, name)) => client.over_tls(Arc::clone(config), name),
            None => client,
        }
    }

    /// Stops the process with SIGTERM and waits for its exit.
    ///
    /// # Errors
    /// If it does not exit.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait_exit(PROCESS_LIMIT)
    }

    /// Sends SIGTERM and does not wait.
    ///
    /// # Errors
    /// If the node is not running.
    pub fn send_sigterm(&mut self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Kills the process with SIGKILL, as in a crash. Does nothing if it is not running.
    ///
    /// # Errors
    /// If it does not exit.
    pub fn kill(&mut self) -> Result<()> {
        if self.child.is_some() && self.signal(Signal::KILL).is_ok() {
            self.wait_exit(PROCESS_LIMIT)?;
        }
        self.child = None;
        Ok(())
    }

    /// Freezes the process (SIGSTOP); its connections stay open.
    ///
    /// # Errors
    /// If it is not running.
    pub fn pause(&mut self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Continues a frozen process (SIGCONT).
    ///
    /// # Errors
    /// If it is not running.
    pub fn resume(&mut self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Waits for the process to exit by itself.
    ///
    /// # Errors
    /// If it does not exit within `limit` or is not running; shows the end of its log.
    pub fn wait_exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        if self.child.is_none() {
            bail!("node {} does not run", self.name);
        }
        let ended = wait::until(&format!("the end of node {}", self.name), limit, || {
            self.ended().ok_or_else(|| "still running".to_owned())
        });
        let status =
            ended.with_context(|| format!("log of node {}:\n{}", self.name, self.log_tail()))?;
        self.child = None;
        Ok(status)
    }

    /// Deletes the data directory, as if the disk were lost. The node must be stopped.
    ///
    /// # Errors
    /// If it is running or the files cannot be deleted.
    pub fn wipe(&mut self) -> Result<()> {
        if self.is_running() {
            bail!("node {} runs: stop it before wiping its disk", self.name);
        }
        if self.data.exists() {
            fs::remove_dir_all(&self.data)
                .with_context(|| format!("wipe {}", self.data.display()))?;
        }
        Ok(())
    }

    /// Whether the process has been started and has not exited.
    pub fn is_running(&mut self) -> bool {
        self.child.is_some() && self.ended().is_none()
    }

    /// Process id while it is running.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Everything the node has printed, over all its starts.
    #[must_use]
    pub fn log(&self) -> String {
        self.printed().text()
    }

    /// The last lines of [`Node::log`].
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.printed().tail(LOG_TAIL)
    }

    /// A directory for the test's own files, beside the data directory.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.root.path()
    }

    fn printed(&self) -> Log {
        Log::in_dir(self.root.path())
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child
            .as_mut()
            .and_then(|child| child.try_wait().ok().flatten())
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended().is_some() {
            bail!(
                "node {} has ended; its log:\n{}",
                self.name,
                self.log_tail()
            );
        }
        let pid = self
            .pid()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        let pid = pid.with_context(|| format!("node {} does not run", self.name))?;
        kill_process_group(pid, signal).with_context(|| format!("signal node {}", self.name))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if !self.quiet {
            // Cargo shows a test's output only if it failed.
            println!(
                "--- log of node {} ({}) ---\n{}",
                self.name,
                self.http,
                self.log_tail()
            );
        }
        let _ = self.kill();
        if std::env::var_os("E2E_KEEP").is_some() {
            self.root.disable_cleanup(true);
            println!("kept {}", self.root.path().display());
        }
    }
}

#[cfg(test)]
mod tests;
