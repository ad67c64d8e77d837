//! Rules of the repository that a command can check: sizes, first lines, layers, import circles, pure
//! decisions, words.
//!
//! `cargo run -p e2e --bin figures -- --details` prints what these tests count.
#![expect(
    clippy::expect_used,
    reason = "a test that cannot read the repository has failed"
)]

mod decisions;
mod documents;
mod files;
mod libraries;
mod modules;

use std::fs;

use e2e::repository::{Repository, Source, root};

fn repository() -> Repository {
    Repository::read(&root()).expect("readable Rust files")
}

/// Text of a file, by its path from the root of the workspace.
fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).expect(path)
}

/// Whether a file is one of these files or lies below one of these directories or modules.
fn is_in(source: &Source, places: &[&str]) -> bool {
    let stem = source.path.trim_end_matches(".rs");
    places.iter().any(|place| {
        stem.strip_prefix(place.trim_end_matches(".rs"))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

#[track_caller]
fn complain(found: &[String]) {
    let number = found.len();
    assert!(number == 0, "{number} found:\n{}", found.join("\n"));
}
