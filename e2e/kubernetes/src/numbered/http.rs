//! HTTP requests with a new connection each, so that each may reach any of a Service's pods and none depends
//! on an old connection.
use std::{
    io::{Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};

/// Connect timeout: a pod that does not accept a connection within it counts as unreachable.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// Maximum size of a response.
const MAX_RESPONSE_BYTES: u64 = 1 << 30;

/// `http://[user:password@]host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    address: String,
    credentials: Option<String>,
}

impl Server {
    /// Parses a URL.
    ///
    /// # Errors
    /// If it does not have that form.
    pub fn parse(url: &str) -> Result<Self> {
        let rest = url
            .strip_prefix("http://")
            .with_context(|| format!("{url:?} does not begin with http://"))?;
        let rest = rest.trim_end_matches('/');
        let (credentials, address) = match rest.rsplit_once('@') {
            Some((credentials, address)) => (Some(STANDARD.encode(credentials)), address),
            None => (None, rest),
        };
        ensure!(
            address.contains(':') && !address.contains('/'),
            "{url:?} is not of the form http://[user:password@]host:port"
        );
        Ok(Self {
            address: address.to_owned(),
            credentials,
        })
    }

    /// Sends a POST with JSON, or a GET without; returns the body of a response with status 200.
    ///
    /// # Errors
    /// Describes the failure. Whether the request took effect is then unknown.
    pub fn request(&self, path: &str, json: Option<&str>, limit: Duration) -> Result<Vec<u8>> {
        let mut stream = self.connect()?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        stream
            .write_all(self.request_text(path, json).as_bytes())
            .context("send")?;
        let mut response = Vec::new();
        stream
            .take(MAX_RESPONSE_BYTES)
            .read_to_end(&mut response)
            .context("read the response")?;
        body(response)
    }

    fn connect(&self) -> Result<TcpStream> {
        let mut addresses = self.address.to_socket_addrs().context("resolve")?;
        let address = addresses.next().context("the name has no address")?;
        TcpStream::connect_timeout(&address, CONNECT_LIMIT).context("connect")
    }

    /// HTTP/1.0: the response ends with the connection and is not chunked.
    fn request_text(&self, path: &str, json: Option<&str>) -> String {
        let method = if json.is_some() { "POST" } else { "GET" };
        let mut text = format!("{method} {path} HTTP/1.0\r\nHost: {}\r\n", self.address);
        if let Some(credentials) = &self.credentials {
            text += &format!("Authorization: Basic {credentials}\r\n");
        }
        let json = json.unwrap_or_default();
        text + &format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{json}",
            json.len()
        )
    }
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
        for url in [
            "rqlite:4001",
            "https://rqlite:4001",
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
