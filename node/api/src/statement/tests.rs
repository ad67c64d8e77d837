//! Tables of request bodies, and properties of the reader.
use super::*;
use proptest::prelude::*;

fn statement(sql: &str, parameters: &[(Option<&str>, Value)]) -> Statement {
    let parameter = |(name, value): &(Option<&str>, Value)| Parameter {
        name: name.map(str::to_owned),
        value: value.clone(),
    };
    Statement {
        sql: sql.to_owned(),
        parameters: parameters.iter().map(parameter).collect(),
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

/// The only parameter of the only statement.
fn bound(json: &str) -> Result<Value, ParseError> {
    let mut statements = parse_statements(format!(r#"[["s",{json}]]"#).as_bytes())?;
    Ok(statements.remove(0).parameters.remove(0).value)
}

#[test]
fn forms() {
    let cases: Vec<(&str, Vec<Statement>)> = vec![
        (r#"["SELECT 1"]"#, vec![statement("SELECT 1", &[])]),
        (
            r#" [ "a" , ["b"] ] "#,
            vec![statement("a", &[]), statement("b", &[])],
        ),
        (r#"["a"] trailing {"#, vec![statement("a", &[])]),
        (r#"[""]"#, vec![statement("", &[])]),
        (
            r#"["a\n\u0062\ud83d\ude00"]"#,
            vec![statement("a\nb😀", &[])],
        ),
        (
            r#"[["a",1,"x"]]"#,
            vec![statement(
                "a",
                &[(None, Value::Integer(1)), (None, text("x"))],
            )],
        ),
        (
            r#"[["a",7,{"n":"v","m":null},8]]"#,
            vec![statement(
                "a",
                &[
                    (None, Value::Integer(7)),
                    (Some("n"), text("v")),
                    (Some("m"), Value::Null),
                    (None, Value::Integer(8)),
                ],
            )],
        ),
        (r#"[["a",{}]]"#, vec![statement("a", &[])]),
        (
            r#"[["a",{"":1}]]"#,
            vec![statement("a", &[(None, Value::Integer(1))])],
        ),
        (
            r#"[["a",{"n":1,"m":2,"n":3}]]"#,
            vec![statement(
                "a",
                &[
                    (Some("n"), Value::Integer(3)),
                    (Some("m"), Value::Integer(2)),
                    (Some("n"), Value::Null),
                ],
            )],
        ),
        (
            r#"[["a",{"n":2},7,{"n":3},{"n":"x"}]]"#,
            vec![statement(
                "a",
                &[
                    (Some("n"), text("x")),
                    (None, Value::Integer(7)),
                    (Some("n"), Value::Integer(3)),
                    (Some("n"), Value::Null),
                ],
            )],
        ),
        (r#"["\ud800x"]"#, vec![statement("\u{fffd}x", &[])]),
        (
            r#"[["a",{"b":[1,2]}]]"#,
            vec![statement("a", &[(Some("b"), Value::Blob(vec![1, 2]))])],
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(parse_statements(body.as_bytes()), Ok(expected), "{body}");
    }
}

#[test]
fn values() {
    let cases = [
        ("1", Value::Integer(1)),
        ("-1", Value::Integer(-1)),
        ("-0", Value::Integer(0)),
        ("-0.0", Value::Real(-0.0)),
        ("9223372036854775807", Value::Integer(i64::MAX)),
        ("-9223372036854775808", Value::Integer(i64::MIN)),
        (
            "9223372036854775808",
            Value::Real(9_223_372_036_854_775_808.0),
        ),
        (
            "12345678901234567890123",
            Value::Real(1.234_567_890_123_456_8e22),
        ),
        ("1.0", Value::Real(1.0)),
        ("1e2", Value::Real(100.0)),
        ("0.1", Value::Real(0.1)),
        (
            "123.45600000000000306954461848363280296325683593750",
            Value::Real(123.456),
        ),
        ("true", Value::Integer(1)),
        ("false", Value::Integer(0)),
        ("null", Value::Null),
        (r#""abc""#, text("abc")),
        (r#""x'616263'""#, Value::Blob(b"abc".to_vec())),
        (r#""X'FFaa'""#, Value::Blob(vec![0xFF, 0xAA])),
        (r#""  x'00' ""#, Value::Blob(vec![0])),
        (r#""x''""#, Value::Blob(vec![])),
        (r#""x'0'""#, text("x'0'")),
        (r#""x'0g'""#, text("x'0g'")),
        (r#""x'""#, text("x'")),
        (r#""xyz""#, text("xyz")),
        (r#""x'é'""#, text("x'é'")),
        ("[]", Value::Blob(vec![])),
        ("[0,255]", Value::Blob(vec![0, 255])),
    ];
    for (json, expected) in cases {
        assert_eq!(bound(json), Ok(expected), "{json}");
    }
}

#[test]
fn refusals() {
    let cases = [
        ("", "invalid JSON body"),
        ("[", "invalid JSON body"),
        ("nul", "invalid JSON body"),
        (r#"["a""#, "invalid JSON body"),
        (r#"["a",]"#, "invalid JSON body"),
        (r#"["a" "b"]"#, "invalid JSON body"),
        ("[\"a\nb\"]", "invalid JSON body"),
        (r#"[["a",01]]"#, "invalid JSON body"),
        (r#"[["a",{"x"}]]"#, "invalid JSON body"),
        // Syntax wins over meaning within one element.
        (r#"[["a",{"x":{}}"#, "invalid JSON body"),
        (r#"[[1,"#, "invalid JSON body"),
        // Meaning of an earlier element wins over the syntax of a later one.
        (r#"[1,"#, "invalid request"),
        ("null", "invalid request"),
        ("7", "invalid request"),
        (r#""SELECT 1""#, "invalid request"),
        ("{", "invalid request"),
        (r#"{"a":1}"#, "invalid request"),
        ("[[]]", "invalid request"),
        ("[1]", "invalid request"),
        ("[null]", "invalid request"),
        ("[true]", "invalid request"),
        (r#"[{"a":1}]"#, "invalid request"),
        ("[[1]]", "invalid request"),
        ("[[null,1]]", "invalid request"),
        (r#"[[["a"]]]"#, "invalid request"),
        (r#"[[{"a":1},2]]"#, "invalid request"),
        (r#"["a",[]]"#, "invalid request"),
        ("[]", "no statements"),
        (" [ ] x", "no statements"),
        (
            r#"[["a",{"x":{"y":1}}]]"#,
            "unsupported type map[string]interface {}",
        ),
        (
            r#"[["a",[{}]]]"#,
            "unsupported type map[string]interface {}",
        ),
        (r#"[["a",[[1]]]]"#, "unsupported type []interface {}"),
        (r#"[["a",["x"]]]"#, "unsupported type string"),
        (r#"[["a",[true]]]"#, "unsupported type bool"),
        (r#"[["a",[null]]]"#, "unsupported type <nil>"),
        (r#"[["a",[1,300,"x"]]]"#, "unsupported type 300"),
        (r#"[["a",[-1]]]"#, "unsupported type -1"),
        (r#"[["a",[1.5]]]"#, "unsupported type 1.5"),
        (r#"[["a",{"x":["y"]},[300]]]"#, "unsupported type string"),
        (r#"[["a",1e999]]"#, "invalid number 1e999"),
        ("[\"b\",\n[\"a\", 2, -1E+999 ]]", "invalid number -1E+999"),
    ];
    for (body, expected) in cases {
        assert_eq!(
            parse_statements(body.as_bytes()).unwrap_err().to_string(),
            expected,
            "{body}"
        );
    }
}

#[test]
fn deep_nesting_is_refused_without_recursion() {
    let deep = "[".repeat(200_000);
    assert_eq!(parse_statements(deep.as_bytes()), Err(ParseError::Json));
    let closed = format!(r#"[["a",{}{}]]"#, "[".repeat(200_000), "]".repeat(200_000));
    assert_eq!(
        parse_statements(closed.as_bytes()),
        Err(ParseError::Unsupported(ARRAY.to_owned()))
    );
}

#[test]
fn broken_utf8_is_replaced() {
    let statements = parse_statements(b"[\"a\xff\"]").unwrap();
    assert_eq!(statements, [statement("a\u{fffd}", &[])]);
    assert_eq!(parse_statements(b"\xff"), Err(ParseError::Json));
}

/// The body a client would send for the statements.
fn body_of(statements: &[Statement]) -> String {
    let literal = |value: &Value| match value {
        Value::Null => "null".to_owned(),
        Value::Integer(n) => n.to_string(),
        Value::Real(x) => format!("{x:?}"),
        Value::Text(text) => serde_json::to_string(text).unwrap(),
        Value::Blob(bytes) => serde_json::to_string(bytes).unwrap(),
    };
    let element = |statement: &Statement| {
        let mut parts = vec![serde_json::to_string(&statement.sql).unwrap()];
        parts.extend(
            statement
                .parameters
                .iter()
                .map(|parameter| match &parameter.name {
                    Some(name) => format!(
                        "{{{}:{}}}",
                        serde_json::to_string(name).unwrap(),
                        literal(&parameter.value)
                    ),
                    None => literal(&parameter.value),
                }),
        );
        format!("[{}]", parts.join(","))
    };
    format!(
        "[{}]",
        statements.iter().map(element).collect::<Vec<_>>().join(",")
    )
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::Integer),
        proptest::num::f64::NORMAL.prop_map(Value::Real),
        any::<String>()
            .prop_filter("no hex literal", |s| hex_blob(s).is_none())
            .prop_map(Value::Text),
        any::<Vec<u8>>().prop_map(Value::Blob),
    ]
}

fn any_statement() -> impl Strategy<Value = Statement> {
    let parameter = (proptest::option::of(".+"), any_value())
        .prop_map(|(name, value)| Parameter { name, value });
    (any::<String>(), proptest::collection::vec(parameter, 0..5))
        .prop_map(|(sql, parameters)| Statement { sql, parameters })
}

proptest! {
    #[test]
    fn what_a_client_sends_arrives(statements in proptest::collection::vec(any_statement(), 1..5)) {
        prop_assert_eq!(parse_statements(body_of(&statements).as_bytes()), Ok(statements));
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let _ = parse_statements(&bytes);
    }

    #[test]
    fn no_near_json_panics(body in r#"\[?(\[|\]|\{|\}|"|,|:|x'|1|e|9|-|\.|null|true| |\\u|\\){0,40}"#) {
        let _ = parse_statements(body.as_bytes());
    }
}
