//! Documentation before and after: a random sample of public items of an older checkout beside what became of
//! each.
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use super::{
    Repository,
    items::{Documented, public_items},
};
use crate::seed::Seed;

/// Least share of common words by which an item counts as a renamed one.
const MIN_LIKENESS: f64 = 0.3;

/// `number` documented public items of the product in `before`, chosen by `seed`, and their counterparts in
/// `after`, as Markdown.
///
/// A counterpart has the same file and name, else the same kind and name, else the likest documentation among
/// the new items of the same kind.
#[must_use]
pub fn sample(before: &Repository, after: &Repository, number: usize, seed: u64) -> String {
    let documented = |repository: &Repository| -> Vec<Documented> {
        let items = repository.product().flat_map(public_items);
        items.filter(|item| !item.docs.is_empty()).collect()
    };
    let (old, new) = (documented(before), documented(after));
    let counterparts = Counterparts::new(&old, &new);
    let mut seed_stream = Seed::new(seed);
    let mut left: Vec<&Documented> = old.iter().collect();
    let mut out = format!("{number} of {} items, seed {seed}.\n", old.len());
    for place in 1..=number.min(old.len()) {
        let item = left.swap_remove(seed_stream.index(left.len()));
        let _ = writeln!(
            out,
            "\n{place}. {}\n{}",
            title(item),
            quoted("before", &item.docs)
        );
        match counterparts.of(item) {
            Some(found) if found.docs == item.docs && found.name == item.name => {
                out.push_str("   > after: the same\n");
            }
            Some(found) => {
                let _ = writeln!(out, "   {}\n{}", title(found), quoted("after", &found.docs));
            }
            None => out.push_str("   > after: the item is gone\n"),
        }
    }
    out
}

fn title(item: &Documented) -> String {
    format!(
        "`{}` {} ({}:{})",
        item.name, item.kind, item.file, item.line
    )
}

fn quoted(label: &str, docs: &str) -> String {
    let lines: Vec<String> = docs.lines().map(|line| format!("   > {line}")).collect();
    format!("   > {label}:\n{}", lines.join("\n"))
}

struct Counterparts<'a> {
    by_place: BTreeMap<(&'a str, &'a str), &'a Documented>,
    by_name: BTreeMap<(&'static str, &'a str), Vec<&'a Documented>>,
    /// Items whose kind and name the older checkout does not have.
    renamed: Vec<&'a Documented>,
}

impl<'a> Counterparts<'a> {
    fn new(old: &'a [Documented], new: &'a [Documented]) -> Self {
        let known: BTreeSet<_> = old
            .iter()
            .map(|item| (item.kind, item.name.as_str()))
            .collect();
        let mut by_name: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for item in new {
            by_name
                .entry((item.kind, item.name.as_str()))
                .or_default()
                .push(item);
        }
        let is_new = |item: &&Documented| !known.contains(&(item.kind, item.name.as_str()));
        Self {
            by_place: new
                .iter()
                .map(|item| ((item.file.as_str(), item.name.as_str()), item))
                .collect(),
            by_name,
            renamed: new.iter().filter(is_new).collect(),
        }
    }

    fn of(&self, item: &Documented) -> Option<&'a Documented> {
        if let Some(found) = self.by_place.get(&(item.file.as_str(), item.name.as_str())) {
            return Some(found);
        }
        let named = self.by_name.get(&(item.kind, item.name.as_str()));
        let by_name = likest(item, named.into_iter().flatten().copied(), 0.0);
        let same_kind = self
            .renamed
            .iter()
            .copied()
            .filter(|new| new.kind == item.kind);
        by_name.or_else(|| likest(item, same_kind, MIN_LIKENESS))
    }
}

/// The one with the most words in common, if the share is at least `least`.
fn likest<'a>(
    item: &Documented,
    among: impl Iterator<Item = &'a Documented>,
    least: f64,
) -> Option<&'a Documented> {
    let words = |item: &Documented| -> BTreeSet<String> {
        let text = format!("{} {} {}", item.file, item.name, item.docs).to_lowercase();
        let words = text.split(|c: char| !c.is_alphanumeric());
        words
            .filter(|word| word.len() > 2)
            .map(str::to_owned)
            .collect()
    };
    let own = words(item);
    let likeness = |other: &Documented| {
        let other = words(other);
        let count = |n: usize| u32::try_from(n).map_or(f64::MAX, f64::from);
        count(own.intersection(&other).count()) / count(own.union(&other).count().max(1))
    };
    among
        .map(|other| (likeness(other), other))
        .filter(|(likeness, _)| *likeness >= least)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, other)| other)
}
