//! The built shell against a scripted node: requests sent, bytes printed, exit codes.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may panic, and so may its helpers"
)]

#[path = "session/files.rs"]
mod files;
#[path = "session/reach.rs"]
mod reach;
#[path = "session/secure.rs"]
mod secure;
#[path = "session/server.rs"]
mod server;

use std::io::Write;
use std::process::{Command, Stdio};

use server::{Response, Server, ok, status};

const ROWS: &str = r#"{"results":[{"columns":["id","name"],"types":["integer","text"],"values":[[1,"fiona"],[2,null]]}]}"#;
const WRITE: &str = r#"{"results":[{"last_insert_id":7,"rows_affected":2}]}"#;
const SQL_ERROR: &str = r#"{"results":[{"error":"near \".\": syntax error"}]}"#;

struct Ran {
    out: String,
    err: String,
    code: i32,
}

fn rqlite(args: &[&str], env: &[(&str, &str)], input: impl AsRef<[u8]>) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rqlite"));
    command
        .env_clear()
        .envs(env.iter().copied())
        .args(["-t", "20s"])
        .args(args);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The shell may have ended before it read anything.
    let _ = child.stdin.take().unwrap().write_all(input.as_ref());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran {
        out: text(output.stdout),
        err: text(output.stderr),
        code: output.status.code().unwrap(),
    }
}

/// A session on standard input against a node that first answers `/status`. Gives what is printed between the
/// first prompt and the farewell, with prompts as `>`, and the requests after the first.
fn session(answers: Vec<Response>, input: impl AsRef<[u8]>) -> (String, Vec<server::Asked>) {
    let script = std::iter::once(ok("{}")).chain(answers).collect();
    let node = Server::start(script);
    let ran = rqlite(&["-p", &node.port.to_string()], &[], input);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
    let prompt = format!("{}> ", node.host());
    let (_, printed) = ran.out.split_once(&prompt).expect(&ran.out);
    let printed = printed
        .strip_suffix("bye~\n")
        .expect(&ran.out)
        .replace(&prompt, "> ");
    let mut asked = node.stop();
    assert_eq!(asked.remove(0).line, "GET /status");
    (printed, asked)
}

#[test]
fn a_session_looks_as_documented() {
    let node = Server::start(vec![status("401 Unauthorized", ""), ok(ROWS)]);
    let ran = rqlite(
        &["-p", &node.port.to_string()],
        &[],
        "SELECT * FROM \"foo\";\n\n.quit\nSELECT 2\n",
    );
    let host = node.host();
    let expected = format!(
        "\
Welcome to the rqlite CLI.
Enter \".help\" for usage hints.
Connected to http://{host} running version v10.0.0
{host}> +----+-------+
| id | name  |
+----+-------+
| 1  | fiona |
+----+-------+
| 2  | <nil> |
+----+-------+
{host}> {host}> bye~
"
    );
    assert_eq!((ran.out, ran.err.as_str(), ran.code), (expected, "", 0));
    let asked = node.stop();
    assert_eq!(asked.len(), 2);
    assert_eq!(
        (asked[1].line.as_str(), asked[1].body.as_str()),
        ("POST /db/request", r#"["SELECT * FROM \"foo\";"]"#)
    );
    assert!(
        asked[1]
            .headers
            .contains(&"content-type: application/json".to_owned()),
        "{:?}",
        asked[1].headers
    );
}

#[test]
fn a_line_that_is_no_text_fails_alone() {
    let input = b"INSERT 1\nINSERT '\xff'\nINSERT 3\n";
    let (printed, asked) = session(vec![ok(WRITE), ok(WRITE)], input);
    assert_eq!(
        printed,
        "2 rows affected\n> ERR! the line is not UTF-8 (byte 9) and is not run\n> 2 rows affected\n> "
    );
    assert_eq!(asked[1].body, r#"["INSERT 3"]"#);
    // Reported as any other failure.
    let node = Server::start(vec![ok("{}"), ok(WRITE)]);
    let ran = rqlite(
        &["-p", &node.port.to_string(), "--exit-on-error"],
        &[],
        input,
    );
    assert_eq!((ran.code, node.stop().len()), (1, 2), "{}", ran.out);
}

#[test]
fn writes_modes_and_switches() {
    let timed_rows = r#"{"results":[{"columns":["a"],"types":["blob"],"values":[[[1,2]]],"time":0.00007}],"time":1}"#;
    let timed_write = r#"{"results":[{"rows_affected":1,"time":0.000117}]}"#;
    let (printed, asked) = session(
        vec![
            ok(r#"{"results":[{}]}"#),
            ok(WRITE),
            ok(timed_write),
            ok(timed_rows),
            ok(SQL_ERROR),
        ],
        "CREATE TABLE x(y)\n.changes on\n.forcewrites on\nDELETE FROM x\n.changes off\n.forcewrites off\n.timer on\n\
         UPDATE x\n.blobarray on\n.mode JSON\nSELECT a\n.timer off\n.blobarray off\n.mode\n.timer\n.foo\n",
    );
    let expected = "\
0 row affected
> > > 2 rows affected
last insert ID: 7
> > > > 1 row affected (0.000117 sec)
> > > [
  {
    \"a\": [1,2]
  }
]
Run Time: 0.000070 seconds
> > > json
> off
> Error: near \".\": syntax error
> ";
    assert_eq!(printed, expected);
    let lines: Vec<&str> = asked.iter().map(|asked| asked.line.as_str()).collect();
    assert_eq!(
        lines,
        [
            "POST /db/request",
            "POST /db/execute",
            "POST /db/request?timings",
            "POST /db/request?timings&blob_array",
            "POST /db/request"
        ]
    );
}

#[test]
fn mistakes_are_reported_and_the_session_goes_on() {
    let (printed, asked) = session(
        vec![
            status("401 Unauthorized", ""),
            status("503 Service Unavailable", "leader not found\n"),
            ok(r#"{"results":[],"error":"stale read"}"#),
            ok("what?"),
        ],
        ".mode x\n.backup\nSELECT 1\nSELECT 2\nSELECT 3\nSELECT 4\nexit\n",
    );
    let expected = "\
ERR! invalid mode 'x'. Use 'column', 'csv', 'json', or 'line'
> ERR! please specify an output file for the backup
> ERR! unauthorized
> ERR! server responded with 503 Service Unavailable: leader not found
> Error: stale read
> ERR! the server's response cannot be read: expected value at line 1 column 1
> ";
    assert_eq!(printed, expected);
    assert_eq!(asked.len(), 4);
}

#[test]
fn catalog_commands_use_the_consistency_level() {
    let empty = r#"{"results":[{"columns":["name"],"types":["text"]}]}"#;
    let (printed, asked) = session(
        vec![ok(empty), ok(empty), ok(empty)],
        ".tables\n.consistency strong\n.indexes\n.schema\n.consistency\n",
    );
    let table = "+------+\n| name |\n+------+\n";
    assert_eq!(printed, format!("{table}> > {table}> {table}> strong\n> "));
    assert!(
        asked[0]
            .line
            .starts_with("GET /db/query?level=weak&q=SELECT%20name%20FROM%20"),
        "{}",
        asked[0].line
    );
    assert!(
        asked[1]
            .line
            .starts_with("GET /db/query?level=strong&q=SELECT%20sql%20FROM%20"),
        "{}",
        asked[1].line
    );
    assert!(
        asked[2].line.ends_with("ORDER%20BY%20rowid"),
        "{}",
        asked[2].line
    );
}

#[test]
fn cluster_commands_ask_and_print() {
    let nodes =
        r#"{"2":{"id":"2","leader":true,"api_addr":"http://b"},"1":{"id":"1","leader":false}}"#;
    let (printed, asked) = session(
        vec![
            ok(nodes),
            ok(nodes),
            ok(r#"{"1":{"leader":false}}"#),
            ok("[+]node ok"),
            status(
                "503 Service Unavailable",
                "[+]node ok\n[+]leader does not exist",
            ),
            status("204 No Content", ""),
            ok(""),
            ok(r#"{"snapshots_reaped":2,"wals_checkpointed":1}"#),
            ok(""),
            status("500 Internal Server Error", ""),
            status("500 Internal Server Error", "stepdown: cannot find peer\n"),
            ok(""),
        ],
        ".nodes all\n.leader\n.leader\n.ready\n.ready\n.snapshot\n.snapshot 5\n.reap\n.stepdown 2\n.stepdown\n\
         .stepdown\n.remove \"node 1\"\n",
    );
    let expected = "\
1:
  id: 1
  leader: false
2:
  api_addr: http://b
  id: 2
  leader: true
> 2:
  api_addr: http://b
  id: 2
  leader: true
> ERR! no leader found
> ready
> not ready
> > > snapshots reaped: 2, WALs checkpointed: 1
> > ERR! server responded with 500 Internal Server Error
> ERR! server responded with 500 Internal Server Error: stepdown: cannot find peer
> > ";
    assert_eq!(printed, expected);
    let requests: Vec<String> = asked
        .iter()
        .map(|asked| format!("{} {}", asked.line, asked.body))
        .collect();
    assert_eq!(
        requests,
        [
            "GET /nodes?nonvoters ",
            "GET /nodes ",
            "GET /nodes ",
            "GET /readyz ",
            "GET /readyz ",
            "POST /snapshot ",
            "POST /snapshot?trailing_logs=5 ",
            "POST /reap ",
            "POST /leader?wait=true {\"id\":\"2\"}",
            "POST /leader?wait=true ",
            "POST /leader?wait=true ",
            "DELETE /remove {\"id\":\"node 1\"}",
        ]
    );
}

#[test]
fn diagnostics_are_trees() {
    let (printed, asked) = session(
        vec![
            ok(r#"{"term":2,"state":"Leader"}"#),
            ok(r#"{"cmdline":["rqlited"]}"#),
            ok(r#"{"extensions":["a","b"]}"#),
        ],
        ".status store.raft\n.expvar\n.extensions\n.show\n",
    );
    let expected = "\
state: Leader
term: 2
> cmdline:
  - rqlited
> a
b
>   blobarray: off
  changes: off
  consistency: weak
  forcewrites: off
  mode: column
  output: stdout
  timer: off
> ";
    assert_eq!(printed, expected);
    assert_eq!(asked[0].line, "GET /status?key=store.raft");
    assert_eq!(asked[1].line, "GET /debug/vars");
}
