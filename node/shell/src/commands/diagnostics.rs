//! Status and metrics of nodes.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use anyhow::{Context, Result};
use serde_json::Value;

use super::session::{Done, Session, body, encode, print};
use crate::client::{Call, Client};
use crate::tree;

/// The documents of one node in a `.sysdump`.
const DOCUMENTS: [&str; 4] = [
    "status?pretty",
    "nodes?nonvoters&pretty",
    "readyz",
    "debug/vars",
];

/// `.status` and `.expvar`
pub(super) fn tree_of(session: &mut Session<'_>, path: &str, key: Option<&str>) -> Result<Done> {
    let query = key
        .map(|key| format!("?key={}", encode(key)))
        .unwrap_or_default();
    let document = session.request_json(&Call::get(format!("{path}{query}")))?;
    tree::write(&document, session.screen())?;
    Ok(Done::Well)
}

/// `.extensions`
pub(super) fn extensions(session: &mut Session<'_>) -> Result<Done> {
    let status = session.request_json(&Call::get("status"))?;
    for name in extension_names(&status["extensions"]) {
        print(session, &name)?;
    }
    Ok(Done::Well)
}

/// Names from a list, from an object that holds such a list as `names`, or the keys of any other object.
fn extension_names(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        Value::Object(map) => match map.get("names") {
            Some(names) => extension_names(names),
            None => map.keys().cloned().collect(),
        },
        _ => Vec::new(),
    }
}

/// `.sysdump`: queries every node directly; a node that does not respond is noted in the file and is no
/// failure.
pub(super) fn sysdump(session: &mut Session<'_>, file: &str) -> Result<Done> {
    let members = session.request_json(&Call::get("nodes?nonvoters"))?;
    let members = members
        .as_object()
        .context("the server's list of nodes is not an object")?;
    let mut out = BufWriter::new(File::create(file).with_context(|| file.to_owned())?);
    for (id, member) in members {
        match member["api_addr"].as_str().filter(|url| !url.is_empty()) {
            Some(url) => dump_node(&session.client, id, url, &mut out),
            None => writeln!(
                out,
                "==== node {id}\nHTTP address unknown: {}\n",
                member["error"]
            ),
        }
        .with_context(|| file.to_owned())?;
    }
    out.flush().with_context(|| file.to_owned())?;
    Ok(Done::Well)
}

fn dump_node(client: &Client, id: &str, url: &str, out: &mut dyn Write) -> io::Result<()> {
    for path in DOCUMENTS {
        let url = format!("{}{}{path}", url.trim_end_matches('/'), client.prefix());
        writeln!(out, "==== node {id}: GET {url}")?;
        let response = client.fetch(&url).map_err(anyhow::Error::from);
        match response.and_then(|response| Ok((response.status(), body(response)?))) {
            Ok((status, bytes)) => {
                writeln!(out, "{status}")?;
                out.write_all(&bytes)?;
                writeln!(out, "\n")?;
            }
            Err(error) => writeln!(out, "failed: {error:#}\n")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn extension_names_come_in_several_shapes() {
        for (value, names) in [
            (json!(["a", "b"]), vec!["a", "b"]),
            (json!({"names": ["a"]}), vec!["a"]),
            (json!({"a": {}, "b": {}}), vec!["a", "b"]),
            (json!(null), vec![]),
        ] {
            assert_eq!(extension_names(&value), names, "{value}");
        }
    }
}
