//! The data of a new cluster (`spec.bootstrap.restore`): its source is resolved and recorded before anything
//! is created. The cluster then forms with one voter that restores, see [`super::bootstrap`].
use operator_api::status::{BootstrapRestoreState, BootstrapRestoreStatus};

use crate::cluster::{
    action::Decision,
    facts::{
        beginning::{Source, asked, describe, failure, request_of, source},
        forming,
        view::View,
    },
};

/// Resolves the source; again after an edit of the spec, while it can still be followed.
pub fn resolve(view: &View<'_>) -> Decision {
    let record = view.status.bootstrap_restore.as_ref();
    let by_recovery = record.is_some_and(|record| record.recovery.is_some());
    if view.is_formed() || by_recovery {
        return Decision::Continue;
    }
    let Some(asked) = asked(view) else {
        return forget(view);
    };
    let request = request_of(asked);
    let same = record.is_some_and(|record| record.request.as_ref() == Some(&request));
    match source(view) {
        Source::Nothing => Decision::Continue,
        Source::Missing(..) if same => Decision::Continue,
        Source::Missing("RestoreSourcePending", text) if record.is_none() => Decision::Wait(text),
        Source::Missing(reason, text) => Decision::Blocked(reason, text),
        Source::Found(found) => {
            let resolved = serde_json::to_value(&*found).ok();
            let has = record.and_then(|record| record.resolved.clone());
            let changes = !same || has != resolved;
            // A node that may have data already continues with it.
            let fails = failure(view).is_some();
            let late = record.is_some() && !fails && forming::doubt(view).is_some();
            if !changes || late {
                return Decision::Continue;
            }
            let source = describe(&found);
            let text = format!("the new cluster begins with {source}");
            let mut next = view.status.clone();
            next.bootstrap_restore = Some(BootstrapRestoreStatus {
                state: BootstrapRestoreState::Restoring,
                source: Some(source),
                request: Some(request),
                resolved,
                ..BootstrapRestoreStatus::default()
            });
            Decision::Record(Box::new(next), text)
        }
    }
}

/// The spec no longer asks for data: a cluster that has certainly not formed starts without.
fn forget(view: &View<'_>) -> Decision {
    if view.status.bootstrap_restore.is_none() || forming::doubt(view).is_some() {
        return Decision::Continue;
    }
    let mut next = view.status.clone();
    next.bootstrap_restore = None;
    let text = "bootstrap.restore was removed: the new cluster begins without data";
    Decision::Record(Box::new(next), text.to_owned())
}

#[cfg(test)]
mod tests;
