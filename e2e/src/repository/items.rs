//! Functions with their sizes, and items with their documentation.
use std::collections::BTreeSet;

use proc_macro2::Span;
use syn::{
    Attribute, Block, Expr, Fields, ImplItem, Item, ItemImpl, Lit, Meta, Signature, TraitItem,
    Visibility, visit::Visit,
};

use super::source::{Source, attributes, is_for_tests};

/// A function with a body.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Line of `fn`.
    pub line: usize,
    /// Lines from `fn` to the closing brace.
    pub lines: usize,
    /// Whether it is for tests alone.
    pub is_test: bool,
    /// Whether it is itself a test: `#[test]` and its like of other libraries.
    pub is_case: bool,
}

/// The functions of a file, methods and inner functions among them.
#[must_use]
pub fn functions(source: &Source) -> Vec<Function> {
    let mut collector = Functions {
        found: Vec::new(),
        is_test: source.area == super::Area::Tests,
    };
    collector.visit_file(&source.syntax);
    collector.found
}

struct Functions {
    found: Vec<Function>,
    is_test: bool,
}

impl Functions {
    fn add(&mut self, signature: &Signature, block: &Block, attributes: &[Attribute]) {
        let line = signature.fn_token.span.start().line;
        let end = block.brace_token.span.close().end().line;
        self.found.push(Function {
            name: signature.ident.to_string(),
            line,
            lines: end + 1 - line,
            is_test: self.is_test,
            is_case: is_test_function(attributes),
        });
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item(&mut self, item: &'ast Item) {
        let before = self.is_test;
        self.is_test |= is_for_tests(attributes(item));
        syn::visit::visit_item(self, item);
        self.is_test = before;
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.add(&item.sig, &item.block, &item.attrs);
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.add(&item.sig, &item.block, &item.attrs);
        syn::visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.add(&item.sig, block, &item.attrs);
        }
        syn::visit::visit_trait_item_fn(self, item);
    }
}

fn is_test_function(attributes: &[Attribute]) -> bool {
    let is_test = |attribute: &Attribute| {
        let last = attribute.path().segments.last();
        last.is_some_and(|segment| segment.ident == "test")
    };
    attributes.iter().any(is_test)
}

/// Names of the test functions of a file.
#[must_use]
pub fn test_names(source: &Source) -> BTreeSet<String> {
    let functions = functions(source).into_iter();
    let cases = functions.filter(|function| function.is_case);
    cases.map(|function| function.name).collect()
}

/// An item that other modules can name, with what its documentation says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Documented {
    /// File.
    pub file: String,
    /// Line of its name.
    pub line: usize,
    /// Its kind as in Rust: `fn`, `struct`, `field` …
    pub kind: &'static str,
    /// Its names from the outermost type of the file, joined by `::`.
    pub name: String,
    /// Its documentation, one line of text for each line of comment; empty if it has none.
    pub docs: String,
}

/// The `pub` items of a file outside of tests: types, functions, constants, fields, variants, methods of
/// traits.
#[must_use]
pub fn public_items(source: &Source) -> Vec<Documented> {
    let mut list = List {
        file: &source.path,
        found: Vec::new(),
    };
    list.items(&source.syntax.items, "");
    list.found
}

struct List<'a> {
    file: &'a str,
    found: Vec<Documented>,
}

impl List<'_> {
    fn add(
        &mut self,
        kind: &'static str,
        prefix: &str,
        ident: &syn::Ident,
        attributes: &[Attribute],
    ) -> String {
        let name = if prefix.is_empty() {
            ident.to_string()
        } else {
            format!("{prefix}::{ident}")
        };
        self.found.push(Documented {
            file: self.file.to_owned(),
            line: Span::start(&ident.span()).line,
            kind,
            name: name.clone(),
            docs: docs(attributes),
        });
        name
    }

    fn items(&mut self, items: &[Item], prefix: &str) {
        for item in items {
            if !is_for_tests(attributes(item)) {
                self.item(item, prefix);
            }
        }
    }

    fn item(&mut self, item: &Item, prefix: &str) {
        match item {
            Item::Const(item) if is_public(&item.vis) => {
                self.add("const", prefix, &item.ident, &item.attrs);
            }
            Item::Static(item) if is_public(&item.vis) => {
                self.add("static", prefix, &item.ident, &item.attrs);
            }
            Item::Type(item) if is_public(&item.vis) => {
                self.add("type", prefix, &item.ident, &item.attrs);
            }
            Item::Fn(item) if is_public(&item.vis) => {
                self.add("fn", prefix, &item.sig.ident, &item.attrs);
            }
            Item::Struct(item) if is_public(&item.vis) => {
                let name = self.add("struct", prefix, &item.ident, &item.attrs);
                self.fields(&item.fields, &name, false);
            }
            Item::Enum(item) if is_public(&item.vis) => {
                let name = self.add("enum", prefix, &item.ident, &item.attrs);
                for variant in &item.variants {
                    let name = self.add("variant", &name, &variant.ident, &variant.attrs);
                    self.fields(&variant.fields, &name, true);
                }
            }
            Item::Trait(item) if is_public(&item.vis) => {
                let name = self.add("trait", prefix, &item.ident, &item.attrs);
                for inner in &item.items {
                    if let TraitItem::Fn(method) = inner {
                        self.add("fn", &name, &method.sig.ident, &method.attrs);
                    }
                }
            }
            Item::Impl(item) if item.trait_.is_none() => self.methods(item, prefix),
            Item::Mod(item) => {
                let name = item.ident.to_string();
                if let Some((_, items)) = &item.content {
                    self.items(items, &name);
                }
            }
            _ => {}
        }
    }

    fn fields(&mut self, fields: &Fields, prefix: &str, all: bool) {
        for field in fields {
            if let Some(ident) = &field.ident
                && (all || is_public(&field.vis))
            {
                self.add("field", prefix, ident, &field.attrs);
            }
        }
    }

    fn methods(&mut self, item: &ItemImpl, prefix: &str) {
        let syn::Type::Path(path) = &*item.self_ty else {
            return;
        };
        let last = path.path.segments.last();
        let mut name = last.map_or_else(String::new, |segment| segment.ident.to_string());
        if !prefix.is_empty() {
            name = format!("{prefix}::{name}");
        }
        for inner in &item.items {
            match inner {
                ImplItem::Fn(method) if is_public(&method.vis) => {
                    self.add("fn", &name, &method.sig.ident, &method.attrs);
                }
                ImplItem::Const(constant) if is_public(&constant.vis) => {
                    self.add("const", &name, &constant.ident, &constant.attrs);
                }
                _ => {}
            }
        }
    }
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn docs(attributes: &[Attribute]) -> String {
    let line = |attribute: &Attribute| {
        let Meta::NameValue(pair) = &attribute.meta else {
            return None;
        };
        match &pair.value {
            Expr::Lit(literal) if pair.path.is_ident("doc") => match &literal.lit {
                Lit::Str(text) => Some(text.value()),
                _ => None,
            },
            _ => None,
        }
    };
    let lines: Vec<String> = attributes.iter().filter_map(line).collect();
    let trimmed: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
    trimmed.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source {
            path: "node/src/x.rs".to_owned(),
            text: text.to_owned(),
            syntax: syn::parse_file(text).unwrap(),
            area: super::super::Area::Product,
        }
    }

    #[test]
    fn functions_are_measured_from_fn_to_brace() {
        let found = functions(&source(
            "/// Doc.\npub fn a(\n  x: u8,\n) {\n}\n#[cfg(test)]\nmod tests {\n  #[test]\n  fn b() {}\n}\n",
        ));
        let brief: Vec<_> = found
            .iter()
            .map(|f| (f.name.as_str(), f.lines, f.is_test))
            .collect();
        assert_eq!(brief, [("a", 4, false), ("b", 1, true)]);
    }

    #[test]
    fn public_items_come_with_their_docs() {
        let found = public_items(&source(
            "/// One.\n/// Two.\npub struct A { /// F.\n pub f: u8, g: u8 }\nimpl A { pub fn m() {} fn n() {} }\npub(crate) fn hidden() {}",
        ));
        let brief: Vec<_> = found
            .iter()
            .map(|i| (i.kind, i.name.as_str(), i.docs.as_str()))
            .collect();
        assert_eq!(
            brief,
            [
                ("struct", "A", "One.\nTwo."),
                ("field", "A::f", "F."),
                ("fn", "A::m", "")
            ]
        );
    }
}
