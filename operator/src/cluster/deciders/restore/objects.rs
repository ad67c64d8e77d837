//! RqliteRestore objects: those that have not ended, and their names.
use operator_api::{RqliteRestore, restore::RestorePhase};

use crate::cluster::facts::view::View;

/// Whether there is a restore that has not ended.
pub fn is_open(view: &View<'_>) -> bool {
    !open(view).is_empty()
}

/// Restores that have not ended, the oldest first.
pub(super) fn open<'a>(view: &View<'a>) -> Vec<&'a RqliteRestore> {
    let all = view.seen.restores.iter();
    let mut open: Vec<_> = all.filter(|restore| !is_over(restore)).collect();
    open.sort_by_key(|restore| {
        let created = restore.metadata.creation_timestamp.as_ref();
        (created.map(|at| at.0), restore.metadata.name.clone())
    });
    open
}

pub(super) fn phase(restore: &RqliteRestore) -> RestorePhase {
    let status = restore.status.as_ref();
    status.and_then(|status| status.phase).unwrap_or_default()
}

/// Has it ended? A newer operator may have ended it in a phase that this one does not know.
pub(super) fn is_over(restore: &RqliteRestore) -> bool {
    let status = restore.status.as_ref();
    phase(restore).is_final() || status.is_some_and(|status| status.completed_at.is_some())
}

pub(super) fn uid(restore: &RqliteRestore) -> &str {
    restore.metadata.uid.as_deref().unwrap_or_default()
}

pub(super) fn name(restore: &RqliteRestore) -> &str {
    restore.metadata.name.as_deref().unwrap_or_default()
}
