//! Tests of opening each mode, of the parts of `/status`, and of the record's JSON.
use serde_json::json;

use super::*;

fn open(mode: DiscoMode, text: &str) -> Result<Discovery, String> {
    Discovery::open_with(mode, text, "rqlite", 4002, &|name| {
        (name == "NAME").then(|| "db.example".to_owned())
    })
    .map_err(|e| e.to_string())
}

#[test]
fn status_has_the_shape_of_rqlite() {
    let key = |mode: &str| json!({ "mode": mode, "register_interval": 3_000_000_000_u64, "report_interval": 10_000_000_000_u64, "last_contact": "0001-01-01T00:00:00Z" });
    let cases = [
        (
            DiscoMode::Dns,
            "",
            json!({ "mode": "dns", "name": "rqlite", "port": 4002 }),
        ),
        (
            DiscoMode::Dns,
            "{\"name\":\"$NAME\",\"port\":5002}",
            json!({ "mode": "dns", "name": "db.example", "port": 5002 }),
        ),
        (
            DiscoMode::DnsSrv,
            "",
            json!({ "mode": "dns-srv", "name": "rqlite", "service": "rqlite", "dns_name:": "_rqlite._tcp.rqlite" }),
        ),
        (
            DiscoMode::DnsSrv,
            "{\"name\":\"${NAME}\",\"service\":\"raft\"}",
            json!({ "mode": "dns-srv", "name": "db.example", "service": "raft", "dns_name:": "_raft._tcp.db.example" }),
        ),
        (DiscoMode::ConsulKv, "", key("consul-kv")),
        (DiscoMode::EtcdKv, "", key("etcd-kv")),
    ];
    for (mode, text, expected) in cases {
        let opened = open(mode, text).unwrap_or_else(|e| panic!("{mode:?} {text}: {e}"));
        assert_eq!(opened.status(), expected, "{mode:?} {text}");
    }
}

#[test]
fn mistakes_name_the_configuration() {
    let cases = [
        (
            DiscoMode::Dns,
            "{",
            "error reading DNS configuration: not valid JSON",
        ),
        (
            DiscoMode::DnsSrv,
            "{",
            "error reading DNS configuration: not valid JSON",
        ),
        (
            DiscoMode::ConsulKv,
            "{",
            "error reading Consul configuration: not valid JSON",
        ),
        (
            DiscoMode::EtcdKv,
            "{",
            "error reading etcd configuration: not valid JSON",
        ),
        (
            DiscoMode::Dns,
            "/no/such",
            "error reading DNS configuration: -disco-config is neither",
        ),
        (
            DiscoMode::Dns,
            "{\"service\":\"x\"}",
            "error reading DNS configuration: service: unknown field",
        ),
    ];
    for (mode, text, expected) in cases {
        let mistake = open(mode, text).expect_err(text);
        assert!(mistake.starts_with(expected), "{mistake}");
    }
}

#[test]
fn a_record_without_our_fields_is_as_rqlite_writes_it() {
    let text = "{\"id\":\"1\",\"api_addr\":\"http://h:4001\",\"addr\":\"h:4002\"}";
    let record: LeaderRecord = serde_json::from_str(text).expect("valid");
    assert_eq!(
        (record.raft_id.as_str(), record.cluster_id.as_str()),
        ("", "")
    );
    assert_eq!(serde_json::to_string(&record).expect("JSON"), text);
}
