//! Decisions are plain functions of values: no I/O, no clock, no chance, nothing asynchronous.
use e2e::repository::{Area, Source, imports::paths};

use super::{complain, is_in, repository};

/// Modules that only decide, and functions or types that do in modules that also act. A directory stands for
/// all files in it.
const DECIDERS: &[(&str, Option<&str>)] = &[
    ("node/src/cluster/decide", None),
    ("node/src/entrypoint/decide", None),
    ("node/src/http_api/connections", Some("choose_to_close")),
    ("node/src/internode_server/admission", Some("standing")),
    ("node/src/internode_server/admission", Some("admission")),
    ("node/src/prepare/decide", None),
    ("node/src/raft/maintenance/members", Some("to_reap")),
    ("node/src/raft/maintenance/storage", Some("checkpoint_due")),
    ("node/src/raft/maintenance/storage", Some("urgency")),
    ("node/src/raft/membership", Some("plan_join")),
    ("node/src/raft/membership", Some("plan_removal")),
    ("node/src/raft/membership", Some("promotable")),
    ("node/src/raft/network/server", Some("admit")),
    ("node/src/raft/storage/log/integrity", Some("classify")),
    ("node/src/raft/transfer", Some("choose_target")),
    ("node/src/store/compare", Some("find_majority")),
    ("node/src/store/compare", Some("may_leave")),
    ("node/src/store/level", None),
    ("node/src/store/auto_maintenance/times", Some("Times")),
    ("node/src/version", None),
    ("operator/src/cluster", None),
];

/// Beginnings of paths that reach outside of the program.
const REACHES_OUT: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io::Read",
    "std::io::Write",
    "std::io::stderr",
    "std::io::stdin",
    "std::io::stdout",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::ToSocketAddrs",
    "std::net::UdpSocket",
    "std::process",
    "std::thread",
    "fastrand",
    "getrandom",
    "kube::Api",
    "kube::Client",
    "kube::runtime",
    "rand",
    "reqwest",
    "rustix",
    "tokio",
];

/// Ends of paths that read a clock or wait.
const WAITS: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "async",
    "await",
    "elapsed",
];

fn faults(source: &Source, function: Option<&str>) -> Vec<String> {
    let begins = |path: &str, with: &str| {
        path.strip_prefix(with)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    let ends = |path: &str, with: &str| {
        path.strip_suffix(with)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with("::"))
    };
    let is_fault = |path: &String| {
        REACHES_OUT.iter().any(|out| begins(path, out)) || WAITS.iter().any(|wait| ends(path, wait))
    };
    paths(source, function)
        .into_iter()
        .filter(is_fault)
        .collect()
}

#[test]
fn decisions_have_no_hands() {
    let repository = repository();
    let mut wrong = Vec::new();
    for (place, function) in DECIDERS {
        let files = repository
            .product()
            .filter(|source| is_in(source, &[place]));
        let files: Vec<_> = match function {
            None => files.collect(),
            Some(name) => files
                .filter(|source| !paths(source, Some(name)).is_empty())
                .collect(),
        };
        if files.is_empty() {
            wrong.push(format!(
                "{place}: {} does not exist",
                function.unwrap_or("the module")
            ));
        }
        for source in files {
            for fault in faults(source, *function) {
                wrong.push(format!(
                    "{}: a plain function of values names {fault}",
                    source.path
                ));
            }
        }
    }
    complain(&wrong);
}

#[test]
fn a_decision_that_reads_a_clock_is_found() {
    let text = "use std::time::Instant;\nfn pure(a: u8) -> u8 { a }\nasync fn impure() { tokio::time::sleep(X).await; Instant::now() }";
    let source = Source {
        path: "node/src/x.rs".to_owned(),
        text: text.to_owned(),
        syntax: syn::parse_file(text).expect("Rust"),
        area: Area::Product,
    };
    assert_eq!(faults(&source, Some("pure")), Vec::<String>::new());
    let found = [
        "async",
        "await",
        "std::time::Instant::now",
        "tokio::time::sleep",
    ];
    assert_eq!(faults(&source, Some("impure")), found);
    assert_eq!(faults(&source, None), found);
}
