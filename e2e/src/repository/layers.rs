//! The layers of each crate (`e2e/layers.txt`) and the imports that point upwards.
//!
//! The list has one section for each directory of modules: `[node/src]`, then one line for each layer, lowest
//! first. `raft` is the file `raft.rs` and all below `raft/`. A file imports its own module and modules of
//! lower layers, never one of its own layer or above. A section for a directory inside (`[node/src/raft]`)
//! orders that module's children; the parent file `raft.rs` is free there. `from -> to: reason` allows one
//! import between files in spite of the order.
//! `circle FILE FILE: reason` allows these files to need each other.
use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};

use super::{imports::Imports, source::Repository};

/// The parsed list.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// Height of each module, by section.
    sections: BTreeMap<String, BTreeMap<String, usize>>,
    /// Allowed imports with their reasons.
    allowed: BTreeMap<(String, String), String>,
    /// Allowed circles of imports.
    circles: Vec<BTreeSet<String>>,
}

impl Layers {
    /// Reads the list; `#` begins a comment.
    ///
    /// # Errors
    /// When a line is none of these kinds, a module is listed twice or an exception has no reason.
    pub fn parse(text: &str) -> Result<Self> {
        let mut layers = Self::default();
        let mut section: Option<(String, usize)> = None;
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                layers.sections.insert(name.to_owned(), BTreeMap::new());
                section = Some((name.to_owned(), 0));
            } else if let Some(rest) = line.strip_prefix("circle ") {
                let (files, _) = rest
                    .split_once(": ")
                    .with_context(|| format!("{line:?} gives no reason"))?;
                let files = files.split_whitespace().map(str::to_owned);
                layers.circles.push(files.collect());
            } else if let Some((from, rest)) = line.split_once(" -> ") {
                let (to, reason) = rest
                    .split_once(": ")
                    .with_context(|| format!("{line:?} gives no reason"))?;
                let pair = (from.to_owned(), to.to_owned());
                layers.allowed.insert(pair, reason.to_owned());
            } else {
                let (name, height) = section.as_mut().context("a layer before any section")?;
                *height += 1;
                let modules = layers.sections.entry(name.clone()).or_default();
                for module in line.split_whitespace() {
                    if modules.insert(module.to_owned(), *height).is_some() {
                        bail!("{module} is listed twice in [{name}]");
                    }
                }
            }
        }
        Ok(layers)
    }

    /// Names of the sections.
    pub fn sections(&self) -> impl Iterator<Item = &str> {
        self.sections.keys().map(String::as_str)
    }

    /// Whether an exception allows this import.
    #[must_use]
    pub fn allows(&self, from: &str, to: &str) -> bool {
        self.allowed.contains_key(&(from.to_owned(), to.to_owned()))
    }

    /// The circles that the list allows.
    #[must_use]
    pub fn circles(&self) -> &[BTreeSet<String>] {
        &self.circles
    }

    /// Exceptions that no import needs.
    #[must_use]
    pub fn unused_exceptions(&self, imports: &Imports) -> Vec<String> {
        let against = self.against(imports, false);
        self.allowed
            .keys()
            .filter(|(from, to)| !against.contains(&format!("{from} -> {to}")))
            .map(|(from, to)| format!("{from} -> {to}"))
            .collect()
    }

    /// Imports against the order, as `from -> to`. With `except`, without those that the list allows.
    #[must_use]
    pub fn against(&self, imports: &Imports, except: bool) -> Vec<String> {
        let is_wrong = |from: &str, to: &str| {
            self.sections.iter().any(|(section, modules)| {
                let height = |file| modules.get(module_of(section, file)?);
                match (height(from), height(to)) {
                    (Some(own), Some(other)) => {
                        module_of(section, from) != module_of(section, to) && own <= other
                    }
                    _ => false,
                }
            })
        };
        imports
            .iter()
            .filter(|(from, to)| is_wrong(from, to) && !(except && self.allows(from, to)))
            .map(|(from, to)| format!("{from} -> {to}"))
            .collect()
    }

    /// Files below a section whose module is not in it, and modules listed that do not exist.
    #[must_use]
    pub fn gaps(&self, repository: &Repository) -> Vec<String> {
        let mut gaps = Vec::new();
        for (section, modules) in &self.sections {
            let files = repository.sources.iter();
            let relevant = files.filter(|s| s.area != super::Area::Tests);
            let here: Vec<_> = relevant
                .filter_map(|s| Some((module_of(section, &s.path)?, &s.path)))
                .collect();
            for (module, path) in &here {
                if !modules.contains_key(*module) {
                    gaps.push(format!("{path}: {module} has no layer in [{section}]"));
                }
            }
            for module in modules.keys() {
                if !here.iter().any(|(name, _)| name == module) {
                    gaps.push(format!("[{section}] lists {module}, which does not exist"));
                }
            }
        }
        gaps
    }
}

/// The module of a section that a file belongs to: the first name below the section's directory.
fn module_of<'a>(section: &str, file: &'a str) -> Option<&'a str> {
    let below = file.strip_prefix(section)?.strip_prefix('/')?;
    let name = below.split('/').next()?;
    let name = name.strip_suffix(".rs").unwrap_or(name);
    // The root only declares modules and starts; programs in `bin/` are crates of their own.
    (!matches!(name, "lib" | "main" | "bin")).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_of_the_same_layer_or_above_is_against_the_order() {
        let layers =
            Layers::parse("[a]\nlow\nmid beside # comment\ntop\na/low.rs -> a/top.rs: a reason\n")
                .unwrap();
        let pair = |(a, b): (&str, &str)| (a.to_owned(), b.to_owned());
        let imports: Imports = [
            ("a/top.rs", "a/low.rs"),
            ("a/mid/x.rs", "a/mid.rs"),
            ("a/mid/x.rs", "a/beside.rs"),
            ("a/low.rs", "a/top.rs"),
        ]
        .map(pair)
        .into();
        assert_eq!(
            layers.against(&imports, true),
            ["a/mid/x.rs -> a/beside.rs"]
        );
        assert_eq!(layers.against(&imports, false).len(), 2);
        assert!(layers.unused_exceptions(&imports).is_empty());
    }

    #[test]
    fn a_list_with_a_mistake_is_refused() {
        for text in ["low", "[a]\nlow\nlow", "[a]\na/x.rs -> a/y.rs"] {
            assert!(Layers::parse(text).is_err(), "{text}");
        }
    }
}
