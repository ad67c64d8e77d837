//! Fault injection on three nodes: no acknowledged write is lost or duplicated, all nodes end equal,
//! registers are linearizable.
//!
//! `FAULT_SECONDS` (default 20) sets the duration, `FAULT_SEED` repeats an attack.
use anyhow::Result;
use e2e::{
    cluster::Cluster,
    fault::{
        self, AttackPlan,
        nemesis::{Nemesis, NetworkControl},
    },
    netns::{self, Network},
    process::Node,
    small_disk::SmallDisk,
};

/// Size of each node's disk in MiB: room for some thousand rows, the log since the last checkpoint, and an
/// endless write until it is stopped.
const DISK_MIB: u64 = 192;
/// Flags of the nodes: snapshots also happen during the attack.
const ARGS: [&str; 2] = ["-raft-snap=500", "-raft-snap-int=1s"];

#[test]
fn proxied_links() -> Result<()> {
    let plan = AttackPlan::from_env("proxied_links")?;
    let (mut cluster, links) = Cluster::linked(&ARGS)?;
    let mut nemesis = Nemesis::new(cluster.len(), NetworkControl::Links(&links)).with_users(&[]);
    let record = fault::attack(&mut cluster, &mut nemesis, &plan)?;
    fault::verify(&mut cluster, &record)
}

#[test]
fn namespaces() -> Result<()> {
    if let Some(reason) = netns::unavailable() {
        println!("skipped: {reason}");
        return Ok(());
    }
    let plan = AttackPlan::from_env("namespaces")?;
    let network = Network::new(3)?;
    let mut nodes = Vec::new();
    for (member, name) in ["1", "2", "3"].into_iter().enumerate() {
        let mut node = Node::new(name)?.with(&ARGS);
        network.attach(member, &mut node);
        nodes.push(node);
    }
    let mut cluster = Cluster::of(nodes);
    cluster.form()?;
    let mut nemesis = Nemesis::new(cluster.len(), NetworkControl::Network(&network));
    let record = fault::attack(&mut cluster, &mut nemesis, &plan)?;
    fault::verify(&mut cluster, &record)
}

/// Misuse by users, disks that fill up, and nodes that return at another address; see `fault/users.rs`.
#[test]
fn users_and_disks() -> Result<()> {
    let disks = match (0..3)
        .map(|_| SmallDisk::mount(DISK_MIB))
        .collect::<Result<Vec<_>>>()
    {
        Ok(disks) => disks,
        Err(error) => {
            println!("skipped: {error:#}");
            return Ok(());
        }
    };
    let plan = AttackPlan::from_env("users_and_disks")?;
    let nodes = ["1", "2", "3"]
        .into_iter()
        .zip(&disks)
        .map(|(name, disk)| {
            let mut node = Node::new(name)?.with(&ARGS);
            node.data = disk.path().join("data");
            Ok(node)
        })
        .collect::<Result<_>>()?;
    let mut cluster = Cluster::of(nodes);
    cluster.form()?;
    let mut nemesis = Nemesis::new(cluster.len(), NetworkControl::None).with_users(&disks);
    let record = fault::attack(&mut cluster, &mut nemesis, &plan)?;
    fault::verify(&mut cluster, &record)
}
