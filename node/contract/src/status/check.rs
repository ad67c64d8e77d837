//! A check of the database in the background: its request and its report.
use serde::{Deserialize, Serialize};

/// Longest id of a check, in bytes.
const MAX_ID_BYTES: usize = 128;

/// Body of `POST /db/check`, which starts a check, and of `DELETE /db/check`, which ends it. Unknown fields
/// are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRequest {
    /// Chosen by the caller. A check that was started with this id is not started again, so the request can
    /// be repeated, and no older result is taken for the answer.
    pub id: String,
    /// The check ends after this time. Defaults to a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_seconds: Option<u64>,
}

impl CheckRequest {
    /// Whether the id may be used.
    pub fn is_valid(&self) -> bool {
        (1..=MAX_ID_BYTES).contains(&self.id.len()) && !self.id.chars().any(char::is_control)
    }
}

/// The check that runs, or the last one since the start: `store.check` of `/status`, and the reply of
/// `/db/check`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckStatus {
    /// The id that its caller chose.
    pub id: String,
    /// One of the constants below; later nodes may have more.
    pub state: String,
    /// When it was started, RFC 3339.
    pub started: String,
    /// How long it has run or ran.
    pub elapsed_seconds: u64,
    /// When it ends without a result.
    pub limit_seconds: u64,
    /// Pages of the database when it was started.
    pub pages: u64,
    /// Bytes of a page.
    pub page_bytes: u64,
    /// Pages read so far: each page is read once or, if it belongs to a table, twice.
    pub pages_read: u64,
    /// What was found, or why it ended without a result; empty otherwise.
    pub message: String,
}

impl CheckStatus {
    /// It runs.
    pub const RUNNING: &str = "running";
    /// No problem was found.
    pub const SOUND: &str = "sound";
    /// The database is damaged.
    pub const DAMAGED: &str = "damaged";
    /// It did not finish within its limit.
    pub const TIMED_OUT: &str = "timed_out";
    /// It was cancelled.
    pub const CANCELLED: &str = "cancelled";
    /// It had to end, and nothing is known; it can be started again, also under the same id.
    pub const INTERRUPTED: &str = "interrupted";

    /// How much of the reading is done, in percent: at least this much, because some pages need not be read
    /// twice.
    pub fn percent(&self) -> u64 {
        match self.state.as_str() {
            Self::SOUND | Self::DAMAGED => 100,
            _ => (self.pages_read * 50)
                .checked_div(self.pages)
                .unwrap_or(0)
                .min(99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_on_record() {
        let golden = r#"{"id":"recovery-u-inspect","state":"running","started":"2026-01-01T00:00:00Z","elapsed_seconds":7,"limit_seconds":600,"pages":1000,"page_bytes":4096,"pages_read":860,"message":""}"#;
        let check: CheckStatus = serde_json::from_str(golden).unwrap();
        assert_eq!(serde_json::to_string(&check).unwrap(), golden);
        assert_eq!(check.percent(), 43);
        let newer: CheckStatus = serde_json::from_str(r#"{"state":"paused","x":1}"#).unwrap();
        assert_eq!((newer.state.as_str(), newer.percent()), ("paused", 0));
        let request = r#"{"id":"a","limit_seconds":5}"#;
        let read: CheckRequest = serde_json::from_str(request).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), request);
        assert!(read.is_valid());
        for bad in [String::new(), "a\nb".to_owned(), "x".repeat(129)] {
            let limit_seconds = None;
            assert!(
                !CheckRequest {
                    id: bad,
                    limit_seconds
                }
                .is_valid()
            );
        }
    }

    #[test]
    fn percent() {
        let cases = [
            (CheckStatus::RUNNING, 0, 0, 0),
            (CheckStatus::RUNNING, 10, 10, 50),
            (CheckStatus::RUNNING, 10, 30, 99),
            (CheckStatus::SOUND, 10, 12, 100),
        ];
        for (state, pages, pages_read, percent) in cases {
            let check = CheckStatus {
                state: state.to_owned(),
                pages,
                pages_read,
                ..CheckStatus::default()
            };
            assert_eq!(check.percent(), percent, "{check:?}");
        }
    }
}
