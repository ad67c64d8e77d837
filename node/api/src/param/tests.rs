//! Tables of query strings.
use super::*;
use proptest::prelude::*;

fn parse(raw: &str) -> QueryParams {
    QueryParams::parse(raw).unwrap_or_else(|error| panic!("{raw}: {error}"))
}

#[test]
fn refusals() {
    let cases = [
        ("a=%zz", r#"invalid URL escape "%zz""#),
        ("%4=1", r#"invalid URL escape "%4""#),
        ("pretty&x=%", r#"invalid URL escape "%""#),
        ("x=%%41", r#"invalid URL escape "%%4""#),
        ("q=SELECT;1", "invalid semicolon separator in query"),
        (";", "invalid semicolon separator in query"),
        ("freshness_strict", "freshness_strict requires freshness"),
        ("timeout=1", "timeout is not a valid duration"),
        ("timeout", "timeout is not a valid duration"),
        ("freshness=x", "freshness is not a valid duration"),
        ("db_timeout=10", "db_timeout is not a valid duration"),
        (
            "linearizable_timeout=1y",
            "linearizable_timeout is not a valid duration",
        ),
        ("retries=x", "retries is not a valid integer"),
        ("retries=", "retries is not a valid integer"),
        ("retries=1.0", "retries is not a valid integer"),
        (
            "trailing_logs=99999999999999999999",
            "trailing_logs is not a valid integer",
        ),
        ("q=", "query parameter not set"),
        ("q", "query parameter not set"),
        ("q=&q=SELECT", "query parameter not set"),
    ];
    for (raw, text) in cases {
        assert_eq!(
            QueryParams::parse(raw).unwrap_err().to_string(),
            text,
            "{raw}"
        );
    }
}

#[test]
fn nothing_said_is_the_default() {
    for raw in ["", "&", "&&", "unknown=1", "Pretty", "=x"] {
        assert_eq!(parse(raw), QueryParams::default(), "{raw}");
    }
    let params = QueryParams::default();
    assert_eq!(params.timeout, Duration::from_secs(30));
    assert_eq!(params.linearizable_timeout, Duration::from_secs(10));
    assert_eq!(params.level, Level::Weak);
}

#[test]
fn switches_are_true_by_presence() {
    const SWITCHES: [&str; 20] = [
        "pretty",
        "timings",
        "associative",
        "blob_array",
        "qualify_columns",
        "transaction",
        "redirect",
        "queue",
        "wait",
        "noleader",
        "raft_index",
        "noparse",
        "norwrandom",
        "norwtime",
        "vacuum",
        "compress",
        "nonvoters",
        "sync",
        "bypass",
        "freshness_strict",
    ];
    for name in SWITCHES {
        for form in ["", "=", "=true", "=false", "=0"] {
            let mut params = parse(&format!("freshness=0s&{name}{form}"));
            assert!(*params.switch(name).unwrap(), "{name}{form}");
            *params.switch(name).unwrap() = false;
            assert_eq!(
                params,
                QueryParams::default(),
                "{name} turned on something else"
            );
        }
    }
}

#[test]
fn values() {
    let params = parse(
        "level=STRONG&freshness=1.5s&freshness_strict&timeout=5s&db_timeout=10ms&linearizable_timeout=2s&retries=3\
         &trailing_logs=7&q=SELECT%20*+FROM%20t%3B&fmt=sql&tables=a,%20b,,c&ver=2&key=store.raft&pretty",
    );
    assert_eq!(params.level, Level::Strong);
    assert_eq!(params.freshness, Duration::from_millis(1500));
    assert!(params.freshness_strict && params.pretty);
    assert_eq!(params.timeout, Duration::from_secs(5));
    assert_eq!(params.db_timeout, Some(Duration::from_millis(10)));
    assert_eq!(params.linearizable_timeout, Duration::from_secs(2));
    assert_eq!((params.retries, params.trailing_logs), (3, 7));
    assert_eq!(params.q.as_deref(), Some("SELECT * FROM t;"));
    assert_eq!(params.fmt, BackupFormat::Sql);
    assert_eq!(params.tables, ["a", "b", "c"]);
    assert!(params.nodes_v2());
    assert_eq!(params.key.as_deref(), Some("store.raft"));
}

#[test]
fn edges_of_values() {
    assert_eq!(parse("level=none&level=strong").level, Level::None);
    assert_eq!(parse("level=bogus").level, Level::Weak);
    assert_eq!(parse("l%65vel=auto").level, Level::Auto);
    assert_eq!(parse("level=Linearizable").level, Level::Linearizable);
    assert_eq!(parse("db_timeout=0s").db_timeout, None);
    assert_eq!(parse("timeout=0").timeout, Duration::ZERO);
    assert_eq!(parse("freshness=-1s").freshness, Duration::ZERO);
    assert_eq!(parse("retries=-1").retries, 0);
    assert_eq!(parse("retries=%2B2").retries, 2);
    assert_eq!(parse("fmt=DELETE").fmt, BackupFormat::Delete);
    assert_eq!(parse("fmt=other").fmt, BackupFormat::Binary);
    assert_eq!(parse("q=a=b").q.as_deref(), Some("a=b"));
    assert_eq!(parse("q=%ff").q.as_deref(), Some("\u{fffd}"));
    assert!(!parse("ver=1").nodes_v2());
}

proptest! {
    #[test]
    fn no_query_string_panics(raw in ".*") {
        let _ = QueryParams::parse(&raw);
    }

    #[test]
    fn escaped_text_arrives(text in ".+") {
        let escaped: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        prop_assert_eq!(parse(&format!("pretty&q={escaped}")).q, Some(text));
    }
}
