//! A real Kubernetes to test on. Tests take a kubeconfig and know nothing of this crate; it makes the cluster.
//!
//! Two providers behind one small trait: [`local`] (no Docker: nodes are network namespaces on one Linux machine) and
//! [`kind`] (nodes are Docker containers). `src/bin/cluster.rs` is the command line.
//!
//! Reading order: [`provider`] → [`command`] → [`tools`] → [`local`] (its own order is in its first lines) → [`kind`] → [`probe`].

pub mod command;
pub mod kind;
pub mod local;
pub mod probe;
pub mod provider;
pub mod tools;
