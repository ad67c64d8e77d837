//! A small HTTP/1.1 client that returns replies exactly as received and has a timeout on every step.
//!
//! Hand-written because the tests compare bytes, send malformed requests and need to know whether a failed
//! write can have reached the node.
use std::{
    io::{self, Read, Write},
    net::TcpStream,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustls::ClientConfig;
use serde_json::Value;

mod response;
mod sql;
mod transport;

pub use response::Reply;
pub use sql::{WriteOutcome, classify, statement};

use self::transport::Transport;

/// Default timeout for connecting and for each read and write: above the node's own 10 s timeouts, so that
/// the node's error arrives first.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

/// Why no reply was received.
#[derive(Debug)]
pub enum Failure {
    /// The request certainly did not reach the node.
    NotSent(io::Error),
    /// The node may have received the request and may have executed it.
    Broken(io::Error),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotSent(error) => write!(formatter, "not sent: {error}"),
            Self::Broken(error) => write!(formatter, "no reply: {error}"),
        }
    }
}

impl std::error::Error for Failure {}

/// A client of one address over one keep-alive connection.
#[derive(Debug)]
pub struct Client {
    addr: String,
    timeout: Duration,
    connection: Option<Transport>,
    tls: Option<(Arc<ClientConfig>, String)>,
}

impl Client {
    /// A client for `addr` (`host:port`); connects at the first request.
    #[must_use]
    pub fn new(addr: &str) -> Self {
        Self {
            addr: addr.to_owned(),
            timeout: DEFAULT_TIMEOUT,
            connection: None,
            tls: None,
        }
    }

    /// Speaks HTTPS ([`crate::authority::client_config`]) with a server whose certificate must be for `name`.
    #[must_use]
    pub fn over_tls(mut self, config: Arc<ClientConfig>, name: &str) -> Self {
        self.tls = Some((config, name.to_owned()));
        self
    }

    /// Sets the timeout for connecting and for each read and write.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The server's address.
    #[must_use]
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// Sends a GET request.
    ///
    /// # Errors
    /// If no complete reply was received.
    pub fn get(&mut self, path: &str) -> Result<Reply, Failure> {
        self.send("GET", path, &[], b"")
    }

    /// Sends a POST request with `Content-Type: application/json`.
    ///
    /// # Errors
    /// If no complete reply was received.
    pub fn post(&mut self, path: &str, body: &str) -> Result<Reply, Failure> {
        self.send(
            "POST",
            path,
            &[("Content-Type", "application/json")],
            body.as_bytes(),
        )
    }

    /// Sends a request with any method, headers and body.
    ///
    /// # Errors
    /// If no complete reply was received.
    pub fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Reply, Failure> {
        let length = u64::try_from(body.len()).unwrap_or(u64::MAX);
        self.send_from(method, path, headers, &mut &*body, length)
    }

    /// Like [`Client::send`] with a body of `length` bytes read from `body`, for bodies that should not be
    /// held in memory.
    ///
    /// # Errors
    /// If no complete reply was received.
    pub fn send_from(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &mut dyn Read,
        length: u64,
    ) -> Result<Reply, Failure> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.addr);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if length > 0 || !matches!(method, "GET" | "HEAD" | "OPTIONS") {
            head.push_str(&format!("Content-Length: {length}\r\n"));
        }
        head.push_str("\r\n");
        let mut stream = self.connect().map_err(Failure::NotSent)?;
        let reply =
            exchange(&mut stream, method, head.as_bytes(), body).map_err(Failure::Broken)?;
        if !reply.closes() {
            self.connection = Some(stream);
        }
        Ok(reply)
    }

    /// Sends raw bytes on a new connection and reads one reply.
    ///
    /// # Errors
    /// If no complete reply was received.
    pub fn raw(&mut self, request: &[u8]) -> Result<Reply, Failure> {
        self.connection = None;
        let mut stream = self.connect().map_err(Failure::NotSent)?;
        exchange(&mut stream, "GET", request, &mut io::empty()).map_err(Failure::Broken)
    }

    /// Sends a GET request whose reply must be 200 with a JSON body.
    ///
    /// # Errors
    /// If the reply is anything else.
    pub fn get_json(&mut self, path: &str) -> Result<Value> {
        let reply = self.get(path)?;
        if reply.status != 200 {
            bail!(
                "GET {path} at {}: {} {}",
                self.addr,
                reply.status,
                reply.text()
            );
        }
        serde_json::from_slice(&reply.body).with_context(|| format!("GET {path}: {}", reply.text()))
    }

    /// The open connection if the server has not closed it, otherwise a new one.
    fn connect(&mut self) -> io::Result<Transport> {
        if let Some(stream) = self.connection.take()
            && is_idle(stream.tcp())
        {
            return Ok(stream);
        }
        let addr = self
            .addr
            .parse()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let stream = TcpStream::connect_timeout(&addr, self.timeout)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_write_timeout(Some(self.timeout))?;
        match &self.tls {
            None => Ok(Transport::Plain(stream)),
            Some((config, name)) => Transport::tls(stream, config, name),
        }
    }
}

fn exchange(
    stream: &mut Transport,
    method: &str,
    head: &[u8],
    body: &mut dyn Read,
) -> io::Result<Reply> {
    let sent = stream
        .write_all(head)
        .and_then(|()| io::copy(body, stream))
        .and_then(|_| stream.flush());
    match response::read(stream, method) {
        Ok(reply) => Ok(reply),
        // A server may reject a body before it is complete. If it sent no reply, the error of the failed
        // write says more than the error of the failed read.
        Err(error) => Err(sent.err().unwrap_or(error)),
    }
}

/// Whether nothing is readable: neither the end of the stream nor unexpected bytes.
fn is_idle(stream: &TcpStream) -> bool {
    let mut byte = [0];
    let quiet = stream.set_nonblocking(true).is_ok()
        && stream
            .peek(&mut byte)
            .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
    stream.set_nonblocking(false).is_ok() && quiet
}

#[cfg(test)]
mod tests;
