//! Addresses from DNS: the A and AAAA records of a name (`dns`), or the targets of a service's SRV records
//! (`dns-srv`).
//!
//! Nothing is cached between lookups, so that a new record is seen at once: each lookup reads
//! `/etc/resolv.conf` and `/etc/hosts` again, which costs next to nothing.
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::future::join_all;
use hickory_resolver::{
    Hosts, TokioResolver,
    config::{
        ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
        ServerOrderingStrategy,
    },
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::Query,
        rr::{Name, RData, RecordType},
    },
    system_conf::read_system_conf,
};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::{
    found::{Found, LookupError},
    setting,
};
use crate::{clock::rfc3339, config::split_host_port};

/// Time limit of a whole lookup, including retries and SRV targets. Nodes look up every second or two, so a
/// later result would be of no use.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);
/// Part of that time which is reserved for resolving the targets of SRV records.
const TARGETS_RESERVE: Duration = Duration::from_secs(2);
/// Time limit of one query to one server; two fit into [`LOOKUP_LIMIT`].
const QUERY_LIMIT: Duration = Duration::from_secs(2);
/// Repetitions of a query without a response.
const RETRIES: usize = 1;
/// Most SRV targets. A cluster has a handful of nodes, so a name with more targets is not that of a cluster.
const MAX_TARGETS: usize = 256;
/// If set, its addresses replace the lookup of mode `dns`.
const HOSTS_VARIABLE: &str = "RQLITE_DISCO_DNS_HOSTS";
/// rqlite's default for both names.
const DEFAULT_NAME: &str = "rqlite";

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct HostConfig {
    name: Option<String>,
    #[serde(default, deserialize_with = "setting::port")]
    port: Option<u16>,
    nameservers: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceConfig {
    name: Option<String>,
    service: Option<String>,
    nameservers: Option<Vec<String>>,
}

/// Looks up addresses of nodes. Cheap to clone; clones share the values for `/status`.
#[derive(Clone, Debug)]
pub struct AddressLookup(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    query: LookupQuery,
    /// Used instead of the system's name servers, if not empty.
    name_servers: Vec<SocketAddr>,
    last: Mutex<Last>,
}

#[derive(Debug)]
enum LookupQuery {
    /// A and AAAA records of `name`; `fixed` replaces the lookup.
    Host {
        name: String,
        port: u16,
        fixed: Option<Found>,
    },
    /// SRV records of `full`.
    Service {
        name: String,
        service: String,
        full: String,
    },
}

/// Results of the last lookups.
#[derive(Debug, Default)]
struct Last {
    error: Option<String>,
    contact: Option<SystemTime>,
    addresses: Vec<String>,
}

/// Mode `dns`.
pub(super) fn open(
    text: &str,
    raft_port: u16,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<AddressLookup, String> {
    let config: HostConfig = setting::parse(text)?;
    let name = or_default(config.name);
    check_name("name", &name)?;
    let fixed = environment(HOSTS_VARIABLE)
        .filter(|hosts| !hosts.trim().is_empty())
        .map(|hosts| fixed(&hosts))
        .transpose()?;
    let query = LookupQuery::Host {
        name,
        port: config.port.unwrap_or(raft_port),
        fixed,
    };
    AddressLookup::new(query, config.nameservers)
}

/// Mode `dns-srv`.
pub(super) fn open_srv(text: &str) -> Result<AddressLookup, String> {
    let config: ServiceConfig = setting::parse(text)?;
    let name = or_default(config.name);
    let service = or_default(config.service);
    let full = format!("_{service}._tcp.{name}");
    check_name("name", &name)?;
    check_name("service", &full)?;
    let query = LookupQuery::Service {
        name,
        service,
        full,
    };
    AddressLookup::new(query, config.nameservers)
}

fn or_default(name: Option<String>) -> String {
    name.filter(|name| !name.is_empty())
        .unwrap_or_else(|| DEFAULT_NAME.to_owned())
}

fn check_name(field: &str, name: &str) -> Result<(), String> {
    let bad = |why: &dyn std::fmt::Display| format!("{field}: \"{name}\" is not a DNS name: {why}");
    if name.contains(|c: char| c.is_whitespace() || c == '/' || (c == ':' && !is_ip(name))) {
        return Err(bad(&"it must be a bare host name, without port or URL"));
    }
    if is_ip(name) {
        return Ok(());
    }
    Name::from_utf8(name).map(drop).map_err(|e| bad(&e))
}

fn is_ip(name: &str) -> bool {
    name.parse::<IpAddr>().is_ok()
}

/// Parses the addresses that replace a lookup.
fn fixed(hosts: &str) -> Result<Found, String> {
    let mut addresses = BTreeSet::new();
    for host in hosts.split(',').map(str::trim) {
        let is_address = split_host_port(host)
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if !is_address {
            return Err(format!(
                "{HOSTS_VARIABLE}: \"{host}\" is not host:port; give addresses as h1:4002,h2:4002"
            ));
        }
        addresses.insert(host.to_owned());
    }
    Ok(Found {
        nodes: addresses.len(),
        addresses: addresses.into_iter().collect(),
    })
}

impl AddressLookup {
    fn new(query: LookupQuery, name_servers: Option<Vec<String>>) -> Result<Self, String> {
        let name_servers = name_servers
            .unwrap_or_default()
            .iter()
            .map(|text| {
                text.parse()
                    .or_else(|_| text.parse().map(|ip: IpAddr| SocketAddr::new(ip, 53)))
                    .map_err(|_| {
                        format!("nameservers: \"{text}\" is not an IP address, with or without port, such as 127.0.0.1:5353")
                    })
            })
            .collect::<Result<_, String>>()?;
        Ok(Self(Arc::new(Inner {
            query,
            name_servers,
            last: Mutex::default(),
        })))
    }

    /// Looks up now, within `LOOKUP_LIMIT`. The addresses may include this node's own.
    ///
    /// # Errors
    /// The name does not exist or has no records, there is no response in time, or no name server; the text
    /// says which.
    pub async fn lookup(&self) -> Result<Found, LookupError> {
        let result = self.resolve().await;
        let mut last = self.0.last.lock();
        match &result {
            Ok(found) => {
                last.error = None;
                last.contact = Some(crate::clock::now());
                if last.addresses != found.addresses {
                    last.addresses.clone_from(&found.addresses);
                    self.log(&found.addresses);
                }
            }
            Err(e) => last.error = Some(e.clone()),
        }
        result.map_err(LookupError)
    }

    fn log(&self, addresses: &[String]) {
        let shown = addresses.join(" ");
        match &self.0.query {
            LookupQuery::Host { .. } => {
                tracing::info!(target: "disco-dns", "resolved addresses: [{shown}]");
            }
            LookupQuery::Service { .. } => {
                tracing::info!(target: "disco-dnssrv", "resolved addresses: [{shown}]");
            }
        }
    }

    async fn resolve(&self) -> Result<Found, String> {
        let deadline = Instant::now() + LOOKUP_LIMIT;
        match &self.0.query {
            LookupQuery::Host {
                fixed: Some(found), ..
            } => Ok(found.clone()),
            LookupQuery::Host { name, port, .. } => {
                let resolver = Resolver::new(self.0.name_servers.clone()).await?;
                let ips = resolver.ips(name, deadline).await?;
                Ok(hosts_found(&ips, *port))
            }
            LookupQuery::Service { full, .. } => {
                let resolver = Resolver::new(self.0.name_servers.clone()).await?;
                let targets = resolver.targets(full, deadline - TARGETS_RESERVE).await?;
                let resolved =
                    join_all(targets.iter().map(|(host, _)| resolver.ips(host, deadline))).await;
                targets_found(full, &targets, &resolved, !self.0.name_servers.is_empty())
            }
        }
    }

    /// The part `disco` of `/status`.
    pub fn status(&self) -> Value {
        let mut shown = match &self.0.query {
            LookupQuery::Host { name, port, .. } => {
                json!({ "mode": "dns", "name": name, "port": port })
            }
            // The colon in the key is rqlite's.
            LookupQuery::Service {
                name,
                service,
                full,
            } => {
                json!({ "mode": "dns-srv", "name": name, "service": service, "dns_name:": full })
            }
        };
        let last = self.0.last.lock();
        if let Some(error) = &last.error {
            shown["last_error"] = error.as_str().into();
        }
        if let Some(contact) = last.contact {
            shown["last_contact"] = rfc3339(contact).into();
        }
        if !last.addresses.is_empty() {
            shown["last_addresses"] = last.addresses.clone().into();
        }
        shown
    }
}

/// A node has at most one address per address family. Which IPv4 and IPv6 addresses belong to the same node
/// is not known.
fn hosts_found(ips: &BTreeSet<IpAddr>, port: u16) -> Found {
    let v4 = ips.iter().filter(|ip| ip.is_ipv4()).count();
    let mut addresses: Vec<String> = ips
        .iter()
        .map(|ip| SocketAddr::new(*ip, port).to_string())
        .collect();
    addresses.sort();
    Found {
        nodes: v4.max(ips.len() - v4),
        addresses,
    }
}

/// Targets remain names, because a pod that returns with another IP is still found under its name. With
/// configured name servers they become IPs, because connections are dialed with the system's resolver.
/// Targets that do not resolve have no address, but count as nodes.
fn targets_found(
    service: &str,
    targets: &BTreeSet<(String, u16)>,
    resolved: &[Result<BTreeSet<IpAddr>, String>],
    own_servers: bool,
) -> Result<Found, String> {
    let mut addresses = Vec::new();
    let mut why = None;
    for ((host, port), ips) in targets.iter().zip(resolved) {
        match (ips, host.parse::<IpAddr>()) {
            (Ok(_), Ok(ip)) => addresses.push(SocketAddr::new(ip, *port).to_string()),
            (Ok(ips), Err(_)) if own_servers => {
                addresses.extend(ips.iter().map(|ip| SocketAddr::new(*ip, *port).to_string()));
            }
            (Ok(_), Err(_)) => addresses.push(format!("{host}:{port}")),
            (Err(e), _) => why = Some(e),
        }
    }
    if let (true, Some(why)) = (addresses.is_empty(), why) {
        return Err(format!(
            "none of the {} targets of {service} resolves; the last: {why}",
            targets.len()
        ));
    }
    addresses.sort();
    Ok(Found {
        addresses,
        nodes: targets.len(),
    })
}

/// The resolver of one lookup.
struct Resolver {
    resolver: TokioResolver,
    hosts: Hosts,
}

impl Resolver {
    async fn new(name_servers: Vec<SocketAddr>) -> Result<Self, String> {
        tokio::task::spawn_blocking(move || Self::build(&name_servers))
            .await
            .map_err(|e| e.to_string())?
    }

    fn build(name_servers: &[SocketAddr]) -> Result<Self, String> {
        let (config, mut options) = if name_servers.is_empty() {
            system()?
        } else {
            let servers = name_servers.iter().copied().map(server).collect();
            (
                ResolverConfig::from_name_servers(servers),
                ResolverOpts::default(),
            )
        };
        options.timeout = options.timeout.min(QUERY_LIMIT);
        options.attempts = RETRIES;
        options.cache_size = 0;
        options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
        // Read below: as with libc, a name in the file is not looked up in DNS.
        options.use_hosts_file = ResolveHosts::Never;
        let resolver = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options)
            .build()
            .map_err(|e| format!("DNS cannot be asked: {e}"))?;
        Ok(Self {
            resolver,
            hosts: Hosts::from_system().unwrap_or_default(),
        })
    }

    /// All addresses of a host, at least one.
    async fn ips(&self, host: &str, deadline: Instant) -> Result<BTreeSet<IpAddr>, String> {
        if let Ok(ip) = host.parse() {
            return Ok(BTreeSet::from([ip]));
        }
        let local = self.local_ips(host);
        if !local.is_empty() {
            return Ok(local);
        }
        let answer = timeout_at(deadline, self.resolver.lookup_ip(host)).await;
        let ips: BTreeSet<IpAddr> = match answer {
            Ok(Ok(found)) => found.iter().collect(),
            Ok(Err(e)) => return Err(describe("A or AAAA", host, &e)),
            Err(_) => return Err(too_slow(host)),
        };
        if ips.is_empty() {
            return Err(no_records("A or AAAA", host));
        }
        Ok(ips)
    }

    /// The addresses in `/etc/hosts`.
    fn local_ips(&self, host: &str) -> BTreeSet<IpAddr> {
        let Ok(name) = Name::from_utf8(host) else {
            return BTreeSet::new();
        };
        [RecordType::A, RecordType::AAAA]
            .into_iter()
            .filter_map(|family| {
                self.hosts
                    .lookup_static_host(&Query::query(name.clone(), family))
            })
            .flat_map(|found| {
                found
                    .answers()
                    .iter()
                    .filter_map(|record| record.data.ip_addr())
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    /// Distinct targets of a service, at least one, without trailing dots.
    async fn targets(
        &self,
        service: &str,
        deadline: Instant,
    ) -> Result<BTreeSet<(String, u16)>, String> {
        let answer = match timeout_at(deadline, self.resolver.srv_lookup(service)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(e)) => return Err(describe("SRV", service, &e)),
            Err(_) => return Err(too_slow(service)),
        };
        let targets: BTreeSet<(String, u16)> = answer
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                // The root as target means that the service does not exist.
                RData::SRV(srv) if !srv.target.is_root() && srv.port != 0 => {
                    Some((srv.target.to_utf8(), srv.port))
                }
                _ => None,
            })
            .map(|(target, port)| (target.trim_end_matches('.').to_ascii_lowercase(), port))
            .collect();
        match targets.len() {
            0 => Err(no_records("SRV", service)),
            1..=MAX_TARGETS => Ok(targets),
            more => Err(format!(
                "{service} has {more} SRV targets, more than {MAX_TARGETS}: is it the name of this cluster alone?"
            )),
        }
    }
}

/// `/etc/resolv.conf`; without it the name server of this host, as with libc.
fn system() -> Result<(ResolverConfig, ResolverOpts), String> {
    match read_system_conf() {
        Ok((config, options)) => {
            let (domain, search, servers) = config.into_parts();
            // The host's own domain is used only without a search list.
            let domain = domain.filter(|_| search.is_empty());
            Ok((ResolverConfig::from_parts(domain, search, servers), options))
        }
        Err(NetError::Io(e)) if e.kind() == std::io::ErrorKind::NotFound => {
            let own = server(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 53));
            Ok((
                ResolverConfig::from_name_servers(vec![own]),
                ResolverOpts::default(),
            ))
        }
        Err(e) => Err(format!("/etc/resolv.conf cannot be used: {e}")),
    }
}

/// Queries use UDP, and TCP if the response is too long.
fn server(address: SocketAddr) -> NameServerConfig {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = address.port();
    }
    NameServerConfig::new(address.ip(), true, connections)
}

fn describe(kind: &str, name: &str, error: &NetError) -> String {
    if error.is_nx_domain() {
        format!("{name} does not exist in DNS (NXDOMAIN)")
    } else if error.is_no_records_found() {
        no_records(kind, name)
    } else if matches!(error, NetError::Timeout) {
        too_slow(name)
    } else {
        format!("looking up {name}: {error}")
    }
}

fn no_records(kind: &str, name: &str) -> String {
    format!("{name} has no {kind} records")
}

fn too_slow(name: &str) -> String {
    format!("no name server answered for {name} in time; are those of /etc/resolv.conf reachable?")
}

#[cfg(test)]
mod tests;
