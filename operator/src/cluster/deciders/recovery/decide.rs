//! Continues the present recovery, or admits a new one.
use operator_api::{RqliteRecovery, status::OperationType};

use super::{
    admission::check_admission, check::end_obsolete, from_archive, record::is_open, steps,
};
use crate::cluster::{
    action::{Decision, begin, finish},
    facts::view::View,
};

/// Continues the present recovery, or admits the newest one that may be carried out.
pub fn decide(view: &View<'_>) -> Decision {
    if let Some((ends, text)) = end_obsolete(view) {
        return Decision::Act(ends, text);
    }
    if let Some(operation) = view.operating(OperationType::Recover) {
        let record = view.status.recovery.as_ref();
        return match record.filter(|record| record.uid == operation.id) {
            Some(record) => steps::advance(view, operation, record),
            None => Decision::Record(
                finish(view.status),
                "dropping a recovery without a record".to_owned(),
            ),
        };
    }
    let open = view.seen.recoveries.iter().filter(|r| is_open(view, r));
    let mut open: Vec<&RqliteRecovery> = open.collect();
    // A node checks its database for one at a time.
    open.sort_by_key(|recovery| recovery.spec.dry_run);
    for recovery in open {
        let admission = check_admission(view, recovery);
        if let Some(check) = admission.check {
            return Decision::Act(check, admission.message);
        }
        if let Some(record) = admission.record {
            if from_archive::is_again(view) {
                if let Some(next) = from_archive::begin_again(view, &record) {
                    return Decision::Record(next, admission.message);
                }
                continue;
            }
            let mut next = begin(
                view.status,
                &record.uid,
                view.now(),
                OperationType::Recover,
                Some(&record.survivor),
                None,
            );
            if recovery_is_automatic(recovery) {
                next.automatic_recoveries.push(view.now().clone());
            }
            next.recovery = Some(*record);
            return Decision::Record(next, admission.message);
        }
    }
    Decision::Continue
}

fn recovery_is_automatic(recovery: &RqliteRecovery) -> bool {
    let labels = recovery.metadata.labels.as_ref();
    labels.is_some_and(|l| l.contains_key(operator_api::names::AUTOMATIC_LABEL))
}
