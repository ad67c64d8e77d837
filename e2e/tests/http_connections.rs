//! Idle and slow connections: they use no connection slot, memory or time that others need.
use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    bench::memory,
    client::{Client, Reply},
    cluster::{SETTLE_LIMIT, check_no_panic},
    process::Node,
    wait,
};
use rustix::process::{Resource, getrlimit, setrlimit};

/// More connections than the node has slots.
const FLOOD: usize = 9000;

fn node() -> Result<(Node, Client)> {
    let mut node = Node::new("1")?;
    node.start_and_ready()?;
    let mut client = node.client();
    client.execute("CREATE TABLE t(x)", &[])?;
    Ok((node, client))
}

/// Raises this process's limit of file descriptors as far as allowed: it holds the flood's client ends.
fn raise_descriptors() -> Result<usize> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    Ok(limit
        .current
        .map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX)))
}

/// Sends the requests of a kubelet and an administrator, each on its own connection.
fn probes_get_in(node: &Node) -> Result<()> {
    for path in ["/readyz", "/status", "/db/query?level=none&q=SELECT%201"] {
        let begun = Instant::now();
        let reply = node.client().timeout(Duration::from_secs(10)).get(path)?;
        ensure!(reply.status == 200, "{path}: {reply:?}");
        ensure!(
            begun.elapsed() < Duration::from_secs(5),
            "{path} took {:?}",
            begun.elapsed()
        );
    }
    Ok(())
}

fn is_closed(mut stream: &TcpStream) -> bool {
    let nonblocking = stream.set_nonblocking(true);
    let read = nonblocking.and_then(|()| stream.read(&mut [0; 256]));
    !matches!(read, Err(e) if e.kind() == io::ErrorKind::WouldBlock)
}

#[test]
fn idle_connections_make_room() -> Result<()> {
    ensure!(
        raise_descriptors()? > FLOOD + 500,
        "raise `ulimit -Hn` for this test"
    );
    let (mut node, mut client) = node()?;
    let pid = node.pid().context("it runs")?;
    let slots = node.client().get_json("/status?key=http.max_connections")?;
    let slots = usize::try_from(slots.as_u64().context("a number")?)?;
    let mut held = Vec::new();
    for number in 0..FLOOD {
        let mut stream = TcpStream::connect(&node.http)?;
        // Some connections send nothing, some have begun a request.
        if number % 2 == 1 {
            stream.write_all(b"GET /status HTTP/1.1\r\nHost: x\r\n")?;
        }
        held.push(stream);
        if number % 1000 == 999 {
            probes_get_in(&node)?;
            client.execute("INSERT INTO t VALUES(1)", &[])?;
        }
    }
    probes_get_in(&node)?;
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    ensure!(
        descriptors < slots + 200,
        "{descriptors} descriptors for {slots} slots"
    );
    let closed = held.iter().filter(|stream| is_closed(stream)).count();
    ensure!(
        closed >= FLOOD - slots,
        "{closed} of {FLOOD} were closed to free {slots} slots"
    );
    // The most recent connections stay open.
    ensure!(
        !is_closed(&held[FLOOD - 2]),
        "the newest connection was closed"
    );
    let memory = memory::of(pid)?;
    println!(
        "{closed} closed, {descriptors} descriptors, peak {:.0} MiB",
        memory.peak
    );
    ensure!(memory.peak < 400.0, "{memory:?}");
    drop(held);
    check_no_panic(&node)?;
    ensure!(node.is_running(), "it ended");
    Ok(())
}

/// Reads until the connection closes; returns what was received and after how long.
fn ending(stream: &mut TcpStream) -> Result<(String, Duration)> {
    let begun = Instant::now();
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut came = Vec::new();
    match stream.read_to_end(&mut came) {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => anyhow::bail!("it is still open"),
        _ => Ok((String::from_utf8_lossy(&came).into_owned(), begun.elapsed())),
    }
}

#[test]
fn who_does_not_move_is_ended() -> Result<()> {
    let (mut node, client) = node()?;
    let address = node.http.clone();
    let with = |bytes: &'static [u8]| -> Result<TcpStream> {
        let mut stream = TcpStream::connect(&address)?;
        stream.write_all(bytes)?;
        Ok(stream)
    };
    let drip = |mut stream: TcpStream| {
        std::thread::spawn(move || {
            let mut other = stream.try_clone()?;
            std::thread::spawn(move || {
                while other.write_all(b"x").is_ok() {
                    wait::sleep(Duration::from_millis(500));
                }
            });
            ending(&mut stream)
        })
    };
    let head = drip(with(b"GET /status HTTP/1.1\r\nX: ")?);
    let body = drip(with(
        b"POST /db/execute HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n[",
    )?);
    let mut stuck = with(b"POST /db/execute HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n[")?;
    // A reply of 24 MiB that the client does not read.
    let big = client.timeout(Duration::from_secs(60)).rows(
        "none",
        "SELECT length(hex(zeroblob(12000000)))",
        &[],
    )?;
    ensure!(big[0][0] == 24_000_000, "{big:?}");
    let unread = with(
        b"GET /db/query?level=none&q=SELECT%20hex(zeroblob(12000000)) HTTP/1.1\r\nHost: x\r\n\r\n",
    )?;
    let ended = |what: &str, thread: std::thread::JoinHandle<Result<(String, Duration)>>| {
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("{what} panicked"))?
    };
    let (said, after) = ended("head", head)?;
    println!("a head that drips: {said:?} after {after:?}");
    let (said, after) = ended("body", body)?;
    println!("a body that drips: {said:?} after {after:?}");
    ensure!(said.starts_with("HTTP/1.1 408"), "{said}");
    let (said, _) = ending(&mut stuck)?;
    ensure!(said.contains("the request body came too slowly"), "{said}");
    wait::until(
        "the reply that is not read ends",
        SETTLE_LIMIT * 2,
        || match established(&address, &unread) {
            Ok(false) => Ok(()),
            other => Err(format!("{other:?}")),
        },
    )?;
    probes_get_in(&node)?;
    check_no_panic(&node)?;
    ensure!(node.is_running(), "it ended");
    Ok(())
}

/// Whether the kernel still lists the server's side of this connection as established.
fn established(server: &str, stream: &TcpStream) -> Result<bool> {
    let port = |address: &str| -> Result<String> {
        let port: u16 = address.rsplit(':').next().unwrap_or_default().parse()?;
        Ok(format!(":{port:04X}"))
    };
    let (server, client) = (port(server)?, port(&stream.local_addr()?.to_string())?);
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    Ok(table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, remote, state) = (fields.next(), fields.next(), fields.next());
        local.is_some_and(|a| a.ends_with(&server))
            && remote.is_some_and(|a| a.ends_with(&client))
            && state == Some("01")
    }))
}

#[test]
fn bodies_share_their_memory() -> Result<()> {
    let (mut node, _client) = node()?;
    let pid = node.pid().context("it runs")?;
    let before = memory::of(pid)?;
    let body = format!("[[\"SELECT length(?)\",\"{}\"]]", "x".repeat(30 << 20));
    // 40 bodies of 30 MiB at once are 1.2 GiB.
    let replies: Vec<Result<Reply>> = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..40)
            .map(|_| {
                let mut client = node.client().timeout(Duration::from_secs(120));
                let body = body.as_bytes();
                scope.spawn(move || Ok(client.send("POST", "/db/query?level=none", &[], body)?))
            })
            .collect();
        for _ in 0..5 {
            probes_get_in(&node)?;
        }
        let ended = senders.into_iter().map(|sender| {
            let joined = sender.join();
            joined.unwrap_or_else(|_| Err(anyhow::anyhow!("a sender panicked")))
        });
        anyhow::Ok(ended.collect())
    })?;
    let mut served = 0;
    for reply in replies {
        let reply = reply?;
        match reply.status {
            200 => served += 1,
            503 => {
                ensure!(reply.header("retry-after") == Some("1"), "{reply:?}");
                ensure!(
                    reply.text().contains("too many large request bodies"),
                    "{reply:?}"
                );
            }
            _ => anyhow::bail!("{} {:.200}", reply.status, reply.text()),
        }
    }
    let memory = memory::of(pid)?;
    println!(
        "{served} of 40 served; peak {:.0} MiB, {:.0} before",
        memory.peak, before.resident
    );
    ensure!(served > 2, "they wait for each other");
    ensure!(memory.peak < 700.0, "{memory:?}");
    check_no_panic(&node)?;
    ensure!(node.is_running(), "it ended");
    Ok(())
}

#[test]
fn targets_as_clients_send_them() -> Result<()> {
    let (node, mut client) = node()?;
    for (target, expected) in [
        (
            &b"/db/query?q=SELECT%201%20AS%20\"a\""[..],
            r#"{"results":[{"columns":["a"],"types":["integer"],"values":[[1]]}]}"#,
        ),
        (
            b"/db/query?q=SELECT%201<2",
            r#"{"results":[{"columns":["1<2"]"#,
        ),
        (b"/db/query?q=SELECT%20'\xc3\xa4'", "ä"),
        (b"/db/query?q=SELECT%20hex('\xff')", "values"),
        (b"/db/query?q=SELECT%20'a#b|c{d}^`\\'", "a#b|c{d}^`"),
    ] {
        let request = [b"GET ", target, b" HTTP/1.1\r\nHost: x\r\n\r\n"].concat();
        let reply = client.raw(&request)?;
        let text = reply.text().replace("\\u003c", "<");
        ensure!(
            reply.status == 200 && text.contains(expected),
            "{}: {reply:?}",
            String::from_utf8_lossy(target)
        );
    }
    check_no_panic(&node)
}

#[test]
fn odd_requests_get_clear_answers() -> Result<()> {
    let (mut node, mut client) = node()?;
    let many = format!(
        "GET /status?{} HTTP/1.1\r\nHost: x\r\n\r\n",
        "a=b&".repeat(15_000)
    );
    let endless = format!(
        "GET /status?{} HTTP/1.1\r\nHost: x\r\n\r\n",
        "a=b&".repeat(30_000)
    );
    let headers = format!("GET /status HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(5000));
    let long = format!("GET /status HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(1 << 20));
    #[rustfmt::skip]
    let cases: [(&str, &[u8], &[u16]); 15] = [
        ("HTTP/1.0", b"GET /readyz HTTP/1.0\r\n\r\n", &[200]),
        ("absolute form", b"GET http://other/readyz HTTP/1.1\r\nHost: x\r\n\r\n", &[200]),
        ("CONNECT", b"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n", &[302, 400, 404, 405]),
        ("OPTIONS *", b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", &[200]),
        ("TRACE", b"TRACE /readyz HTTP/1.1\r\nHost: x\r\n\r\n", &[405]),
        ("no host", b"GET /readyz HTTP/1.1\r\n\r\n", &[200, 400]),
        ("two lengths", b"POST /db/query HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n[\"\"]  ", &[400]),
        ("length and chunks", b"POST /db/query HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", &[400]),
        ("bad chunks", b"POST /db/query HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\n", &[400]),
        ("gzip", b"POST /db/query HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08", &[400]),
        ("1 GiB of JSON", b"POST /db/query HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\n\r\n[", &[413]),
        ("many parameters", many.as_bytes(), &[200]),
        ("too many", endless.as_bytes(), &[414]),
        ("many headers", headers.as_bytes(), &[431]),
        ("a long header", long.as_bytes(), &[431]),
    ];
    for (name, request, expected) in cases {
        let reply = client.raw(request).with_context(|| name.to_owned())?;
        ensure!(expected.contains(&reply.status), "{name}: {reply:?}");
    }
    // A client that sends `Expect: 100-continue` receives 100 Continue.
    let mut stream = TcpStream::connect(&node.http)?;
    stream.write_all(b"POST /db/query?level=none HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 12\r\n\r\n")?;
    let mut start = [0; 25];
    stream.read_exact(&mut start)?;
    ensure!(
        &start == b"HTTP/1.1 100 Continue\r\n\r\n",
        "{}",
        String::from_utf8_lossy(&start)
    );
    stream.write_all(b"[\"SELECT 1\"]")?;
    let mut start = [0; 12];
    stream.read_exact(&mut start)?;
    ensure!(
        &start == b"HTTP/1.1 200",
        "{}",
        String::from_utf8_lossy(&start)
    );
    // Pipelined requests are answered in order, also with a raw target.
    let mut stream = TcpStream::connect(&node.http)?;
    let one = b"POST /db/query?level=none HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n[\"SELECT 1\"]";
    let two = b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(&[&one[..], one, two].concat())?;
    let (said, _) = ending(&mut stream)?;
    ensure!(
        said.matches("HTTP/1.1 200").count() == 3 && said.ends_with("db ok"),
        "{said}"
    );
    // Rejecting a body of any size still delivers the error reply.
    let huge = vec![b' '; 40 << 20];
    let reply = client.send("POST", "/db/query", &[], &huge)?;
    ensure!(
        reply.status == 413 && reply.text().contains("/db/load"),
        "{reply:?}"
    );
    check_no_panic(&node)?;
    ensure!(node.is_running(), "it ended");
    Ok(())
}

#[test]
fn status_tells_of_backups_and_members_as_rqlite_does() -> Result<()> {
    let (node, mut client) = node()?;
    let whole = client.get_json("/status")?;
    ensure!(whole.get("last_backup_time").is_none(), "{whole}");
    let backup = client.get("/db/backup")?;
    ensure!(backup.status == 200 && backup.body.starts_with(b"SQLite format 3"));
    let whole = client.get_json("/status?key=")?;
    ensure!(whole["last_backup_time"].as_str().is_some(), "{whole}");
    let configuration = &whole["store"]["raft"]["latest_configuration"];
    let expected = format!("[{{Suffrage:Voter ID:1 Address:{}}}]", node.raft);
    ensure!(*configuration == expected, "{configuration}");
    ensure!(
        whole["extensions"]["names"] == serde_json::json!([]),
        "{whole}"
    );
    let vars = client.get_json("/debug/vars?key=")?;
    ensure!(
        vars["db"]["requests"].is_u64() && vars["store"]["snapshot_wal_size"].is_u64(),
        "{vars}"
    );
    check_no_panic(&node)
}
