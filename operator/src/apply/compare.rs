//! Whether an object is as it was applied: by a hash of what was applied last, and by comparing fields.
use operator_api::names;
use serde_json::Value;
use sha2::{Digest, Sha256};

pub(super) fn hash_of(desired: &Value) -> String {
    let digest = Sha256::digest(desired.to_string());
    digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

pub(super) fn marked(mut desired: Value, hash: &str) -> Value {
    desired["metadata"]["annotations"][names::APPLIED_HASH_ANNOTATION] = hash.into();
    desired
}

/// Top-level fields that are compared.
const PARTS: [&str; 4] = ["metadata", "spec", "data", "automountServiceAccountToken"];

/// Whether exactly this was applied last, by the hash, which detects fields that are to be removed.
pub(super) fn is_last(desired: &Value, live: &Value) -> bool {
    let hash = |o: &Value| o["metadata"]["annotations"][names::APPLIED_HASH_ANNOTATION].clone();
    hash(desired) == hash(live)
}

/// A value that differs from the one that is applied.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Difference {
    /// Path of the field.
    pub(super) path: String,
    /// The value that is there.
    pub(super) live: Value,
}

/// All values of `desired` that are different in `live`. Additional fields of `live` are ignored.
pub(super) fn differences(desired: &Value, live: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    for part in PARTS {
        collect(&desired[part], &live[part], part, &mut found);
    }
    found
}

fn collect(desired: &Value, live: &Value, path: &str, found: &mut Vec<Difference>) {
    match (desired, live) {
        (Value::Object(desired), Value::Object(live)) => {
            for (key, value) in desired {
                let there = live.get(key).unwrap_or(&Value::Null);
                collect(value, there, &format!("{path}.{key}"), found);
            }
        }
        (Value::Array(desired), Value::Array(live)) if desired.len() == live.len() => {
            for (n, (desired, live)) in desired.iter().zip(live).enumerate() {
                collect(desired, live, &format!("{path}[{n}]"), found);
            }
        }
        (desired, live) => {
            if differs(desired, live).is_some() {
                found.push(Difference {
                    path: path.to_owned(),
                    live: live.clone(),
                });
            }
        }
    }
}

/// The path of the first value in `desired` that differs in `live`. Additional fields of `live` are ignored.
fn differs(desired: &Value, live: &Value) -> Option<String> {
    let here = |differ: bool| differ.then(String::new);
    match (desired, live) {
        (Value::Null, _) => None,
        (Value::Object(desired), Value::Null) => here(!desired.is_empty()),
        (Value::Array(desired), Value::Null) => here(!desired.is_empty()),
        (Value::Object(desired), Value::Object(live)) => desired.iter().find_map(|(key, value)| {
            let rest = differs(value, live.get(key).unwrap_or(&Value::Null))?;
            Some(format!(".{key}{rest}"))
        }),
        (Value::Array(desired), Value::Array(live)) if desired.len() == live.len() => {
            let mut pairs = desired.iter().zip(live).enumerate();
            pairs.find_map(|(n, (desired, live))| Some(format!("[{n}]{}", differs(desired, live)?)))
        }
        (Value::String(desired), Value::String(live)) => {
            here(desired != live && !is_same(desired, live))
        }
        (desired, live) => here(desired != live),
    }
}

/// Whether both are the same quantity. The API server rewrites `1024Mi` as `1Gi` and `1000m` as `1`.
fn is_same(desired: &str, live: &str) -> bool {
    let amount = |text: &str| amount(text).filter(|amount| amount.is_finite());
    matches!((amount(desired), amount(live)), (Some(a), Some(b)) if a == b)
}

/// Parses a Kubernetes quantity.
fn amount(text: &str) -> Option<f64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let number: f64 = number.parse().ok()?;
    let factor = match unit {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        "Ei" => 1024f64.powi(6),
        _ => return None,
    };
    Some(number * factor)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_of_the_server_are_no_difference() {
        let cases = [
            (json!({"a": 1}), json!({"a": 1, "b": 2}), true),
            (json!({"a": 1}), json!({"a": 2}), false),
            (json!({"a": 1}), json!({}), false),
            (json!({"a": null}), json!({}), true),
            (json!({"a": {}}), json!({}), true),
            (json!({"a": []}), json!({}), true),
            (json!([{"a": 1}]), json!([{"a": 1, "b": 2}]), true),
            (json!([{"a": 1}]), json!([{"a": 1}, {"a": 2}]), false),
            (json!({"a": {"b": 1}}), json!({"a": 1}), false),
            (json!({"cpu": "1000m"}), json!({"cpu": "1"}), true),
            (json!({"memory": "1024Mi"}), json!({"memory": "1Gi"}), true),
            (
                json!({"memory": "1.5Gi"}),
                json!({"memory": "1536Mi"}),
                true,
            ),
            (json!({"memory": "1G"}), json!({"memory": "1Gi"}), false),
            (json!({"a": "01"}), json!({"a": "x"}), false),
        ];
        for (desired, live, same) in cases {
            assert_eq!(differs(&desired, &live).is_none(), same, "{desired} {live}");
        }
    }

    fn whole(desired: Value) -> Value {
        let hash = hash_of(&desired);
        marked(desired, &hash)
    }

    #[test]
    fn what_was_taken_away_is_a_difference() {
        let before = whole(json!({"metadata": {"name": "x"}, "spec": {"a": 1, "b": 2}}));
        let after = whole(json!({"metadata": {"name": "x"}, "spec": {"a": 1}}));
        let is_applied = |a: &Value, b: &Value| differences(a, b).is_empty();
        assert!(is_applied(&before, &before));
        assert!(!is_applied(&after, &before));
        let mut touched = before.clone();
        touched["spec"]["a"] = 3.into();
        let found = differences(&before, &touched);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path, "spec.a");
        assert!(is_last(&before, &touched), "an edit");
        assert!(!is_last(&after, &before), "the operator's own change");
        let account = whole(json!({"metadata": {}, "automountServiceAccountToken": false}));
        let mut live = account.clone();
        live["automountServiceAccountToken"] = true.into();
        assert!(!is_applied(&account, &live));
    }

    #[test]
    fn all_differences() {
        let cases = [
            (
                json!({"a": 1, "b": [{"c": 1}]}),
                json!({"a": 2, "b": [{"c": 2, "d": 1}]}),
                2,
            ),
            (json!({"a": [1]}), json!({"a": [0, 1]}), 1),
            (json!({"a": "1Gi"}), json!({"a": "1024Mi"}), 0),
            (json!({"a": {}}), json!({}), 0),
            (json!({"a": {"b": 1}}), json!({}), 1),
        ];
        for (desired, live, expected) in cases {
            let found = differences(&json!({"spec": desired}), &json!({"spec": live}));
            assert_eq!(found.len(), expected, "{desired} {live}");
        }
    }
}
