//! With management Manual: holds back changes that a person has not approved, and proposes them.
//!
//! One approval covers one plan: all pods to one template, all voters to one number, or one lost member. It
//! ends when nothing of the plan is left to do. Never held back: records and labels, forming, a recovery that
//! a person requested, a leadership transfer, and pods that are missing from the recorded number.
use std::cell::{Cell, RefCell};

use operator_api::{
    RqliteClusterStatus,
    cluster::Management,
    names,
    recovery::RecoveryPhase,
    status::{Operation, OperationType, Pool, ProposedPlan},
};

use crate::cluster::{
    action::{Action, Decision},
    facts::{
        hold::{Hold, Why, roll_key},
        view::View,
    },
};

/// Characters of a plan's id: enough to tell one plan from the next, few enough to type.
const ID_CHARS: usize = 8;

/// What one reconcile held back.
pub struct Gate<'v, 'a> {
    view: &'v View<'a>,
    /// Key and text of the first change that was held back.
    proposal: RefCell<Option<(String, String)>>,
    /// Was a change of the approved plan admitted?
    advances: Cell<bool>,
}

/// Is every change a person's decision?
pub fn is_manual(view: &View<'_>) -> bool {
    view.spec.management == Some(Management::Manual)
}

impl<'v, 'a> Gate<'v, 'a> {
    /// A gate that has held back nothing yet, or only the template that `hold` keeps.
    pub fn new(view: &'v View<'a>, hold: Option<&Hold>) -> Self {
        let first = hold.and_then(|hold| match &hold.why {
            Why::Unapproved(key, text) => Some((key.clone(), text.clone())),
            Why::RolledBack | Why::Downgrade(_) => None,
        });
        Self {
            view,
            proposal: RefCell::new(first),
            advances: Cell::new(false),
        }
    }

    /// Admits a decision, or holds it back and returns `Continue`.
    pub fn admit(&self, decision: Decision) -> Decision {
        if !is_manual(self.view) || !self.view.is_formed() {
            return decision;
        }
        let (key, text) = match &decision {
            Decision::Record(next, text) => (key_of_record(self.view, next), text),
            Decision::Act(action, text) => (key_of_action(self.view, action), text),
            Decision::Continue | Decision::Wait(_) | Decision::Blocked(..) => return decision,
        };
        let Some(key) = key else {
            return decision;
        };
        let approved = self.view.status.approved_plan.as_ref();
        if approved.is_some_and(|plan| plan.key == key) {
            self.advances.set(true);
            return decision;
        }
        let mut first = self.proposal.borrow_mut();
        first.get_or_insert_with(|| (key, text.clone()));
        Decision::Continue
    }

    /// The decision of the reconcile: records an approval that has arrived, or waits for one of what was held
    /// back.
    pub fn finish(&self, decision: Decision) -> Decision {
        if !is_manual(self.view) {
            return decision;
        }
        let word = self.view.annotation(names::APPROVE_ANNOTATION);
        let shown = self.view.status.proposed_plan.as_ref();
        let first = self.proposal.borrow();
        let idle = matches!(
            decision,
            Decision::Continue | Decision::Wait(_) | Decision::Blocked(..)
        );
        if let (Some((key, text)), Some(shown)) = (&*first, shown)
            && idle
            && self.view.operation().is_none()
            && (*key == shown.key && word == Some(shown.id.as_str()))
        {
            let mut next = self.view.status.clone();
            next.proposed_plan = None;
            next.approved_plan = Some(ProposedPlan {
                since: self.view.now().clone(),
                ..shown.clone()
            });
            return Decision::Record(Box::new(next), format!("approved: {text}"));
        }
        match (decision, &*first) {
            (Decision::Continue, Some((_, text))) => {
                Decision::Wait(format!("waits for approval: {text}"))
            }
            (decision, _) => decision,
        }
    }

    /// Writes the proposal into the status, and ends an approval whose plan is done.
    pub fn write(&self, decision: &Decision, next: &mut RqliteClusterStatus) {
        if !is_manual(self.view) {
            (next.proposed_plan, next.approved_plan) = (None, None);
            return;
        }
        if next.approved_plan != self.view.status.approved_plan {
            return;
        }
        let first = self.proposal.borrow();
        next.proposed_plan = first.as_ref().map(|(key, text)| {
            let shown = next.proposed_plan.clone().filter(|plan| plan.key == *key);
            shown.unwrap_or_else(|| ProposedPlan {
                id: self.view.seen.fresh_id.chars().take(ID_CHARS).collect(),
                key: key.clone(),
                text: text.clone(),
                since: self.view.now().clone(),
            })
        });
        let idle = matches!(decision, Decision::Continue) || first.is_some();
        let over = idle && next.operation.is_none() && !self.advances.get();
        if over && is_settled(self.view) {
            next.approved_plan = None;
        }
    }
}

/// Are the StatefulSets and their pods as recorded? Between the record of a new template and its arrival in
/// the StatefulSet no decider has anything to do.
fn is_settled(view: &View<'_>) -> bool {
    [Pool::Voter, Pool::Read].into_iter().all(|pool| {
        let wanted = view.target().and_then(|target| match pool {
            Pool::Voter => Some(target.template_hash.as_str()),
            Pool::Read => target.read_template_hash.as_deref(),
        });
        let set = view.set(pool).map(|set| set.template_hash.as_str());
        let pods = view.pods(pool);
        set.is_none() || (set == wanted && pods.iter().all(|pod| !pod.deleting))
    })
}

/// Key of the plan that a new record belongs to; None if it needs no approval.
fn key_of_record(view: &View<'_>, next: &RqliteClusterStatus) -> Option<String> {
    let now = view.operation().map(|o| o.id.as_str());
    if let Some(begun) = next
        .operation
        .as_ref()
        .filter(|o| Some(o.id.as_str()) != now)
    {
        // The same pod once more, or the next one of a plan under way.
        return key_of_operation(view, begun);
    }
    let (old, new) = (view.target()?, next.target.as_ref()?);
    let changed = (&old.input_hash, &old.image, &old.template_hash)
        != (&new.input_hash, &new.image, &new.template_hash);
    // A return to a template that worked was requested by a person already.
    let kept = next.rolled_back.is_some();
    (changed && !kept).then(|| roll_key(&new.input_hash, &new.image))
}

fn key_of_operation(view: &View<'_>, operation: &Operation) -> Option<String> {
    let member = operation.member.as_deref().unwrap_or_default();
    let uid = operation.uid.as_deref().unwrap_or_default();
    match operation.kind {
        // A recovery and a restore were requested by a person already.
        OperationType::Bootstrap
        | OperationType::Recover
        | OperationType::Restore
        | OperationType::Other(_) => None,
        OperationType::Update => pod_key(view, member),
        OperationType::ScaleUp | OperationType::ScaleDown => {
            Some(format!("Scale/{}", view.spec.replicas))
        }
        OperationType::Resize => Some(format!("Resize/{}", view.spec.storage.size)),
        OperationType::Hibernate | OperationType::Resume => Some(format!("{:?}", operation.kind)),
        OperationType::Replace if is_rejoining(view) => None,
        OperationType::Replace => Some(format!("Replace/{member}/{uid}")),
    }
}

/// Key of the plan for one pod: if its template is outdated, the plan to replace all such pods.
fn pod_key(view: &View<'_>, name: &str) -> Option<String> {
    let (pod, target) = (view.pod(name)?, view.target()?);
    let hashes = [
        Some(&target.template_hash),
        target.read_template_hash.as_ref(),
    ];
    if hashes.contains(&Some(&pod.template_hash)) {
        return Some(format!("Restart/{}", pod.uid));
    }
    let kept = view.status.rolled_back.is_some();
    (!kept).then(|| roll_key(&target.input_hash, &target.image))
}

/// Key of the plan that an action outside of an operation belongs to; None if it needs no approval.
fn key_of_action(view: &View<'_>, action: &Action) -> Option<String> {
    if view.operation().is_some() || is_rejoining(view) {
        return None;
    }
    let recorded = view.target().map_or(0, |t| t.replicas);
    match action {
        Action::ReleaseFinalizer
        | Action::TransferLeader { .. }
        | Action::CheckMember { .. }
        | Action::Restore { .. }
        | Action::EndCheck { .. } => None,
        Action::SetReplicas { name, from, to, .. } => {
            let back = *name == view.set_name(Pool::Voter) && from < to && *to <= recorded;
            (!back).then(|| format!("SetReplicas/{name}/{to}"))
        }
        Action::RemoveMember { name, raft_id, .. } => {
            let votes = view.member(name).is_none_or(|member| member.voter);
            (votes || view.pod(name).is_some()).then(|| format!("RemoveMember/{raft_id}"))
        }
        Action::DeletePod { name, .. } | Action::EvictPod { name, .. } => pod_key(view, name),
        Action::DeleteStatefulSet { uid, .. } | Action::DeleteClaim { uid, .. } => {
            Some(format!("{}/{uid}", action.name()))
        }
        Action::ExpandClaim { size, .. } => Some(format!("Resize/{size}")),
        Action::CreateRecovery { name, .. } => Some(format!("CreateRecovery/{name}")),
    }
}

/// Is this the end of a recovery that a person requested?
fn is_rejoining(view: &View<'_>) -> bool {
    let record = view.status.recovery.as_ref();
    record.is_some_and(|record| record.phase == RecoveryPhase::Rejoining)
}

#[cfg(test)]
mod tests;
