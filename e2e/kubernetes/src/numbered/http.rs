//! HTTP and HTTPS requests with a new connection each, so that each may reach any of a Service's pods and
//! none depends on an old connection.
use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, TcpStream, ToSocketAddrs},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

/// Connect timeout: a pod that does not accept a connection within it counts as unreachable.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// Maximum size of a response.
const MAX_RESPONSE_BYTES: u64 = 1 << 30;

/// `http[s]://[user:password@]host:port`, and where what the URL leaves out comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    address: String,
    credentials: Option<String>,
    is_tls: bool,
    secret: Option<PathBuf>,
    trusted: Option<Trusted>,
}

/// Whose certificate a server must have: the authorities (PEM) that may have signed it, and the name in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trusted {
    /// The authorities.
    pub authorities: String,
    /// The name.
    pub name: String,
}

impl Server {
    /// Parses a URL.
    ///
    /// # Errors
    /// If it does not have that form.
    pub fn parse(url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        ensure!(
            ["http", "https"].contains(&scheme),
            "{url:?} does not begin with http:// or https://"
        );
        let rest = rest.trim_end_matches('/');
        let (credentials, address) = match rest.rsplit_once('@') {
            Some((credentials, address)) => (Some(STANDARD.encode(credentials)), address),
            None => (None, rest),
        };
        ensure!(
            address.contains(':') && !address.contains('/'),
            "{url:?} is not of the form http[s]://[user:password@]host:port"
        );
        Ok(Self {
            address: address.to_owned(),
            credentials,
            is_tls: scheme == "https",
            secret: None,
            trusted: None,
        })
    }

    /// Trusts these authorities, whatever address the URL has.
    #[must_use]
    pub fn with_trusted(mut self, trusted: Trusted) -> Self {
        self.trusted = Some(trusted);
        self
    }

    /// Takes what the URL does not say from the files of a connection Secret (`username`, `password`,
    /// `ca.crt`, and `host`, for which the certificate must be if the URL has an IP address). They are read
    /// again for each request, as applications should do: a rotated password is then used without a restart.
    /// Files that do not exist say nothing.
    #[must_use]
    pub fn with_secret(mut self, folder: &Path) -> Self {
        self.secret = Some(folder.to_owned());
        self
    }

    /// `host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A file of the connection Secret.
    fn secret(&self, key: &str) -> Option<String> {
        let folder = self.secret.as_ref()?;
        let text = fs::read_to_string(folder.join(key)).ok()?;
        Some(text.trim_end_matches('\n').to_owned())
    }

    /// Basic credentials, base64.
    fn credentials(&self) -> Option<String> {
        let found = || {
            let (user, password) = (self.secret("username")?, self.secret("password")?);
            Some(STANDARD.encode(format!("{user}:{password}")))
        };
        self.credentials.clone().or_else(found)
    }

    /// Sends a POST with JSON, or a GET without; returns the body of a response with status 200.
    ///
    /// # Errors
    /// Describes the failure. Whether the request took effect is then unknown.
    pub fn request(&self, path: &str, json: Option<&str>, limit: Duration) -> Result<Vec<u8>> {
        let stream = self.connect()?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        let text = self.request_text(path, json);
        if self.is_tls {
            exchange(tls(stream, &self.trusted()?)?, &text)
        } else {
            exchange(stream, &text)
        }
    }

    fn connect(&self) -> Result<TcpStream> {
        let mut addresses = self.address.to_socket_addrs().context("resolve")?;
        let address = addresses.next().context("the name has no address")?;
        TcpStream::connect_timeout(&address, CONNECT_LIMIT).context("connect")
    }

    fn trusted(&self) -> Result<Trusted> {
        if let Some(given) = &self.trusted {
            return Ok(given.clone());
        }
        Ok(Trusted {
            authorities: self.secret("ca.crt").context("ca.crt is not there")?,
            name: self.name(),
        })
    }

    /// The name for which the server's certificate must be.
    fn name(&self) -> String {
        let host = self.address.rsplit_once(':').map_or("", |(host, _)| host);
        let is_address = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        let named = self.secret("host").filter(|_| is_address);
        named.unwrap_or_else(|| host.to_owned())
    }

    /// HTTP/1.0: the response ends with the connection and is not chunked.
    fn request_text(&self, path: &str, json: Option<&str>) -> String {
        let method = if json.is_some() { "POST" } else { "GET" };
        let mut text = format!("{method} {path} HTTP/1.0\r\nHost: {}\r\n", self.address);
        if let Some(credentials) = self.credentials() {
            text += &format!("Authorization: Basic {credentials}\r\n");
        }
        let json = json.unwrap_or_default();
        text + &format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{json}",
            json.len()
        )
    }
}

fn exchange(mut stream: impl Read + Write, request: &str) -> Result<Vec<u8>> {
    stream.write_all(request.as_bytes()).context("send")?;
    stream.flush().context("send")?;
    let mut response = Vec::new();
    stream
        .take(MAX_RESPONSE_BYTES)
        .read_to_end(&mut response)
        .context("read the response")?;
    body(response)
}

fn tls(stream: TcpStream, trusted: &Trusted) -> Result<StreamOwned<ClientConnection, TcpStream>> {
    let mut roots = RootCertStore::empty();
    for one in CertificateDer::pem_slice_iter(trusted.authorities.as_bytes()) {
        roots.add(one.context("read ca.crt")?)?;
    }
    ensure!(!roots.is_empty(), "ca.crt has no certificate");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(trusted.name.clone()).context("the server's name")?;
    let connection = ClientConnection::new(Arc::new(config), name)?;
    Ok(StreamOwned::new(connection, stream))
}

fn body(mut response: Vec<u8>) -> Result<Vec<u8>> {
    let end = response
        .windows(4)
        .position(|bytes| bytes == b"\r\n\r\n")
        .context("the response ended before its body")?;
    let head = String::from_utf8_lossy(&response[..end]).into_owned();
    let body = response.split_off(end + 4);
    let status = head.lines().next().unwrap_or_default();
    ensure!(
        status.split(' ').nth(1) == Some("200"),
        "{status}: {}",
        String::from_utf8_lossy(&body).trim()
    );
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse::<usize>().ok())?
    });
    ensure!(
        length.is_none_or(|length| length == body.len()),
        "the response was cut off: {} of {length:?} bytes",
        body.len()
    );
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let server = Server::parse("http://u:p@rqlite.ns:4001/").unwrap();
        assert_eq!(server.address, "rqlite.ns:4001");
        assert_eq!(server.credentials.as_deref(), Some("dTpw"));
        assert!(!server.is_tls);
        assert!(Server::parse("https://rqlite:4001").unwrap().is_tls);
        for url in [
            "rqlite:4001",
            "ftp://rqlite:4001",
            "http://rqlite",
            "http://a:1/b",
        ] {
            assert!(Server::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn requests_name_their_host_and_length() {
        let server = Server::parse("http://h:1").unwrap();
        let text = server.request_text("/db/execute", Some("[]"));
        assert!(
            text.starts_with("POST /db/execute HTTP/1.0\r\nHost: h:1\r\n"),
            "{text}"
        );
        assert!(text.ends_with("Content-Length: 2\r\n\r\n[]"), "{text}");
    }

    #[test]
    fn a_connection_secret_says_what_the_url_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let of = |url: &str| Server::parse(url).unwrap().with_secret(folder.path());
        let server = of("https://10.96.0.7:4001");
        assert_eq!(server.credentials(), None);
        for (key, value) in [
            ("username", "app"),
            ("password", "old"),
            ("host", "demo-client.shop.svc"),
        ] {
            fs::write(folder.path().join(key), value).unwrap();
        }
        let basic = |text: &str| Some(STANDARD.encode(text));
        assert_eq!(server.credentials(), basic("app:old"));
        fs::write(folder.path().join("password"), "new").unwrap();
        assert_eq!(server.credentials(), basic("app:new"), "it was rotated");
        assert_eq!(of("http://u:p@h:1").credentials(), basic("u:p"));
        assert_eq!(server.name(), "demo-client.shop.svc");
        assert_eq!(
            of("https://demo-0.demo-headless:4001").name(),
            "demo-0.demo-headless"
        );
        let refused = server.request("/", None, CONNECT_LIMIT);
        assert!(refused.is_err(), "without ca.crt nothing is sent");
    }

    #[test]
    fn only_a_whole_answer_counts() {
        let response = |text: &str| body(text.as_bytes().to_vec());
        assert_eq!(
            response("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap(),
            b"ok"
        );
        assert_eq!(response("HTTP/1.0 200 OK\r\n\r\nok").unwrap(), b"ok");
        for (text, expected) in [
            ("HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nok", "cut off"),
            (
                "HTTP/1.0 503 Service Unavailable\r\n\r\nleader not found\n",
                "503 Service Unavailable: leader not found",
            ),
            ("HTTP/1.0 200", "before its body"),
        ] {
            let error = response(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
