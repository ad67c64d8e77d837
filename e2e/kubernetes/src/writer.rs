//! A test's side of the [numbered writer](crate::numbered): starts it in a pod, asks it, and judges what it says.
use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{
    command::until,
    namespace::{LIMIT, Namespace},
    numbered::{check::Check, report::Report},
};

const POD: &str = "numbered-writer";
/// Where it keeps its files.
const FOLDER: &str = "/work";
/// Acknowledged writes that show that the database takes writes again.
const PROGRESS: u64 = 20;

/// A writer at work.
#[derive(Debug)]
pub struct Writer<'a> {
    namespace: &'a Namespace,
    url: String,
}

impl<'a> Writer<'a> {
    /// Starts to write through the Service at `url` (`http://[user:password@]host:port`), from any node; returns once writes are acknowledged.
    ///
    /// # Errors
    /// When no write is acknowledged within two minutes.
    pub fn start(namespace: &'a Namespace, url: &str) -> Result<Self> {
        Self::start_on(namespace, url, None)
    }

    /// The same from a given node, which a test then leaves alone.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_on(namespace: &'a Namespace, url: &str, node: Option<&str>) -> Result<Self> {
        namespace.apply(&pod(url, node))?;
        let writer = Self {
            namespace,
            url: url.to_owned(),
        };
        writer.await_progress(LIMIT)?;
        Ok(writer)
    }

    /// The database is at another address from here on: what was acknowledged is looked for there. The writer itself does not follow.
    #[must_use]
    pub fn at(self, url: &str) -> Self {
        Self {
            url: url.to_owned(),
            ..self
        }
    }

    /// What was acknowledged since `start`, or from the first acknowledgement on.
    ///
    /// # Errors
    /// When the pod does not answer.
    pub fn report(&self, start: Option<Instant>) -> Result<Report> {
        let last = start.map(|start| start.elapsed().as_millis().to_string());
        let mut words = vec!["report"];
        words.extend(last.as_deref());
        self.parsed(&words)
    }

    /// Waits until writes are acknowledged that began after the call.
    ///
    /// # Errors
    /// When none are within `limit`; with why they failed.
    pub fn await_progress(&self, limit: Duration) -> Result<()> {
        let start = Instant::now();
        until("acknowledged writes", limit, || {
            let seen = self.report(Some(start))?;
            ensure!(seen.acknowledged >= PROGRESS, "{seen:?}");
            Ok(())
        })
        .map_err(|error| error.context(self.namespace.pods()))
    }

    /// Does `work` while it writes, waits until writes are acknowledged again, and gives what was seen from the beginning of `work` on.
    ///
    /// # Errors
    /// That of `work`, or when writes do not go on.
    pub fn during(&self, work: impl FnOnce() -> Result<()>) -> Result<Report> {
        let start = Instant::now();
        work()?;
        self.await_progress(LIMIT)?;
        self.report(Some(start))
    }

    /// Stops it and compares what it knows with the database: no acknowledged row may be missing, and all of `nodes` (URLs of the nodes' own
    /// HTTP APIs) must come to have the same database.
    ///
    /// # Errors
    /// When a row is lost, nodes differ, or one cannot be asked.
    pub fn assert_nothing_lost(self, nodes: &[String]) -> Result<Outcome> {
        let outcome = self.end(nodes)?;
        let check = &outcome.check;
        ensure!(
            check.lost == 0,
            "{} acknowledged rows are lost: {check:?}",
            check.lost
        );
        Ok(outcome)
    }

    /// The same where acknowledged rows may be lost: says how many are.
    ///
    /// # Errors
    /// When nodes differ, or one cannot be asked.
    pub fn end(self, nodes: &[String]) -> Result<Outcome> {
        self.in_pod(&["stop"])?;
        let report = self.report(None)?;
        let mut words = vec!["check", &self.url];
        words.extend(nodes.iter().map(String::as_str));
        let check: Check = self.parsed(&words)?;
        ensure!(check.acknowledged > 0, "nothing was acknowledged");
        let delete = ["delete", "pod", POD, "--wait=true", "--timeout=60s"];
        self.namespace.ask(&delete)?;
        Ok(Outcome { report, check })
    }

    fn parsed<T: serde::de::DeserializeOwned>(&self, words: &[&str]) -> Result<T> {
        let said = self.in_pod(words)?;
        serde_json::from_str(&said).with_context(|| format!("the writer said {said:?}"))
    }

    fn in_pod(&self, words: &[&str]) -> Result<String> {
        let program = ["/bin/numbered-writer", FOLDER];
        self.namespace.in_pod(POD, &[&program, words].concat())
    }
}

/// What a writer has seen in its life, and what was found at its end.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// From the first acknowledgement until it was stopped.
    pub report: Report,
    /// Nothing lost, nodes equal.
    pub check: Check,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { report, check } = self;
        write!(
            f,
            "{} rows acknowledged in {:.1} s, {} lost; {} nodes equal after {:.1} s",
            check.acknowledged,
            report.span_ms as f64 / 1000.0,
            check.lost,
            check.nodes.len(),
            check.equal_after_ms as f64 / 1000.0
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p90, p99, p999] = self.percentiles_ms;
        write!(
            f,
            "no write for {} ms, {} ms after the start (next: {:?}; p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p999} ms; {} acknowledged in {:.1} s)",
            self.longest_gap_ms,
            self.longest_gap_at_ms,
            self.longest_ms.get(1..).unwrap_or_default(),
            self.acknowledged,
            self.span_ms as f64 / 1000.0
        )
    }
}

/// Fits the restricted Pod Security standard; ends at once when deleted.
fn pod(url: &str, node: Option<&str>) -> String {
    let node = node.map_or_else(String::new, |node| format!("  nodeName: {node}\n"));
    format!(
        "apiVersion: v1
kind: Pod
metadata:
  name: {POD}
  labels: {{app: {POD}}}
spec:
{node}  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  automountServiceAccountToken: false
  enableServiceLinks: false
  # A drain and a cut node are not to end what watches them.
  tolerations: [{{operator: Exists}}]
  securityContext:
    runAsNonRoot: true
    runAsUser: 1000
    fsGroup: 1000
    seccompProfile: {{type: RuntimeDefault}}
  containers:
  - name: writer
    image: localhost/rqlite-e2e:dev
    imagePullPolicy: IfNotPresent
    args: [{FOLDER}, write, \"{url}\"]
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {{drop: [ALL]}}
    volumeMounts:
    - {{name: work, mountPath: {FOLDER}}}
  volumes:
  - name: work
    emptyDir: {{}}
"
    )
}
