//! SQL over the client: rows as JSON, and for writes what their caller may conclude.
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{Client, Failure, Reply};

/// What the sender of a write knows about it afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done and must never be lost; how many rows it affected.
    Acknowledged(i64),
    /// It was certainly not done, and never will be.
    Refused(String),
    /// It may have been done, or may be done later.
    Unknown(String),
}

/// Request errors that are decided before anything is proposed.
const NEVER_PROPOSED: [&str; 6] = [
    "leader not found",
    "not leader",
    "store not open",
    "store not ready",
    "disallowed pragma",
    "stale read",
];
/// How refusals begin that name a disk and its figures; they are decided before anything is proposed, too.
const NEVER_PROPOSED_BEGINNINGS: [&str; 2] = ["disk full: ", "disk hangs: "];

/// One statement with its parameters as a request body.
#[must_use]
pub fn statement(sql: &str, parameters: &[Value]) -> String {
    let mut words = vec![Value::from(sql)];
    words.extend_from_slice(parameters);
    json!([words]).to_string()
}

/// What a reply to a write of one statement (or its absence) means.
#[must_use]
pub fn classify(reply: &Result<Reply, Failure>) -> Outcome {
    let reply = match reply {
        Ok(reply) => reply,
        Err(Failure::NotSent(error)) => return Outcome::Refused(error.to_string()),
        Err(Failure::Broken(error)) => return Outcome::Unknown(error.to_string()),
    };
    let text = format!("{} {}", reply.status, reply.text().trim_end());
    match reply.status {
        200 => classify_body(&reply.json(), text),
        400 | 401 | 404 | 405 => Outcome::Refused(text),
        503 if text.contains("leader not found") => Outcome::Refused(text),
        _ => Outcome::Unknown(text),
    }
}

fn classify_body(body: &Value, text: String) -> Outcome {
    if let Some(error) = body["error"].as_str() {
        let certain = NEVER_PROPOSED.contains(&error)
            || NEVER_PROPOSED_BEGINNINGS
                .iter()
                .any(|beginning| error.starts_with(beginning));
        return if certain {
            Outcome::Refused(text)
        } else {
            Outcome::Unknown(text)
        };
    }
    match &body["results"][0] {
        // A statement's error is its committed result: SQLite refused it.
        Value::Object(result) if result.contains_key("error") => Outcome::Refused(text),
        Value::Object(result) => Outcome::Acknowledged(
            result
                .get("rows_affected")
                .and_then(Value::as_i64)
                .unwrap_or_default(),
        ),
        _ => Outcome::Unknown(text),
    }
}

impl Client {
    /// Sends one write and says what became of it.
    pub fn write(&mut self, sql: &str, parameters: &[Value]) -> Outcome {
        classify(&self.post("/db/execute", &statement(sql, parameters)))
    }

    /// Sends one write that must succeed.
    ///
    /// # Errors
    /// When it was not acknowledged.
    pub fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<i64> {
        match self.write(sql, parameters) {
            Outcome::Acknowledged(rows) => Ok(rows),
            other => bail!("{sql} at {}: {other:?}", self.addr()),
        }
    }

    /// Rows of one query at a read level.
    ///
    /// # Errors
    /// When there is no reply or it carries an error.
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
    /// When the query fails or gives something else.
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
