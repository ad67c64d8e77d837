//! Test support for real `rqlited` processes: start, query, partition, kill and measure them.
//!
//! Knows the node only from outside: its command line, its files and its HTTP API. The integration tests in
//! `tests/` and the benchmark in `src/bin/bench.rs` are built on it.
//!
//! Reading order: [`process`] → [`client`] → [`wait`] → [`cluster`] → [`membership`] → [`link`] → [`fault`]
//! with [`history`] and [`linearize`] → [`exchange`] → [`small_disk`], [`frozen_disk`] and [`power`] →
//! [`dump`] → [`archive`] → [`mod@bench`]. [`authority`] makes certificates, good and bad ones, and
//! [`mounted`] exchanges them. Apart from these, [`repository`] reads the workspace's sources for the tests
//! of its rules.

pub mod archive;
pub mod authority;
pub mod bench;
pub mod binary;
mod child;
pub mod client;
pub mod cluster;
pub mod dump;
pub mod exchange;
pub mod fault;
pub mod frozen_disk;
pub mod history;
pub mod linearize;
pub mod link;
pub mod membership;
pub mod mounted;
pub mod netns;
pub mod ports;
pub mod power;
pub mod process;
pub mod repository;
pub mod seed;
pub mod servers;
pub mod small_disk;
pub mod wait;
