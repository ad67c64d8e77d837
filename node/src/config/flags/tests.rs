//! Tests of the grammar and of each type of value.
use std::{path::PathBuf, time::Duration};

use super::*;
use crate::config::{
    flag::{OUT_OF_RANGE, PARSE_ERROR, parse_count, parse_unsigned},
    table::defaults,
};

fn read_words(words: &[&str]) -> (Config, Result<Read, Vec<String>>) {
    let mut config = defaults();
    let read = read(words.iter().map(OsString::from), &mut config);
    (config, read)
}

fn config_of(words: &[&str]) -> Config {
    let (config, read) = read_words(words);
    assert!(matches!(read, Ok(Read::Words(_))), "{words:?}: {read:?}");
    config
}

#[test]
fn every_form_of_a_flag() {
    for words in [
        ["-join", "a:1"].as_slice(),
        &["-join=a:1"],
        &["--join", "a:1"],
        &["--join=a:1"],
    ] {
        assert_eq!(config_of(words).join(), ["a:1"], "{words:?}");
    }
    assert_eq!(
        config_of(&["-join=a", "-join=b"]).join(),
        ["b"],
        "the last one counts"
    );
    assert_eq!(config_of(&["-node-id=a=b"]).node_id, "a=b");
    assert_eq!(config_of(&["-node-id", "-fk"]).node_id, "-fk");
    assert_eq!(config_of(&["-node-id="]).node_id, "");
}

#[test]
fn where_flags_end() {
    let cases: &[(&[&str], &[&str], bool)] = &[
        (&["-fk", "d"], &["d"], true),
        (&["d", "-fk"], &["d", "-fk"], false),
        (&["--", "-fk"], &["-fk"], false),
        (&["-fk", "--", "d"], &["d"], true),
        (&["-fk", "true"], &["true"], true),
        (&["-", "-fk"], &["-", "-fk"], false),
        (&["", "-fk"], &["", "-fk"], false),
        (&[], &[], false),
    ];
    for (words, rest, fk) in cases {
        let (config, read) = read_words(words);
        assert!(
            matches!(&read, Ok(Read::Words(found)) if found == rest),
            "{words:?}: {read:?}"
        );
        assert_eq!(config.fk, *fk, "{words:?}");
    }
}

#[test]
fn errors() {
    let cases: &[(&[&str], &[&str])] = &[
        (&["-x"], &["flag provided but not defined: -x"]),
        (
            &["-raft-timeout=1s", "d"],
            &["flag provided but not defined: -raft-timeout"],
        ),
        (
            &["-on-disk-path", "p"],
            &["flag provided but not defined: -on-disk-path"],
        ),
        (
            &["-http-no-verify"],
            &["flag provided but not defined: -http-no-verify"],
        ),
        (&["-FK"], &["flag provided but not defined: -FK"]),
        (&["-join"], &["flag needs an argument: -join"]),
        (&["---fk"], &["bad flag syntax: ---fk"]),
        (&["-=x"], &["bad flag syntax: -=x"]),
        (&["--=x"], &["bad flag syntax: --=x"]),
        (
            &["-fk=yes"],
            &[r#"invalid boolean value "yes" for -fk: parse error"#],
        ),
        (
            &["-fk="],
            &[r#"invalid boolean value "" for -fk: parse error"#],
        ),
        (
            &["-join-attempts=x"],
            &[r#"invalid value "x" for flag -join-attempts: parse error"#],
        ),
        (
            &["-join-attempts=-1"],
            &[r#"invalid value "-1" for flag -join-attempts: value out of range"#],
        ),
        (
            &["-join-attempts=4294967296"],
            &[r#"invalid value "4294967296" for flag -join-attempts: value out of range"#],
        ),
        (
            &["-raft-snap=-1"],
            &[r#"invalid value "-1" for flag -raft-snap: parse error"#],
        ),
        (
            &["-join-interval", "3"],
            &[r#"invalid value "3" for flag -join-interval: parse error"#],
        ),
        (
            &["-fk=2", "-join-interval=x", "-x", "-fk=3"],
            &[
                r#"invalid boolean value "2" for -fk: parse error"#,
                r#"invalid value "x" for flag -join-interval: parse error"#,
                "flag provided but not defined: -x",
            ],
        ),
    ];
    for (words, expected) in cases {
        assert_eq!(read_words(words).1.unwrap_err(), *expected, "{words:?}");
    }
}

#[test]
fn help_is_no_error() {
    for word in ["-h", "--h", "-help", "--help"] {
        assert!(
            matches!(read_words(&["-fk", word, "-bogus"]).1, Ok(Read::Help)),
            "{word}"
        );
    }
}

#[test]
fn switches() {
    for value in ["1", "t", "T", "true", "TRUE", "True"] {
        assert!(config_of(&[&format!("-fk={value}")]).fk, "{value}");
    }
    for value in ["0", "f", "F", "false", "FALSE", "False"] {
        assert!(!config_of(&["-fk", &format!("-fk={value}")]).fk, "{value}");
    }
    assert!(!config_of(&["-raft-shutdown-stepdown=false"]).raft_shutdown_stepdown);
}

#[test]
fn numbers() {
    let good = [
        ("0", 0),
        ("+7", 7),
        ("-0", 0),
        ("8192", 8192),
        ("0x10", 16),
        ("0XfF", 255),
        ("0b101", 5),
        ("0o17", 15),
        ("017", 15),
        ("0x_1_0", 16),
    ];
    for (text, number) in good {
        assert_eq!(parse_count(text), Ok(number), "{text}");
    }
    for text in [
        "", "-", "+", "x", "1.0", "0x", "08", "1_000", "0x1__0", "0x1_", " 1", "1s", "--1", "+-1",
    ] {
        assert_eq!(parse_count(text), Err(PARSE_ERROR), "{text}");
    }
    assert_eq!(parse_unsigned("18446744073709551615"), Ok(u64::MAX));
    assert_eq!(parse_unsigned("18446744073709551616"), Err(OUT_OF_RANGE));
}

#[test]
fn other_types() {
    let config = config_of(&[
        "-extensions-path=a,,b,",
        "-auth=",
        "-http-cert=c.pem",
        "-raft-reap-node-timeout=1h",
        "-join-interval=-1s",
        "-auto-optimize-int=0",
    ]);
    assert_eq!(config.extensions_path, ["a", "b"]);
    assert_eq!(config.auth, None);
    assert_eq!(config.http_tls.cert, Some(PathBuf::from("c.pem")));
    assert_eq!(
        config.raft_reap_node_timeout,
        Some(Duration::from_secs(3600))
    );
    assert_eq!(config.raft_reap_read_only_node_timeout, None);
    assert_eq!(config.join_interval, Duration::ZERO);
    assert_eq!(config.auto_optimize_int, Duration::ZERO);
}

/// Each flag has a field of its own: setting it changes the configuration, and resetting it restores the
/// defaults.
#[test]
fn every_flag_has_its_own_field() {
    for flag in FLAGS {
        let value = match &flag.field {
            Field::Switch(_, true) => "false",
            Field::Switch(_, false) => "true",
            Field::Text(..) | Field::Path(_) | Field::List(_) => "some:1",
            Field::Count(..) | Field::Size(..) => "77",
            Field::Period(..) | Field::Limit(_) => "77s",
        };
        let mut config = defaults();
        flag.field.set(&mut config, value).unwrap();
        assert_ne!(config, defaults(), "{} sets nothing", flag.name);
        flag.field.reset(&mut config);
        assert_eq!(config, defaults(), "{} set another flag's field", flag.name);
        let same_field = FLAGS.iter().filter(|other| {
            flag.field.set(&mut config, value).unwrap();
            other.field.reset(&mut config);
            config == defaults()
        });
        assert_eq!(
            same_field.map(|other| other.name).collect::<Vec<_>>(),
            [flag.name]
        );
    }
}

#[test]
fn the_usage_shows_types_and_defaults_by_name() {
    let usage = usage();
    for line in [
        "  -auth path\n    \tCredentials file. If not set, no credentials are required",
        "  -fk\n    \tEnforce foreign keys\n",
        "  -raft-shutdown-stepdown\n    \tTransfer leadership on a graceful stop (default true)",
        "  -http-addr string\n    \tBind address of the HTTP API. HTTPS is on when a certificate and a key are set (default \"localhost:4001\")",
        "  -join-interval duration\n    \tPause between two rounds (default 3s)",
        "  -auto-optimize-int duration\n    \tInterval of automatic PRAGMA optimize; 0 is off (default 24h0m0s)",
        "  -raft-snap uint\n    \tLog entries that trigger a snapshot (default 8192)",
    ] {
        assert!(usage.contains(line), "{line}");
    }
    let names: Vec<&str> = usage
        .lines()
        .filter(|line| line.starts_with("  -"))
        .collect();
    assert_eq!(names.len(), FLAGS.len());
    assert!(names.is_sorted());
}

#[test]
fn a_word_that_is_no_text_is_a_error() {
    use std::os::unix::ffi::OsStringExt;
    let mut config = defaults();
    let words = [OsString::from("-fk"), OsString::from_vec(vec![b'd', 0xFF])];
    let errors = read(words, &mut config).unwrap_err();
    assert_eq!(errors, ["argument is not valid UTF-8: d\u{fffd}"]);
}
