//! Cluster formation through a key in Consul or etcd, each against the real server: the documented commands,
//! several clusters on one store, lost keys, lost disks, access control, and unavailable stores.
use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Cluster, SETTLE_LIMIT},
    membership::{await_log, await_members, await_rows, await_write, cluster_id, one_cluster},
    ports,
    process::{Node, PROCESS_LIMIT},
    servers::{
        Consul, Etcd, Tool, certificates::Certificates, consul::Options as ConsulOptions,
        etcd::Options as EtcdOptions, present,
    },
    wait,
};
use serde_json::{Value, json};

const COUNT: &str = "SELECT count(*) FROM t";

/// The operations that the tests need from a store.
trait Store {
    /// Value of `-disco-mode`.
    const MODE: &'static str;
    const TOOL: Tool;

    fn open() -> Result<Self>
    where
        Self: Sized;
    /// Value of `-disco-config`.
    fn config(&self) -> String;
    /// The key of a cluster, as it is spelled in the store.
    fn key(disco_key: &str) -> String;
    fn get(&self, key: &str) -> Result<Option<String>>;
    fn put(&self, key: &str, value: &str) -> Result<()>;
    fn delete(&self, key: &str) -> Result<()>;
    fn kill(&mut self);
    fn restart(&mut self) -> Result<()>;
}

impl Store for Consul {
    const MODE: &'static str = "consul-kv";
    const TOOL: Tool = Tool::Consul;

    fn open() -> Result<Self> {
        Self::start()
    }
    fn config(&self) -> String {
        json!({ "address": self.addr() }).to_string()
    }
    fn key(disco_key: &str) -> String {
        format!("{disco_key}/leader")
    }
    fn get(&self, key: &str) -> Result<Option<String>> {
        self.get(key)
    }
    fn put(&self, key: &str, value: &str) -> Result<()> {
        self.put(key, value)
    }
    fn delete(&self, key: &str) -> Result<()> {
        self.delete(key)
    }
    fn kill(&mut self) {
        self.kill();
    }
    fn restart(&mut self) -> Result<()> {
        self.restart()
    }
}

impl Store for Etcd {
    const MODE: &'static str = "etcd-kv";
    const TOOL: Tool = Tool::Etcd;

    fn open() -> Result<Self> {
        Self::start()
    }
    fn config(&self) -> String {
        json!({ "endpoints": [self.addr()] }).to_string()
    }
    fn key(disco_key: &str) -> String {
        format!("/{disco_key}/leader")
    }
    fn get(&self, key: &str) -> Result<Option<String>> {
        self.get(key)
    }
    fn put(&self, key: &str, value: &str) -> Result<()> {
        self.put(key, value)
    }
    fn delete(&self, key: &str) -> Result<()> {
        self.delete(key)
    }
    fn kill(&mut self) {
        self.kill();
    }
    fn restart(&mut self) -> Result<()> {
        self.restart()
    }
}

/// A node with the documented flags.
fn node<S: Store>(name: &str, key: Option<&str>, config: &str) -> Result<Node> {
    let mut node = Node::new(name)?.with(&["-disco-mode", S::MODE, "-disco-config", config]);
    if let Some(key) = key {
        node.args.extend(["-disco-key".to_owned(), key.to_owned()]);
    }
    Ok(node)
}

fn three<S: Store>(key: Option<&str>, config: &str) -> Result<Cluster> {
    let nodes = ["1", "2", "3"].map(|name| node::<S>(name, key, config));
    Ok(Cluster::of(nodes.into_iter().collect::<Result<_>>()?))
}

/// Waits until the key names this node, in the documented form.
fn await_leader_key<S: Store>(store: &S, key: &str, leader: &Node) -> Result<()> {
    let what = format!("{key} to name node {}", leader.name);
    wait::until(&what, SETTLE_LIMIT, || {
        let held = store
            .get(&S::key(key))
            .map_err(|e| format!("{e:#}"))?
            .unwrap_or_default();
        let seen: Value = serde_json::from_str(&held).unwrap_or_default();
        let fits = seen["id"] == leader.name.as_str()
            && seen["api_addr"] == format!("http://{}", leader.http).as_str()
            && seen["addr"] == leader.advertised();
        if fits { Ok(()) } else { Err(held) }
    })
}

fn disco(node: &Node) -> Result<Value> {
    Ok(node.client().get_json("/status")?["disco"].take())
}

fn await_error(node: &Node, text: &str) -> Result<()> {
    wait::until(&format!("{text:?} in /status.disco"), SETTLE_LIMIT, || {
        let seen = disco(node).map_err(|e| format!("{e:#}"))?;
        match seen["last_error"].as_str() {
            Some(error) if error.contains(text) => Ok(()),
            _ => Err(seen.to_string()),
        }
    })
}

/// The documented commands in any order. The leader keeps the key current, later nodes join, and members no
/// longer need the store.
fn the_documented_commands<S: Store>() -> Result<()> {
    if !present(&[S::TOOL])? {
        return Ok(());
    }
    let mut store = S::open()?;
    let key = "rqlite1";
    let mut cluster = three::<S>(Some(key), &store.config())?;
    for last_first in [2, 0, 1] {
        cluster[last_first].start()?;
    }
    one_cluster(&mut cluster)?;
    let leader = cluster.leader()?;
    await_leader_key(&store, key, &cluster[leader])?;
    let seen = disco(&cluster[leader])?;
    ensure!(
        seen["mode"] == S::MODE
            && seen["register_interval"] == 3_000_000_000_u64
            && seen["report_interval"] == 10_000_000_000_u64
            && seen["last_contact"]
                .as_str()
                .is_some_and(|at| !at.starts_with("0001")),
        "{seen}"
    );
    // The key follows a change of leader, and a later node finds the new leader.
    cluster[leader].kill()?;
    let next = cluster.leader()?;
    ensure!(next != leader, "node {leader} was killed");
    await_leader_key(&store, key, &cluster[next])?;
    let mut fourth = node::<S>("4", Some(key), &store.config())?;
    fourth.start_and_ready()?;
    cluster[leader].start_and_ready()?;
    cluster.push(fourth);
    one_cluster(&mut cluster)?;
    // Members restarted with the same commands come back without the store.
    store.kill();
    let before = cluster_id(&cluster[0])?;
    cluster.crash_all()?;
    one_cluster(&mut cluster)?;
    ensure!(cluster_id(&cluster[0])? == before, "another cluster");
    // The store returns, and the leader is written to it again (this Consul has lost its data).
    store.restart()?;
    let leader = cluster.leader()?;
    await_leader_key(&store, key, &cluster[leader])
}

#[test]
fn the_documented_commands_with_consul() -> Result<()> {
    the_documented_commands::<Consul>()
}

#[test]
fn the_documented_commands_with_etcd() -> Result<()> {
    the_documented_commands::<Etcd>()
}

/// One store with one key per cluster; the key has a default; a read-only node waits until a leader is named.
fn several_clusters<S: Store>() -> Result<()> {
    if !present(&[S::TOOL])? {
        return Ok(());
    }
    let store = S::open()?;
    let mut reader = node::<S>("reader", None, &store.config())?.with(&["-raft-non-voter=true"]);
    reader.start_and_answer()?;
    await_log(&reader, "a read-only node cannot form a cluster")?;
    let mut ids = Vec::new();
    let mut clusters = Vec::new();
    for key in [None, Some("orders"), Some("deep/er")] {
        let mut nodes = ["1", "2"].map(|name| node::<S>(name, key, &store.config()));
        for node in nodes.iter_mut().flatten() {
            node.start()?;
        }
        clusters.push(Cluster::of(nodes.into_iter().collect::<Result<_>>()?));
    }
    reader.wait_ready(SETTLE_LIMIT)?;
    for (cluster, key) in clusters.iter_mut().zip(["rqlite", "orders", "deep/er"]) {
        let leader = cluster.leader()?;
        await_leader_key(&store, key, &cluster[leader])?;
        ids.push(cluster_id(&cluster[leader])?);
        let expected: &[(&str, bool)] = if key == "rqlite" {
            &[("1", true), ("2", true), ("reader", false)]
        } else {
            &[("1", true), ("2", true)]
        };
        await_members(&mut cluster.client(0), expected)?;
        cluster.check_no_panic()?;
    }
    ids.sort();
    ids.dedup();
    ensure!(ids.len() == 3, "clusters {ids:?}");
    Ok(())
}

#[test]
fn several_clusters_on_one_consul() -> Result<()> {
    several_clusters::<Consul>()
}

#[test]
fn several_clusters_on_one_etcd() -> Result<()> {
    several_clusters::<Etcd>()
}

/// Whenever the key is lost, empty nodes never form a second cluster beside a live one, and wiped members are
/// admitted again.
fn lost_keys_and_lost_disks<S: Store>() -> Result<()> {
    if !present(&[S::TOOL])? {
        return Ok(());
    }
    let store = S::open()?;
    let mut cluster = three::<S>(None, &store.config())?;
    cluster.iter_mut().try_for_each(Node::start)?;
    one_cluster(&mut cluster)?;
    await_write(&mut cluster.client(0), "INSERT INTO t VALUES(1)")?;
    let before = cluster_id(&cluster[0])?;
    for name in ["4", "5", "6"] {
        let mut late = node::<S>(name, None, &store.config())?;
        store.delete(&S::key("rqlite"))?;
        late.start()?;
        wait::sleep(Duration::from_millis(100));
        store.delete(&S::key("rqlite"))?;
        late.wait_ready(SETTLE_LIMIT)?;
        ensure!(
            cluster_id(&late)? == before,
            "node {name} is in another cluster"
        );
        cluster.push(late);
    }
    one_cluster(&mut cluster)?;
    let leader = cluster.leader()?;
    let wiped = (0..3).find(|&i| i != leader).context("three nodes")?;
    cluster[wiped].kill()?;
    cluster[wiped].wipe()?;
    cluster[wiped].start_and_ready()?;
    await_rows(&cluster[wiped], COUNT, 1)?;
    one_cluster(&mut cluster)?;
    ensure!(cluster_id(&cluster[wiped])? == before, "another cluster");
    // A single node with a lost disk: the key still names the node, but its data is gone. It must not present
    // an empty database as the cluster.
    let leader = cluster.leader()?;
    let mut alone = std::mem::take(&mut *cluster).swap_remove(leader);
    drop(cluster);
    await_leader_key_or_other(&store)?;
    alone.kill()?;
    name_in_key(&store, &alone)?;
    alone.wipe()?;
    alone.start_and_answer()?;
    await_log(&alone, "its disk was lost or replaced")?;
    ensure!(cluster_id(&alone)?.is_empty(), "it formed a cluster");
    Ok(())
}

fn await_leader_key_or_other<S: Store>(store: &S) -> Result<()> {
    ensure!(
        store.get(&S::key("rqlite"))?.is_some(),
        "the key is not there"
    );
    Ok(())
}

/// Leaves the key as if this node had been the leader until the end.
fn name_in_key<S: Store>(store: &S, node: &Node) -> Result<()> {
    let record = json!({
        "id": node.name, "api_addr": format!("http://{}", node.http), "addr": node.raft,
        "raft_id": format!("{}#0000000000000001", node.name), "cluster_id": "of-before",
    });
    store.put(&S::key("rqlite"), &record.to_string())
}

#[test]
fn lost_keys_and_lost_disks_with_consul() -> Result<()> {
    lost_keys_and_lost_disks::<Consul>()
}

#[test]
fn lost_keys_and_lost_disks_with_etcd() -> Result<()> {
    lost_keys_and_lost_disks::<Etcd>()
}

/// A store that is down, hangs, or contains invalid data: empty nodes report it, keep retrying, and continue
/// once it is repaired.
fn a_store_in_trouble<S: Store>(server_down: &str) -> Result<()> {
    if !present(&[S::TOOL])? {
        return Ok(());
    }
    let mut store = S::open()?;
    store.kill();
    let mut cluster = three::<S>(None, &store.config())?;
    for node in cluster.iter_mut() {
        node.start_and_answer()?;
    }
    for node in cluster.iter() {
        await_error(node, server_down)?;
        await_log(node, "not in a cluster yet: ")?;
    }
    store.restart()?;
    one_cluster(&mut cluster)?;
    let leader = cluster.leader()?;
    await_leader_key(&store, "rqlite", &cluster[leader])?;
    ensure!(
        disco(&cluster[leader])?["last_error"].is_null(),
        "the error has disappeared"
    );
    // A key that holds anything but a leader is reported and left unchanged.
    let mut lost = node::<S>("lost", Some("taken"), &store.config())?;
    store.put(&S::key("taken"), "nonsense")?;
    lost.start_and_answer()?;
    await_error(&lost, "holds something else than a leader")?;
    ensure!(
        store.get(&S::key("taken"))?.as_deref() == Some("nonsense"),
        "it was overwritten"
    );
    ensure!(lost.is_running(), "it gave up");
    store.delete(&S::key("taken"))?;
    lost.wait_ready(SETTLE_LIMIT)?;
    // A stop request ends a waiting node at once.
    let mut waiting = node::<S>("w", Some("w"), &store.config())?.with(&["-raft-non-voter=true"]);
    waiting.start_and_answer()?;
    await_log(&waiting, "no leader is named yet")?;
    let status = waiting.stop()?;
    ensure!(
        status.code() == Some(1)
            && waiting
                .log()
                .contains("clustering failure: discovery canceled"),
        "{status}\n{}",
        waiting.log_tail()
    );
    Ok(())
}

#[test]
fn consul_in_trouble() -> Result<()> {
    a_store_in_trouble::<Consul>("Consul")
}

#[test]
fn etcd_in_trouble() -> Result<()> {
    a_store_in_trouble::<Etcd>("etcd")
}

#[test]
fn a_guarded_consul() -> Result<()> {
    if !present(&[Tool::Consul])? {
        return Ok(());
    }
    let certificates = Certificates::new()?;
    let token = "8b5a1b5e-0000-4000-8000-000000000001";
    let store = Consul::start_with(ConsulOptions {
        token: Some(token),
        certificates: Some(&certificates),
        client_certificate: true,
    })?;
    let address = store.https_addr().context("HTTPS")?;
    let tls = json!({
        "ca_file": certificates.ca, "cert_file": certificates.client.cert, "key_file": certificates.client.key,
    });
    let full = json!({ "address": address, "scheme": "https", "token": "$STORE_TOKEN", "tls_config": tls });
    // Configuration from a file, with the token from the environment.
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), full.to_string())?;
    let mut cluster = three::<Consul>(None, &file.path().display().to_string())?;
    for node in cluster.iter_mut() {
        node.prefix = vec!["env".to_owned(), format!("STORE_TOKEN={token}")];
        node.start()?;
    }
    one_cluster(&mut cluster)?;
    let leader = cluster.leader()?;
    await_leader_key(&store, "rqlite", &cluster[leader])?;
    // Every missing setting is reported, without a secret in any log, and none of them ends the node.
    let untrusted = json!({ "address": address, "scheme": "https", "token": token });
    let no_certificate = json!({ "address": address, "scheme": "https", "token": token, "tls_config": { "ca_file": certificates.ca } });
    let mut wrong_token = full;
    wrong_token["token"] = json!("8b5a1b5e-0000-4000-8000-00000000bad0");
    for (config, text) in [
        (untrusted, "certificate"),
        (no_certificate, "BadCertificate"),
        (wrong_token, "403"),
    ] {
        let mut node = node::<Consul>("x", Some("x"), &config.to_string())?;
        node.start_and_answer()?;
        await_error(&node, text)?;
        ensure!(node.is_running(), "{}", node.log_tail());
        ensure!(!node.log().contains("8b5a1b5e"), "the token is in the log");
    }
    Ok(())
}

#[test]
fn a_guarded_etcd() -> Result<()> {
    if !present(&[Tool::Etcd])? {
        return Ok(());
    }
    let certificates = Certificates::new()?;
    let store = Etcd::start_with(EtcdOptions {
        user: Some(("rq", "secret-word")),
        certificates: Some(&certificates),
        ..EtcdOptions::default()
    })?;
    let dead = format!("https://127.0.0.1:{}", ports::reserve()?);
    let config = |password: &str| {
        json!({
            "endpoints": [dead, format!("https://{}", store.addr())],
            "username": "rq", "password": password, "tls_config": { "ca_file": certificates.ca },
        })
        .to_string()
    };
    let mut cluster = three::<Etcd>(None, &config("${STORE_PASSWORD}"))?;
    for node in cluster.iter_mut() {
        node.prefix = vec!["env".to_owned(), "STORE_PASSWORD=secret-word".to_owned()];
        node.start()?;
    }
    one_cluster(&mut cluster)?;
    let leader = cluster.leader()?;
    await_leader_key(&store, "rqlite", &cluster[leader])?;
    let mut node = node::<Etcd>("x", Some("x"), &config("wrong-word"))?;
    node.start_and_answer()?;
    await_error(&node, "authentication failed")?;
    ensure!(
        !node.log().contains("wrong-word"),
        "the password is in the log"
    );
    Ok(())
}

#[test]
fn wrong_configurations_are_refused_with_reasons() -> Result<()> {
    let cases = [
        ("consul-kv", "Consul", "{", "not valid JSON: "),
        (
            "consul-kv",
            "Consul",
            r#"{"adress":"x:1"}"#,
            "unknown field `adress`",
        ),
        (
            "consul-kv",
            "Consul",
            r#"{"scheme":"ftp"}"#,
            "scheme: expected",
        ),
        (
            "consul-kv",
            "Consul",
            r#"{"tls_config":{"ca_file":"x"}}"#,
            "tls_config: needs \"scheme\":\"https\"",
        ),
        (
            "consul-kv",
            "Consul",
            r#"{"scheme":"https","tls_config":{"ca_file":"/nowhere.pem"}}"#,
            "/nowhere.pem",
        ),
        ("etcd-kv", "etcd", r#"{"endpoints":"x"}"#, "endpoints: "),
        (
            "etcd-kv",
            "etcd",
            r#"{"dial-timeout":"soon"}"#,
            "dial-timeout: expected a duration",
        ),
        (
            "etcd-kv",
            "etcd",
            r#"{"endpoints":["ftp://x:1"]}"#,
            "endpoints",
        ),
    ];
    for (mode, name, config, text) in cases {
        let mut node = Node::new("1")?.with(&["-disco-mode", mode, "-disco-config", config]);
        node.start()?;
        let status = node.wait_exit(PROCESS_LIMIT).context(config)?;
        let log = node.log();
        let start = format!("fatal: clustering failure: error reading {name} configuration: ");
        ensure!(
            status.code() == Some(1) && log.contains(&start) && log.contains(text),
            "{config}: {status}\n{log}"
        );
    }
    Ok(())
}
