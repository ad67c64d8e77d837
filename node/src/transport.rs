//! How connections between nodes are secured: plain TCP or TLS, by `-node-cert` and `-node-tls-stage`.
//!
//! TLS itself (files, checks, reload) is `tls`; this module adds the stages of a move to it, and what becomes
//! of open connections when their certificate is not trusted any more (`transport/links.rs`).
mod explain;
mod links;
mod stream;

use std::{io, sync::Arc, time::Duration};

use rustls::pki_types::UnixTime;
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tokio_util::sync::CancellationToken;

pub use self::{
    explain::{Dialed, while_dialing},
    links::{GRACE, Link},
    stream::Stream,
};
use self::{
    links::{Links, Peer, cut_later},
    stream::Socket,
};
use crate::{
    config::{NodeTlsStage, split_host_port},
    tls::{Side, begins_with_tls},
};

/// Idle connections are probed after this long, so that a peer whose machine is gone is noticed.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// First byte of a plain connection of a node (`internode/wire.rs`).
pub const PLAIN_NODE: u8 = b'R';

/// How this node's connections to and from other nodes are secured.
#[derive(Debug, Default)]
pub struct Transport {
    tls: Option<NodeTls>,
}

#[derive(Debug)]
struct NodeTls {
    stage: NodeTlsStage,
    side: Arc<Side>,
    links: Links,
}

/// Why an accepted connection got no further than its first bytes.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// It is not encrypted, and must be.
    #[error("it does not speak TLS, which -node-tls-stage=require demands of every node")]
    Plain,
    /// The TLS handshake failed.
    #[error("TLS handshake: {0}")]
    Tls(io::Error),
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What is done with an accepted connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    Plain,
    Tls,
    Refuse,
}

/// Decides by whether the connection begins with TLS.
fn first(stage: NodeTlsStage, is_tls: bool) -> First {
    match (is_tls, stage) {
        (true, _) => First::Tls,
        (false, NodeTlsStage::Require) => First::Refuse,
        (false, NodeTlsStage::Accept | NodeTlsStage::Use) => First::Plain,
    }
}

/// Distinguishes plain connections of nodes from those of other programs, such as a node's own check that a
/// join address serves no HTTP.
async fn refusal(stream: &TcpStream) -> io::Result<AcceptError> {
    let mut byte = [0; 1];
    stream.peek(&mut byte).await?;
    Ok(match byte == [PLAIN_NODE] {
        true => AcceptError::Plain,
        false => io::Error::from(io::ErrorKind::InvalidData).into(),
    })
}

fn prepared(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    socket2::SockRef::from(stream)
        .set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(KEEPALIVE))
}

impl Transport {
    /// Connections with TLS; how far the move to it has come is the stage.
    pub fn with_tls(stage: NodeTlsStage, side: Arc<Side>) -> Self {
        let tls = NodeTls {
            stage,
            side,
            links: Links::default(),
        };
        Self { tls: Some(tls) }
    }

    /// The stage of the move to TLS; `None` without a certificate for other nodes.
    pub fn stage(&self) -> Option<NodeTlsStage> {
        self.tls.as_ref().map(|tls| tls.stage)
    }

    /// How this node dials.
    pub fn dials(&self) -> Dialed {
        match self.stage() {
            None | Some(NodeTlsStage::Accept) => Dialed::Plain,
            Some(NodeTlsStage::Use | NodeTlsStage::Require) => Dialed::Tls,
        }
    }

    /// After each change of the files, until the stop: closes connections whose certificates are not trusted
    /// any more, and retires those that this node has dialed with a former certificate.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let Some(tls) = &self.tls else {
            return;
        };
        let mut changes = tls.side.changes();
        let mut leaf = tls.side.describe().leaf_sha256;
        while let Some(Ok(())) = stop.run_until_cancelled(changes.changed()).await {
            let now = tls.side.describe().leaf_sha256;
            if now != leaf {
                tls.links.retire_dialed();
                leaf = now;
            }
            let lost = tls.links.withdraw(|peer| tls.trusts(peer));
            if !lost.is_empty() {
                tracing::info!(
                    target: "mux",
                    "closing {} connections of nodes whose certificates are not trusted any more",
                    lost.len()
                );
                tokio::spawn(cut_later(lost));
            }
        }
    }

    /// Secures a connection that this node has opened to `address`.
    ///
    /// # Errors
    /// The connection or the handshake failed.
    pub async fn connected(&self, stream: TcpStream, address: &str) -> io::Result<Stream> {
        prepared(&stream)?;
        let Some(tls) = self.tls.as_ref().filter(|_| self.dials() == Dialed::Tls) else {
            return Ok(Stream::Plain(stream));
        };
        let host = split_host_port(address).map_or(address, |(host, _)| host);
        let changes = tls.side.changes();
        let stream = tls.side.connect(host, Socket::new(stream)).await?;
        let changed = || changes.has_changed().unwrap_or(true);
        Ok(tls.linked(TlsStream::Client(stream), Some(host), changed))
    }

    /// Secures a connection that this node has accepted.
    ///
    /// # Errors
    /// See [`AcceptError`]. The caller closes the connection without another word.
    pub async fn accepted(&self, stream: TcpStream) -> Result<Stream, AcceptError> {
        prepared(&stream)?;
        let Some(tls) = &self.tls else {
            return Ok(Stream::Plain(stream));
        };
        match first(tls.stage, begins_with_tls(&stream).await?) {
            First::Plain => return Ok(Stream::Plain(stream)),
            First::Refuse => return Err(refusal(&stream).await?),
            First::Tls => {}
        }
        let changes = tls.side.changes();
        let accepted = tls.side.accept(Socket::new(stream)).await;
        let stream = accepted.map_err(AcceptError::Tls)?;
        let changed = || changes.has_changed().unwrap_or(true);
        Ok(tls.linked(TlsStream::Server(stream), None, changed))
    }

    /// Counts and logs a failed handshake of an accepted connection.
    pub fn refused(&self, from: std::net::SocketAddr, error: &io::Error) {
        if let Some(tls) = &self.tls {
            tls.side.refused(from, error);
        }
    }
}

impl NodeTls {
    fn trusts(&self, peer: &Peer) -> bool {
        self.side
            .vouches(&peer.chain, peer.dialed.as_deref(), peer.at)
    }

    /// Registers a new connection. `changed`: the files have changed since its handshake began, so it may
    /// have been trusted by what is withdrawn already.
    fn linked(
        &self,
        stream: TlsStream<Socket>,
        dialed: Option<&str>,
        changed: impl FnOnce() -> bool,
    ) -> Stream {
        let certificates = stream.get_ref().1.peer_certificates();
        let peer = Peer {
            chain: certificates
                .unwrap_or_default()
                .iter()
                .map(|certificate| certificate.clone().into_owned())
                .collect(),
            dialed: dialed.map(ToOwned::to_owned),
            at: UnixTime::now(),
        };
        let link = self.links.add(peer.clone());
        if changed() {
            if dialed.is_some() {
                link.retire();
            }
            if !self.trusts(&peer) {
                link.withdraw();
                tokio::spawn(cut_later(vec![Arc::downgrade(&link)]));
            }
        }
        Stream::encrypted(stream, link)
    }
}

#[cfg(test)]
mod tests;
