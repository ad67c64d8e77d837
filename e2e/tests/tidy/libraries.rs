//! Which crates depend on which, which modules may name a library, and where the wall clock is read.
use e2e::repository::imports::paths;

use super::{complain, is_in, repository, text};

/// `(beginning of a path, modules that may name it)`.
const OWNED: &[(&str, &[&str])] = &[
    ("openraft", &["node/src/raft"]),
    ("raft_log", &["node/src/raft"]),
    ("rusqlite", &["node/db"]),
    (
        "hyper",
        &[
            "node/src/http_api",
            "node/src/health",
            "operator/src/node_client",
            "operator/plugin/src/node",
            "operator/src/run",
        ],
    ),
];

/// `(crate, crates of the workspace that it may depend on outside of its tests)`.
const CRATES: &[(&str, &[&str])] = &[
    (
        "node",
        &[
            "node-api",
            "node-archive",
            "node-contract",
            "node-db",
            "node-objects",
            "node-values",
        ],
    ),
    ("node/api", &["node-contract", "node-values"]),
    ("node/archive", &["node-contract", "node-objects"]),
    ("node/contract", &[]),
    ("node/db", &["node-values"]),
    ("node/histogram", &[]),
    ("node/objects", &["node-contract", "node-trust"]),
    ("node/shell", &["node-contract", "node-trust"]),
    ("node/trust", &[]),
    ("node/values", &[]),
    ("operator", &["node-contract", "operator-api"]),
    ("operator/api", &["node-contract"]),
    ("operator/plugin", &["node-contract", "operator-api"]),
    ("e2e", &["node-contract"]),
    ("e2e/kubernetes", &["e2e"]),
    ("e2e/operator", &["e2e", "e2e-kubernetes"]),
];

/// `(crate, libraries that it must not depend on)`: crates that are values and nothing else.
const WITHOUT: &[(&str, &[&str])] = &[
    ("node/api", MACHINERY),
    ("node/contract", MACHINERY),
    ("node/values", MACHINERY),
    ("node/db", &["axum", "hyper", "kube", "openraft"]),
    (
        "operator/api",
        &["tokio", "axum", "hyper", "rusqlite", "openraft"],
    ),
];

/// Runtimes, servers, databases, clients.
const MACHINERY: &[&str] = &["tokio", "axum", "hyper", "rusqlite", "openraft", "kube"];

/// Ends of paths that read the wall clock.
const WALL_CLOCK: &[&str] = &["SystemTime::now", "Timestamp::now"];

/// Modules that read it, with the reason. Everything else is given the time or measures with `Instant`.
const READS_WALL_CLOCK: &[(&str, &str)] = &[
    ("node/src/clock", "the node's own"),
    (
        "node/db/src/sqlite/vfs",
        "the time that SQLite asks its file system for",
    ),
    (
        "operator/plugin/src/act",
        "the annotation that asks for a restart",
    ),
    (
        "operator/plugin/src/drill",
        "the annotation that asks for a drill",
    ),
    ("operator/src/events", "the time of an event"),
    ("operator/src/evidence", "given to the deciders"),
    (
        "operator/src/lease",
        "the Lease's renewal time, for other candidates to read",
    ),
    ("operator/src/live", "the age of pods of unknown origin"),
    ("operator/src/observe", "given to the deciders"),
];

#[test]
fn libraries_stay_in_their_rooms() {
    let mut wrong = Vec::new();
    for source in repository().product() {
        for path in paths(source, None) {
            for (library, modules) in OWNED {
                let rest = path.strip_prefix(library);
                if rest.is_some_and(|rest| rest.starts_with("::")) && !is_in(source, modules) {
                    wrong.push(format!(
                        "{}: {path} is named outside of {modules:?}",
                        source.path
                    ));
                }
            }
        }
    }
    complain(&wrong);
}

#[test]
fn the_wall_clock_is_read_in_few_places() {
    let places = READS_WALL_CLOCK.iter().map(|(place, _)| *place);
    let places: Vec<&str> = places.collect();
    let mut wrong = Vec::new();
    for source in repository().product() {
        for path in paths(source, None) {
            if WALL_CLOCK.iter().any(|end| path.ends_with(end)) && !is_in(source, &places) {
                wrong.push(format!("{}: {path} outside of {places:?}", source.path));
            }
        }
    }
    complain(&wrong);
}

/// Keys of a manifest's `[dependencies]`.
fn dependencies(crate_path: &str) -> Vec<String> {
    let manifest = text(&format!("{crate_path}/Cargo.toml"));
    let section = manifest
        .split("\n[")
        .find(|section| section.starts_with("dependencies]"));
    let lines = section.unwrap_or_default().lines().skip(1);
    let key = |line: &str| Some(line.split(['=', '.', ' ']).next()?.trim().to_owned());
    lines
        .filter(|line| !line.starts_with('#') && line.contains('='))
        .filter_map(key)
        .collect()
}

/// Names of the packages of the workspace.
fn packages() -> Vec<String> {
    let name = |(place, _): &(&str, &[&str])| {
        let manifest = text(&format!("{place}/Cargo.toml"));
        let line = manifest
            .lines()
            .find_map(|line| line.strip_prefix("name = \""));
        line.map(|rest| rest.trim_end_matches('"').to_owned())
    };
    CRATES.iter().filter_map(name).collect()
}

#[test]
fn crates_depend_one_way() {
    let packages = packages();
    let mut wrong = Vec::new();
    for (place, allowed) in CRATES {
        for dependency in dependencies(place) {
            if packages.contains(&dependency) && !allowed.contains(&dependency.as_str()) {
                wrong.push(format!("{place} must not depend on {dependency}"));
            }
        }
    }
    let members = text("Cargo.toml");
    let line = members.lines().find(|line| line.starts_with("members"));
    for member in line.unwrap_or_default().split('"').skip(1).step_by(2) {
        if !CRATES.iter().any(|(place, _)| *place == member) {
            wrong.push(format!("{member} is not in the list of crates"));
        }
    }
    complain(&wrong);
}

#[test]
fn the_contract_crate_knows_no_machinery() {
    let mut wrong = Vec::new();
    for (place, libraries) in WITHOUT {
        for dependency in dependencies(place) {
            if libraries.contains(&dependency.as_str()) {
                wrong.push(format!("{place} must not depend on {dependency}"));
            }
        }
    }
    complain(&wrong);
}
