//! Decides the next step of an RqliteBackup that is being deleted: its file first, if that is its policy.
use kube::ResourceExt as _;
use operator_api::{RqliteBackup, RqliteBackupStatus, backup::BackupPhase};

use super::step::{
    ABANDON_ANNOTATION, LET_GO, Seen, Step, has_finalizer, is_deleted_with_object, put, record,
    record_news, short,
};
use crate::backups::{base, job, job_seen::JobRef};

/// Seconds until the next step while waiting for a pod to end.
const ENDING_SECONDS: u64 = 2;

/// Whether the finalizer can be removed at once: there is no file, or it stays.
pub fn is_let_go(backup: &RqliteBackup) -> bool {
    let abandoned = backup.annotations().get(ABANDON_ANNOTATION);
    let abandoned = abandoned.is_some_and(|value| value == "true");
    let status = backup.status.as_ref();
    let has_file = status.is_some_and(|one| one.target.is_some() && one.object.is_some());
    abandoned || !has_file || !is_deleted_with_object(backup)
}

/// Waits for a pod that may still upload the file.
fn await_end(seen: &Seen<'_>, status: RqliteBackupStatus, pod: &str) -> Step {
    let next = RqliteBackupStatus {
        phase: Some(BackupPhase::Deleting),
        message: Some(format!(
            "the file is deleted once the pod {pod}, which makes it, has ended. {LET_GO}"
        )),
        ..status
    };
    match seen.backup.status.as_ref() == Some(&next) {
        true => Step::Wait(ENDING_SECONDS),
        false => record(next),
    }
}

/// The step while the object is being deleted: first deletes the file, if the policy says so and it may
/// exist.
pub(super) fn decide(seen: &Seen<'_>) -> Step {
    if !has_finalizer(seen.backup) {
        return Step::Done;
    }
    let status = seen.backup.status.clone().unwrap_or_default();
    let (Some(target), Some(object), false) =
        (&status.target, &status.object, is_let_go(seen.backup))
    else {
        return Step::Finalizer(false);
    };
    let running = seen.job.as_ref();
    if let Some(job) = running.filter(|job| job.is_ours && job.succeeded.is_none()) {
        return Step::Stop(JobRef {
            name: job::name(&seen.backup.name_any()),
            uid: job.uid.clone(),
        });
    }
    let name = job::deletion_name(&seen.backup.name_any());
    let Some(job) = &seen.deletion else {
        if let Some(pod) = seen.pods.first() {
            return await_end(seen, status, pod);
        }
        // Another cluster of that name has another account, another registry, other taints.
        let same = seen.cluster.filter(|one| one.uid() == status.cluster_uid);
        let recorded = status.pod.as_deref().cloned();
        let base = match same {
            Some(cluster) => base::of(cluster, seen.assigns_users),
            None => recorded.unwrap_or_else(|| base::unknown(seen.assigns_users)),
        };
        let job = job::deletion(seen.backup, (same, base), seen.node_image, target, object);
        return Step::Create(Box::new(job));
    };
    let has_failed = !job.is_ours || job.succeeded == Some(false);
    let text = match job {
        job if !job.is_ours => format!(
            "another Job is called {name}: delete it, so that the file can be deleted. {LET_GO}"
        ),
        job => match job.succeeded {
            Some(true) => return Step::Finalizer(false),
            Some(false) => short(format!(
                "the file {} could not be deleted: {}. Delete the Job {name} to try again. {LET_GO}",
                status.uri.as_deref().unwrap_or(object),
                job.result
                    .as_deref()
                    .or(job.message.as_deref())
                    .unwrap_or("its pods left no message"),
            )),
            None => match &job.stuck {
                Some(why) => short(format!(
                    "the pod that deletes the file does not start: {why}. {LET_GO}"
                )),
                None => "the file is being deleted from the store".to_owned(),
            },
        },
    };
    let next = RqliteBackupStatus {
        phase: Some(BackupPhase::Deleting),
        message: Some(text.clone()),
        ..status
    };
    if !has_failed {
        return record_news(seen, next);
    }
    let is = ("ObjectDeleted", "False", "DeletionFailed");
    record_news(seen, put(next, &seen.now, is, &text))
}
