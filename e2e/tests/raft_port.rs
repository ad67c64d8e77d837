//! The inter-node port with `-auth`: non-members store nothing, learn nothing and block no member.
use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Cluster, SETTLE_LIMIT},
    membership::{await_members, await_rows},
    process::Node,
    wait,
};

/// Everybody may read and write; only bob may join and load.
const CREDENTIALS: &str = r#"[{"username":"*","perms":["status","ready","query","execute"]},{"username":"bob","password":"secret","perms":["all"]}]"#;

/// Numbers of requests in the cluster protocol.
const META: u8 = 0;
const NOTIFY: u8 = 2;
const LOAD: u8 = 10;
const ROOM_TO_VACUUM: u8 = 11;
/// Purposes of a connection.
const APPEND: u8 = 0;
const CLUSTER: u8 = 3;

fn secured(dir: &Path) -> Result<Vec<String>> {
    let file = dir.join("auth.json");
    std::fs::write(&file, CREDENTIALS)?;
    Ok(vec![
        format!("-auth={}", file.display()),
        "-join-as=bob".to_owned(),
    ])
}

fn cluster(count: usize, dir: &Path) -> Result<Cluster> {
    let flags = secured(dir)?;
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    Cluster::start_with(count, &flags)
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(text.len()).unwrap_or(u8::MAX)];
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// The handshake of a non-member: purpose, made-up name, intended receiver, made-up cluster.
fn hello(purpose: u8, to: Option<&str>, cluster: Option<&str>) -> Vec<u8> {
    let mut bytes = vec![purpose];
    bytes.extend(text("outsider#1"));
    match to {
        None => bytes.push(0),
        Some(to) => bytes.extend([vec![1], text(to)].concat()),
    }
    match cluster {
        None => bytes.push(0),
        Some(id) => bytes.extend([vec![1], text(id), text("lineage"), vec![0]].concat()),
    }
    bytes
}

fn frame(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(&u32::try_from(bytes.len()).unwrap_or(0).to_le_bytes())?;
    stream.write_all(bytes)
}

fn receive(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).context("an answer")?;
    let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Connects and sends the handshake; returns the connection and the node's response.
fn greet(node: &Node, hello: &[u8]) -> Result<(TcpStream, Vec<u8>)> {
    let mut stream = TcpStream::connect(&node.raft)?;
    stream.set_read_timeout(Some(SETTLE_LIMIT))?;
    stream.set_write_timeout(Some(SETTLE_LIMIT))?;
    stream.write_all(b"RQN1\x01\0")?;
    frame(&mut stream, hello)?;
    let welcome = receive(&mut stream)?;
    Ok((stream, welcome))
}

/// Bytes in the directory where uploads are stored.
fn stored(node: &Node) -> u64 {
    let entries = std::fs::read_dir(node.data.join("scratch"));
    let sizes = entries.into_iter().flatten().flatten();
    sizes
        .filter_map(|e| e.metadata().ok())
        .map(|m| m.len())
        .sum()
}

#[test]
fn a_strangers_load_is_refused_before_its_first_byte() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let cluster = cluster(1, dir.path())?;
    let node = &cluster[0];
    let (mut stream, welcome) = greet(node, &hello(CLUSTER, None, None))?;
    ensure!(welcome[0] == 0, "{welcome:?}");
    // 1 GiB, without credentials.
    frame(&mut stream, &[LOAD, 0x80, 0x80, 0x80, 0x80, 4, 0])?;
    let answer = String::from_utf8_lossy(&receive(&mut stream)?).into_owned();
    ensure!(answer.contains("remote load not authorized"), "{answer}");
    let piece = vec![0; 1 << 20];
    let mut taken = 0;
    let refused = (0..256).find_map(|_| {
        taken = taken.max(stored(node));
        stream.write_all(&piece).err()
    });
    ensure!(refused.is_some(), "256 MiB were taken");
    ensure!(taken == 0, "{taken} bytes were stored");
    // Announcing a large message must not allocate memory for it.
    let (mut stream, _) = greet(node, &hello(CLUSTER, None, None))?;
    stream.write_all(&(60_u32 << 20).to_le_bytes())?;
    ensure!(
        matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)),
        "it waits for 60 MiB"
    );
    cluster.check_no_panic()
}

#[test]
fn strangers_learn_nothing() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let cluster = cluster(2, dir.path())?;
    let node = &cluster[0];
    let status = node.client().get_json("/status")?;
    let identity = &status["store"]["identity"];
    let secret = |path: &str| {
        let found = identity.pointer(path).and_then(|v| v.as_str());
        found
            .map(str::to_owned)
            .with_context(|| format!("{path} in {identity}"))
    };
    let secrets = [
        secret("/incarnation")?,
        secret("/cluster_id")?,
        secret("/lineage/id")?,
        node.http.clone(),
        node.raft.clone(),
    ];
    let mut heard = Vec::new();
    for cluster in [None, Some("other")] {
        for to in [None, Some("1#0")] {
            let (_stream, welcome) = greet(node, &hello(APPEND, to, cluster))?;
            ensure!(welcome[0] == 1, "a non-member speaks Raft: {welcome:?}");
            heard.push(welcome);
        }
        let notice = [
            vec![NOTIFY],
            text("2#0"),
            text("127.0.0.1:1"),
            vec![0, 0, 0],
        ]
        .concat();
        for ask in [vec![META], notice, vec![ROOM_TO_VACUUM]] {
            let (mut stream, welcome) = greet(node, &hello(CLUSTER, None, cluster))?;
            heard.push(welcome);
            frame(&mut stream, &ask)?;
            heard.push(receive(&mut stream)?);
        }
    }
    ensure!(heard.len() == 16, "{heard:?}");
    for bytes in heard {
        let said = String::from_utf8_lossy(&bytes);
        for secret in &secrets {
            ensure!(!said.contains(secret), "{secret} was disclosed: {said:?}");
        }
    }
    // Members still receive everything.
    let nodes = cluster.client(1).get_json("/nodes")?;
    ensure!(
        nodes["1"]["api_addr"] == format!("http://{}", node.http),
        "{nodes}"
    );
    cluster.check_no_panic()
}

#[test]
fn silent_connections_keep_no_member_out() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut cluster = cluster(3, dir.path())?;
    cluster.client(0).execute("CREATE TABLE t(x)", &[])?;
    let mut held = Vec::new();
    for _ in 0..600 {
        for node in cluster.iter() {
            held.push(TcpStream::connect(&node.raft)?);
        }
    }
    let begun = Instant::now();
    // A member that restarts is admitted, and receives writes.
    let follower = cluster.follower()?;
    cluster[follower].kill()?;
    cluster[follower].start_and_ready()?;
    for number in 0..20 {
        let mut client = cluster.client(follower);
        client.execute(&format!("INSERT INTO t VALUES({number})"), &[])?;
        for node in cluster.iter() {
            held.push(TcpStream::connect(&node.raft)?);
        }
    }
    await_rows(&cluster[follower], "SELECT count(*) FROM t", 20)?;
    // A new member is admitted, too.
    let flags = secured(dir.path())?;
    let mut fourth = Node::new("4")?;
    fourth.args.extend(flags);
    cluster.join(fourth, 0)?;
    await_rows(&cluster[3], "SELECT count(*) FROM t", 20)?;
    let expected = [("1", true), ("2", true), ("3", true), ("4", true)];
    await_members(&mut cluster.client(0), &expected)?;
    println!("both nodes admitted after {:?}", begun.elapsed());
    // The idle connections are closed.
    wait::until("the idle connections to close", SETTLE_LIMIT, || {
        held.retain_mut(|stream| {
            let timed = stream.set_read_timeout(Some(Duration::from_millis(1)));
            let read = timed.and_then(|()| stream.read(&mut [0; 1]));
            matches!(read, Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
        });
        if held.is_empty() {
            Ok(())
        } else {
            Err(format!("{} are open", held.len()))
        }
    })?;
    cluster.check_no_panic()
}
