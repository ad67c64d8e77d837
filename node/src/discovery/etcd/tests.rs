//! Tests of etcd's configuration and of the interpretation of its responses. End-to-end tests use a real
//! etcd.
use reqwest::header::HeaderMap;

use super::*;

#[test]
fn endpoints_may_have_schemes() {
    let cases: &[(&str, &[&str])] = &[
        ("", &["http://localhost:2379/"]),
        ("{\"endpoints\":[]}", &["http://localhost:2379/"]),
        (
            "{\"endpoints\":[\"a:1\",\"http://b:2\",\"https://c:3\"]}",
            &["http://a:1/", "http://b:2/", "https://c:3/"],
        ),
        ("{\"endpoints\":[\"[::1]:1\"]}", &["http://[::1]:1/"]),
        (
            "{\"endpoints\":[\"a:1\"],\"tls_config\":{\"insecure_skip_verify\":true}}",
            &["https://a:1/"],
        ),
    ];
    for (text, expected) in cases {
        // The system's authorities may be missing where tests run.
        match open(text, "rqlite") {
            Ok(etcd) => {
                let urls: Vec<&str> = etcd.endpoints.iter().map(Url::as_str).collect();
                assert_eq!(urls, *expected, "{text}");
            }
            Err(e) => assert!(e.contains("no certificate authorities"), "{text}: {e}"),
        }
    }
}

#[test]
fn every_field_is_known() {
    let text = "{\"endpoints\":[\"a:1\"],\"auto-sync-interval\":1,\"dial-timeout\":2000000000,\"dial-keep-alive-time\":\"3s\",\
        \"dial-keep-alive-timeout\":4,\"username\":\"u\",\"password\":\"hunter2\",\"reject-old-cluster\":true,\"permit-without-stream\":true}";
    let config: Config = setting::parse(text).expect("valid");
    assert_eq!(config.dial_timeout, Some(Duration::from_secs(2)));
    assert_eq!(config.dial_keep_alive_time, Some(Duration::from_secs(3)));
    assert_eq!(
        config.without_effect(),
        [
            "auto-sync-interval",
            "dial-keep-alive-timeout",
            "permit-without-stream"
        ]
    );
    let etcd = open(text, "rqlite").expect("valid");
    assert_eq!(etcd.key(), "/rqlite/leader");
    assert!(etcd.login.is_some());
    assert!(!format!("{etcd:?}").contains("hunter2"), "{etcd:?}");
}

#[test]
fn mistakes_say_what_to_change() {
    let cases = [
        ("{\"endpoint\":[]}", "unknown field `endpoint`"),
        ("{\"endpoints\":\"a:1\"}", "endpoints: expected a sequence"),
        (
            "{\"endpoints\":[\"ftp://a\"]}",
            "endpoints: expected host:port",
        ),
        (
            "{\"endpoints\":[\"http://u:hunter2@a\"]}",
            "endpoints: must not carry",
        ),
        (
            "{\"endpoints\":[\"http://a\"],\"tls_config\":{}}",
            "write https:// before it",
        ),
        (
            "{\"dial-timeout\":\"soon\"}",
            "dial-timeout: expected a duration",
        ),
        ("{\"password\":\"hunter2\"}", "password: needs a username"),
        ("{\"password\":42}", "password: expected a string"),
    ];
    for (text, expected) in cases {
        let mistake = open(text, "rqlite").expect_err(text);
        assert!(mistake.contains(expected), "{text}: {mistake}");
        assert!(!mistake.contains("hunter2"), "{mistake}");
    }
}

fn outcome(status: u16, body: &str) -> String {
    let answer = HttpResponse {
        status: StatusCode::from_u16(status).expect("a status"),
        headers: HeaderMap::new(),
        body: body.into(),
    };
    match classify(&answer) {
        CallResult::Response(_) => "answer".into(),
        CallResult::Unavailable(e) => format!("unavailable {e}"),
        CallResult::Unauthenticated(e) => format!("unauthenticated {e}"),
        CallResult::Refused(e) => format!("refused {e}"),
    }
}

#[test]
fn refusals_are_told_apart() {
    let cases = [
        (200, "{\"header\":{}}", "answer"),
        (200, "<html>", "refused the answer is not etcd's"),
        (
            401,
            "{\"error\":\"etcdserver: invalid auth token\",\"code\":16,\"message\":\"etcdserver: invalid auth token\"}",
            "unauthenticated",
        ),
        (
            400,
            "{\"code\":3,\"message\":\"etcdserver: revision of auth store is old\"}",
            "unauthenticated",
        ),
        (
            400,
            "{\"code\":3,\"message\":\"etcdserver: user name is empty\"}",
            "refused etcdserver: user name is empty; this etcd requires",
        ),
        (
            403,
            "{\"code\":7,\"message\":\"etcdserver: permission denied\"}",
            "refused etcdserver: permission denied; the user's role",
        ),
        (
            503,
            "{\"code\":14,\"message\":\"etcdserver: no leader\"}",
            "unavailable etcdserver: no leader",
        ),
        (
            504,
            "{\"code\":4,\"message\":\"context deadline exceeded\"}",
            "unavailable",
        ),
        (502, "bad gateway", "unavailable 502"),
        (
            404,
            "404 page not found",
            "refused 404 Not Found: 404 page not found; etcd 3.4",
        ),
    ];
    for (status, body, expected) in cases {
        let got = outcome(status, body);
        assert!(got.starts_with(expected), "{status} {body}: {got}");
    }
}

#[test]
fn lookups_are_understood() {
    let held = json!({ "header": {}, "kvs": [{ "key": "a2V5", "mod_revision": "18446744073709551615", "value": "e30=" }], "count": "1" });
    assert_eq!(
        parse_range(&held),
        Ok(Some(Versioned {
            bytes: b"{}".to_vec(),
            version: u64::MAX
        }))
    );
    assert_eq!(
        parse_range(&json!({ "header": { "revision": "1" } })),
        Ok(None)
    );
    for wrong in [
        json!({}),
        json!({ "header": {}, "kvs": [{ "value": "e30=" }] }),
    ] {
        assert!(parse_range(&wrong).is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn unreachable_endpoints_are_all_named() {
    // A port that was free a moment ago refuses connections.
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address").port()
    };
    let text = format!("{{\"endpoints\":[\"127.0.0.1:{port}\",\"http://127.0.0.1:{port}\"]}}");
    let etcd = open(&text, "rqlite").expect("valid");
    let trouble = etcd.read().await.expect_err("nobody listens");
    assert!(
        trouble.starts_with("etcd does not answer; check endpoints and tls_config ("),
        "{trouble}"
    );
    assert_eq!(
        trouble.matches(&format!("127.0.0.1:{port}")).count(),
        2,
        "{trouble}"
    );
    assert!(trouble.contains("refused"), "{trouble}");
}
