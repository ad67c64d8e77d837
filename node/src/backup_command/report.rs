//! The results of `rqlited backup` and `rqlited fetch` as JSON.
use std::path::Path;

use serde::Serialize;

use crate::inspect::CommandOutput;

/// The result of a backup or a fetch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Report {
    /// The object's whole name.
    pub(super) object: String,
    /// The store.
    pub(super) target: String,
    /// The node that the backup came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<String>,
    /// The file that was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<String>,
    /// Raft index of an entry that the backup contains with all before it. `None` if the node did not report
    /// it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) index: Option<u64>,
    /// Length of the database file in bytes.
    pub(super) bytes: u64,
    /// Length of the object in bytes.
    pub(super) stored_bytes: u64,
    /// SHA-256 of the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stored_sha256: Option<String>,
    pub(super) compressed: bool,
    /// SHA-256 of the database file.
    pub(super) sha256: String,
    /// Result of `PRAGMA integrity_check`: `ok`.
    pub(super) integrity: String,
    /// When it began, as RFC 3339.
    pub(super) started: String,
    pub(super) seconds: f64,
    /// Version of this program.
    pub(super) program: String,
}

/// The result of a deletion.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Deleted {
    /// The object's whole name.
    pub(super) object: String,
    /// The store.
    pub(super) target: String,
    /// The object no longer exists.
    pub(super) deleted: bool,
    /// The object existed.
    pub(super) existed: bool,
    /// What was deleted beside it.
    pub(super) beside: Vec<String>,
    /// When it began, as RFC 3339.
    pub(super) started: String,
    pub(super) seconds: f64,
    /// Version of this program.
    pub(super) program: String,
}

#[derive(Serialize)]
struct Failed<'a> {
    error: &'a str,
}

/// An object's whole name.
pub(super) fn joined(folder: &str, name: &str) -> String {
    match folder {
        "" => name.to_owned(),
        folder => format!("{folder}/{name}"),
    }
}

/// The output, which is also written to the result file; after a failure `{"error": …}`.
pub(super) fn finished(
    result: Result<impl Serialize, String>,
    result_file: Option<&Path>,
) -> CommandOutput {
    let json = match &result {
        Ok(report) => serde_json::to_string(report),
        Err(error) => serde_json::to_string(&Failed { error }),
    };
    let json = json.unwrap_or_default();
    let written = result_file.map(|path| {
        std::fs::write(path, &json).map_err(|e| format!("-result-file {}: {e}", path.display()))
    });
    match (result, written.transpose()) {
        (Ok(_), Ok(_)) => CommandOutput {
            exit_code: 0,
            text: json,
            is_error: false,
        },
        (Err(why), _) | (Ok(_), Err(why)) => CommandOutput {
            exit_code: 1,
            text: format!("fatal: {why}"),
            is_error: true,
        },
    }
}
