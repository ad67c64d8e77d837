//! Which file of a crate uses names of which other file.
//!
//! A name counts for the file that defines it, however many re-exports lie between. A `mod` declaration and a
//! re-export that the file itself does not use are no imports; neither are modules for tests. Method calls
//! are invisible here.
use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Item, UseTree, Visibility};

use super::source::{Area, Repository, Source, product_items};

/// Longest chain of re-exports that is followed.
const MAX_REEXPORTS: usize = 8;

/// `(importing file, imported file)` by path, each pair once.
pub type Imports = BTreeSet<(String, String)>;

/// The imports between files of one crate, for all crates, without files for tests.
#[must_use]
pub fn imports(repository: &Repository) -> Imports {
    let mut crates: BTreeMap<String, Vec<Module<'_>>> = BTreeMap::new();
    let relevant = |source: &&Source| source.area != Area::Tests;
    let has_library = |directory: &str| {
        let library = format!("{directory}/src/lib.rs");
        repository.sources.iter().any(|s| s.path == library)
    };
    for source in repository.sources.iter().filter(relevant) {
        if let Some((key, path)) = place(source, has_library) {
            crates
                .entry(key)
                .or_default()
                .push(Module::read(source, path));
        }
    }
    let mut found = Imports::new();
    for modules in crates.values() {
        let tree = Tree::new(modules);
        for (index, module) in modules.iter().enumerate() {
            for target in tree.used_by(index) {
                if let Some(target) = modules.get(target).filter(|_| target != index) {
                    found.insert((module.file.to_owned(), target.file.to_owned()));
                }
            }
        }
    }
    found
}

/// The names and paths in a file's code outside of tests, its `use` items among them, or in one function or
/// type of it with its methods. A path begins where its `use` item begins: behind `use tokio::time;` the path
/// `time::sleep` is `tokio::time::sleep`.
///
/// Empty if there is no such item.
#[must_use]
pub fn paths(source: &Source, item: Option<&str>) -> BTreeSet<String> {
    let whole = Module::read(source, Vec::new());
    let part = item.map(|name| {
        let mut module = Module::new(source, Vec::new());
        product_items(&source.syntax)
            .filter(|item| {
                name_of(item)
                    .or_else(|| implemented(item))
                    .is_some_and(|n| n == name)
            })
            .for_each(|item| module.add(item));
        module
    });
    let part = part.as_ref().unwrap_or(&whole);
    let expanded = |path: &[String]| {
        let alias = path.first().and_then(|first| whole.used.get(first));
        match (alias, path.split_first()) {
            (Some(used), Some((_, rest))) => [&used.path, rest].concat().join("::"),
            _ => path.join("::"),
        }
    };
    let uses = part.used.values().chain(&part.globs);
    let uses = uses.map(|used| used.path.join("::"));
    let inline = part.inline.iter().map(|path| expanded(path));
    let names = part
        .names
        .iter()
        .map(|name| expanded(std::slice::from_ref(name)));
    uses.chain(inline).chain(names).collect()
}

/// The crate that a file is compiled in, and the path of its module there.
fn place(source: &Source, has_library: impl Fn(&str) -> bool) -> Option<(String, Vec<String>)> {
    let (directory, below) = source.in_crate()?;
    let stem = below.trim_end_matches(".rs");
    if stem.starts_with("bin/") {
        return Some((format!("{directory}/{stem}"), Vec::new()));
    }
    // `main.rs` beside `lib.rs` uses the library by its name, as any other crate does.
    if stem == "main" && has_library(directory) {
        return Some((format!("{directory}/main"), Vec::new()));
    }
    let path = match stem {
        "lib" | "main" => Vec::new(),
        _ => stem.split('/').map(str::to_owned).collect(),
    };
    Some((directory.to_owned(), path))
}

/// A name that a `use` item brings into a file.
#[derive(Debug)]
struct Used {
    path: Vec<String>,
    is_reexport: bool,
}

#[derive(Debug)]
struct Module<'a> {
    file: &'a str,
    path: Vec<String>,
    /// Items that it defines, modules among them.
    defined: BTreeSet<String>,
    used: BTreeMap<String, Used>,
    /// Paths before `::*`.
    globs: Vec<Used>,
    /// Paths of two segments and more in its code.
    inline: BTreeSet<Vec<String>>,
    /// Single names in its code.
    names: BTreeSet<String>,
}

impl<'a> Module<'a> {
    fn new(source: &'a Source, path: Vec<String>) -> Self {
        Self {
            file: &source.path,
            path,
            defined: BTreeSet::new(),
            used: BTreeMap::new(),
            globs: Vec::new(),
            inline: BTreeSet::new(),
            names: BTreeSet::new(),
        }
    }

    fn read(source: &'a Source, path: Vec<String>) -> Self {
        let mut module = Self::new(source, path);
        for item in product_items(&source.syntax) {
            module.add(item);
        }
        module
    }

    fn add(&mut self, item: &Item) {
        if let Item::Use(item) = item {
            let is_reexport = !matches!(item.vis, Visibility::Inherited);
            self.add_use(&item.tree, Vec::new(), is_reexport);
            return;
        }
        if let Some(name) = name_of(item) {
            self.defined.insert(name);
        }
        if !matches!(item, Item::Mod(module) if module.content.is_none()) {
            self.scan(item.to_token_stream());
        }
    }

    fn add_use(&mut self, tree: &UseTree, mut before: Vec<String>, is_reexport: bool) {
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.add_use(&path.tree, before, is_reexport);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.add_use(tree, before.clone(), is_reexport);
                }
            }
            UseTree::Glob(_) => self.globs.push(Used {
                path: before,
                is_reexport,
            }),
            UseTree::Name(name) => {
                let name = name.ident.to_string();
                if name != "self" {
                    before.push(name);
                }
                if let Some(name) = before.last().cloned() {
                    self.used.insert(
                        name,
                        Used {
                            path: before,
                            is_reexport,
                        },
                    );
                }
            }
            UseTree::Rename(rename) => {
                let name = rename.ident.to_string();
                if name != "self" {
                    before.push(name);
                }
                self.used.insert(
                    rename.rename.to_string(),
                    Used {
                        path: before,
                        is_reexport,
                    },
                );
            }
        }
    }

    /// Paths in code, macros' arguments included.
    fn scan(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.end_path(&mut path);
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.end_path(&mut path);
                    colons = 0;
                    self.scan(group.stream());
                }
                _ => {
                    self.end_path(&mut path);
                    colons = 0;
                }
            }
        }
        self.end_path(&mut path);
    }

    fn end_path(&mut self, path: &mut Vec<String>) {
        let path = std::mem::take(path);
        if let [name] = path.as_slice() {
            self.names.insert(name.clone());
        } else if !path.is_empty() {
            self.inline.insert(path);
        }
    }
}

fn name_of(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Mod(item) => &item.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

/// The type that an `impl` block without a trait belongs to.
fn implemented(item: &Item) -> Option<String> {
    let Item::Impl(item) = item else {
        return None;
    };
    match &*item.self_ty {
        syn::Type::Path(path) if item.trait_.is_none() => path
            .path
            .segments
            .last()
            .map(|segment| segment.ident.to_string()),
        _ => None,
    }
}

/// The modules of one crate.
struct Tree<'a> {
    modules: &'a [Module<'a>],
    by_path: BTreeMap<&'a [String], usize>,
}

impl<'a> Tree<'a> {
    fn new(modules: &'a [Module<'a>]) -> Self {
        let by_path = modules
            .iter()
            .enumerate()
            .map(|(index, module)| (module.path.as_slice(), index))
            .collect();
        Self { modules, by_path }
    }

    /// The files whose names the module at `index` uses.
    fn used_by(&self, index: usize) -> BTreeSet<usize> {
        let mut targets = BTreeSet::new();
        let Some(module) = self.modules.get(index) else {
            return targets;
        };
        for (name, used) in &module.used {
            if !used.is_reexport || module.names.contains(name) {
                targets.extend(self.resolve(index, &used.path, 0));
            }
        }
        for glob in module.globs.iter().filter(|glob| !glob.is_reexport) {
            let path = self.absolute(index, &glob.path);
            targets.extend(path.and_then(|path| self.by_path.get(path.as_slice()).copied()));
        }
        for path in &module.inline {
            targets.extend(self.resolve(index, path, 0));
        }
        targets
    }

    /// The path from the crate's root; `None` where the first name is not one of this crate's.
    fn absolute(&self, index: usize, path: &[String]) -> Option<Vec<String>> {
        let module = self.modules.get(index)?;
        let (first, mut rest) = path.split_first()?;
        let mut base = match first.as_str() {
            "crate" => Vec::new(),
            "self" => module.path.clone(),
            "super" => parent(&module.path)?,
            name if module.defined.contains(name) => {
                let mut path = module.path.clone();
                path.push(name.to_owned());
                path
            }
            name => {
                let used = module.used.get(name)?;
                // `use name;` or `use name::{self}` of another crate.
                if used.path.first() == Some(first) {
                    return None;
                }
                self.absolute(index, &used.path)?
            }
        };
        while let Some((first, after)) = rest.split_first()
            && first == "super"
        {
            base = parent(&base)?;
            rest = after;
        }
        base.extend_from_slice(rest);
        Some(base)
    }

    /// The file that defines what `path` names in the module at `index`; `None` for other crates' names and
    /// for modules.
    fn resolve(&self, index: usize, path: &[String], depth: usize) -> Option<usize> {
        let path = self.absolute(index, path)?;
        self.definition(&path, depth)
    }

    fn definition(&self, path: &[String], depth: usize) -> Option<usize> {
        if depth > MAX_REEXPORTS {
            return None;
        }
        let (length, index) = (0..=path.len())
            .rev()
            .find_map(|n| Some((n, *self.by_path.get(path.get(..n)?)?)))?;
        let name = path.get(length)?;
        let module = self.modules.get(index)?;
        if module.defined.contains(name) {
            return Some(index);
        }
        if let Some(used) = module.used.get(name) {
            let mut longer = self.absolute(index, &used.path)?;
            longer.extend_from_slice(path.get(length + 1..).unwrap_or_default());
            return self.definition(&longer, depth + 1);
        }
        let through_glob = module.globs.iter().find_map(|glob| {
            let mut longer = self.absolute(index, &glob.path)?;
            let target = *self.by_path.get(longer.as_slice())?;
            let names = &self.modules.get(target)?.defined;
            longer.push(name.clone());
            names
                .contains(name)
                .then(|| self.definition(&longer, depth + 1))?
        });
        Some(through_glob.unwrap_or(index))
    }
}

fn parent(path: &[String]) -> Option<Vec<String>> {
    let (_, rest) = path.split_last()?;
    Some(rest.to_vec())
}
