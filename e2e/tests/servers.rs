//! Tests of the servers used by the discovery tests: they answer, change, fail and leave no process behind.
#![expect(
    clippy::expect_used,
    reason = "a helper of a test that cannot run curl has failed"
)]

use std::{
    net::TcpStream,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    authority::Pair,
    client::Client,
    servers::{
        Consul, CoreDns, DnsProxy, Etcd, Tool, certificates::Certificates, consul, dns,
        dns_proxy::DnsMode, etcd, present,
    },
};
use hickory_proto::op::ResponseCode;

/// Status code and body of an HTTPS request made by `curl` with these certificates.
fn https(
    url: &str,
    ca: Option<&Certificates>,
    own: Option<&Pair>,
    more: &[&str],
) -> (bool, String) {
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "5", url]).args(more);
    if let Some(ca) = ca {
        command.arg("--cacert").arg(&ca.ca);
    }
    if let Some(own) = own {
        command
            .arg("--cert")
            .arg(&own.cert)
            .arg("--key")
            .arg(&own.key);
    }
    let output = command.output().expect("curl runs");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

#[test]
fn dns_records_come_change_and_go() -> Result<()> {
    if !present(&[Tool::CoreDns])? {
        return Ok(());
    }
    let mut server = CoreDns::start("cluster.test", "n1 IN A 127.0.0.11")?;
    let addr = server.addr();
    assert_eq!(
        dns::query(addr, "n1.cluster.test", "A")?.records,
        ["127.0.0.11"]
    );
    let absent = dns::query(addr, "n2.cluster.test", "A")?;
    assert_eq!(absent.code, ResponseCode::NXDomain);
    server.set(
        "n1 IN A 127.0.0.11\nn1 IN AAAA ::1\nn2 IN A 127.0.0.12\nall IN A 127.0.0.11\nall IN A 127.0.0.12\n\
         _raft._tcp IN SRV 0 0 4002 n1\n_raft._tcp IN SRV 0 0 4002 n2",
    )?;
    assert_eq!(
        dns::query(addr, "n1.cluster.test", "AAAA")?.records,
        ["::1"]
    );
    assert_eq!(dns::query(addr, "all.cluster.test", "A")?.records.len(), 2);
    for query in [dns::query, dns::query_tcp] {
        let mut found = query(addr, "_raft._tcp.cluster.test", "SRV")?.records;
        found.sort();
        assert_eq!(
            found,
            ["0 0 4002 n1.cluster.test.", "0 0 4002 n2.cluster.test."]
        );
    }
    server.set("")?;
    let gone = dns::query(addr, "n1.cluster.test", "A")?;
    assert_eq!((gone.code, gone.records.len()), (ResponseCode::NXDomain, 0));
    server.kill();
    assert!(dns::query(addr, "n1.cluster.test", "A").is_err());
    server.restart()?;
    assert_eq!(
        dns::query(addr, "n1.cluster.test", "A")?.code,
        ResponseCode::NXDomain
    );
    Ok(())
}

#[test]
fn a_record_that_is_none_is_reported() -> Result<()> {
    if !present(&[Tool::CoreDns])? {
        return Ok(());
    }
    let error = CoreDns::start("cluster.test", "n1 IN A not-an-address").expect_err("no address");
    assert!(format!("{error:#}").contains("not-an-address"), "{error:#}");
    Ok(())
}

#[test]
fn dns_can_be_slow_silent_failing_and_cut_short() -> Result<()> {
    if !present(&[Tool::CoreDns])? {
        return Ok(());
    }
    let server = CoreDns::start("cluster.test", "n1 IN A 127.0.0.11")?;
    let proxy = DnsProxy::to(server.addr())?;
    let name = "n1.cluster.test";
    assert_eq!(dns::query(proxy.addr(), name, "A")?.records, ["127.0.0.11"]);
    assert_eq!(
        dns::query_tcp(proxy.addr(), name, "A")?.records,
        ["127.0.0.11"]
    );

    let delay = Duration::from_millis(300);
    proxy.set(DnsMode::Slow(delay));
    let start = Instant::now();
    assert_eq!(dns::query(proxy.addr(), name, "A")?.records, ["127.0.0.11"]);
    assert!(start.elapsed() >= delay, "{:?}", start.elapsed());

    proxy.set(DnsMode::Failing);
    assert_eq!(
        dns::query(proxy.addr(), name, "A")?.code,
        ResponseCode::ServFail
    );
    assert!(dns::query_tcp(proxy.addr(), name, "A").is_err());

    proxy.set(DnsMode::Truncating);
    let short = dns::query(proxy.addr(), name, "A")?;
    assert!(short.truncated && short.records.is_empty(), "{short:?}");
    assert_eq!(
        dns::query_tcp(proxy.addr(), name, "A")?.records,
        ["127.0.0.11"]
    );

    proxy.set(DnsMode::Dropping);
    assert!(dns::query(proxy.addr(), name, "A").is_err());
    assert_eq!(proxy.queries(), 5);
    Ok(())
}

#[test]
fn etcd_keeps_a_key_over_a_restart() -> Result<()> {
    if !present(&[Tool::Etcd])? {
        return Ok(());
    }
    let mut server = Etcd::start()?;
    assert_eq!(server.get("a")?, None);
    server.put("a", "1")?;
    assert_eq!(server.get("a")?.as_deref(), Some("1"));
    let version = Client::new(server.addr()).get_json("/version")?;
    assert_eq!(version["etcdserver"], "3.6.16");
    server.restart()?;
    assert_eq!(server.get("a")?.as_deref(), Some("1"));
    server.delete("a")?;
    assert_eq!(server.get("a")?, None);
    Ok(())
}

#[test]
fn etcd_asks_for_a_password_and_for_certificates() -> Result<()> {
    if !present(&[Tool::Etcd])? {
        return Ok(());
    }
    let certificates = Certificates::new()?;
    let server = Etcd::start_with(etcd::Options {
        user: Some(("rq", "secret")),
        certificates: Some(&certificates),
        ..etcd::Options::default()
    })?;
    server.put("a", "1")?;
    assert_eq!(server.get("a")?.as_deref(), Some("1"));
    let url = |path: &str| format!("https://{}{path}", server.addr());
    // YQ== is `a`, MQ== is `1` in base64.
    let range = ["-d", r#"{"key":"YQ=="}"#];
    let (_, refused) = https(&url("/v3/kv/range"), Some(&certificates), None, &range);
    assert!(refused.contains("user name is empty"), "{refused}");
    let log_in = ["-d", r#"{"name":"rq","password":"wrong"}"#];
    let (_, refused) = https(
        &url("/v3/auth/authenticate"),
        Some(&certificates),
        None,
        &log_in,
    );
    assert!(refused.contains("authentication failed"), "{refused}");
    let log_in = ["-d", r#"{"name":"rq","password":"secret"}"#];
    let (_, session) = https(
        &url("/v3/auth/authenticate"),
        Some(&certificates),
        None,
        &log_in,
    );
    let session: serde_json::Value = serde_json::from_str(&session).context(session)?;
    let header = format!(
        "Authorization: {}",
        session["token"].as_str().context("a token")?
    );
    let with_token = ["-d", r#"{"key":"YQ=="}"#, "-H", &header];
    let (_, found) = https(&url("/v3/kv/range"), Some(&certificates), None, &with_token);
    assert!(found.contains("MQ=="), "{found}");
    let (trusted, why) = https(&url("/version"), None, None, &[]);
    assert!(!trusted, "an unknown authority was trusted: {why}");
    Ok(())
}

#[test]
fn etcd_takes_only_clients_with_a_certificate() -> Result<()> {
    if !present(&[Tool::Etcd])? {
        return Ok(());
    }
    let certificates = Certificates::new()?;
    let server = Etcd::start_with(etcd::Options {
        certificates: Some(&certificates),
        client_certificate: true,
        ..etcd::Options::default()
    })?;
    let url = format!("https://{}/version", server.addr());
    let (taken, why) = https(&url, Some(&certificates), None, &[]);
    assert!(!taken, "{why}");
    let (taken, text) = https(&url, Some(&certificates), Some(&certificates.client), &[]);
    assert!(taken && text.contains("3.6.16"), "{text}");
    Ok(())
}

#[test]
fn consul_keeps_a_key_behind_its_access_list() -> Result<()> {
    if !present(&[Tool::Consul])? {
        return Ok(());
    }
    let open = Consul::start()?;
    open.put("a/b", "1")?;
    assert_eq!(open.get("a/b")?.as_deref(), Some("1"));
    open.delete("a/b")?;
    assert_eq!(open.get("a/b")?, None);

    // A second server beside it, on its own ports.
    let certificates = Certificates::new()?;
    let guarded = Consul::start_with(consul::Options {
        token: Some("8b5a1b5e-0000-4000-8000-000000000001"),
        certificates: Some(&certificates),
        client_certificate: true,
    })?;
    guarded.put("a", "2")?;
    assert_eq!(guarded.get("a")?.as_deref(), Some("2"));
    let reply = Client::new(guarded.addr()).send("PUT", "/v1/kv/a", &[], b"3")?;
    assert_eq!(reply.status, 403, "{reply:?}");
    let url = format!(
        "https://{}/v1/status/leader",
        guarded.https_addr().context("HTTPS")?
    );
    let (taken, why) = https(&url, Some(&certificates), None, &[]);
    assert!(!taken, "{why}");
    let (taken, text) = https(&url, Some(&certificates), Some(&certificates.client), &[]);
    assert!(taken && text.contains("127.0.0.1:"), "{text}");
    Ok(())
}

#[test]
fn nothing_outlives_the_value() -> Result<()> {
    if !present(&[Tool::Etcd])? {
        return Ok(());
    }
    let server = Etcd::start()?;
    let (addr, dir) = (server.addr().to_owned(), server.daemon().dir().to_owned());
    ensure!(dir.is_dir());
    drop(server);
    ensure!(!dir.exists() && TcpStream::connect(&addr).is_err());
    Ok(())
}
