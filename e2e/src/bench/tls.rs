//! What TLS and users cost: one node whose port speaks both, so that kept connections with and without TLS
//! are compared on the same database; handshakes; memory at idle.
//!
//! The load generator encrypts on the same processors as the node, so a ratio says what both sides pay.
use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustls::{
    ClientConfig, ClientConnection, StreamOwned, client::Resumption, pki_types::ServerName,
};

use crate::{
    authority::{self, Authority, Leaf},
    bench::{
        load::{self, Target},
        memory, node,
        options::Options,
        report::{Cell, Report},
        requests,
    },
    process::Node,
    wait,
};

/// Numbers of kept connections.
const CONNECTIONS: [usize; 3] = [1, 16, 64];
/// Clients that do nothing but handshakes.
const HANDSHAKING: usize = 4;
/// A node is idle after this long.
const IDLE: Duration = Duration::from_secs(3);
/// The load needs no password: only what a user may do is looked up.
const USERS: &str = r#"[{"username":"*","perms":["status","ready","query","execute"]},
    {"username":"app","password":"secret","perms":["query","execute"]}]"#;

/// Measures a node with TLS on both ports and users, if any of its cells is wanted.
///
/// # Errors
/// If it does not start or fails under load.
pub fn measure(options: &Options, work: &Path, report: &mut Report) -> Result<()> {
    let wanted = |count: &usize| {
        let cells = ["insert", "select"].map(|what| format!("tls/{what}/{count}"));
        cells.iter().any(|cell| options.wants(cell))
    };
    let counts: Vec<usize> = CONNECTIONS.into_iter().filter(wanted).collect();
    let handshakes = options.wants("tls/handshakes");
    let idle = options.wants("tls/memory-idle");
    if counts.is_empty() && !handshakes && !idle {
        return Ok(());
    }
    let authority = Authority::new("bench")?;
    let config = authority::client_config(authority.pem(), None)?;
    let mut node = secured(&authority, work)?;
    node.start_and_ready()?;
    wait::sleep(IDLE);
    let used = memory::of(node.pid().context("the node does not run")?)?;
    report.add(Cell::rate("tls/memory-idle", "MiB", used.resident));
    for sql in requests::SETUP {
        node.client().execute(sql, &[])?;
    }
    let sets = [
        ("select", requests::selects("none")),
        ("insert", requests::inserts()),
    ];
    for (what, set) in &sets {
        for count in &counts {
            for (name, tls) in [("plain", None), ("tls", Some(&config))] {
                let name = format!("{name}/{what}/{count}");
                // `plain/…` belongs to `tls/…`: one is nothing without the other.
                let name = name.replacen("plain/", "tls/plain-", 1);
                let target = Target {
                    addr: &node.http,
                    tls,
                };
                let load = load::run(&target, *count, options.cell, set);
                report.add(Cell::load(&name, &load.with_context(|| name.clone())?));
            }
        }
    }
    if handshakes {
        let rate = handshakes_per_second(&node.http, &config, options.cell)?;
        report.add(Cell::rate("tls/handshakes", "1/s", rate));
    }
    node.stop().map(drop)
}

fn secured(authority: &Authority, work: &Path) -> Result<Node> {
    let mut node = node::bench_node("1", work)?;
    let dir = node.scratch().to_owned();
    let pair = authority.issue(&Leaf::for_loopback("bench"))?;
    let pair = pair.write(&dir, "leaf")?;
    let ca = authority.write(&dir, "ca")?;
    let users = dir.join("users.json");
    std::fs::write(&users, USERS).context("write the users")?;
    for side in ["http", "node"] {
        node.args.extend(pair.flags(side));
        let flag = format!("-{side}-ca-cert={}", ca.display());
        node.args.push(flag);
    }
    let auth = format!("-auth={}", users.display());
    let more = ["-http-tls-optional", "-node-verify-client", &auth];
    node.args.extend(more.map(str::to_owned));
    Ok(node)
}

/// Full handshakes, each on a new connection and with one request.
fn handshakes_per_second(addr: &str, config: &ClientConfig, span: Duration) -> Result<f64> {
    let mut config = config.clone();
    config.resumption = Resumption::disabled();
    let config = Arc::new(config);
    let (done, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let start = Instant::now();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..HANDSHAKING)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    while !stop.load(Ordering::Relaxed) {
                        once(addr, &config)?;
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        thread::sleep(span);
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            let ended = client.join();
            ended.map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    #[expect(clippy::cast_precision_loss, reason = "a few digits are shown")]
    let count = done.load(Ordering::Relaxed) as f64;
    Ok(count / start.elapsed().as_secs_f64())
}

fn once(addr: &str, config: &Arc<ClientConfig>) -> Result<()> {
    let stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    let client = ClientConnection::new(Arc::clone(config), ServerName::try_from("localhost")?)?;
    let mut stream = StreamOwned::new(client, stream);
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply)?;
    ensure!(
        reply.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&reply)
    );
    Ok(())
}
