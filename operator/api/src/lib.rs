//! The operator's custom resources as types: `RqliteCluster`, `RqliteRecovery`, `RqliteBackup`,
//! `RqliteScheduledBackup`, `RqliteRestore`. No client, no runtime.
//!
//! Every field that a user can set is documented (the doc comment is what `kubectl explain` prints), has
//! bounds, and is defaulted by the API server. Rules that involve several fields are CEL expressions in the
//! custom resource definition, so no admission webhook is needed.
#![allow(
    rustdoc::invalid_html_tags,
    reason = "the docs of fields are shown verbatim by `kubectl explain`"
)]
#![allow(
    clippy::duplicated_attributes,
    reason = "several printer columns of a kind have the same type"
)]
#![allow(
    unreachable_pub,
    reason = "derive(KubeSchema) repeats each struct inside a function"
)]
pub mod backup;
pub mod cluster;
mod convert;
mod crd;
pub mod failure;
pub mod lineage;
pub mod names;
pub mod open;
pub mod recovery;
pub mod restore;
mod scalar;
pub mod schedule;
pub mod scheduled_backup;
pub mod status;
pub mod store;

pub use backup::{RqliteBackup, RqliteBackupSpec, RqliteBackupStatus};
pub use cluster::{RqliteCluster, RqliteClusterSpec};
pub use crd::crds;
pub use recovery::{RqliteRecovery, RqliteRecoverySpec, RqliteRecoveryStatus};
pub use restore::{RqliteRestore, RqliteRestoreSpec, RqliteRestoreStatus};
pub use scalar::{ByteSize, InvalidScalar, Moment, Period, Span};
pub use scheduled_backup::{
    RqliteScheduledBackup, RqliteScheduledBackupSpec, RqliteScheduledBackupStatus,
};
pub use status::RqliteClusterStatus;

/// The API group as a literal, for `concat!`. Each kind repeats it in its derive attribute, which takes no
/// constant; a test compares them.
#[macro_export]
macro_rules! group {
    () => {
        "rqlite.dev"
    };
}

/// The API group of all kinds, and the prefix of all labels and annotations.
pub const GROUP: &str = group!();
/// The only API version.
pub const VERSION: &str = "v1alpha1";
