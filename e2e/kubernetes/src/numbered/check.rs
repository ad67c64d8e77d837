//! Checks the database at the end: every acknowledged row is present, and all nodes are equal.
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

/// Rows read by one query.
const PAGE_ROWS: u64 = 20_000;
const READ_LIMIT: Duration = Duration::from_secs(20);
/// How long a node that was down may take to catch up.
const EQUAL_LIMIT: Duration = Duration::from_secs(60);
/// Number of lost rows that are listed.
const NAMED: usize = 20;

/// Result of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Acknowledged rows.
    pub acknowledged: u64,
    /// Rows in the table; more than acknowledged if an attempt took effect whose response did not arrive.
    pub rows: u64,
    /// Number of acknowledged rows that are missing.
    pub lost: u64,
    /// The first of them.
    pub lost_first: Vec<u64>,
    /// One for each node: hash and length of its dump.
    pub nodes: Vec<Dump>,
    /// How long it took until all nodes were equal.
    pub equal_after_ms: u64,
}

/// A node's own copy of the whole database, as an SQL dump.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dump {
    /// The node's address.
    pub node: String,
    /// Hash of the dump.
    pub hash: u64,
    /// Length of the dump in bytes.
    pub bytes: u64,
}

/// Reads all rows through `server` with linearizable reads, and the database of each of `nodes` until they
/// are equal.
///
/// # Errors
/// If one cannot be read, or the nodes do not become equal in time. Lost rows are not an error here.
pub fn check(server: &Server, nodes: &[Server], entries: &[Acknowledged]) -> Result<Check> {
    let present = until("the database to be readable", EQUAL_LIMIT, || rows(server))?;
    let lost: BTreeSet<u64> = entries
        .iter()
        .map(|entry| entry.number)
        .filter(|number| !present.contains(number))
        .collect();
    let start = Instant::now();
    let dumps = until("all nodes to have the same", EQUAL_LIMIT, || {
        let dumps: Vec<Dump> = nodes.iter().map(dump).collect::<Result<_>>()?;
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
        let response = server.request("/db/query?level=linearizable", Some(&body), READ_LIMIT)?;
        let page = numbers(&serde_json::from_slice(&response).context("read the response")?)?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

fn numbers(response: &Value) -> Result<Vec<u64>> {
    let result = &response["results"][0];
    ensure!(
        result["columns"].is_array() && response.get("error").is_none(),
        "{response}"
    );
    // A result without rows has no values.
    let values = result["values"].as_array().map_or(&[][..], Vec::as_slice);
    let number = |row: &Value| row[0].as_u64().with_context(|| format!("no number: {row}"));
    values.iter().map(number).collect()
}

fn dump(server: &Server) -> Result<Dump> {
    let node = server.address();
    let text = server
        .request("/db/backup?fmt=sql&noleader", None, READ_LIMIT)
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
        for response in [
            json!({"results": [{"error": "no such table: numbered"}]}),
            json!({"results": [], "error": "not leader"}),
            json!({"results": [{"columns": ["n"], "values": [["x"]]}]}),
        ] {
            assert!(numbers(&response).is_err(), "{response}");
        }
    }
}
