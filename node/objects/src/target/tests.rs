//! What a configuration may say, and what is wrong with the others.
use serde::Deserialize;

use super::*;
use crate::config::Config;

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Rest {
    interval: String,
}

fn parse(text: &str) -> Result<Config<Rest>, String> {
    let environment = |name: &str| (name == "KEY").then(|| "se\"cret".to_owned());
    Config::parse(text, Use::Object, &environment).map_err(|e| e.to_string())
}

#[test]
fn rqlites_configuration_is_read() {
    let text = r#"{"version": 1, "type": "s3", "interval": "5m", "sub": {"access_key_id": "AK",
        "secret_access_key": "$KEY", "region": "eu-1", "bucket": "b", "path": "a/db.sqlite3.gz",
        "endpoint": "s3.example.com", "force_path_style": true}}"#;
    let config = parse(text).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(config.rest.interval, "5m");
    assert_eq!(config.target.to_string(), "s3://b/a/db.sqlite3.gz");
    assert_eq!(config.target.folder_and_name(), ("a", "db.sqlite3.gz"));
    let shown = format!("{:?}", config.target);
    assert!(!shown.contains("cret\""), "{shown}");
    let Target::S3(s3) = config.target else {
        panic!("another type")
    };
    assert_eq!(s3.secret_access_key.reveal(), "se\"cret");
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn what_is_wrong_is_named() {
    for (text, expected) in [
        ("", "the JSON ends early"),
        ("[]", "expected a JSON object"),
        ("{\"a\": tru}", "not valid JSON at line 1"),
        (r#"{"type":"s3","sub":{}, "version": 2}"#, "invalid version"),
        (
            r#"{"type":"s3","sub":{}, "version": "1"}"#,
            "invalid version",
        ),
        (r#"{"sub":{}}"#, "\"type\" is missing"),
        (
            r#"{"type":"ftp","sub":{}}"#,
            "unsupported storage type 'ftp'",
        ),
        (r#"{"type":"s3"}"#, "\"sub\" is missing"),
        (
            r#"{"type":"s3","sub":{"path":"a"}}"#,
            "sub.bucket is missing",
        ),
        (
            r#"{"type":"s3","sub":{"bucket":"b"}}"#,
            "sub.path is missing",
        ),
        (
            r#"{"type":"s3","sub":{"bucket":"b","path":"a/"}}"#,
            "names a folder",
        ),
        (
            r#"{"type":"s3","sub":{"bucket":"b","path":"../a"}}"#,
            "'..'",
        ),
        (
            r#"{"type":"s3","sub":{"bucket":"b","path":"a//b"}}"#,
            "sub.path: 'a//b' must not have an empty part",
        ),
        (
            r#"{"type":"s3","sub":{"bucket":"b","path":"a","bucket":"c"}}"#,
            "a key occurs twice in an object at line 1",
        ),
        (
            r#"{"type":"s3","sub":{"buckt":"b"}}"#,
            "unknown field `buckt`",
        ),
        (
            r#"{"type":"s3","sub":{"bucket":5}}"#,
            "sub.bucket: invalid type",
        ),
        (
            r#"{"type":"s3","sub":{"bucket":"b","path":"a","access_key_id":"k"}}"#,
            "must be given together",
        ),
        (
            r#"{"type":"azure","sub":{"account":"a","container":"c","name":"n","access_key":"k","sas_token":"s"}}"#,
            "not both",
        ),
        (
            r#"{"type":"file","sub":{"dir":"x","name":"n"}}"#,
            "absolute path",
        ),
        (
            r#"{"type":"file","sub":{"dir":"/x","name":"a/b"}}"#,
            "plain file name",
        ),
        (
            r#"{"type":"file","sub":{"dir":"/x","name":"$NOT"}}"#,
            "$NOT is not set",
        ),
        (
            r#"{"type":"file","intervall":"1s","sub":{"dir":"/x","name":"a"}}"#,
            "unknown field `intervall`",
        ),
    ] {
        let why = parse(text).err().unwrap_or_default();
        assert!(why.contains(expected), "{text}: {why}");
    }
}

#[test]
fn a_secret_of_another_type_is_not_shown() {
    let text = r#"{"type":"s3","sub":{"bucket":"b","path":"a","secret_access_key":123456}}"#;
    let why = parse(text).err().unwrap_or_default();
    assert!(
        why.contains("sub.secret_access_key: expected a string"),
        "{why}"
    );
    assert!(!why.contains("123456"), "{why}");
}
