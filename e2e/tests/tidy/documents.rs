//! Documents name what exists, and nobody uses a word that the list bans.
use e2e::repository::{Source, root, words::Words};

use super::{complain, repository, text};

/// Their paths begin at the root of the workspace, or in a crate's `src` or a module that the text names.
const DOCUMENTS: [&str; 3] = ["ARCHITECTURE.md", "CONTRIBUTING.md", "RELEASES.md"];

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
