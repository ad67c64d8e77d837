//! `/archive/restore`: the request for a restore in place, and its state.
use serde::{Deserialize, Serialize};

/// Body of `POST /archive/restore`. Unknown fields are refused: a restore must be understood completely.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RestoreRequest {
    /// Chosen by the caller. A restore that was started with this id is not started again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The state after this index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_index: Option<u64>,
    /// The last state at this time, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_time: Option<String>,
    /// Id of the lineage of the point; needed only if it is ambiguous.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lineage: Option<String>,
    /// The restore is refused if an entry after this index may have changed the database. Pass the end that a
    /// dry run found (`undone_to`), so that no write is undone that was not shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect_index: Option<u64>,
    /// Only find the point, and what would be undone.
    pub dry_run: bool,
    /// The cluster's id, as confirmation that the whole database is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirm: Option<String>,
}

/// The running restore, or the last one since the start: the reply of `POST` and `GET /archive/restore`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RestoreState {
    /// The id that its caller chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The node whose restore this is: the leader that replied. Each node knows only those that it ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_id: Option<String>,
    /// One of the constants below; later nodes may have more.
    pub state: String,
    /// It is a dry run, which changes nothing.
    pub dry_run: bool,
    /// Lineage of the point.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lineage: Option<String>,
    /// The index whose state is restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    /// Time of that entry, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// First index that is undone; none if nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undone_from: Option<u64>,
    /// Last index that is undone; before the load, as of the last check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undone_to: Option<u64>,
    /// Number of entries that are undone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undone_entries: Option<u64>,
    /// Seconds from the restored entry to the newest one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undone_seconds: Option<u64>,
    /// Progress in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<u64>,
    /// Index of the replaced state, which is archived and can be restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub safety_index: Option<u64>,
    /// Index of the entry with which the restored state took effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restored_at_index: Option<u64>,
    /// When it began, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// When it ended, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// What it does, or why it failed.
    pub message: String,
}

impl RestoreState {
    /// There was no restore since the start.
    pub const NONE: &str = "none";
    /// It is running.
    pub const RUNNING: &str = "running";
    /// Done; a dry run: the point was found.
    pub const DONE: &str = "done";
    /// It failed, and the database is unchanged.
    pub const FAILED: &str = "failed";
    /// It ended, and may have taken effect or not.
    pub const UNKNOWN: &str = "unknown";

    /// Has it ended?
    pub fn is_over(&self) -> bool {
        [Self::DONE, Self::FAILED, Self::UNKNOWN].contains(&self.state.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_on_record() {
        let golden = r#"{"id":"u","to_index":7,"dry_run":false,"confirm":"c"}"#;
        let request: RestoreRequest = serde_json::from_str(golden).unwrap();
        assert_eq!(serde_json::to_string(&request).unwrap(), golden);
        assert!(serde_json::from_str::<RestoreRequest>(r#"{"to_indx":7}"#).is_err());
        let golden = r#"{"id":"u","state":"done","dry_run":true,"index":7,"undone_entries":3,"undone_seconds":2,"message":""}"#;
        let state: RestoreState = serde_json::from_str(golden).unwrap();
        assert_eq!(serde_json::to_string(&state).unwrap(), golden);
        assert!(state.is_over());
        let newer: RestoreState = serde_json::from_str(r#"{"state":"paused","x":1}"#).unwrap();
        assert!(!newer.is_over());
    }
}
