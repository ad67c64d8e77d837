//! Network namespaces: each node gets its own address, and traffic between any two nodes can be cut in one
//! direction.
//!
//! Needs root and `ip`; without them a test prints a message and is skipped. All nodes are on one bridge. A
//! cut is a blackhole route in the sender's namespace, so it is one-directional, as routing faults are.
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

/// Number of networks created by this process: their names and subnets must differ.
static COUNT: AtomicU16 = AtomicU16::new(0);

/// A bridge with namespaces attached; deleted when the value is dropped.
#[derive(Debug)]
pub struct Network {
    label: String,
    subnet: String,
    members: usize,
}

/// Why namespaces are not available here; `None` if they are.
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
    /// Creates a bridge with `members` namespaces, all connected.
    ///
    /// # Errors
    /// If `ip` fails; see [`unavailable`].
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
        // A killed run may have left namespaces with the same names.
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

    /// Address of the bridge, which every member can reach: for servers outside the namespaces.
    #[must_use]
    pub fn gateway(&self) -> String {
        format!("{}.1", self.subnet)
    }

    /// Gives every member its own `/etc/resolv.conf` that names this server (at port 53).
    ///
    /// # Errors
    /// If the files below `/etc/netns` cannot be written.
    pub fn resolve_with(&self, server: IpAddr) -> Result<()> {
        for member in 0..self.members {
            let dir = self.etc(member);
            fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
            fs::write(dir.join("resolv.conf"), format!("nameserver {server}\n"))
                .with_context(|| format!("write resolv.conf in {}", dir.display()))?;
        }
        Ok(())
    }

    /// Directory whose files `ip netns exec` mounts over those in `/etc`.
    fn etc(&self, member: usize) -> PathBuf {
        Path::new("/etc/netns").join(self.namespace(member))
    }

    /// Moves a node that is not running into the member's namespace.
    pub fn attach(&self, member: usize, node: &mut Node) {
        node.prefix = ["ip", "netns", "exec"].map(str::to_owned).to_vec();
        node.prefix.push(self.namespace(member));
        node.http = format!("{}:4001", self.address(member));
        node.raft = format!("{}:4002", self.address(member));
    }

    /// Drops all traffic from one member to another; the other direction still passes.
    ///
    /// # Errors
    /// If `ip` fails.
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

    /// Removes every cut.
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

    /// Cuts all traffic between two groups, in both directions.
    ///
    /// # Errors
    /// If `ip` fails.
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
        // A refused connection proves that packets pass in both directions.
        let target = format!("exec 3<>/dev/tcp/{}/9", network.address(to));
        let args = [
            "netns",
            "exec",
            &network.namespace(from),
            "timeout",
            "0.5",
            "bash",
            "-c",
            &target,
        ];
        let output = Command::new("ip").args(args).output().unwrap();
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
