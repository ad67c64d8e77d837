//! A test's side of the [numbered writer](crate::numbered): starts it in a pod, reads its reports, and checks
//! its results.
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
/// Name of the connection Secret that it uses if it exists: that of the operator's clusters in tests.
const SECRET: &str = "demo-app";
/// Directory of its files.
const FOLDER: &str = "/work";
/// Number of acknowledged writes that shows that the database accepts writes again.
const PROGRESS: u64 = 20;

/// A running writer.
#[derive(Debug)]
pub struct Writer<'a> {
    namespace: &'a Namespace,
    url: String,
}

impl<'a> Writer<'a> {
    /// Starts to write through the Service at `url` (`http[s]://[user:password@]host:port`), from any node;
    /// returns once writes are acknowledged. A user, the password and the authority that the URL does not
    /// name come from the Secret `demo-app`, if there is one.
    ///
    /// # Errors
    /// If no write is acknowledged within two minutes.
    pub fn start(namespace: &'a Namespace, url: &str) -> Result<Self> {
        Self::start_on(namespace, url, None)
    }

    /// The same from a given node, which the test then leaves alone.
    ///
    /// # Errors
    /// See [`Self::start`].
    pub fn start_on(namespace: &'a Namespace, url: &str, node: Option<&str>) -> Result<Self> {
        namespace.apply(&pod(url, node))?;
        let writer = Self {
            namespace,
            url: url.to_owned(),
        };
        writer.await_progress(LIMIT)?;
        Ok(writer)
    }

    /// Sets another URL of the database, at which acknowledged rows are checked in the end. The running
    /// writer keeps its own URL.
    #[must_use]
    pub fn at(self, url: &str) -> Self {
        Self {
            url: url.to_owned(),
            ..self
        }
    }

    /// What the writer has seen since `start`, or since the first acknowledgement.
    ///
    /// # Errors
    /// If the pod does not answer.
    pub fn report(&self, start: Option<Instant>) -> Result<Report> {
        let last = start.map(|start| start.elapsed().as_millis().to_string());
        let mut args = vec!["report"];
        args.extend(last.as_deref());
        self.parsed(&args)
    }

    /// The user that the connection Secret in its pod names; empty if there is none.
    ///
    /// # Errors
    /// If the pod does not answer.
    pub fn user(&self) -> Result<String> {
        Ok(self.in_pod(&["user"])?.trim().to_owned())
    }

    /// Waits until writes that began after the call are acknowledged.
    ///
    /// # Errors
    /// If none are within `limit`; shows why they failed.
    pub fn await_progress(&self, limit: Duration) -> Result<()> {
        let start = Instant::now();
        until("acknowledged writes", limit, || {
            let seen = self.report(Some(start))?;
            ensure!(seen.acknowledged >= PROGRESS, "{seen:?}");
            Ok(())
        })
        .map_err(|error| error.context(self.namespace.pods()))
    }

    /// Runs `work` while the writer writes, then waits until writes are acknowledged again; returns what was
    /// seen since the beginning of `work`.
    ///
    /// # Errors
    /// The error of `work`, or if writes do not resume.
    pub fn during(&self, work: impl FnOnce() -> Result<()>) -> Result<Report> {
        let start = Instant::now();
        work()?;
        self.await_progress(LIMIT)?;
        self.report(Some(start))
    }

    /// Stops the writer and compares its record with the database: no acknowledged row may be missing, and
    /// all of `nodes` (URLs of the nodes' own HTTP APIs) must become equal.
    ///
    /// # Errors
    /// If a row is lost, nodes differ, or one does not answer.
    pub fn assert_nothing_lost(self, nodes: &[String]) -> Result<WriterResult> {
        let outcome = self.end(nodes)?;
        let check = &outcome.check;
        ensure!(
            check.lost == 0,
            "{} acknowledged rows are lost: {check:?}",
            check.lost
        );
        Ok(outcome)
    }

    /// The same, but acknowledged rows may be lost: reports how many are.
    ///
    /// # Errors
    /// If nodes differ, or one does not answer.
    pub fn end(self, nodes: &[String]) -> Result<WriterResult> {
        self.in_pod(&["stop"])?;
        let report = self.report(None)?;
        let mut args = vec!["check", &self.url];
        args.extend(nodes.iter().map(String::as_str));
        let check: Check = self.parsed(&args)?;
        ensure!(check.acknowledged > 0, "nothing was acknowledged");
        let delete = ["delete", "pod", POD, "--wait=true", "--timeout=60s"];
        self.namespace.run(&delete)?;
        Ok(WriterResult { report, check })
    }

    fn parsed<T: serde::de::DeserializeOwned>(&self, args: &[&str]) -> Result<T> {
        let said = self.in_pod(args)?;
        serde_json::from_str(&said).with_context(|| format!("the writer said {said:?}"))
    }

    fn in_pod(&self, args: &[&str]) -> Result<String> {
        let program = ["/bin/numbered-writer", FOLDER];
        self.namespace.in_pod(POD, &[&program, args].concat())
    }
}

/// What a writer has seen in its life, and the check at its end.
#[derive(Clone, Debug)]
pub struct WriterResult {
    /// From the first acknowledgement until it was stopped.
    pub report: Report,
    /// The comparison with the database.
    pub check: Check,
}

impl fmt::Display for WriterResult {
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

/// Satisfies the restricted Pod Security standard; exits at once when deleted.
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
    - {{name: access, mountPath: /access, readOnly: true}}
  volumes:
  - name: access
    secret: {{secretName: {SECRET}, optional: true}}
  - name: work
    emptyDir: {{}}
"
    )
}
