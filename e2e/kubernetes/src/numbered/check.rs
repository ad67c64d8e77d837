//! What is in the database at the end: every acknowledged row, and the same on every node.
use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{TABLE, http::Server, record::Acknowledged};
use crate::command::until;

/// Rows read at a time.
const PAGE_ROWS: u64 = 20_000;
const READ_LIMIT: Duration = Duration::from_secs(20);
/// A node that was away may take this long to catch up.
const EQUAL_LIMIT: Duration = Duration::from_secs(60);
/// Lost rows that are named.
const NAMED: usize = 20;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Acknowledged rows.
    pub acknowledged: u64,
    /// Rows in the table; more than acknowledged if an attempt took effect whose answer did not arrive.
    pub rows: u64,
    /// How many acknowledged rows are not there.
    pub lost: u64,
    /// The first of them.
    pub lost_first: Vec<u64>,
    /// One for each node: its dump's hash and length.
    pub nodes: Vec<Dump>,
    /// How long it took until all nodes had the same.
    pub equal_after_ms: u64,
}

/// A node's own copy of the whole database, as SQL text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dump {
    /// The node's URL.
    pub node: String,
    /// Equal for equal text.
    pub hash: u64,
    /// Length of the text in bytes.
    pub bytes: u64,
}

/// Reads all rows through `server`, linearizably, and each of `nodes`' own database until they agree.
///
/// # Errors
/// When one cannot be read, or the nodes do not agree in time. Lost rows are no error here.
pub fn check(server: &Server, nodes: &[String], entries: &[Acknowledged]) -> Result<Check> {
    let present = until("the database to be readable", EQUAL_LIMIT, || rows(server))?;
    let lost: BTreeSet<u64> = entries
        .iter()
        .map(|entry| entry.number)
        .filter(|number| !present.contains(number))
        .collect();
    let start = Instant::now();
    let dumps = until("all nodes to have the same", EQUAL_LIMIT, || {
        let dumps: Vec<Dump> = nodes.iter().map(|node| dump(node)).collect::<Result<_>>()?;
        let kinds: BTreeSet<_> = dumps.iter().map(|dump| (dump.hash, dump.bytes)).collect();
        ensure!(kinds.len() <= 1, "{dumps:?}");
        Ok(dumps)
    })?;
    Ok(Check {
        acknowledged: entries.len() as u64,
        rows: present.len() as u64,
        lost: lost.len() as u64,
        lost_first: lost.into_iter().take(NAMED).collect(),
        nodes: dumps,
        equal_after_ms: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

fn rows(server: &Server) -> Result<BTreeSet<u64>> {
    let mut all = BTreeSet::new();
    loop {
        let last = all.last().copied().unwrap_or(0);
        let sql = format!("SELECT n FROM {TABLE} WHERE n > ? ORDER BY n LIMIT {PAGE_ROWS}");
        let body = json!([[sql, last]]).to_string();
        let answer = server.ask("/db/query?level=linearizable", Some(&body), READ_LIMIT)?;
        let page = numbers(&serde_json::from_slice(&answer).context("read the answer")?)?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

fn numbers(answer: &Value) -> Result<Vec<u64>> {
    let result = &answer["results"][0];
    ensure!(
        result["columns"].is_array() && answer.get("error").is_none(),
        "{answer}"
    );
    // Without rows, there are no values.
    let values = result["values"].as_array().map_or(&[][..], Vec::as_slice);
    let number = |row: &Value| row[0].as_u64().with_context(|| format!("no number: {row}"));
    values.iter().map(number).collect()
}

fn dump(node: &str) -> Result<Dump> {
    let server = Server::parse(node)?;
    let text = server
        .ask("/db/backup?fmt=sql&noleader", None, READ_LIMIT)
        .with_context(|| format!("dump {node}"))?;
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    Ok(Dump {
        node: node.to_owned(),
        hash: hasher.finish(),
        bytes: text.len() as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let rows =
            json!({"results": [{"columns": ["n"], "types": ["integer"], "values": [[1], [2]]}]});
        assert_eq!(numbers(&rows).unwrap(), [1, 2]);
        let none = json!({"results": [{"columns": ["n"], "types": ["integer"]}]});
        assert!(numbers(&none).unwrap().is_empty());
        for answer in [
            json!({"results": [{"error": "no such table: numbered"}]}),
            json!({"results": [], "error": "not leader"}),
            json!({"results": [{"columns": ["n"], "values": [["x"]]}]}),
        ] {
            assert!(numbers(&answer).is_err(), "{answer}");
        }
    }
}
