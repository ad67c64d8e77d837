//! A cluster grows from one node to nine and shrinks back while clients write; read-only nodes join and
//! leave. Nothing is lost.
use std::thread;

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::Cluster,
    fault::{
        verify_writes,
        workload::{NUMBERED_TABLE, Shared, write_numbered},
    },
    history::{self, NumberedWrite},
    membership::{await_members, remove},
    process::Node,
    seed::Seed,
};

/// Cluster sizes, up and down again.
const SIZES: [usize; 9] = [1, 3, 5, 7, 9, 7, 5, 3, 1];
/// Writers on the first node; more would only wait for the same fsync.
const WRITERS: u64 = 3;

#[test]
fn one_to_nine_and_back_under_writers() -> Result<()> {
    let mut cluster = Cluster::start(1)?;
    cluster.client(0).execute(NUMBERED_TABLE, &[])?;
    let shared = &Shared::new(vec![cluster[0].http.clone()]);
    let mut seed = Seed::new(Seed::arbitrary());
    let (changed, writes) = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| (writer, seed.fork()))
            .map(|(writer, seed)| scope.spawn(move || write_numbered(shared, writer, seed)))
            .collect();
        let changed = SIZES
            .iter()
            .try_for_each(|size| resize(&mut cluster, *size).with_context(|| format!("to {size}")));
        shared.stop();
        let writes: Vec<NumberedWrite> = writers
            .into_iter()
            .flat_map(|writer| writer.join().unwrap_or_default())
            .collect();
        (changed, writes)
    });
    println!(
        "{:?} {:#?}",
        history::tally(&writes),
        history::reasons(&writes)
    );
    changed?;
    ensure!(
        history::tally(&writes).acknowledged > 100,
        "the writers hardly wrote: {:?}",
        history::tally(&writes)
    );
    verify_writes(&mut cluster, &writes)
}

/// Adds or removes nodes one at a time. From three nodes on, a read-only node joins and leaves each time.
fn resize(cluster: &mut Cluster, size: usize) -> Result<()> {
    while cluster.len() < size {
        let name = (cluster.len() + 1).to_string();
        let through = cluster.len() - 1;
        cluster.join(Node::new(&name)?, through)?;
    }
    while cluster.len() > size {
        // Removes the last node, leader or not, through the first.
        let mut gone = cluster.pop().context("no node")?;
        remove(&mut cluster.client(0), &gone.name)?;
        gone.stop()?;
    }
    let voters: Vec<(String, bool)> = cluster.iter().map(|n| (n.name.clone(), true)).collect();
    let expected = |extra: Option<&'static str>| {
        let mut all: Vec<(&str, bool)> = voters.iter().map(|(n, v)| (n.as_str(), *v)).collect();
        all.extend(extra.map(|name| (name, false)));
        all
    };
    await_members(&mut cluster.client(0), &expected(None))?;
    if size < 3 {
        return Ok(());
    }
    let reader =
        Node::new("reader")?.with(&["-raft-non-voter=true", "-raft-cluster-remove-shutdown=true"]);
    cluster.join(reader, 1)?;
    await_members(&mut cluster.client(0), &expected(Some("reader")))?;
    let mut reader = cluster.pop().context("no reader")?;
    ensure!(reader.stop()?.success(), "{}", reader.log_tail());
    await_members(&mut cluster.client(0), &expected(None))
}
