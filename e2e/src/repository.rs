//! The sources of this workspace as data: what the tests of the rules check and the program `figures` prints.
//!
//! Every figure is computed from the syntax tree or from the text of the files below one root directory, so
//! an older checkout can be measured with today's rules. Reading order: [`source`] → [`text`] → [`imports`] →
//! [`circles`] → [`layers`] → [`words`] → [`items`] → [`report`] and [`sample`].

pub mod circles;
pub mod imports;
pub mod items;
pub mod layers;
pub mod report;
pub mod sample;
pub mod source;
pub mod text;
pub mod words;

use std::path::{Path, PathBuf};

pub use source::{Area, Repository, Source};

/// Root of the workspace that this program was built from.
#[must_use]
pub fn root() -> PathBuf {
    let e2e = Path::new(env!("CARGO_MANIFEST_DIR"));
    e2e.parent().unwrap_or(e2e).to_owned()
}
