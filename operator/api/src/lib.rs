//! The custom resources of the operator: `RqliteCluster` and `RqliteRecovery`, as types. No client, no runtime.
//!
//! Everything a user can write is documented on its field (that text is `kubectl explain`), bounded, and defaulted by the API server.
//! Rules that span fields are CEL and travel in the custom resource definition, so no webhook is needed.
#![allow(
    rustdoc::invalid_html_tags,
    reason = "fields' docs are what `kubectl explain` shows, as they stand"
)]
#![allow(
    clippy::duplicated_attributes,
    reason = "several columns of a kind have the same type"
)]
#![allow(
    unreachable_pub,
    reason = "the derive KubeSchema repeats each struct within a function"
)]
pub mod cluster;
mod crd;
pub mod names;
pub mod recovery;
mod scalar;
pub mod state;
pub mod status;

pub use cluster::{RqliteCluster, RqliteClusterSpec};
pub use crd::crds;
pub use recovery::{RqliteRecovery, RqliteRecoverySpec, RqliteRecoveryStatus};
pub use scalar::{ByteSize, InvalidScalar, Period};
pub use status::RqliteClusterStatus;

/// The API group as a literal, for `concat!`. The derive of each kind repeats it, as an attribute takes no constant; a test compares.
#[macro_export]
macro_rules! group {
    () => {
        "rqlite.dev"
    };
}

/// The API group of all kinds and the prefix of all labels and annotations.
pub const GROUP: &str = group!();
/// The only version.
pub const VERSION: &str = "v1alpha1";
