//! A connection of the load generator: TCP, or TLS over it; neither blocks.
use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    sync::Arc,
};

use mio::net::TcpStream;
use rustls::{ClientConfig, ClientConnection, pki_types::ServerName};

/// An open connection.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<ClientConnection>, TcpStream),
}

impl Stream {
    /// Connects, and blocks until the handshake is done.
    pub(super) fn connect(addr: SocketAddr, tls: Option<&Arc<ClientConfig>>) -> io::Result<Self> {
        let mut stream = std::net::TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        let connection = tls
            .map(|config| {
                let name = ServerName::from(addr.ip());
                let mut connection =
                    ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
                while connection.is_handshaking() {
                    connection.complete_io(&mut stream)?;
                }
                Ok::<_, io::Error>(connection)
            })
            .transpose()?;
        stream.set_nonblocking(true)?;
        let stream = TcpStream::from_std(stream);
        Ok(match connection {
            None => Self::Plain(stream),
            Some(connection) => Self::Tls(Box::new(connection), stream),
        })
    }

    /// The socket, to be watched.
    pub(super) fn socket(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(stream) | Self::Tls(_, stream) => stream,
        }
    }

    /// Reads what has arrived.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (connection, stream) = match self {
            Self::Plain(stream) => return stream.read(buffer),
            Self::Tls(connection, stream) => (connection, stream),
        };
        loop {
            match connection.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
            if connection.read_tls(stream)? == 0 {
                return Ok(0);
            }
            connection.process_new_packets().map_err(io::Error::other)?;
        }
    }

    /// Sends as much as the kernel accepts; with TLS it keeps the rest for [`Self::flush`].
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(connection, _) => {
                let taken = connection.writer().write(bytes)?;
                self.flush()?;
                Ok(taken)
            }
        }
    }

    /// Sends what is kept, as far as the kernel accepts it.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let Self::Tls(connection, stream) = self else {
            return Ok(());
        };
        while connection.wants_write() {
            match connection.write_tls(stream) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
