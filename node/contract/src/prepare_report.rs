//! The report of `rqlited prepare`, which the operator reads as the termination message of an init container.
use serde::{Deserialize, Serialize};

use crate::{Lineage, LogPosition};

/// The report. New fields are only appended; unknown fields are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareReport {
    /// `Ready`, `Held`, `Foreign`, `StaleLineage`, `UnknownLineage`, `NewerFormat`, `Damaged` or `Refused`;
    /// later nodes may have more. Only after `Ready` may the node start.
    pub state: String,
    /// The change that was made: `none`, `created`, `recovered` or `parked`.
    #[serde(default)]
    pub action: String,
    /// Name of the node whose data it is (`-node-id`).
    pub name: Option<String>,
    /// `<name>#<incarnation>`.
    pub raft_id: Option<String>,
    /// Incarnation of the data directory.
    pub incarnation: Option<String>,
    /// Cluster that the data belongs to.
    pub cluster_id: Option<String>,
    /// Lineage of the data.
    pub lineage: Option<Lineage>,
    /// Last log entry.
    pub last_log: Option<LogPosition>,
    /// Why the node must not start; empty if it may.
    #[serde(default)]
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reports_bytes_are_those_on_record() {
        let golden = r#"{"state":"Ready","action":"created","name":"a","raft_id":"a#i","incarnation":"i","cluster_id":"c","lineage":{"id":"l","epoch":0},"last_log":null,"reason":""}"#;
        let report: PrepareReport = serde_json::from_str(golden).unwrap();
        assert_eq!(serde_json::to_string(&report).unwrap(), golden);
        let least: PrepareReport = serde_json::from_str(r#"{"state":"Newer","x":1}"#).unwrap();
        assert_eq!((least.state.as_str(), least.name), ("Newer", None));
    }
}
