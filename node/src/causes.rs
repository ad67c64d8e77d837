//! An error with its causes, as one line.
pub use node_objects::error::causes;
