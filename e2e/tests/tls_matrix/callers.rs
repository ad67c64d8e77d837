//! Whoever connects to a node: at its HTTP port and at its port for other nodes.
use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Result, bail, ensure};
use e2e::{authority, process::Node};
use rustls::{ClientConnection, StreamOwned, pki_types::ServerName};

use crate::ground::{Findings, Ground, LIMIT, Shown, await_words, openssl};

/// A row: what the caller shows, what it hears (`None`: it gets in), and what the node's log says of it.
type Row = (Shown, Option<&'static str>, &'static str);

/// The same for both ports: who must show a certificate of this authority with this common name.
#[rustfmt::skip]
const CALLERS: &[Row] = &[
    (Shown::Right,          None,                        ""),
    (Shown::Nothing,        Some("CertificateRequired"), "the client sent no certificate, and one is required"),
    (Shown::OtherName,      Some("BadCertificate|CertificateUnknown|AccessDenied"), "matches CN \"member\""),
    // A client's host is nobody's business.
    (Shown::OtherHost,      None,                        ""),
    (Shown::Expired,        Some("CertificateExpired"),  "it has expired"),
    (Shown::NotYetValid,    Some("CertificateExpired|BadCertificate"), "it is not valid yet"),
    (Shown::SelfSigned,     Some("UnknownCA"),           "it is signed by no trusted authority"),
    (Shown::OtherAuthority, Some("UnknownCA|DecryptError"), "it is signed by no trusted authority"),
    (Shown::OtherUse,       Some("UnsupportedCertificate|BadCertificate|CertificateUnknown"), "extended key usage"),
    (Shown::WeakKey,        Some("alert"),               "1024"),
    (Shown::Tls11,          Some("alert handshake failure|alert protocol version"), "does not speak TLS 1.2 or 1.3"),
];

/// A port, with a request to it and how a reply begins.
struct Port {
    name: &'static str,
    /// Beginning of the names of its flags.
    side: &'static str,
    request: Vec<u8>,
    reply: &'static [u8],
    /// The reply to somebody who does not speak TLS; `None`: the connection is closed without a word.
    plain_reply: Option<&'static str>,
    plain_words: &'static str,
}

fn http() -> Port {
    Port {
        name: "http",
        side: "http",
        request: b"GET /readyz?noleader HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_vec(),
        reply: b"HTTP/1.1 200",
        plain_reply: Some("HTTP/1.1 400"),
        plain_words: "",
    }
}

/// The protocol between nodes begins with the same bytes in both directions.
fn raft() -> Port {
    let hello = [&[3][..], b"\x0aoutsider#1", &[0, 0]].concat();
    let length = u32::try_from(hello.len()).unwrap_or_default().to_le_bytes();
    Port {
        name: "raft",
        side: "node",
        request: [b"RQN1\x01\0", &length[..], &hello].concat(),
        reply: b"",
        plain_reply: None,
        plain_words: "does not speak TLS",
    }
}

fn connect(address: &str) -> Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// Sends the request and reads the beginning of the reply; the error is what the caller hears.
fn talk(stream: &mut (impl Read + Write), port: &Port) -> Result<Vec<u8>> {
    stream.write_all(&port.request)?;
    let mut reply = vec![0; port.reply.len().max(4)];
    match stream.read_exact(&mut reply) {
        Ok(()) => Ok(reply),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => bail!("closed without a word"),
        Err(error) => Err(error.into()),
    }
}

fn by_rustls(ground: &Ground, port: &Port, address: &str, shown: Shown) -> Result<Vec<u8>> {
    let identity = ground.issue(shown, false)?;
    let config = authority::client_config(ground.authority.pem(), identity.as_ref())?;
    let client = ClientConnection::new(config, ServerName::try_from("localhost")?)?;
    talk(&mut StreamOwned::new(client, connect(address)?), port)
}

/// What rustls refuses to do, and careless people's clients do.
fn by_openssl(ground: &Ground, port: &Port, address: &str, shown: Shown) -> Result<Vec<u8>> {
    let mut args = vec!["s_client", "-connect", address, "-quiet", "-no_ign_eof"];
    args.extend(["-cipher", "DEFAULT@SECLEVEL=0"]);
    let files = ground.files(shown, false)?;
    let paths = files.map(|pair| [pair.cert, pair.key].map(|path| path.display().to_string()));
    match &paths {
        Some([cert, key]) => args.extend(["-tls1_2", "-cert", cert, "-key", key]),
        None => args.push("-tls1_1"),
    }
    let said = openssl(&args, &port.request)?;
    ensure!(!said.contains("alert"), "{said}");
    Ok(said.into_bytes())
}

fn row(ground: &Ground, node: &Node, port: &Port, (shown, verdict, words): &Row) -> Result<()> {
    let address = if port.name == "http" {
        &node.http
    } else {
        &node.raft
    };
    let from = node.log().len();
    let by = match shown {
        Shown::WeakKey | Shown::Tls11 => by_openssl,
        _ => by_rustls,
    };
    let reply = by(ground, port, address, *shown);
    match (verdict, &reply) {
        (None, Ok(reply)) => ensure!(reply.starts_with(port.reply), "got {reply:?}"),
        (None, Err(error)) => bail!("is kept out: {error:#}"),
        (Some(_), Ok(reply)) => bail!("gets in: {:?}", String::from_utf8_lossy(reply)),
        (Some(verdict), Err(error)) => {
            let said = format!("{error:#}");
            let known = verdict.split('|').any(|word| said.contains(word));
            ensure!(known, "hears {said:?}, not {verdict:?}");
        }
    }
    if words.is_empty() {
        return Ok(());
    }
    await_words(node, from, &["TLS handshake error from", words])
}

/// Somebody who does not speak TLS.
fn plain(node: &Node, port: &Port) -> Result<()> {
    let address = if port.name == "http" {
        &node.http
    } else {
        &node.raft
    };
    let from = node.log().len();
    let mut stream = connect(address)?;
    stream.write_all(&port.request)?;
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    let reply = String::from_utf8_lossy(&reply);
    match port.plain_reply {
        None => ensure!(reply.is_empty(), "it hears {reply:?}"),
        Some(expected) => ensure!(reply.starts_with(expected), "it hears {reply:?}"),
    }
    if port.plain_words.is_empty() {
        return Ok(());
    }
    await_words(node, from, &[port.plain_words])
}

fn all(port: &Port) -> Result<()> {
    let ground = Ground::new()?;
    let mut node = ground.node("1", port.side)?;
    node.start()?;
    await_words(&node, 0, &["certificate loaded"])?;
    e2e::wait::until("the ports to be open", LIMIT, || {
        [&node.http, &node.raft]
            .iter()
            .try_for_each(|address| TcpStream::connect(address).map(drop))
            .map_err(|error| error.to_string())
    })?;
    let mut findings = Findings::default();
    for line in CALLERS {
        let what = format!("{} port, a caller shows {:?}", port.name, line.0);
        findings.note(&what, &row(&ground, &node, port, line));
        // Only a few refusals are logged in each ten seconds.
        std::thread::sleep(Duration::from_millis(1100));
    }
    let what = format!("{} port, a caller speaks no TLS", port.name);
    findings.note(&what, &plain(&node, port));
    findings.end()
}

#[test]
fn callers_of_the_port_for_nodes() -> Result<()> {
    all(&raft())
}

#[test]
fn callers_of_the_http_port() -> Result<()> {
    all(&http())
}
