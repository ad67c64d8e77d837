//! Rules of the repository that a command can check: arrows between rooms, first lines, sizes, names in the map.
#![expect(
    clippy::expect_used,
    reason = "a test that cannot read the repository has failed"
)]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A room is split before it grows past this.
const MAX_FILE_LINES: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("e2e lies in the workspace")
        .to_owned()
}

/// All sources below these folders of the workspace, with their text.
fn sources(folders: &[&str]) -> Vec<(String, String)> {
    let root = root();
    let mut waiting: Vec<PathBuf> = folders.iter().map(|f| root.join(f)).collect();
    let mut found = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a readable folder");
            waiting.extend(entries.map(|e| e.expect("a readable entry").path()));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let name = path
                .strip_prefix(&root)
                .expect("below the root")
                .display()
                .to_string();
            found.push((name, fs::read_to_string(&path).expect("readable UTF-8")));
        }
    }
    assert!(found.len() > 10, "{folders:?} hold sources");
    found.sort();
    found
}

fn complaints(found: Vec<String>) {
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for_and_stays_small() {
    let mut wrong = Vec::new();
    for (name, text) in sources(&["node", "e2e"]) {
        if !text.starts_with("//! ") {
            wrong.push(format!(
                "{name}: the first line does not say what the file is for"
            ));
        }
        let lines = text.lines().count();
        if lines > MAX_FILE_LINES {
            wrong.push(format!("{name}: {lines} lines, more than {MAX_FILE_LINES}"));
        }
        if name.ends_with("/mod.rs") {
            wrong.push(format!("{name}: modules are named foo.rs, not foo/mod.rs"));
        }
    }
    complaints(wrong);
}

/// `(what may not be named, where it may)`: libraries that belong to one room.
const OWNED: &[(&str, &[&str])] = &[
    ("openraft::", &["node/src/raft"]),
    ("raft_log::", &["node/src/raft"]),
    ("rusqlite::", &["node/db", "e2e"]),
    ("hyper::", &["node/src/http_api"]),
];

#[test]
fn libraries_stay_in_their_rooms() {
    let mut wrong = Vec::new();
    for (name, text) in sources(&["node", "e2e/src"]) {
        for (library, rooms) in OWNED {
            let allowed = rooms.iter().any(|room| name.starts_with(room));
            for (number, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                if !allowed && code.contains(library) {
                    wrong.push(format!(
                        "{name}:{}: {library} is named outside of {rooms:?}",
                        number + 1
                    ));
                }
            }
        }
    }
    complaints(wrong);
}

/// `(room, rooms of the node that it must not use)`.
const ARROWS: &[(&str, &[&str])] = &[
    (
        "node/src/config",
        &[
            "raft",
            "store",
            "cluster",
            "http_api",
            "internode_server",
            "run",
            "internode",
        ],
    ),
    (
        "node/src/identity.rs",
        &[
            "raft",
            "store",
            "cluster",
            "http_api",
            "internode_server",
            "run",
            "internode",
            "config",
        ],
    ),
    (
        "node/src/command.rs",
        &[
            "raft",
            "store",
            "cluster",
            "http_api",
            "internode_server",
            "run",
            "internode",
            "config",
        ],
    ),
    (
        "node/src/internode/wire.rs",
        &[
            "raft",
            "store",
            "cluster",
            "http_api",
            "internode_server",
            "run",
            "config",
        ],
    ),
    (
        "node/src/internode",
        &[
            "raft",
            "store",
            "cluster",
            "http_api",
            "internode_server",
            "run",
            "config",
        ],
    ),
    (
        "node/src/raft",
        &[
            "store",
            "cluster",
            "http_api",
            "internode_server",
            "run",
            "config",
        ],
    ),
    (
        "node/src/store",
        &["cluster", "http_api", "internode_server", "run", "config"],
    ),
    (
        "node/src/cluster",
        &["http_api", "internode_server", "run", "config"],
    ),
    (
        "node/src/http_api",
        &["raft", "cluster", "internode_server", "run", "internode"],
    ),
];

/// The rooms that a source names by `crate::room` or in a `use crate::{…}` list.
fn rooms_used(text: &str) -> Vec<String> {
    let mut used = Vec::new();
    let mut in_list = false;
    for line in text.lines() {
        let code = line.split("//").next().unwrap_or_default();
        for part in code.split("crate::").skip(1) {
            let room: String = part
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            used.push(room);
        }
        if in_list && code.starts_with("    ") && !code.starts_with("     ") {
            used.push(
                code.trim()
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect(),
            );
        }
        if code.starts_with("use crate::{") {
            in_list = !code.contains(';');
            let inner = code
                .trim_start_matches("use crate::{")
                .trim_end_matches("};");
            used.extend(
                inner
                    .split(',')
                    .map(|p| p.trim().split("::").next().unwrap_or_default().to_owned()),
            );
        } else if in_list && code.starts_with("};") {
            in_list = false;
        }
    }
    used
}

#[test]
fn arrows_point_one_way() {
    let mut wrong = Vec::new();
    for (name, text) in sources(&["node/src"]) {
        for (room, forbidden) in ARROWS {
            let inside = name == *room
                || name.starts_with(&format!("{room}/"))
                || name == format!("{room}.rs");
            // A room's tests may put other rooms together around it.
            if !inside || name.ends_with("/tests.rs") {
                continue;
            }
            for used in rooms_used(&text) {
                if forbidden.contains(&used.as_str()) {
                    wrong.push(format!("{name}: {room} must not use {used}"));
                }
            }
        }
    }
    complaints(wrong);
}

#[test]
fn decisions_have_no_hands() {
    let mut wrong = Vec::new();
    for name in ["node/src/store/level.rs", "node/src/cluster/decide.rs"] {
        let text = fs::read_to_string(root().join(name)).expect("the decision exists");
        for word in ["async ", "tokio", "Instant::now", "rand::", "std::fs"] {
            if text.contains(word) {
                wrong.push(format!(
                    "{name}: a decision is a plain function of values, but it names {word}"
                ));
            }
        }
    }
    complaints(wrong);
}

#[test]
fn the_contract_crate_knows_no_machinery() {
    let manifest = fs::read_to_string(root().join("node/api/Cargo.toml")).expect("its manifest");
    for word in [
        "tokio", "axum", "hyper", "rusqlite", "openraft", "kube", "node-db",
    ] {
        assert!(
            !manifest.contains(word),
            "node-api must not depend on {word}"
        );
    }
}

#[test]
fn the_map_names_what_exists() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("the map");
    let mut wrong = Vec::new();
    for word in map.split('`').skip(1).step_by(2) {
        let is_path = word.contains('/') && !word.contains([' ', '<', '{', '*', ':']);
        if is_path && !root().join(word).exists() {
            wrong.push(format!(
                "ARCHITECTURE.md names {word}, which does not exist"
            ));
        }
    }
    complaints(wrong);
}
