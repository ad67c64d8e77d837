//! Addresses of a cluster: of IPv4, of IPv6, or of both.
use anyhow::{Result, bail};

/// Environment variable with the IP family of the local cluster: `ipv4` (default), `ipv6` or `dual`.
pub const FAMILY: &str = "E2E_IP_FAMILY";

/// Which addresses nodes, pods and Services have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    /// IPv4 only.
    #[default]
    Ipv4,
    /// IPv6 only.
    Ipv6,
    /// Both; a Service that does not say otherwise has an IPv4 address.
    Dual,
}

impl Family {
    /// The family that [`FAMILY`] names.
    ///
    /// # Errors
    /// If it names none.
    pub fn chosen() -> Result<Self> {
        match std::env::var(FAMILY).as_deref() {
            Err(_) | Ok("" | "ipv4") => Ok(Self::Ipv4),
            Ok("ipv6") => Ok(Self::Ipv6),
            Ok("dual") => Ok(Self::Dual),
            Ok(other) => bail!("{FAMILY}={other:?}: ipv4, ipv6 or dual"),
        }
    }

    /// The name by which it is chosen.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Dual => "dual",
        }
    }

    /// The networks, the primary one first.
    #[must_use]
    pub fn networks(self) -> &'static [Network] {
        match self {
            Self::Ipv4 => &[IPV4],
            Self::Ipv6 => &[IPV6],
            Self::Dual => &[IPV4, IPV6],
        }
    }

    /// The network of the control plane and of DNS.
    #[must_use]
    pub fn primary(self) -> Network {
        match self {
            Self::Ipv4 | Self::Dual => IPV4,
            Self::Ipv6 => IPV6,
        }
    }

    /// One value of each network, separated by commas, as Kubernetes' flags take it.
    #[must_use]
    pub fn list(self, value: impl Fn(&Network) -> String) -> String {
        let all: Vec<String> = self.networks().iter().map(value).collect();
        all.join(",")
    }
}

/// Addresses of one IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Options of `ip` before its command.
    pub ip: &'static str,
    /// Address of the host; only here do the API server and DNS listen.
    pub host: &'static str,
    /// What the nodes' addresses begin with.
    nodes: &'static str,
    /// Length of the nodes' network in bits, and what `ip addr add` needs besides: IPv6 addresses are used at
    /// once, without looking for duplicates.
    pub length: &'static str,
    /// Network of all pods.
    pub pods: &'static str,
    /// Beginning and end of the network of one node's pods, around the node's number.
    node_pods: (&'static str, &'static str),
    /// Network of Services.
    pub services: &'static str,
    /// Address of the API server's Service.
    pub api_service: &'static str,
    /// All addresses.
    pub any: &'static str,
    /// Kernel setting with which a node forwards packets.
    pub forwarding: &'static str,
}

/// Addresses of IPv4.
const IPV4: Network = Network {
    ip: "-4",
    host: "10.89.0.1",
    nodes: "10.89.0.",
    length: "24",
    pods: "10.244.0.0/16",
    node_pods: ("10.244.", ".0/24"),
    services: "10.96.0.0/16",
    api_service: "10.96.0.1",
    any: "0.0.0.0/0",
    forwarding: "net.ipv4.ip_forward=1",
};

/// Addresses of IPv6, unique local ones.
const IPV6: Network = Network {
    ip: "-6",
    host: "fdee:89::1",
    nodes: "fdee:89::",
    length: "64 nodad",
    pods: "fdee:244::/32",
    node_pods: ("fdee:244:", "::/64"),
    services: "fdee:96::/112",
    api_service: "fdee:96::1",
    any: "::/0",
    forwarding: "net.ipv6.conf.all.forwarding=1",
};

impl Network {
    /// Address of a node.
    #[must_use]
    pub fn address(&self, number: u8) -> String {
        format!("{}{}", self.nodes, 10 + number)
    }

    /// Network of a node's pods.
    #[must_use]
    pub fn pods_of(&self, number: u8) -> String {
        let (begin, end) = self.node_pods;
        format!("{begin}{number}{end}")
    }

    /// The host's address as it stands in a URL.
    #[must_use]
    pub fn host_in_url(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn addresses_of_both_versions() {
        assert_eq!(IPV4.address(1), "10.89.0.11");
        assert_eq!(IPV4.pods_of(2), "10.244.2.0/24");
        assert_eq!(IPV6.address(20), "fdee:89::30");
        assert_eq!(IPV6.pods_of(2), "fdee:244:2::/64");
        assert_eq!(IPV6.host_in_url(), "[fdee:89::1]");
        for network in Family::Dual.networks() {
            for text in [network.host, network.api_service, &network.address(3)] {
                assert!(text.parse::<IpAddr>().is_ok(), "{text}");
            }
        }
        let services = Family::Dual.list(|network| network.services.to_owned());
        assert_eq!(services, "10.96.0.0/16,fdee:96::/112");
    }
}
