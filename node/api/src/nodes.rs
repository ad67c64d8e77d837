//! Nodes as `/nodes` and `/leader` show them.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::json::to_go_json;

/// One node. Fields are in rqlite's order; some are omitted if empty, as in rqlite.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeInfo {
    /// Unique, permanent ID.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Full URL of its HTTP API, scheme included.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_addr: String,
    /// Raft address, `host:port`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub addr: String,
    /// Version of its program; empty if it is unreachable.
    pub version: String,
    /// It votes.
    pub voter: bool,
    /// It responded.
    pub reachable: bool,
    /// It is the leader.
    pub leader: bool,
    /// Seconds until it responded.
    #[serde(skip_serializing_if = "is_zero")]
    pub time: f64,
    /// The same for people, such as `334.866µs`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub time_s: String,
    /// Why it is unreachable.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(seconds: &f64) -> bool {
    *seconds == 0.0
}

/// The reply of `/nodes`; also its second form (`ver=2`) as a client reads it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodesReply {
    /// The nodes, sorted by ID in the second form.
    pub nodes: Vec<NodeInfo>,
}

impl NodesReply {
    /// Sorts the nodes by ID.
    pub fn new(mut nodes: Vec<NodeInfo>) -> Self {
        nodes.sort_by(|a, b| a.id.cmp(&b.id));
        Self { nodes }
    }

    /// The first form: an object keyed by node ID.
    ///
    /// # Errors
    /// None in practice: every field can be serialised.
    pub fn to_legacy_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let by_id: BTreeMap<&str, &NodeInfo> = self
            .nodes
            .iter()
            .map(|node| (node.id.as_str(), node))
            .collect();
        to_go_json(&by_id)
    }

    /// The second form: `{"nodes":[…]}`.
    ///
    /// # Errors
    /// None in practice: every field can be serialised.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        to_go_json(self)
    }

    /// Reads the first form.
    ///
    /// # Errors
    /// The bytes are not such an object.
    pub fn from_legacy_json(body: &[u8]) -> Result<Self, serde_json::Error> {
        let by_id: BTreeMap<String, NodeInfo> = serde_json::from_slice(body)?;
        let named = by_id.into_iter().map(|(id, node)| NodeInfo { id, ..node });
        Ok(Self {
            nodes: named.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reachable() -> NodeInfo {
        NodeInfo {
            id: "n1".to_owned(),
            api_addr: "http://localhost:4001".to_owned(),
            addr: "localhost:4002".to_owned(),
            version: "v10".to_owned(),
            voter: true,
            reachable: true,
            leader: true,
            time: 0.000_334_866,
            time_s: "334.866µs".to_owned(),
            error: String::new(),
        }
    }

    fn unreachable() -> NodeInfo {
        let error = "dial tcp 127.0.0.1:4012: connect: connection refused".to_owned();
        NodeInfo {
            id: "n0".to_owned(),
            addr: "localhost:4012".to_owned(),
            error,
            ..NodeInfo::default()
        }
    }

    const N1: &str = r#"{"id":"n1","api_addr":"http://localhost:4001","addr":"localhost:4002","version":"v10","voter":true,"reachable":true,"leader":true,"time":0.000334866,"time_s":"334.866µs"}"#;
    const N0: &str = r#"{"id":"n0","addr":"localhost:4012","version":"","voter":false,"reachable":false,"leader":false,"error":"dial tcp 127.0.0.1:4012: connect: connection refused"}"#;

    #[test]
    fn both_forms_sort_by_id() {
        let reply = NodesReply::new(vec![reachable(), unreachable()]);
        let legacy = String::from_utf8(reply.to_legacy_json().unwrap()).unwrap();
        assert_eq!(legacy, format!(r#"{{"n0":{N0},"n1":{N1}}}"#));
        let second = String::from_utf8(reply.to_json().unwrap()).unwrap();
        assert_eq!(second, format!(r#"{{"nodes":[{N0},{N1}]}}"#));
    }

    #[test]
    fn no_nodes() {
        let reply = NodesReply::default();
        assert_eq!(reply.to_legacy_json().unwrap(), b"{}");
        assert_eq!(reply.to_json().unwrap(), br#"{"nodes":[]}"#);
    }

    #[test]
    fn what_is_written_reads_back() {
        let reply = NodesReply::new(vec![reachable(), unreachable()]);
        assert_eq!(
            NodesReply::from_legacy_json(&reply.to_legacy_json().unwrap()).unwrap(),
            reply
        );
        assert_eq!(
            serde_json::from_slice::<NodesReply>(&reply.to_json().unwrap()).unwrap(),
            reply
        );
    }
}
