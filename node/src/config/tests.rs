//! Tests of whole command lines.
use std::time::Duration;

use super::*;

fn parse_words(words: &[&str]) -> Result<Parsed, ConfigError> {
    parse(words.iter().map(OsString::from))
}

fn run(words: &[&str]) -> Box<Config> {
    match parse_words(words) {
        Ok(Parsed::Run(config)) => config,
        other => panic!("{words:?}: {other:?}"),
    }
}

fn refusal(words: &[&str]) -> ConfigError {
    match parse_words(words) {
        Err(error) => error,
        other => panic!("{words:?}: {other:?}"),
    }
}

#[test]
fn a_data_directory_is_enough() {
    let config = run(&["/data"]);
    assert_eq!(config.data_dir, Path::new("/data"));
    assert_eq!(config.http_addr, "localhost:4001");
    assert_eq!(
        (config.http_adv(), config.raft_adv()),
        ("localhost:4001", "localhost:4002")
    );
    assert_eq!(config.node_id(), "localhost:4002");
    assert_eq!(config.http_url(), "http://localhost:4001");
    assert!(config.join().is_empty());
    assert_eq!(config.disco_mode(), None);
    assert_eq!(config.leader_lease_timeout(), Duration::from_millis(500));
    assert!(config.raft_shutdown_stepdown);
    assert!(unsupported(&config).is_empty());
}

#[test]
fn derived_values_follow_what_is_given() {
    let config = run(&[
        "-http-addr=0.0.0.0:1",
        "-http-adv-addr=h:1",
        "-raft-addr=0.0.0.0:2",
        "-raft-adv-addr=h:2",
        "-join=a:1,b:2",
        "-http-cert=c",
        "-http-key=k",
        "-raft-heartbeat-timeout=250ms",
        "/data",
    ]);
    assert_eq!(
        (config.http_adv(), config.raft_adv(), config.node_id()),
        ("h:1", "h:2", "h:2")
    );
    assert_eq!(config.http_url(), "https://h:1");
    assert_eq!(config.join(), ["a:1", "b:2"]);
    assert_eq!(config.leader_lease_timeout(), Duration::from_millis(250));
    assert_eq!(run(&["-node-id", "n1", "/data"]).node_id(), "n1");
}

#[test]
fn the_data_directory_is_trimmed_and_absolute() {
    assert_eq!(run(&["  /data/x "]).data_dir, Path::new("/data/x"));
    let relative = run(&["data"]).data_dir;
    assert!(
        relative.is_absolute() && relative.ends_with("data"),
        "{}",
        relative.display()
    );
}

#[test]
fn errors_of_the_words() {
    let cases: &[(&[&str], &str)] = &[
        (
            &[],
            "failed to parse command-line flags: missing required argument: DataPath",
        ),
        (
            &["-fk"],
            "failed to parse command-line flags: missing required argument: DataPath",
        ),
        (&[""], "fatal: data directory path is required"),
        (&["  "], "fatal: data directory path is required"),
        (
            &["d", "x", "y"],
            "arguments after data directory (d) are not accepted ([x y])",
        ),
        (
            &["d", "-fk"],
            "arguments after data directory (d) are not accepted ([-fk])",
        ),
    ];
    for (words, text) in cases {
        assert_eq!(
            refusal(words),
            ConfigError {
                exit_code: 1,
                text: (*text).to_owned()
            },
            "{words:?}"
        );
    }
}

#[test]
fn all_errors_come_at_once_in_order() {
    let error = refusal(&[
        "-raft-reap-node-timeout=0s",
        "-http-addr=localhost:1",
        "-raft-addr=localhost:1",
        "-disco-mode=dns",
        "-extensions-path=/no/such/extension",
        "d",
        "more",
    ]);
    assert_eq!(error.exit_code, 1);
    assert_eq!(
        error.text,
        "fatal: -raft-reap-node-timeout must be greater than 0\n\
         arguments after data directory (d) are not accepted ([more])\n\
         fatal: extension path does not exist: /no/such/extension\n\
         fatal: HTTP and Raft addresses must differ\n\
         fatal: bootstrap-expect value required when using dns with a voting node"
    );
}

#[test]
fn misunderstood_words_come_with_the_usage() {
    let error = refusal(&["-bogus", "d"]);
    assert_eq!(error.exit_code, 2);
    assert!(
        error
            .text
            .starts_with("flag provided but not defined: -bogus\n"),
        "{error}"
    );
    assert!(
        error
            .text
            .contains("Usage: rqlited [flags] <data directory>"),
        "{error}"
    );
}

#[test]
fn help_and_version() {
    for word in ["-h", "-help", "--help"] {
        assert!(
            matches!(parse_words(&[word]), Ok(Parsed::Help(text)) if text.contains("-raft-addr string"))
        );
    }
    assert!(matches!(parse_words(&["-version"]), Ok(Parsed::Version)));
    assert!(matches!(
        parse_words(&["-version", "-join=bad", "d"]),
        Ok(Parsed::Version)
    ));
    assert!(matches!(
        parse_words(&["-version=false", "d"]),
        Ok(Parsed::Run(_))
    ));
}
