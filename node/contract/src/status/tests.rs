//! A real reply read and written again, and what readers tolerate.
use serde_json::json;

use super::*;

const GOLDEN: &str = include_str!("../../tests/golden/status.json");

fn golden() -> Value {
    serde_json::from_str(GOLDEN).unwrap()
}

#[test]
fn every_field_of_a_reply_is_typed() {
    let status: Status = serde_json::from_value(golden()).unwrap();
    let written = serde_json::to_value(&status).unwrap();
    assert_eq!(written, golden());
    // Objects of `serde_json::Value` are sorted by key, and so is the reply.
    let pretty = serde_json::to_string_pretty(&written).unwrap();
    assert_eq!(pretty.replace("  ", "    ") + "\n", GOLDEN);
}

#[test]
fn a_node_that_opens_its_data() {
    let opening = serde_json::to_value(StoreStatus::opening()).unwrap();
    assert_eq!(opening, json!({"open": false}));
    let read: StoreStatus = serde_json::from_value(opening).unwrap();
    assert_eq!((read.node_id, read.raft), (None, None));
}

#[test]
fn details_that_are_missing_or_of_another_type_do_not_matter() {
    let mut tree = golden();
    tree["store"]["raft"]["num_peers"] = json!("two");
    tree["store"]["fsm_index"] = json!([]);
    tree["build"] = json!(7);
    tree["store"]["surprise"] = json!({});
    let status: Status = serde_json::from_value(tree).unwrap();
    assert_eq!((status.process, status.store.details), (None, None));
    let raft = status.store.raft.unwrap();
    assert_eq!((raft.term, raft.details), (1, None));
    let least = json!({"store": {}});
    assert!(serde_json::from_value::<Status>(least).is_ok());
}

#[test]
fn what_programs_decide_by_must_be_there() {
    let mut tree = golden();
    let raft = tree["store"]["raft"].as_object_mut().unwrap();
    raft.remove("committed_configuration");
    let error = serde_json::from_value::<Status>(tree).unwrap_err();
    assert!(error.to_string().contains("committed_configuration"));
}

#[test]
fn the_name_of_earlier_nodes_is_read() {
    let text = GOLDEN.replace("unreachable_seconds", "silent_seconds");
    let status: Status = serde_json::from_str(&text).unwrap();
    let raft = status.store.raft.unwrap();
    assert_eq!(raft.unreachable_seconds.values().collect::<Vec<_>>(), [&3]);
}
