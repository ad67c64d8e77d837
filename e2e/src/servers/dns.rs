//! Queries a DNS server directly, over UDP or TCP, without a cache.
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result};
use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};

/// Timeout of one query.
const LIMIT: Duration = Duration::from_secs(3);
/// Largest UDP message that the query advertises and accepts.
const MAX_UDP_BYTES: usize = 4096;

/// A server's response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsResponse {
    /// Response code: `No Error`, `Non-Existent Domain`, …
    pub code: ResponseCode,
    /// The TC flag: the answer was truncated, and the client should retry over TCP.
    pub truncated: bool,
    /// The records of the answer section, in zone-file notation.
    pub records: Vec<String>,
}

/// Queries `server` for the records of a type (`A`, `SRV`, …) over UDP.
///
/// # Errors
/// If the name or type is invalid, or no response arrives in time.
pub fn query(server: SocketAddr, name: &str, kind: &str) -> Result<DnsResponse> {
    let (id, request) = question(name, kind)?;
    let socket = UdpSocket::bind("127.0.0.1:0").context("open a socket")?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.connect(server)?;
    socket.send(&request)?;
    let mut buffer = [0; MAX_UDP_BYTES];
    loop {
        let length = socket
            .recv(&mut buffer)
            .with_context(|| format!("{kind} {name} over UDP"))?;
        let reply = Message::from_vec(&buffer[..length])?;
        if reply.metadata.id == id {
            return Ok(answer(&reply));
        }
    }
}

/// Like [`query`], over TCP.
///
/// # Errors
/// See [`query`].
pub fn query_tcp(server: SocketAddr, name: &str, kind: &str) -> Result<DnsResponse> {
    let (_, request) = question(name, kind)?;
    let mut stream = TcpStream::connect_timeout(&server, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(&u16::try_from(request.len())?.to_be_bytes())?;
    stream.write_all(&request)?;
    let mut length = [0; 2];
    stream
        .read_exact(&mut length)
        .with_context(|| format!("{kind} {name} over TCP"))?;
    let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut reply)?;
    Ok(answer(&Message::from_vec(&reply)?))
}

fn question(name: &str, kind: &str) -> Result<(u16, Vec<u8>)> {
    let mut message = Message::query();
    let mut name = Name::from_ascii(name).with_context(|| format!("name {name:?}"))?;
    name.set_fqdn(true);
    let kind: RecordType = kind.parse().with_context(|| format!("type {kind:?}"))?;
    message.add_query(Query::query(name, kind));
    Ok((message.metadata.id, message.to_vec()?))
}

fn answer(reply: &Message) -> DnsResponse {
    DnsResponse {
        code: reply.metadata.response_code,
        truncated: reply.metadata.truncation,
        records: reply
            .answers
            .iter()
            .map(|record| record.data.to_string())
            .collect(),
    }
}

/// Serial number in the zone's SOA record, if the server has the zone.
pub(super) fn serial(server: SocketAddr, zone: &str) -> Result<u32> {
    let (_, request) = question(zone, "SOA")?;
    let socket = UdpSocket::bind("127.0.0.1:0").context("open a socket")?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.connect(server)?;
    socket.send(&request)?;
    let mut buffer = [0; MAX_UDP_BYTES];
    let length = socket.recv(&mut buffer)?;
    let reply = Message::from_vec(&buffer[..length])?;
    let found = reply.answers.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(soa.serial),
        _ => None,
    });
    found.with_context(|| format!("no SOA in {:?}", answer(&reply)))
}
