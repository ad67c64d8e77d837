//! SQL: plain statements, `.read`, and the catalog commands.

use std::fs::File;
use std::io::{BufRead, BufReader};

use anyhow::{Context, Result};

use super::session::{Done, Session, encode};
use crate::client::Call;
use crate::input;
use crate::reply::{self, StatementResult};

pub(super) const TABLES: &str = "SELECT name FROM sqlite_master WHERE type='table' ORDER BY name";
pub(super) const INDEXES: &str = "SELECT sql FROM sqlite_master WHERE type='index'";
pub(super) const SCHEMA: &str =
    "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid";

/// Sends one statement and prints its result.
pub(super) fn run(session: &mut Session<'_>, sql: &str) -> Result<Done> {
    let endpoint = if session.settings.force_writes {
        "db/execute"
    } else {
        "db/request"
    };
    let path = with_options(session, endpoint, &[]);
    let body = serde_json::to_string(&[sql])?;
    show(session, &Call::post_json(path, body))
}

/// Sends every line of a file that is neither blank nor a comment. Lines are statements; commands are not
/// run.
pub(super) fn read_file(session: &mut Session<'_>, file: &str) -> Result<Done> {
    let reader = BufReader::new(File::open(file).with_context(|| file.to_owned())?);
    let mut done = Done::Well;
    for (number, line) in reader.split(b'\n').enumerate() {
        let line = match input::text(line.with_context(|| file.to_owned())?) {
            Ok(line) => line,
            Err(error) => {
                session.complain("ERR!", &format!("{file}, line {}: {error}", number + 1))?;
                done = Done::Failed;
                continue;
            }
        };
        let statement = line.trim();
        if !statement.is_empty()
            && !statement.starts_with("--")
            && run(session, statement)? == Done::Failed
        {
            done = Done::Failed;
        }
    }
    Ok(done)
}

/// Runs one of the queries above at the chosen consistency level.
pub(super) fn catalog(session: &mut Session<'_>, sql: &str) -> Result<Done> {
    let level = format!("level={}", session.settings.consistency.as_str());
    let path = with_options(session, "db/query", &[level, format!("q={}", encode(sql))]);
    show(session, &Call::get(path))
}

fn with_options(session: &Session<'_>, endpoint: &str, more: &[String]) -> String {
    let settings = &session.settings;
    let flags = [
        (settings.timer, "timings"),
        (settings.blob_array, "blob_array"),
    ];
    let mut options: Vec<&str> = flags
        .iter()
        .filter(|(on, _)| *on)
        .map(|(_, name)| *name)
        .collect();
    options.extend(more.iter().map(String::as_str));
    if options.is_empty() {
        endpoint.to_owned()
    } else {
        format!("{endpoint}?{}", options.join("&"))
    }
}

fn show(session: &mut Session<'_>, call: &Call) -> Result<Done> {
    let bytes = session.request_bytes(call)?;
    let results = reply::parse(&bytes).context("the server's response cannot be read")?;
    let mut done = Done::Well;
    for result in results {
        match result {
            StatementResult::Error(text) => {
                session.complain("Error:", &text)?;
                done = Done::Failed;
            }
            StatementResult::Rows(table, time) => {
                let mode = session.settings.mode;
                table.write(mode, session.output())?;
                if let Some(seconds) = time.filter(|_| session.settings.timer) {
                    writeln!(session.output(), "Run Time: {seconds:.6} seconds")?;
                }
            }
            StatementResult::Write {
                last_insert_id,
                rows_affected,
                time,
            } => {
                let changes = session.settings.changes;
                let timer = time.filter(|_| session.settings.timer);
                let out = session.output();
                write!(
                    out,
                    "{rows_affected} row{} affected",
                    if rows_affected > 1 { "s" } else { "" }
                )?;
                if let Some(seconds) = timer {
                    write!(out, " ({seconds:.6} sec)")?;
                }
                writeln!(out)?;
                if changes {
                    writeln!(out, "last insert ID: {last_insert_id}")?;
                }
            }
        }
    }
    Ok(done)
}
