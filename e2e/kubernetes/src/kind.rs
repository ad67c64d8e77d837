//! A cluster whose nodes are Docker containers, created by `kind`: for machines with Docker.
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    command::{run, until},
    probe::Kubectl,
    provider::Provider,
    tools,
};

/// Name of the cluster; its containers are `rqlited-control-plane`, `rqlited-worker`, `rqlited-worker2`, …
const CLUSTER: &str = "rqlited";
/// Docker's network of all kind clusters.
const NETWORK: &str = "kind";
/// The node image, with the Kubernetes version that the local provider builds.
const IMAGE: &str = "kindest/node:v1.34.0";
/// Source and name of the image that every provider supplies, see [`Provider::up`].
const BUSYBOX: [&str; 2] = ["busybox:1.36", "localhost/busybox:1"];
/// The configuration before the list of workers.
const CONFIG: &str = include_str!("../kind.yaml");
/// Maximum number of workers of one cluster.
const MAX_NODES: u8 = 20;
/// How long kind itself waits for the control plane.
const CREATE_WAIT: &str = "--wait=180s";
/// How long the nodes may take to become Ready after that.
const READY_LIMIT: Duration = Duration::from_secs(120);

/// The machine's only cluster of that name.
#[derive(Debug)]
pub struct Kind {
    root: PathBuf,
}

impl Kind {
    /// The cluster whose kubeconfig is below the user's cache directory.
    ///
    /// # Errors
    /// If that directory is unknown.
    pub fn new() -> Result<Self> {
        Ok(Self {
            root: tools::state("kind")?,
        })
    }

    fn exists() -> Result<bool> {
        let listed = run(Command::new("kind").args(["get", "clusters"]))
            .context("the provider kind needs Docker and https://kind.sigs.k8s.io")?;
        Ok(listed.lines().any(|line| line.trim() == CLUSTER))
    }

    fn workers() -> Result<Vec<String>> {
        let listed = run(Command::new("kind").args(["get", "nodes", "--name", CLUSTER]))?;
        let worker = format!("{CLUSTER}-worker");
        let names = listed
            .lines()
            .map(str::trim)
            .filter(|name| name.starts_with(&worker));
        Ok(names.map(str::to_owned).collect())
    }

    fn await_ready(&self) -> Result<()> {
        let kubectl = Kubectl::new(&self.kubeconfig())?;
        until("all nodes to be Ready", READY_LIMIT, || {
            kubectl.run(&[
                "wait",
                "--for=condition=Ready",
                "node",
                "--all",
                "--timeout=10s",
            ])
        })
        .map(drop)
    }

    fn load_busybox() -> Result<()> {
        run(Command::new("docker").args(["pull", "--quiet", BUSYBOX[0]]))?;
        run(Command::new("docker").arg("tag").args(BUSYBOX))?;
        let mut load = Command::new("kind");
        load.args(["load", "docker-image", "--name", CLUSTER, BUSYBOX[1]]);
        run(&mut load).map(drop)
    }

    /// File with the node's address when the cluster was created: it must be reconnected with the same one.
    fn address_file(&self, node: &str) -> PathBuf {
        self.root.join(format!("{node}.address"))
    }

    fn note_addresses(&self) -> Result<()> {
        let format = format!("{{{{(index .NetworkSettings.Networks \"{NETWORK}\").IPAddress}}}}");
        for node in Self::workers()? {
            let address = run(Command::new("docker").args(["inspect", "-f", &format, &node]))?;
            fs::write(self.address_file(&node), address.trim()).context("note an address")?;
        }
        Ok(())
    }

    fn address(&self, node: &str) -> Result<String> {
        fs::read_to_string(self.address_file(node)).with_context(|| {
            format!("there is no worker {node:?}: they are {CLUSTER}-worker, {CLUSTER}-worker2, …")
        })
    }
}

/// The whole configuration for this many workers.
fn config(nodes: u8) -> String {
    let workers = "- role: worker\n".repeat(usize::from(nodes));
    format!("{CONFIG}{workers}")
}

impl Provider for Kind {
    fn up(&self, nodes: u8) -> Result<()> {
        ensure!(
            (1..=MAX_NODES).contains(&nodes),
            "{nodes} nodes: 1 to {MAX_NODES} are possible"
        );
        if Self::exists()? {
            if Self::workers()?.len() == usize::from(nodes) && self.await_ready().is_ok() {
                return Ok(());
            }
            self.down()?;
        }
        fs::create_dir_all(&self.root)?;
        let path = self.root.join("kind.yaml");
        fs::write(&path, config(nodes)).context("write kind's configuration")?;
        let mut create = Command::new("kind");
        create.args([
            "create",
            "cluster",
            "--name",
            CLUSTER,
            "--image",
            IMAGE,
            CREATE_WAIT,
        ]);
        create
            .arg("--config")
            .arg(path)
            .arg("--kubeconfig")
            .arg(self.kubeconfig());
        run(&mut create)?;
        self.note_addresses()?;
        Self::load_busybox()?;
        self.await_ready()
    }

    fn down(&self) -> Result<()> {
        run(Command::new("kind").args(["delete", "cluster", "--name", CLUSTER]))?;
        if Self::exists()? {
            bail!("kind says that it deleted {CLUSTER}, and lists it still");
        }
        if self.root.exists() {
            fs::remove_dir_all(&self.root).context("remove the kubeconfig")?;
        }
        Ok(())
    }

    fn load(&self, archive: &Path) -> Result<()> {
        let mut load = Command::new("kind");
        load.args(["load", "image-archive", "--name", CLUSTER])
            .arg(archive);
        run(&mut load).map(drop)
    }

    fn cut(&self, node: &str) -> Result<()> {
        self.address(node)?;
        run(Command::new("docker").args(["network", "disconnect", NETWORK, node])).map(drop)
    }

    fn heal(&self, node: &str) -> Result<()> {
        let address = self.address(node)?;
        let connect = ["network", "connect", "--ip", &address, NETWORK, node];
        match run(Command::new("docker").args(connect)) {
            Err(error) if error.to_string().contains("already exists") => Ok(()),
            other => other.map(drop),
        }
    }

    fn restart_dns(&self) -> Result<()> {
        let kubectl = Kubectl::new(&self.kubeconfig())?;
        let dns = [
            "-n",
            "kube-system",
            "delete",
            "pod",
            "-l",
            "k8s-app=kube-dns",
        ];
        kubectl.run(&dns)?;
        let back = "--for=condition=Available";
        let args = [
            "-n",
            "kube-system",
            "wait",
            back,
            "deployment/coredns",
            "--timeout=60s",
        ];
        kubectl.run(&args).map(drop)
    }

    fn start_growing_volumes(&self) -> Result<bool> {
        Ok(false)
    }

    fn kubeconfig(&self) -> PathBuf {
        self.root.join("admin.kubeconfig")
    }

    fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_every_worker() {
        let text = config(3);
        assert!(
            text.ends_with(
                "- role: control-plane\n- role: worker\n- role: worker\n- role: worker\n"
            ),
            "{text}"
        );
    }
}
