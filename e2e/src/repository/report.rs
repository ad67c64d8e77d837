//! The figures of a checkout as a table: sizes, circles, arrows, comments, words.
use std::fmt::Write;

use anyhow::Result;

use super::{
    Area, Repository, Source,
    circles::circles,
    imports::{Imports, imports},
    items::{functions, public_items},
    layers::Layers,
    text::wide_comments,
    words::Words,
};

/// A line with a comment has at most so many columns, indentation and slashes included.
pub const MAX_COMMENT_COLUMNS: usize = 110;
/// A file has at most so many lines.
pub const MAX_FILE_LINES: usize = 600;
/// A function has at most so many lines from `fn` to its closing brace, blank lines and comments among them.
pub const MAX_FUNCTION_LINES: usize = 70;

/// The table in Markdown; `details` adds what each figure counted.
///
/// # Errors
/// When a document cannot be read.
pub fn report(
    repository: &Repository,
    layers: &Layers,
    words: &Words,
    details: bool,
) -> Result<String> {
    let mut table = Table::default();
    table.file_rows(repository);
    table.function_rows(repository);
    let documented = Columns::of(repository, |source| {
        let items = public_items(source).into_iter();
        items.map(|item| !item.docs.is_empty()).collect()
    });
    table.row(
        "public items documented",
        &documented.map(|items| {
            let with = items.iter().filter(|is_documented| **is_documented).count();
            format!("{with} of {}", items.len())
        }),
    );
    let wide = Columns::of(repository, |source| {
        let lines = wide_comments(&source.text, MAX_COMMENT_COLUMNS).into_iter();
        lines
            .map(|(line, width)| format!("{}:{line}: {width}", source.path))
            .collect()
    });
    table.counted("comment lines wider than 110 columns", &wide);
    table.import_rows(repository, layers);
    table.word_row(repository, words)?;
    Ok(if details {
        table.rows() + &table.notes
    } else {
        table.rows()
    })
}

/// A value for the product and one for tests and harness.
struct Columns<T> {
    product: T,
    rest: T,
}

impl<T> Columns<T> {
    fn map<U>(&self, f: impl Fn(&T) -> U) -> Columns<U> {
        Columns {
            product: f(&self.product),
            rest: f(&self.rest),
        }
    }
}

impl<T> Columns<Vec<T>> {
    /// What `f` finds in each file.
    fn of(repository: &Repository, f: impl Fn(&Source) -> Vec<T>) -> Self {
        let mut columns = Self {
            product: Vec::new(),
            rest: Vec::new(),
        };
        for source in &repository.sources {
            let is_product = source.area == Area::Product;
            columns.column(is_product).extend(f(source));
        }
        columns
    }

    fn column(&mut self, is_product: bool) -> &mut Vec<T> {
        if is_product {
            &mut self.product
        } else {
            &mut self.rest
        }
    }
}

#[derive(Default)]
struct Table {
    rows: Vec<(String, Columns<String>)>,
    notes: String,
}

impl Table {
    fn row(&mut self, name: &str, values: &Columns<String>) {
        self.rows.push((name.to_owned(), values.map(String::clone)));
    }

    /// A row with the number of findings; the findings themselves become a note.
    fn counted(&mut self, name: &str, found: &Columns<Vec<String>>) {
        self.row(name, &found.map(|list| list.len().to_string()));
        self.note(name, found);
    }

    fn note(&mut self, name: &str, found: &Columns<Vec<String>>) {
        let all = [found.product.as_slice(), &found.rest].concat();
        if !all.is_empty() {
            let _ = writeln!(self.notes, "\n{name}\n  {}", all.join("\n  "));
        }
    }

    fn rows(&self) -> String {
        let mut out = String::from("| figure | product | tests and harness |\n|---|---|---|\n");
        for (name, values) in &self.rows {
            let _ = writeln!(out, "| {name} | {} | {} |", values.product, values.rest);
        }
        out
    }

    fn file_rows(&mut self, repository: &Repository) {
        let lines = Columns::of(repository, |source| vec![source.lines()]);
        self.row("files", &lines.map(|list| list.len().to_string()));
        self.row(
            "lines",
            &lines.map(|list| list.iter().sum::<usize>().to_string()),
        );
        self.row(
            "lines of a file, median/p90/max",
            &lines.map(|list| spread(list)),
        );
        let paths = |is_wrong: fn(&Source) -> bool| {
            Columns::of(repository, |source| {
                let path = is_wrong(source).then(|| source.path.clone());
                path.into_iter().collect()
            })
        };
        let large = paths(|source| source.lines() > MAX_FILE_LINES);
        self.counted("files over 600 lines", &large);
        let untitled = paths(|source| !source.text.starts_with("//! "));
        self.counted("files without a first line", &untitled);
    }

    fn function_rows(&mut self, repository: &Repository) {
        let mut sizes = Columns {
            product: Vec::new(),
            rest: Vec::new(),
        };
        let mut long = Columns {
            product: Vec::new(),
            rest: Vec::new(),
        };
        for source in &repository.sources {
            for function in functions(source) {
                let is_product = source.area == Area::Product && !function.is_test;
                sizes.column(is_product).push(function.lines);
                if function.lines > MAX_FUNCTION_LINES {
                    long.column(is_product).push(format!(
                        "{}:{}: {} has {} lines",
                        source.path, function.line, function.name, function.lines
                    ));
                }
            }
        }
        self.row("functions", &sizes.map(|list| list.len().to_string()));
        self.row(
            "lines of a function, median/p90/max",
            &sizes.map(|list| spread(list)),
        );
        self.counted("functions over 70 lines", &long);
    }

    fn import_rows(&mut self, repository: &Repository, layers: &Layers) {
        let is_harness = |(from, _): &(String, String)| from.starts_with("e2e/");
        let (rest, product): (Imports, Imports) =
            imports(repository).into_iter().partition(is_harness);
        let imports = Columns { product, rest };
        self.row(
            "imports between files",
            &imports.map(|pairs| pairs.len().to_string()),
        );
        let circles = imports.map(circles);
        self.row(
            "files in each import circle",
            &circles.map(|found| {
                let sizes: Vec<String> = found.iter().map(|c| c.len().to_string()).collect();
                if sizes.is_empty() {
                    "none".to_owned()
                } else {
                    sizes.join(", ")
                }
            }),
        );
        let named = circles.map(|found| found.iter().map(|c| c.join(" ")).collect());
        self.note("import circles", &named);
        let against = imports.map(|pairs| layers.against(pairs, false));
        self.counted("arrows against the layers", &against);
        let gaps = layers.gaps(repository);
        let gaps = gaps.into_iter().partition(|gap| !gap.contains("e2e/"));
        self.counted(
            "files without a layer",
            &Columns {
                product: gaps.0,
                rest: gaps.1,
            },
        );
    }

    fn word_row(&mut self, repository: &Repository, words: &Words) -> Result<()> {
        let products: Vec<&str> = repository.product().map(|s| s.path.as_str()).collect();
        let is_product = |place: &str| {
            let file = place.rsplit_once(':').map_or(place, |(file, _)| file);
            products.contains(&file)
        };
        let mut hits = Columns {
            product: Vec::new(),
            rest: Vec::new(),
        };
        for (index, places) in words.hits(repository)? {
            if let Some(banned) = words.banned.get(index) {
                for place in places {
                    let is_product = is_product(&place);
                    let hit = format!("{place}: {} ({})", banned.word, banned.instead);
                    hits.column(is_product).push(hit);
                }
            }
        }
        self.counted("banned words", &hits);
        Ok(())
    }
}

/// Median, 90th percentile and largest.
fn spread(sizes: &[usize]) -> String {
    let mut sizes = sizes.to_vec();
    sizes.sort_unstable();
    let at = |part: usize| {
        let index = (sizes.len() * part / 100).min(sizes.len().saturating_sub(1));
        sizes.get(index).copied().unwrap_or_default()
    };
    format!("{}/{}/{}", at(50), at(90), at(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_names_median_p90_and_largest() {
        let sizes: Vec<usize> = (1..=100).rev().collect();
        assert_eq!(spread(&sizes), "51/91/100");
        assert_eq!(spread(&[]), "0/0/0");
    }
}
