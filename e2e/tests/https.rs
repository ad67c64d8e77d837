//! HTTPS of the HTTP port with real processes: who gets in, plain HTTP beside and against it, certificates
//! that change while the node runs, and the health listener beside it. The larger matrix of certificates is
//! in `tls_matrix.rs`.
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    authority::{Authority, Issued, Leaf, client_config},
    binary,
    client::{Client, Failure},
    cluster::{SETTLE_LIMIT, check_no_panic},
    ports,
    process::Node,
    wait,
};
use serde_json::Value;
use tempfile::TempDir;

/// A change of files is noticed within two looks; the rest is for a busy machine.
const RELOAD_LIMIT: Duration = Duration::from_secs(15);

/// A node that serves HTTPS from a folder that is mounted as Kubernetes mounts a Secret.
struct Secured {
    node: Node,
    authority: Authority,
    folder: TempDir,
}

impl Secured {
    fn new(flags: &[&str]) -> Result<Self> {
        let (authority, folder) = (Authority::new("clients-ca")?, TempDir::new()?);
        let leaf = authority.issue(&Leaf::for_loopback("first"))?;
        publish(folder.path(), "1", &leaf, authority.pem())?;
        let mut node = Node::new("1")?.with(flags);
        for (flag, file) in [
            ("cert", "tls.crt"),
            ("key", "tls.key"),
            ("ca-cert", "ca.crt"),
        ] {
            let path = folder.path().join(file);
            node.args.push(format!("-http-{flag}={}", path.display()));
        }
        node.https = Some((client_config(authority.pem(), None)?, "localhost".into()));
        Ok(Self {
            node,
            authority,
            folder,
        })
    }

    fn with_identity(&self, identity: Option<&Issued>) -> Result<Client> {
        let config = client_config(self.authority.pem(), identity)?;
        Ok(Client::new(&self.node.http)
            .timeout(Duration::from_secs(5))
            .over_tls(config, "localhost"))
    }

    fn security(&self) -> Result<Value> {
        let status = self.node.client().get_json("/status")?;
        Ok(status["security"]["http_tls"].clone())
    }

    /// Waits until `/status` says so; returns `security.http_tls`.
    fn wait_security(&self, what: &str, is: impl Fn(&Value) -> bool) -> Result<Value> {
        wait::until(what, RELOAD_LIMIT, || {
            let seen = self.security().map_err(|e| e.to_string())?;
            if is(&seen) {
                Ok(seen)
            } else {
                Err(seen.to_string())
            }
        })
    }
}

/// Replaces all files at once, as kubelet does.
fn publish(folder: &Path, version: &str, leaf: &Issued, ca: &str) -> Result<()> {
    let real = folder.join(version);
    fs::create_dir(&real)?;
    for (name, content) in [
        ("tls.crt", leaf.cert.as_str()),
        ("tls.key", &leaf.key),
        ("ca.crt", ca),
    ] {
        fs::write(real.join(name), content)?;
        let link: PathBuf = folder.join(name);
        if !link.exists() {
            symlink(Path::new("..data").join(name), link)?;
        }
    }
    let next = folder.join("..data_tmp");
    symlink(version, &next)?;
    fs::rename(next, folder.join("..data"))?;
    Ok(())
}

/// All that the server sends after these bytes, until it closes.
fn plain(address: &str, request: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(15)))?;
    stream.write_all(request.as_bytes())?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    Ok(reply)
}

fn expect_refusal(name: &str, mut client: Client) -> Result<()> {
    match client.get("/status") {
        Err(Failure::NotSent(_) | Failure::Broken(_)) => Ok(()),
        Ok(reply) => anyhow::bail!("{name} got in: {reply:?}"),
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story, told in order")]
fn https_serves_what_http_served() -> Result<()> {
    let mut secured = Secured::new(&[])?;
    secured.node.start_and_ready()?;
    let mut client = secured.node.client();
    client.execute("CREATE TABLE t(x)", &[])?;
    client.execute("INSERT INTO t VALUES(1)", &[])?;
    ensure!(client.number("strong", "SELECT count(*) FROM t")? == 1);

    let http = &secured.node.http;
    let status = client.get_json("/status")?;
    ensure!(
        status["cluster"]["https"] == "true",
        "{}",
        status["cluster"]
    );
    let tls = &status["http"]["tls"];
    ensure!(
        tls["enabled"] == "true" && tls["client_auth"] == "NoClientCert",
        "{tls}"
    );
    ensure!(
        tls["next_protos"] == serde_json::json!(["http/1.1"]),
        "{tls}"
    );
    for file in ["cert_file", "key_file", "ca_file"] {
        ensure!(
            tls[file].as_str().is_some_and(|path| path.starts_with('/')),
            "{tls}"
        );
    }
    let security = &status["security"]["http_tls"];
    ensure!(
        security["leaf_sha256"].as_str().map(str::len) == Some(64),
        "{security}"
    );
    ensure!(
        security["optional"] == false && security["last_error"].is_null(),
        "{security}"
    );
    let nodes = client.get_json("/nodes")?;
    ensure!(
        nodes["1"]["api_addr"] == format!("https://{http}"),
        "{nodes}"
    );
    let metrics = client.get("/metrics")?.text();
    let expiry = metrics.lines().find_map(|line| {
        line.strip_prefix("rqlite_tls_http_certificate_expiry_timestamp_seconds ")
    });
    let expiry: i64 = expiry.context("no expiry in the metrics")?.parse()?;
    ensure!(expiry > 1_700_000_000, "{expiry}");

    let refused = plain(
        http,
        "GET /db/query?q=SELECT%201 HTTP/1.1\r\nHost: x\r\n\r\n",
    )?;
    ensure!(
        refused.starts_with("HTTP/1.1 400 Bad Request\r\n"),
        "{refused}"
    );
    ensure!(
        refused.contains("Client sent an HTTP request to an HTTPS server."),
        "{refused}"
    );
    let large = format!(
        "POST /db/execute HTTP/1.1\r\nHost: x\r\n\r\n{}",
        "x".repeat(20_000)
    );
    ensure!(
        plain(http, &large)?.contains("HTTPS server."),
        "the reply to a body was lost"
    );
    check_no_panic(&secured.node)?;
    ensure!(secured.node.stop()?.success());
    Ok(())
}

#[test]
fn a_follower_redirects_to_https() -> Result<()> {
    let mut first = Secured::new(&[])?;
    first.node.start_and_ready()?;
    let mut second = Node::new("2")?.with(&[&format!("-join={}", first.node.raft)]);
    let own = first
        .node
        .args
        .iter()
        .filter(|arg| arg.starts_with("-http-"));
    second.args.extend(own.cloned());
    second.https.clone_from(&first.node.https);
    second.start_and_ready()?;
    let mut client = second.client();
    client.execute("CREATE TABLE t(x)", &[])?;
    let path = "/db/query?redirect&level=strong&q=SELECT%201";
    let reply = client.get(path)?;
    let location = reply.header("Location").unwrap_or_default().to_owned();
    ensure!(reply.status == 301, "{reply:?}");
    ensure!(
        location.starts_with(&format!("https://{}/db/query?", first.node.http)),
        "{location}"
    );
    // A follower learns of its own membership a moment after it has a leader.
    wait::until("both nodes to be listed", SETTLE_LIMIT, || {
        let nodes = client.get_json("/nodes").map_err(|e| e.to_string())?;
        let listed = |node: &&Node| {
            nodes[node.name.as_str()]["api_addr"] == format!("https://{}", node.http)
        };
        let all = [&first.node, &second].iter().all(listed);
        all.then_some(()).ok_or_else(|| nodes.to_string())
    })
}

#[test]
fn certificates_of_clients() -> Result<()> {
    let flags = ["-http-verify-client", "-http-verify-common-name=app"];
    let mut secured = Secured::new(&flags)?;
    let right = secured.authority.issue(&Leaf::new("app", &[]))?;
    secured.node.https = Some((
        client_config(secured.authority.pem(), Some(&right))?,
        "localhost".into(),
    ));
    secured.node.start_and_ready()?;
    let status = secured.node.client().get_json("/status")?;
    let tls = &status["http"]["tls"];
    ensure!(tls["client_auth"] == "RequireAndVerifyClientCert", "{tls}");

    let other = Authority::new("clients-ca")?;
    let wrong = [
        ("nobody", None),
        (
            "another authority",
            Some(other.issue(&Leaf::new("app", &[]))?),
        ),
        (
            "another name",
            Some(secured.authority.issue(&Leaf::new("app2", &[]))?),
        ),
        (
            "an expired one",
            Some(secured.authority.issue(&Leaf::new("app", &[]).expired())?),
        ),
        (
            "one for servers",
            Some(
                secured
                    .authority
                    .issue(&Leaf::new("app", &[]).only_for_servers())?,
            ),
        ),
    ];
    for (name, identity) in &wrong {
        expect_refusal(name, secured.with_identity(identity.as_ref())?)?;
    }
    let reply = secured.with_identity(Some(&right))?.get("/readyz")?;
    ensure!(reply.status == 200, "{reply:?}");
    let log = secured.node.log();
    for text in [
        "client did not provide any valid certificate that matches CN \"app\"",
        "the client sent no certificate, and one is required",
        "it is signed by no trusted authority",
        "it has expired",
    ] {
        ensure!(log.contains(text), "the log does not say {text:?}:\n{log}");
    }
    Ok(())
}

/// `rqlited backup` of a node that asks clients for a certificate, as the pods of backups run it.
#[test]
fn a_backup_shows_its_certificate() -> Result<()> {
    let mut secured = Secured::new(&["-http-verify-client"])?;
    let own = secured.authority.issue(&Leaf::new("rqlite-backup", &[]))?;
    let config = client_config(secured.authority.pem(), Some(&own))?;
    secured.node.https = Some((config, "localhost".into()));
    secured.node.start_and_ready()?;
    let folder = TempDir::new()?;
    let pair = own.write(folder.path(), "own")?;
    let store = folder.path().join("store.json");
    let target = serde_json::json!({"version": 1, "type": "file",
        "sub": {"dir": folder.path(), "name": "copy.sqlite.gz"}});
    fs::write(&store, target.to_string())?;
    for shows in [false, true] {
        let mut command = Command::new(binary::rqlited()?);
        command.arg("backup").arg("-config").arg(&store);
        command.arg(format!("-url=https://{}", secured.node.http));
        let authority = secured.folder.path().join("ca.crt");
        command.arg("-ca-file").arg(authority);
        if shows {
            command.arg("-cert-file").arg(&pair.cert);
            command.arg("-key-file").arg(&pair.key);
        }
        let output = command.output().context("rqlited backup")?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success() == shows, "shows {shows}: {said}");
        let copy = folder.path().join("copy.sqlite.gz");
        ensure!(copy.exists() == shows, "shows {shows}: {said}");
    }
    Ok(())
}

#[test]
fn clients_move_from_http_to_https_on_one_port() -> Result<()> {
    let mut secured = Secured::new(&["-http-tls-optional"])?;
    secured.node.start_and_ready()?;
    let http = secured.node.http.clone();
    let mut old = Client::new(&http);
    let mut new = secured.node.client();
    old.execute("CREATE TABLE t(x)", &[])?;
    for _ in 0..20 {
        old.execute("INSERT INTO t VALUES(1)", &[])?;
        new.execute("INSERT INTO t VALUES(2)", &[])?;
    }
    ensure!(new.number("strong", "SELECT count(*) FROM t")? == 40);
    let status = old.get_json("/status")?;
    ensure!(
        status["cluster"]["https"] == "false",
        "{}",
        status["cluster"]
    );
    ensure!(
        status["security"]["http_tls"]["optional"] == true,
        "{}",
        status["security"]
    );
    let nodes = new.get_json("/nodes")?;
    ensure!(
        nodes["1"]["api_addr"] == format!("http://{http}"),
        "{nodes}"
    );
    Ok(())
}

#[test]
fn certificates_change_while_the_node_runs() -> Result<()> {
    let mut secured = Secured::new(&[])?;
    secured.node.start_and_ready()?;
    let first = secured.security()?;
    let mut kept = secured.node.client();
    kept.execute("CREATE TABLE t(x)", &[])?;

    // Another authority: who trusts only the old one is refused, and open connections go on.
    let next = Authority::new("next-ca")?;
    let leaf = next.issue(&Leaf::for_loopback("second"))?;
    publish(secured.folder.path(), "2", &leaf, next.pem())?;
    wait::until("the new certificate", RELOAD_LIMIT, || {
        match secured.node.client().get("/readyz") {
            Err(_) => Ok(()),
            Ok(reply) => Err(format!("{reply:?}")),
        }
    })?;
    kept.execute("INSERT INTO t VALUES(1)", &[])?;
    secured.node.https = Some((client_config(next.pem(), None)?, "localhost".into()));
    let second = secured.security()?;
    ensure!(second["leaf_sha256"] != first["leaf_sha256"], "{second}");
    ensure!(
        second["trusted_sha256"] != first["trusted_sha256"],
        "{second}"
    );

    // A bad file: reported, and the certificate in use stays.
    let broken = Issued {
        cert: next.issue(&Leaf::for_loopback("third"))?.cert,
        key: leaf.key.clone(),
    };
    publish(secured.folder.path(), "3", &broken, next.pem())?;
    let reported = secured.wait_security("the error", |seen| seen["last_error"].is_string())?;
    ensure!(
        reported["leaf_sha256"] == second["leaf_sha256"],
        "{reported}"
    );
    let error = reported["last_error"].as_str().unwrap_or_default();
    ensure!(
        error.contains("tls.key: this key does not belong to the certificate in"),
        "{error}"
    );
    let metrics = secured.node.client().get("/metrics")?.text();
    let failures = "rqlite_tls_http_certificate_reload_failures_total 1";
    ensure!(
        metrics.contains(failures),
        "{failures} is not in the metrics"
    );
    let log = secured.node.log();
    ensure!(log.matches(error).count() == 1, "reported once:\n{log}");

    publish(
        secured.folder.path(),
        "4",
        &next.issue(&Leaf::for_loopback("fourth"))?,
        next.pem(),
    )?;
    secured.wait_security("the mended files", |seen| {
        seen["last_error"].is_null() && seen["leaf_sha256"] != second["leaf_sha256"]
    })?;
    kept.execute("INSERT INTO t VALUES(2)", &[])?;
    check_no_panic(&secured.node)
}

#[test]
fn files_that_cannot_be_used_end_the_start_in_words() -> Result<()> {
    let cases = [
        ("tls.key", "x", "-http-key"),
        ("tls.crt", "", "the file is empty"),
        ("ca.crt", "x", "-http-ca-cert"),
    ];
    for (file, content, expected) in cases {
        let mut secured = Secured::new(&[])?;
        fs::write(secured.folder.path().join(file), content)?;
        secured.node.start()?;
        let status = secured.node.wait_exit(Duration::from_secs(20))?;
        let log = secured.node.log();
        ensure!(status.code() == Some(1), "{status}: {log}");
        ensure!(
            log.contains("fatal: ") && log.contains(expected) && log.contains(file),
            "{log}"
        );
    }
    let mut secured = Secured::new(&[])?;
    let expired = secured
        .authority
        .issue(&Leaf::for_loopback("x").expired())?;
    publish(
        secured.folder.path(),
        "2",
        &expired,
        secured.authority.pem(),
    )?;
    secured.node.start()?;
    let log = || secured.node.log();
    wait::until("the warning", RELOAD_LIMIT, || {
        let log = log();
        let is = log.contains("the certificate expired at") && log.contains("HTTP API available");
        if is { Ok(()) } else { Err(log) }
    })
}

#[test]
fn slow_handshakes_keep_nobody_out() -> Result<()> {
    let mut secured = Secured::new(&[])?;
    // Fewer places than silent clients.
    secured.node.prefix = ["prlimit", "--nofile=400:400"].map(str::to_owned).to_vec();
    secured.node.start_and_ready()?;
    let mut held = Vec::new();
    for begun in 0..400 {
        let mut stream = TcpStream::connect(&secured.node.http)?;
        if begun % 2 == 0 {
            // The beginning of a handshake.
            let _ = stream.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00]);
        }
        held.push(stream);
    }
    let begun = Instant::now();
    wait::until("a good client", Duration::from_secs(10), || {
        let mut client = secured.node.client().timeout(Duration::from_secs(3));
        client.get("/readyz").map_err(|e| e.to_string()).map(drop)
    })?;
    ensure!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    // Those who send nothing are closed in time.
    let stream = held.last_mut().context("a silent client")?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    ensure!(
        !matches!(stream.read(&mut [0]), Ok(n) if n > 0),
        "a reply to nothing"
    );
    check_no_panic(&secured.node)
}

#[test]
fn the_health_listener_needs_no_certificate_and_shows_no_data() -> Result<()> {
    let address = format!("127.0.0.1:{}", ports::reserve()?);
    let flag = format!("-health-addr={address}");
    let flags = ["-http-verify-client", flag.as_str()];
    let mut secured = Secured::new(&flags)?;
    let right = secured.authority.issue(&Leaf::new("app", &[]))?;
    let config = client_config(secured.authority.pem(), Some(&right))?;
    secured.node.https = Some((Arc::clone(&config), "localhost".into()));
    secured.node.start_and_ready()?;
    secured
        .node
        .client()
        .execute("CREATE TABLE secret_name(x)", &[])?;
    let mut health = Client::new(&address);
    for (path, status, text) in [
        ("/livez", 200, "[+]node ok"),
        (
            "/readyz",
            200,
            "[+]node ok\n[+]leader ok\n[+]store ok\n[+]db ok",
        ),
        ("/readyz?sync&timeout=5s", 200, "[+]sync ok"),
        ("/readyz?noleader", 200, "[+]node ok"),
        ("/metrics", 200, "rqlite_raft_leader 1"),
        ("/status", 404, ""),
        ("/nodes", 404, ""),
        ("/db/query?q=SELECT%201", 404, ""),
        ("/debug/vars", 404, ""),
        ("/", 404, ""),
    ] {
        let reply = health.get(path)?;
        ensure!(
            reply.status == status && reply.text().contains(text),
            "{path}: {reply:?}"
        );
        ensure!(!reply.text().contains("secret_name"), "{path}: {reply:?}");
        ensure!(
            !reply.text().contains(&secured.node.raft),
            "{path}: {reply:?}"
        );
    }
    ensure!(health.post("/readyz", "{}")?.status == 405);
    // The HTTP port is full of silent clients, and so is the health listener.
    let _held: Vec<_> = (0..100).map(|_| TcpStream::connect(&address)).collect();
    ensure!(Client::new(&address).get("/readyz")?.status == 200);
    secured.node.stop()?;
    Ok(())
}

#[test]
fn a_node_without_a_leader_is_alive() -> Result<()> {
    let address = format!("127.0.0.1:{}", ports::reserve()?);
    let nobody = format!("127.0.0.1:{}", ports::reserve()?);
    let mut node = Node::new("1")?.with(&[
        &format!("-health-addr={address}"),
        &format!("-join={nobody}"),
        "-join-attempts=100",
    ]);
    node.start_and_answer()?;
    let mut health = Client::new(&address);
    let reply = health.get("/readyz")?;
    ensure!(
        reply.status == 503 && reply.text().contains("leader does not exist"),
        "{reply:?}"
    );
    ensure!(!reply.text().contains(&nobody), "{reply:?}");
    ensure!(health.get("/livez")?.status == 200);
    ensure!(health.get("/metrics")?.status == 200);
    Ok(())
}
