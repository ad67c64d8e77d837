//! Tests with tables of arguments and environments.
use super::*;

/// `/etc/hosts` of a pod of a StatefulSet.
const POD_HOSTS: &str = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n10.244.1.2\trq-0.rq.ns.svc.cluster.local\trq-0\n";

fn decided(words: &[&str], variables: &[(&str, &str)]) -> Result<Start, String> {
    decided_at(POD_HOSTS, words, variables)
}

fn decided_at(hosts: &str, words: &[&str], variables: &[(&str, &str)]) -> Result<Start, String> {
    let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
    let variables = variables
        .iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let container = Container {
        variables: &variables,
        hosts,
        host_name: "rq-0",
        exists: &|path| path == "/opt/extensions/icu.zip" || path == "/opt/extensions/vec.zip",
    };
    decide(&words, &container)
}

fn node(words: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
    match decided(words, variables) {
        Ok(Start::Own { words, .. }) => words,
        other => panic!("{words:?} {variables:?}: {other:?}"),
    }
}

fn mistake(words: &[&str], variables: &[(&str, &str)]) -> String {
    match decided(words, variables) {
        Err(mistake) => mistake,
        other => panic!("{words:?} {variables:?}: {other:?}"),
    }
}

#[test]
fn without_words_and_variables_it_is_a_node_of_this_name() {
    let expected = [
        "-http-addr=0.0.0.0:4001",
        "-http-adv-addr=rq-0.rq.ns.svc.cluster.local:4001",
        "-raft-addr=0.0.0.0:4002",
        "-raft-adv-addr=rq-0.rq.ns.svc.cluster.local:4002",
        "-node-id=rq-0",
        "/rqlite/file/data",
    ];
    assert_eq!(node(&[], &[]), expected);
    assert_eq!(node(&["run"], &[]), expected);
}

#[test]
fn variables_become_flags_and_flags_count_more() {
    let variables = [
        ("HTTP_ADDR", "h:1"),
        ("HTTP_ADV_ADDR", "h:2"),
        ("RAFT_ADDR", "r:1"),
        ("RAFT_ADV_ADDR", "r:2"),
        ("NODE_ID", "n"),
        ("DATA_DIR", "/d"),
        ("ENABLE_FK", "0"),
        ("SQLITE_EXTENSIONS", "icu, vec"),
        ("CUSTOM_SQLITE_EXTENSIONS_PATH", "/mine"),
    ];
    assert_eq!(
        node(&["run"], &variables),
        [
            "-http-addr=h:1",
            "-http-adv-addr=h:2",
            "-raft-addr=r:1",
            "-raft-adv-addr=r:2",
            "-node-id=n",
            "-extensions-path=/opt/extensions/icu.zip,/opt/extensions/vec.zip,/mine",
            "-fk",
            "/d",
        ]
    );
    let given = [
        "-http-addr=x:1",
        "--http-adv-addr",
        "x:2",
        "-raft-addr=x:3",
        "-raft-adv-addr=x:4",
        "-node-id",
        "x",
        "-fk=false",
    ];
    let with_given = node(&given, &variables);
    assert_eq!(
        with_given[0],
        "-extensions-path=/opt/extensions/icu.zip,/opt/extensions/vec.zip,/mine"
    );
    assert_eq!(with_given[1..9], given);
    assert_eq!(with_given[9..], ["/d"]);
}

#[test]
fn an_empty_variable_is_none() {
    let variables = [
        ("HTTP_ADDR", ""),
        ("ENABLE_FK", ""),
        ("DATA_DIR", ""),
        ("SQLITE_EXTENSIONS", ""),
    ];
    assert_eq!(node(&[], &variables), node(&[], &[]));
}

#[test]
fn the_full_name_is_that_of_the_hosts_file() {
    let cases = [
        ("", "rq-0"),
        ("10.0.0.1 other", "rq-0"),
        ("10.0.0.1 rq-0", "rq-0"),
        ("10.0.0.1 rq-0.a rq-0 # own", "rq-0.a"),
        ("10.0.0.1 no # rq-0", "rq-0"),
        ("127.0.0.1 localhost rq-0\n10.0.0.1 rq-0.b rq-0", "rq-0.b"),
        ("127.0.0.1 localhost rq-0", "rq-0"),
        ("fd00::1 rq-0.six rq-0", "rq-0.six"),
    ];
    for (hosts, expected) in cases {
        match decided_at(hosts, &[], &[]) {
            Ok(Start::Own { words, .. }) => {
                assert_eq!(
                    words[3],
                    format!("-raft-adv-addr={expected}:4002"),
                    "{hosts}"
                );
            }
            other => panic!("{hosts}: {other:?}"),
        }
    }
}

#[test]
fn other_words_are_programs() {
    let other = |program: &str, words: &[&str]| Start::Other {
        program: program.to_owned(),
        words: words.iter().map(|&word| word.to_owned()).collect(),
    };
    let set = [("HTTP_ADDR", "h:1"), ("START_DELAY", "9")];
    assert_eq!(
        decided(&["rqlite", "-H", "h"], &set),
        Ok(other("rqlite", &["-H", "h"]))
    );
    assert_eq!(
        decided(&["rqlited", "-version"], &set),
        Ok(other("rqlited", &["-version"]))
    );
    for word in SUBCOMMANDS {
        let words = vec![word.to_owned(), "/d".to_owned()];
        assert_eq!(
            decided(&[word, "/d"], &set),
            Ok(Start::Own {
                words,
                delay: Duration::ZERO
            })
        );
    }
}

#[test]
fn the_delay_lets_names_settle_in_kubernetes() {
    let pod = ("KUBERNETES_SERVICE_HOST", "10.96.0.1");
    let cases: &[(&[(&str, &str)], f64)] = &[
        (&[], 0.0),
        (&[pod], 5.0),
        (&[pod, ("START_DELAY", "")], 5.0),
        (&[pod, ("START_DELAY", "0")], 0.0),
        (&[("START_DELAY", "1.5")], 1.5),
        (&[("START_DELAY", "3600")], 3600.0),
    ];
    for (variables, expected) in cases {
        match decided(&["-fk"], variables) {
            Ok(Start::Own { delay, .. }) => {
                assert_eq!(delay, Duration::from_secs_f64(*expected), "{variables:?}");
            }
            other => panic!("{variables:?}: {other:?}"),
        }
    }
    for value in ["5s", "-1", "NaN", "3601", "1e300"] {
        assert_eq!(
            mistake(&[], &[("START_DELAY", value)]),
            format!("START_DELAY is {value:?}: it must be a number of seconds from 0 to 3600")
        );
    }
}

#[test]
fn mistakes() {
    assert_eq!(
        mistake(&[], &[("SQLITE_EXTENSIONS", "icu,none")]),
        "SQLite extension none does not exist"
    );
    for variable in [
        ("SQLITE_EXTENSIONS", "icu"),
        ("CUSTOM_SQLITE_EXTENSIONS_PATH", "/x"),
    ] {
        let text = mistake(&["-extensions-path=/y"], &[variable]);
        assert!(
            text.contains("-extensions-path: use one of the two ways"),
            "{text}"
        );
    }
    let text = mistake(&["run", "-fk"], &[]);
    assert!(text.contains("leave run out"), "{text}");
}
