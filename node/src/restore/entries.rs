//! Archived entries as texts for people: their statements, and what they did.
use node_archive::{
    moment::Moment,
    record::{Kind, Record},
};
use node_db::{LoadContent, Outcome, Request};
use node_values::{StatementResult, Value};
use serde::Serialize;

use crate::command::{Command, Encoded};

/// Most characters of one statement in the table for people; JSON has the whole text.
const SHOWN_CHARS: usize = 200;

/// One entry.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shown {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Its time.
    pub time: Moment,
    /// What it is, for people.
    pub kind: String,
    /// Its statements.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub statements: Vec<ShownStatement>,
}

/// One statement of an entry.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ShownStatement {
    /// Its SQL text.
    pub sql: String,
    /// Its parameters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<serde_json::Value>,
    /// With `--effects`: number of rows that it changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows_affected: Option<i64>,
    /// With `--effects`: the error of a statement that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Describes an entry. An entry that this version cannot decode is described as such.
pub fn describe(record: &Record) -> Shown {
    let (kind, statements) = match record.kind {
        Kind::Blank => ("an entry without content".to_owned(), Vec::new()),
        Kind::Membership => ("a change of the members".to_owned(), Vec::new()),
        Kind::Command => {
            let command = Encoded::from_bytes(record.content.clone()).take_command();
            match command {
                Ok(command) => of_command(&command),
                Err(e) => (e.to_string(), Vec::new()),
            }
        }
    };
    Shown {
        index: record.index,
        term: record.term,
        time: record.time,
        kind,
        statements,
    }
}

fn of_command(command: &Command) -> (String, Vec<ShownStatement>) {
    let requests = match command {
        Command::Requests(requests) => requests,
        Command::Bounded(batch) => &batch.requests,
        Command::Load(chunk) => {
            let what = match chunk.finish.as_ref().map(|finish| finish.content) {
                None => "a piece of a load".to_owned(),
                Some(LoadContent::File) => "a loaded database replaces everything".to_owned(),
                Some(_) => "a loaded script runs".to_owned(),
            };
            return (what, Vec::new());
        }
        Command::LoadAbort(_) => return ("the end of an abandoned load".into(), Vec::new()),
        Command::HashContent => return ("a comparison of the copies".into(), Vec::new()),
        Command::RaiseVersion(version) => {
            return (format!("the step to format version {version}"), Vec::new());
        }
    };
    let statements = requests.iter().flat_map(of_request).collect();
    ("statements".into(), statements)
}

fn of_request(request: &Request) -> impl Iterator<Item = ShownStatement> {
    request.statements.iter().map(|statement| ShownStatement {
        sql: statement.sql.clone(),
        parameters: statement
            .parameters
            .iter()
            .map(|parameter| json_of(&parameter.value))
            .collect(),
        ..ShownStatement::default()
    })
}

fn json_of(value: &Value) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Integer(value) => (*value).into(),
        Value::Real(value) => (*value).into(),
        Value::Text(value) => value.clone().into(),
        Value::Blob(value) => format!("({} bytes)", value.len()).into(),
    }
}

/// Adds what the statements did.
pub fn add_effects(shown: &mut Shown, outcomes: &[Outcome]) {
    if let [outcome] = outcomes
        && shown.statements.is_empty()
        && let Some(error) = &outcome.error
    {
        // A load that every node refused.
        shown.kind = format!("{}: {error}", shown.kind);
        return;
    }
    let results = outcomes.iter().flat_map(|outcome| &outcome.results);
    for (statement, result) in shown.statements.iter_mut().zip(results) {
        match result {
            StatementResult::Write(written) => {
                statement.rows_affected = Some(written.rows_affected)
            }
            StatementResult::Error(error) => statement.error = Some(error.clone()),
            StatementResult::Rows(_) => {}
        }
    }
}

impl Shown {
    /// Whether a text or parameter of its statements contains `needle`; case is ignored.
    pub fn contains(&self, needle: &str) -> bool {
        let needle = needle.to_lowercase();
        let has = |text: &str| text.to_lowercase().contains(&needle);
        has(&self.kind)
            || self.statements.iter().any(|statement| {
                has(&statement.sql)
                    || statement
                        .parameters
                        .iter()
                        .any(|value| value.as_str().map_or_else(|| has(&value.to_string()), has))
            })
    }

    /// Lines of a table for people.
    pub fn lines(&self) -> String {
        let head = format!("{:>10}  {}", self.index, self.time);
        if self.statements.is_empty() {
            return format!("{head}  ({})", self.kind);
        }
        let lines = self.statements.iter().map(|statement| {
            let mut text: String = statement.sql.chars().take(SHOWN_CHARS).collect();
            if text.len() < statement.sql.len() {
                text.push_str("...");
            }
            if !statement.parameters.is_empty() {
                let values: Vec<_> = statement
                    .parameters
                    .iter()
                    .map(ToString::to_string)
                    .collect();
                let values: String = values.join(", ").chars().take(SHOWN_CHARS).collect();
                text.push_str(&format!("  [{values}]"));
            }
            if let Some(rows) = statement.rows_affected {
                text.push_str(&format!("  -- {rows} rows"));
            }
            if let Some(error) = &statement.error {
                text.push_str(&format!("  -- error: {error}"));
            }
            format!("{head}  {text}")
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}
