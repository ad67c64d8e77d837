//! Byte-exact tables for Go's JSON, and properties of the encoder.
use super::*;
use proptest::prelude::*;
use serde_json::json;

fn float(number: f64) -> String {
    let mut out = Vec::new();
    write_f64(&mut out, number);
    String::from_utf8(out).unwrap()
}

fn string(text: &str) -> String {
    let mut out = Vec::new();
    write_str(&mut out, text);
    String::from_utf8(out).unwrap()
}

#[test]
fn floats() {
    let cases: &[(f64, &str)] = &[
        (12.0, "12"),
        (0.0, "0"),
        (-0.0, "-0"),
        (-1.5, "-1.5"),
        (0.1, "0.1"),
        (0.000_001, "0.000001"),
        (0.000_012_5, "0.0000125"),
        (0.000_125, "0.000125"),
        (334.866, "334.866"),
        (2_629_020_564_682_633.0 / 4.0, "657255141170658.2"),
        (2_629_020_564_682_635.0 / 4.0, "657255141170658.8"),
        (9_007_199_254_740_994.0, "9007199254740994"),
        (-12_345_678_901_234_567_890.0, "-12345678901234567000"),
        (-0.000_001_25, "-0.00000125"),
        (123_456_789_012_345.67, "123456789012345.67"),
        (9.5e-7, "9.5e-7"),
        (1e-7, "1e-7"),
        (1e-10, "1e-10"),
        (1e20, "100000000000000000000"),
        (1.5e20, "150000000000000000000"),
        (1e21, "1e+21"),
        (1.25e300, "1.25e+300"),
        (-1e21, "-1e+21"),
        (9_007_199_254_740_993.0, "9007199254740992"),
        (5e-324, "5e-324"),
        (f64::MAX, "1.7976931348623157e+308"),
        (f64::NAN, "null"),
        (f64::INFINITY, "null"),
        (f64::NEG_INFINITY, "null"),
    ];
    for (number, text) in cases {
        assert_eq!(float(*number), *text);
    }
}

#[test]
fn strings() {
    let cases = [
        ("", r#""""#),
        ("plain", r#""plain""#),
        ("a<b>&c", r#""a\u003cb\u003e\u0026c""#),
        ("\"\\/", r#""\"\\/""#),
        ("\u{8}\u{c}\n\r\t", r#""\b\f\n\r\t""#),
        ("\u{0}\u{1f}\u{7f}", "\"\\u0000\\u001f\u{7f}\""),
        ("a\u{2028}b\u{2029}", r#""a\u2028b\u2029""#),
        ("\u{2027}\u{202a}â€…é漢😀", "\"\u{2027}\u{202a}â€…é漢😀\""),
    ];
    for (text, expected) in cases {
        assert_eq!(string(text), expected);
        assert_eq!(
            String::from_utf8(to_go_json(text).unwrap()).unwrap(),
            expected
        );
    }
}

#[test]
fn values_under_gos_rules() {
    let value = json!({"b": [1, 2.0, -0.0, 1e21, null, true], "a": {"<k>": "\u{2028}"}, "c": {}});
    let compact = to_go_json(&value).unwrap();
    assert_eq!(
        String::from_utf8(compact).unwrap(),
        r#"{"a":{"\u003ck\u003e":"\u2028"},"b":[1,2,-0,1e+21,null,true],"c":{}}"#
    );
}

#[test]
fn indentation() {
    let cases = [
        ("{}", "{}"),
        ("[]", "[]"),
        ("1", "1"),
        (r#"{"results":[]}"#, "{\n    \"results\": []\n}"),
        (
            r#"{"a":[1,{"b":"x,{\"]"}],"c":{}}"#,
            "{\n    \"a\": [\n        1,\n        {\n            \"b\": \"x,{\\\"]\"\n        }\n    ],\n    \"c\": {}\n}",
        ),
        (" [ 1 , 2 ] \n", "[\n    1,\n    2\n]"),
    ];
    for (compact, pretty) in cases {
        assert_eq!(
            String::from_utf8(pretty_json(compact.as_bytes())).unwrap(),
            pretty
        );
    }
}

proptest! {
    #[test]
    fn floats_read_back(bits: u64) {
        let number = f64::from_bits(bits);
        prop_assume!(number.is_finite());
        let read: f64 = serde_json::from_str(&float(number)).unwrap();
        prop_assert_eq!(read.to_bits(), number.to_bits());
    }

    #[test]
    fn floats_without_exponent_are_as_short_as_can_be(digits: i64, exponent in -2_i32..24) {
        let number = digits as f64 * 10_f64.powi(-exponent);
        prop_assume!(number == 0.0 || (1e-6..1e21).contains(&number.abs()));
        let (written, standard) = (float(number), number.to_string());
        prop_assert_eq!(written.parse::<f64>(), Ok(number));
        // Of two equally near candidates Go takes the even digit, the standard library the larger one.
        prop_assert_eq!(written.len(), standard.len(), "{} {}", written, standard);
    }

    #[test]
    fn strings_read_back(text: String) {
        let written = string(&text);
        let escaped = ['<', '>', '&', '\u{2028}', '\u{2029}'];
        prop_assert!(!written.contains(escaped));
        prop_assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text.clone());
        prop_assert_eq!(to_go_json(&text).unwrap(), written.into_bytes());
    }

    #[test]
    fn indenting_any_bytes_does_not_panic(bytes: Vec<u8>) {
        let _ = pretty_json(&bytes);
    }

    #[test]
    fn indenting_changes_no_meaning(keys in proptest::collection::vec((".*", any::<i32>()), 0..8)) {
        let value = serde_json::Value::Object(keys.into_iter().map(|(k, n)| (k, json!([n, {"in": n}]))).collect());
        let pretty = pretty_json(&to_go_json(&value).unwrap());
        prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&pretty).unwrap(), value);
    }
}
