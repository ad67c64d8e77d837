//! Connections on the inter-node port: dialing, the handshake and frames. The content of the frames is
//! defined elsewhere.
//!
//! Every connection begins with one [`Hello`] and one [`Welcome`]. The hello names the purpose, so that
//! heartbeats never wait behind a bulk transfer, and the identities of both nodes, so that a frame reaches
//! only the data directory that it is meant for.
use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{
        AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter,
        ReadHalf, WriteHalf,
    },
    net::TcpStream,
    time::timeout,
};

use crate::{
    identity::Cluster,
    transport::{AcceptError, Link, PLAIN_NODE, Stream, Transport, while_dialing},
    version,
};

/// The first bytes of every connection. They distinguish this protocol from any other.
const MAGIC: [u8; 4] = [PLAIN_NODE, b'Q', b'N', b'1'];
/// Version of everything after the magic bytes. Nodes with different versions refuse each other's connections
/// and say why.
const PROTOCOL_VERSION: u16 = 1;
/// Largest frame: holds a forwarded batch of writes, or log entries (at most 4 MiB together, or a single one
/// of at most 49 MiB). Appends to nodes that accept more have a larger limit (`raft/pipeline.rs`).
pub const MAX_FRAME_BYTES: usize = 64 << 20;
/// Largest hello. Hellos are small, so a larger one comes from another program.
const MAX_HELLO_BYTES: usize = 64 << 10;
/// Largest message of a node that has not proven to be a member: joins and notices have a few hundred bytes,
/// a pledge names some members.
pub const MAX_UNKNOWN_FRAME_BYTES: usize = 64 << 10;
/// Time limit for the hello, so that silent connections do not accumulate: a few round trips with lost
/// packets.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Memory for a message is allocated as its bytes arrive, at least this much at a time, so that announcing 64
/// MiB does not allocate them.
const FRAME_STEP_BYTES: usize = 256 << 10;
/// Socket buffers between nodes; frames are tens of KiB under load.
const BUFFER_BYTES: usize = 64 << 10;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// Log replication: pipelined requests, responses in the same order.
    Append,
    /// Heartbeats, votes and leadership transfer: one request at a time.
    Beat,
    /// One snapshot: its header, the file, one response.
    Snapshot,
    /// Joining, leaving and forwarded client work: one request at a time.
    Cluster,
}

/// The first frame of a connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// What the connection is for.
    pub purpose: Purpose,
    /// Raft id of the dialing node.
    pub from: String,
    /// Raft id of the node that the dialing node expects; `None` for [`Purpose::Cluster`], where it knows
    /// only the address.
    pub to: Option<String>,
    /// The dialing node's cluster, if it has one.
    pub cluster: Option<Cluster>,
    /// The newest format version that the dialing node speaks (`version.rs`).
    #[serde(deserialize_with = "unstated_is_one")]
    pub version: u16,
}

/// Deserializes a last field that nodes of format version 1 do not send.
///
/// # Errors
/// None; the signature is serde's.
pub fn unstated_is_one<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    Ok(u16::deserialize(deserializer).unwrap_or(version::UNSTATED))
}

/// The response to a hello.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Welcome {
    /// The connection is accepted.
    Accepted,
    /// The connection is refused; the reason is a text for people.
    Refused(String),
    /// The connection is accepted, and the accepting node understands up to this format version. Sent only to
    /// nodes that sent theirs.
    AcceptedAs(u16),
}

/// The frequent failure as rqlite words it.
fn of_dial(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        _ => error.to_string(),
    }
}

/// Why a call to another node failed.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Name resolution or connecting failed: nothing was sent.
    #[error("dial tcp {address}: {}", of_dial(.source))]
    Dial {
        /// Address as configured.
        address: String,
        /// The system's error.
        source: io::Error,
    },
    /// The other side answered the hello with a refusal: nothing was sent.
    #[error("{address} refused: {reason}")]
    Refused {
        /// Address as configured.
        address: String,
        /// The reason that it gave.
        reason: String,
    },
    /// The connection failed after the handshake, or carried invalid data: what was sent may have taken
    /// effect.
    #[error("connection with {address}: {source}")]
    Broken {
        /// Address as configured.
        address: String,
        /// The error.
        source: io::Error,
    },
    /// No response in time: what was sent may have taken effect.
    #[error("timeout waiting for {address}")]
    Timeout {
        /// Address as configured.
        address: String,
    },
    /// Another node leads now, and the former leader, to which the request was sent, does not respond any
    /// more.
    #[error("{address} does not lead any more, and does not answer")]
    Unresponsive {
        /// Address as configured.
        address: String,
        /// No connection had been established: nothing was sent.
        nothing_sent: bool,
    },
}

impl WireError {
    /// No byte of the request can have reached the other side.
    pub fn nothing_sent(&self) -> bool {
        match self {
            Self::Dial { .. } | Self::Refused { .. } => true,
            Self::Unresponsive { nothing_sent, .. } => *nothing_sent,
            Self::Broken { .. } | Self::Timeout { .. } => false,
        }
    }
}

/// The reading half of a connection.
pub type Reader = BufReader<ReadHalf<Stream>>;
/// The writing half of a connection.
pub type Writer = BufWriter<WriteHalf<Stream>>;

/// An open, greeted connection.
#[derive(Debug)]
pub struct Connection {
    /// Frames from the other side.
    pub reader: Reader,
    /// Frames to the other side.
    pub writer: Writer,
    /// As dialed or as accepted, for messages.
    pub address: String,
    /// The newest format version that the other side speaks.
    pub version: u16,
    /// The trust in the other side, if the connection is encrypted.
    pub link: Option<Arc<Link>>,
}

impl Connection {
    fn new(stream: Stream, address: String) -> Self {
        let link = stream.link();
        let (read, write) = tokio::io::split(stream);
        Self {
            reader: BufReader::with_capacity(BUFFER_BYTES, read),
            writer: BufWriter::with_capacity(BUFFER_BYTES, write),
            address,
            version: version::UNSTATED,
            link,
        }
    }

    /// Resolves `address` again (pods change their IPs), connects, and exchanges hello and welcome, all of it
    /// within `limit`.
    ///
    /// # Errors
    /// See [`WireError`]. After any of them, nothing of the caller's request was sent.
    pub async fn dial(
        transport: &Transport,
        address: &str,
        hello: &Hello,
        limit: Duration,
    ) -> Result<Self, WireError> {
        let dial = |source| WireError::Dial {
            address: address.to_owned(),
            source,
        };
        let attempt = async {
            let stream = connect(address).await.map_err(dial)?;
            let greeted = Self::greet(transport, stream, address, hello).await;
            greeted.map_err(|e| dial(while_dialing(transport.dials(), e)))
        };
        let (mut connection, welcome) = match timeout(limit, attempt).await {
            Ok(result) => result?,
            Err(_) => return Err(dial(io::Error::new(io::ErrorKind::TimedOut, "i/o timeout"))),
        };
        match welcome {
            Welcome::Accepted => {}
            Welcome::AcceptedAs(version) => connection.version = version,
            Welcome::Refused(reason) => {
                return Err(WireError::Refused {
                    address: address.to_owned(),
                    reason,
                });
            }
        }
        Ok(connection)
    }

    async fn greet(
        transport: &Transport,
        stream: TcpStream,
        address: &str,
        hello: &Hello,
    ) -> io::Result<(Self, Welcome)> {
        let stream = transport.connected(stream, address).await?;
        let mut connection = Self::new(stream, address.to_owned());
        connection.writer.write_all(&MAGIC).await?;
        connection.writer.write_u16_le(PROTOCOL_VERSION).await?;
        write_frame(&mut connection.writer, hello).await?;
        connection.writer.flush().await?;
        let welcome = read_frame(&mut connection.reader, MAX_HELLO_BYTES).await?;
        welcome
            .map(|welcome| (connection, welcome))
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Secures an accepted connection and reads its hello. The caller responds with [`Connection::accepted`]
    /// or [`Connection::respond`].
    ///
    /// # Errors
    /// Not the right to speak, another protocol, another protocol version, or too slow.
    pub async fn accept(
        transport: &Transport,
        stream: TcpStream,
        from: SocketAddr,
    ) -> Result<(Self, Hello), AcceptError> {
        let greeted = async {
            let stream = transport.accepted(stream).await?;
            let mut connection = Self::new(stream, from.to_string());
            let hello = connection.hello().await?;
            connection.version = hello.version;
            Ok((connection, hello))
        };
        timeout(HELLO_TIMEOUT, greeted)
            .await
            .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
    }

    async fn hello(&mut self) -> io::Result<Hello> {
        let mut magic = [0; 4];
        self.reader.read_exact(&mut magic).await?;
        if magic != MAGIC {
            let text = match magic {
                [0x16, ..] => "it speaks TLS, and this node has no -node-cert",
                _ => "not an rqlited inter-node connection",
            };
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let version = self.reader.read_u16_le().await?;
        if version != PROTOCOL_VERSION {
            let reason = format!(
                "handshake version {version} is not supported here, only {PROTOCOL_VERSION}"
            );
            self.respond(&Welcome::Refused(reason.clone())).await?;
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        read_frame::<_, Hello>(&mut self.reader, MAX_HELLO_BYTES)
            .await?
            .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
    }

    /// Moves the connection to the runtime that runs the caller. Allowed only before the response to the
    /// hello: bytes that this side has read, but not used, would be lost.
    ///
    /// # Errors
    /// The system's, or the other side has sent something before the response.
    pub fn moved_here(self) -> io::Result<Self> {
        if !self.reader.buffer().is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "spoke before it was answered",
            ));
        }
        let stream = self.reader.into_inner().unsplit(self.writer.into_inner());
        Ok(Self {
            version: self.version,
            ..Self::new(stream.moved_here()?, self.address)
        })
    }

    /// Accepts the hello. Sends this node's format version if the other side understands that.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn accepted(&mut self) -> io::Result<()> {
        let welcome = if self.version > version::UNSTATED {
            Welcome::AcceptedAs(version::NEWEST)
        } else {
            Welcome::Accepted
        };
        self.respond(&welcome).await
    }

    /// Responds to the hello.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn respond(&mut self, welcome: &Welcome) -> io::Result<()> {
        write_frame(&mut self.writer, welcome).await?;
        self.writer.flush().await
    }

    /// Sends one message and flushes.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn send<T: Serialize>(&mut self, message: &T) -> io::Result<()> {
        write_frame(&mut self.writer, message).await?;
        self.writer.flush().await
    }

    /// Receives one message; `None` if the other side closed between messages.
    ///
    /// # Errors
    /// The connection failed or carried invalid data.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        self.receive_within(MAX_FRAME_BYTES).await
    }

    /// As [`Self::receive`], for messages of at most `limit_bytes`.
    ///
    /// # Errors
    /// As [`Self::receive`]; the message is larger.
    pub async fn receive_within<T: DeserializeOwned>(
        &mut self,
        limit_bytes: usize,
    ) -> io::Result<Option<T>> {
        read_frame(&mut self.reader, limit_bytes).await
    }

    /// Turns an I/O error of this connection into a [`WireError`] that names its address.
    pub fn broken(&self, source: io::Error) -> WireError {
        WireError::Broken {
            address: self.address.clone(),
            source,
        }
    }
}

/// Tries every address of the name, in order.
async fn connect(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no such host");
    for socket in tokio::net::lookup_host(address).await? {
        match TcpStream::connect(socket).await {
            Ok(stream) => return Ok(stream),
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// Writes one length-prefixed message; the caller flushes.
///
/// # Errors
/// The connection failed, or the message is over [`MAX_FRAME_BYTES`].
pub async fn write_frame<W: AsyncWrite + Unpin, T: Serialize>(
    writer: &mut W,
    message: &T,
) -> io::Result<()> {
    write_frame_within(writer, message, MAX_FRAME_BYTES).await
}

/// As [`write_frame`], for messages of at most `limit_bytes`.
///
/// # Errors
/// The connection failed, or the message is over the limit.
pub async fn write_frame_within<W: AsyncWrite + Unpin, T: Serialize>(
    writer: &mut W,
    message: &T,
    limit_bytes: usize,
) -> io::Result<()> {
    let bytes =
        postcard::to_stdvec(message).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    if bytes.len() > limit_bytes {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "message of {} bytes is over the inter-node limit of {limit_bytes}",
                bytes.len()
            ),
        ));
    }
    writer
        .write_u32_le(u32::try_from(bytes.len()).unwrap_or(u32::MAX))
        .await?;
    writer.write_all(&bytes).await
}

/// Reads one message of at most `limit_bytes`; `None` at a clean end.
///
/// # Errors
/// The connection failed, the message is over the limit, or it is not a `T`.
pub async fn read_frame<R: AsyncRead + Unpin, T: DeserializeOwned>(
    reader: &mut R,
    limit_bytes: usize,
) -> io::Result<Option<T>> {
    let length = match reader.read_u32_le().await {
        Ok(length) => length as usize,
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e),
    };
    if length > limit_bytes {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("message of {length} bytes is over the limit of {limit_bytes}"),
        ));
    }
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let have = bytes.len();
        let more = (length - have).min(have.max(FRAME_STEP_BYTES));
        bytes.reserve_exact(more);
        bytes.resize(have + more, 0);
        if let Some(part) = bytes.get_mut(have..) {
            reader.read_exact(part).await?;
        }
    }
    postcard::from_bytes(&bytes)
        .map(Some)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

impl Connection {
    /// Waits until the other side closes the connection. Meant for the time while the other side waits for a
    /// response and sends nothing; if it does send something, this never completes.
    pub async fn closed(&mut self) {
        match self.reader.fill_buf().await {
            Ok(arrived) if !arrived.is_empty() => std::future::pending().await,
            Ok(_) | Err(_) => {}
        }
    }

    /// Nothing has arrived, the other side has not closed the connection, and it is still trusted: the
    /// connection may be used for another request.
    pub fn is_idle(&mut self) -> bool {
        use futures_util::FutureExt;
        let usable = !is_retired(self.link.as_ref());
        usable && self.reader.buffer().is_empty() && self.reader.fill_buf().now_or_never().is_none()
    }

    /// The other side has dialed and shown a certificate, and it was verified.
    pub fn is_verified_client(&self) -> bool {
        let link = self.link.as_ref();
        link.is_some_and(|link| link.is_verified_client())
    }
}

/// No further request may begin on the connection.
pub fn is_retired(link: Option<&Arc<Link>>) -> bool {
    link.is_some_and(|link| link.is_retired())
}

/// Completes when trust in the other side is withdrawn; never for a connection without TLS.
pub async fn withdrawn(link: Option<&Arc<Link>>) {
    match link {
        Some(link) => link.withdrawn().cancelled().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
