//! Runs the operator as a process and measures its resource usage.
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{api_server::free_ports, http};

/// How long it may take to exit after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// Clock ticks per second in `/proc`: fixed on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// A running operator.
#[derive(Debug)]
pub struct Operator {
    child: Child,
    health: u16,
    log: PathBuf,
}

/// Its resource usage so far.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Resident memory in MB (10^6 bytes).
    pub resident_mb: f64,
    /// Peak resident memory in MB.
    pub peak_mb: f64,
    /// Processor time since its start.
    pub cpu_seconds: f64,
}

impl Operator {
    /// Starts it with a ServiceAccount's permissions, in the namespace of its Lease; its output is appended
    /// to `log`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(program: &Path, kubeconfig: &Path, namespace: &str, log: &Path) -> Result<Self> {
        Self::start_with(program, kubeconfig, namespace, log, &[])
    }

    /// Starts it with additional flags.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_with(
        program: &Path,
        kubeconfig: &Path,
        namespace: &str,
        log: &Path,
        flags: &[&str],
    ) -> Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .context("open its log")?;
        let [health] = free_ports()?;
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .arg("run");
        command.args([
            "--namespace",
            namespace,
            "--metrics-address=127.0.0.1:0",
            &format!("--health-address=127.0.0.1:{health}"),
        ]);
        command.args(flags);
        command.env("KUBECONFIG", kubeconfig).stdin(Stdio::null());
        command.stdout(file.try_clone()?).stderr(file);
        let child = command
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        Ok(Self {
            child,
            health,
            log: log.to_owned(),
        })
    }

    /// HTTP status of one of its probes, such as `/livez`.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn probe(&self, path: &str) -> Result<u16> {
        http::get(self.health, path)
    }

    /// Its exit status; `None` while it is running.
    ///
    /// # Errors
    /// If the status cannot be determined.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Its resource usage.
    ///
    /// # Errors
    /// If it has exited; shows the end of its log.
    pub fn cost(&mut self) -> Result<Cost> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the operator ended: {status}\n{}", self.tail());
        }
        let process = PathBuf::from(format!("/proc/{}", self.child.id()));
        let status = fs::read_to_string(process.join("status")).context("its status")?;
        let kilobytes = |field: &str| -> Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            let number = line.and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
            number.with_context(|| format!("{field} of the operator"))
        };
        let stat = fs::read_to_string(process.join("stat")).context("its stat")?;
        // The name, in brackets, may contain any characters. After it, the 12th and 13th fields are user and
        // kernel time.
        let (_, fields) = stat.rsplit_once(')').context("its stat")?;
        let ticks: f64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|t| t.parse::<f64>().ok())
            .sum();
        Ok(Cost {
            resident_mb: kilobytes("VmRSS")? * 1024.0 / 1e6,
            peak_mb: kilobytes("VmHWM")? * 1024.0 / 1e6,
            cpu_seconds: ticks / TICKS_PER_SECOND,
        })
    }

    /// Stops it with SIGTERM, as Kubernetes does, and waits until it has released its Lease and exited.
    ///
    /// # Errors
    /// If it does not exit, or exits with an error.
    pub fn stop(mut self) -> Result<()> {
        self.terminate()
    }

    /// Stops it likewise; a later one may take its place.
    ///
    /// # Errors
    /// If it does not exit, or exits with an error.
    pub fn terminate(&mut self) -> Result<()> {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).context("SIGTERM")?;
        let start = std::time::Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(
                    status.success(),
                    "the operator ended with {status}\n{}",
                    self.tail()
                );
                return Ok(());
            }
            ensure!(
                start.elapsed() < STOP_LIMIT,
                "the operator does not end\n{}",
                self.tail()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads the API server's audit log: the requests of one user.
#[derive(Debug)]
pub struct Audit {
    reader: BufReader<File>,
    user: String,
}

/// Number of requests by verb and resource.
pub type Requests = BTreeMap<String, usize>;

impl Audit {
    /// Follows this ServiceAccount's requests from now on.
    ///
    /// # Errors
    /// If there is no audit log.
    pub fn of(log: &Path, namespace: &str, account: &str) -> Result<Self> {
        let mut file = File::open(log).context("the audit log")?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self {
            reader: BufReader::new(file),
            user: format!("system:serviceaccount:{namespace}:{account}"),
        })
    }

    /// Requests since the last call, and those of them that were forbidden.
    ///
    /// # Errors
    /// If the audit log cannot be read.
    pub fn since(&mut self) -> Result<(Requests, Vec<String>)> {
        let (mut asked, mut forbidden) = (Requests::new(), Vec::new());
        self.each(|what, response| {
            if response["code"] == 403 {
                forbidden.push(format!("{what}: {}", response["message"]));
            }
            *asked.entry(what).or_default() += 1;
        })?;
        Ok((asked, forbidden))
    }

    /// Response codes since the last call, with their counts.
    ///
    /// # Errors
    /// If the audit log cannot be read.
    pub fn codes(&mut self) -> Result<BTreeMap<u64, usize>> {
        let mut codes = BTreeMap::new();
        self.each(|_, response| {
            let code = response["code"].as_u64().unwrap_or(0);
            *codes.entry(code).or_default() += 1;
        })?;
        Ok(codes)
    }

    fn each(&mut self, mut look: impl FnMut(String, &Value)) -> Result<()> {
        let mut line = String::new();
        while self.reader.read_line(&mut line)? > 0 {
            // An incomplete line is left for the next call.
            if !line.ends_with('\n') {
                let behind = i64::try_from(line.len())?;
                self.reader.seek_relative(-behind)?;
                break;
            }
            let entry: Value = serde_json::from_str(&line).context("a line of the audit log")?;
            line.clear();
            // A watch has a second entry when it ends.
            let is_second = entry["verb"] == "watch" && entry["stage"] != "ResponseStarted";
            if entry["user"]["username"] != self.user.as_str() || is_second {
                continue;
            }
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let object = &entry["objectRef"];
            let parts = [text(&object["resource"]), text(&object["subresource"])];
            let resource = parts.join("/");
            let what = format!(
                "{} {}",
                text(&entry["verb"]),
                resource.trim_end_matches('/')
            );
            look(what, &entry["responseStatus"]);
        }
        Ok(())
    }
}
