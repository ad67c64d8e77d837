//! The client against scripted servers, and the classification of every kind of reply to a write.
use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    thread::{self, JoinHandle},
};

use super::*;

/// Serves `replies` on as many connections as needed. An empty reply closes the connection after the request.
fn serve(replies: Vec<&'static str>) -> (Client, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client =
        Client::new(&listener.local_addr().unwrap().to_string()).timeout(Duration::from_secs(5));
    let server = thread::spawn(move || {
        let mut requests = Vec::new();
        let mut replies = replies.into_iter().peekable();
        while replies.peek().is_some() {
            let mut reader = BufReader::new(listener.accept().unwrap().0);
            while replies.peek().is_some()
                && let Some(request) = read_request(&mut reader)
            {
                requests.push(request);
                match replies.next() {
                    Some("") | None => break,
                    Some(reply) => reader.get_mut().write_all(reply.as_bytes()).unwrap(),
                }
            }
        }
        requests
    });
    (client, server)
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let (mut request, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap() == 0 {
            return None;
        }
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim().parse().unwrap();
        }
        let head_ends = line == "\r\n";
        request.push_str(&line);
        if head_ends {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    request.push_str(&String::from_utf8(body).unwrap());
    Some(request)
}

#[test]
fn a_kept_connection_carries_several_exchanges() {
    let (mut client, server) = serve(vec![
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\n\r\nhi",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
    ]);
    let first = client.get("/a?b=c").unwrap();
    assert_eq!(
        (first.status, first.text().as_str(), first.header("x-a")),
        (200, "hi", Some("b"))
    );
    assert_eq!(
        client
            .send("DELETE", "/d", &[("X", "y")], b"")
            .unwrap()
            .status,
        204
    );
    assert_eq!(client.post("/p", "[1]").unwrap().text(), "abcde");
    let host = client.addr().to_owned();
    assert_eq!(
        server.join().unwrap(),
        [
            format!("GET /a?b=c HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            format!("DELETE /d HTTP/1.1\r\nHost: {host}\r\nX: y\r\nContent-Length: 0\r\n\r\n"),
            format!(
                "POST /p HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 3\r\n\r\n[1]"
            ),
        ]
    );
}

#[test]
fn a_body_may_end_with_the_connection() {
    let (mut client, server) = serve(vec![
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it",
    ]);
    let reading = thread::spawn(move || client.get("/"));
    drop(server.join().unwrap());
    assert_eq!(reading.join().unwrap().unwrap().text(), "all of it");
}

#[test]
fn a_closed_kept_connection_is_replaced_before_sending() {
    let reply = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let (mut client, server) = serve(vec![reply, "", reply]);
    assert_eq!(client.post("/1", "x").unwrap().status, 200);
    assert!(
        matches!(client.post("/2", "x"), Err(Failure::Broken(_))),
        "the server may have acted"
    );
    assert_eq!(client.post("/3", "x").unwrap().status, 200);
    assert_eq!(server.join().unwrap().len(), 3);
}

#[test]
fn nobody_listening_means_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    drop(listener);
    assert!(matches!(
        Client::new(&addr).get("/"),
        Err(Failure::NotSent(_))
    ));
}

#[test]
fn every_reply_to_a_write_has_a_meaning() {
    let cases = [
        (
            200,
            r#"{"results":[{"last_insert_id":1,"rows_affected":2}]}"#,
            "acknowledged",
        ),
        (200, r#"{"results":[{}]}"#, "acknowledged"),
        (
            200,
            r#"{"results":[{"error":"UNIQUE constraint failed: t.id"}]}"#,
            "refused",
        ),
        (200, r#"{"results":[],"error":"not leader"}"#, "refused"),
        (
            200,
            r#"{"results":[],"error":"leadership lost while committing log"}"#,
            "unknown",
        ),
        (
            200,
            r#"{"results":[],"error":"context deadline exceeded"}"#,
            "unknown",
        ),
        (
            200,
            r#"{"results":[],"error":"disk full: 0 bytes free under /data, 9 needed; no write is accepted until there is room"}"#,
            "refused",
        ),
        (200, r#"{"results":[]}"#, "unknown"),
        (200, "garbage", "unknown"),
        (400, "invalid JSON body\n", "refused"),
        (503, "leader not found\n", "refused"),
        (503, "something else\n", "unknown"),
        (500, "leader not found\n", "unknown"),
    ];
    for (status, body, meaning) in cases {
        let reply = Ok(Reply {
            status,
            headers: Vec::new(),
            body: body.as_bytes().to_vec(),
        });
        let seen = match classify(&reply) {
            WriteOutcome::Acknowledged(_) => "acknowledged",
            WriteOutcome::Refused(_) => "refused",
            WriteOutcome::Unknown(_) => "unknown",
        };
        assert_eq!(seen, meaning, "{status} {body}");
    }
}

#[test]
fn statements_are_arrays_of_sql_and_parameters() {
    assert_eq!(
        statement("SELECT ?", &[Value::from(1), Value::from("a\"b")]),
        r#"[["SELECT ?",1,"a\"b"]]"#
    );
}
