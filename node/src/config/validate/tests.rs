//! Tests with one row per rule.
use std::ffi::OsString;

use super::*;
use crate::config::{flags, table};

/// The errors of a command line without its data directory; only `/ext` exists.
fn errors(line: &str) -> Vec<String> {
    let mut config = table::defaults();
    let words = line.split_whitespace().map(OsString::from);
    flags::read(words, &mut config).unwrap_or_else(|error| panic!("{line}: {error:?}"));
    let mut found = reaping(&config);
    found.extend(values(&config, &|path| path == "/ext"));
    found
}

#[test]
fn what_is_accepted() {
    for line in [
        "",
        "-raft-reap-node-timeout=1s -raft-reap-read-only-node-timeout=1h",
        "-extensions-path=/ext",
        "-http-cert=c -http-key=k -node-cert=c -node-key=k",
        "-node-cert=c -node-key=k -node-tls-stage=accept",
        "-node-cert=c -node-key=k -node-tls-stage=require",
        "-http-cert=c -http-key=k -http-verify-client -http-verify-common-name=x",
        "-http-cert=c -http-key=k -http-tls-optional",
        "-http-ca-cert=c",
        "-health-addr=[::]:4003",
        "-http-addr=0.0.0.0:1 -http-adv-addr=h:1 -raft-addr=[::]:2 -raft-adv-addr=h:2",
        "-http-addr=httpd:4001",
        "-http-addr=[::1]:4001",
        "-bootstrap-expect=3 -join=localhost:4002,other:4002",
        "-join=http://nonsense",
        "-bootstrap-expect=3 -join=a:1 -auto-restore=r",
        "-auto-restore=r",
        "-disco-mode=consul-kv",
        "-disco-mode=etcd-kv -raft-non-voter",
        "-disco-mode=dns -bootstrap-expect=3",
        "-disco-mode=dns-srv -raft-non-voter",
        "-cdc-config=stdout",
        "-otlp-endpoint=c:4317 -otlp-insecure",
        "-otlp-endpoint=c:4317 -otlp-cert=c -otlp-key=k -otlp-no-verify -otlp-interval=1s",
        "-raft-heartbeat-timeout=200ms -raft-election-timeout=200ms",
        "-raft-heartbeat-timeout=5s -raft-election-timeout=5s -raft-leader-lease-timeout=5s",
    ] {
        assert_eq!(errors(line), [""; 0], "{line}");
    }
}

/// A command line that breaks one rule, and the expected error.
const RULES: &[(&str, &str)] = &[
    (
        "-http-verify-client",
        "-http-verify-client requires -http-cert and -http-key",
    ),
    (
        "-http-tls-optional",
        "-http-tls-optional requires -http-cert and -http-key",
    ),
    (
        "-http-cert=c -http-key=k -http-tls-optional -http-verify-client",
        "-http-tls-optional cannot be used with -http-verify-client: clients without TLS would get in without a certificate",
    ),
    (
        "-health-addr=4003",
        "-health-addr \"4003\" is not valid: give host:port, for example localhost:4003",
    ),
    (
        "-health-addr=localhost:4001",
        "-health-addr must differ from the HTTP and Raft addresses",
    ),
    (
        "-raft-reap-node-timeout=0",
        "-raft-reap-node-timeout must be greater than 0",
    ),
    (
        "-raft-reap-node-timeout=-1s",
        "-raft-reap-node-timeout must be greater than 0",
    ),
    (
        "-raft-reap-read-only-node-timeout=0h",
        "-raft-reap-read-only-node-timeout must be greater than 0",
    ),
    (
        "-extensions-path=/ext,/nil",
        "extension path does not exist: /nil",
    ),
    (
        "-http-cert=c",
        "either both -http-cert and -http-key must be set, or neither",
    ),
    (
        "-http-key=k",
        "either both -http-cert and -http-key must be set, or neither",
    ),
    (
        "-node-cert=c",
        "either both -node-cert and -node-key must be set, or neither",
    ),
    (
        "-otlp-endpoint=c:1 -otlp-key=k",
        "either both -otlp-cert and -otlp-key must be set, or neither",
    ),
    (
        "-http-verify-common-name=x",
        "-http-verify-common-name requires -http-verify-client",
    ),
    (
        "-node-verify-common-name=x",
        "-node-verify-common-name requires -node-verify-client",
    ),
    (
        "-node-cert=c -node-key=k -node-tls-stage=both",
        "-node-tls-stage must be one of accept, use, or require",
    ),
    (
        "-node-tls-stage=accept",
        "-node-tls-stage requires -node-cert and -node-key",
    ),
    (
        "-http-addr=localhost:4002",
        "HTTP and Raft addresses must differ",
    ),
    (
        "-http-addr=http://localhost:4001",
        "HTTP options should not include protocol (http:// or https://)",
    ),
    (
        "-http-adv-addr=HTTPS://h:1",
        "HTTP options should not include protocol (http:// or https://)",
    ),
    ("-http-addr=localhost", "HTTP bind address not valid"),
    (
        "-http-addr=:: -http-adv-addr=h:1",
        "HTTP bind address not valid",
    ),
    (
        "-http-adv-addr=localhost",
        "HTTP advertised HTTP address not valid",
    ),
    (
        "-http-addr=0.0.0.0:4001",
        "advertised HTTP address is not routable (0.0.0.0), specify it via -http-addr or -http-adv-addr",
    ),
    (
        "-http-adv-addr=[::]:4001",
        "advertised HTTP address is not routable (::), specify it via -http-addr or -http-adv-addr",
    ),
    ("-raft-addr=localhost", "raft bind address not valid"),
    ("-raft-addr=localhost:x", "raft bind port not valid"),
    ("-raft-addr=localhost:65536", "raft bind port not valid"),
    (
        "-raft-adv-addr=localhost",
        "raft advertised address not valid",
    ),
    (
        "-raft-adv-addr=localhost:",
        "raft advertised port is not valid",
    ),
    (
        "-raft-addr=:4002",
        "advertised Raft address is not routable (0.0.0.0), specify it via -raft-addr or -raft-adv-addr",
    ),
    (
        "-raft-addr=0.0.0.0:4002",
        "advertised Raft address is not routable (0.0.0.0), specify it via -raft-addr or -raft-adv-addr",
    ),
    (
        "-http-adv-addr=h:1 -raft-adv-addr=h:1",
        "advertised HTTP and Raft addresses must differ",
    ),
    (
        "-bootstrap-expect=1 -raft-non-voter",
        "bootstrapping only applicable to voting nodes",
    ),
    ("-join=a:1,b", "b is an invalid join address"),
    ("-join=a:1,", " is an invalid join address"),
    (
        "-join=localhost:4002",
        "node cannot join with itself unless bootstrapping",
    ),
    (
        "-raft-adv-addr=h:1 -join=h:1",
        "node cannot join with itself unless bootstrapping",
    ),
    (
        "-raft-adv-addr=h:1 -join=localhost:4002",
        "node cannot join with itself unless bootstrapping",
    ),
    (
        "-join=a:1 -auto-restore=r",
        "auto-restoring cannot be used when joining a cluster",
    ),
    (
        "-join=a:1 -disco-mode=consul-kv",
        "disco mode cannot be used when also explicitly joining a cluster",
    ),
    (
        "-cdc-config=stdout -raft-non-voter",
        "CDC cannot be enabled on non-voting nodes",
    ),
    ("-otlp-insecure", "OTLP options require -otlp-endpoint"),
    ("-otlp-no-verify", "OTLP options require -otlp-endpoint"),
    ("-otlp-ca-cert=c", "OTLP options require -otlp-endpoint"),
    ("-otlp-interval=1s", "OTLP options require -otlp-endpoint"),
    (
        "-otlp-endpoint=http://c:4317",
        "-otlp-endpoint must not include a protocol scheme",
    ),
    ("-otlp-endpoint=c", "-otlp-endpoint is not a valid address"),
    (
        "-otlp-endpoint=c:1 -otlp-interval=0s",
        "-otlp-interval must be greater than zero",
    ),
    (
        "-otlp-endpoint=c:1 -otlp-insecure -otlp-ca-cert=c",
        "-otlp-insecure cannot be used with other OTLP TLS options",
    ),
    (
        "-disco-mode=consul-kv -bootstrap-expect=1",
        "bootstrapping not applicable when using consul-kv",
    ),
    (
        "-disco-mode=etcd-kv -bootstrap-expect=1",
        "bootstrapping not applicable when using etcd-kv",
    ),
    (
        "-disco-mode=dns",
        "bootstrap-expect value required when using dns with a voting node",
    ),
    (
        "-disco-mode=dns-srv",
        "bootstrap-expect value required when using dns-srv with a voting node",
    ),
    (
        "-disco-mode=DNS",
        "disco mode must be one of consul-kv, etcd-kv, dns, or dns-srv",
    ),
    (
        "-raft-heartbeat-timeout=4ms",
        "-raft-heartbeat-timeout must be at least 5ms",
    ),
    (
        "-raft-heartbeat-timeout=2s",
        "-raft-election-timeout must not be less than -raft-heartbeat-timeout",
    ),
    (
        "-raft-leader-lease-timeout=2s",
        "-raft-leader-lease-timeout must not be greater than -raft-heartbeat-timeout",
    ),
    (
        "-write-queue-capacity=0",
        "-write-queue-capacity must be greater than 0",
    ),
    (
        "-write-queue-batch-size=0",
        "-write-queue-batch-size must be greater than 0",
    ),
];

#[test]
fn each_rule() {
    for (line, text) in RULES {
        assert_eq!(errors(line), [*text], "{line}");
    }
}

#[test]
fn several_errors_come_in_order() {
    assert_eq!(
        errors("-node-key=k -http-addr=bad -raft-addr=h:x -join=x,y -disco-mode=z"),
        [
            "either both -node-cert and -node-key must be set, or neither",
            "HTTP bind address not valid",
            "raft bind port not valid",
            "x is an invalid join address",
            "y is an invalid join address",
            "disco mode cannot be used when also explicitly joining a cluster",
            "disco mode must be one of consul-kv, etcd-kv, dns, or dns-srv",
        ]
    );
}
