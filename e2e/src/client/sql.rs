//! SQL over the client: query results as JSON, and what a write's reply says about its effect.
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{Client, Failure, Reply};

/// What the sender of a write knows about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// It was executed and must never be lost; number of affected rows.
    Acknowledged(i64),
    /// It was not executed and never will be; the error.
    Refused(String),
    /// It may have been executed, or may be executed later; the error.
    Unknown(String),
}

/// Errors of requests that are rejected before a proposal to Raft.
const NEVER_PROPOSED: [&str; 6] = [
    "leader not found",
    "not leader",
    "store not open",
    "store not ready",
    "disallowed pragma",
    "stale read",
];
/// Prefixes of rejections that name a disk and its figures. They, too, precede a proposal.
const NEVER_PROPOSED_BEGINNINGS: [&str; 2] = ["disk full: ", "disk hangs: "];

/// Request body of one statement with its parameters.
#[must_use]
pub fn statement(sql: &str, parameters: &[Value]) -> String {
    let mut items = vec![Value::from(sql)];
    items.extend_from_slice(parameters);
    json!([items]).to_string()
}

/// What the reply to a write of one statement, or its absence, says about the write.
#[must_use]
pub fn classify(reply: &Result<Reply, Failure>) -> WriteOutcome {
    let reply = match reply {
        Ok(reply) => reply,
        Err(Failure::NotSent(error)) => return WriteOutcome::Refused(error.to_string()),
        Err(Failure::Broken(error)) => return WriteOutcome::Unknown(error.to_string()),
    };
    let text = format!("{} {}", reply.status, reply.text().trim_end());
    match reply.status {
        200 => classify_body(&reply.json(), text),
        400 | 401 | 404 | 405 => WriteOutcome::Refused(text),
        503 if text.contains("leader not found") => WriteOutcome::Refused(text),
        _ => WriteOutcome::Unknown(text),
    }
}

fn classify_body(body: &Value, text: String) -> WriteOutcome {
    if let Some(error) = body["error"].as_str() {
        let certain = NEVER_PROPOSED.contains(&error)
            || NEVER_PROPOSED_BEGINNINGS
                .iter()
                .any(|beginning| error.starts_with(beginning));
        return if certain {
            WriteOutcome::Refused(text)
        } else {
            WriteOutcome::Unknown(text)
        };
    }
    match &body["results"][0] {
        // A statement's own error is its committed result: SQLite rejected it.
        Value::Object(result) if result.contains_key("error") => WriteOutcome::Refused(text),
        Value::Object(result) => WriteOutcome::Acknowledged(
            result
                .get("rows_affected")
                .and_then(Value::as_i64)
                .unwrap_or_default(),
        ),
        _ => WriteOutcome::Unknown(text),
    }
}

impl Client {
    /// Sends one write and classifies its outcome.
    pub fn write(&mut self, sql: &str, parameters: &[Value]) -> WriteOutcome {
        classify(&self.post("/db/execute", &statement(sql, parameters)))
    }

    /// Sends one write that must succeed; returns the number of affected rows.
    ///
    /// # Errors
    /// If it was not acknowledged.
    pub fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<i64> {
        match self.write(sql, parameters) {
            WriteOutcome::Acknowledged(rows) => Ok(rows),
            other => bail!("{sql} at {}: {other:?}", self.addr()),
        }
    }

    /// Rows of one query at a read level.
    ///
    /// # Errors
    /// If there is no reply or it contains an error.
    pub fn rows(
        &mut self,
        level: &str,
        sql: &str,
        parameters: &[Value],
    ) -> Result<Vec<Vec<Value>>> {
        let reply = self.post(
            &format!("/db/query?level={level}"),
            &statement(sql, parameters),
        )?;
        let body = reply.json();
        let result = &body["results"][0];
        if reply.status != 200
            || !body["error"].is_null()
            || !result["error"].is_null()
            || !result.is_object()
        {
            bail!(
                "{sql} at {} ({level}): {} {}",
                self.addr(),
                reply.status,
                reply.text()
            );
        }
        let Some(rows) = result["values"].as_array() else {
            return Ok(Vec::new());
        };
        rows.iter()
            .map(|row| row.as_array().cloned().context("a row that is no array"))
            .collect()
    }

    /// The single value of a query, as an integer.
    ///
    /// # Errors
    /// If the query fails or returns anything else.
    pub fn number(&mut self, level: &str, sql: &str) -> Result<i64> {
        let rows = self.rows(level, sql, &[])?;
        rows.first()
            .and_then(|row| row.first())
            .and_then(Value::as_i64)
            .with_context(|| format!("{sql}: {rows:?}"))
    }

    /// Node id of the leader as this node knows it; `None` if it knows none.
    #[must_use]
    pub fn leader(&mut self) -> Option<String> {
        let status = self.get_json("/status?key=store.leader.node_id").ok()?;
        status
            .as_str()
            .filter(|id| !id.is_empty())
            .map(str::to_owned)
    }
}
