//! Parsing of a node's responses: `/status` and the result of a query.
use bytes::Bytes;
use hyper::StatusCode;
use node_contract::{RestoreRequest, RestoreState, status::Status};
use serde::Deserialize;
use serde_json::Value;

use crate::cluster::{NodeStatus, facts::observation::ConfigMember};

/// Parses a `/status` response. `ready` is the result of `/readyz`.
///
/// # Errors
/// The response is malformed, or the node is still opening its data.
pub(super) fn read(body: &[u8], ready: bool) -> Result<NodeStatus, String> {
    let Status { store, process } =
        serde_json::from_slice(body).map_err(|e| format!("/status: {e}"))?;
    let security = process
        .as_ref()
        .and_then(|process| process.security.clone());
    let archive = process
        .as_ref()
        .and_then(|process| process.archive.clone())
        .filter(|archive| archive.enabled);
    let auto_restore = process
        .as_ref()
        .and_then(|process| process.auto_restore.clone());
    let version = process.map(|process| process.build.version);
    let (Some(name), Some(identity), Some(raft)) = (store.node_id, store.identity, store.raft)
    else {
        return Err("it is opening its data".to_owned());
    };
    let leader = store
        .leader
        .map(|leader| leader.node_id)
        .filter(|name| !name.is_empty());
    let config_index = raft.committed_configuration.index;
    let config = raft.committed_configuration.members.into_iter();
    // Nodes of the first format report none.
    let details = raft.details.as_deref();
    let formats = details.map(|details| (details.format_version, details.format_version_max));
    let addresses = config.clone().map(|entry| (entry.raft_id, entry.addr));
    Ok(NodeStatus {
        is_leader: raft.state == "Leader" && leader.as_ref() == Some(&name),
        raft_id: identity.raft_id,
        cluster_id: identity.cluster_id,
        lineage: identity.lineage,
        leader,
        term: raft.term,
        last_log_term: raft.last_log_term,
        last_log_index: raft.last_log_index,
        commit_index: raft.commit_index,
        applied_index: raft.applied_index,
        ready,
        version: version.filter(|version| !version.is_empty()),
        format_version: formats.map(|(present, _)| present).filter(|v| *v > 0),
        format_version_max: formats.map(|(_, newest)| newest).filter(|v| *v > 0),
        unreachable_seconds: raft.unreachable_seconds,
        config_index,
        addresses: addresses.collect(),
        database_bytes: store.details.map(|details| details.snapshot_store.dir_size),
        disk: store.disk,
        parked: store.parked,
        check: store.check,
        archive,
        auto_restore,
        security,
        config: config
            .map(|entry| ConfigMember {
                raft_id: entry.raft_id,
                name: entry.id,
                voter: entry.voter,
            })
            .collect(),
    })
}

/// The reply to the request for a restore. A refusal by the node is a restore that failed; a response of
/// something else than a node, or of a node that cannot respond properly now, is an error.
///
/// # Errors
/// There is no usable response.
pub(super) fn restore(
    (code, body): (StatusCode, Bytes),
    request: &RestoreRequest,
) -> Result<RestoreState, String> {
    let text = String::from_utf8_lossy(&body);
    let text: String = text.trim().chars().take(MAX_REFUSAL_CHARS).collect();
    let refused = |message: String| RestoreState {
        id: request.id.clone(),
        state: RestoreState::FAILED.to_owned(),
        dry_run: request.dry_run,
        message,
        ..RestoreState::default()
    };
    match code {
        code if code.is_success() => {
            let state: RestoreState =
                serde_json::from_slice(&body).map_err(|e| format!("/archive/restore: {e}"))?;
            Ok(RestoreState {
                id: request.id.clone(),
                ..state
            })
        }
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED if text.is_empty() => Ok(refused(
            "the node does not restore in place: is it of an older version than the operator, or without an archive?"
                .to_owned(),
        )),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::REQUEST_TIMEOUT => {
            Err(format!("/archive/restore returned {code}: {text}"))
        }
        code if code.is_client_error() => Ok(refused(text)),
        code => Err(format!("/archive/restore returned {code}: {text}")),
    }
}

/// Maximum length of a node's refusal in messages.
const MAX_REFUSAL_CHARS: usize = 600;

/// Does this body come from a node at all, and not from a proxy in its place?
pub(super) fn is_of_node(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|value| value.get("store").is_some())
}

/// The rows of the first statement in the response of a query.
///
/// # Errors
/// The statement failed, or the response is malformed.
pub(super) fn rows(body: &[u8]) -> Result<Vec<Vec<String>>, String> {
    let reply: Reply = serde_json::from_slice(body).map_err(|e| format!("/db/query: {e}"))?;
    let first = reply.results.into_iter().flatten().next();
    match (reply.error, first) {
        (Some(error), _) => Err(error),
        (
            None,
            Some(Results {
                error: Some(error), ..
            }),
        ) => Err(error),
        (None, Some(results)) => Ok(results
            .values
            .into_iter()
            .map(|row| row.iter().map(text).collect())
            .collect()),
        (None, None) => Err("/db/query: no results".to_owned()),
    }
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

#[derive(Debug, Deserialize)]
struct Reply {
    results: Option<Vec<Results>>,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Results {
    #[serde(default)]
    values: Vec<Vec<Value>>,
    error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLLOWER: &str = r#"{"build":{"version":"x"},"store":{"open":{},"node_id":"demo-1","leader":{"node_id":"demo-0","addr":"a:4002"},
        "identity":{"raft_id":"demo-1#i1","incarnation":"i1","cluster_id":"c","lineage":{"id":"c-0","epoch":0}},
        "raft":{"state":"Follower","term":3,"last_log_index":12,"last_log_term":3,"commit_index":11,"applied_index":10,
        "committed_configuration":{"index":7,"members":[{"id":"demo-0","raft_id":"demo-0#i0","addr":"a:4002","voter":true},
        {"id":"demo-1","raft_id":"demo-1#i1","addr":"b:4002","voter":false}]}}}}"#;

    fn status(change: (&str, &str)) -> Result<NodeStatus, String> {
        assert!(FOLLOWER.contains(change.0), "{}", change.0);
        read(FOLLOWER.replace(change.0, change.1).as_bytes(), true)
    }

    #[test]
    fn a_follower() {
        let parsed = status(("", "")).unwrap();
        assert_eq!(parsed.raft_id, "demo-1#i1");
        assert_eq!(parsed.leader.as_deref(), Some("demo-0"));
        assert_eq!(parsed.cluster_id.as_deref(), Some("c"));
        assert_eq!(parsed.lineage.as_ref().map(|l| l.epoch), Some(0));
        assert_eq!(
            (parsed.term, parsed.last_log_term, parsed.last_log_index),
            (3, 3, 12)
        );
        assert_eq!((parsed.commit_index, parsed.applied_index), (11, 10));
        assert!(!parsed.is_leader && parsed.ready);
        let names: Vec<_> = parsed.config.iter().map(|m| (&*m.name, m.voter)).collect();
        assert_eq!(names, [("demo-0", true), ("demo-1", false)]);
        assert_eq!(parsed.config_index, 7);
        assert_eq!(parsed.config[1].raft_id, "demo-1#i1");
        assert_eq!(parsed.addresses["demo-1#i1"], "b:4002");
    }

    #[test]
    fn who_leads() {
        let own = r#""leader":{"node_id":"demo-1""#;
        let other = r#""leader":{"node_id":"demo-0""#;
        assert!(
            !status((other, own)).unwrap().is_leader,
            "its state is Follower"
        );
        assert!(
            !status(("Follower", "Leader")).unwrap().is_leader,
            "it names another"
        );
        let leads = FOLLOWER.replace("Follower", "Leader").replace(other, own);
        assert!(read(leads.as_bytes(), false).unwrap().is_leader);
        let none = status((other, r#""leader":{"node_id":"""#)).unwrap();
        assert_eq!(none.leader, None);
    }

    #[test]
    fn rows_of_a_check() {
        let cases = [
            (
                r#"{"results":[{"columns":["quick_check"],"values":[["ok"]]}]}"#,
                Ok(vec![vec!["ok"]]),
            ),
            (
                r#"{"results":[{"columns":["1"],"values":[[1]]}]}"#,
                Ok(vec![vec!["1"]]),
            ),
            (
                r#"{"results":[{"error":"no such table"}]}"#,
                Err("no such table"),
            ),
            (
                r#"{"results":[],"error":"leader not found"}"#,
                Err("leader not found"),
            ),
            (r#"{"results":[]}"#, Err("/db/query: no results")),
        ];
        for (body, expected) in cases {
            let expected = expected
                .map(|rows| {
                    rows.into_iter()
                        .map(|row| row.into_iter().map(str::to_owned).collect())
                        .collect::<Vec<Vec<String>>>()
                })
                .map_err(str::to_owned);
            assert_eq!(rows(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn what_is_no_status() {
        for (body, text, of_node) in [
            ("", "/status: EOF", false),
            ("<html>", "/status: expected value", false),
            ("{}", "missing field `store`", false),
            (r#"{"store":{"open":false}}"#, "opening its data", true),
        ] {
            assert_eq!(is_of_node(body.as_bytes()), of_node, "{body}");
            let error = read(body.as_bytes(), true).unwrap_err();
            assert!(error.contains(text), "{body}: {error}");
        }
        let old = status((r#""committed_configuration""#, r#""other""#)).unwrap_err();
        assert!(old.contains("committed_configuration"), "{old}");
    }
}
