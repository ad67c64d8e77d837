//! Real Kubernetes clusters for tests, and support for tests in pods. Tests take a kubeconfig and do not know
//! who created the cluster.
//!
//! Two providers implement one small trait: [`local`] (no Docker: nodes are network namespaces on one Linux
//! machine) and [`kind`] (nodes are Docker containers). `src/bin/cluster.rs` is the command line.
//!
//! Reading order, for clusters: [`provider`] → [`command`] → [`tools`] → [`local`] (which names its own
//! order) → [`kind`] → [`providers`] → [`probe`]; for tests: [`access`] → [`namespace`] → [`plain`] →
//! [`forward`] → [`writer`] → [`numbered`]. [`sbom`] is for images only.

pub mod access;
pub mod command;
pub mod forward;
pub mod kind;
pub mod local;
pub mod namespace;
pub mod numbered;
pub mod plain;
pub mod probe;
pub mod provider;
pub mod providers;
pub mod sbom;
pub mod tools;
pub mod writer;
