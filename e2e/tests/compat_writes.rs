//! Parameters of writes whose effect shows only after several requests: `noparse` and `db_timeout`.
use anyhow::{Result, ensure};
use e2e::{client::Client, process::Node};

fn node() -> Result<(Node, Client)> {
    let mut node = Node::new("1")?;
    node.start_and_ready()?;
    let client = node.client();
    Ok((node, client))
}

#[test]
fn noparse_finds_no_returning_and_no_explain() -> Result<()> {
    let (_node, mut client) = node()?;
    client.execute("CREATE TABLE r(x)", &[])?;
    let body = r#"["INSERT INTO r VALUES(7) RETURNING x"]"#;
    let explain = r#"["EXPLAIN QUERY PLAN INSERT INTO r VALUES(8)"]"#;
    for (path, body, rows) in [
        ("/db/execute", body, true),
        ("/db/execute?noparse", body, false),
        ("/db/request", body, true),
        ("/db/request?noparse", body, false),
        ("/db/request", explain, true),
        ("/db/request?noparse", explain, false),
    ] {
        let reply = client.post(path, body)?;
        let result = &reply.json()["results"][0];
        ensure!(
            reply.status == 200
                && result["columns"].is_array() == rows
                && result["error"].is_null(),
            "{path} {body}: {reply:?}"
        );
    }
    ensure!(
        client.number("strong", "SELECT count(*) FROM r")? == 4,
        "rows"
    );
    Ok(())
}

#[test]
fn a_write_over_its_db_timeout_fails_as_a_whole() -> Result<()> {
    let (_node, mut client) = node()?;
    client.execute("CREATE TABLE s(x)", &[])?;
    let slow = r#"["WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 1000000) INSERT INTO s SELECT i FROM n"]"#;
    for path in ["/db/execute", "/db/request"] {
        let reply = client.post(&format!("{path}?db_timeout=5ms"), slow)?;
        ensure!(
            reply
                .text()
                .contains("interrupted: the request takes more than 1000000 steps"),
            "{path}: {reply:?}"
        );
    }
    let rows = client.number("strong", "SELECT count(*) FROM s")?;
    ensure!(rows == 0, "{rows} rows");
    Ok(())
}
