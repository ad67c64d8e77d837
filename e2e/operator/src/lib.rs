//! Test support for the operator's installation and its API, on a real API server.
//!
//! [`generated`] (generated files) · [`tool`] (programs that tests need, and skipping without them) ·
//! [`api_server`] (an API server without machines, for what needs no pod) · [`objects`] (access to an API
//! server by kubectl) · [`fleet`] (many clusters at once, on simulated machines) · [`product`] (the product's
//! programs) · [`operator_fixture`] (the operator on an API server without machines) · [`simulated`] (the
//! same with simulated machines and nodes).
pub mod api_server;
pub mod cert_manager;
pub mod fleet;
pub mod generated;
mod http;
pub mod objects;
pub mod operator_fixture;
pub mod product;
pub mod simulated;
pub mod tool;

use std::path::{Path, PathBuf};

/// The repository's root directory.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The chart's directory.
#[must_use]
pub fn chart() -> PathBuf {
    root().join("charts/rqlite-operator")
}
