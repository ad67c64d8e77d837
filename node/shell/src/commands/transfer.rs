//! Whole databases: `.backup` and `.dump` save one, `.restore` and `.boot` load one. All are streamed.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use ureq::http::{Method, StatusCode};

use super::session::{Done, Session, encode, error_text, print, refusal};
use crate::client::{Call, Limit, Payload, Response};
use crate::reply::{self, StatementResult};

/// First bytes of every SQLite file.
const SQLITE_HEADER: &[u8] = b"SQLite format 3\0";

/// Appended to SQL text, because a dump begins by switching foreign keys off and does not switch them back.
/// The line feed comes first in case the text ends in a comment.
const FOREIGN_KEYS_OFF: &[u8] = b"\nPRAGMA foreign_keys=OFF;";
const FOREIGN_KEYS_ON: &[u8] = b"\nPRAGMA foreign_keys=ON;";

/// `.backup`
pub(super) fn backup(session: &mut Session<'_>, file: &str) -> Result<Done> {
    let response = session.request(&Call::get("db/backup").limited(Limit::Response))?;
    save(response, Path::new(file))?;
    print(session, "backup file written successfully")
}

/// `.dump`
pub(super) fn dump(session: &mut Session<'_>, file: &str, tables: Option<&str>) -> Result<Done> {
    let tables = tables
        .map(|tables| format!("&tables={}", encode(tables)))
        .unwrap_or_default();
    let response = session
        .request(&Call::get(format!("db/backup?fmt=sql{tables}")).limited(Limit::Response))?;
    save(response, Path::new(file))?;
    print(session, "SQL text file written successfully")
}

/// `.restore`
pub(super) fn restore(session: &mut Session<'_>, file: &str) -> Result<Done> {
    let path = regular_file(file)?;
    let binary = starts_with(&path, &SQLITE_HEADER[..13])?;
    let tail: &'static [u8] = match binary {
        true => &[],
        false if foreign_keys_wanted(session) => FOREIGN_KEYS_ON,
        false => FOREIGN_KEYS_OFF,
    };
    let call = upload("db/load", path, tail);
    let bytes = session.request_bytes(&call)?;
    for result in reply::parse(&bytes).context("the server's response cannot be read")? {
        match result {
            StatementResult::Error(text) => {
                session.complain("Error:", &text)?;
                return Ok(Done::Failed);
            }
            StatementResult::Write {
                last_insert_id,
                rows_affected,
                ..
            } if !binary => {
                writeln!(session.screen(), "last inserted ID: {last_insert_id}")?;
                writeln!(session.screen(), "rows affected: {rows_affected}")?;
            }
            StatementResult::Write { .. } | StatementResult::Rows(..) => {}
        }
    }
    print(session, "Database restored successfully.")
}

/// `.boot`
pub(super) fn boot(session: &mut Session<'_>, file: &str) -> Result<Done> {
    let path = regular_file(file)?;
    if !starts_with(&path, SQLITE_HEADER)? {
        bail!("{file} is not a valid SQLite file");
    }
    let response = session.client.send(&upload("boot", path, &[]))?;
    match response.status() {
        StatusCode::OK => print(session, "Node booted successfully."),
        StatusCode::UNAUTHORIZED => refusal(response),
        status => match error_text(response) {
            Some(reason) => bail!("boot failed, status code: {status}: {reason}"),
            None => bail!("boot failed, status code: {status}"),
        },
    }
}

/// The time that a load takes depends on the file's size, so only connecting has a timeout.
fn upload(path: &str, file: PathBuf, tail: &'static [u8]) -> Call {
    let payload = Payload::File(file, tail);
    Call {
        method: Method::POST,
        path: path.to_owned(),
        payload,
        limit: Limit::Connect,
    }
}

/// Whether the node enforces foreign keys. False if its status is not available.
fn foreign_keys_wanted(session: &mut Session<'_>) -> bool {
    let status = session
        .request_json(&Call::get("status"))
        .unwrap_or_default();
    match &status["store"]["db_conf"]["fk_constraints"] {
        Value::Bool(on) => *on,
        Value::String(text) => text == "enabled" || text == "true",
        _ => false,
    }
}

/// A file whose length is known before it is read.
fn regular_file(file: &str) -> Result<PathBuf> {
    let metadata = std::fs::metadata(file).with_context(|| file.to_owned())?;
    if !metadata.is_file() {
        bail!("{file} is not a regular file");
    }
    Ok(PathBuf::from(file))
}

fn starts_with(path: &Path, expected: &[u8]) -> Result<bool> {
    let name = || path.display().to_string();
    let mut start = Vec::new();
    File::open(path)
        .with_context(name)?
        .take(expected.len() as u64)
        .read_to_end(&mut start)
        .with_context(name)?;
    Ok(start == expected)
}

/// Streams a body into a file. The file appears, or replaces an older one, only when it is complete; a pipe
/// or device is written directly.
fn save(response: Response, path: &Path) -> Result<()> {
    let name = || path.display().to_string();
    let mut body = response.into_body().into_reader();
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        io::copy(&mut body, &mut File::create(path).with_context(name)?).with_context(name)?;
        return Ok(());
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let written = File::create(&partial).and_then(|mut file| {
        io::copy(&mut body, &mut file)?;
        file.sync_all()?;
        std::fs::rename(&partial, path)
    });
    if written.is_err() {
        // The first error is the one to report.
        let _ = std::fs::remove_file(&partial);
    }
    written.with_context(name)
}
