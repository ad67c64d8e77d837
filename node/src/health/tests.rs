//! Tests of the endpoints and of clients that hold connections.
use hyper::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    answer::{Endpoint, route},
    *,
};

#[test]
fn endpoints() {
    let cases = [
        (Method::GET, "/readyz", Ok(Endpoint::Ready)),
        (Method::HEAD, "/livez", Ok(Endpoint::Alive)),
        (Method::GET, "/metrics", Ok(Endpoint::Metrics)),
        (Method::POST, "/readyz", Err(StatusCode::METHOD_NOT_ALLOWED)),
        (
            Method::OPTIONS,
            "/metrics",
            Err(StatusCode::METHOD_NOT_ALLOWED),
        ),
        (Method::GET, "/", Err(StatusCode::NOT_FOUND)),
        (Method::GET, "/readyz/", Err(StatusCode::NOT_FOUND)),
        (Method::GET, "/readyzfoo", Err(StatusCode::NOT_FOUND)),
        (Method::GET, "/status", Err(StatusCode::NOT_FOUND)),
        (Method::POST, "/db/execute", Err(StatusCode::NOT_FOUND)),
    ];
    for (method, path, expected) in cases {
        assert_eq!(route(&method, path), expected, "{method} {path}");
    }
}

async fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    reply
}

/// A free address.
async fn free() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_is_alive_and_not_ready() {
    let address = free().await;
    let health = Health::start(&address).await.unwrap();
    let cases = [
        ("/livez", "HTTP/1.1 200 OK", "[+]node ok"),
        ("/readyz?noleader", "HTTP/1.1 200 OK", "[+]node ok"),
        (
            "/readyz",
            "HTTP/1.1 503",
            "[+]node ok\n[+]leader does not exist",
        ),
        ("/readyz?timeout=x", "HTTP/1.1 400", "timeout"),
        ("/metrics", "HTTP/1.1 503", "the node is starting"),
        ("/nodes", "HTTP/1.1 404", ""),
    ];
    for (path, status, text) in cases {
        let reply = get(&address, path).await;
        assert!(reply.starts_with(status), "{path}: {reply}");
        assert!(reply.contains(text), "{path}: {reply}");
        assert!(reply.contains("connection: close"), "{path}: {reply}");
    }
    drop(health);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_hold_connections_keep_nobody_out() {
    let address = free().await;
    let _health = Health::start(&address).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..(3 * MAX_CONNECTIONS) {
        held.push(TcpStream::connect(&address).await.unwrap());
    }
    let reply = timeout(Duration::from_secs(3), get(&address, "/livez")).await;
    assert!(reply.unwrap().starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_must_come_in_time_and_be_small() {
    let address = free().await;
    let _health = Health::start(&address).await.unwrap();
    let long = format!("/livez?{}", "x".repeat(2 * HEAD_BYTES));
    let reply = get(&address, &long).await;
    assert!(!reply.starts_with("HTTP/1.1 200"), "{reply}");
}
