//! The nodes under measurement.
use std::path::Path;

use anyhow::Result;

use crate::process::Node;

/// A node on the measured disk with the product's defaults.
///
/// # Errors
/// If no port or directory is available.
pub fn bench_node(name: &str, work: &Path) -> Result<Node> {
    let mut node = Node::new_in(name, work)?;
    node.args.clear();
    node.quiet = true;
    Ok(node)
}
