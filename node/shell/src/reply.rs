//! Parses the reply to statements into [`StatementResult`]s. Without I/O.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::table::{Cell, Table};

/// The result of one statement.
#[derive(Debug, PartialEq)]
pub(crate) enum StatementResult {
    /// It returned columns. The time, in seconds, is there if requested.
    Rows(Table, Option<f64>),
    /// It returned no columns.
    Write {
        last_insert_id: i64,
        rows_affected: i64,
        time: Option<f64>,
    },
    /// It failed.
    Error(String),
}

#[derive(Deserialize)]
struct RawReply {
    #[serde(default)]
    results: Option<Vec<RawResult>>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct RawResult {
    columns: Option<Vec<String>>,
    #[serde(default)]
    values: Option<Vec<Vec<Box<RawValue>>>>,
    #[serde(default)]
    last_insert_id: i64,
    #[serde(default)]
    rows_affected: i64,
    error: Option<String>,
    time: Option<f64>,
}

/// Reads a reply of the data endpoints. An error of the whole request is an [`StatementResult::Error`] after
/// the results. Fails if the body is no such reply.
pub(crate) fn parse(body: &[u8]) -> Result<Vec<StatementResult>, serde_json::Error> {
    let reply: RawReply = serde_json::from_slice(body)?;
    let mut results = reply
        .results
        .unwrap_or_default()
        .into_iter()
        .map(result)
        .collect::<Result<Vec<_>, _>>()?;
    results.extend(reply.error.map(StatementResult::Error));
    Ok(results)
}

fn result(result: RawResult) -> Result<StatementResult, serde_json::Error> {
    if let Some(error) = result.error {
        return Ok(StatementResult::Error(error));
    }
    let Some(columns) = result.columns else {
        let RawResult {
            last_insert_id,
            rows_affected,
            time,
            ..
        } = result;
        return Ok(StatementResult::Write {
            last_insert_id,
            rows_affected,
            time,
        });
    };
    let values = result.values.unwrap_or_default();
    let rows = values
        .iter()
        .map(|row| {
            row.iter()
                .map(|value| cell(value))
                .collect::<Result<Vec<_>, _>>()
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(StatementResult::Rows(Table { columns, rows }, result.time))
}

fn cell(value: &RawValue) -> Result<Cell, serde_json::Error> {
    match value.get() {
        "null" => Ok(Cell::Null),
        text if text.starts_with('"') => serde_json::from_str(text).map(Cell::Text),
        literal => Ok(Cell::Literal(literal.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: Vec<StatementResult>) {
        assert_eq!(parse(body.as_bytes()).unwrap(), expected, "{body}");
    }

    fn error(text: &str) -> StatementResult {
        StatementResult::Error(text.to_owned())
    }

    #[test]
    fn every_kind_of_result() {
        check(r#"{"results":[]}"#, vec![]);
        check(
            r#"{"results":[{"last_insert_id":3,"rows_affected":1,"time":0.5}],"time":0.6}"#,
            vec![StatementResult::Write {
                last_insert_id: 3,
                rows_affected: 1,
                time: Some(0.5),
            }],
        );
        check(
            r#"{"results":[{}]}"#,
            vec![StatementResult::Write {
                last_insert_id: 0,
                rows_affected: 0,
                time: None,
            }],
        );
        check(
            r#"{"results":[{"error":"no such table: x"}]}"#,
            vec![error("no such table: x")],
        );
        check(
            r#"{"results":[],"error":"stale read"}"#,
            vec![error("stale read")],
        );
    }

    #[test]
    fn values_keep_their_digits_and_kinds() {
        let columns: Vec<String> = ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
        let row = vec![
            Cell::Literal("9223372036854775807".into()),
            Cell::Text("<x>".into()),
            Cell::Null,
            Cell::Literal("true".into()),
            Cell::Literal("[1,2]".into()),
        ];
        check(
            r#"{"results":[{"columns":["a","b","c","d","e"],"types":["integer","text","","boolean","blob"],
                "values":[[9223372036854775807,"\u003cx\u003e",null,true,[1,2]]]}]}"#,
            vec![StatementResult::Rows(
                Table {
                    columns: columns.clone(),
                    rows: vec![row],
                },
                None,
            )],
        );
        check(
            r#"{"results":[{"columns":["a"],"types":["integer"]}]}"#,
            vec![StatementResult::Rows(
                Table {
                    columns: vec!["a".into()],
                    rows: vec![],
                },
                None,
            )],
        );
    }

    #[test]
    fn other_documents_are_refused() {
        for body in ["", "[]", "leader not found\n", r#"{"results":3}"#] {
            assert!(parse(body.as_bytes()).is_err(), "{body}");
        }
    }
}
