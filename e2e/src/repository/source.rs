//! Reading the workspace: every Rust file with its text, its syntax tree and whether it belongs to the
//! product.
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use syn::{Attribute, File, Item};

/// What a file is part of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Area {
    /// Compiled into a program that users run.
    Product,
    /// The library and the programs below `e2e`.
    Harness,
    /// Test targets, examples, and modules that only `cfg(test)` compiles.
    Tests,
}

/// One Rust file.
pub struct Source {
    /// Path from the root of the workspace, with `/`.
    pub path: String,
    /// What is in it.
    pub text: String,
    /// The text, parsed.
    pub syntax: File,
    /// What it is part of.
    pub area: Area,
}

impl Source {
    /// Number of lines.
    #[must_use]
    pub fn lines(&self) -> usize {
        self.text.lines().count()
    }

    /// Directory of its crate and its path below that crate's `src`; `None` for test targets and examples.
    #[must_use]
    pub fn in_crate(&self) -> Option<(&str, &str)> {
        self.path.split_once("/src/")
    }
}

/// All Rust files of a checkout, sorted by path.
pub struct Repository {
    /// Where it lies.
    pub root: PathBuf,
    /// Its files.
    pub sources: Vec<Source>,
}

impl Repository {
    /// Reads and parses the files below `node`, `operator` and `e2e`.
    ///
    /// # Errors
    /// When a file cannot be read or is not Rust.
    pub fn read(root: &Path) -> Result<Self> {
        let mut waiting: Vec<PathBuf> = ["node", "operator", "e2e"].map(|d| root.join(d)).into();
        let mut sources = Vec::new();
        while let Some(path) = waiting.pop() {
            if path.is_dir() {
                for entry in fs::read_dir(&path)? {
                    waiting.push(entry?.path());
                }
            } else if path.extension().is_some_and(|e| e == "rs") {
                sources.push(read(root, &path)?);
            }
        }
        sources.sort_by(|a, b| a.path.cmp(&b.path));
        mark_test_modules(&mut sources);
        Ok(Self {
            root: root.to_owned(),
            sources,
        })
    }

    /// The product's files.
    pub fn product(&self) -> impl Iterator<Item = &Source> {
        let is_product = |source: &&Source| source.area == Area::Product;
        self.sources.iter().filter(is_product)
    }
}

fn read(root: &Path, path: &Path) -> Result<Source> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let syntax = syn::parse_file(&text).with_context(|| path.display().to_string())?;
    let path = path.strip_prefix(root)?.display().to_string();
    let area =
        if path.contains("/tests/") || path.ends_with("/tests.rs") || path.contains("/examples/") {
            Area::Tests
        } else if path.starts_with("e2e/") {
            Area::Harness
        } else {
            Area::Product
        };
    Ok(Source {
        path,
        text,
        syntax,
        area,
    })
}

/// Files that their parent declares as `#[cfg(test)] mod name;`, and what lies below them.
fn mark_test_modules(sources: &mut [Source]) {
    let mut modules = BTreeSet::new();
    for source in &*sources {
        for item in &source.syntax.items {
            if let Item::Mod(module) = item
                && module.content.is_none()
                && is_for_tests(&module.attrs)
            {
                modules.insert(child_path(&source.path, &module.ident.to_string()));
            }
        }
    }
    for source in sources {
        let stem = source.path.trim_end_matches(".rs");
        let below = |module: &String| {
            stem.strip_prefix(module.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if modules.iter().any(below) {
            source.area = Area::Tests;
        }
    }
}

/// Path without `.rs` of the module `name` that the file at `parent` declares.
fn child_path(parent: &str, name: &str) -> String {
    let stem = parent.trim_end_matches(".rs");
    let is_root = ["/lib", "/main"].iter().any(|root| stem.ends_with(root));
    let directory = if is_root {
        stem.rsplit_once('/').map_or("", |(directory, _)| directory)
    } else {
        stem
    };
    format!("{directory}/{name}")
}

/// Whether the item under these attributes is compiled for tests alone.
#[must_use]
pub fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Meta>().is_ok_and(|meta| {
                    meta.path().is_ident("test")
                        || meta.path().is_ident("all")
                            && meta.require_list().is_ok_and(|list| {
                                list.tokens
                                    .to_string()
                                    .split(", ")
                                    .any(|word| word == "test")
                            })
                })
    })
}

/// Attributes of an item of any kind.
#[must_use]
pub fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Items of a file that are not for tests alone.
pub fn product_items(file: &File) -> impl Iterator<Item = &Item> {
    file.items
        .iter()
        .filter(|item| !is_for_tests(attributes(item)))
}
