//! The check of a node's database in the background: `/db/check`.
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{cluster::Cluster, process::Node, wait};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

/// Status code and body of a request.
fn request(node: &Node, method: &str, body: &Value) -> Result<(u16, Value)> {
    let mut client = node.client();
    let body = body.to_string();
    let reply = match method {
        "POST" => client.post("/db/check", &body)?,
        "GET" => client.get("/db/check")?,
        other => client.send(other, "/db/check", &[], body.as_bytes())?,
    };
    let value = serde_json::from_str(&reply.text()).unwrap_or(Value::Null);
    Ok((reply.status, value))
}

fn ended(node: &Node, id: &str) -> Result<Value> {
    wait::until("the end of the check", LIMIT, || {
        let status = node.client().get_json("/status");
        let check = status.map_err(|e| e.to_string())?["store"]["check"].clone();
        let over = check["id"] == id && check["state"] != "running";
        if over {
            Ok(check)
        } else {
            Err(check.to_string())
        }
    })
}

#[test]
fn a_check_runs_once_for_each_id_and_shows_its_progress_and_its_end() -> Result<()> {
    let cluster = Cluster::start(1)?;
    let node = &cluster[0];
    let mut client = cluster.client(0);
    client.execute("CREATE TABLE t(x)", &[])?;
    client.execute(
        "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
         SELECT randomblob(1500) FROM n",
        &[],
    )?;
    let (code, none) = request(node, "GET", &Value::Null)?;
    ensure!(code == 200 && none["check"].is_null(), "{none}");
    let (code, started) = request(node, "POST", &json!({"id": "first", "limit_seconds": 600}))?;
    ensure!(
        code == 200 && started["check"]["id"] == "first",
        "{started}"
    );
    let first = ended(node, "first")?;
    ensure!(
        first["state"] == "sound" && first["limit_seconds"] == 600,
        "{first}"
    );
    let pages = first["pages"].as_u64().context("no pages")?;
    let read = first["pages_read"].as_u64().context("no progress")?;
    ensure!(pages > 5000 && read > pages / 2, "{first}");
    // The same request again is answered by the same check, another id by another one.
    let (_, again) = request(node, "POST", &json!({"id": "first"}))?;
    ensure!(again["check"]["started"] == first["started"], "{again}");
    let (code, late) = request(node, "POST", &json!({"id": "second", "limit_seconds": 0}))?;
    ensure!(code == 200 && late["check"]["id"] == "second", "{late}");
    ensure!(ended(node, "second")?["state"] == "timed_out");
    let (code, _) = request(node, "DELETE", &json!({"id": "second"}))?;
    ensure!(code == 404, "it has ended: {code}");
    for bad in [json!({}), json!({"id": ""}), json!({"id": "x".repeat(200)})] {
        let (code, _) = request(node, "POST", &bad)?;
        ensure!(code == 400, "{bad}: {code}");
    }
    cluster.check_no_panic()
}
