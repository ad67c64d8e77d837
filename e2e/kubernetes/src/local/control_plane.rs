//! Components that run beside the nodes: etcd, API server, controller manager, scheduler, DNS and the volume
//! provisioner.
use std::{process::Command, time::Duration};

use anyhow::{Context, Result};

use super::{
    layout::{DOMAIN, Layout},
    process,
    programs::Programs,
};
use crate::command::{run, until};

/// How long the API server may take to become ready.
const API_LIMIT: Duration = Duration::from_secs(90);
/// How long a node may be unreachable before it counts as lost: half of Kubernetes' default, to shorten tests
/// with a cut node.
const NODE_GRACE: &str = "20s";
/// The StorageClass and the provisioner's objects.
const VOLUMES: &str = include_str!("../../manifests/local-path.yaml");

/// Starts etcd and the API server, and once that is ready, the controller manager and the scheduler.
///
/// # Errors
/// If one cannot be started or the API server does not become ready; shows the end of its log.
pub fn start(layout: &Layout, programs: &Programs) -> Result<()> {
    let host = layout.primary().host_in_url();
    let client = format!("http://{host}:2379");
    let peer = format!("http://{host}:2380");
    let mut etcd = Command::new(programs.etcd.join("etcd"));
    etcd.args(["--name=e2e", "--log-level=error", "--unsafe-no-fsync"])
        .arg(format!("--data-dir={}", layout.root.join("etcd").display()))
        .arg(format!("--listen-client-urls={client}"))
        .arg(format!("--advertise-client-urls={client}"))
        .arg(format!("--listen-peer-urls={peer}"))
        .arg(format!("--initial-advertise-peer-urls={peer}"))
        .arg(format!("--initial-cluster=e2e={peer}"));
    process::start(layout, "etcd", &mut etcd)?;
    process::start(
        layout,
        "apiserver",
        &mut api_server(layout, programs, &client),
    )?;
    until("the API server to be ready", API_LIMIT, || {
        let mut get = Command::new(programs.kubernetes.join("kubectl"));
        get.arg("--kubeconfig").arg(layout.kubeconfig("admin"));
        run(get.args(["get", "--raw", "/readyz"]))
    })
    .with_context(|| {
        format!(
            "its log ends with:\n{}",
            process::log_tail(layout, "apiserver")
        )
    })?;
    let pki = |file: &str| layout.pki(file).display().to_string();
    let mut manager = with_kubeconfig(layout, programs, "controller-manager");
    manager
        .arg(format!(
            "--service-account-private-key-file={}",
            pki("sa.key")
        ))
        .arg(format!("--root-ca-file={}", pki("ca.crt")))
        .arg(format!("--cluster-signing-cert-file={}", pki("ca.crt")))
        .arg(format!("--cluster-signing-key-file={}", pki("ca.key")))
        .arg("--use-service-account-credentials")
        .arg(format!(
            "--cluster-cidr={}",
            layout.family.list(|network| network.pods.to_owned())
        ))
        .arg(format!("--node-monitor-grace-period={NODE_GRACE}"));
    process::start(layout, "controller-manager", &mut manager)?;
    let mut scheduler = with_kubeconfig(layout, programs, "scheduler");
    process::start(layout, "scheduler", &mut scheduler)
}

fn api_server(layout: &Layout, programs: &Programs, etcd: &str) -> Command {
    let pki = |file: &str| layout.pki(file).display().to_string();
    let host = layout.primary().host;
    let mut command = Command::new(programs.kubernetes.join("kube-apiserver"));
    command
        .arg(format!("--etcd-servers={etcd}"))
        .arg(format!("--bind-address={host}"))
        .arg(format!("--advertise-address={host}"))
        .arg("--secure-port=6443")
        .arg(format!(
            "--service-cluster-ip-range={}",
            layout.family.list(|network| network.services.to_owned())
        ))
        .arg(format!("--client-ca-file={}", pki("ca.crt")))
        .arg(format!("--tls-cert-file={}", pki("apiserver.crt")))
        .arg(format!("--tls-private-key-file={}", pki("apiserver.key")))
        .arg(format!("--service-account-key-file={}", pki("sa.pub")))
        .arg(format!(
            "--service-account-signing-key-file={}",
            pki("sa.key")
        ))
        .arg(format!(
            "--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}"
        ))
        .arg("--authorization-mode=Node,RBAC")
        .arg("--enable-admission-plugins=NodeRestriction")
        .arg("--allow-privileged")
        .arg(format!("--kubelet-client-certificate={}", pki("admin.crt")))
        .arg(format!("--kubelet-client-key={}", pki("admin.key")))
        // Nodes have no DNS names: exec and logs use their addresses.
        .arg("--kubelet-preferred-address-types=InternalIP");
    command
}

/// `kube-NAME` with its kubeconfig. Leader election is off, because it runs once.
fn with_kubeconfig(layout: &Layout, programs: &Programs, name: &str) -> Command {
    let mut command = Command::new(programs.kubernetes.join(format!("kube-{name}")));
    command
        .arg(format!(
            "--kubeconfig={}",
            layout.kubeconfig(name).display()
        ))
        .arg("--leader-elect=false")
        .arg(format!("--bind-address={}", layout.primary().host));
    command
}

/// Starts the cluster's DNS, on the host side of the bridge.
///
/// # Errors
/// If it cannot be started.
pub fn start_dns(layout: &Layout, programs: &Programs) -> Result<()> {
    let kubeconfig = layout.kubeconfig("admin");
    let corefile = layout.root.join("Corefile");
    let text = format!(
        ".:53 {{\n  bind {}\n  errors\n  kubernetes {DOMAIN} in-addr.arpa ip6.arpa {{\n    kubeconfig {} e2e\n    ttl 1\n  }}\n}}\n",
        layout.primary().host,
        kubeconfig.display()
    );
    layout.write(&corefile, &text)?;
    let mut coredns = Command::new(programs.coredns.join("coredns"));
    coredns.arg("-conf").arg(corefile);
    process::start(layout, "coredns", &mut coredns)
}

/// Creates the default StorageClass and starts the provisioner of its volumes.
///
/// # Errors
/// If the API server rejects it or the provisioner cannot be started.
pub fn start_volumes(
    layout: &Layout,
    programs: &Programs,
    kubectl: impl Fn() -> Command,
) -> Result<()> {
    let manifest = layout.root.join("local-path.yaml");
    let volumes = layout.volumes().display().to_string();
    layout.write(&manifest, &VOLUMES.replace("VOLUMES", &volumes))?;
    run(kubectl().arg("apply").arg("-f").arg(manifest)).context("make the StorageClass")?;
    // The provisioner also reads the paths from a file.
    let config = layout.root.join("local-path.json");
    let paths = serde_json::json!({ "nodePathMap": [
        { "node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": [volumes] },
    ]});
    layout.write(&config, &paths.to_string())?;
    let mut command = Command::new("env");
    command
        .arg("POD_NAMESPACE=local-path-storage")
        .arg(programs.local_path.join("local-path-provisioner"))
        .arg("start")
        .arg("--kubeconfig")
        .arg(layout.kubeconfig("admin"))
        .arg("--config")
        .arg(config)
        .args(["--configmap-name", "local-path-config"])
        .args(["--namespace", "local-path-storage"])
        .args(["--service-account-name", "local-path"])
        .args(["--helper-image", "localhost/busybox:1"]);
    process::start(layout, "local-path", &mut command)
}
