//! Modules import lower layers alone (`e2e/layers.txt`), and no files need each other in a circle.
use std::collections::BTreeSet;

use e2e::repository::{circles::circles, imports::imports, layers::Layers};

use super::{complain, repository, text};

fn layers() -> Layers {
    Layers::parse(&text("e2e/layers.txt")).expect("a list of layers")
}

#[test]
fn arrows_point_one_way() {
    let layers = layers();
    let wrong = layers.against(&imports(&repository()), true);
    let explained = wrong
        .iter()
        .map(|pair| format!("{pair}: not a lower layer"));
    complain(&explained.collect::<Vec<_>>());
}

#[test]
fn every_module_has_a_layer() {
    complain(&layers().gaps(&repository()));
}

#[test]
fn no_exception_is_left_behind() {
    let unused = layers().unused_exceptions(&imports(&repository()));
    let explained = unused
        .iter()
        .map(|pair| format!("{pair}: no longer needed in e2e/layers.txt"));
    complain(&explained.collect::<Vec<_>>());
}

#[test]
fn no_files_need_each_other() {
    let layers = layers();
    let found: Vec<BTreeSet<String>> = circles(&imports(&repository()))
        .into_iter()
        .map(BTreeSet::from_iter)
        .collect();
    let mut wrong = Vec::new();
    for circle in &found {
        if !layers
            .circles()
            .iter()
            .any(|allowed| circle.is_subset(allowed))
        {
            wrong.push(format!("these files need each other: {circle:?}"));
        }
    }
    for allowed in layers.circles() {
        if !found.iter().any(|circle| circle.is_subset(allowed)) {
            wrong.push(format!(
                "e2e/layers.txt allows a circle that is gone: {allowed:?}"
            ));
        }
    }
    complain(&wrong);
}
