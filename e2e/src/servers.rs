//! Real servers that discovery and backups are tested against: CoreDNS, etcd, Consul; versitygw (S3),
//! fake-gcs-server, Azurite; each on its own ports.
//!
//! They come from `e2e/tools` (pinned, built once into a cache). A test begins with [`present`]: if a server
//! is not built, the test prints a message and is skipped, or fails where servers are required (`CI=true` or
//! [`REQUIRE`]`=1`). Every server is killed when its value is dropped; its log is shown with a failing test's
//! output.
//!
//! Reading order: [`tool`] → [`daemon`] → [`coredns`] with [`dns`] and [`dns_proxy`] → [`certificates`] →
//! [`etcd`], [`consul`]; [`objects`]. To delay or cut traffic to etcd or Consul, put a
//! [`crate::link::Link`] in front.

pub mod certificates;
pub mod consul;
pub mod coredns;
pub mod daemon;
pub mod dns;
pub mod dns_proxy;
pub mod etcd;
pub mod objects;
pub mod tool;

pub use consul::Consul;
pub use coredns::CoreDns;
pub use dns_proxy::DnsProxy;
pub use etcd::Etcd;
pub use tool::{REQUIRE, Tool, present};
