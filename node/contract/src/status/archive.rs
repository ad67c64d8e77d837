//! `archive`: the progress of the continuous archive.
use serde::{Deserialize, Serialize};

use crate::RestoreState;

/// The archive, as this node knows it. All fields may be absent; a follower has what the leader last
/// reported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ArchiveStatus {
    /// Whether an archive is configured.
    pub enabled: bool,
    /// Where it is, without secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Id of the lineage that is archived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lineage: Option<String>,
    /// Newest archived index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archived_index: Option<u64>,
    /// Time of that entry, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archived_time: Option<String>,
    /// Until when entries get this time instead of their own, RFC 3339: times in an archive never decrease,
    /// and an earlier entry is more than a minute ahead of the clock. Absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times_held_until: Option<String>,
    /// Age in seconds of the oldest entry that is not archived; 0 if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind_seconds: Option<u64>,
    /// Number of committed entries that are not archived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind_entries: Option<u64>,
    /// When a segment was last sealed, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_segment_at: Option<String>,
    /// The newest base.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_base: Option<ArchiveBase>,
    /// Why the last attempt failed; absent once one has succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Bytes of the log that are kept for the archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_held_bytes: Option<u64>,
    /// Entries that were never archived and no longer can be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap: Option<ArchiveGap>,
    /// The restore that runs, or the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore: Option<RestoreState>,
}

/// A base of an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ArchiveBase {
    /// Its index.
    pub index: u64,
    /// When it was made, RFC 3339.
    pub time: String,
    /// Its size in the store.
    pub bytes: u64,
}

/// Entries that were never archived and no longer can be: no state between them can be restored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ArchiveGap {
    /// First index that it lacks.
    pub first: u64,
    /// Last index that it lacks.
    pub last: u64,
    /// When it was noticed, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noticed: Option<String>,
}
