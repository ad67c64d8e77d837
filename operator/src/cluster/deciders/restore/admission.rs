//! A restore before it begins: whether it may, and what it would undo. Nothing is changed here: the leader
//! finds the point in a dry run, and what would be undone is in the object's status before the restore
//! begins.
use node_contract::{RestoreRequest, RestoreState};
use operator_api::{RqliteRestore, restore::RestorePhase, status::OperationType};

use super::{
    belonging::other_cluster,
    objects::{name, open, phase, uid},
    texts::undone,
};
use crate::cluster::facts::view::View;

/// The next step for the restore.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// Nothing.
    Nothing,
    /// Request a dry run from the leader.
    Plan(Box<RestoreRequest>),
    /// Begin: the status says what it will undo.
    Begin,
}

/// The decision about a restore that has not begun.
#[derive(Debug, PartialEq)]
pub(super) struct Admission<'a> {
    /// The phase for its status.
    pub(super) phase: RestorePhase,
    /// The message for its status: what it waits for, or why it is refused.
    pub(super) message: String,
    /// The result of the leader's dry run.
    pub(super) found: Option<&'a RestoreState>,
    /// The next step.
    pub(super) next: Next,
}

fn stays<'a>(phase: RestorePhase, message: impl Into<String>) -> Admission<'a> {
    Admission {
        phase,
        message: message.into(),
        found: None,
        next: Next::Nothing,
    }
}

/// The id of the dry run.
pub(super) fn plan_id(restore: &RqliteRestore) -> String {
    format!("{}-plan", uid(restore))
}

/// The request to the leader. The restore itself names the index that the dry run found, because a time could
/// select a later entry by now.
pub(super) fn request(view: &View<'_>, restore: &RqliteRestore, dry_run: bool) -> RestoreRequest {
    let spec = &restore.spec;
    let status = restore.status.clone().unwrap_or_default();
    let announced = status.index.filter(|_| !dry_run);
    let index = announced.or(spec.to_index);
    let time = spec.to_time.as_ref().map(|time| time.0.clone());
    let confirm = view.status.cluster_id.clone();
    RestoreRequest {
        id: Some(match dry_run {
            true => plan_id(restore),
            false => uid(restore).to_owned(),
        }),
        to_index: index.and_then(|index| u64::try_from(index).ok()),
        to_time: time.filter(|_| index.is_none()),
        lineage: spec.lineage.clone().or(status.lineage),
        // Older nodes do not know it.
        expect_index: None,
        dry_run,
        confirm: confirm.filter(|_| !dry_run),
    }
}

/// Decides about a restore that has not begun.
pub(super) fn admit<'a>(view: &View<'a>, restore: &RqliteRestore) -> Admission<'a> {
    if let Some(why) = refused(view, restore) {
        return stays(
            RestorePhase::Rejected,
            format!("{why}. Nothing was changed"),
        );
    }
    if let Some(why) = waits(view, restore) {
        return stays(RestorePhase::Pending, why);
    }
    let Some(state) = view.seen.restore_states.get(&plan_id(restore)) else {
        let next = Next::Plan(Box::new(request(view, restore, true)));
        let text = "looking for the point in the archive";
        return Admission {
            next,
            ..stays(RestorePhase::Planning, text)
        };
    };
    match state.state.as_str() {
        RestoreState::FAILED => {
            let why = state.message.trim_end_matches('.');
            let text = format!("the point cannot be restored: {why}. Nothing was changed");
            stays(RestorePhase::Rejected, text)
        }
        RestoreState::DONE => announced(restore, state),
        _ => stays(
            RestorePhase::Planning,
            "looking for the point in the archive",
        ),
    }
}

/// The dry run has found the point. The restore begins once the status says so.
fn announced<'a>(restore: &RqliteRestore, state: &'a RestoreState) -> Admission<'a> {
    let Some(index) = state.index.and_then(|index| i64::try_from(index).ok()) else {
        let text = "the leader answered without a point: is the node of an older version than the operator? Nothing was changed";
        return stays(RestorePhase::Rejected, text);
    };
    let text = undone(state);
    if restore.spec.dry_run {
        let text = format!("dry run: {text}. Nothing was changed");
        let phase = RestorePhase::Succeeded;
        return Admission {
            found: Some(state),
            ..stays(phase, text)
        };
    }
    let known = restore.status.as_ref().and_then(|status| status.index);
    let next = match known == Some(index) {
        true => Next::Begin,
        false => Next::Nothing,
    };
    Admission {
        found: Some(state),
        next,
        ..stays(RestorePhase::Planning, format!("about to begin: {text}"))
    }
}

/// Why it is refused for good; `None` if it is not.
fn refused(view: &View<'_>, restore: &RqliteRestore) -> Option<String> {
    if let Some(other) = other_cluster(view, restore) {
        return Some(other);
    }
    let (spec, cluster) = (&restore.spec, view.name);
    if !spec.dry_run && spec.confirm.as_deref() != Some(cluster) {
        return Some(format!(
            "a restore replaces the whole database: spec.confirm has to be the cluster's name, {cluster}. Or set dryRun to true to see what would be undone"
        ));
    }
    if spec.to_time.is_some() == spec.to_index.is_some() {
        return Some("give exactly one of spec.toTime and spec.toIndex".to_owned());
    }
    if !view.is_formed() {
        return Some("the cluster has not formed yet: use spec.bootstrap.restore".to_owned());
    }
    let is_archived = view.leader.is_some_and(|l| l.status.archive.is_some());
    if view.spec.archive.is_none() && view.leader.is_some() && !is_archived {
        return Some(format!(
            "{cluster} has no archive (spec.archive): there is nothing to restore from. A backup is restored into a new cluster, by spec.bootstrap.restore"
        ));
    }
    // A restore that was confirmed before another one ended would undo what that one has brought back.
    let other = begun(view, restore)?;
    (!spec.dry_run).then(|| {
        format!(
            "the RqliteRestore {other} is under way, and there is one at a time: create another one once it has ended"
        )
    })
}

/// Name of another restore that has begun, or that was there before.
fn begun<'a>(view: &View<'a>, restore: &RqliteRestore) -> Option<&'a str> {
    let of_operation = view.operating(OperationType::Restore);
    let open = open(view);
    let mut others = open.iter().filter(|other| uid(other) != uid(restore));
    let found = others.find(|other| {
        let has_begun = of_operation.is_some_and(|operation| operation.id == uid(other));
        has_begun || phase(other) == RestorePhase::Restoring
    });
    found.map(|other| name(other))
}

/// What it waits for; `None` if it may proceed.
fn waits(view: &View<'_>, restore: &RqliteRestore) -> Option<String> {
    if let Some(operation) = view.operation() {
        let kind = operation.kind;
        return Some(format!(
            "waits for the operation {kind:?} of the cluster to end"
        ));
    }
    if view.is_hibernating() {
        return Some("the cluster is hibernated: set spec.hibernated to false".to_owned());
    }
    let recovery = view.status.recovery.as_ref();
    if recovery.is_some_and(|record| !record.phase.is_final()) {
        return Some("waits for the recovery of the cluster to end".to_owned());
    }
    if view.leader.is_none() {
        return Some("waits for a leader".to_owned());
    }
    let open = open(view);
    let before = open
        .iter()
        .take_while(|other| uid(other) != uid(restore))
        .find(|other| other_cluster(view, other).is_none());
    before.map(|other| format!("waits for the RqliteRestore {}", name(other)))
}
