//! Tests of the text of `-disco-config`, and that errors hold no secrets.
use std::time::Duration;

use super::*;

fn environment(name: &str) -> Option<String> {
    match name {
        "A" => Some("one".into()),
        "LONG_1" => Some("two".into()),
        "1" => Some("digit".into()),
        _ => None,
    }
}

#[test]
fn variables_are_put_in_as_go_does() {
    let cases = [
        ("", ""),
        ("plain", "plain"),
        ("$A", "one"),
        ("x${A}y", "xoney"),
        ("$A$LONG_1.", "onetwo."),
        ("$LONG_1x", ""),
        ("$UNSET|${UNSET}|", "||"),
        ("$1A", "digitA"),
        ("${1}", "digit"),
        ("100$", "100$"),
        ("$ A", "$ A"),
        ("$\"", "$\""),
        ("a${}b", "ab"),
        ("a${b", "ab"),
        ("ü$A ü", "üone ü"),
        ("$é", "$é"),
    ];
    for (text, expected) in cases {
        assert_eq!(expand(text, &environment), expected, "{text}");
    }
}

#[test]
fn a_file_comes_before_text() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("disco.json");
    std::fs::write(&path, "{\"name\":\"$A\"}").expect("a file");
    let path = path.to_str().expect("UTF-8");
    assert_eq!(
        read(path, &environment).as_deref(),
        Ok("{\"name\":\"one\"}")
    );
    assert_eq!(
        read(" {\"x\":\"$A\"} ", &environment).as_deref(),
        Ok("{\"x\":\"one\"}")
    );
    assert_eq!(read("", &environment).as_deref(), Ok(""));
    let missing = read("/no/such/file", &environment).expect_err("no file");
    assert!(
        missing.contains("neither a JSON object nor a file"),
        "{missing}"
    );
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sample {
    token: Option<Secret>,
    #[serde(default, deserialize_with = "port")]
    port: Option<u16>,
    #[serde(default, deserialize_with = "nanos")]
    pause: Option<Duration>,
    inner: Option<Inner>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Inner {
    #[serde(rename = "flag")]
    _flag: Option<bool>,
}

#[test]
fn mistakes_name_the_field_and_hide_the_value() {
    let cases = [
        (
            "{\"tokn\":1}",
            "tokn: unknown field `tokn`, expected one of `token`, `port`, `pause`, `inner`",
        ),
        ("{\"token\":4711}", "token: expected a string"),
        ("{\"token\":[\"4711\"]}", "token: expected a string"),
        ("{\"inner\":\"4711\"}", "inner: expected struct Inner"),
        (
            "{\"inner\":{\"flag\":\"4711\"}}",
            "inner.flag: expected a boolean",
        ),
        (
            "{\"port\":0}",
            "port: expected a port number from 1 to 65535",
        ),
        (
            "{\"port\":65536}",
            "port: expected a port number from 1 to 65535",
        ),
        (
            "{\"port\":\"4711\"}",
            "port: expected a port number from 1 to 65535",
        ),
        (
            "{\"port\":-1}",
            "port: expected a port number from 1 to 65535",
        ),
        (
            "{\"pause\":\"4711\"}",
            "pause: expected a duration: nanoseconds as a number, or text such as \"5s\"",
        ),
        (
            "{\"pause\":-5}",
            "pause: expected a duration: nanoseconds as a number, or text such as \"5s\"",
        ),
        ("[]", "expected a JSON object"),
        ("\"4711\"", "expected a JSON object"),
    ];
    for (text, expected) in cases {
        let mistake = parse::<Sample>(text).expect_err(text);
        assert_eq!(mistake, expected, "{text}");
    }
    for text in ["{\"token\":\"4711\"", "{token}", "{} {}"] {
        let mistake = parse::<Sample>(text).expect_err(text);
        assert!(mistake.starts_with("not valid JSON: "), "{mistake}");
        assert!(!mistake.contains("4711"), "{mistake}");
    }
}

#[test]
fn fields_are_read() {
    let all: Sample =
        parse("{\"token\":\"s3cret\",\"port\":65535,\"pause\":\"1.5s\",\"inner\":{}}")
            .expect("valid");
    assert_eq!(all.token.as_ref().map(Secret::reveal), Some("s3cret"));
    assert_eq!(all.port, Some(65535));
    assert_eq!(all.pause, Some(Duration::from_millis(1500)));
    assert!(all.inner.is_some());
    assert!(!format!("{all:?}").contains("s3cret"), "{all:?}");
    let nanos: Sample = parse("{\"pause\":5000000000,\"port\":null}").expect("valid");
    assert_eq!(
        (nanos.pause, nanos.port),
        (Some(Duration::from_secs(5)), None)
    );
    let none: Sample = parse("  ").expect("nothing given");
    assert!(none.token.is_none());
}
