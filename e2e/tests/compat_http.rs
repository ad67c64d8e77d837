//! rqlite's HTTP contract for SQL, byte for byte: statements, parameters, replies, errors, levels, queued
//! writes.
use anyhow::{Result, ensure};
use e2e::{
    client::Client,
    exchange::{self, Exchange, get, post, with_status},
    process::Node,
};

/// One node for a table of exchanges, and its client.
fn node() -> Result<(Node, Client)> {
    let mut node = Node::new("1")?;
    node.start_and_ready()?;
    let client = node.client();
    Ok((node, client))
}

fn run(table: &[Exchange<'_>]) -> Result<()> {
    let (node, mut client) = node()?;
    exchange::run(&mut client, table)?;
    e2e::cluster::check_no_panic(&node)
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn statements_and_results() -> Result<()> {
    run(&[
        post(
            "/db/execute",
            r#"["CREATE TABLE foo(id INTEGER PRIMARY KEY, name TEXT UNIQUE, age INTEGER)"]"#,
            r#"{"results":[{}]}"#,
        ),
        post(
            "/db/execute",
            r#"["INSERT INTO foo(name) VALUES('fiona')"]"#,
            r#"{"results":[{"last_insert_id":1,"rows_affected":1}]}"#,
        ),
        post(
            "/db/execute",
            r#"[["INSERT INTO foo(name,age) VALUES(?,?)","bob",20]]"#,
            r#"{"results":[{"last_insert_id":2,"rows_affected":1}]}"#,
        ),
        post(
            "/db/execute",
            r#"[["INSERT INTO foo(name,age) VALUES(:name,$age)",{"name":"carol","age":30}]]"#,
            r#"{"results":[{"last_insert_id":3,"rows_affected":1}]}"#,
        ),
        post(
            "/db/execute",
            r#"["UPDATE foo SET age=1 WHERE id<3","DELETE FROM foo WHERE id=3"]"#,
            r#"{"results":[{"rows_affected":2},{"rows_affected":1}]}"#,
        ),
        // The change counters belong to the connection and stay the same if nothing changed. They are reset
        // for each request, so that a replay of the log after a restart returns the same values.
        post(
            "/db/execute",
            r#"["INSERT INTO foo(name) VALUES('stale')","CREATE TABLE bar(x)","SELECT * FROM foo"]"#,
            r#"{"results":[{"last_insert_id":3,"rows_affected":1},{"last_insert_id":3,"rows_affected":1},{"last_insert_id":3,"rows_affected":1}]}"#,
        ),
        post(
            "/db/execute",
            r#"["","INSERT INTO foo(name) VALUES('dave')"] trailing"#,
            r#"{"results":[{"last_insert_id":4,"rows_affected":1}]}"#,
        ),
        post("/db/execute", r#"[""]"#, r#"{"results":[]}"#),
        post(
            "/db/execute",
            r#"["INSERT INTO foo(name) VALUES('erin') RETURNING id, name"]"#,
            r#"{"results":[{"columns":["id","name"],"types":["integer","text"],"values":[[5,"erin"]]}]}"#,
        ),
        post(
            "/db/execute",
            r#"["INSERT INTO foo(name) VALUES('a5');INSERT INTO foo(name) VALUES('a6')"]"#,
            r#"{"results":[{"last_insert_id":7,"rows_affected":1}]}"#,
        ),
        get(
            "/db/query?q=SELECT%20*%20FROM%20foo%20WHERE%20id%3C3",
            r#"{"results":[{"columns":["id","name","age"],"types":["integer","text","integer"],"values":[[1,"fiona",1],[2,"bob",1]]}]}"#,
        ),
        get(
            "/db/query?q=SELECT+name+FROM+foo+WHERE+id=4",
            r#"{"results":[{"columns":["name"],"types":["text"],"values":[["dave"]]}]}"#,
        ),
        post(
            "/db/query",
            r#"["SELECT id FROM foo WHERE 0","SELECT max(id) FROM foo"]"#,
            r#"{"results":[{"columns":["id"],"types":["integer"]},{"columns":["max(id)"],"types":["integer"],"values":[[7]]}]}"#,
        ),
        get("/db/query", r#"{"results":[]}"#),
        post(
            "/db/query?qualify_columns",
            r#"["SELECT id, 1+1 AS two FROM foo WHERE id=1"]"#,
            r#"{"results":[{"columns":["foo.id","two"],"types":["integer","integer"],"values":[[1,2]]}]}"#,
        ),
        post(
            "/db/request",
            r#"["INSERT INTO foo(name) VALUES('req')","SELECT name FROM foo WHERE id=8"]"#,
            r#"{"results":[{"last_insert_id":8,"rows_affected":1},{"columns":["name"],"types":["text"],"values":[["req"]]}]}"#,
        ),
        post(
            "/db/request",
            r#"["SELECT count(*) AS n FROM foo"]"#,
            r#"{"results":[{"columns":["n"],"types":["integer"],"values":[[8]]}]}"#,
        ),
        post(
            "/db/request",
            r#"["PRAGMA table_info(bar)"]"#,
            r#"{"results":[{"columns":["cid","name","type","notnull","dflt_value","pk"],"types":["integer","text","text","integer","","integer"],"values":[[0,"x","",0,null,0]]}]}"#,
        ),
    ])
}

#[test]
fn shapes_of_replies() -> Result<()> {
    run(&[
        post(
            "/db/execute?associative",
            r#"["CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT)"]"#,
            r#"{"results":[{"rows":null}]}"#,
        ),
        post(
            "/db/execute?associative",
            r#"["INSERT INTO t(a) VALUES('<&>')"]"#,
            r#"{"results":[{"last_insert_id":1,"rows_affected":1,"rows":null}]}"#,
        ),
        get(
            "/db/query?associative&q=SELECT%20*%20FROM%20t",
            r#"{"results":[{"types":{"a":"text","id":"integer"},"rows":[{"a":"\u003c\u0026\u003e","id":1}]}]}"#,
        ),
        get(
            "/db/query?associative&q=SELECT%20*%20FROM%20t%20WHERE%200",
            r#"{"results":[{"types":{"a":"text","id":"integer"},"rows":[]}]}"#,
        ),
        get(
            "/db/query?associative&q=SELECT%20*%20FROM%20nope",
            r#"{"results":[{"rows":[],"error":"no such table: nope"}]}"#,
        ),
        post(
            "/db/execute?associative",
            r#"["INSERT INTO nope VALUES(1)"]"#,
            r#"{"results":[{"error":"no such table: nope"}]}"#,
        ),
        get(
            "/db/query?pretty=false&q=SELECT%20id%20FROM%20t",
            "{\n    \"results\": [\n        {\n            \"columns\": [\n                \"id\"\n            ],\n            \"types\": [\n                \"integer\"\n            ],\n            \"values\": [\n                [\n                    1\n                ]\n            ]\n        }\n    ]\n}",
        ),
        post(
            "/db/execute?timings",
            r#"["INSERT INTO t(a) VALUES('x')"]"#,
            r#"{"results":[{"last_insert_id":2,"rows_affected":1,"time":%n}],"time":%n}"#,
        ),
        get(
            "/db/query?timings&q=SELECT%20id%20FROM%20t%20WHERE%20id=1",
            r#"{"results":[{"columns":["id"],"types":["integer"],"values":[[1]],"time":%n}],"time":%n}"#,
        ),
        post(
            "/db/execute?raft_index",
            r#"["INSERT INTO t(a) VALUES('y')"]"#,
            r#"{"results":[{"last_insert_id":3,"rows_affected":1}],"raft_index":%n}"#,
        ),
        get(
            "/db/query?level=strong&raft_index&q=SELECT%20id%20FROM%20t%20WHERE%20id=1",
            r#"{"results":[{"columns":["id"],"types":["integer"],"values":[[1]]}],"raft_index":%n}"#,
        ),
    ])
}

#[test]
fn values_and_types() -> Result<()> {
    run(&[
        post(
            "/db/execute",
            r#"["CREATE TABLE v(b BOOLEAN, d DATE, dt DATETIME, ts TIMESTAMP, vc VARCHAR(10), bl BLOB)"]"#,
            r#"{"results":[{}]}"#,
        ),
        post(
            "/db/execute",
            r#"["INSERT INTO v VALUES(1,'2021-01-02','2021-01-02 03:04:05.600',1609556645,'x',x'0102')"]"#,
            r#"{"results":[{"last_insert_id":1,"rows_affected":1}]}"#,
        ),
        get(
            "/db/query?q=SELECT%20*%20FROM%20v",
            r#"{"results":[{"columns":["b","d","dt","ts","vc","bl"],"types":["boolean","date","datetime","timestamp","varchar(10)","blob"],"values":[[true,"2021-01-02T00:00:00Z","2021-01-02T03:04:05.6Z","2021-01-02T03:04:05Z","x","AQI="]]}]}"#,
        ),
        get(
            "/db/query?blob_array&q=SELECT%20bl%20FROM%20v",
            r#"{"results":[{"columns":["bl"],"types":["blob"],"values":[[[1,2]]]}]}"#,
        ),
        post(
            "/db/query",
            r#"["SELECT 1 AS a, 1.5 AS b, 'x' AS c, NULL AS d, 12.0 AS e"]"#,
            r#"{"results":[{"columns":["a","b","c","d","e"],"types":["integer","real","text","","real"],"values":[[1,1.5,"x",null,12]]}]}"#,
        ),
        post(
            "/db/query",
            r#"["SELECT 1e21 AS a, 1e20 AS b, 1e-7 AS c, 0.000001 AS d, 9223372036854775807 AS e, -0.5 AS f"]"#,
            r#"{"results":[{"columns":["a","b","c","d","e","f"],"types":["real","real","real","real","integer","real"],"values":[[1e+21,100000000000000000000,1e-7,0.000001,9223372036854775807,-0.5]]}]}"#,
        ),
        post(
            "/db/query",
            r#"["SELECT '<a>&' || char(0x2028) AS a, 'ü🚀\"\\' AS b"]"#,
            r#"{"results":[{"columns":["a","b"],"types":["text","text"],"values":[["\u003ca\u003e\u0026\u2028","ü🚀\"\\"]]}]}"#,
        ),
        post(
            "/db/query",
            r#"["SELECT NULL AS a UNION ALL SELECT 1"]"#,
            r#"{"results":[{"columns":["a"],"types":[""],"values":[[null],[1]]}]}"#,
        ),
    ])
}

#[test]
fn parameters() -> Result<()> {
    let types = "SELECT typeof(?) AS t";
    let typed = |parameter: &str, name: &str| {
        (
            format!(r#"[["{types}",{parameter}]]"#),
            format!(
                r#"{{"results":[{{"columns":["t"],"types":["text"],"values":[["{name}"]]}}]}}"#
            ),
        )
    };
    let cases = [
        typed("1", "integer"),
        typed("-9223372036854775808", "integer"),
        typed("12345678901234567890", "real"),
        typed("1.0", "real"),
        typed("1e2", "real"),
        typed("true", "integer"),
        typed("null", "null"),
        typed(r#""x""#, "text"),
        typed(r#""x'00ff'""#, "blob"),
        typed(r#"" X'00FF' ""#, "blob"),
        typed(r#""x'0'""#, "text"),
        typed(r#""x'0g'""#, "text"),
        typed("[0,255]", "blob"),
        typed("[]", "blob"),
    ];
    let mut table: Vec<Exchange<'_>> = cases
        .iter()
        .map(|(body, reply)| post("/db/query", body, reply))
        .collect();
    table.extend([
        post("/db/query", r#"[["SELECT ? AS a, :n AS b, @m AS c, $k AS d",1,{"n":2,"m":3,"k":4,"unknown":5}]]"#, r#"{"results":[{"columns":["a","b","c","d"],"types":["integer","integer","integer","integer"],"values":[[1,2,3,4]]}]}"#),
        post("/db/query", r#"[["SELECT 1 AS a",7,8]]"#, r#"{"results":[{"columns":["a"],"types":["integer"],"values":[[1]]}]}"#),
        post("/db/query", r#"[["SELECT ?, ?",1]]"#, r#"{"results":[{"error":"not enough args to execute query: want 2 got 1"}]}"#),
        post("/db/query", r#"["SELECT ?"]"#, r#"{"results":[{"error":"not enough args to execute query: want 1 got 0"}]}"#),
        post("/db/query", r#"[["SELECT hex(?) AS a",[1,255]]]"#, r#"{"results":[{"columns":["a"],"types":["text"],"values":[["01FF"]]}]}"#),
        with_status("POST", "/db/query", r#"[["SELECT ?",["a"]]]"#, 400, "unsupported type string\n"),
        with_status("POST", "/db/query", r#"[["SELECT ?",[300]]]"#, 400, "unsupported type 300\n"),
        with_status("POST", "/db/query", r#"[["SELECT :a",{"a":{"b":1}}]]"#, 400, "unsupported type map[string]interface {}\n"),
    ]);
    run(&table)
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn errors() -> Result<()> {
    run(&[
        post(
            "/db/execute",
            r#"["CREATE TABLE u(id INTEGER PRIMARY KEY)","INSERT INTO u VALUES(1)"]"#,
            r#"{"results":[{},{"last_insert_id":1,"rows_affected":1}]}"#,
        ),
        post(
            "/db/execute",
            r#"["INSERT INTO u VALUES(1)","bad","INSERT INTO u VALUES(2)"]"#,
            r#"{"results":[{"error":"UNIQUE constraint failed: u.id"},{"error":"near \"bad\": syntax error"},{"last_insert_id":2,"rows_affected":1}]}"#,
        ),
        post(
            "/db/execute?transaction",
            r#"["INSERT INTO u VALUES(3)","INSERT INTO u VALUES(1)","INSERT INTO u VALUES(4)"]"#,
            r#"{"results":[{"last_insert_id":3,"rows_affected":1},{"error":"UNIQUE constraint failed: u.id"}]}"#,
        ),
        get(
            "/db/query?q=SELECT%20count(*)%20AS%20n%20FROM%20u",
            r#"{"results":[{"columns":["n"],"types":["integer"],"values":[[2]]}]}"#,
        ),
        post(
            "/db/query",
            r#"["SELECT * FROM nope","SELECT 1 AS a"]"#,
            r#"{"results":[{"error":"no such table: nope"},{"columns":["a"],"types":["integer"],"values":[[1]]}]}"#,
        ),
        post(
            "/db/query",
            r#"["INSERT INTO u VALUES(9)"]"#,
            r#"{"results":[{"error":"attempt to change database via query operation"}]}"#,
        ),
        post(
            "/db/execute",
            r#"["PRAGMA journal_mode=DELETE"]"#,
            r#"{"results":[],"error":"disallowed pragma"}"#,
        ),
        post(
            "/db/execute",
            r#"["PRAGMA main.wal_checkpoint(TRUNCATE)"]"#,
            r#"{"results":[],"error":"disallowed pragma"}"#,
        ),
        with_status("POST", "/db/execute", "{", 400, "invalid request\n"),
        with_status("POST", "/db/execute", "", 400, "invalid JSON body\n"),
        with_status("POST", "/db/execute", "{}", 400, "invalid request\n"),
        with_status("POST", "/db/execute", "[]", 400, "no statements\n"),
        with_status("POST", "/db/execute", "[[]]", 400, "invalid request\n"),
        with_status("POST", "/db/execute", "[[1]]", 400, "invalid request\n"),
        with_status("POST", "/db/execute", "[1]", 400, "invalid request\n"),
        with_status("GET", "/db/query?q=", "", 400, "query parameter not set\n"),
        with_status(
            "GET",
            "/db/query?q=%zz",
            "",
            400,
            "invalid URL escape \"%zz\"\n",
        ),
        with_status(
            "GET",
            "/db/query?a;b",
            "",
            400,
            "invalid semicolon separator in query\n",
        ),
        with_status(
            "GET",
            "/db/query?timeout=7&q=SELECT%201",
            "",
            400,
            "timeout is not a valid duration\n",
        ),
        with_status(
            "GET",
            "/db/query?freshness=x&q=SELECT%201",
            "",
            400,
            "freshness is not a valid duration\n",
        ),
        with_status(
            "GET",
            "/db/query?freshness_strict&q=SELECT%201",
            "",
            400,
            "freshness_strict requires freshness\n",
        ),
        with_status(
            "GET",
            "/db/query?db_timeout=-&q=SELECT%201",
            "",
            400,
            "db_timeout is not a valid duration\n",
        ),
        with_status(
            "GET",
            "/db/query?linearizable_timeout=x&q=SELECT%201",
            "",
            400,
            "linearizable_timeout is not a valid duration\n",
        ),
        with_status(
            "POST",
            "/db/execute?retries=x",
            "[\"SELECT 1\"]",
            400,
            "retries is not a valid integer\n",
        ),
        with_status(
            "POST",
            "/snapshot?trailing_logs=x",
            "",
            400,
            "trailing_logs is not a valid integer\n",
        ),
        with_status("GET", "/db/execute", "", 405, ""),
        with_status("PUT", "/db/query", "", 405, ""),
        with_status("GET", "/db/request", "", 405, ""),
        with_status("POST", "/db/backup", "", 405, ""),
        with_status("GET", "/db/load", "", 405, ""),
        with_status("GET", "/remove", "", 405, ""),
        with_status("DELETE", "/status", "", 405, ""),
        with_status("GET", "/snapshot", "", 405, ""),
        with_status("GET", "/boot", "", 405, ""),
        with_status("GET", "/nope", "", 404, ""),
        with_status("GET", "/leader/", "", 404, ""),
        with_status("OPTIONS", "/db/execute", "", 200, ""),
        with_status("OPTIONS", "/anything", "", 200, ""),
    ])
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn levels_and_queued_writes() -> Result<()> {
    let one = r#"{"results":[{"columns":["a"],"types":["integer"],"values":[[1]]}]}"#;
    run(&[
        get("/db/query?level=none&q=SELECT%201%20AS%20a", one),
        get(
            "/db/query?level=none&freshness=1ns&q=SELECT%201%20AS%20a",
            one,
        ),
        get("/db/query?level=weak&q=SELECT%201%20AS%20a", one),
        get(
            "/db/query?level=LINEARIZABLE&linearizable_timeout=2s&q=SELECT%201%20AS%20a",
            one,
        ),
        get("/db/query?level=strong&q=SELECT%201%20AS%20a", one),
        get("/db/query?level=auto&q=SELECT%201%20AS%20a", one),
        get("/db/query?level=unknown&q=SELECT%201%20AS%20a", one),
        post("/db/request?level=strong", r#"["SELECT 1 AS a"]"#, one),
        post(
            "/db/request?level=linearizable",
            r#"["SELECT 1 AS a"]"#,
            one,
        ),
        post(
            "/db/execute",
            r#"["CREATE TABLE q(x)"]"#,
            r#"{"results":[{}]}"#,
        ),
        post(
            "/db/execute?queue",
            r#"["INSERT INTO q VALUES(1)"]"#,
            r#"{"results":[],"sequence_number":%n}"#,
        ),
        post(
            "/db/execute?queue&noleader",
            r#"["INSERT INTO q VALUES(2)","INSERT INTO nope VALUES(2)"]"#,
            r#"{"results":[],"sequence_number":%n}"#,
        ),
        post(
            "/db/execute?queue&wait&timeout=10s",
            r#"[["INSERT INTO q VALUES(?)",3]]"#,
            r#"{"results":[],"sequence_number":%n}"#,
        ),
        get(
            "/db/query?q=SELECT%20sum(x)%20AS%20a%20FROM%20q",
            r#"{"results":[{"columns":["a"],"types":["integer"],"values":[[6]]}]}"#,
        ),
        post(
            "/db/execute?queue&wait",
            "[]",
            r#"{"results":[],"sequence_number":%n}"#,
        ),
        with_status(
            "POST",
            "/db/execute?queue",
            "nonsense",
            400,
            "invalid JSON body\n",
        ),
        // A failing batch must not block the requests after it.
        post(
            "/db/execute?queue",
            r#"["PRAGMA journal_mode=DELETE"]"#,
            "%*",
        ),
        post(
            "/db/execute?queue&wait&timeout=10s",
            r#"["INSERT INTO q VALUES(4)"]"#,
            r#"{"results":[],"sequence_number":%n}"#,
        ),
        get(
            "/db/query?q=SELECT%20sum(x)%20AS%20a%20FROM%20q",
            r#"{"results":[{"columns":["a"],"types":["integer"],"values":[[10]]}]}"#,
        ),
        get(
            "/db/query?db_timeout=50ms&q=WITH%20RECURSIVE%20n(i)%20AS%20(SELECT%201%20UNION%20ALL%20SELECT%20i%2B1%20FROM%20n)%20SELECT%20count(*)%20FROM%20n",
            r#"{"results":[{"error":"query timeout"}]}"#,
        ),
        get(
            "/db/query?level=strong&db_timeout=50ms&q=WITH%20RECURSIVE%20n(i)%20AS%20(SELECT%201%20UNION%20ALL%20SELECT%20i%2B1%20FROM%20n)%20SELECT%20count(*)%20FROM%20n",
            r#"{"results":[{"error":"query timeout"}]}"#,
        ),
    ])
}

#[test]
fn plain_text_bodies() -> Result<()> {
    let (_node, mut client) = node()?;
    let text = [("Content-Type", "text/plain; charset=utf-8")];
    let written = client.send("POST", "/db/execute", &text, b"CREATE TABLE p(x)")?;
    ensure!(
        written.text() == r#"{"results":[{}]}"#,
        "{}",
        written.text()
    );
    let read = client.send("POST", "/db/query", &text, b"SELECT count(*) AS n FROM p")?;
    ensure!(
        read.text() == r#"{"results":[{"columns":["n"],"types":["integer"],"values":[[0]]}]}"#,
        "{}",
        read.text()
    );
    let unified = client.send("POST", "/db/request", &text, b"SELECT 1")?;
    ensure!(
        (unified.status, unified.text().as_str()) == (400, "invalid JSON body\n"),
        "{}",
        unified.text()
    );
    Ok(())
}

#[test]
fn headers() -> Result<()> {
    let mut node = Node::new("1")?.with(&["-http-allow-origin=https://example.com"]);
    node.start_and_ready()?;
    let mut client = node.client();
    for (method, path, kind) in [
        (
            "GET",
            "/db/query?q=SELECT%201",
            Some("application/json; charset=utf-8"),
        ),
        ("GET", "/status", Some("application/json; charset=utf-8")),
        ("GET", "/nope", None),
        ("PUT", "/db/execute", None),
        ("OPTIONS", "/", None),
        ("GET", "/readyz", Some("text/plain; charset=utf-8")),
    ] {
        let reply = client.send(method, path, &[], b"")?;
        let expected = [
            ("Access-Control-Allow-Methods", Some("OPTIONS, GET, POST")),
            ("Access-Control-Allow-Headers", Some("Content-Type")),
            ("Access-Control-Allow-Origin", Some("https://example.com")),
            ("WWW-Authenticate", None),
        ];
        for (name, value) in expected {
            ensure!(
                reply.header(name) == value,
                "{method} {path}: {name} is {:?}",
                reply.header(name)
            );
        }
        ensure!(
            reply
                .header("X-RQLITE-VERSION")
                .is_some_and(|version| !version.is_empty()),
            "{method} {path}: no version"
        );
        if kind.is_some() {
            ensure!(
                reply.header("Content-Type") == kind,
                "{method} {path}: {:?}",
                reply.header("Content-Type")
            );
        }
    }
    let error = client.post("/db/execute", "{")?;
    ensure!(
        error.header("Content-Type") == Some("text/plain; charset=utf-8"),
        "{:?}",
        error.headers
    );
    ensure!(
        error.header("X-Content-Type-Options") == Some("nosniff"),
        "{:?}",
        error.headers
    );
    let served = client.post("/db/query", r#"["SELECT 1"]"#)?;
    ensure!(
        served.header("X-RQLITE-SERVED-BY") == Some(&node.http),
        "{:?}",
        served.headers
    );
    Ok(())
}

#[test]
fn sql_does_the_same_on_every_run_of_the_log() -> Result<()> {
    let (mut node, mut client) = node()?;
    client.execute("CREATE TABLE d(id INTEGER PRIMARY KEY, r DEFAULT (random()), t DEFAULT CURRENT_TIMESTAMP, b DEFAULT (randomblob(8)), j DEFAULT (julianday()))", &[])?;
    client.execute("CREATE TRIGGER dt AFTER INSERT ON d WHEN new.id<100 BEGIN INSERT INTO d(id, r) VALUES(new.id+100, random()); END", &[])?;
    for _ in 0..5 {
        client.execute("INSERT INTO d DEFAULT VALUES", &[])?;
        client.execute("DELETE FROM d WHERE id>99 AND id%2=0", &[])?;
        client.execute("WITH n(i) AS (SELECT random()) INSERT INTO d(id, r, t) SELECT 50-(SELECT count(*) FROM d), i, datetime('now','+1 day') FROM n", &[])?;
    }
    let all = "SELECT id, r, t, hex(b), j FROM d ORDER BY id";
    let before = client.rows("none", all, &[])?;
    ensure!(before.len() > 5, "{before:?}");
    node.kill()?;
    node.start_and_ready()?;
    let after = node.client().rows("strong", all, &[])?;
    ensure!(
        before == after,
        "replay changed rows:\n{before:?}\n{after:?}"
    );
    Ok(())
}
