//! `auto_restore`: the restore with which a node began.
use serde::{Deserialize, Serialize};

/// `-auto-restore`, since the start of the process. Absent without the flag.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AutoRestoreStatus {
    /// `fetching`, `loading`, `restored`, `skipped` or `failed`: see the constants.
    pub state: String,
    /// What is restored, without secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Lineage of the archive's point.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lineage: Option<String>,
    /// The archive's index that was restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    /// Time of that entry, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// Size of the database file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Index in this cluster's own log from which on the data is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loaded_at_index: Option<u64>,
    /// Why it was skipped or failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl AutoRestoreStatus {
    /// The file is being fetched, or made from the archive.
    pub const FETCHING: &str = "fetching";
    /// The file is there, and waits for this node to lead, or is being loaded.
    pub const LOADING: &str = "loading";
    /// The cluster has the data.
    pub const RESTORED: &str = "restored";
    /// There was data already, or another node has brought it.
    pub const SKIPPED: &str = "skipped";
    /// It failed, and the node began without, as `continue_on_failure` asks.
    pub const FAILED: &str = "failed";

    /// Is the cluster's data there, whoever brought it?
    pub fn is_done(&self) -> bool {
        self.state == Self::RESTORED || self.state == Self::SKIPPED
    }
}
