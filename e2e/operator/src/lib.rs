//! The operator's installation and its API, tried against a real API server.
//!
//! [`generated`] (files made from others) · [`tool`] (programs that tests need, and what happens without) · [`api_server`] (an API
//! server without machines, for what needs no pod) · [`objects`] (asking an API server with kubectl) ·
//! [`crowd`] (many clusters at once, with played machines) · [`product`] (the product's programs) · [`stage`] (the operator at work without
//! machines).
pub mod api_server;
pub mod crowd;
pub mod generated;
mod http;
pub mod objects;
pub mod product;
pub mod stage;
pub mod tool;

use std::path::{Path, PathBuf};

/// The repository's root.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The chart.
#[must_use]
pub fn chart() -> PathBuf {
    root().join("charts/rqlite-operator")
}
