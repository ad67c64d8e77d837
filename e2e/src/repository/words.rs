//! Words that the project does not use (`e2e/words.txt`) and where they are used all the same.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, Result, bail};
use regex::{Regex, RegexBuilder};

use super::{
    items::test_names,
    source::{Repository, Source},
    text::{Kind, parts},
};

/// What is searched besides Rust files: documents, manifests, scripts.
const DOCUMENTS: [&str; 12] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "GLOSSARY.md",
    "README.md",
    "RELEASES.md",
    "charts",
    "crds",
    "manifests",
    "node",
    "operator",
    "e2e",
];

/// One entry of the list.
#[derive(Debug)]
pub struct Banned {
    /// The word as listed.
    pub word: String,
    /// What to write instead.
    pub instead: String,
    /// Hits that are tolerated until they are gone.
    pub allowance: usize,
    pattern: Regex,
    places: Places,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Places {
    /// Names of the code alone: the word is plain English elsewhere.
    Names,
    /// Comments, strings and documents.
    Text,
    /// Comments and strings of Rust files alone.
    Code,
    /// Everywhere.
    All,
}

/// The parsed list.
#[derive(Debug, Default)]
pub struct Words {
    /// Its entries in order.
    pub banned: Vec<Banned>,
    /// Texts within which nothing is banned: terms of rqlite, SQLite and Kubernetes.
    except: Vec<Regex>,
}

impl Words {
    /// Reads the list: `name|text|code|word PATTERN: instead` or `except PATTERN: reason`, `#` begins a
    /// comment. A pattern is a regular expression without regard to case, for whole words of text or of a
    /// name: `wheel` hits `StopWheel` and `wheel_rope`. A pattern with a capital letter regards case: `Ask`
    /// hits the type, not the function `ask`. `[n]` before `:` tolerates n hits.
    ///
    /// # Errors
    /// When a line has another form.
    pub fn parse(text: &str) -> Result<Self> {
        let mut words = Self::default();
        for line in text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
        {
            let (left, instead) = line
                .split_once(": ")
                .with_context(|| format!("{line:?} has no `: `"))?;
            let (left, allowance) = match left.split_once(" [") {
                Some((left, number)) => (left, number.trim_end_matches(']').parse()?),
                None => (left, 0),
            };
            let (kind, word) = left
                .split_once(' ')
                .with_context(|| format!("{line:?} has no kind"))?;
            let pattern = RegexBuilder::new(&format!(r"\b(?:{word})\b"))
                .case_insensitive(!word.contains(char::is_uppercase))
                .build()
                .with_context(|| format!("{word:?}"))?;
            let places = match kind {
                "name" => Places::Names,
                "text" => Places::Text,
                "code" => Places::Code,
                "word" => Places::All,
                "except" => {
                    words.except.push(pattern);
                    continue;
                }
                _ => bail!("{line:?}: {kind} is no kind"),
            };
            words.banned.push(Banned {
                word: word.to_owned(),
                instead: instead.to_owned(),
                allowance,
                pattern,
                places,
            });
        }
        Ok(words)
    }

    /// Where each listed word is used, as `file:line`, by its place in the list.
    ///
    /// # Errors
    /// When a document cannot be read.
    pub fn hits(&self, repository: &Repository) -> Result<BTreeMap<usize, Vec<String>>> {
        let mut hits = BTreeMap::new();
        for source in &repository.sources {
            self.in_source(source, &mut hits);
        }
        for name in DOCUMENTS {
            self.in_documents(&repository.root, &repository.root.join(name), &mut hits)?;
        }
        Ok(hits)
    }

    fn in_source(&self, source: &Source, hits: &mut BTreeMap<usize, Vec<String>>) {
        // Test names are sentences and may use any word.
        let tests = test_names(source);
        let mut clean: BTreeSet<&str> = BTreeSet::new();
        let stem = source.path.rsplit('/').next().unwrap_or_default();
        self.search(Places::Names, &split(stem), &source.path, 1, hits);
        for part in parts(&source.text) {
            let is_name = part.kind == Kind::Name;
            if is_name && (tests.contains(part.text) || clean.contains(part.text)) {
                continue;
            }
            let (places, text) = if is_name {
                (Places::Names, split(part.text))
            } else {
                (Places::Code, part.text.to_owned())
            };
            let text = self.cleaned(&text);
            let number = self.search(places, &text, &source.path, part.line, hits);
            if is_name && number == 0 {
                clean.insert(part.text);
            }
        }
    }

    fn in_documents(
        &self,
        root: &Path,
        path: &Path,
        hits: &mut BTreeMap<usize, Vec<String>>,
    ) -> Result<()> {
        if path.is_dir() {
            for entry in fs::read_dir(path)? {
                self.in_documents(root, &entry?.path(), hits)?;
            }
        } else if path.extension().is_some_and(|e| {
            ["md", "yaml", "txt", "json"]
                .iter()
                .any(|known| e == *known)
        }) && !path.ends_with("e2e/words.txt")
            && path.exists()
        {
            let name = path.strip_prefix(root)?.display().to_string();
            for (number, line) in fs::read_to_string(path)?.lines().enumerate() {
                self.search(Places::Text, &self.cleaned(line), &name, number + 1, hits);
            }
        }
        Ok(())
    }

    fn cleaned(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for except in &self.except {
            text = except.replace_all(&text, "").into_owned();
        }
        text
    }

    fn search(
        &self,
        places: Places,
        text: &str,
        file: &str,
        line: usize,
        hits: &mut BTreeMap<usize, Vec<String>>,
    ) -> usize {
        let mut number = 0;
        for (index, banned) in self.banned.iter().enumerate() {
            let is_searched = match banned.places {
                Places::All => true,
                Places::Text => places != Places::Names,
                other => other == places,
            };
            if !is_searched {
                continue;
            }
            for _ in banned.pattern.find_iter(text) {
                let place = format!("{file}:{line}");
                hits.entry(index).or_default().push(place);
                number += 1;
            }
        }
        number
    }
}

/// The words of a name: `StopWheel` and `stop_wheel` become `Stop Wheel` and `stop wheel`.
fn split(name: &str) -> String {
    let mut words = String::new();
    let mut before = ' ';
    for c in name.chars() {
        if c == '_' || c == '.' {
            words.push(' ');
        } else {
            if c.is_uppercase() && before.is_lowercase() {
                words.push(' ');
            }
            words.push(c);
        }
        before = c;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_found_in_names_and_text_by_its_kind() {
        let words = Words::parse("# comment\nword wheel: disk\nname Spoke: Ray\ntext made round: rounded\nexcept wheel house: a term\n").unwrap();
        let text = "// The wheel turns; the wheel house does not. Spoke was made round.\nstruct StopWheel; enum Spoke {} fn spoke() {}\n#[test]\nfn a_wheel() {}\n";
        let source = Source {
            path: "node/src/x.rs".to_owned(),
            text: text.to_owned(),
            syntax: syn::parse_file(text).unwrap(),
            area: super::super::Area::Product,
        };
        let mut hits = BTreeMap::new();
        words.in_source(&source, &mut hits);
        let at = |lines: &[usize]| {
            lines
                .iter()
                .map(|l| format!("node/src/x.rs:{l}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            hits,
            BTreeMap::from([(0, at(&[1, 2])), (1, at(&[2])), (2, at(&[1]))])
        );
    }

    #[test]
    fn a_list_with_a_mistake_is_refused() {
        for text in [
            "word wheel",
            "wheel: x",
            "other wheel: x",
            "word wheel [x]: y",
        ] {
            assert!(Words::parse(text).is_err(), "{text}");
        }
    }
}
