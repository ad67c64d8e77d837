//! Checks what the product needs from any cluster: stable names by SRV records, volumes, Services, one pod
//! per node.
//!
//! Takes a kubeconfig and is independent of the provider, as every test should be; runs in its own namespace.
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::{
    command::{run, until},
    tools,
};

/// Namespace of the probe's objects.
pub const NAMESPACE: &str = "e2e-probe";
/// How long a change in the cluster may take to be seen.
const LIMIT: Duration = Duration::from_secs(120);
/// Number of the probe's pods; as many nodes are needed.
const PODS: usize = 3;

/// kubectl for one cluster.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// The kubectl on `PATH`, otherwise the one that `e2e/tools` builds.
    ///
    /// # Errors
    /// If there is none and it cannot be built.
    pub fn new(kubeconfig: &Path) -> Result<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let installed = std::env::split_paths(&path)
            .map(|folder| folder.join("kubectl"))
            .find(|program| program.is_file());
        Ok(Self {
            program: match installed {
                Some(program) => program,
                None => tools::folder("kubernetes")?.join("kubectl"),
            },
            kubeconfig: kubeconfig.to_owned(),
        })
    }

    /// Runs it with these arguments and returns its output.
    ///
    /// # Errors
    /// If it fails; shows its output.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        run(&mut self.command(args))
    }

    /// The command with these arguments, to be started by the caller.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.env("KUBECONFIG", &self.kubeconfig).args(args);
        command
    }

    fn probe(&self, args: &[&str]) -> Result<String> {
        let mut all = vec!["--namespace", NAMESPACE];
        all.extend(args);
        self.run(&all)
    }

    fn in_pod(&self, pod: &str, args: &[&str]) -> Result<String> {
        let mut all = vec!["exec", pod, "--"];
        all.extend(args);
        self.probe(&all)
    }
}

/// Creates the probe's objects and checks everything; prints the durations. The objects remain until
/// [`remove`].
///
/// # Errors
/// The first check that fails.
pub fn check(kubectl: &Kubectl) -> Result<()> {
    let start = Instant::now();
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/probe.yaml");
    kubectl.run(&["apply", "-f", &manifest.to_string_lossy()])?;
    kubectl.probe(&["rollout", "status", "statefulset/probe", "--timeout=120s"])?;
    println!(
        "three pods with volumes Ready in {:.1} s",
        start.elapsed().as_secs_f64()
    );
    let claims = kubectl.probe(&["get", "pvc", "-o", "jsonpath={.items[*].status.phase}"])?;
    ensure!(claims == "Bound Bound Bound", "volume claims: {claims:?}");
    let nodes = kubectl.probe(&["get", "pods", "-o", "jsonpath={.items[*].spec.nodeName}"])?;
    let nodes: BTreeSet<_> = nodes.split(' ').collect();
    ensure!(nodes.len() == PODS, "one pod per node: {nodes:?}");
    names(kubectl)?;
    services(kubectl)
}

/// The node on which the probe's first pod runs.
///
/// # Errors
/// If there is no such pod.
pub fn node(kubectl: &Kubectl) -> Result<String> {
    kubectl.probe(&["get", "pod", "probe-0", "-o", "jsonpath={.spec.nodeName}"])
}

/// Waits until the first pod is Ready.
///
/// # Errors
/// If that takes longer than two minutes.
pub fn await_pod(kubectl: &Kubectl) -> Result<()> {
    let args = [
        "wait",
        "--for=condition=Ready",
        "pod/probe-0",
        "--timeout=120s",
    ];
    kubectl.probe(&args).map(drop)
}

/// Removes the probe, and waits until its volumes are gone.
///
/// # Errors
/// If something remains.
pub fn remove(kubectl: &Kubectl) -> Result<()> {
    let args = [
        "delete",
        "namespace",
        NAMESPACE,
        "--ignore-not-found",
        "--timeout=120s",
    ];
    kubectl.run(&args)?;
    until("the probe's volumes to go", LIMIT, || {
        let args = [
            "get",
            "pv",
            "-o",
            "jsonpath={.items[*].spec.claimRef.namespace}",
        ];
        let claimed = kubectl.run(&args)?;
        ensure!(!claimed.contains(NAMESPACE), "volumes of {claimed}");
        Ok(())
    })
}

/// Checks the SRV records of the headless Service and a pod's own name, both from within a pod.
///
/// # Errors
/// If one does not resolve within two minutes.
pub fn names(kubectl: &Kubectl) -> Result<()> {
    let service = format!("probe-headless.{NAMESPACE}.svc.cluster.local");
    let question = format!("_raft._tcp.{service}");
    until("three SRV records", LIMIT, || {
        let answer = kubectl.in_pod("probe-0", &["nslookup", "-type=srv", &question])?;
        let named = |number| answer.contains(&format!("4002 probe-{number}.{service}"));
        ensure!((0..PODS).all(named), "{answer}");
        Ok(())
    })?;
    let url = format!("http://probe-2.{service}:4001/");
    let page = kubectl.in_pod("probe-0", &["wget", "-qO-", &url])?;
    ensure!(page.trim() == "probe-2", "{url} answered {page:?}");
    Ok(())
}

/// Checks that every pod eventually answers at the Service's address.
fn services(kubectl: &Kubectl) -> Result<()> {
    let mut seen = BTreeSet::new();
    until("every pod to answer for the Service", LIMIT, || {
        let page = kubectl.in_pod("probe-1", &["wget", "-qO-", "http://probe/"])?;
        seen.insert(page.trim().to_owned());
        ensure!(seen.len() == PODS, "{seen:?}");
        Ok(())
    })
}
