//! Each file has a first line that says what it is for, and files, functions and comments stay small.
use e2e::repository::{
    Area,
    items::{functions, public_items},
    report::{MAX_COMMENT_COLUMNS, MAX_FILE_LINES, MAX_FUNCTION_LINES},
    text::wide_comments,
};

use super::{complain, repository};

/// A test may be a long table of cases.
const MAX_TEST_LINES: usize = 130;

#[test]
fn every_file_says_what_it_is_for_and_stays_small() {
    let mut wrong = Vec::new();
    for source in &repository().sources {
        let (path, lines) = (&source.path, source.lines());
        if !source.text.starts_with("//! ") {
            wrong.push(format!(
                "{path}: the first line does not say what the file is for"
            ));
        }
        if lines > MAX_FILE_LINES {
            wrong.push(format!("{path}: {lines} lines, more than {MAX_FILE_LINES}"));
        }
        if path.ends_with("/mod.rs") {
            wrong.push(format!("{path}: modules are named foo.rs, not foo/mod.rs"));
        }
    }
    complain(&wrong);
}

#[test]
fn functions_stay_small() {
    let mut wrong = Vec::new();
    for source in &repository().sources {
        for function in functions(source) {
            let is_product = source.area == Area::Product && !function.is_test;
            let most = if is_product {
                MAX_FUNCTION_LINES
            } else {
                MAX_TEST_LINES
            };
            if function.lines > most {
                wrong.push(format!(
                    "{}:{}: {} has {} lines, more than {most}",
                    source.path, function.line, function.name, function.lines
                ));
            }
        }
    }
    complain(&wrong);
}

#[test]
fn comments_fit_the_width() {
    let mut wrong = Vec::new();
    for source in &repository().sources {
        for (line, columns) in wide_comments(&source.text, MAX_COMMENT_COLUMNS) {
            wrong.push(format!(
                "{}:{line}: a comment of {columns} columns",
                source.path
            ));
        }
    }
    complain(&wrong);
}

#[test]
fn public_items_are_documented() {
    let mut wrong = Vec::new();
    for source in &repository().sources {
        for item in public_items(source) {
            if item.docs.is_empty() {
                wrong.push(format!(
                    "{}:{}: {} has no documentation",
                    item.file, item.line, item.name
                ));
            }
        }
    }
    complain(&wrong);
}
