//! A cluster without Docker: nodes are network namespaces, each with its own containerd, kubelet and
//! kube-proxy. The control plane, DNS and the volume provisioner run beside them on the host side of a
//! bridge.
//!
//! Needs Linux and root. Reading order: [`layout`] (addresses and files) → [`process`] → [`programs`] →
//! [`certificates`] → [`control_plane`] → [`node`] with [`cgroup`] → [`removal`]. This crate's `DESIGN.md`
//! gives the reasons.
use std::{
    fs::{self, File},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    command::{ip, run, until},
    provider::Provider,
    tools,
};

pub mod certificates;
pub mod cgroup;
pub mod control_plane;
pub mod growing;
pub mod layout;
pub mod network;
pub mod node;
pub mod process;
pub mod programs;
pub mod removal;

use programs::Programs;

use layout::{BRIDGE, Layout, MAX_NODES};
use network::Family;

/// How long all nodes may take to become Ready once the API server answers.
const READY_LIMIT: Duration = Duration::from_secs(120);
/// How long DNS may take to stop, and to serve again.
const DNS_LIMIT: Duration = Duration::from_secs(30);
/// Programs that the system must provide.
const SYSTEM: [&str; 8] = [
    "containerd",
    "ctr",
    "runc",
    "iptables",
    "ip",
    "nsenter",
    "setsid",
    "conntrack",
];

/// The machine's only local cluster.
#[derive(Debug)]
pub struct Local {
    layout: Layout,
}

impl Local {
    /// The cluster below the user's cache directory.
    ///
    /// # Errors
    /// If that directory is unknown, or [`network::FAMILY`] names no family.
    pub fn new() -> Result<Self> {
        let mut layout = Layout::new(tools::state("local")?);
        layout.family = Family::chosen()?;
        Ok(Self { layout })
    }

    /// Held while the cluster is changed: two runs must not build and remove it at the same time.
    fn lock(&self) -> Result<File> {
        let root = &self.layout.root;
        let folder = root.parent().context("the state's folder")?;
        fs::create_dir_all(folder)?;
        let file = File::create(folder.join("local.lock")).context("open the lock")?;
        file.lock().context("wait for the lock")?;
        Ok(file)
    }

    fn is_up(&self, nodes: u8) -> bool {
        let wanted = self.made(nodes);
        fs::read_to_string(self.layout.ready()).is_ok_and(|found| found == wanted)
            && tools::folder("kubernetes").is_ok_and(|folder| {
                let mut wait = self.kubectl(&folder);
                wait.args([
                    "wait",
                    "--for=condition=Ready",
                    "node",
                    "--all",
                    "--timeout=5s",
                ]);
                run(&mut wait).is_ok()
            })
    }

    /// What the file says that marks a complete cluster.
    fn made(&self, nodes: u8) -> String {
        format!("{nodes} {}", self.layout.family.name())
    }

    /// Number of nodes of the cluster that is up.
    fn nodes(&self) -> Result<u8> {
        let text = fs::read_to_string(self.layout.ready()).context("no cluster is up")?;
        let number = text.split(' ').next().unwrap_or_default();
        number.parse().context("the number of nodes")
    }

    fn kubectl(&self, kubernetes: &Path) -> Command {
        let mut command = Command::new(kubernetes.join("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig());
        command.arg("--request-timeout=10s");
        command
    }

    fn build(&self, nodes: u8, programs: &Programs) -> Result<()> {
        let layout = &self.layout;
        layout.create()?;
        removal::note_what_was_there(layout)?;
        certificates::write(layout, nodes)?;
        ip(&format!("link add {BRIDGE} type bridge"))?;
        for network in layout.family.networks() {
            let (host, length) = (network.host, network.length);
            let (bits, options) = length.split_once(' ').unwrap_or((length, ""));
            ip(&format!("addr add {host}/{bits} dev {BRIDGE} {options}"))?;
        }
        ip(&format!("link set {BRIDGE} up"))?;
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("switch forwarding on")?;
        // The nodes' containerds do not need the API server, so both start in parallel.
        thread::scope(|scope| {
            let control = scope.spawn(|| control_plane::start(layout, programs));
            let made: Vec<_> = (1..=nodes)
                .map(|number| scope.spawn(move || node::prepare(layout, number, nodes, programs)))
                .collect();
            for node in made {
                joined(node)?;
            }
            joined(control)
        })?;
        // The host reaches Services through the first node, whose kube-proxy routes them.
        for network in layout.family.networks() {
            let (options, services, first) = (network.ip, network.services, network.address(1));
            ip(&format!("{options} route replace {services} via {first}"))?;
        }
        for number in 1..=nodes {
            node::start(layout, number, programs)?;
        }
        control_plane::start_dns(layout, programs)?;
        control_plane::start_volumes(layout, programs, || self.kubectl(&programs.kubernetes))?;
        self.await_ready(nodes, &programs.kubernetes)?;
        self.await_dns()?;
        fs::write(layout.ready(), self.made(nodes)).context("note that the cluster is up")
    }

    fn await_ready(&self, nodes: u8, kubernetes: &Path) -> Result<()> {
        until("all nodes to be Ready", READY_LIMIT, || {
            let path = "jsonpath={range .items[*]}{.status.conditions[?(@.type==\"Ready\")].status}{\" \"}{end}";
            let mut get = self.kubectl(kubernetes);
            let states = run(get.args(["get", "nodes", "-o", path]))?;
            let ready = states.split_whitespace().filter(|state| *state == "True");
            ensure!(ready.count() == usize::from(nodes), "Ready: {states:?}");
            Ok(())
        })
        .with_context(|| format!("logs are in {}", self.layout.logs().display()))
    }

    fn await_dns(&self) -> Result<()> {
        let host = self.layout.primary().host;
        until("DNS to take connections", DNS_LIMIT, || {
            TcpStream::connect((host, 53))
                .map(drop)
                .context("connect to DNS")
        })
    }

    fn number(&self, node: &str) -> Result<u8> {
        let number = node.strip_prefix("node-").and_then(|n| n.parse().ok());
        let count = self.nodes()?;
        match number {
            Some(number) if (1..=count).contains(&number) => Ok(number),
            _ => bail!("there is no node {node:?}: they are node-1 to node-{count}"),
        }
    }
}

impl Provider for Local {
    fn up(&self, nodes: u8) -> Result<()> {
        ensure!(
            (1..=MAX_NODES).contains(&nodes),
            "{nodes} nodes: 1 to {MAX_NODES} are possible"
        );
        check_machine()?;
        let programs = Programs::find()?;
        let _lock = self.lock()?;
        if self.is_up(nodes) {
            return Ok(());
        }
        removal::remove(&self.layout)?;
        self.build(nodes, &programs)
    }

    fn down(&self) -> Result<()> {
        check_root()?;
        let _lock = self.lock()?;
        removal::remove(&self.layout)
    }

    fn load(&self, archive: &Path) -> Result<()> {
        let archive = fs::canonicalize(archive)
            .with_context(|| format!("the image {}", archive.display()))?;
        let mut number = 1;
        while self.number(&format!("node-{number}")).is_ok() {
            node::import(&self.layout, number, &archive)?;
            number += 1;
        }
        ensure!(number > 1, "no cluster is up");
        Ok(())
    }

    fn cut(&self, node: &str) -> Result<()> {
        let number = self.number(node)?;
        ip(&format!("link set {} down", layout::link(number))).map(drop)
    }

    fn heal(&self, node: &str) -> Result<()> {
        let number = self.number(node)?;
        ip(&format!("link set {} up", layout::link(number))).map(drop)
    }

    fn restart_dns(&self) -> Result<()> {
        let _lock = self.lock()?;
        ensure!(self.layout.ready().exists(), "no cluster is up");
        let programs = Programs::find()?;
        until("DNS to end", DNS_LIMIT, || {
            let mut running = process::marked(&self.layout.root)?;
            running.retain(|_, name| name == "coredns");
            running.keys().for_each(|id| process::kill(*id));
            ensure!(running.is_empty(), "{running:?}");
            Ok(())
        })?;
        control_plane::start_dns(&self.layout, &programs)?;
        self.await_dns()
    }

    fn start_growing_volumes(&self) -> Result<bool> {
        let _lock = self.lock()?;
        let nodes = self.nodes()?;
        let programs = Programs::find()?;
        growing::start(&self.layout, nodes, || self.kubectl(&programs.kubernetes))?;
        Ok(true)
    }

    fn kubeconfig(&self) -> PathBuf {
        self.layout.kubeconfig("admin")
    }

    fn logs(&self) -> PathBuf {
        self.layout.logs()
    }
}

fn joined(thread: thread::ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    match thread.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn check_root() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the local provider makes network namespaces and needs root; with Docker, use the provider kind"
    );
    Ok(())
}

fn check_machine() -> Result<()> {
    check_root()?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    let absent = |program: &&str| !folders.iter().any(|folder| folder.join(program).is_file());
    let missing: Vec<_> = SYSTEM.into_iter().filter(absent).collect();
    ensure!(
        missing.is_empty() && Path::new(node::CNI_PROGRAMS).join("ptp").is_file(),
        "missing on this machine: {missing:?} and the CNI plugins in {}: run .ci/install as root",
        node::CNI_PROGRAMS
    );
    Ok(())
}
