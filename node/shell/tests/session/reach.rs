//! Reaching a node: hosts, redirects, environment; and what the exit code says.

use std::net::TcpListener;

use crate::server::{Response, Server, moved, ok, status};
use crate::{ROWS, Ran, SQL_ERROR, WRITE, rqlite};

/// The lines of `-e` against a node; gives the outcome and the requests.
fn batch(answers: Vec<Response>, args: &[&str]) -> (Ran, Vec<String>) {
    let node = Server::start(answers);
    let port = node.port.to_string();
    let all: Vec<&str> = ["-p", &port]
        .into_iter()
        .chain(args.iter().copied())
        .collect();
    (rqlite(&all, &[], ""), node.stop_for_lines())
}

fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

#[test]
fn another_host_takes_over() {
    let node = Server::start(vec![ok("{}"), ok(WRITE)]);
    let dead = closed_port().to_string();
    let ran = rqlite(&["-p", &dead, "-a", &node.host()], &[], "DELETE FROM x\n");
    let host = node.host();
    assert!(
        ran.out
            .contains(&format!("Connected to http://{host} running")),
        "{}",
        ran.out
    );
    assert!(
        ran.out
            .ends_with(&format!("{host}> 2 rows affected\n{host}> bye~\n")),
        "{}",
        ran.out
    );
    assert!(
        ran.err
            .starts_with(&format!("[client] http://127.0.0.1:{dead}: ")),
        "{}",
        ran.err
    );
    assert_eq!(
        ran.err.lines().count(),
        1,
        "the dead host is asked once only: {}",
        ran.err
    );
    assert_eq!(node.stop_for_lines(), ["GET /status", "POST /db/request"]);
}

#[test]
fn no_host_is_an_error_but_a_failure_only_when_asked_for() {
    let port = closed_port().to_string();
    for (args, code) in [
        (vec!["-p", &port], 0),
        (vec!["-p", &port, "--exit-on-error"], 1),
    ] {
        let ran = rqlite(&args, &[], "");
        assert_eq!(
            (ran.out.as_str(), ran.code),
            ("ERR! no host available to perform the request\n", code)
        );
    }
    let ran = rqlite(&["-p", &port, "-e", "SELECT 1"], &[], "");
    assert_eq!((ran.out.as_str(), ran.code), ("", 1));
    assert!(
        ran.err
            .ends_with("ERR! no host available to perform the request\n"),
        "{}",
        ran.err
    );
}

#[test]
fn redirects_carry_body_and_credentials() {
    let leader = Server::start(vec![ok(WRITE)]);
    let node = Server::start(vec![moved(format!(
        "http://{}/db/request?x",
        leader.host()
    ))]);
    let ran = rqlite(
        &[
            "-p",
            &node.port.to_string(),
            "-u",
            "bob:secret",
            "-e",
            "DELETE FROM x",
        ],
        &[],
        "",
    );
    assert_eq!(
        (ran.out.as_str(), ran.err.as_str(), ran.code),
        ("2 rows affected\n", "", 0)
    );
    node.stop();
    let asked = leader.stop();
    assert_eq!(
        (asked[0].line.as_str(), asked[0].body.as_str()),
        ("POST /db/request?x", r#"["DELETE FROM x"]"#)
    );
    assert!(
        asked[0]
            .headers
            .contains(&"authorization: Basic Ym9iOnNlY3JldA==".to_owned()),
        "{:?}",
        asked[0].headers
    );
}

#[test]
fn a_redirect_loop_ends() {
    let (ran, asked) = batch(
        (0..30).map(|_| moved("/db/request".to_owned())).collect(),
        &["-e", "SELECT 1"],
    );
    assert_eq!(
        (ran.err.as_str(), ran.code),
        ("ERR! stopped after 21 redirects\n", 1)
    );
    assert_eq!(asked.len(), 22);
}

#[test]
fn given_lines_run_without_talk_and_tell_by_exit_code() {
    let lines = ["-e", ".mode csv", "-e", "SELECT bad", "-e", "SELECT 1"];
    let (ran, asked) = batch(vec![ok(SQL_ERROR), ok(ROWS)], &lines);
    assert_eq!(ran.out, "id,name\n1,fiona\n2,NULL\n");
    assert_eq!(
        (ran.err.as_str(), ran.code),
        ("Error: near \".\": syntax error\n", 1)
    );
    assert_eq!(asked, ["POST /db/request", "POST /db/request"]);

    let (ran, asked) = batch(
        vec![ok(SQL_ERROR), ok(ROWS)],
        &[&lines[..], &["--exit-on-error"]].concat(),
    );
    assert_eq!((ran.out.as_str(), ran.code, asked.len()), ("", 1, 1));

    let (ran, _) = batch(
        vec![ok(ROWS)],
        &["-e", "SELECT 1", "-e", ".exit", "-e", "SELECT 2"],
    );
    assert_eq!((ran.err.as_str(), ran.code), ("", 0));

    let (ran, _) = batch(
        vec![status("503 Service Unavailable", "")],
        &["-e", ".ready"],
    );
    assert_eq!((ran.out.as_str(), ran.code), ("not ready\n", 1));
}

#[test]
fn exit_on_error_stops_a_piped_session() {
    let node = Server::start(vec![ok("{}"), ok(WRITE), ok(SQL_ERROR)]);
    let ran = rqlite(
        &["-p", &node.port.to_string(), "--exit-on-error"],
        &[],
        "DELETE\nBAD\nDELETE\n",
    );
    let host = node.host();
    assert!(
        ran.out
            .ends_with(&format!("{host}> Error: near \".\": syntax error\nbye~\n")),
        "{}",
        ran.out
    );
    assert_eq!((ran.code, node.stop_for_lines().len()), (1, 3));
}

#[test]
fn the_environment_names_the_host_and_flags_win() {
    let node = Server::start(vec![ok(WRITE), ok(WRITE)]);
    let variable = format!("http://{}", node.host());
    // A proxy must not be asked for a loopback address.
    let env = [
        ("RQLITE_HOST", variable.as_str()),
        ("HTTP_PROXY", "http://127.0.0.1:1"),
    ];
    let ran = rqlite(&["-P", "/api/", "-e", "DELETE"], &env, "");
    assert_eq!(
        (ran.out.as_str(), ran.err.as_str(), ran.code),
        ("2 rows affected\n", "", 0)
    );
    let ran = rqlite(
        &["-p", &node.port.to_string(), "-e", "DELETE"],
        &[("RQLITE_HOST", "ftp://x")],
        "",
    );
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(
        node.stop_for_lines(),
        ["POST /api/db/request", "POST /db/request"]
    );

    let ran = rqlite(&["-e", "DELETE"], &[("RQLITE_HOST", "ftp://x")], "");
    assert_eq!(
        (ran.err.as_str(), ran.code),
        ("ERR! unsupported protocol ftp\n", 1)
    );
}

#[test]
fn usage_errors_and_help() {
    let ran = rqlite(&["--nonsense"], &[], "");
    assert!(
        ran.code == 1 && ran.err.contains("--nonsense"),
        "{}",
        ran.err
    );
    let ran = rqlite(&["--help"], &[], "");
    assert!(
        ran.code == 0 && ran.out.contains("exit code is 1 if any line failed"),
        "{}",
        ran.out
    );
    let ran = rqlite(&["-v"], &[], "");
    assert!(
        ran.code == 0 && ran.out.starts_with("Version ") && ran.out.contains(", built on "),
        "{}",
        ran.out
    );
}
