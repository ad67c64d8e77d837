//! TLS of the node's two ports: files, checks, reload, and what is reported of them.
//!
//! [`Side`] is one port's TLS. Whoever serves a port opens it at the start ([`Side::open`]: errors name flag
//! and file), spawns [`Side::watch`], and passes each accepted connection through [`Side::accept`] and each
//! dialed one through [`Side::connect`]. Both have their own time limit, and use what is in force at that
//! moment. A failed accept goes to [`Side::refused`], which counts it and logs a few. [`Side::describe`] is
//! the part of `/status`, for which the API's services hold both [`Sides`]. [`begins_with_tls`] distinguishes
//! TLS from other protocols by the first byte, for ports that speak both.
//!
//! Rules: TLS 1.2 or later, by rustls with ring. RSA keys of fewer than 2048 bits are refused. Files are
//! looked at every second, through symbolic links; files that cannot be used are not taken, and that is
//! reported (log, metric, status) when two looks in a row saw it. A node's own expired certificate is a
//! warning, because whoever trusts it decides. Where no authorities are given, the system's are trusted. A
//! certificate that is itself among the given ones is accepted without a chain, even if it is an authority's.
//! Sessions are not resumed where clients are verified.
//!
//! Reading order: `pem` (files) → `facts` (of certificates) → `verify` (the other side's) → `load` (files to
//! configurations) → `reload` (when a bad file is reported) → `handshake` (limits) → `words` (errors) →
//! `side`.
mod facts;
mod handshake;
mod load;
pub mod pem;
mod port;
mod reload;
mod side;
mod verify;
mod words;

pub use self::{
    facts::{Validity, sha256_hex},
    handshake::{HANDSHAKE_LIMIT, begins_with_tls},
    port::Port,
    side::{Side, server_name},
    verify::{Trusted, unverified},
    words::explain,
};
pub(crate) use load::client_builder;

use std::sync::Arc;

/// TLS of both ports, as far as it is configured.
#[derive(Clone, Debug, Default)]
pub struct Sides {
    /// The HTTP API's.
    pub http: Option<Arc<Side>>,
    /// The inter-node port's.
    pub node: Option<Arc<Side>>,
}

#[cfg(test)]
mod tests;
