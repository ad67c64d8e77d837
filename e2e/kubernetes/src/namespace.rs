//! A test's own namespace: deleted at the end; if the test fails, its events, objects and logs are saved to
//! files first.
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};

use crate::{command::until, probe::Kubectl};

/// Default limit for pods to reach a state that a test waits for.
pub const LIMIT: Duration = Duration::from_secs(120);
/// Pods must satisfy the strictest Pod Security standard, as in a well-kept cluster.
const SECURITY: &str = "pod-security.kubernetes.io/enforce=restricted";
/// Label of all test namespaces.
const LABEL: &str = "rqlited-e2e=true";
/// Environment variable; if set, namespaces of failed tests are kept for inspection.
const KEEP: &str = "E2E_KEEP";

/// A namespace of a test.
#[derive(Debug)]
pub struct Namespace {
    /// Unique.
    pub name: String,
    kubectl: Kubectl,
    has_failed: bool,
}

impl Namespace {
    /// Creates a namespace whose name contains `purpose`, runs `work` in it, and deletes it afterwards.
    ///
    /// # Errors
    /// The error of `work`, or if the cluster rejects a request.
    pub fn within<T>(
        kubectl: &Kubectl,
        purpose: &str,
        work: impl FnOnce(&Self) -> Result<T>,
    ) -> Result<T> {
        Self::new(kubectl, &Self::name_for(purpose)?)?.do_within(work)
    }

    /// The same with an existing namespace of this name.
    ///
    /// # Errors
    /// See [`Self::within`].
    pub fn within_existing<T>(
        kubectl: &Kubectl,
        name: &str,
        work: impl FnOnce(&Self) -> Result<T>,
    ) -> Result<T> {
        Self {
            name: name.to_owned(),
            kubectl: kubectl.clone(),
            has_failed: false,
        }
        .do_within(work)
    }

    fn do_within<T>(mut self, work: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        let done = work(&self);
        self.has_failed = done.is_err();
        done
    }

    /// A unique name.
    ///
    /// # Errors
    /// If the clock is before 1970.
    pub fn name_for(purpose: &str) -> Result<String> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let unique = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() % 1_000_000;
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        Ok(format!("e2e-{purpose}-{unique}-{process}-{number}"))
    }

    /// Creates a namespace without deleting it later.
    ///
    /// # Errors
    /// If the cluster rejects it.
    pub fn make(kubectl: &Kubectl, name: &str) -> Result<()> {
        kubectl.run(&["create", "namespace", name])?;
        let label = ["label", "namespace", name, SECURITY, LABEL];
        kubectl.run(&label).map(drop)
    }

    fn new(kubectl: &Kubectl, name: &str) -> Result<Self> {
        Self::make(kubectl, name)?;
        Ok(Self {
            name: name.to_owned(),
            kubectl: kubectl.clone(),
            has_failed: false,
        })
    }

    /// Runs kubectl in this namespace.
    ///
    /// # Errors
    /// If it fails; shows its output.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        let mut all = vec!["--namespace", &self.name];
        all.extend(args);
        self.kubectl.run(&all)
    }

    /// kubectl in this namespace, to be started by the caller.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut all = vec!["--namespace", &self.name];
        all.extend(args);
        self.kubectl.command(&all)
    }

    /// Runs a program in a pod's first container.
    ///
    /// # Errors
    /// If it fails; shows its output.
    pub fn in_pod(&self, pod: &str, args: &[&str]) -> Result<String> {
        let mut all = vec!["exec", pod, "--"];
        all.extend(args);
        self.run(&all)
    }

    /// A field of an object, by its JSON path.
    ///
    /// # Errors
    /// If the object does not exist.
    pub fn field(&self, object: &str, path: &str) -> Result<String> {
        self.run(&["get", object, "-o", &format!("jsonpath={path}")])
    }

    /// Applies objects given as YAML.
    ///
    /// # Errors
    /// If the cluster rejects one; shows the reason.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        let path = std::env::temp_dir().join(format!("{}.yaml", self.name));
        fs::write(&path, yaml).context("write the objects")?;
        let applied = self.run(&["apply", "-f", &path.to_string_lossy()]);
        fs::remove_file(&path).context("remove the objects' file")?;
        applied.map(drop)
    }

    /// Waits until all pods of a StatefulSet or Deployment are Ready and of its current template.
    ///
    /// # Errors
    /// If that takes longer than `limit`; shows the pods' state.
    pub fn rolled_out(&self, object: &str, limit: Duration) -> Result<()> {
        let timeout = format!("--timeout={}s", limit.as_secs());
        self.run(&["rollout", "status", object, &timeout])
            .map(drop)
            .map_err(|error| error.context(self.pods()))
    }

    /// Waits until a field of `object` has the value `wanted`.
    ///
    /// # Errors
    /// If that takes longer than `limit`; shows the last value.
    pub fn until_field(
        &self,
        object: &str,
        path: &str,
        wanted: &str,
        limit: Duration,
    ) -> Result<()> {
        until(
            &format!("{path} of {object} to be {wanted:?}"),
            limit,
            || {
                let seen = self.field(object, path)?;
                ensure!(seen == wanted, "it is {seen:?}");
                Ok(())
            },
        )
    }

    /// The pods as a table.
    #[must_use]
    pub fn pods(&self) -> String {
        self.run(&["get", "pods", "-o", "wide"])
            .unwrap_or_else(|error| format!("no list of pods: {error:#}"))
    }

    /// Saves events, objects and all containers' logs, also those before their last restart, to files.
    ///
    /// # Errors
    /// If the directory cannot be written.
    pub fn collect(&self, into: &Path) -> Result<()> {
        fs::create_dir_all(into).with_context(|| format!("make {}", into.display()))?;
        let keep = |file: &str, args: &[&str]| {
            let said = self.run(args).unwrap_or_else(|error| format!("{error:#}"));
            fs::write(into.join(file), said)
        };
        keep("events.txt", &["get", "events", "--sort-by=.lastTimestamp"])?;
        keep(
            "objects.txt",
            &["get", "all,pvc,endpointslices", "-o", "wide"],
        )?;
        keep("pods.yaml", &["get", "pods", "-o", "yaml"])?;
        let names = self.run(&["get", "pods", "-o", "jsonpath={.items[*].metadata.name}"]);
        for pod in names.unwrap_or_default().split_whitespace() {
            let logs = ["logs", pod, "--all-containers", "--timestamps"];
            keep(&format!("{pod}.log"), &logs)?;
            let before = [&logs[..], &["--previous"]].concat();
            keep(&format!("{pod}.previous.log"), &before)?;
        }
        Ok(())
    }

    fn save_diagnostics(&self) {
        let into = results().join(&self.name);
        match self.collect(&into) {
            Ok(()) => eprintln!(
                "events, objects and logs of {} are in {}",
                self.name,
                into.display()
            ),
            Err(error) => eprintln!("nothing could be saved of {}: {error:#}", self.name),
        }
    }
}

/// Directory for the files of failed tests, beside the other build outputs; it has a subdirectory for each
/// namespace.
#[must_use]
pub fn results() -> PathBuf {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(beside, PathBuf::from);
    target.join("e2e-failures")
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.has_failed || thread::panicking() {
            self.save_diagnostics();
            if std::env::var_os(KEEP).is_some() {
                return;
            }
        }
        let delete = ["delete", "namespace", &self.name, "--timeout=120s"];
        if let Err(error) = self.kubectl.run(&delete) {
            eprintln!("{} stays: {error:#}", self.name);
        }
    }
}
