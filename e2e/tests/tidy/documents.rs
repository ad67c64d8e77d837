//! Documents name what exists, and nobody uses a word that the list bans.
use e2e::repository::{Source, root, words::Words};

use super::{complain, repository, text};

/// Their paths begin at the root of the workspace, or in a crate's `src` or a module that the text names.
const DOCUMENTS: [&str; 4] = [
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "RELEASES.md",
    "SECURITY.md",
];

#[test]
fn the_map_names_what_exists() {
    let repository = repository();
    let mut wrong = Vec::new();
    for document in DOCUMENTS {
        for word in text(document).split('`').skip(1).step_by(2) {
            let is_path = word.contains('/')
                && !word.starts_with('/')
                && !word.contains([' ', '<', '{', '*', ':']);
            let end = format!("/{}", word.trim_end_matches('/'));
            let is_source = |source: &Source| {
                source.path.ends_with(&end) || source.path.contains(&format!("{end}/"))
            };
            if is_path && !root().join(word).exists() && !repository.sources.iter().any(is_source) {
                wrong.push(format!("{document} names {word}, which does not exist"));
            }
        }
    }
    complain(&wrong);
}

/// After a path of a test in backquotes and a colon, SECURITY.md names tests in it, or rows of the scenarios.
#[test]
fn each_answer_to_a_threat_has_its_test() {
    let security = text("SECURITY.md");
    let mut parts = security.split('`');
    let mut wrong = Vec::new();
    let mut found = 0;
    parts.next();
    while let (Some(path), Some(after)) = (parts.next(), parts.next()) {
        let Some(names) = after.strip_prefix(": ").filter(|_| path.ends_with(".rs")) else {
            continue;
        };
        let tests = std::fs::read_to_string(root().join(path)).unwrap_or_default();
        let ends = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ',' || c == ' ');
        let names = names.split(ends).next().unwrap_or_default();
        for name in names
            .split(", ")
            .map(str::trim)
            .filter(|name| !name.is_empty())
        {
            found += 1;
            let there =
                tests.contains(&format!("fn {name}(")) || tests.contains(&format!("(\"{name}\","));
            if !there {
                wrong.push(format!(
                    "SECURITY.md names {name} in {path}, where it is not"
                ));
            }
        }
    }
    assert!(found >= 20, "only {found} tests are named");
    complain(&wrong);
}

#[test]
fn banned_words_are_not_used() {
    let words = Words::parse(&text("e2e/words.txt")).expect("a list of words");
    let mut wrong = Vec::new();
    for (index, places) in words.hits(&repository()).expect("readable documents") {
        let banned = words.banned.get(index).expect("an entry of the list");
        if places.len() > banned.allowance {
            wrong.push(format!(
                "{} is used {} times, {} are tolerated; write instead: {}\n  {}",
                banned.word,
                places.len(),
                banned.allowance,
                banned.instead,
                places.join("\n  ")
            ));
        }
    }
    complain(&wrong);
}
