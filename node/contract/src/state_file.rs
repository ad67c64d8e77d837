//! The state file: from it `rqlited prepare` learns what a data directory may become. The operator writes it
//! into a ConfigMap, so that a change of it does not change the pods' template.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Lineage, directory_name_rule, is_directory_name, parked::ParkedPolicy};

/// Name of the file: the key in its ConfigMap, and the file's name in the pod.
pub const STATE_FILE: &str = "state.json";

/// Phase of a cluster's life. A reader refuses other values: what a data directory may become depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FormingPhase {
    /// The cluster has not formed yet: listed members with empty data directories may form it.
    Forming,
    /// The cluster has formed: a node with an empty data directory can only join.
    Formed,
    /// A quorum was lost and a plan is being followed: no node runs but those that follow it.
    Recovering,
}

/// The content of the state file. Unknown fields are ignored, so that an operator may be newer than its
/// nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateFile {
    /// Id of the cluster, drawn by the operator. The node of a data directory with another id does not start,
    /// and the directory is not changed.
    pub cluster_id: String,
    /// The lineage that members share.
    pub lineage: Lineage,
    /// Phase of the cluster.
    pub phase: FormingPhase,
    /// Names of the nodes that the operator expects. Only these may form the cluster.
    #[serde(default)]
    pub members: Vec<String>,
    /// Number of nodes with which the cluster forms. Read by the operator alone.
    #[serde(default)]
    pub expect: i32,
    /// From a node's name to a token: the node's data belongs to a member that was removed, and is parked
    /// before the node starts. The node records the token in its data directory, so that it parks once for
    /// each token.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub park: BTreeMap<String, String>,
    /// Which parked copies nodes keep. Without it, they follow their own flags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked: Option<ParkedPolicy>,
}

impl StateFile {
    /// The token under which a node's data is to be parked, if it is.
    ///
    /// # Errors
    /// The token cannot be a directory's name.
    pub fn parking_token(&self, node: &str) -> Result<Option<&String>, String> {
        match self.park.get(node) {
            Some(token) if !is_directory_name(token) => {
                Err(format!("park: {token:?} is not {}", directory_name_rule()))
            }
            token => Ok(token),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_checked() {
        let state = |park: &str| -> StateFile {
            let text = format!(
                r#"{{"cluster_id":"c","lineage":{{"id":"l","epoch":0}},"phase":"Formed","park":{park}}}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        let fine = state(r#"{"a":"uid-1700000000"}"#);
        let token = "uid-1700000000".to_owned();
        assert_eq!(fine.parking_token("a"), Ok(Some(&token)));
        assert_eq!(fine.parking_token("b"), Ok(None));
        for bad in ["", "../x", ".x", "a/b"] {
            let state = state(&format!(r#"{{"a":"{bad}"}}"#));
            assert!(state.parking_token("a").is_err(), "{bad}");
        }
    }

    #[test]
    fn the_files_bytes_are_those_on_record() {
        let golden = include_str!("../tests/golden/state.json");
        let state: StateFile = serde_json::from_str(golden).unwrap();
        assert_eq!(serde_json::to_string_pretty(&state).unwrap(), golden);
        assert_eq!(state.phase, FormingPhase::Formed);
        assert_eq!(state.expect, 3);
        assert_eq!(state.park.len(), 1);
    }

    #[test]
    fn newer_fields_are_ignored_and_newer_phases_refused() {
        let read = |phase: &str| {
            serde_json::from_str::<StateFile>(&format!(
                r#"{{"cluster_id":"c","lineage":{{"id":"l","epoch":0,"x":1}},"phase":"{phase}","surprise":1}}"#
            ))
        };
        let state = read("Forming").unwrap();
        assert!(state.members.is_empty() && state.park.is_empty());
        assert!(read("Sleeping").is_err());
    }
}
