//! Rules between the values of the command line, in the order in which rqlite checks them.
//!
//! All rules are checked, so that an operator sees all errors at once; a rule that would only repeat an
//! earlier error adds none.
use std::{net::IpAddr, time::Duration};

use super::{
    address::split_host_port,
    values::{Config, DiscoMode, Tls},
};

/// With a shorter timeout, delays of the scheduler cause elections without end.
const SHORTEST_HEARTBEAT: Duration = Duration::from_millis(5);

/// Errors of the reap timeouts, which are reported before errors of the data directory.
pub(super) fn reaping(config: &Config) -> Vec<String> {
    [
        ("raft-reap-node-timeout", config.raft_reap_node_timeout),
        (
            "raft-reap-read-only-node-timeout",
            config.raft_reap_read_only_node_timeout,
        ),
    ]
    .into_iter()
    .filter(|(_, timeout)| timeout.is_some_and(|timeout| timeout.is_zero()))
    .map(|(name, _)| format!("-{name} must be greater than 0"))
    .collect()
}

/// All other errors. `exists` returns whether there is a file or directory with this name.
pub(super) fn values(config: &Config, exists: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut errors = Vec::new();
    for path in config.extensions_path.iter().filter(|path| !exists(path)) {
        errors.push(format!("extension path does not exist: {path}"));
    }
    certificates(config, &mut errors);
    https(config, &mut errors);
    addresses(config, &mut errors);
    health(config, &mut errors);
    clustering(config, &mut errors);
    if !config.cdc_config.is_empty() && config.raft_non_voter {
        errors.push("CDC cannot be enabled on non-voting nodes".to_owned());
    }
    if config.archive_key_file.is_some() && config.archive.is_none() {
        errors.push("-archive-key-file requires -archive".to_owned());
    }
    otlp(config, &mut errors);
    discovery(config, &mut errors);
    timing(config, &mut errors);
    errors
}

fn certificates(config: &Config, errors: &mut Vec<String>) {
    let kinds = [
        ("http", &config.http_tls),
        ("node", &config.node_tls),
        ("otlp", &config.otlp_tls),
    ];
    for (kind, tls) in kinds {
        if tls.cert.is_some() != tls.key.is_some() {
            errors.push(format!(
                "either both -{kind}-cert and -{kind}-key must be set, or neither"
            ));
        }
    }
    for (kind, tls) in kinds {
        if !tls.verify_common_name.is_empty() && !tls.verify_client {
            errors.push(format!(
                "-{kind}-verify-common-name requires -{kind}-verify-client"
            ));
        }
    }
    if config.node_tls_stage().is_none() {
        errors.push("-node-tls-stage must be one of accept, use, or require".to_owned());
    } else if config.is_given("node-tls-stage") && !config.node_tls.is_enabled() {
        errors.push("-node-tls-stage requires -node-cert and -node-key".to_owned());
    }
}

/// Combinations that would leave the node open although a flag was given to protect it. rqlite has no such
/// rules.
fn https(config: &Config, errors: &mut Vec<String>) {
    let tls = &config.http_tls;
    let half = tls.cert.is_some() != tls.key.is_some();
    let without = |flag: &str| format!("-{flag} requires -http-cert and -http-key");
    if tls.verify_client && !tls.is_enabled() && !half {
        errors.push(without("http-verify-client"));
    }
    if tls.optional && !tls.is_enabled() && !half {
        errors.push(without("http-tls-optional"));
    }
    if tls.optional && tls.verify_client {
        errors.push(
            "-http-tls-optional cannot be used with -http-verify-client: clients without TLS would get in without a certificate"
                .to_owned(),
        );
    }
}

fn health(config: &Config, errors: &mut Vec<String>) {
    let address = config.health_addr.as_str();
    if address.is_empty() {
        return;
    }
    match split_host_port(address) {
        Some((_, port)) if is_port(port) => {}
        _ => errors.push(format!(
            "-health-addr {address:?} is not valid: give host:port, for example localhost:4003"
        )),
    }
    if address == config.http_addr || address == config.raft_addr {
        errors.push("-health-addr must differ from the HTTP and Raft addresses".to_owned());
    }
}

fn addresses(config: &Config, errors: &mut Vec<String>) {
    let bind_equal = config.http_addr == config.raft_addr;
    if bind_equal {
        errors.push("HTTP and Raft addresses must differ".to_owned());
    }
    http_addresses(config, errors);
    raft_addresses(config, errors);
    if config.http_adv() == config.raft_adv() && !bind_equal {
        errors.push("advertised HTTP and Raft addresses must differ".to_owned());
    }
}

fn http_addresses(config: &Config, errors: &mut Vec<String>) {
    let has_scheme = |address: &str| {
        let address = address.to_ascii_lowercase();
        address.starts_with("http://") || address.starts_with("https://")
    };
    if has_scheme(&config.http_addr) || has_scheme(config.http_adv()) {
        errors.push("HTTP options should not include protocol (http:// or https://)".to_owned());
        return;
    }
    let bind_valid = split_host_port(&config.http_addr).is_some();
    if !bind_valid {
        errors.push("HTTP bind address not valid".to_owned());
    }
    match split_host_port(config.http_adv()) {
        Some((host, _)) => errors.extend(unroutable("HTTP", "http", host)),
        None if bind_valid => errors.push("HTTP advertised HTTP address not valid".to_owned()),
        None if config.http_adv() != config.http_addr => {
            errors.push("HTTP advertised HTTP address not valid".to_owned());
        }
        None => {}
    }
}

fn raft_addresses(config: &Config, errors: &mut Vec<String>) {
    let bind = config.raft_addr.as_str();
    match split_host_port(bind) {
        None => errors.push("raft bind address not valid".to_owned()),
        Some((_, port)) if !is_port(port) => errors.push("raft bind port not valid".to_owned()),
        Some(_) => {}
    }
    let advertised = config.raft_adv();
    let repeats_bind = advertised == bind;
    match split_host_port(advertised) {
        None if repeats_bind => {}
        None => errors.push("raft advertised address not valid".to_owned()),
        Some((host, port)) => {
            // Other nodes would look for `:4002` on their own machine.
            let host = if host.is_empty() { "0.0.0.0" } else { host };
            errors.extend(unroutable("Raft", "raft", host));
            if !is_port(port) && !repeats_bind {
                errors.push("raft advertised port is not valid".to_owned());
            }
        }
    }
}

fn is_port(port: &str) -> bool {
    port.parse::<u16>().is_ok()
}

/// The error of advertising an unspecified address such as 0.0.0.0.
fn unroutable(title: &str, kind: &str, host: &str) -> Option<String> {
    let unspecified = host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
    unspecified.then(|| {
        format!("advertised {title} address is not routable ({host}), specify it via -{kind}-addr or -{kind}-adv-addr")
    })
}

fn clustering(config: &Config, errors: &mut Vec<String>) {
    if config.bootstrap_expect > 0 && config.raft_non_voter {
        errors.push("bootstrapping only applicable to voting nodes".to_owned());
    }
    let join = config.join();
    for address in join
        .iter()
        .filter(|address| split_host_port(address).is_none())
    {
        errors.push(format!("{address} is an invalid join address"));
    }
    if config.bootstrap_expect == 0 {
        if join
            .iter()
            .any(|address| [config.raft_adv(), &config.raft_addr].contains(address))
        {
            errors.push("node cannot join with itself unless bootstrapping".to_owned());
        }
        if !join.is_empty() && config.auto_restore.is_some() {
            errors.push("auto-restoring cannot be used when joining a cluster".to_owned());
        }
    }
    if !join.is_empty() && !config.disco_mode.is_empty() {
        errors.push("disco mode cannot be used when also explicitly joining a cluster".to_owned());
    }
}

fn otlp(config: &Config, errors: &mut Vec<String>) {
    let tls_options = config.otlp_tls != Tls::default();
    let endpoint = config.otlp_endpoint.as_str();
    if endpoint.is_empty() {
        if tls_options || config.otlp_insecure || config.is_given("otlp-interval") {
            errors.push("OTLP options require -otlp-endpoint".to_owned());
        }
        return;
    }
    if endpoint.contains("://") {
        errors.push("-otlp-endpoint must not include a protocol scheme".to_owned());
    } else if split_host_port(endpoint).is_none() {
        errors.push("-otlp-endpoint is not a valid address".to_owned());
    }
    if config.otlp_interval.is_zero() {
        errors.push("-otlp-interval must be greater than zero".to_owned());
    }
    if config.otlp_insecure && tls_options {
        errors.push("-otlp-insecure cannot be used with other OTLP TLS options".to_owned());
    }
}

fn discovery(config: &Config, errors: &mut Vec<String>) {
    let name = config.disco_mode.as_str();
    match config.disco_mode() {
        None if name.is_empty() => {}
        None => {
            errors.push("disco mode must be one of consul-kv, etcd-kv, dns, or dns-srv".to_owned())
        }
        Some(DiscoMode::ConsulKv | DiscoMode::EtcdKv) => {
            if config.bootstrap_expect > 0 {
                errors.push(format!("bootstrapping not applicable when using {name}"));
            }
        }
        Some(DiscoMode::Dns | DiscoMode::DnsSrv) => {
            if config.bootstrap_expect == 0 && !config.raft_non_voter {
                errors.push(format!(
                    "bootstrap-expect value required when using {name} with a voting node"
                ));
            }
        }
    }
}

/// Rejects values with which a node would start, but never elect a leader or never drain its queue.
fn timing(config: &Config, errors: &mut Vec<String>) {
    let heartbeat = config.raft_heartbeat_timeout;
    if heartbeat < SHORTEST_HEARTBEAT {
        errors.push("-raft-heartbeat-timeout must be at least 5ms".to_owned());
    } else {
        if config.raft_election_timeout < heartbeat {
            errors.push(
                "-raft-election-timeout must not be less than -raft-heartbeat-timeout".to_owned(),
            );
        }
        if config.leader_lease_timeout() > heartbeat {
            errors.push(
                "-raft-leader-lease-timeout must not be greater than -raft-heartbeat-timeout"
                    .to_owned(),
            );
        }
    }
    for (name, count) in [
        ("write-queue-capacity", config.write_queue_capacity),
        ("write-queue-batch-size", config.write_queue_batch_size),
    ] {
        if count == 0 {
            errors.push(format!("-{name} must be greater than 0"));
        }
    }
}

#[cfg(test)]
mod tests;
