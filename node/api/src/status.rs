//! `/status?key=a.b.c`: one part of the status tree.
use serde_json::{Map, Value};

/// The part of a tree that a dotted key names: descends into objects and returns the first value that is not
/// one. Returns an empty object if a segment is missing or empty.
pub fn select(tree: &Value, key: &str) -> Value {
    let mut at = tree;
    for step in key.split('.') {
        let Value::Object(object) = at else { break };
        match object.get(step) {
            Some(child) => at = child,
            None => return Value::Object(Map::new()),
        }
    }
    at.clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn walks_objects_until_a_scalar() {
        let tree = json!({"store": {"raft": {"state": "Leader", "term": 2}, "open": false, "nodes": [{"id": "1"}]}});
        let cases = [
            ("store.raft.state", json!("Leader")),
            ("store.raft", json!({"state": "Leader", "term": 2})),
            ("store.raft.term.deeper", json!(2)),
            ("store.nodes", json!([{"id": "1"}])),
            ("store.nothing", json!({})),
            ("nothing.at.all", json!({})),
            ("", json!({})),
            ("store.", json!({})),
        ];
        for (key, expected) in cases {
            assert_eq!(select(&tree, key), expected, "{key}");
        }
    }
}
