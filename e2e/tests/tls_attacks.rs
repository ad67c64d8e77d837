//! Attacks on ports with TLS, with real processes: members go on working, and no attack costs more than its
//! share.
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    authority::{self, Authority, Issued, Leaf},
    bench::memory,
    client::Client,
    cluster::{Cluster, SETTLE_LIMIT},
    membership::await_write,
    process::Node,
    wait,
};
use rustls::{ClientConnection, StreamOwned, pki_types::ServerName};
use serde_json::Value;
use tempfile::TempDir;

/// Half handshakes on each port.
const HALF: usize = 2000;

struct Files {
    dir: TempDir,
    authority: Authority,
}

impl Files {
    fn new() -> Result<Self> {
        let files = Self {
            dir: tempfile::tempdir()?,
            authority: Authority::new("authority")?,
        };
        files.put(&files.leaf()?)?;
        Ok(files)
    }

    fn leaf(&self) -> Result<Issued> {
        self.authority.issue(&Leaf::for_loopback("member"))
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn put(&self, pair: &Issued) -> Result<()> {
        pair.write(self.dir.path(), "leaf")?;
        self.authority.write(self.dir.path(), "ca")?;
        Ok(())
    }

    fn flags(&self) -> Vec<String> {
        let mut flags = vec![
            "-http-tls-optional".to_owned(),
            "-node-verify-client".to_owned(),
        ];
        for side in ["http", "node"] {
            for (flag, file) in [
                ("cert", "leaf.crt"),
                ("key", "leaf.key"),
                ("ca-cert", "ca.crt"),
            ] {
                flags.push(format!("-{side}-{flag}={}", self.path(file).display()));
            }
        }
        flags
    }

    fn cluster(&self, count: usize) -> Result<Cluster> {
        let flags = self.flags();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        Cluster::start_with(count, &flags)
    }

    fn tls(
        &self,
        address: &str,
        identity: Option<&Issued>,
    ) -> Result<StreamOwned<ClientConnection, TcpStream>> {
        let config = authority::client_config(self.authority.pem(), identity)?;
        let client = ClientConnection::new(config, ServerName::try_from("localhost")?)?;
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(SETTLE_LIMIT))?;
        stream.set_write_timeout(Some(SETTLE_LIMIT))?;
        Ok(StreamOwned::new(client, stream))
    }
}

/// A client over TLS.
fn client(files: &Files, node: &Node) -> Result<Client> {
    let config = authority::client_config(files.authority.pem(), None)?;
    Ok(Client::new(&node.http).over_tls(config, "localhost"))
}

/// The first part of a client's hello.
fn half_hello() -> Vec<u8> {
    [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 32]].concat()
}

/// Thousands of half handshakes on both ports while members work and a leader changes.
#[test]
fn half_handshakes_keep_nobody_out() -> Result<()> {
    let files = Files::new()?;
    let mut cluster = files.cluster(3)?;
    cluster.client(0).execute("CREATE TABLE t(x)", &[])?;
    let leader = cluster.leader()?;
    let mut open = Vec::new();
    for node in cluster.iter() {
        for address in [&node.http, &node.raft] {
            for _ in 0..HALF / cluster.len() {
                // A port that is full may refuse.
                if let Ok(mut stream) = TcpStream::connect(address) {
                    let _ = stream.write_all(&half_hello());
                    open.push(stream);
                }
            }
        }
    }
    println!("{} half handshakes are open", open.len());
    cluster[leader].kill()?;
    let other = (0..3)
        .find(|index| *index != leader)
        .context("another node")?;
    let start = Instant::now();
    wait::until("a write over TLS", SETTLE_LIMIT, || {
        let mut client = client(&files, &cluster[other]).map_err(|error| error.to_string())?;
        client
            .execute("INSERT INTO t VALUES(1)", &[])
            .map_err(|error| format!("{error:#}"))
    })?;
    println!(
        "a write after {:.1} s without the leader",
        start.elapsed().as_secs_f64()
    );
    cluster[leader].start_and_ready()?;
    await_write(
        &mut client(&files, &cluster[leader])?,
        "INSERT INTO t VALUES(2)",
    )?;
    for node in cluster.iter() {
        let pid = node.pid().context("it ended")?;
        let used = memory::of(pid)?;
        println!(
            "node {}: {:.0} MiB, at most {:.0}",
            node.name, used.resident, used.peak
        );
    }
    drop(open);
    cluster.check_no_panic()
}

/// Whoever sends nothing more in a handshake, or one byte now and then, is disconnected in time.
#[test]
fn slow_handshakes_end() -> Result<()> {
    let files = Files::new()?;
    let cluster = files.cluster(1)?;
    for address in [&cluster[0].http, &cluster[0].raft] {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_millis(10)))?;
        let hello = half_hello();
        let start = Instant::now();
        let mut sent = 0;
        while start.elapsed() < SETTLE_LIMIT {
            let next = hello.get(sent).copied().unwrap_or(0);
            if stream.write_all(&[next]).is_err() {
                break;
            }
            sent += 1;
            if stream.read(&mut [0; 64]).is_ok() {
                break;
            }
            thread::sleep(Duration::from_millis(300));
        }
        let took = start.elapsed();
        println!("{address}: disconnected after {:.1} s", took.as_secs_f64());
        ensure!(
            took < Duration::from_secs(15),
            "{address}: open for {took:?}"
        );
    }
    client(&files, &cluster[0])?.execute("CREATE TABLE t(x)", &[])?;
    cluster.check_no_panic()
}

/// After the handshake, garbage instead of records, and garbage within records.
#[test]
fn garbage_after_the_handshake() -> Result<()> {
    let files = Files::new()?;
    let cluster = files.cluster(1)?;
    let right = files.leaf()?;
    for address in [&cluster[0].http, &cluster[0].raft] {
        for raw in [true, false] {
            let mut stream = files.tls(address, Some(&right))?;
            stream.flush()?;
            while stream.conn.is_handshaking() {
                stream.conn.complete_io(&mut stream.sock)?;
            }
            let garbage = vec![0xa5; 70_000];
            let sent = match raw {
                true => stream.sock.write_all(&garbage),
                false => stream.write_all(&garbage),
            };
            let mut reply = Vec::new();
            let ended = stream.read_to_end(&mut reply);
            println!(
                "{address}, raw {raw}: sent {sent:?}, then {ended:?}, {} bytes",
                reply.len()
            );
            let text = String::from_utf8_lossy(&reply);
            ensure!(reply.is_empty() || text.starts_with("HTTP/1.1 4"), "{text}");
        }
    }
    client(&files, &cluster[0])?.execute("CREATE TABLE t(x)", &[])?;
    cluster.check_no_panic()
}

/// TLS 1.2 clients that ask for another handshake again and again, and clients with a huge chain.
#[test]
fn renegotiation_and_huge_chains() -> Result<()> {
    let files = Files::new()?;
    let cluster = files.cluster(1)?;
    let right = files.leaf()?;
    let pair = right.write(files.dir.path(), "client")?;
    let chain = files.path("chain.pem");
    fs::write(&chain, files.authority.pem().repeat(400))?;
    let (cert, key) = (
        pair.cert.display().to_string(),
        pair.key.display().to_string(),
    );
    for address in [&cluster[0].http, &cluster[0].raft] {
        let mut child = std::process::Command::new("openssl")
            .args([
                "s_client", "-connect", address, "-tls1_2", "-cert", &cert, "-key", &key,
            ])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .context("start openssl")?;
        let mut stdin = child.stdin.take().context("stdin")?;
        thread::sleep(Duration::from_secs(1));
        // The letter asks for a renegotiation.
        let _ = stdin.write_all(b"R\n");
        wait::until("the connection to be closed", SETTLE_LIMIT, || {
            let _ = stdin.write_all(b"R\n");
            match child.try_wait() {
                Ok(Some(_)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })?;
        let huge = Issued {
            cert: right.cert.clone() + &files.authority.pem().repeat(400),
            key: right.key.clone(),
        };
        let mut stream = files.tls(address, Some(&huge))?;
        let sent = stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n");
        let read = stream.read(&mut [0; 100]);
        println!("{address}: a chain of 400: sent {sent:?}, read {read:?}");
    }
    client(&files, &cluster[0])?.execute("CREATE TABLE t(x)", &[])?;
    let used = memory::of(cluster[0].pid().context("it ended")?)?;
    ensure!(used.peak < 400.0, "{used:?}");
    cluster.check_no_panic()
}

fn sides(node: &Node) -> Result<[Value; 2]> {
    let status = node.client().get_json("/status")?;
    let security = &status["security"];
    Ok([security["node_tls"].clone(), security["http_tls"].clone()])
}

fn await_errors(node: &Node, expected: bool) -> Result<()> {
    wait::until("the status of the files", SETTLE_LIMIT, || {
        let sides = sides(node).map_err(|error| format!("{error:#}"))?;
        let verdict = sides
            .iter()
            .all(|side| side["last_error"].is_null() != expected);
        if verdict {
            Ok(())
        } else {
            Err(format!("{sides:?}"))
        }
    })
}

/// Bad new files are reported and not taken; good ones that follow are.
#[test]
fn files_replaced_by_anything() -> Result<()> {
    let files = Files::new()?;
    let mut cluster = files.cluster(1)?;
    cluster.client(0).execute("CREATE TABLE t(x)", &[])?;
    let is_root = rustix::process::geteuid().is_root();
    for case in [
        "garbage",
        "empty",
        "directory",
        "removed",
        "unreadable",
        "another key",
        "huge authorities",
    ] {
        let (cert, key, ca) = (
            files.path("leaf.crt"),
            files.path("leaf.key"),
            files.path("ca.crt"),
        );
        match case {
            "garbage" => fs::write(&cert, [0xff; 5000])?,
            "empty" => fs::write(&key, "")?,
            "directory" => {
                fs::remove_file(&cert)?;
                fs::create_dir(&cert)?;
            }
            "removed" => fs::remove_file(&key)?,
            // Root reads everything.
            "unreadable" if is_root => continue,
            "unreadable" => fs::set_permissions(&key, fs::Permissions::from_mode(0o000))?,
            "another key" => fs::write(&key, files.leaf()?.key)?,
            _ => fs::write(&ca, files.authority.pem().repeat(150_000))?,
        }
        await_errors(&cluster[0], true).context(case)?;
        println!("{case}: {}", sides(&cluster[0])?[0]["last_error"]);
        client(&files, &cluster[0])?
            .execute("INSERT INTO t VALUES(1)", &[])
            .context(case)?;
        if cert.is_dir() {
            fs::remove_dir(&cert)?;
        }
        if key.exists() {
            fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
        }
        // Written one after the other, with time in between.
        let next = files.leaf()?;
        fs::write(&cert, &next.cert)?;
        thread::sleep(Duration::from_millis(1500));
        fs::write(&key, &next.key)?;
        files.authority.write(files.dir.path(), "ca")?;
        await_errors(&cluster[0], false).with_context(|| format!("after {case}"))?;
    }
    let used = memory::of(cluster[0].pid().context("it ended")?)?;
    println!("at most {:.0} MiB", used.peak);
    ensure!(used.peak < 400.0, "{used:?}");
    ensure!(cluster[0].is_running(), "it has ended");
    cluster.check_no_panic()
}
