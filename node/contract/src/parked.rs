//! Parked copies of data: how many a node keeps, and what it reports about them.
use serde::{Deserialize, Serialize};

/// Which parked copies are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ParkedPolicy {
    /// Number of copies that are kept, the newest ones.
    pub keep: u32,
    /// Older copies are deleted; 0 means never.
    pub max_age_seconds: u64,
}

impl Default for ParkedPolicy {
    /// Two, so that the one before the last is there if the last was a mistake; two weeks, in which a person
    /// notices.
    fn default() -> Self {
        Self {
            keep: 2,
            max_age_seconds: 14 * 24 * 3600,
        }
    }
}

/// `store.parked` of `/status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ParkedStatus {
    /// The copies, the newest first.
    pub copies: Vec<ParkedCopy>,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Which are kept.
    pub policy: ParkedPolicy,
}

/// One parked copy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ParkedCopy {
    /// Name of its directory below `parked`.
    pub name: String,
    /// Its bytes.
    pub bytes: u64,
    /// When it was parked, RFC 3339.
    pub parked_at: String,
    /// It may hold acknowledged writes that a recovery has lost: no rule deletes it, only a person.
    pub may_hold_lost_writes: bool,
}

/// `store.disk` of `/status`: the file system of the data directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskStatus {
    /// Bytes that are free for the node.
    pub free_bytes: u64,
    /// Its size.
    pub total_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_on_record() {
        let golden = r#"{"copies":[{"name":"copy-7","bytes":9,"parked_at":"2026-01-01T00:00:00Z","may_hold_lost_writes":false}],"bytes":9,"policy":{"keep":2,"max_age_seconds":1209600}}"#;
        let parked: ParkedStatus = serde_json::from_str(golden).unwrap();
        assert_eq!(serde_json::to_string(&parked).unwrap(), golden);
        assert_eq!(parked.policy, ParkedPolicy::default());
        let newer: ParkedPolicy = serde_json::from_str(r#"{"keep":5,"x":1}"#).unwrap();
        assert_eq!((newer.keep, newer.max_age_seconds), (5, 1_209_600));
    }
}
