//! Single plain HTTP requests on loopback: the operator's probes, etcd's gateway.
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Timeout of a request.
const LIMIT: Duration = Duration::from_secs(5);

fn ask(port: u16, request: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).context("connect")?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((code.context("no HTTP")?, body.to_owned()))
}

/// Status code of a GET.
pub(crate) fn get(port: u16, path: &str) -> Result<u16> {
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    ask(port, &request).map(|(code, _)| code)
}

/// Response body of a POST with JSON.
pub(crate) fn post(port: u16, path: &str, body: &Value) -> Result<Value> {
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}",
        body.len()
    );
    let (code, answer) = ask(port, &format!("{head}\r\n\r\n{body}"))?;
    ensure!(code == 200, "{path}: {code}: {answer}");
    serde_json::from_str(&answer).with_context(|| answer.clone())
}
