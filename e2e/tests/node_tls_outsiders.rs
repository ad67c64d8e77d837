//! Outsiders on the inter-node port of nodes with TLS: what they get, and whom they keep out.
use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use e2e::{
    authority::{Authority, Issued, Leaf, client_config},
    cluster::{Cluster, SETTLE_LIMIT},
    membership::{await_members, await_rows},
    mounted::Mounted,
    process::Node,
};
use rustls::{ClientConnection, StreamOwned, pki_types::ServerName};

/// Numbers of requests in the cluster protocol.
const META: u8 = 0;
const REMOVE: u8 = 5;
const STEP_DOWN: u8 = 6;
const ROOM: u8 = 17;

/// A cluster with these flags beside a certificate of `authority`.
fn secured(count: usize, authority: &Authority, flags: &[&str]) -> Result<(Cluster, Vec<Mounted>)> {
    let mut nodes = Vec::new();
    let mut mounted = Vec::new();
    for number in 1..=count {
        let pair = authority.issue(&Leaf::for_loopback("member"))?;
        let files = Mounted::new(&pair, &[authority.pem()])?;
        let mut node = Node::new(&number.to_string())?.with(flags);
        node.args.extend(files.flags("node"));
        nodes.push(node);
        mounted.push(files);
    }
    let mut cluster = Cluster::of(nodes);
    cluster.form()?;
    Ok((cluster, mounted))
}

const MUTUAL: [&str; 2] = ["-node-verify-client", "-node-verify-common-name=member"];

/// The handshake of a node that nobody knows.
fn hello() -> Vec<u8> {
    let hello = [&[3, 10][..], b"outsider#1", &[0, 0, 2]].concat();
    [&b"RQN1\x01\0"[..], &framed(&hello)].concat()
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap_or(0).to_le_bytes();
    [&length, bytes].concat()
}

fn receive(stream: &mut impl Read) -> Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).context("an answer")?;
    let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Connects with a certificate or without one, and does not check the node's.
fn over_tls(
    node: &Node,
    authority: &Authority,
    identity: Option<&Issued>,
) -> Result<StreamOwned<ClientConnection, TcpStream>> {
    let socket = TcpStream::connect(&node.raft)?;
    socket.set_read_timeout(Some(SETTLE_LIMIT))?;
    let config = client_config(authority.pem(), identity)?;
    let name = ServerName::try_from("localhost")?;
    Ok(StreamOwned::new(
        ClientConnection::new(config, name)?,
        socket,
    ))
}

/// The answer to `ask`, from a connection that has just been opened.
fn asked(stream: &mut (impl Read + Write), ask: &[u8]) -> Result<String> {
    stream.write_all(&hello())?;
    let welcome = receive(stream)?;
    ensure!(matches!(welcome.first(), Some(0 | 2)), "{welcome:?}");
    stream.write_all(&framed(ask))?;
    Ok(String::from_utf8_lossy(&receive(stream)?).into_owned())
}

/// Everything that an outsider without a certificate may ask.
fn questions() -> [(&'static str, Vec<u8>); 4] {
    [
        ("metadata", vec![META]),
        ("removal", vec![REMOVE, 1, b'2', 0]),
        ("stepping down", vec![STEP_DOWN, 0, 0, 0]),
        ("free space", vec![ROOM]),
    ]
}

#[test]
fn encryption_alone_gives_no_rights() -> Result<()> {
    let authority = Authority::new("ours")?;
    // Certificates of clients are not asked for, and there are no users: only members are known.
    for flags in [&[][..], &["-node-tls-stage=use"]] {
        let (mut cluster, _files) = secured(2, &authority, flags)?;
        for (what, ask) in questions() {
            let mut heard = vec![asked(&mut over_tls(&cluster[0], &authority, None)?, &ask)?];
            if !flags.is_empty() {
                let mut plain = TcpStream::connect(&cluster[0].raft)?;
                plain.set_read_timeout(Some(SETTLE_LIMIT))?;
                heard.push(asked(&mut plain, &ask)?);
            }
            for said in heard {
                let denied = said.contains("unauthorized") || ask == [META];
                ensure!(denied, "{what}: {said:?}");
                ensure!(!said.contains(&cluster[0].http), "{what}: {said:?}");
            }
        }
        await_members(&mut cluster.client(0), &[("1", true), ("2", true)])?;
        let leader = cluster.leader()?;
        ensure!(leader == 0, "the leader has stepped down");
        cluster.check_no_panic()?;
    }
    Ok(())
}

#[test]
fn the_wrong_certificate_gets_an_alert_and_nothing_else() -> Result<()> {
    let (ours, theirs) = (Authority::new("ours")?, Authority::new("theirs")?);
    let (cluster, _files) = secured(1, &ours, &MUTUAL)?;
    let member = Leaf::for_loopback("member");
    let cases = [
        ("none", None),
        (
            "another name",
            Some(ours.issue(&Leaf::for_loopback("somebody"))?),
        ),
        ("another authority", Some(theirs.issue(&member)?)),
        ("expired", Some(ours.issue(&member.clone().expired())?)),
    ];
    for (what, identity) in cases {
        let heard = asked(
            &mut over_tls(&cluster[0], &ours, identity.as_ref())?,
            &[META],
        );
        let error = heard
            .err()
            .with_context(|| format!("{what}: it was answered"))?;
        ensure!(format!("{error:#}").contains("alert"), "{what}: {error:#}");
    }
    // A node's own certificate is one of a member: metadata is not secret from it.
    let right = ours.issue(&member)?;
    let heard = asked(&mut over_tls(&cluster[0], &ours, Some(&right))?, &[META])?;
    ensure!(heard.contains(&cluster[0].http), "{heard:?}");
    cluster.check_no_panic()
}

/// The beginning of a TLS handshake: a record of 512 bytes is announced, and a few of them come.
const HALF_HELLO: [u8; 11] = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];

#[test]
fn outsiders_get_a_close_and_keep_nobody_out() -> Result<()> {
    let authority = Authority::new("ours")?;
    let (mut cluster, _files) = secured(3, &authority, &MUTUAL)?;
    cluster.client(0).execute("CREATE TABLE t(x)", &[])?;
    let said = |bytes: &[u8]| -> Result<Vec<u8>> {
        let mut stream = TcpStream::connect(&cluster[0].raft)?;
        stream.set_read_timeout(Some(SETTLE_LIMIT))?;
        let _ = stream.write_all(bytes);
        let mut heard = Vec::new();
        match stream.read_to_end(&mut heard) {
            Ok(_) => Ok(heard),
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => Ok(heard),
            Err(e) => Err(e.into()),
        }
    };
    for bytes in [&hello()[..], b"GET / HTTP/1.0\r\n\r\n", &[0; 4096]] {
        let heard = said(bytes)?;
        ensure!(heard.is_empty(), "{heard:?} in answer to {bytes:?}");
    }
    // Garbage inside of TLS gets an alert at most; half a hello gets nothing, and is closed.
    ensure!(said(&[&[0x16, 3, 1, 0, 4][..], b"oops"].concat())?.len() <= 7);
    ensure!(said(&HALF_HELLO)?.is_empty());
    let mut held = Vec::new();
    for _ in 0..600 {
        for node in cluster.iter() {
            let mut stream = TcpStream::connect(&node.raft)?;
            let _ = stream.write_all(&HALF_HELLO);
            held.push(stream);
        }
    }
    let follower = cluster.follower()?;
    cluster[follower].kill()?;
    cluster[follower].start_and_ready()?;
    for number in 0..20 {
        let mut client = cluster.client(follower);
        client.execute(&format!("INSERT INTO t VALUES({number})"), &[])?;
        for node in cluster.iter() {
            let mut stream = TcpStream::connect(&node.raft)?;
            let _ = stream.write_all(&HALF_HELLO);
            held.push(stream);
        }
    }
    await_rows(&cluster[follower], "SELECT count(*) FROM t", 20)?;
    cluster.check_no_panic()
}

/// From the same address as the members, which is the hardest case: addresses have shares of the connections.
#[test]
fn a_flood_of_handshakes_keeps_nobody_out() -> Result<()> {
    let (ours, theirs) = (Authority::new("ours")?, Authority::new("theirs")?);
    let (mut cluster, _files) = secured(3, &ours, &MUTUAL)?;
    cluster.client(0).execute("CREATE TABLE t(x)", &[])?;
    let wrong = theirs.issue(&Leaf::for_loopback("member"))?;
    let config = client_config(ours.pem(), Some(&wrong))?;
    let targets: Vec<String> = cluster.iter().map(|node| node.raft.clone()).collect();
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let handshake = |target: &String| -> Result<()> {
        let socket = TcpStream::connect(target)?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        let name = ServerName::try_from("localhost")?;
        let connection = ClientConnection::new(Arc::clone(&config), name)?;
        let _ = StreamOwned::new(connection, socket).read(&mut [0; 1]);
        Ok(())
    };
    thread::scope(|scope| -> Result<()> {
        for target in targets.iter().chain(&targets) {
            scope.spawn(|| {
                while !stop.load(Relaxed) {
                    if handshake(target).is_ok() {
                        done.fetch_add(1, Relaxed);
                    }
                }
            });
        }
        let worked = (|| {
            let follower = cluster.follower()?;
            cluster[follower].kill()?;
            cluster[follower].start_and_ready()?;
            for number in 0..20 {
                let mut client = cluster.client(follower);
                client.execute(&format!("INSERT INTO t VALUES({number})"), &[])?;
            }
            await_rows(&cluster[follower], "SELECT count(*) FROM t", 20)
        })();
        stop.store(true, Relaxed);
        worked
    })?;
    println!("beside {} handshakes", done.load(Relaxed));
    cluster.check_no_panic()
}
