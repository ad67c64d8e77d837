//! Cluster formation by DNS, against a real name server: the documented commands, and a server that
//! misbehaves.
use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Cluster, SETTLE_LIMIT},
    membership::{await_log, await_members, await_rows, await_write, cluster_id, one_cluster},
    netns::{Network, unavailable},
    ports,
    process::{Node, PROCESS_LIMIT},
    servers::{CoreDns, DnsProxy, Tool, dns_proxy::DnsMode, present},
    wait,
};
use serde_json::{Value, json};

const ZONE: &str = "cluster.test";
const COUNT: &str = "SELECT count(*) FROM t";
/// A zone without the cluster's name.
const NOBODY: &str = "other IN A 127.0.0.1";

/// Nodes that differ by address only: 127.0.0.11, 12, …, all on the same two ports, as on separate machines.
struct Hosts {
    http: u16,
    raft: u16,
}

impl Hosts {
    fn new() -> Result<Self> {
        Ok(Self {
            http: ports::reserve()?,
            raft: ports::reserve()?,
        })
    }

    fn ip(number: usize) -> String {
        format!("127.0.0.{}", 10 + number)
    }

    fn node(&self, number: usize, args: &[&str]) -> Result<Node> {
        let mut node = Node::new(&number.to_string())?.with(args);
        node.http = format!("{}:{}", Self::ip(number), self.http);
        node.raft = format!("{}:{}", Self::ip(number), self.raft);
        Ok(node)
    }
}

/// `rqlite` A records for these nodes.
fn records(numbers: &[usize]) -> String {
    let lines: Vec<String> = numbers
        .iter()
        .map(|&number| format!("rqlite IN A {}", Hosts::ip(number)))
        .collect();
    if lines.is_empty() {
        NOBODY.to_owned()
    } else {
        lines.join("\n")
    }
}

fn config(server: impl std::fmt::Display) -> String {
    json!({ "name": format!("rqlite.{ZONE}"), "nameservers": [server.to_string()] }).to_string()
}

fn dns_args(config: &str) -> [String; 3] {
    [
        "-disco-mode=dns".to_owned(),
        format!("-disco-config={config}"),
        "-bootstrap-expect=3".to_owned(),
    ]
}

/// Three nodes with the documented flags.
fn three(hosts: &Hosts, config: &str) -> Result<Cluster> {
    let args = dns_args(config);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let nodes = (1..=3).map(|number| hosts.node(number, &args));
    Ok(Cluster::of(nodes.collect::<Result<_>>()?))
}

fn disco(node: &Node) -> Result<Value> {
    Ok(node.client().get_json("/status")?["disco"].take())
}

/// Waits until the node's `/status.disco` satisfies the condition.
fn await_disco(node: &Node, what: &str, accepts: impl Fn(&Value) -> bool) -> Result<()> {
    wait::until(what, SETTLE_LIMIT, || match disco(node) {
        Ok(seen) if accepts(&seen) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .with_context(|| format!("log of node {}:\n{}", node.name, node.log_tail()))
}

#[test]
fn the_documented_commands_form_a_cluster_that_grows_and_restarts() -> Result<()> {
    if !present(&[Tool::CoreDns])? {
        return Ok(());
    }
    let mut server = CoreDns::start(ZONE, &records(&[1, 2, 3]))?;
    let hosts = Hosts::new()?;
    let config = config(server.addr());
    let mut cluster = three(&hosts, &config)?;
    cluster.iter_mut().try_for_each(Node::start)?;
    one_cluster(&mut cluster)?;
    let expected: Vec<String> = (1..=3)
        .map(|number| format!("{}:{}", Hosts::ip(number), hosts.raft))
        .collect();
    await_disco(&cluster[0], "what the name resolves to", |seen| {
        seen["mode"] == "dns"
            && seen["name"] == format!("rqlite.{ZONE}").as_str()
            && seen["port"] == hosts.raft
            && seen["last_addresses"] == json!(expected)
            && seen["last_contact"].is_string()
            && seen["last_error"].is_null()
    })?;
    // A node started later with the same command joins, even before its own record exists.
    let args = dns_args(&config);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut fourth = hosts.node(4, &args)?;
    fourth.start_and_ready()?;
    cluster.push(fourth);
    one_cluster(&mut cluster)?;
    // Members started with the same commands change nothing, even if the name server is down.
    server.kill();
    let before = cluster_id(&cluster[0])?;
    cluster.crash_all()?;
    one_cluster(&mut cluster)?;
    ensure!(cluster_id(&cluster[0])? == before, "another cluster");
    Ok(())
}

#[test]
fn records_that_come_one_by_one() -> Result<()> {
    if !present(&[Tool::CoreDns])? {
        return Ok(());
    }
    let mut server = CoreDns::start(ZONE, NOBODY)?;
    // A cached negative answer would hide the name for an hour.
    server.set_negative_ttl_secs(3600);
    server.set(&records(&[]))?;
    let hosts = Hosts::new()?;
    let mut cluster = three(&hosts, &config(server.addr()))?;
    for node in cluster.iter_mut() {
        node.start_and_answer()?;
    }
    for node in cluster.iter() {
        await_disco(node, "the missing name as error", |seen| {
            seen["last_error"]
                .as_str()
                .is_some_and(|text| text.contains("does not exist in DNS (NXDOMAIN)"))
        })?;
        await_log(node, "not formed yet: provider lookup failed: ")?;
    }
    for seen in 1..=2 {
        server.set(&records(&(1..=seen).collect::<Vec<_>>()))?;
        for node in cluster.iter() {
            await_disco(node, "the present records", |found| {
                found["last_addresses"]
                    .as_array()
                    .is_some_and(|addresses| addresses.len() == seen)
            })?;
            ensure!(cluster_id(node)?.is_empty(), "formed with {seen} records");
        }
    }
    server.set(&records(&[1, 2, 3]))?;
    one_cluster(&mut cluster)
}

#[test]
fn a_name_server_that_misbehaves_only_delays() -> Result<()> {
    if !present(&[Tool::CoreDns])? {
        return Ok(());
    }
    let server = CoreDns::start(ZONE, &records(&[1, 2, 3]))?;
    let proxy = DnsProxy::to(server.addr())?;
    proxy.set(DnsMode::Dropping);
    let hosts = Hosts::new()?;
    let mut cluster = three(&hosts, &config(proxy.addr()))?;
    for node in cluster.iter_mut() {
        node.start_and_answer()?;
    }
    for (manner, text) in [
        (DnsMode::Dropping, "no name server answered"),
        (DnsMode::Failing, "looking up rqlite.cluster.test"),
    ] {
        proxy.set(manner);
        await_disco(&cluster[0], &format!("{manner:?} as error"), |seen| {
            seen["last_error"]
                .as_str()
                .is_some_and(|e| e.contains(text))
        })?;
        ensure!(cluster_id(&cluster[0])?.is_empty(), "formed by {manner:?}");
    }
    // Delayed and truncated responses, so that TCP is needed: the lookup still succeeds.
    proxy.set(DnsMode::Truncating);
    one_cluster(&mut cluster)?;
    let mut late = {
        let args = dns_args(&config(proxy.addr()));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        hosts.node(4, &args)?
    };
    proxy.set(DnsMode::Slow(Duration::from_millis(700)));
    late.start_and_ready()?;
    cluster.push(late);
    one_cluster(&mut cluster)
}

#[test]
fn service_records_name_each_port_and_any_family() -> Result<()> {
    if !present(&[Tool::CoreDns])? {
        return Ok(());
    }
    let mut nodes = (1..=3)
        .map(|number| Node::new(&number.to_string()))
        .collect::<Result<Vec<_>>>()?;
    let mut lines = Vec::new();
    for node in &mut nodes {
        let port = ports::reserve()?;
        // The last host has no IPv4 address.
        let (host, record) = if node.name == "3" {
            ("[::1]", "AAAA ::1")
        } else {
            ("127.0.0.1", "A 127.0.0.1")
        };
        node.raft = format!("{host}:{port}");
        lines.push(format!("n{} IN {record}", node.name));
        lines.push(format!(
            "_rqlite-raft._tcp IN SRV 0 0 {port} n{}",
            node.name
        ));
    }
    // One host has a second address without a listener, and one target has no address at all.
    lines.push("n1 IN AAAA ::1".to_owned());
    lines.push("_rqlite-raft._tcp IN SRV 0 0 4002 gone".to_owned());
    let server = CoreDns::start(ZONE, &lines.join("\n"))?;
    let config = json!({ "name": ZONE, "service": "rqlite-raft", "nameservers": [server.addr().to_string()] });
    for node in &mut nodes {
        node.args.extend([
            "-disco-mode=dns-srv".to_owned(),
            format!("-disco-config={config}"),
            "-bootstrap-expect=3".to_owned(),
        ]);
    }
    let mut cluster = Cluster::of(nodes);
    cluster.iter_mut().try_for_each(Node::start)?;
    one_cluster(&mut cluster)?;
    await_disco(&cluster[0], "the service", |seen| {
        seen["mode"] == "dns-srv"
            && seen["service"] == "rqlite-raft"
            && seen["dns_name:"] == format!("_rqlite-raft._tcp.{ZONE}").as_str()
            && seen["last_addresses"]
                .as_array()
                .is_some_and(|addresses| addresses.len() == 4)
    })
}

/// Two of three disks are lost and the name still resolves: the empty nodes may only join the one that has
/// data.
#[test]
fn wiped_disks_do_not_form_a_second_cluster() -> Result<()> {
    if !present(&[Tool::CoreDns])? {
        return Ok(());
    }
    let server = CoreDns::start(ZONE, &records(&[1, 2, 3]))?;
    let hosts = Hosts::new()?;
    let mut cluster = three(&hosts, &config(server.addr()))?;
    cluster.iter_mut().try_for_each(Node::start)?;
    one_cluster(&mut cluster)?;
    await_write(&mut cluster.client(0), "INSERT INTO t VALUES(1)")?;
    for node in cluster.iter() {
        await_rows(node, COUNT, 1)?;
    }
    let before = cluster_id(&cluster[0])?;
    cluster.iter_mut().try_for_each(Node::kill)?;
    for wiped in [1, 2] {
        cluster[wiped].wipe()?;
    }
    for node in cluster.iter_mut() {
        node.start_and_answer()?;
    }
    wait::throughout(
        "no cluster forms and no write succeeds",
        Duration::from_secs(5),
        || {
            for wiped in [1, 2] {
                let id = cluster_id(&cluster[wiped]).map_err(|e| format!("{e:#}"))?;
                if !id.is_empty() {
                    return Err(format!("node {} is in cluster {id}", wiped + 1));
                }
            }
            Ok(())
        },
    )?;
    await_log(&cluster[1], "belongs to a cluster; waiting for its leader")?;
    ensure!(cluster_id(&cluster[0])? == before, "another cluster");
    Ok(())
}

#[test]
fn a_member_waits_for_ever_and_a_newcomer_says_why_it_gives_up() -> Result<()> {
    if !present(&[Tool::CoreDns])? {
        return Ok(());
    }
    let mut server = CoreDns::start(ZONE, &records(&[1, 2, 3]))?;
    let hosts = Hosts::new()?;
    let mut cluster = three(&hosts, &config(server.addr()))?;
    for node in cluster.iter_mut() {
        node.args.push("-bootstrap-expect-timeout=20s".to_owned());
    }
    cluster.iter_mut().try_for_each(Node::start)?;
    one_cluster(&mut cluster)?;
    cluster.iter_mut().try_for_each(Node::kill)?;
    server.kill();
    let mut newcomer = {
        let args = dns_args(&config(server.addr()));
        let mut args: Vec<&str> = args.iter().map(String::as_str).collect();
        args.push("-bootstrap-expect-timeout=2s");
        hosts.node(4, &args)?
    };
    cluster[0]
        .args
        .push("-bootstrap-expect-timeout=1s".to_owned());
    cluster[0].start_and_answer()?;
    newcomer.start()?;
    let status = newcomer.wait_exit(PROCESS_LIMIT)?;
    let log = newcomer.log();
    ensure!(
        status.code() == Some(1)
            && log.contains("clustering failure: boot timeout: provider lookup failed: ")
            && log.contains("are those of /etc/resolv.conf reachable?"),
        "{status}\n{log}"
    );
    // Several times its own timeout later the member still runs, and recovers once the others return.
    wait::throughout("the member stays", Duration::from_secs(4), || {
        if cluster[0].is_running() {
            Ok(())
        } else {
            Err(cluster[0].log_tail())
        }
    })?;
    for node in cluster.iter_mut().skip(1) {
        node.start()?;
    }
    one_cluster(&mut cluster)
}

#[test]
fn wrong_configurations_are_refused_with_reasons() -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), r#"{"name":"rqlite","port":70000}"#)?;
    let cases = [
        ("dns", "{nonsense".to_owned(), "not valid JSON: "),
        (
            "dns",
            "no-such-file".to_owned(),
            "-disco-config is neither a JSON object nor a file",
        ),
        ("dns", r#"{"nam":"x"}"#.to_owned(), "unknown field `nam`"),
        (
            "dns",
            r#"{"name":"http://x"}"#.to_owned(),
            "is not a DNS name",
        ),
        (
            "dns",
            r#"{"nameservers":["x"]}"#.to_owned(),
            "nameservers: \"x\" is not an IP address",
        ),
        (
            "dns",
            file.path().display().to_string(),
            "port: expected a port number from 1 to 65535",
        ),
        (
            "dns-srv",
            r#"{"service":"a b"}"#.to_owned(),
            "is not a DNS name",
        ),
    ];
    for (mode, config, text) in cases {
        let mut node = Node::new("1")?.with(&[
            &format!("-disco-mode={mode}"),
            &format!("-disco-config={config}"),
            "-bootstrap-expect=1",
        ]);
        node.start()?;
        let status = node.wait_exit(PROCESS_LIMIT)?;
        let log = node.log();
        let start = "fatal: clustering failure: error reading DNS configuration: ";
        ensure!(
            status.code() == Some(1) && log.contains(start) && log.contains(text),
            "{config}: {status}\n{log}"
        );
    }
    Ok(())
}

/// Each node runs like a separate machine, with the documented ports and its own `/etc/resolv.conf`; a fourth
/// one joins later.
fn machines(
    zone: &str,
    mode: &str,
    config: &str,
    record: impl Fn(usize, &str) -> String,
) -> Result<()> {
    if let Some(why) = unavailable() {
        eprintln!("SKIPPED, NOT TESTED: {why}");
        return Ok(());
    }
    if !present(&[Tool::CoreDns])? {
        return Ok(());
    }
    let network = Network::new(4)?;
    let lines: Vec<String> = (0..3)
        .map(|member| record(member, &network.address(member)))
        .collect();
    let addr = format!("{}:53", network.gateway()).parse()?;
    let server = CoreDns::start_at(addr, zone, &lines.join("\n"))?;
    network.resolve_with(server.addr().ip())?;
    let mut cluster = Cluster::of(Vec::new());
    for member in 0..4 {
        let mut node = Node::new(&(member + 1).to_string())?.with(&[
            &format!("-disco-mode={mode}"),
            &format!("-disco-config={config}"),
            "-bootstrap-expect",
            "3",
        ]);
        network.attach(member, &mut node);
        cluster.push(node);
    }
    let mut fourth = cluster.pop().context("four nodes")?;
    cluster.iter_mut().try_for_each(Node::start)?;
    one_cluster(&mut cluster)?;
    fourth.start_and_ready()?;
    await_members(
        &mut fourth.client(),
        &[("1", true), ("2", true), ("3", true), ("4", true)],
    )
}

#[test]
fn machines_find_each_other_by_the_systems_resolver() -> Result<()> {
    let config = r#"{"name":"rqlite.cluster"}"#;
    machines("rqlite.cluster", "dns", config, |_, ip| {
        format!("@ IN A {ip}")
    })
}

#[test]
fn machines_find_each_other_by_service_records() -> Result<()> {
    let config = r#"{"name":"rqlite.local","service":"rqlite-raft"}"#;
    machines("rqlite.local", "dns-srv", config, |member, ip| {
        format!("n{member} IN A {ip}\n_rqlite-raft._tcp IN SRV 0 0 4002 n{member}")
    })
}
