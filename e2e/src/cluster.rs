//! A group of nodes: forms a cluster, finds its leader, compares the nodes' data.
use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    client::Client,
    link::Link,
    process::{Node, PROCESS_LIMIT},
    wait,
};

/// How long an election, a join or catching up may take before a test fails.
pub const SETTLE_LIMIT: Duration = Duration::from_secs(30);

/// Nodes in the order in which they were added.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
}

impl Deref for Cluster {
    type Target = Vec<Node>;
    fn deref(&self) -> &Vec<Node> {
        &self.nodes
    }
}

impl DerefMut for Cluster {
    fn deref_mut(&mut self) -> &mut Vec<Node> {
        &mut self.nodes
    }
}

impl Cluster {
    /// Nodes that the caller has configured; starts nothing.
    #[must_use]
    pub fn of(nodes: Vec<Node>) -> Self {
        Self { nodes }
    }

    /// A cluster of three nodes with these flags, and for each node the link through which the others reach
    /// it.
    ///
    /// # Errors
    /// If a link cannot listen or the cluster does not form.
    pub fn linked(args: &[&str]) -> Result<(Self, Vec<Link>)> {
        let mut nodes = Vec::new();
        let mut links = Vec::new();
        for name in ["1", "2", "3"] {
            let mut node = Node::new(name)?.with(args);
            let link = Link::to(&node.raft)?;
            node.raft_adv = Some(link.addr.clone());
            links.push(link);
            nodes.push(node);
        }
        let mut cluster = Self::of(nodes);
        cluster.form()?;
        Ok((cluster, links))
    }

    /// `count` nodes named `1`, `2`, …: the first bootstraps alone, the others join it one after the other.
    /// All are ready on return.
    ///
    /// # Errors
    /// If a node does not start, join or become ready.
    pub fn start(count: usize) -> Result<Self> {
        Self::start_with(count, &[])
    }

    /// Like [`Cluster::start`] with additional flags for each node.
    ///
    /// # Errors
    /// If a node does not start, join or become ready.
    pub fn start_with(count: usize, args: &[&str]) -> Result<Self> {
        let nodes = (1..=count)
            .map(|number| Ok(Node::new(&number.to_string())?.with(args)))
            .collect::<Result<_>>()?;
        let mut cluster = Self { nodes };
        cluster.form()?;
        Ok(cluster)
    }

    /// Starts configured nodes: the first alone, the others with `-join` to it. The flag is then removed, so
    /// that a restart uses stored state only.
    ///
    /// # Errors
    /// If a node does not start, join or become ready.
    pub fn form(&mut self) -> Result<()> {
        let (first, others) = self.nodes.split_first_mut().context("no nodes")?;
        first.start_and_ready()?;
        for node in others {
            join_and_settle(node, first.advertised())?;
        }
        Ok(())
    }

    /// Starts another node that joins through the node at index `through`.
    ///
    /// # Errors
    /// If it does not join and become ready.
    pub fn join(&mut self, mut node: Node, through: usize) -> Result<&mut Node> {
        let target = self
            .nodes
            .get(through)
            .context("no such node")?
            .advertised()
            .to_owned();
        join_and_settle(&mut node, &target)?;
        self.nodes.push(node);
        self.nodes.last_mut().context("no nodes")
    }

    /// Index of the leader, once all running nodes agree on a leader that is running.
    ///
    /// # Errors
    /// If they do not agree within [`SETTLE_LIMIT`].
    pub fn leader(&mut self) -> Result<usize> {
        let mut seen = None;
        wait::until("all nodes to agree on one leader", SETTLE_LIMIT, || {
            seen = Some(self.agreed_leader()?);
            Ok(())
        })?;
        seen.context("no leader")
    }

    fn agreed_leader(&mut self) -> Result<usize, String> {
        let mut views = Vec::new();
        for node in &mut self.nodes {
            if node.is_running() {
                views.push(node.client().timeout(Duration::from_secs(2)).leader());
            }
        }
        let first = views
            .first()
            .cloned()
            .flatten()
            .ok_or_else(|| format!("leaders {views:?}"))?;
        let leader = self.nodes.iter().position(|node| node.name == first);
        match leader {
            Some(leader)
                if views.iter().all(|view| view.as_ref() == Some(&first))
                    && self.nodes[leader].is_running() =>
            {
                Ok(leader)
            }
            _ => Err(format!("leaders {views:?}")),
        }
    }

    /// Index of a running node that is not the leader.
    ///
    /// # Errors
    /// If there is no leader or no other running node.
    pub fn follower(&mut self) -> Result<usize> {
        let leader = self.leader()?;
        (0..self.nodes.len())
            .find(|&index| index != leader && self.nodes[index].is_running())
            .context("no running follower")
    }

    /// A client for the node at `index`.
    #[must_use]
    pub fn client(&self, index: usize) -> Client {
        self.nodes[index].client()
    }

    /// Waits until every running node returns the same rows for `sql` at level `none`, and returns those
    /// rows.
    ///
    /// # Errors
    /// If they still differ after [`SETTLE_LIMIT`].
    pub fn agreed_rows(&mut self, sql: &str) -> Result<String> {
        let mut clients: Vec<Client> = self.running_clients();
        wait::until(&format!("equal rows of {sql}"), SETTLE_LIMIT, || {
            let mut views = Vec::new();
            for client in &mut clients {
                let rows = client
                    .rows("none", sql, &[])
                    .map_err(|error| format!("{error:#}"))?;
                views.push(format!("{rows:?}"));
            }
            all_equal(&views).ok_or_else(|| views.join("\n  against "))
        })
    }

    /// Waits until the databases of all running nodes are equal as SQL dumps, and returns the dump.
    ///
    /// # Errors
    /// If they still differ after [`SETTLE_LIMIT`].
    pub fn agreed_dump(&mut self) -> Result<String> {
        let mut clients: Vec<Client> = self.running_clients();
        wait::until("equal databases", SETTLE_LIMIT, || {
            let dumps = clients
                .iter_mut()
                .map(dump)
                .collect::<Result<Vec<_>, String>>()?;
            all_equal(&dumps).ok_or_else(|| first_difference(&dumps))
        })
    }

    fn running_clients(&mut self) -> Vec<Client> {
        self.nodes
            .iter_mut()
            .filter_map(|node| node.is_running().then(|| node.client()))
            .collect()
    }

    /// Runs `PRAGMA integrity_check` on every running node's own database.
    ///
    /// # Errors
    /// If one reports a problem.
    pub fn check_integrity(&mut self) -> Result<()> {
        for client in &mut self.running_clients() {
            let rows = client.rows("none", "PRAGMA integrity_check", &[])?;
            if rows != [["ok"]] {
                bail!("integrity_check at {}: {rows:?}", client.addr());
            }
        }
        Ok(())
    }

    /// Fails if any node's log contains a panic.
    ///
    /// # Errors
    /// Names the node and shows the end of its log.
    pub fn check_no_panic(&self) -> Result<()> {
        for node in &self.nodes {
            check_no_panic(node)?;
        }
        Ok(())
    }

    /// Kills every node and restarts it with its current flags. All are ready on return.
    ///
    /// # Errors
    /// If a node does not come back.
    pub fn crash_all(&mut self) -> Result<()> {
        self.nodes.iter_mut().try_for_each(Node::kill)?;
        self.nodes.iter_mut().try_for_each(Node::start)?;
        self.nodes
            .iter_mut()
            .try_for_each(|node| node.wait_ready(PROCESS_LIMIT))
    }
}

/// Starts a node with `-join` for this start only and waits until it is a member in its final role. Readiness
/// alone is not enough: a node is ready as soon as it knows its leader, which is slightly earlier.
fn join_and_settle(node: &mut Node, target: &str) -> Result<()> {
    node.args.push(format!("-join={target}"));
    node.start_and_ready()?;
    node.args.pop();
    let votes = !node
        .args
        .iter()
        .any(|arg| arg.starts_with("-raft-non-voter"));
    let (name, mut client) = (node.name.clone(), node.client());
    let joined = wait::until(&format!("node {name} as a member"), SETTLE_LIMIT, || {
        let nodes = client
            .get_json("/nodes?nonvoters")
            .map_err(|error| format!("{error:#}"))?;
        if nodes[&name]["voter"] == votes {
            Ok(())
        } else {
            Err(nodes.to_string())
        }
    });
    joined.with_context(|| format!("log of node {}:\n{}", node.name, node.log_tail()))
}

/// Fails if the node's log contains a panic.
///
/// # Errors
/// Names the node and shows the panic's context in the log.
pub fn check_no_panic(node: &Node) -> Result<()> {
    let log = node.log();
    if let Some(at) = log.find("panicked") {
        let from = log[..at].rfind('\n').map_or(0, |line| line + 1);
        bail!(
            "node {} panicked: {}",
            node.name,
            log[from..].lines().take(5).collect::<Vec<_>>().join(" | ")
        );
    }
    Ok(())
}

fn dump(client: &mut Client) -> Result<String, String> {
    let reply = client
        .get("/db/backup?fmt=sql&noleader")
        .map_err(|error| error.to_string())?;
    if reply.status == 200 {
        Ok(reply.text())
    } else {
        Err(format!("{} {}", reply.status, reply.text()))
    }
}

fn all_equal(views: &[String]) -> Option<String> {
    let first = views.first()?;
    views
        .iter()
        .all(|view| view == first)
        .then(|| first.clone())
}

fn first_difference(dumps: &[String]) -> String {
    let first = dumps.first().map(String::as_str).unwrap_or_default();
    for (index, other) in dumps.iter().enumerate().skip(1) {
        for (number, pair) in first.lines().zip(other.lines()).enumerate() {
            if pair.0 != pair.1 {
                return format!(
                    "line {number}: node 0 has {:.200} and node {index} has {:.200}",
                    pair.0, pair.1
                );
            }
        }
        if first.len() != other.len() {
            return format!(
                "node 0 has {} bytes and node {index} has {}",
                first.len(),
                other.len()
            );
        }
    }
    "equal".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_shown() {
        let dumps = ["a\nb\n", "a\nb\n", "a\nc\n"].map(str::to_owned);
        assert_eq!(
            first_difference(&dumps),
            "line 1: node 0 has b and node 2 has c"
        );
        assert_eq!(
            first_difference(&["a\n".to_owned(), "a\nb\n".to_owned()]),
            "node 0 has 2 bytes and node 1 has 4"
        );
    }

    #[test]
    fn equality_needs_at_least_one_view() {
        assert_eq!(all_equal(&[]), None);
        assert_eq!(all_equal(&["x".to_owned()]), Some("x".to_owned()));
        assert_eq!(all_equal(&["x".to_owned(), "y".to_owned()]), None);
    }
}
