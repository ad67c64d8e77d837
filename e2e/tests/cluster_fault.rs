//! Three nodes under attack: nothing acknowledged is lost or doubled, all nodes end equal, registers are linearizable.
//!
//! `FAULT_SECONDS` (default 20) sets how long, `FAULT_SEED` repeats an attack.
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

/// Each node's disk: room for some thousand rows, the log behind a checkpoint, and an endless write that is stopped in time.
const DISK_MIB: u64 = 192;
/// Flags of attacked nodes: snapshots happen during the attack too.
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

/// Careless users, disks that fill up, and nodes that come back at another address; see `fault/users.rs`.
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
