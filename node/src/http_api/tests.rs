//! The API in front of a store that is not open: everything that is decided before the store is called, and
//! how its refusal is shown.
mod permissions;

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

use super::{HttpServices, HttpSettings, limits::MAX_BODY_BYTES, serve, state::HttpState};
use crate::{
    auth::{Auth, AuthSettings},
    identity::Identity,
    internode::client::Peers,
    local::Local,
    metrics::{Counter, Metrics, Timed},
    store::{
        StatusSettings, Store,
        queue::{Queue, QueueSettings},
    },
};

const DEADLINE: Duration = Duration::from_secs(10);
const CREDENTIALS: &str = r#"[
    {"username":"bob","password":"secret","perms":["all"]},
    {"username":"reader","password":"r","perms":["query"]},
    {"username":"*","perms":["ready"]}
]"#;
/// bob:secret
const BOB: &str = "Basic Ym9iOnNlY3JldA==";
/// reader:r
const READER: &str = "Basic cmVhZGVyOnI=";

fn store(dir: &Path) -> Store {
    let second = Duration::from_secs(1);
    let local = Local::new(
        dir.to_owned(),
        Identity::new("n1"),
        "h:4002".to_owned(),
        "http://h:4001".to_owned(),
        second,
    );
    let local = Arc::new(local);
    let settings = StatusSettings {
        data_dir: dir.to_owned(),
        foreign_keys: false,
        voter: true,
        apply_timeout: second,
        heartbeat_timeout: second,
        election_timeout: second,
        commit_timeout: second,
        lease_timeout: second,
        snapshot_threshold: 1,
        snapshot_interval: second,
        reap_timeout: second,
        reap_read_only_timeout: second,
        log_level: "WARN".to_owned(),
        parked: node_contract::parked::ParkedPolicy::default(),
    };
    Store::new(
        Arc::clone(&local),
        Peers::new(local, second),
        "h:4001".to_owned(),
        dir.to_owned(),
        settings,
    )
}

fn services(dir: &Path, credentials: Option<&str>) -> HttpServices {
    let path = dir.join("auth.json");
    let auth = credentials.map(|text| {
        std::fs::write(&path, text)
            .map(|()| path.as_path())
            .unwrap()
    });
    let metrics = Arc::new(Metrics::default());
    let settings = AuthSettings {
        max_waiting: 16,
        metrics: Arc::clone(&metrics),
        ..AuthSettings::default()
    };
    let auth = Arc::new(Auth::open(auth, settings).unwrap());
    let store = store(dir);
    let settings = QueueSettings {
        capacity: 4,
        batch_size: 2,
        timeout: Duration::from_millis(1),
        transaction: false,
    };
    let (queue, _task) = Queue::start(
        store.clone(),
        settings,
        Arc::clone(&metrics),
        CancellationToken::new(),
    );
    let settings = HttpSettings {
        allow_origin: None,
        api_addr: "h:4001".to_owned(),
        api_url: "http://h:4001".to_owned(),
        bind_addr: "localhost:4001".to_owned(),
        raft_addr: "h:4002".to_owned(),
        scratch_dir: dir.to_owned(),
        max_connections: 64,
        node_tls_stage: None,
        start_time: crate::clock::now(),
        command_line: vec!["rqlited".to_owned(), "data".to_owned()],
    };
    let restores = crate::restore::in_place::InPlace::new(
        store.clone(),
        crate::restore::in_place::Settings::default(),
    );
    HttpServices {
        auto_backup: None,
        restores,
        discovery: None,
        tls: crate::tls::Sides::default(),
        store,
        auth,
        archive: None,
        audit: None,
        metrics,
        queue,
        settings,
    }
}

fn new_state(dir: &Path, credentials: Option<&str>) -> Arc<HttpState> {
    Arc::new(HttpState::new(services(dir, credentials)).unwrap())
}

/// A complete reply.
#[derive(Debug)]
struct Got {
    status: u16,
    headers: hyper::HeaderMap,
    body: String,
}

impl Got {
    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

async fn send(
    state: &Arc<HttpState>,
    method: &str,
    uri: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Got {
    let mut request = hyper::Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
        .unwrap();
    let (parts, body) = Arc::clone(state)
        .handle(request, None)
        .await
        .unwrap()
        .into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Got {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

const JSON: &str = "application/json; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const NOT_OPEN: &str = r#"{"results":[],"error":"store not open"}"#;

/// Method, path, body; status, content type, body.
type Case = (
    &'static str,
    &'static str,
    &'static str,
    u16,
    &'static str,
    &'static str,
);

#[rustfmt::skip]
const CASES: &[Case] = &[
    ("OPTIONS", "/nothing/here?%zz", "", 200, "", ""),
    ("GET", "/nothing", "", 404, "", ""),
    ("GET", "/leader/", "", 404, "", ""),
    ("GET", "/%73tatus?key=http.auth", "", 200, JSON, "\"disabled\""),
    ("GET", "/st+tus", "", 404, "", ""),
    ("GET", "/%zz", "", 400, TEXT, "invalid URL escape \"%zz\"\n"),
    ("GET", "/status%7", "", 400, TEXT, "invalid URL escape \"%7\"\n"),
    ("GET", "readyz", "", 400, TEXT, "the request's target does not begin with a slash\n"),
    ("GET", "/console/x.js", "", 404, "", ""),
    ("GET", "/status?x=%zz", "", 400, TEXT, "invalid URL escape \"%zz\"\n"),
    ("GET", "/nothing?a;b", "", 400, TEXT, "invalid semicolon separator in query\n"),
    ("GET", "/nodes?timeout=5", "", 400, TEXT, "timeout is not a valid duration\n"),
    ("GET", "/db/query?q=", "", 400, TEXT, "query parameter not set\n"),
    ("GET", "/db/execute", "", 405, JSON, ""),
    ("PUT", "/db/query", "", 405, JSON, ""),
    ("GET", "/db/request", "", 405, JSON, ""),
    ("HEAD", "/status", "", 405, JSON, ""),
    ("POST", "/db/backup", "", 405, "", ""),
    ("GET", "/db/load", "", 405, "", ""),
    ("POST", "/remove", "", 405, "", ""),
    ("POST", "/readyz", "", 405, TEXT, ""),
    ("POST", "/console/", "", 405, "", ""),
    ("POST", "/db/execute", "", 400, TEXT, "invalid JSON body\n"),
    ("POST", "/db/execute", "{}", 400, TEXT, "invalid request\n"),
    ("POST", "/db/query", "[]", 400, TEXT, "no statements\n"),
    ("POST", "/db/request", "[1]", 400, TEXT, "invalid request\n"),
    ("POST", "/db/execute", r#"["SELECT 1"]"#, 200, JSON, NOT_OPEN),
    ("POST", "/db/executefoo", r#"["SELECT 1"]"#, 200, JSON, NOT_OPEN),
    ("POST", "/db/query", r#"["SELECT 1"]"#, 200, JSON, NOT_OPEN),
    ("GET", "/db/query?q=SELECT%201", "", 200, JSON, NOT_OPEN),
    ("POST", "/db/request", r#"["SELECT 1"]"#, 200, JSON, NOT_OPEN),
    ("POST", "/db/execute?queue", r#"["SELECT 1"]"#, 503, TEXT, "leader not found\n"),
    ("POST", "/db/execute?queue&noleader", "garbage", 400, TEXT, "invalid JSON body\n"),
    ("POST", "/db/execute?queue&noleader", "[]", 400, TEXT, "no statements\n"),
    ("POST", "/db/load", "SELECT 1", 500, TEXT, "store not open\n"),
    ("POST", "/boot", "x", 503, TEXT, "store not open\n"),
    ("GET", "/db/backup?noleader", "", 500, TEXT, "store not open\n"),
    ("GET", "/db/backup?fmt=sql&vacuum", "", 500, TEXT, "invalid backup format\n"),
    ("DELETE", "/remove", "{}", 400, "", ""),
    ("DELETE", "/remove", r#"{"id":"a","x":"b"}"#, 400, "", ""),
    ("DELETE", "/remove", r#"{"id":"a"}"#, 500, TEXT, "store not open\n"),
    ("GET", "/leader", "", 503, TEXT, "store not open\n"),
    ("GET", "/nodes", "", 503, TEXT, "store nodes: store not open\n"),
    ("GET", "/readyz", "", 503, TEXT, "[+]node ok\n[+]leader does not exist"),
    ("GET", "/readyz?noleader", "", 200, TEXT, "[+]node ok"),
    ("POST", "/reap", "", 200, JSON, "{\"snapshots_reaped\":0,\"wals_checkpointed\":0}\n"),
    ("GET", "/status?key=store", "", 200, JSON, r#"{"open":false}"#),
    ("GET", "/status?key=store.open&pretty", "", 200, JSON, "false"),
    ("GET", "/status?key=no.such.key", "", 200, JSON, "{}"),
    ("GET", "/statusfoo?key=http.auth", "", 200, JSON, "\"disabled\""),
    ("GET", "/db/sql", "", 400, TEXT, "query not specified\n"),
    ("GET", "/db/sql?q=SELECT%201", "", 200, JSON, r#"{"results":[{"original":"SELECT 1","rewritten":"SELECT 1"}]}"#),
    ("GET", "/db/sql?q=SELEC", "", 200, JSON, r#"{"results":[{"original":"SELEC","error":"near \"SELEC\": syntax error"}]}"#),
    ("GET", "/debug/vars?key=downloader", "", 200, JSON, "{\n\"downloader\": {\"download_bytes\": 0, \"num_downloads_fail\": 0, \"num_downloads_ok\": 0}\n}\n"),
    ("GET", "/debug/vars?key=cmdline", "", 200, JSON, "{\n\"cmdline\": [\"rqlited\",\"data\"]\n}\n"),
    ("PUT", "/debug/pprof/cmdline", "", 200, TEXT, "rqlited\0data"),
];

#[tokio::test]
async fn without_credentials_file() {
    let dir = tempfile::tempdir().unwrap();
    let state = new_state(dir.path(), None);
    for (method, path, body, status, content_type, text) in CASES.iter().copied() {
        let got = send(&state, method, path, &[], body).await;
        let seen = (got.status, got.header("content-type"), got.body.as_str());
        assert_eq!(seen, (status, content_type, text), "{method} {path} {body}");
        assert_eq!(
            got.header("x-rqlite-version"),
            crate::VERSION,
            "{method} {path}"
        );
        assert_eq!(
            got.header("access-control-allow-headers"),
            "Content-Type",
            "{method} {path}"
        );
        assert_eq!(got.header("www-authenticate"), "", "{method} {path}");
        assert_eq!(got.header("x-rqlite-served-by"), "", "{method} {path}");
        assert_eq!(
            got.header("x-content-type-options") == "nosniff",
            text.ends_with('\n') && content_type == TEXT,
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn with_credentials_file() {
    let dir = tempfile::tempdir().unwrap();
    let state = new_state(dir.path(), Some(CREDENTIALS));
    let cases = [
        ("OPTIONS", "/db/execute", "", 200),
        ("GET", "/nothing", "", 404),
        ("GET", "/status?%zz", "", 400),
        ("POST", "/db/execute", "", 401),
        // Permission is checked before the method.
        ("GET", "/db/execute", "", 401),
        ("GET", "/db/execute", BOB, 405),
        ("GET", "/db/query?q=x", READER, 200),
        ("POST", "/db/execute", READER, 401),
        // Both permissions are needed.
        ("POST", "/db/request", READER, 401),
        ("GET", "/status", "Basic Ym9iOndyb25n", 401),
        ("GET", "/status", BOB, 200),
        ("GET", "/metrics", "", 401),
        ("GET", "/console/", "", 401),
        ("GET", "/readyz?noleader", "", 200),
        ("GET", "/", "", 302),
    ];
    for (method, path, authorization, status) in cases {
        let headers: &[(&str, &str)] = if authorization.is_empty() {
            &[]
        } else {
            &[("authorization", authorization)]
        };
        let got = send(&state, method, path, headers, "").await;
        assert_eq!(got.status, status, "{method} {path} {authorization}");
        assert_eq!(
            got.header("www-authenticate"),
            "Basic realm=\"rqlite\"",
            "{method} {path}"
        );
        assert_eq!(
            got.header("access-control-allow-credentials"),
            "true",
            "{method} {path}"
        );
        assert_eq!(
            got.header("access-control-allow-headers"),
            "Content-Type, Authorization",
            "{method} {path}"
        );
        if status == 401 {
            assert_eq!(got.body, "", "{method} {path}");
        }
    }
    assert_eq!(state.metrics.get(Counter::HttpAuthFail), 7);
    assert_eq!(state.metrics.get(Counter::HttpAuthOk), 4);
}

#[tokio::test]
async fn plain_sql_only_where_it_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let state = new_state(dir.path(), None);
    let plain: &[(&str, &str)] = &[("content-type", "text/plain; charset=utf-8")];
    assert_eq!(
        send(&state, "POST", "/db/execute", plain, "SELECT 1")
            .await
            .body,
        NOT_OPEN
    );
    assert_eq!(
        send(&state, "POST", "/db/query", plain, "SELECT 1")
            .await
            .body,
        NOT_OPEN
    );
    for (path, body, reply) in [
        ("/db/request", "SELECT 1", "invalid JSON body\n"),
        // The queue takes JSON of any content type. Plain SQL would be lost if it were taken for a statement.
        (
            "/db/execute?queue&noleader",
            "SELECT 1",
            "invalid JSON body\n",
        ),
        ("/db/execute?queue&noleader", "[]", "no statements\n"),
    ] {
        let got = send(&state, "POST", path, plain, body).await;
        assert_eq!(
            (got.status, got.body.as_str()),
            (400, reply),
            "{path} {body}"
        );
    }
}

#[tokio::test]
async fn an_array_is_no_object() {
    let dir = tempfile::tempdir().unwrap();
    let state = new_state(dir.path(), None);
    for (path, body) in [
        ("/leader", "[]"),
        ("/leader", r#"["n1"]"#),
        ("/db/check", r#"["id"]"#),
    ] {
        let json = [
            ("content-type", "application/json"),
            ("content-length", &body.len().to_string()),
        ];
        let got = send(&state, "POST", path, &json, body).await;
        assert_eq!(got.status, 400, "{path} {body}: {}", got.body);
        assert!(
            path != "/leader" || got.body.starts_with("invalid JSON: "),
            "{}",
            got.body
        );
    }
}

#[tokio::test]
async fn a_large_body_is_refused_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    let state = new_state(dir.path(), None);
    let got = send(
        &state,
        "POST",
        "/db/execute",
        &[],
        &"x".repeat(MAX_BODY_BYTES + 1),
    )
    .await;
    assert_eq!((got.status, got.header("connection")), (413, "close"));
    assert!(got.body.contains("/db/load"), "{}", got.body);
}

#[tokio::test]
async fn pages_and_redirections() {
    let dir = tempfile::tempdir().unwrap();
    let state = new_state(dir.path(), None);
    let root = send(&state, "GET", "/", &[], "").await;
    assert_eq!((root.status, root.header("location")), (302, "/console/"));
    let console = send(&state, "GET", "/console", &[], "").await;
    assert_eq!(
        (console.status, console.header("location")),
        (301, "/console/")
    );
    let page = send(&state, "GET", "/console/", &[], "").await;
    assert_eq!(
        (page.status, page.header("content-type")),
        (200, "text/html; charset=utf-8")
    );
    assert!(page.body.starts_with("<!doctype html>"));
    let licenses = send(&state, "GET", "/licenses", &[], "").await;
    assert!(licenses.body.contains("SQLite"));
    // The store is not open, so there is no leader to redirect to.
    let elsewhere = send(
        &state,
        "POST",
        "/db/execute?redirect",
        &[],
        r#"["SELECT 1"]"#,
    )
    .await;
    assert_eq!(elsewhere.status, 500);
}

#[tokio::test]
async fn status_before_the_store_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let state = new_state(dir.path(), None);
    let status = send(&state, "GET", "/status?pretty", &[], "").await;
    assert!(
        status
            .body
            .starts_with("{\n    \"build\": {\n        \"build_time\": "),
        "{}",
        status.body
    );
    let tree: serde_json::Value = serde_json::from_str(&status.body).unwrap();
    assert_eq!(tree["build"]["version"], crate::VERSION);
    assert_eq!(tree["http"]["queue"]["_default"]["max_size"], 4);
    assert_eq!(tree["http"]["tls"]["enabled"], "false");
    assert_eq!(tree["runtime"]["GOOS"], "linux");
    for absent in [
        "cluster",
        "mux",
        "network",
        "extensions",
        "last_backup_time",
    ] {
        assert!(tree.get(absent).is_none(), "{absent}");
    }
    assert_eq!(state.metrics.get(Counter::HttpNumStatus), 1);
}

#[tokio::test]
async fn times_are_shown_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let state = new_state(dir.path(), None);
    let got = send(
        &state,
        "POST",
        "/db/execute?timings",
        &[],
        r#"["SELECT 1"]"#,
    )
    .await;
    assert!(
        got.body
            .starts_with(r#"{"results":[],"error":"store not open","time":"#),
        "{}",
        got.body
    );
    assert_eq!(state.metrics.times(Timed::Execute).count, 1);
    let sql = send(&state, "GET", "/db/sql?timings&q=SELECT+1", &[], "").await;
    assert_eq!(sql.body.matches("\"time\":").count(), 2, "{}", sql.body);
}

/// Sends bytes and reads until the received text ends with this.
async fn exchange(stream: &mut TcpStream, send: &str, until: &str) -> String {
    stream.write_all(send.as_bytes()).await.unwrap();
    let mut text = String::new();
    let mut chunk = [0; 4096];
    while !text.ends_with(until) {
        let read = tokio::time::timeout(DEADLINE, stream.read(&mut chunk))
            .await
            .expect("a reply in time")
            .unwrap();
        assert_ne!(read, 0, "closed after {text:?}");
        text.push_str(std::str::from_utf8(&chunk[..read]).unwrap());
    }
    text
}

#[tokio::test]
async fn connections_are_kept_and_end_with_the_stop() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let server = tokio::spawn(serve(listener, services(dir.path(), None), stop.clone()));
    let mut stream = TcpStream::connect(address).await.unwrap();
    for _ in 0..2 {
        let got = exchange(
            &mut stream,
            "GET /readyz?noleader HTTP/1.1\r\nHost: h\r\n\r\n",
            "[+]node ok",
        )
        .await;
        assert!(got.starts_with("HTTP/1.1 200 OK\r\n"), "{got}");
        assert!(got.contains("\r\nX-Rqlite-Version: "), "{got}");
        assert!(got.contains("\r\nContent-Length: 10\r\n"), "{got}");
    }
    // Two requests at once, and a body in chunks.
    let twice = "POST /db/query HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\n1\r\n]\r\n0\r\n\r\nGET /readyz?noleader HTTP/1.1\r\nHost: h\r\n\r\n";
    let got = exchange(&mut stream, twice, "[+]node ok").await;
    assert!(got.contains("no statements\n"), "{got}");
    stop.cancel();
    tokio::time::timeout(DEADLINE, server)
        .await
        .expect("a stop in time")
        .unwrap()
        .unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    assert!(TcpStream::connect(address).await.is_err());
}
