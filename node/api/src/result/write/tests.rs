//! Byte-exact tables of replies.
use super::*;
use proptest::prelude::*;

const NORMAL: Shape = Shape {
    associative: false,
    blob_array: false,
    pretty: false,
    timings: false,
    errors_with_rows: false,
};
const ASSOCIATIVE: Shape = Shape {
    associative: true,
    ..NORMAL
};
const TIMED: Shape = Shape {
    timings: true,
    ..NORMAL
};

fn written(reply: &Reply, shape: Shape) -> String {
    let mut out = b"before".to_vec();
    write_reply(&mut out, reply, &shape);
    String::from_utf8(out)
        .unwrap()
        .strip_prefix("before")
        .unwrap()
        .to_owned()
}

fn result(result: StatementResult, shape: Shape) -> String {
    let text = written(
        &Reply {
            results: vec![result],
            ..Reply::default()
        },
        shape,
    );
    text.strip_prefix(r#"{"results":["#)
        .unwrap()
        .strip_suffix("]}")
        .unwrap()
        .to_owned()
}

fn counters(last_insert_id: i64, rows_affected: i64) -> StatementResult {
    StatementResult::Write(WriteResult {
        last_insert_id,
        rows_affected,
        time_secs: 0.5,
    })
}

fn rows(columns: &[&str], types: &[&str], values: Vec<Vec<Cell>>) -> StatementResult {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    StatementResult::Rows(Rows {
        columns: owned(columns),
        types: owned(types),
        values,
        time_secs: 0.25,
    })
}

fn cell(text: &str) -> Cell {
    Cell::Text(text.to_owned())
}

#[test]
fn envelopes() {
    let full = Reply {
        results: vec![],
        error: Some("stale read".to_owned()),
        time_secs: Some(0.001),
        sequence_number: Some(1_653_314_298_877_648_934),
        raft_index: Some(7),
    };
    let zero = Reply {
        time_secs: Some(0.0),
        sequence_number: Some(0),
        raft_index: Some(0),
        ..Reply::default()
    };
    let cases = [
        (Reply::default(), r#"{"results":[]}"#),
        (zero, r#"{"results":[]}"#),
        (
            full,
            r#"{"results":[],"error":"stale read","time":0.001,"sequence_number":1653314298877648934,"raft_index":7}"#,
        ),
        (
            Reply {
                results: vec![counters(1, 1), counters(0, 0)],
                ..Reply::default()
            },
            r#"{"results":[{"last_insert_id":1,"rows_affected":1},{}]}"#,
        ),
    ];
    for (reply, expected) in cases {
        assert_eq!(written(&reply, NORMAL), expected);
    }
}

#[test]
fn writes() {
    assert_eq!(result(counters(0, 0), NORMAL), "{}");
    assert_eq!(
        result(counters(-3, 2), NORMAL),
        r#"{"last_insert_id":-3,"rows_affected":2}"#
    );
    assert_eq!(
        result(counters(0, 2), TIMED),
        r#"{"rows_affected":2,"time":0.5}"#
    );
    assert_eq!(
        result(counters(1, 1), ASSOCIATIVE),
        r#"{"last_insert_id":1,"rows_affected":1,"rows":null}"#
    );
    assert_eq!(result(counters(0, 0), ASSOCIATIVE), r#"{"rows":null}"#);
}

#[test]
fn rows_in_the_normal_form() {
    let names = || {
        rows(
            &["id", "name"],
            &["integer", "text"],
            vec![vec![Cell::Integer(1), cell("fiona")]],
        )
    };
    assert_eq!(
        result(names(), NORMAL),
        r#"{"columns":["id","name"],"types":["integer","text"],"values":[[1,"fiona"]]}"#
    );
    assert_eq!(
        result(names(), TIMED),
        r#"{"columns":["id","name"],"types":["integer","text"],"values":[[1,"fiona"]],"time":0.25}"#
    );
    assert_eq!(
        result(rows(&["id"], &[""], vec![]), NORMAL),
        r#"{"columns":["id"],"types":[""]}"#
    );
    assert_eq!(result(rows(&[], &[], vec![]), NORMAL), "{}");
}

#[test]
fn rows_in_the_associative_form() {
    let two = rows(
        &["name", "id"],
        &["text", "integer"],
        vec![
            vec![cell("fiona"), Cell::Integer(1)],
            vec![Cell::Null, Cell::Integer(2)],
        ],
    );
    assert_eq!(
        result(two, ASSOCIATIVE),
        r#"{"types":{"id":"integer","name":"text"},"rows":[{"id":1,"name":"fiona"},{"id":2,"name":null}]}"#
    );
    assert_eq!(
        result(rows(&["id"], &[""], vec![]), ASSOCIATIVE),
        r#"{"types":{"id":""},"rows":[]}"#
    );
    assert_eq!(
        result(rows(&[], &[], vec![]), ASSOCIATIVE),
        r#"{"rows":[]}"#
    );
    let shape = Shape {
        timings: true,
        ..ASSOCIATIVE
    };
    assert_eq!(
        result(rows(&["id"], &[""], vec![]), shape),
        r#"{"types":{"id":""},"rows":[],"time":0.25}"#
    );
}

#[test]
fn of_columns_with_one_name_the_last_counts() {
    let twice = rows(
        &["<a>", "b", "<a>"],
        &["integer", "text", "real"],
        vec![vec![Cell::Integer(1), cell("x"), Cell::Real(2.5)]],
    );
    assert_eq!(
        result(twice, ASSOCIATIVE),
        r#"{"types":{"\u003ca\u003e":"real","b":"text"},"rows":[{"\u003ca\u003e":2.5,"b":"x"}]}"#
    );
}

#[test]
fn errors() {
    let error = || StatementResult::Error("near \"bad\": syntax error".to_owned());
    let plain = r#"{"error":"near \"bad\": syntax error"}"#;
    assert_eq!(result(error(), NORMAL), plain);
    assert_eq!(result(error(), ASSOCIATIVE), plain);
    assert_eq!(
        result(
            error(),
            Shape {
                errors_with_rows: true,
                ..NORMAL
            }
        ),
        plain
    );
    assert_eq!(
        result(
            error(),
            Shape {
                errors_with_rows: true,
                ..ASSOCIATIVE
            }
        ),
        r#"{"rows":[],"error":"near \"bad\": syntax error"}"#
    );
}

#[test]
fn cells() {
    let cases = [
        (Cell::Null, "null"),
        (Cell::Integer(i64::MIN), "-9223372036854775808"),
        (Cell::Real(12.0), "12"),
        (Cell::Real(f64::NAN), "null"),
        (cell("a<b"), r#""a\u003cb""#),
        (Cell::Blob(b"hi".to_vec()), r#""aGk=""#),
        (Cell::Blob(vec![0xFB, 0xFF]), r#""+/8=""#),
        (Cell::Blob(vec![]), r#""""#),
        (Cell::Boolean(true), "true"),
        (Cell::Boolean(false), "false"),
    ];
    for (cell, expected) in cases {
        let mut out = Vec::new();
        write_cell(&mut out, &cell, false);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
    let mut out = Vec::new();
    write_cell(&mut out, &Cell::Blob(vec![0, 9, 255]), true);
    write_cell(&mut out, &Cell::Blob(vec![]), true);
    assert_eq!(String::from_utf8(out).unwrap(), "[0,9,255][]");
}

#[test]
fn pretty_leaves_what_was_there_before() {
    let reply = Reply {
        results: vec![counters(1, 1)],
        ..Reply::default()
    };
    let expected = "{\n    \"results\": [\n        {\n            \"last_insert_id\": 1,\n            \"rows_affected\": 1\n        }\n    ]\n}";
    assert_eq!(
        written(
            &reply,
            Shape {
                pretty: true,
                ..NORMAL
            }
        ),
        expected
    );
}

fn any_cell() -> impl Strategy<Value = Cell> {
    prop_oneof![
        Just(Cell::Null),
        any::<i64>().prop_map(Cell::Integer),
        any::<f64>().prop_map(Cell::Real),
        any::<String>().prop_map(Cell::Text),
        any::<Vec<u8>>().prop_map(Cell::Blob),
        any::<bool>().prop_map(Cell::Boolean),
    ]
}

proptest! {
    #[test]
    fn every_shape_of_any_rows_is_json(
        columns in proptest::collection::vec(any::<String>(), 0..4),
        cells in proptest::collection::vec(any_cell(), 0..4),
        switches: [bool; 5],
        time in any::<f64>(),
    ) {
        let [associative, blob_array, pretty, timings, errors_with_rows] = switches;
        let shape = Shape { associative, blob_array, pretty, timings, errors_with_rows };
        let found = Rows { types: columns.clone(), columns: columns.clone(), values: vec![cells.clone()], time_secs: time };
        let results = vec![StatementResult::Rows(found), counters(1, 2), StatementResult::Error("e".to_owned())];
        let reply = Reply { results, time_secs: Some(time), ..Reply::default() };
        let text = written(&reply, shape);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let first = &value["results"][0];
        if associative {
            for name in &columns {
                prop_assert!(first["rows"][0].get(name).is_some());
            }
        } else {
            prop_assert_eq!(first["values"][0].as_array().map_or(0, Vec::len), cells.len());
        }
        prop_assert_eq!(&value["results"][2]["error"], "e");
    }
}
