//! A node: network namespace, containerd, kubelet, kube-proxy.
use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};

use super::{
    cgroup,
    layout::{BRIDGE, DOMAIN, Layout, link, node_name, space},
    network::Family,
    process,
    programs::Programs,
};
use crate::command::{ip, run, until};

/// Where Debian installs the CNI plugins.
pub const CNI_PROGRAMS: &str = "/usr/lib/cni";
/// Name of the pods' network; file names of the plugins begin with it.
pub const POD_NETWORK: &str = "rqk-pods";
/// How long containerd may take to answer.
const CONTAINERD_LIMIT: Duration = Duration::from_secs(60);
/// How long a kubelet may take to bind its device socket.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Where every kubelet listens for device plugins, whatever its own directory.
const DEVICE_SOCKET: &str = "/var/lib/kubelet/device-plugins/kubelet.sock";

/// Creates the node's network and control groups, starts its containerd and loads the images that pods need.
/// Does not need the API server.
///
/// # Errors
/// If the kernel rejects something or containerd does not answer; shows the end of its log.
pub fn prepare(layout: &Layout, number: u8, nodes: u8, programs: &Programs) -> Result<()> {
    let folder = layout.node(number);
    for part in ["containerd", "kubelet", "cni", "pod-logs", "plugins"] {
        fs::create_dir_all(folder.join(part))?;
    }
    network(layout.family, number, nodes)?;
    cgroup::create(&space(number))?;
    layout.write(&folder.join("containerd.toml"), &containerd_config(&folder))?;
    let cni = folder.join("cni").join("10-pods.conflist");
    layout.write(&cni, &cni_config(layout, number).to_string())?;
    let name = format!("{}-containerd", node_name(number));
    let mut containerd = process::inside(&space(number), Path::new("containerd"));
    containerd.arg("-c").arg(folder.join("containerd.toml"));
    process::start(layout, &name, &mut containerd)?;
    until("containerd to answer", CONTAINERD_LIMIT, || {
        run(ctr(layout, number).arg("version"))
    })
    .with_context(|| format!("its log ends with:\n{}", process::log_tail(layout, &name)))?;
    for image in ["pause.tar", "busybox.tar"] {
        import(layout, number, &programs.images.join(image))?;
    }
    Ok(())
}

/// The inode of a file; none if it does not exist.
fn inode(path: &str) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).ok().map(|found| found.ino())
}

/// Starts kubelet and kube-proxy; the API server must be running.
///
/// # Errors
/// If they cannot be started.
pub fn start(layout: &Layout, number: u8, programs: &Programs) -> Result<()> {
    let (folder, name, space) = (layout.node(number), node_name(number), space(number));
    layout.write(
        &folder.join("resolv.conf"),
        &format!("nameserver {}\n", layout.primary().host),
    )?;
    let config = folder.join("kubelet.json");
    layout.write(&config, &kubelet_config(layout, number).to_string())?;
    let mut kubelet = process::inside(&space, &programs.kubernetes.join("kubelet"));
    kubelet
        .arg(format!("--config={}", config.display()))
        .arg(format!(
            "--kubeconfig={}",
            layout.kubeconfig(&name).display()
        ))
        .arg(format!("--hostname-override={name}"))
        .arg(format!(
            "--node-ip={}",
            layout.family.list(|network| network.address(number))
        ))
        .arg(format!("--root-dir={}", folder.join("kubelet").display()))
        .arg(format!(
            "--cert-dir={}",
            folder.join("kubelet-pki").display()
        ));
    // All kubelets bind this socket in turn (its path is fixed, and no test uses devices); one that finds it
    // bound between its own removal and its own bind ends.
    let before = inode(DEVICE_SOCKET);
    process::start(layout, &format!("{name}-kubelet"), &mut kubelet)?;
    until("the kubelet to bind its device socket", START_LIMIT, || {
        let now = inode(DEVICE_SOCKET);
        ensure!(now.is_some() && now != before, "inode {now:?}");
        Ok(())
    })
    .with_context(|| process::log_tail(layout, &format!("{name}-kubelet")))?;
    let mut proxy = process::inside(&space, &programs.kubernetes.join("kube-proxy"));
    proxy
        .arg(format!(
            "--kubeconfig={}",
            layout.kubeconfig("proxy").display()
        ))
        .arg("--proxy-mode=iptables")
        .arg(format!(
            "--cluster-cidr={}",
            layout.family.list(|network| network.pods.to_owned())
        ))
        .arg(format!("--hostname-override={name}"))
        // The connection tracking table belongs to the whole machine, so its size is left alone.
        .arg("--conntrack-max-per-core=0");
    process::start(layout, &format!("{name}-proxy"), &mut proxy)
}

/// Loads an image (a docker-archive) onto the node.
///
/// # Errors
/// If containerd rejects it.
pub fn import(layout: &Layout, number: u8, archive: &Path) -> Result<()> {
    ensure!(archive.is_file(), "there is no image {}", archive.display());
    run(ctr(layout, number).args(["images", "import"]).arg(archive))
        .with_context(|| format!("load {} on {}", archive.display(), node_name(number)))
        .map(drop)
}

fn ctr(layout: &Layout, number: u8) -> Command {
    let mut command = Command::new("ctr");
    command
        .arg("--address")
        .arg(layout.containerd(number))
        .args(["--namespace", "k8s.io"]);
    command
}

/// Creates the namespace, its link to the bridge, and the routes to the pods of every node.
fn network(family: Family, number: u8, nodes: u8) -> Result<()> {
    let (space, link) = (space(number), link(number));
    ip(&format!("netns add {space}"))?;
    ip(&format!(
        "link add {link} type veth peer name eth0 netns {space}"
    ))?;
    ip(&format!("link set {link} master {BRIDGE} up"))?;
    ip(&format!("-n {space} link set lo up"))?;
    ip(&format!("-n {space} link set eth0 up"))?;
    for network in family.networks() {
        let (version, own, length) = (network.ip, network.address(number), network.length);
        let (bits, options) = length.split_once(' ').unwrap_or((length, ""));
        process::sysctl(&space, network.forwarding)?;
        ip(&format!(
            "-n {space} addr add {own}/{bits} dev eth0 {options}"
        ))?;
        ip(&format!(
            "{version} -n {space} route add default via {}",
            network.host
        ))?;
        let pods = network.pods_of(number);
        ip(&format!("{version} route replace {pods} via {own}"))?;
        for other in (1..=nodes).filter(|other| *other != number) {
            ip(&format!(
                "{version} -n {space} route add {} via {}",
                network.pods_of(other),
                network.address(other)
            ))?;
        }
    }
    Ok(())
}

/// All state is in the node's directory, also the pods' namespaces, so that they are removed with its mounts.
fn containerd_config(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"version = 2
root = "{folder}/containerd/root"
state = "{folder}/containerd/state"
disabled_plugins = [
  "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PROGRAMS}"
    conf_dir = "{folder}/cni"
"#
    )
}

/// Each pod has its own link to the node and all traffic is routed. On a bridge, traffic between pods would
/// bypass iptables, and with it Services.
fn cni_config(layout: &Layout, number: u8) -> serde_json::Value {
    let networks = layout.family.networks().iter();
    let range = |pods: String| serde_json::json!([{ "subnet": pods }]);
    let ranges: Vec<_> = networks.clone().map(|n| range(n.pods_of(number))).collect();
    let routes: Vec<_> = networks
        .map(|n| serde_json::json!({ "dst": n.any }))
        .collect();
    serde_json::json!({
        "cniVersion": "1.0.0",
        "name": POD_NETWORK,
        "plugins": [
            { "type": "ptp", "ipMasq": false, "ipam": {
                "type": "host-local",
                "dataDir": layout.node(number).join("cni").join("addresses"),
                "ranges": ranges,
                "routes": routes,
            }},
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
}

fn kubelet_config(layout: &Layout, number: u8) -> serde_json::Value {
    let folder = layout.node(number);
    serde_json::json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": false },
            "x509": { "clientCAFile": layout.pki("ca.crt") },
        },
        "authorization": { "mode": "AlwaysAllow" },
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", space(number)),
        "clusterDNS": [layout.primary().host],
        "clusterDomain": DOMAIN,
        "failSwapOn": false,
        "containerRuntimeEndpoint": format!("unix://{}", layout.containerd(number).display()),
        // Disk and memory belong to the machine: a node must not evict pods because the machine is busy.
        "evictionHard": {
            "memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%",
            "nodefs.inodesFree": "1%",
        },
        "imageGCHighThresholdPercent": 100,
        "nodeStatusUpdateFrequency": "4s",
        "resolvConf": folder.join("resolv.conf"),
        "podLogsDir": folder.join("pod-logs"),
        "volumePluginDir": folder.join("plugins"),
    })
}
