//! Three nodes under attack: nothing acknowledged is lost or doubled, all nodes end equal, registers are linearizable.
//!
//! `FAULT_SECONDS` (default 20) sets how long, `FAULT_SEED` repeats an attack.
use anyhow::Result;
use e2e::{
    cluster::Cluster,
    fault::{
        self, Plan,
        nemesis::{Nemesis, Wires},
    },
    netns::{self, Network},
    process::Node,
};

/// Flags of attacked nodes: snapshots happen during the attack too.
const ARGS: [&str; 2] = ["-raft-snap=500", "-raft-snap-int=1s"];

#[test]
fn proxied_links() -> Result<()> {
    let plan = Plan::from_env("proxied_links")?;
    let (mut cluster, links) = Cluster::linked(&ARGS)?;
    let mut nemesis = Nemesis::new(cluster.len(), Wires::Links(&links));
    let outcome = fault::attack(&mut cluster, &mut nemesis, &plan)?;
    fault::judge(&mut cluster, &outcome)
}

#[test]
fn namespaces() -> Result<()> {
    if let Some(reason) = netns::unavailable() {
        println!("skipped: {reason}");
        return Ok(());
    }
    let plan = Plan::from_env("namespaces")?;
    let network = Network::new(3)?;
    let mut nodes = Vec::new();
    for (member, name) in ["1", "2", "3"].into_iter().enumerate() {
        let mut node = Node::new(name)?.with(&ARGS);
        network.house(member, &mut node);
        nodes.push(node);
    }
    let mut cluster = Cluster::of(nodes);
    cluster.form()?;
    let mut nemesis = Nemesis::new(cluster.len(), Wires::Network(&network));
    let outcome = fault::attack(&mut cluster, &mut nemesis, &plan)?;
    fault::judge(&mut cluster, &outcome)
}
