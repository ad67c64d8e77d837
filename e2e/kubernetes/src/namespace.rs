//! A namespace of a test's own: gone at the end; if the test fails, what the cluster says of it is kept in files first.
use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};

use crate::{command::until, probe::Kubectl};

/// How long pods may take to be what a test waits for, unless it says otherwise.
pub const LIMIT: Duration = Duration::from_secs(120);
/// Pods must fit the strictest Pod Security standard, as in a well-kept cluster.
const SECURITY: &str = "pod-security.kubernetes.io/enforce=restricted";
/// Namespaces of tests can be told by this.
const LABEL: &str = "rqlited-e2e=true";
/// Set: namespaces of failed tests stay, to be looked at.
const KEEP: &str = "E2E_KEEP";

/// See the module.
#[derive(Debug)]
pub struct Namespace {
    /// Unique.
    pub name: String,
    kubectl: Kubectl,
    has_failed: bool,
}

impl Namespace {
    /// Makes a namespace, whose name contains `purpose`, for `work`, and takes it away afterwards.
    ///
    /// # Errors
    /// That of `work`, or when the cluster refuses.
    pub fn within<T>(
        kubectl: &Kubectl,
        purpose: &str,
        work: impl FnOnce(&Self) -> Result<T>,
    ) -> Result<T> {
        Self::new(kubectl, &Self::name_for(purpose)?)?.do_within(work)
    }

    /// The same with a namespace of this name, which exists.
    ///
    /// # Errors
    /// As [`Self::within`].
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

    /// A name that nobody has.
    ///
    /// # Errors
    /// When the clock is before 1970.
    pub fn name_for(purpose: &str) -> Result<String> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let unique = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() % 1_000_000;
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        Ok(format!("e2e-{purpose}-{unique}-{process}-{number}"))
    }

    /// Makes one that nothing takes away.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub fn make(kubectl: &Kubectl, name: &str) -> Result<()> {
        kubectl.ask(&["create", "namespace", name])?;
        let label = ["label", "namespace", name, SECURITY, LABEL];
        kubectl.ask(&label).map(drop)
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
    /// When it fails; with what it said.
    pub fn ask(&self, words: &[&str]) -> Result<String> {
        let mut all = vec!["--namespace", &self.name];
        all.extend(words);
        self.kubectl.ask(&all)
    }

    /// Runs a program in a pod's first container.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn in_pod(&self, pod: &str, words: &[&str]) -> Result<String> {
        let mut all = vec!["exec", pod, "--"];
        all.extend(words);
        self.ask(&all)
    }

    /// A field, by its JSON path.
    ///
    /// # Errors
    /// When the object is not there.
    pub fn field(&self, object: &str, path: &str) -> Result<String> {
        self.ask(&["get", object, "-o", &format!("jsonpath={path}")])
    }

    /// Applies objects that are written as YAML.
    ///
    /// # Errors
    /// When the cluster refuses one; with its reason.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        let path = std::env::temp_dir().join(format!("{}.yaml", self.name));
        fs::write(&path, yaml).context("write the objects")?;
        let applied = self.ask(&["apply", "-f", &path.to_string_lossy()]);
        fs::remove_file(&path).context("remove the objects' file")?;
        applied.map(drop)
    }

    /// Waits until a StatefulSet's or Deployment's pods are all Ready and of its newest template.
    ///
    /// # Errors
    /// When that takes longer than `limit`; with what its pods say.
    pub fn rolled_out(&self, object: &str, limit: Duration) -> Result<()> {
        let timeout = format!("--timeout={}s", limit.as_secs());
        self.ask(&["rollout", "status", object, &timeout])
            .map(drop)
            .map_err(|error| error.context(self.pods()))
    }

    /// Waits until `object`'s field is `wanted`.
    ///
    /// # Errors
    /// When that takes longer than `limit`; with what it was at last.
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

    /// The pods as a table, for people.
    #[must_use]
    pub fn pods(&self) -> String {
        self.ask(&["get", "pods", "-o", "wide"])
            .unwrap_or_else(|error| format!("no list of pods: {error:#}"))
    }

    /// Writes events, objects, and all containers' logs, also those before their last restart, into files.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn collect(&self, into: &Path) -> Result<()> {
        fs::create_dir_all(into).with_context(|| format!("make {}", into.display()))?;
        let keep = |file: &str, words: &[&str]| {
            let said = self.ask(words).unwrap_or_else(|error| format!("{error:#}"));
            fs::write(into.join(file), said)
        };
        keep("events.txt", &["get", "events", "--sort-by=.lastTimestamp"])?;
        keep(
            "objects.txt",
            &["get", "all,pvc,endpointslices", "-o", "wide"],
        )?;
        keep("pods.yaml", &["get", "pods", "-o", "yaml"])?;
        let names = self.ask(&["get", "pods", "-o", "jsonpath={.items[*].metadata.name}"]);
        for pod in names.unwrap_or_default().split_whitespace() {
            let logs = ["logs", pod, "--all-containers", "--timestamps"];
            keep(&format!("{pod}.log"), &logs)?;
            let before = [&logs[..], &["--previous"]].concat();
            keep(&format!("{pod}.previous.log"), &before)?;
        }
        Ok(())
    }

    fn keep_what_it_says(&self) {
        let into = results().join(&self.name);
        match self.collect(&into) {
            Ok(()) => eprintln!(
                "what the cluster says of {} is in {}",
                self.name,
                into.display()
            ),
            Err(error) => eprintln!("nothing could be kept of {}: {error:#}", self.name),
        }
    }
}

/// Where what failed tests leave is kept: a folder for each namespace, beside the other build outputs.
#[must_use]
pub fn results() -> PathBuf {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(beside, PathBuf::from);
    target.join("e2e-failures")
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.has_failed || thread::panicking() {
            self.keep_what_it_says();
            if std::env::var_os(KEEP).is_some() {
                return;
            }
        }
        let delete = ["delete", "namespace", &self.name, "--timeout=120s"];
        if let Err(error) = self.kubectl.ask(&delete) {
            eprintln!("{} stays: {error:#}", self.name);
        }
    }
}
