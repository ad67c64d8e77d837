//! Texts about the point of a restore, and about what it undoes.
use node_contract::RestoreState;
use operator_api::{RqliteRestore, RqliteRestoreStatus};

/// What a restore to the point undoes, as text.
pub(super) fn undone(state: &RestoreState) -> String {
    let index = state.index.unwrap_or_default();
    let at = state.time.as_ref().map(|time| format!(", {time}"));
    let point = format!("index {index}{}", at.unwrap_or_default());
    match (state.undone_entries, state.undone_seconds) {
        (Some(entries), Some(seconds)) => format!(
            "back to {point}: undoes {entries} entries, the writes of {seconds} s, and what is written until it begins"
        ),
        (Some(entries), None) => format!(
            "back to {point}: undoes {entries} entries, and what is written until it begins"
        ),
        (None, _) => format!("back to {point}: undoes all that was written after it"),
    }
}

/// The result of a restore that succeeded, as text.
pub(super) fn succeeded(status: &RqliteRestoreStatus) -> String {
    let at = status.time.as_ref().map(|time| format!(" ({})", time.0));
    let index = status.index.unwrap_or_default();
    let mut text = format!(
        "the database is as it was at index {index}{}",
        at.unwrap_or_default()
    );
    if let Some(entries) = status.undone_entries {
        text += &format!(": {entries} entries are undone");
        if let Some(seconds) = status.undone_seconds {
            text += &format!(", the writes of {seconds} s");
        }
    }
    if let Some(safety) = status.safety_index {
        text += &format!(". To take it back: an RqliteRestore with toIndex: {safety}");
    }
    text
}

/// The point, as text.
pub(super) fn point(restore: &RqliteRestore) -> String {
    let status = restore.status.as_ref();
    let index = status.and_then(|status| status.index);
    match (
        index.or(restore.spec.to_index),
        restore.spec.to_time.as_ref(),
    ) {
        (Some(index), _) => format!("index {index}"),
        (None, Some(time)) => format!("the state at {}", time.0),
        (None, None) => "a point of its archive".to_owned(),
    }
}
