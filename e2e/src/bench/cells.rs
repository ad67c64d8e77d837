//! The measurements ("cells"), and the nodes that are started for them.
use std::{path::Path, thread, time::Duration};

use anyhow::{Context, Result};

use crate::{
    bench::{
        ceiling::Ceiling,
        disk, faults,
        load::{self, Target},
        memory, node,
        options::Options,
        report::{Cell, Report},
        requests,
    },
    client::Client,
    cluster::Cluster,
    process::Node,
    wait,
};

/// Numbers of connections of the load.
pub const CONNECTIONS: [usize; 4] = [1, 16, 64, 256];
/// Read consistency levels of the point reads.
pub const LEVELS: [&str; 3] = ["none", "weak", "linearizable"];

/// Measures the disk, SQLite and the parse-only server.
///
/// # Errors
/// If one of them fails.
pub fn measure_ceilings(options: &Options, work: &Path, report: &mut Report) -> Result<()> {
    if options.wants("ceiling/fdatasync") {
        report.add(Cell::rate(
            "ceiling/fdatasync",
            "appends/s",
            disk::synced_appends(work, options.cell)?,
        ));
    }
    if options.wants("ceiling/sqlite-batch64") {
        report.add(Cell::rate(
            "ceiling/sqlite-batch64",
            "rows/s",
            disk::sqlite_inserts(work, options.cell)?,
        ));
    }
    let sets = [
        ("ceiling/insert", requests::inserts()),
        ("ceiling/select", requests::selects("none")),
    ];
    let mut ceiling = None;
    for (name, set) in &sets {
        for connections in wanted(options, name) {
            let server = match &ceiling {
                Some(server) => server,
                None => ceiling.insert(Ceiling::start()?),
            };
            measure(options, report, name, &server.addr, connections, set)?;
        }
    }
    if let Some(ceiling) = &ceiling {
        report.add(Cell::rate(
            "ceiling/memory-peak",
            "MiB",
            memory::of(ceiling.pid())?.peak,
        ));
    }
    Ok(())
}

/// Measures a single node.
///
/// # Errors
/// If it does not start or fails under load.
pub fn measure_one_node(options: &Options, work: &Path, report: &mut Report) -> Result<()> {
    let areas = [
        "one/insert",
        "one/select-none",
        "one/select-weak",
        "one/select-linearizable",
    ];
    if !any_wanted(options, &areas) && !options.wants("one/checkpoint/64") {
        return Ok(());
    }
    let mut node = node::bench_node("1", work)?;
    node.start_and_ready()?;
    report.add(Cell::rate(
        "one/memory-idle",
        "MiB",
        resident(&node)?.resident,
    ));
    set_up(&mut node.client())?;
    for level in LEVELS {
        let name = format!("one/select-{level}");
        for connections in wanted(options, &name) {
            measure(
                options,
                report,
                &name,
                &node.http,
                connections,
                &requests::selects(level),
            )?;
        }
    }
    for connections in wanted(options, "one/insert") {
        measure(
            options,
            report,
            "one/insert",
            &node.http,
            connections,
            &requests::inserts(),
        )?;
    }
    if options.wants("one/checkpoint/64") {
        measure_checkpoint(options, report, &node)?;
    }
    report.add(Cell::rate("one/memory-peak", "MiB", resident(&node)?.peak));
    node.stop().map(|_| ())
}

/// Measures three nodes through the leader and through a follower, and the failover.
///
/// # Errors
/// If they do not form a cluster or fail under load.
pub fn measure_three_nodes(options: &Options, work: &Path, report: &mut Report) -> Result<()> {
    let loads = three_node_loads(options);
    if loads.is_empty() && !options.wants("three/failover") {
        return Ok(());
    }
    let nodes = ["1", "2", "3"]
        .iter()
        .map(|name| node::bench_node(name, work))
        .collect::<Result<Vec<_>>>()?;
    let mut cluster = Cluster::of(nodes);
    cluster.form()?;
    let (leader, follower) = (cluster.leader()?, cluster.follower()?);
    report.add(Cell::rate(
        "three/memory-idle",
        "MiB",
        worst(&cluster, |memory| memory.resident)?,
    ));
    set_up(&mut cluster.client(leader))?;
    for (name, connections, set) in &loads {
        let asked = if name.starts_with("three/leader") {
            leader
        } else {
            follower
        };
        measure(
            options,
            report,
            name,
            &cluster[asked].http,
            *connections,
            set,
        )?;
    }
    report.add(Cell::rate(
        "three/memory-peak",
        "MiB",
        worst(&cluster, |memory| memory.peak)?,
    ));
    if options.wants("three/failover") {
        report.add(faults::failover(options, &mut cluster)?);
    }
    Ok(())
}

/// Name, connections and requests of each load. Reads come first, so that they run against a small table.
fn three_node_loads(options: &Options) -> Vec<(String, usize, Vec<Vec<u8>>)> {
    let mut loads = Vec::new();
    for level in LEVELS {
        let name = format!("three/leader/select-{level}");
        loads.extend(
            wanted(options, &name)
                .into_iter()
                .map(|count| (name.clone(), count, requests::selects(level))),
        );
        // One number of connections is enough to show the cost of forwarding by a follower.
        let name = format!("three/follower/select-{level}");
        if options.wants(&format!("{name}/64")) {
            loads.push((name, 64, requests::selects(level)));
        }
    }
    for name in ["three/leader/insert", "three/follower/insert"] {
        loads.extend(
            wanted(options, name)
                .into_iter()
                .map(|count| (name.to_owned(), count, requests::inserts())),
        );
    }
    loads
}

fn set_up(client: &mut Client) -> Result<()> {
    requests::SETUP
        .iter()
        .try_for_each(|sql| client.execute(sql, &[]).map(|_| ()))
}

fn wanted(options: &Options, name: &str) -> Vec<usize> {
    CONNECTIONS
        .into_iter()
        .filter(|count| options.wants(&format!("{name}/{count}")))
        .collect()
}

fn any_wanted(options: &Options, areas: &[&str]) -> bool {
    areas.iter().any(|area| !wanted(options, area).is_empty())
}

fn measure(
    options: &Options,
    report: &mut Report,
    name: &str,
    addr: &str,
    connections: usize,
    requests: &[Vec<u8>],
) -> Result<()> {
    let name = format!("{name}/{connections}");
    let load = load::run(&Target::plain(addr), connections, options.cell, requests)
        .with_context(|| name.clone())?;
    report.add(Cell::load(&name, &load));
    Ok(())
}

/// Inserts over 64 connections while two checkpoints are requested.
fn measure_checkpoint(options: &Options, report: &mut Report, node: &Node) -> Result<()> {
    let name = "one/checkpoint/64";
    let set = requests::inserts();
    let load = thread::scope(|scope| {
        let asking = scope.spawn(|| request_checkpoints(&mut node.client(), options.cell / 3));
        let load = load::run(&Target::plain(&node.http), 64, options.cell, &set).context(name)?;
        asking
            .join()
            .map_err(|_| anyhow::anyhow!("the checkpoint thread panicked"))??;
        Ok::<_, anyhow::Error>(load)
    })?;
    report.add(Cell::load(name, &load));
    Ok(())
}

fn request_checkpoints(client: &mut Client, apart: Duration) -> Result<()> {
    for _ in 0..2 {
        wait::sleep(apart);
        let reply = client.post("/snapshot", "")?;
        anyhow::ensure!(
            matches!(reply.status, 200 | 204),
            "/snapshot: {} {}",
            reply.status,
            reply.text()
        );
    }
    Ok(())
}

fn resident(node: &Node) -> Result<memory::Memory> {
    memory::of(node.pid().context("the node does not run")?)
}

fn worst(cluster: &Cluster, field: impl Fn(&memory::Memory) -> f64) -> Result<f64> {
    let all = cluster.iter().map(resident).collect::<Result<Vec<_>>>()?;
    Ok(all.iter().map(field).fold(0.0, f64::max))
}
