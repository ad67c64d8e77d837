//! Shortening statements for display, and the log of slow statements.
use std::time::Duration;

use crate::types::Origin;

/// Bytes of a statement shown in lists and in the log.
const SHOWN_BYTES: usize = 500;

/// The beginning of a statement, on one line.
pub(crate) fn shortened(sql: &str) -> String {
    let end = sql.floor_char_boundary(SHOWN_BYTES);
    let (shown, rest) = sql.split_at(end);
    let line = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    if rest.trim().is_empty() {
        line
    } else {
        format!("{line} …")
    }
}

/// Logs a slow statement. `ended` says why it was stopped early, if it was.
pub(crate) fn log(kind: &str, sql: &str, took: Duration, origin: &Origin, ended: Option<&str>) {
    let client = origin.client.map(|client| client.to_string());
    let client = client.as_deref().unwrap_or("-");
    let user = origin.user.as_deref().unwrap_or("-");
    let seconds = took.as_secs_f64();
    let ended = ended.map(|why| format!(" ({why})")).unwrap_or_default();
    tracing::warn!(
        target: "slow-statement",
        "{kind} of {seconds:.3}s from client {client}, user {user}{ended}: {sql}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_shortened_to_one_line() {
        assert_eq!(shortened("SELECT 1\n  FROM t\t;"), "SELECT 1 FROM t ;");
        let long = format!("SELECT '{}'", "ä".repeat(SHOWN_BYTES));
        let shown = shortened(&long);
        assert!(
            shown.len() < SHOWN_BYTES + 5 && shown.ends_with("ä …"),
            "{shown}"
        );
    }
}
