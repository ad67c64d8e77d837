//! What a node thinks of the server that it dials to join, and what clients think of the HTTP port's.
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
};

use anyhow::{Context, Result, ensure};
use e2e::{
    authority::{self, Issued, Pair},
    client::Client,
    ports,
    process::Node,
};

use rustls::{
    ServerConfig, ServerConnection,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use crate::ground::{Findings, Ground, LIMIT, Shown, await_words};

/// What a server shows, and what the log of the node that dials it says.
#[rustfmt::skip]
const DIALED: &[(Shown, &str)] = &[
    (Shown::OtherHost,      "certificate not valid for name \"127.0.0.1\""),
    (Shown::Expired,        "refused: it has expired"),
    (Shown::NotYetValid,    "refused: it is not valid yet"),
    (Shown::SelfSigned,     "refused: it is signed by no trusted authority"),
    (Shown::OtherAuthority, "refused: it is signed by no trusted authority"),
    (Shown::OtherUse,       "extended key usage lacks serverAuth"),
    (Shown::WeakKey,        "1024"),
    (Shown::Tls11,          "TLS: "),
    (Shown::Plain,          "the other side does not speak TLS"),
];

/// What the HTTP port's server shows, and what a client says of it that trusts the right authority.
#[rustfmt::skip]
const OF_HTTP: &[(Shown, Option<&str>)] = &[
    (Shown::Right,          None),
    (Shown::OtherName,      None),
    (Shown::OtherHost,      Some("not valid for name")),
    (Shown::Expired,        Some("expired")),
    (Shown::NotYetValid,    Some("not valid yet")),
    (Shown::SelfSigned,     Some("UnknownIssuer")),
    (Shown::OtherAuthority, Some("UnknownIssuer|BadSignature")),
    (Shown::OtherUse,       Some("purpose|usage")),
];

/// A server that is ended with the value.
enum Server {
    Openssl(Child),
    Threads,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Self::Openssl(child) = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// OpenSSL serves also what rustls refuses to serve.
fn openssl(address: &str, pair: &Pair, more: &[&str]) -> Result<Server> {
    let child = Command::new("openssl")
        .args([
            "s_server",
            "-quiet",
            "-accept",
            address,
            "-cipher",
            "DEFAULT@SECLEVEL=0",
        ])
        .arg("-cert")
        .arg(&pair.cert)
        .arg("-key")
        .arg(&pair.key)
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("start openssl")?;
    let server = Server::Openssl(child);
    e2e::wait::until("openssl to listen", LIMIT, || {
        TcpStream::connect(address)
            .map(drop)
            .map_err(|error| error.to_string())
    })?;
    Ok(server)
}

/// Serves each connection in its own thread, until the test ends.
fn in_threads(address: &str, serve: impl Fn(TcpStream) + Clone + Send + 'static) -> Result<Server> {
    let listener = TcpListener::bind(address)?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
    Ok(Server::Threads)
}

fn rustls(address: &str, issued: &Issued) -> Result<Server> {
    let chain = CertificateDer::pem_slice_iter(issued.cert.as_bytes());
    let chain = chain.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes())?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    let config = Arc::new(config);
    in_threads(address, move |mut stream| {
        if let Ok(mut connection) = ServerConnection::new(Arc::clone(&config)) {
            while connection.is_handshaking() && connection.complete_io(&mut stream).is_ok() {}
        }
    })
}

fn serve(ground: &Ground, address: &str, shown: Shown) -> Result<Server> {
    match shown {
        Shown::Plain => in_threads(address, |mut stream| {
            let _ = stream.write_all(b"SSH-2.0-something\r\n");
            let _ = stream.read(&mut [0; 512]);
        }),
        Shown::Tls11 => {
            let right = ground.files(Shown::Right, true)?.context("a certificate")?;
            openssl(address, &right, &["-tls1_1"])
        }
        Shown::WeakKey => {
            let pair = ground.files(shown, true)?.context("a certificate")?;
            openssl(address, &pair, &[])
        }
        shown => rustls(
            address,
            &ground.issue(shown, true)?.context("a certificate")?,
        ),
    }
}

/// A node that would join the cluster of whoever listens there.
fn joiner(ground: &Ground, name: &str, address: &str) -> Result<Node> {
    let mut node = ground.node(name, "node")?;
    node.args
        .extend([format!("-join={address}"), "-join-interval=1s".to_owned()]);
    node.start()?;
    Ok(node)
}

#[test]
fn servers_that_a_node_dials() -> Result<()> {
    let ground = Ground::new()?;
    let mut rows = Vec::new();
    for (shown, words) in DIALED {
        let address = format!("127.0.0.1:{}", ports::reserve()?);
        let server = serve(&ground, &address, *shown)?;
        let node = joiner(&ground, &format!("{shown:?}"), &address)?;
        rows.push((shown, words, server, node));
    }
    let mut findings = Findings::default();
    for (shown, words, _server, node) in &rows {
        let row = format!("a node dials a server that shows {shown:?}");
        findings.note(&row, &await_words(node, 0, &[words]));
    }
    findings.end()
}

/// A node with TLS dials one without, and the other way round.
#[test]
fn nodes_of_which_one_has_no_tls() -> Result<()> {
    let ground = Ground::new()?;
    let mut plain = Node::new("plain")?;
    plain.start_and_ready()?;
    let with_tls = joiner(&ground, "tls", &plain.raft)?;
    let mut without = Node::new("without")?;
    without.args.extend([
        format!("-join={}", with_tls.raft),
        "-join-interval=1s".to_owned(),
        "-join-attempts=30".to_owned(),
    ]);
    without.start()?;
    let mut findings = Findings::default();
    let words = ["it may have no TLS (-node-cert there)"];
    findings.note("TLS dials plain", &await_words(&with_tls, 0, &words));
    let words = ["it may require TLS (-node-cert)"];
    findings.note("plain dials TLS", &await_words(&without, 0, &words));
    findings.end()
}

#[test]
fn the_http_ports_certificate() -> Result<()> {
    let ground = Ground::new()?;
    let config = authority::client_config(ground.authority.pem(), None)?;
    let mut findings = Findings::default();
    for (shown, verdict) in OF_HTTP {
        let mut node = Node::new("1")?;
        let pair = ground.files(*shown, true)?.context("a certificate")?;
        node.args.extend(pair.flags("http"));
        node.start()?;
        await_words(&node, 0, &["certificate loaded"])?;
        let mut client = Client::new(&node.http).over_tls(Arc::clone(&config), "localhost");
        let mut said = String::new();
        let _ = e2e::wait::until("an answer", LIMIT, || {
            said = match client.get("/readyz?noleader") {
                Ok(reply) => reply.status.to_string(),
                Err(error) => error.to_string(),
            };
            if said.contains("refused (os") {
                Err(said.clone())
            } else {
                Ok(())
            }
        });
        let is_right = match verdict {
            None => said == "200",
            Some(verdict) => verdict.split('|').any(|word| said.contains(word)),
        };
        let found = (|| {
            ensure!(is_right, "the client says {said:?}");
            Ok(())
        })();
        findings.note(&format!("the HTTP port shows {shown:?}"), &found);
    }
    findings.end()
}
