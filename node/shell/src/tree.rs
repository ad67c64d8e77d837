//! Formats JSON documents (status, nodes, expvar) as indented `key: value` lines. Without I/O.

use std::io::{self, Write};

use serde_json::Value;

/// Spaces per level.
const STEP: usize = 2;

/// Writes the document with sorted keys; nulls inside objects are left out. A bare scalar is one line.
pub(crate) fn write(value: &Value, out: &mut dyn Write) -> io::Result<()> {
    match value {
        Value::Object(_) | Value::Array(_) => write_children(value, 0, out),
        scalar => writeln!(out, "{}", scalar_text(scalar)),
    }
}

fn write_children(value: &Value, indent: usize, out: &mut dyn Write) -> io::Result<()> {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().filter(|(_, value)| !value.is_null()).collect();
            entries.sort_by_key(|(key, _)| *key);
            for (key, value) in entries {
                if is_leaf(value) {
                    writeln!(out, "{:indent$}{key}: {}", "", scalar_text(value))?;
                } else {
                    writeln!(out, "{:indent$}{key}:", "")?;
                    write_children(value, indent + STEP, out)?;
                }
            }
            Ok(())
        }
        Value::Array(items) => items
            .iter()
            .try_for_each(|item| write_item(item, indent, out)),
        scalar => writeln!(out, "{:indent$}{}", "", scalar_text(scalar)),
    }
}

/// Writes an element of a list: a dash before its first line, the other lines aligned.
fn write_item(item: &Value, indent: usize, out: &mut dyn Write) -> io::Result<()> {
    if is_leaf(item) {
        return writeln!(out, "{:indent$}- {}", "", scalar_text(item));
    }
    let mut block = Vec::new();
    write_children(item, indent + STEP, &mut block)?;
    if let Some(start) = block.get_mut(indent) {
        *start = b'-';
    }
    out.write_all(&block)
}

fn is_leaf(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.values().all(Value::is_null),
        Value::Array(items) => items.is_empty(),
        _ => true,
    }
}

fn scalar_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(_) => "{}".to_owned(),
        // As the node has written it: without an exponent within these bounds.
        Value::Number(number) => match number.as_f64() {
            Some(x) if number.is_f64() && (1e-6..1e21).contains(&x.abs()) => x.to_string(),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expected: &str) {
        let mut out = Vec::new();
        write(&serde_json::from_str(json).unwrap(), &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expected, "{json}");
    }

    #[test]
    fn objects_are_sorted_and_indented() {
        check(
            r#"{"store":{"raft":{"term":2,"voter":true},"addr":"a:1"},"build":{"version":"v1"},"gone":null,"open":{}}"#,
            "build:\n  version: v1\nopen: {}\nstore:\n  addr: a:1\n  raft:\n    term: 2\n    voter: true\n",
        );
    }

    #[test]
    fn lists_have_dashes() {
        check(
            r#"{"nodes":[{"id":"1","addr":"a"},{"id":"2","x":{"y":1}}],"cmdline":["rqlited","-x"],"none":[]}"#,
            "cmdline:\n  - rqlited\n  - -x\nnodes:\n  - addr: a\n    id: 1\n  - id: 2\n    x:\n      y: 1\nnone: []\n",
        );
        check(r#"[1,[2,3]]"#, "- 1\n- - 2\n  - 3\n");
    }

    #[test]
    fn scalars_stand_alone() {
        check(r#""v1""#, "v1\n");
        check("12", "12\n");
        check(
            r#"{"a":0.000009704,"b":1.5e-7,"c":-0.25,"d":18446744073709551615}"#,
            "a: 0.000009704\nb: 1.5e-7\nc: -0.25\nd: 18446744073709551615\n",
        );
        check("{}", "");
    }
}
