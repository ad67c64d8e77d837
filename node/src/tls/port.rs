//! The two ports, and the names of their flags and metrics.
use crate::metrics::Counter;

/// A port of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// The HTTP API.
    Http,
    /// The inter-node port.
    Node,
}

impl Port {
    /// Beginning of the names of its flags.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Node => "node",
        }
    }

    /// Protocols that are offered. Nodes speak only one.
    pub(crate) fn alpn(self) -> Vec<Vec<u8>> {
        match self {
            Self::Http => vec![b"http/1.1".to_vec()],
            Self::Node => Vec::new(),
        }
    }

    pub(super) fn log_target(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Node => "mux",
        }
    }

    pub(super) fn expiry(self) -> Counter {
        match self {
            Self::Http => Counter::TlsHttpExpiry,
            Self::Node => Counter::TlsNodeExpiry,
        }
    }

    pub(super) fn reloads(self) -> Counter {
        match self {
            Self::Http => Counter::TlsHttpReloads,
            Self::Node => Counter::TlsNodeReloads,
        }
    }

    pub(super) fn reload_failures(self) -> Counter {
        match self {
            Self::Http => Counter::TlsHttpReloadFailures,
            Self::Node => Counter::TlsNodeReloadFailures,
        }
    }

    pub(super) fn handshake_failures(self) -> Counter {
        match self {
            Self::Http => Counter::TlsHttpHandshakeFailures,
            Self::Node => Counter::TlsNodeHandshakeFailures,
        }
    }
}
