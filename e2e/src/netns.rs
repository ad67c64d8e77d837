//! Network namespaces: each node gets its own address, and the way from any node to any other can be cut alone.
//!
//! Needs root and `ip`; a test that cannot have them says so and is skipped. Nodes sit on one bridge; a cut is a
//! blackhole route in the sender's namespace, so it is one-directional as real routing faults are.
use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU16, Ordering},
};

use anyhow::{Context, Result, bail};

use crate::{ports, process::Node};

/// Host part of the first node's address; the bridge has 1.
const FIRST_HOST: usize = 11;

/// Networks of this process so far: their names and subnets must differ.
static COUNT: AtomicU16 = AtomicU16::new(0);

/// A bridge with some namespaces on it; deleted with the value.
#[derive(Debug)]
pub struct Network {
    label: String,
    subnet: String,
    members: usize,
}

/// Why namespaces cannot be used here; `None` if they can.
#[must_use]
pub fn unavailable() -> Option<String> {
    let name = format!("probe{}", std::process::id());
    let tried = ip(&["netns", "add", &name]).and_then(|()| ip(&["netns", "exec", &name, "true"]));
    let _ = ip(&["netns", "del", &name]);
    tried
        .err()
        .map(|error| format!("no network namespaces: {error:#}"))
}

impl Network {
    /// A bridge with `members` namespaces, all connected.
    ///
    /// # Errors
    /// When `ip` refuses; see [`unavailable`].
    pub fn new(members: usize) -> Result<Self> {
        let (slice, count) = (
            ports::slice_number()?,
            COUNT.fetch_add(1, Ordering::Relaxed),
        );
        let label = format!("rq{slice}x{count}");
        let subnet = format!("10.{}.{count}", 100 + slice);
        let network = Self {
            label,
            subnet,
            members,
        };
        // What a killed run may have left behind under the same names.
        network.delete();
        network.build().context("build the test network")?;
        Ok(network)
    }

    fn build(&self) -> Result<()> {
        ip(&["link", "add", &self.label, "type", "bridge"])?;
        ip(&[
            "addr",
            "add",
            &format!("{}.1/24", self.subnet),
            "dev",
            &self.label,
        ])?;
        ip(&["link", "set", &self.label, "up"])?;
        for member in 0..self.members {
            let (space, outer) = (self.namespace(member), self.outer(member));
            ip(&["netns", "add", &space])?;
            ip(&[
                "link", "add", &outer, "type", "veth", "peer", "name", "eth0", "netns", &space,
            ])?;
            ip(&["link", "set", &outer, "master", &self.label, "up"])?;
            ip(&[
                "-n",
                &space,
                "addr",
                "add",
                &format!("{}/24", self.address(member)),
                "dev",
                "eth0",
            ])?;
            ip(&["-n", &space, "link", "set", "eth0", "up"])?;
            ip(&["-n", &space, "link", "set", "lo", "up"])?;
        }
        Ok(())
    }

    /// Address of a member.
    #[must_use]
    pub fn address(&self, member: usize) -> String {
        format!("{}.{}", self.subnet, FIRST_HOST + member)
    }

    /// Address of the bridge, which every member reaches: for servers outside the namespaces.
    #[must_use]
    pub fn gateway(&self) -> String {
        format!("{}.1", self.subnet)
    }

    /// Gives every member an `/etc/resolv.conf` of its own that names this server (at port 53).
    ///
    /// # Errors
    /// When the files below `/etc/netns` cannot be written.
    pub fn resolve_with(&self, server: IpAddr) -> Result<()> {
        for member in 0..self.members {
            let dir = self.etc(member);
            fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
            fs::write(dir.join("resolv.conf"), format!("nameserver {server}\n"))
                .with_context(|| format!("write resolv.conf in {}", dir.display()))?;
        }
        Ok(())
    }

    /// Where `ip netns exec` looks for files that the namespace sees in `/etc`.
    fn etc(&self, member: usize) -> PathBuf {
        Path::new("/etc/netns").join(self.namespace(member))
    }

    /// Moves a node that is not running into the member's namespace.
    pub fn house(&self, member: usize, node: &mut Node) {
        node.prefix = ["ip", "netns", "exec"].map(str::to_owned).to_vec();
        node.prefix.push(self.namespace(member));
        node.http = format!("{}:4001", self.address(member));
        node.raft = format!("{}:4002", self.address(member));
    }

    /// Lets nothing pass any more from one member to another; the other direction stays.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn cut(&self, from: usize, to: usize) -> Result<()> {
        ip(&[
            "-n",
            &self.namespace(from),
            "route",
            "replace",
            "blackhole",
            &self.address(to),
        ])
    }

    /// Ends every cut.
    pub fn heal(&self) {
        for from in 0..self.members {
            for to in 0..self.members {
                let _ = ip(&[
                    "-n",
                    &self.namespace(from),
                    "route",
                    "del",
                    "blackhole",
                    &self.address(to),
                ]);
            }
        }
    }

    /// Cuts every way between two groups, in both directions.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn split(&self, one: &[usize], other: &[usize]) -> Result<()> {
        for &left in one {
            for &right in other {
                self.cut(left, right)?;
                self.cut(right, left)?;
            }
        }
        Ok(())
    }

    fn namespace(&self, member: usize) -> String {
        format!("{}n{member}", self.label)
    }

    fn outer(&self, member: usize) -> String {
        format!("{}v{member}", self.label)
    }

    fn delete(&self) {
        for member in 0..self.members {
            let _ = ip(&["netns", "del", &self.namespace(member)]);
            let _ = ip(&["link", "del", &self.outer(member)]);
            let _ = fs::remove_dir_all(self.etc(member));
        }
        let _ = ip(&["link", "del", &self.label]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.delete();
    }
}

fn ip(args: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(args).output().context("run ip")?;
    if !output.status.success() {
        bail!(
            "ip {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reaches(network: &Network, from: usize, to: usize) -> bool {
        // A refused connection proves that packets go there and back.
        let target = format!("exec 3<>/dev/tcp/{}/9", network.address(to));
        let words = [
            "netns",
            "exec",
            &network.namespace(from),
            "timeout",
            "0.5",
            "bash",
            "-c",
            &target,
        ];
        let output = Command::new("ip").args(words).output().unwrap();
        String::from_utf8_lossy(&output.stderr).contains("refused")
    }

    #[test]
    fn cuts_are_between_pairs_and_heal() {
        if let Some(reason) = unavailable() {
            println!("skipped: {reason}");
            return;
        }
        let network = Network::new(3).unwrap();
        assert!(reaches(&network, 0, 1) && reaches(&network, 1, 2));
        network.cut(0, 1).unwrap();
        assert!(!reaches(&network, 0, 1));
        assert!(reaches(&network, 0, 2) && reaches(&network, 2, 1));
        network.heal();
        assert!(reaches(&network, 0, 1));
    }
}
