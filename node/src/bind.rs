//! Listening at an address. A bind address without a host, or with the host `[::]`, means all addresses of
//! the machine, of both IP families, as in Go.
use std::{
    io::{self, ErrorKind},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use crate::config::split_host_port;

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 1024;

/// Listens at `host:port`.
///
/// # Errors
/// The address is in use, is not of this machine, or cannot be resolved.
pub async fn bind(address: &str) -> io::Result<TcpListener> {
    let port = match split_host_port(address) {
        Some(("" | "::", port)) => port.parse::<u16>().ok(),
        _ => None,
    };
    let Some(port) = port else {
        return TcpListener::bind(address).await;
    };
    match both_families(port) {
        Ok(listener) => Ok(listener),
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::AddrInUse | ErrorKind::PermissionDenied
            ) =>
        {
            Err(error)
        }
        // A machine whose kernel has no IPv6.
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await,
    }
}

/// Whatever the machine's default is, IPv4 connections are accepted too.
fn both_families(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn no_host_means_both_families() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        for address in [format!(":{port}"), format!("[::]:{port}")] {
            let listener = bind(&address).await.unwrap();
            TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            if listener.local_addr().unwrap().is_ipv6() {
                TcpStream::connect(("::1", port)).await.unwrap();
            }
            let second = bind(&address).await.unwrap_err();
            assert_eq!(second.kind(), ErrorKind::AddrInUse, "{address}");
        }
    }

    #[tokio::test]
    async fn a_host_means_itself() {
        let listener = bind("127.0.0.1:0").await.unwrap();
        assert!(listener.local_addr().unwrap().ip().is_loopback());
        assert!(bind("host.invalid:0").await.is_err());
    }
}
