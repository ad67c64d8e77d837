//! Tests of Consul's configuration and of the interpretation of its responses. End-to-end tests use a real
//! Consul.
use super::*;

#[test]
fn the_configuration_makes_the_url() {
    let cases = [
        ("", "http://127.0.0.1:8500/v1/kv/rqlite/leader"),
        ("{}", "http://127.0.0.1:8500/v1/kv/rqlite/leader"),
        (
            "{\"address\":\"\",\"scheme\":\"\"}",
            "http://127.0.0.1:8500/v1/kv/rqlite/leader",
        ),
        ("{\"address\":\"c:1\"}", "http://c:1/v1/kv/rqlite/leader"),
        (
            "{\"address\":\"[::1]:1\"}",
            "http://[::1]:1/v1/kv/rqlite/leader",
        ),
        (
            "{\"address\":\"c:1\",\"scheme\":\"https\"}",
            "https://c:1/v1/kv/rqlite/leader",
        ),
        (
            "{\"address\":\"https://c:1/below/\",\"scheme\":\"http\"}",
            "https://c:1/below/v1/kv/rqlite/leader",
        ),
        (
            "{\"address\":\"unix:///run/consul.sock\"}",
            "http://localhost/v1/kv/rqlite/leader",
        ),
        (
            "{\"datacenter\":\"d c\",\"namespace\":\"n\",\"partition\":\"p\"}",
            "http://127.0.0.1:8500/v1/kv/rqlite/leader?dc=d+c&ns=n&partition=p",
        ),
    ];
    for (text, url) in cases {
        let consul = open(text, "rqlite").unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(consul.url.as_str(), url, "{text}");
    }
    let nested = open("", "/team a/db/").expect("valid");
    assert_eq!(nested.key(), "team a/db/leader");
    assert_eq!(nested.url.path(), "/v1/kv/team%20a/db/leader");
}

#[test]
fn mistakes_say_what_to_change() {
    let cases = [
        ("{\"addres\":\"c:1\"}", "unknown field `addres`"),
        (
            "{\"scheme\":\"ftp\"}",
            "scheme: expected \"http\" or \"https\"",
        ),
        ("{\"address\":\"ftp://c:1\"}", "address: expected host:port"),
        (
            "{\"address\":\"c:99999\"}",
            "address: not an address: invalid port number",
        ),
        (
            "{\"address\":\"http://user:hunter2@c:1\"}",
            "address: must not carry a user name",
        ),
        (
            "{\"address\":\"unix://relative\"}",
            "address: expected an absolute path",
        ),
        (
            "{\"tls_config\":{\"insecure_skip_verify\":true}}",
            "tls_config: needs \"scheme\":\"https\"",
        ),
        (
            "{\"scheme\":\"https\",\"tls_config\":{\"ca_file\":\"/no/ca\"}}",
            "tls_config: ca_file: /no/ca: ",
        ),
        (
            "{\"basic_auth\":\"user:hunter2\"}",
            "basic_auth: expected struct",
        ),
        ("{\"basic_auth\":{\"user\":\"u\"}}", "unknown field `user`"),
    ];
    for (text, expected) in cases {
        let mistake = open(text, "rqlite").expect_err(text);
        assert!(mistake.contains(expected), "{text}: {mistake}");
        assert!(!mistake.contains("hunter2"), "{mistake}");
    }
    for key in ["", "/", "a//b"] {
        assert!(
            open("", key).expect_err(key).contains("-disco-key"),
            "{key}"
        );
    }
}

#[test]
fn secrets_are_not_shown() {
    let consul = open(
        "{\"token\":\"hunter2\",\"basic_auth\":{\"username\":\"u\",\"password\":\"hunter2\"}}",
        "rqlite",
    )
    .expect("valid");
    assert!(!format!("{consul:?}").contains("hunter2"), "{consul:?}");
}

#[tokio::test]
async fn a_token_file_counts_before_the_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("token");
    let text = format!("{{\"token\":\"field\",\"token_file\":{path:?}}}");
    let consul = open(&text, "rqlite").expect("valid");
    let sent = async || {
        let request = consul.client.get(consul.url.clone());
        let request = consul
            .authorized(request)
            .await?
            .build()
            .expect("a request");
        Ok::<_, String>(request.headers()["x-consul-token"].clone())
    };
    assert!(sent().await.expect_err("no file").contains("token_file"));
    for (content, expected) in [("first\n", "first"), ("second", "second"), ("\n", "field")] {
        std::fs::write(&path, content).expect("a file");
        assert_eq!(sent().await.expect("a token"), expected);
    }
}

#[test]
fn answers_are_understood() {
    let entry = b"[{\"LockIndex\":0,\"Key\":\"k\",\"Flags\":0,\"Value\":\"e30=\",\"CreateIndex\":5,\"ModifyIndex\":7}]";
    assert_eq!(
        parse_entry(entry),
        Ok(Versioned {
            bytes: b"{}".to_vec(),
            version: 7
        })
    );
    let empty = parse_entry(b"[{\"Value\":null,\"ModifyIndex\":7}]").expect("an empty value");
    assert!(empty.bytes.is_empty());
    for wrong in [
        "",
        "[]",
        "{}",
        "<html>",
        "[{\"Value\":\"!\",\"ModifyIndex\":7}]",
    ] {
        let mistake = parse_entry(wrong.as_bytes()).expect_err(wrong);
        assert!(mistake.contains("not that of Consul"), "{mistake}");
    }
}
