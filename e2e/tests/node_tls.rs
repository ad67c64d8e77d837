//! TLS between nodes: a cluster moves to it, and from one authority to another, while clients write.
use std::thread;

use anyhow::{Context, Result, ensure};
use e2e::{
    authority::{Authority, Issued, Leaf},
    client::Client,
    cluster::{Cluster, SETTLE_LIMIT},
    fault::{
        self,
        workload::{self, Shared},
    },
    history::{self, NumberedWrite},
    membership::await_members,
    mounted::Mounted,
    process::Node,
    seed::Seed,
    wait,
};
use serde_json::Value;

/// The members of a cluster of three.
const THREE: [(&str, bool); 3] = [("1", true), ("2", true), ("3", true)];
/// Writers at a time.
const WRITERS: u64 = 3;

/// Runs `work` while clients write; adds what they wrote to `writes`.
fn under_writers(
    cluster: &mut Cluster,
    writes: &mut Vec<NumberedWrite>,
    seed: &mut Seed,
    work: impl FnOnce(&mut Cluster) -> Result<()>,
) -> Result<()> {
    let shared = &Shared::new(cluster.iter().map(|node| node.http.clone()).collect());
    let first = writes
        .iter()
        .map(|write| write.writer + 1)
        .max()
        .unwrap_or(0);
    thread::scope(|scope| {
        let writers: Vec<_> = (first..first + WRITERS)
            .map(|writer| (writer, seed.fork()))
            .map(|(writer, seed)| {
                scope.spawn(move || workload::write_numbered(shared, writer, seed))
            })
            .collect();
        let done = work(cluster);
        shared.stop();
        for writer in writers {
            let written = writer.join();
            writes.extend(written.map_err(|_| anyhow::anyhow!("a writer panicked"))?);
        }
        done
    })
}

fn report(what: &str, writes: &[NumberedWrite]) {
    println!("{what}: {:?}", history::tally(writes));
    for (count, reason) in history::reasons(writes).into_iter().take(8) {
        println!("{count:>6} {reason}");
    }
}

fn leaf(authority: &Authority, name: &str) -> Result<Issued> {
    authority.issue(&Leaf::for_loopback(name))
}

/// One node after the other restarts with more flags.
fn roll(cluster: &mut Cluster, flags: impl Fn(usize) -> Vec<String>) -> Result<()> {
    for index in 0..cluster.len() {
        let node = &mut cluster[index];
        node.stop()?;
        node.args.extend(flags(index));
        node.start_and_ready()
            .with_context(|| format!("node {} with {:?}", node.name, node.args))?;
    }
    Ok(())
}

/// `security.node_tls` of a node.
fn security(client: &mut Client) -> Result<Value> {
    Ok(client.get_json("/status")?["security"]["node_tls"].clone())
}

/// Waits until every node reports `expected` authorities and another certificate than those in `former`.
fn await_certificates(cluster: &Cluster, authorities: usize, former: &[String]) -> Result<()> {
    for node in cluster.iter() {
        let mut client = node.client();
        let what = format!("{authorities} authorities at node {}", node.name);
        wait::until(&what, SETTLE_LIMIT, || {
            let tls = security(&mut client).map_err(|e| format!("{e:#}"))?;
            let trusted = tls["trusted_sha256"].as_array().map_or(0, Vec::len);
            let leaf = tls["leaf_sha256"].as_str().unwrap_or_default();
            let taken = trusted == authorities && !former.iter().any(|old| old == leaf);
            if taken { Ok(()) } else { Err(tls.to_string()) }
        })?;
    }
    Ok(())
}

fn leaves(cluster: &Cluster) -> Result<Vec<String>> {
    let leaf = |node: &Node| {
        let tls = security(&mut node.client())?;
        let leaf = tls["leaf_sha256"].as_str();
        leaf.map(ToOwned::to_owned).context("no fingerprint")
    };
    cluster.iter().map(leaf).collect()
}

fn term(cluster: &Cluster) -> Result<Value> {
    let status = cluster.client(0).get_json("/status")?;
    Ok(status["store"]["raft"]["term"].clone())
}

#[test]
fn a_cluster_moves_to_tls_and_to_another_authority_under_writers() -> Result<()> {
    let (old, new) = (Authority::new("old")?, Authority::new("new")?);
    let mut cluster = Cluster::start(3)?;
    let mut mounted: Vec<Mounted> = cluster
        .iter()
        .map(|node| Mounted::new(&leaf(&old, &node.name)?, &[old.pem()]))
        .collect::<Result<_>>()?;
    cluster.client(0).execute(workload::NUMBERED_TABLE, &[])?;
    let (mut writes, mut seed) = (Vec::new(), Seed::new(18));

    under_writers(&mut cluster, &mut writes, &mut seed, |cluster| {
        roll(cluster, |index| {
            let mut flags = mounted[index].flags("node");
            flags.extend(["-node-verify-client", "-node-tls-stage=accept"].map(str::to_owned));
            flags
        })?;
        for stage in ["use", "require"] {
            roll(cluster, |_| vec![format!("-node-tls-stage={stage}")])?;
        }
        Ok(())
    })?;
    report("three stages", &writes);
    for node in cluster.iter() {
        let status = node.client().get_json("/status")?;
        ensure!(status["mux"]["tls"] == "enabled", "{}", status["mux"]);
        let tls = &status["security"]["node_tls"];
        ensure!(tls["stage"] == "require", "{tls}");
    }

    // Files only, no restart, no election.
    let before = term(&cluster)?;
    let moved = writes.len();
    under_writers(&mut cluster, &mut writes, &mut seed, |cluster| {
        for (mounted, node) in mounted.iter_mut().zip(cluster.iter()) {
            mounted.put(&leaf(&old, &node.name)?, &[old.pem(), new.pem()])?;
        }
        await_certificates(cluster, 2, &[])?;
        let former = leaves(cluster)?;
        for (mounted, node) in mounted.iter_mut().zip(cluster.iter()) {
            mounted.put(&leaf(&new, &node.name)?, &[old.pem(), new.pem()])?;
        }
        await_certificates(cluster, 2, &former)?;
        for (mounted, node) in mounted.iter_mut().zip(cluster.iter()) {
            mounted.put(&leaf(&new, &node.name)?, &[new.pem()])?;
        }
        await_certificates(cluster, 1, &former)?;
        // Connections of the old authority's time are closed 30 s later, by the node at either end.
        let what = "connections whose certificates are not trusted any more to close";
        wait::until(what, 2 * SETTLE_LIMIT, || {
            let closed = |node: &Node| node.log().contains("certificates are not trusted any more");
            if cluster.iter().any(closed) {
                return Ok(());
            }
            Err(cluster.iter().map(Node::log_tail).collect::<String>())
        })?;
        wait::sleep(std::time::Duration::from_secs(2));
        Ok(())
    })?;
    let rotated = writes.get(moved..).unwrap_or_default();
    report("another authority", rotated);
    let tally = history::tally(rotated);
    ensure!(tally.refused + tally.unknown == 0, "{tally:?}");
    ensure!(term(&cluster)? == before, "an election at {before}");
    let former = Mounted::new(&leaf(&old, "9")?, &[old.pem(), new.pem()])?;
    let log = rejected(&cluster, &flags(&former, &[]))?;
    let expected = "it does not trust the authority of the certificate";
    ensure!(log.contains(expected), "{log}");
    fault::verify_writes(&mut cluster, &writes)?;
    cluster.crash_all()?;
    fault::verify_writes(&mut cluster, &writes)?;
    cluster.check_no_panic()
}

/// A cluster of three nodes with TLS.
fn secured(authority: &Authority) -> Result<(Cluster, Vec<Mounted>)> {
    let mut nodes = Vec::new();
    let mut mounted = Vec::new();
    for name in ["1", "2", "3"] {
        let files = Mounted::new(&leaf(authority, "member")?, &[authority.pem()])?;
        let mut node = Node::new(name)?;
        node.args.extend(files.flags("node"));
        node.args
            .extend(["-node-verify-client", "-node-verify-common-name=member"].map(str::to_owned));
        nodes.push(node);
        mounted.push(files);
    }
    let mut cluster = Cluster::of(nodes);
    cluster.form()?;
    Ok((cluster, mounted))
}

#[test]
fn a_cluster_moves_back_to_plain_under_writers() -> Result<()> {
    let authority = Authority::new("ours")?;
    let (mut cluster, _files) = secured(&authority)?;
    cluster.client(0).execute(workload::NUMBERED_TABLE, &[])?;
    let mut writes = Vec::new();
    under_writers(&mut cluster, &mut writes, &mut Seed::new(19), |cluster| {
        for stage in ["use", "accept"] {
            roll(cluster, |_| vec![format!("-node-tls-stage={stage}")])?;
        }
        for index in 0..cluster.len() {
            let node = &mut cluster[index];
            node.stop()?;
            node.args.retain(|flag| !flag.starts_with("-node-"));
            node.start_and_ready()?;
        }
        Ok(())
    })?;
    report("back to plain", &writes);
    let status = cluster.client(0).get_json("/status")?;
    ensure!(status["mux"]["tls"] == "disabled", "{}", status["mux"]);
    fault::verify_writes(&mut cluster, &writes)?;
    cluster.check_no_panic()
}

/// What a node that wants to join `cluster` with these flags logs when it gives up.
fn rejected(cluster: &Cluster, flags: &[String]) -> Result<String> {
    let mut node = Node::new("9")?.with(&["-join-attempts=1", "-join-interval=100ms"]);
    node.args.extend_from_slice(flags);
    node.args.push(format!("-join={}", cluster[0].raft));
    node.start()?;
    let status = node.wait_exit(SETTLE_LIMIT)?;
    ensure!(!status.success(), "it ended well: {}", node.log());
    Ok(node.log())
}

fn flags(files: &Mounted, more: &[&str]) -> Vec<String> {
    let mut flags = files.flags("node");
    flags.extend(more.iter().map(|&flag| flag.to_owned()));
    flags
}

#[test]
fn who_lacks_the_right_certificate_does_not_join_and_sees_why() -> Result<()> {
    let (ours, theirs) = (Authority::new("ours")?, Authority::new("theirs")?);
    let (mut cluster, _files) = secured(&ours)?;
    let files =
        |authority: &Authority, leaf: &Leaf| Mounted::new(&authority.issue(leaf)?, &[ours.pem()]);
    let member = Leaf::for_loopback("member");
    let outsider = files(&theirs, &member)?;
    let misnamed = files(&ours, &Leaf::for_loopback("somebody"))?;
    let expired = files(&ours, &member.clone().expired())?;
    let early = files(&ours, &member.clone().not_yet_valid())?;
    let server_only = files(&ours, &member.clone().only_for_servers())?;
    let right = files(&ours, &member)?;
    let cases = [
        ("no TLS", Vec::new(), "it may require TLS (-node-cert)"),
        (
            "another authority",
            flags(&outsider, &[]),
            "it does not trust the authority of the certificate",
        ),
        (
            "another common name",
            flags(&misnamed, &[]),
            "it does not accept the certificate",
        ),
        (
            "expired",
            flags(&expired, &[]),
            "the certificate has expired, or is not valid yet",
        ),
        (
            "not valid yet",
            flags(&early, &[]),
            "the certificate has expired, or is not valid yet",
        ),
        (
            "not for clients",
            flags(&server_only, &[]),
            "it does not accept the certificate",
        ),
        (
            "still at the first stage",
            flags(&right, &["-node-tls-stage=accept"]),
            "it may require TLS (-node-cert)",
        ),
        (
            "another server expected",
            flags(&right, &["-node-verify-server-name=db.example"]),
            "the certificate of the other side is refused",
        ),
    ];
    for (name, flags, expected) in cases {
        let log = rejected(&cluster, &flags).context(name)?;
        ensure!(
            log.contains(expected),
            "{name}: expected {expected:?} in\n{log}"
        );
    }
    await_members(&mut cluster.client(0), &THREE)?;
    // The right one joins, also with a name of its own choice for servers.
    let mut node = Node::new("4")?;
    node.args
        .extend(flags(&right, &["-node-verify-server-name=localhost"]));
    cluster.join(node, 0)?;
    let counters = cluster.client(0).get_json("/debug/vars")?;
    let count = |path: &str| counters.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    ensure!(count("/mux/num_plain_refused") >= 2, "{}", counters["mux"]);
    ensure!(
        count("/tls/node_handshake_failures") >= 5,
        "{}",
        counters["tls"]
    );
    cluster.check_no_panic()
}

#[test]
fn a_node_with_tls_sees_why_a_plain_cluster_does_not_answer_it() -> Result<()> {
    let authority = Authority::new("ours")?;
    let files = Mounted::new(&leaf(&authority, "9")?, &[authority.pem()])?;
    let cluster = Cluster::start(1)?;
    let log = rejected(&cluster, &flags(&files, &[]))?;
    ensure!(
        log.contains("it may have no TLS (-node-cert there)"),
        "{log}"
    );
    let missing = vec![
        "-node-cert=/nil/c".to_owned(),
        "-node-key=/nil/k".to_owned(),
    ];
    let log = rejected(&cluster, &missing)?;
    ensure!(
        log.contains("-node-cert") && log.contains("/nil/c"),
        "{log}"
    );
    cluster.check_no_panic()
}

#[test]
fn a_certificate_that_is_its_own_authority_works_for_careless_people() -> Result<()> {
    let authority = Authority::new("self")?;
    let files = Mounted::new(authority.own(), &[authority.pem()])?;
    let nodes = ["1", "2"]
        .iter()
        .map(|name| {
            let mut node = Node::new(name)?;
            node.args.extend(flags(&files, &["-node-no-verify"]));
            Ok(node)
        })
        .collect::<Result<_>>()?;
    let mut cluster = Cluster::of(nodes);
    cluster.form()?;
    await_members(&mut cluster.client(1), &[("1", true), ("2", true)])?;
    cluster.check_no_panic()
}
