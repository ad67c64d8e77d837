//! Circles of imports: sets of files each of which needs every other (strongly connected components, Tarjan
//! 1972).
use std::collections::{BTreeMap, BTreeSet};

use super::imports::Imports;

/// The circles of two files and more, largest first, each sorted.
#[must_use]
pub fn circles(imports: &Imports) -> Vec<Vec<String>> {
    let mut edges: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (from, to) in imports {
        edges.entry(from).or_default().push(to);
        edges.entry(to).or_default();
    }
    let mut search = Search {
        edges: &edges,
        order: BTreeMap::new(),
        stack: Vec::new(),
        found: Vec::new(),
    };
    for file in edges.keys() {
        if !search.order.contains_key(file) {
            search.visit(file);
        }
    }
    let mut found = search.found;
    found.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    found
}

struct Search<'a> {
    edges: &'a BTreeMap<&'a str, Vec<&'a str>>,
    /// When each file was first reached.
    order: BTreeMap<&'a str, usize>,
    /// Files reached whose circle is not complete.
    stack: Vec<&'a str>,
    found: Vec<Vec<String>>,
}

impl<'a> Search<'a> {
    /// Returns the earliest file on the stack that `file` leads to. Recursion is as deep as the longest chain
    /// of imports.
    fn visit(&mut self, file: &'a str) -> usize {
        let mine = self.order.len();
        self.order.insert(file, mine);
        self.stack.push(file);
        let mut lowest = mine;
        for target in self.edges.get(file).into_iter().flatten() {
            let reached = match self.order.get(target) {
                None => self.visit(target),
                Some(order) if self.stack.contains(target) => *order,
                Some(_) => continue,
            };
            lowest = lowest.min(reached);
        }
        if lowest == mine {
            let start = self.stack.iter().position(|f| *f == file).unwrap_or(0);
            let circle: BTreeSet<String> = self.stack.drain(start..).map(str::to_owned).collect();
            if circle.len() > 1 {
                self.found.push(circle.into_iter().collect());
            }
        }
        lowest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(edges: &[(&str, &str)]) -> Vec<Vec<String>> {
        let own = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
        circles(&edges.iter().map(own).collect())
    }

    #[test]
    fn files_that_need_each_other_are_one_circle() {
        assert_eq!(of(&[("a", "b"), ("b", "c")]), Vec::<Vec<String>>::new());
        let found = of(&[
            ("a", "b"),
            ("b", "a"),
            ("b", "c"),
            ("c", "d"),
            ("d", "e"),
            ("e", "c"),
        ]);
        assert_eq!(found, [vec!["c", "d", "e"], vec!["a", "b"]]);
    }
}
