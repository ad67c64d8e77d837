//! Real servers that discovery is tested against: CoreDNS, etcd and Consul, each on ports of its own.
//!
//! They come from `e2e/tools` (pinned, built once into a cache). A test begins with [`present`]: where a server is not
//! built, the test is skipped with a loud line, or fails where servers are promised (`CI=true` or [`REQUIRE`]`=1`).
//! Every server is killed and reaped with its value; its log is shown with a failing test's output.
//!
//! Reading order: [`tool`] → [`daemon`] → [`coredns`] with [`dns`] and [`dns_front`] → [`certificates`] → [`etcd`],
//! [`consul`]. To slow or cut etcd or Consul, put a [`crate::link::Link`] in front.

pub mod certificates;
pub mod consul;
pub mod coredns;
pub mod daemon;
pub mod dns;
pub mod dns_front;
pub mod etcd;
pub mod tool;

pub use consul::Consul;
pub use coredns::CoreDns;
pub use dns_front::DnsFront;
pub use etcd::Etcd;
pub use tool::{REQUIRE, Tool, present};
