//! A real Kubernetes to test on, and what tests in pods need. Tests take a kubeconfig and do not know who made the cluster.
//!
//! Two providers behind one small trait: [`local`] (no Docker: nodes are network namespaces on one Linux machine) and
//! [`kind`] (nodes are Docker containers). `src/bin/cluster.rs` is the command line.
//!
//! Reading order, for clusters: [`provider`] → [`command`] → [`tools`] → [`local`] (its own order is in its first lines) → [`kind`] →
//! [`probe`]; for tests: [`access`] → [`namespace`] → [`plain`] → [`writer`] → [`numbered`]. [`sbom`] is for the images alone.

pub mod access;
pub mod command;
pub mod kind;
pub mod local;
pub mod namespace;
pub mod numbered;
pub mod plain;
pub mod probe;
pub mod provider;
pub mod sbom;
pub mod tools;
pub mod writer;
