//! Decides the next step of one RqliteBackup. What a step relies on (the target, the name of the file, the
//! Job) is written to the status before it, so that it survives a crash.
mod deletion;
mod step;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Resource as _, ResourceExt as _};
use operator_api::{
    RqliteBackup, RqliteBackupStatus, RqliteCluster,
    backup::BackupPhase,
    names,
    status::{AVAILABLE, AuthenticationStage, TlsStage},
};
use serde::Deserialize;

use self::step::{LET_GO, WAIT_SECONDS, is_deleted_with_object, put, record, record_news, short};
pub use self::{
    deletion::is_let_go,
    step::{ABANDON_ANNOTATION, FINALIZER, Seen, Step, has_finalizer},
};
use super::{
    base,
    job::{self, Reach},
    job_seen::JobSeen,
};
use crate::cluster::{
    deciders::manager,
    facts::{authentication::is_known_by, image::Parts},
};

/// Reason of a condition while the API server rejects a Job.
const REFUSED: &str = "JobRefused";
/// Reason of the condition `Complete` of a backup whose Job was deleted before its end was seen.
const UNSEEN: &str = "ResultUnknown";
/// Status of the condition `Complete` until the backup has succeeded or failed.
const WAITS: &str = "Unknown";

/// The result that the Job's pod writes: JSON of `rqlited backup`, as the termination message.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Outcome {
    /// Length of the object in the store.
    stored_bytes: Option<i64>,
    /// Length of the database file.
    bytes: Option<i64>,
    sha256: Option<String>,
    #[serde(alias = "index")]
    raft_index: Option<i64>,
    integrity: Option<String>,
    error: Option<String>,
}

/// Decides the next step.
pub fn decide(seen: &Seen<'_>) -> Step {
    if seen.backup.meta().deletion_timestamp.is_some() {
        return deletion::decide(seen);
    }
    let status = seen.backup.status.clone().unwrap_or_default();
    match status.phase.unwrap_or_default() {
        BackupPhase::Succeeded | BackupPhase::Failed if !has_class(seen.backup, seen.cluster) => {
            let cluster = seen.cluster.map(manager::class);
            record(RqliteBackupStatus {
                operator_class: cluster.and_then(manager::recorded_class),
                ..status
            })
        }
        BackupPhase::Succeeded | BackupPhase::Failed if !is_settled(seen.backup) => {
            // `spec.deletionPolicy` may have changed since.
            Step::Finalizer(is_deleted_with_object(seen.backup))
        }
        BackupPhase::Succeeded | BackupPhase::Failed | BackupPhase::Other(_) => Step::Done,
        BackupPhase::Pending => begin(seen, status),
        BackupPhase::Running | BackupPhase::Deleting => follow(seen, status),
    }
}

/// Whether the finalizer of an ended backup is as its deletion policy requires.
pub fn is_settled(backup: &RqliteBackup) -> bool {
    let status = backup.status.as_ref();
    let has_object = status.is_some_and(|status| status.object.is_some());
    has_finalizer(backup) == (is_deleted_with_object(backup) && has_object)
        || (has_finalizer(backup) && is_deleted_with_object(backup))
}

/// Whether the recorded class is that of the cluster. It decides which installation handles the backup once
/// the cluster is deleted.
pub fn has_class(backup: &RqliteBackup, cluster: Option<&RqliteCluster>) -> bool {
    let recorded = backup.status.as_ref();
    let recorded = recorded.and_then(|status| status.operator_class.clone());
    cluster.is_none_or(|cluster| manager::recorded_class(manager::class(cluster)) == recorded)
}

/// Whether its Job was deleted before its end was seen. Then a good file may be in the store.
pub fn ended_unseen(status: &RqliteBackupStatus) -> bool {
    status.conditions.iter().any(|one| one.reason == UNSEEN)
}

/// The step while the Job cannot run because `missing` is missing: reports it, and waits.
pub fn lacking(seen: &Seen<'_>, missing: &str) -> Step {
    let status = seen.backup.status.clone().unwrap_or_default();
    let text = short(format!("it waits: {missing}"));
    let next = RqliteBackupStatus {
        message: Some(text.clone()),
        ..status
    };
    let is = ("Complete", WAITS, "SecretMissing");
    record_news(seen, put(next, &seen.now, is, &text))
}

/// Reports that the API server rejects the Job.
pub fn refused(seen: &Seen<'_>, why: &str) -> Step {
    let status = seen.backup.status.clone().unwrap_or_default();
    let (is, hint) = match seen.backup.meta().deletion_timestamp.is_some() {
        true => (("ObjectDeleted", "False", REFUSED), LET_GO),
        false => (("Complete", WAITS, REFUSED), "It is tried again"),
    };
    let text = short(format!("its Job is refused: {why}. {hint}"));
    let next = RqliteBackupStatus {
        message: Some(text.clone()),
        ..status
    };
    record_news(seen, put(next, &seen.now, is, &text))
}

/// Before the Job: checks whether the backup is possible, and records where the file goes.
fn begin(seen: &Seen<'_>, status: RqliteBackupStatus) -> Step {
    if is_deleted_with_object(seen.backup) && !has_finalizer(seen.backup) {
        return Step::Finalizer(true);
    }
    let name = &seen.backup.spec.cluster_ref.name;
    let Some(cluster) = seen.cluster else {
        return pending(
            status,
            format!("there is no RqliteCluster {name} in this namespace"),
        );
    };
    let given = seen.backup.spec.how.target.clone();
    let archive = cluster.spec.archive.as_ref();
    let Some(target) = given.or_else(|| archive.map(|archive| archive.target.clone())) else {
        let text = format!(
            "the backup has no target, and neither has the cluster {name} (spec.archive): create another RqliteBackup with spec.target"
        );
        return record(failed(status, &seen.now, text));
    };
    if let Some(why) = unavailable(cluster) {
        return pending(status, why);
    }
    if seen.job.as_ref().is_some_and(|job| !job.is_ours) {
        let text = format!(
            "another Job is called {}: delete it, or give the backup another name",
            job::name(&seen.backup.name_any())
        );
        return pending(status, text);
    }
    let object = job::object(seen.backup);
    let of_cluster = cluster.status.clone().unwrap_or_default();
    record(RqliteBackupStatus {
        phase: Some(BackupPhase::Running),
        operator_class: manager::recorded_class(manager::class(cluster)),
        cluster_uid: cluster.uid(),
        cluster_id: of_cluster.cluster_id,
        lineage: of_cluster.lineage,
        job: Some(job::name(&seen.backup.name_any())),
        pod: Some(Box::new(base::lasting(cluster, seen.assigns_users))),
        uri: Some(format!("{}/{object}", target.uri())),
        target: Some(target),
        object: Some(object),
        message: Some("its Job is being created".to_owned()),
        ..status
    })
}

/// Why a cluster cannot be backed up now.
fn unavailable(cluster: &RqliteCluster) -> Option<String> {
    let name = cluster.name_any();
    let status = cluster.status.as_ref();
    let image = status.and_then(|status| status.target.as_ref());
    let image = image.map_or("", |target| target.image.as_str());
    if !is_known_by(Parts::of(image).release()) {
        return Some(format!(
            "the nodes of the image {image} know no backups by the operator: choose a newer image for the cluster {name}"
        ));
    }
    let conditions = status.map(|status| status.conditions.as_slice());
    let mut conditions = conditions.unwrap_or_default().iter();
    let available = conditions.find(|condition| condition.type_ == AVAILABLE);
    match available {
        Some(condition) if condition.status == "True" => None,
        Some(condition) => Some(format!(
            "the cluster {name} is not available: {}",
            condition.message
        )),
        None => Some(format!("the cluster {name} has not formed yet")),
    }
}

/// How clients reach the cluster's nodes.
fn reach(cluster: &RqliteCluster, domain: &str) -> Reach {
    let name = cluster.name_any();
    let status = cluster.status.clone().unwrap_or_default();
    let stage = status.tls.as_ref().map(|tls| tls.clients.stage);
    let is_tls = matches!(
        stage,
        Some(TlsStage::Use | TlsStage::Accept | TlsStage::Require)
    );
    let users = status.authentication.map(|users| users.stage);
    let asks = matches!(
        users,
        Some(AuthenticationStage::Open | AuthenticationStage::Closed)
    );
    let services = cluster.spec.services.clone().unwrap_or_default();
    let port = services.client.and_then(|client| client.port);
    let namespace = cluster.namespace().unwrap_or_default();
    Reach {
        url: format!(
            "{}://{}.{namespace}.svc.{}:{}",
            if is_tls { "https" } else { "http" },
            names::client(&name),
            cluster.domain(domain),
            port.unwrap_or(names::HTTP_PORT)
        ),
        authority: is_tls.then(|| names::http_tls_secret(&name)),
        certificate: (is_tls && asks_certificates(cluster))
            .then(|| names::backup_tls_secret(&name)),
        login: asks.then(|| names::backup_secret(&name)),
    }
}

/// Do the nodes ask clients for a certificate?
fn asks_certificates(cluster: &RqliteCluster) -> bool {
    let tls = cluster.spec.tls.as_ref();
    let clients = tls.and_then(|tls| tls.clients.as_ref());
    clients.is_some_and(|clients| clients.require_client_certificate)
}

/// Once the Job is recorded: creates it, or reports its progress or its end.
fn follow(seen: &Seen<'_>, status: RqliteBackupStatus) -> Step {
    let Some(job) = &seen.job else {
        return create(seen, status);
    };
    if !job.is_ours {
        let text = "another Job has taken the name of this backup's: delete it, and create another RqliteBackup";
        return record(failed(status, &seen.now, text.to_owned()));
    }
    let outcome = job.result.as_deref().and_then(|text| {
        let line = text
            .lines()
            .rev()
            .find(|line| line.trim_start().starts_with('{'))?;
        serde_json::from_str::<Outcome>(line).ok()
    });
    let mut next = RqliteBackupStatus {
        started_at: status.started_at.clone().or_else(|| job.started.clone()),
        failed_attempts: (job.failed > 0).then_some(job.failed),
        ..status
    };
    let said = outcome.as_ref().and_then(|outcome| outcome.error.clone());
    let said = said.or_else(|| job.result.clone().filter(|_| outcome.is_none()));
    match job.succeeded {
        None => {
            next.conditions.retain(|one| one.status != WAITS);
            next.error = said.filter(|_| job.failed > 0).map(short).or(next.error);
            next.message = Some(match &job.stuck {
                Some(why) => short(format!("its pod does not start: {why}")),
                None if job.failed > 0 => format!("attempt {} is under way", job.failed + 1),
                None if !job.has_pod => "its Job has no pod yet".to_owned(),
                None => "a pod makes the backup".to_owned(),
            });
            record_news(seen, next)
        }
        Some(true) => record(ended_well(seen, next, outcome, job)),
        Some(false) => {
            let why = said.or_else(|| job.stuck.clone());
            let kubernetes = job.message.clone();
            let why = why
                .or_else(|| next.error.clone())
                .or_else(|| kubernetes.clone());
            let why =
                short(why.unwrap_or_else(|| "its pods failed and left no message".to_owned()));
            let text = match kubernetes.filter(|text| *text != why) {
                Some(kubernetes) => format!("{why} ({kubernetes})"),
                None => why.clone(),
            };
            next.error = Some(why);
            record(failed(next, &seen.now, short(text)))
        }
    }
}

/// Creates the Job. If it existed before, it was deleted, and is not created again.
fn create(seen: &Seen<'_>, status: RqliteBackupStatus) -> Step {
    if status.started_at.is_some() {
        return record(unseen(status, &seen.now));
    }
    let (Some(target), Some(object)) = (&status.target, &status.object) else {
        let text =
            "the record of where it goes was removed from the status: create another RqliteBackup";
        return record(failed(status.clone(), &seen.now, text.to_owned()));
    };
    let cluster = seen.cluster.filter(|one| one.uid() == status.cluster_uid);
    let Some(cluster) = cluster else {
        let text = "the cluster was deleted before the backup was begun";
        return record(failed(status.clone(), &seen.now, text.to_owned()));
    };
    let reach = reach(cluster, seen.domain);
    let base = base::of(cluster, seen.assigns_users);
    let job = job::backup(seen.backup, (cluster, base), target, object, &reach);
    Step::Create(Box::new(job))
}

fn ended_well(
    seen: &Seen<'_>,
    next: RqliteBackupStatus,
    outcome: Option<Outcome>,
    job: &JobSeen,
) -> RqliteBackupStatus {
    let outcome = outcome.unwrap_or_default();
    if outcome.sha256.is_none() || outcome.stored_bytes.is_none() {
        let text = "its pod ended well but left no readable result, so that the file cannot be trusted: create another RqliteBackup";
        return failed(next, &seen.now, text.to_owned());
    }
    if let Some(wrong) = outcome.integrity.as_ref().filter(|found| *found != "ok") {
        let text = short(format!("the copy is damaged: {wrong}"));
        return RqliteBackupStatus {
            integrity: Some(short(wrong.clone())),
            ..failed(next, &seen.now, text)
        };
    }
    let next = RqliteBackupStatus {
        phase: Some(BackupPhase::Succeeded),
        completed_at: job.ended.clone().or_else(|| Some(seen.now.clone())),
        bytes: outcome.stored_bytes,
        database_bytes: outcome.bytes,
        sha256: outcome.sha256,
        raft_index: outcome.raft_index,
        integrity: outcome.integrity,
        error: None,
        message: None,
        ..next
    };
    with_condition(
        next,
        &seen.now,
        "True",
        "Succeeded",
        "the backup is in the store",
    )
}

fn failed(status: RqliteBackupStatus, now: &Time, text: String) -> RqliteBackupStatus {
    failed_because(status, now, "Failed", text)
}

fn failed_because(
    status: RqliteBackupStatus,
    now: &Time,
    reason: &str,
    text: String,
) -> RqliteBackupStatus {
    let next = RqliteBackupStatus {
        phase: Some(BackupPhase::Failed),
        completed_at: Some(now.clone()),
        message: Some(text.clone()),
        ..status
    };
    with_condition(next, now, "False", reason, &text)
}

/// The status of a backup whose Job was deleted before its end was seen: no operator ran for longer than Jobs
/// are kept, or somebody deleted it.
fn unseen(status: RqliteBackupStatus, now: &Time) -> RqliteBackupStatus {
    let file = status.uri.as_deref().unwrap_or("the file");
    let text = format!(
        "its Job was deleted before its end was seen, so that its result is unknown: {file} may be there, and whole. Look there, or create another RqliteBackup; no schedule deletes this one"
    );
    failed_because(status, now, UNSEEN, text)
}

/// Sets the condition `Complete`: whether the backup is in the store.
fn with_condition(
    status: RqliteBackupStatus,
    now: &Time,
    is: &str,
    reason: &str,
    message: &str,
) -> RqliteBackupStatus {
    put(status, now, ("Complete", is, reason), message)
}

/// Writes into the status what it waits for, unless the status says so already.
fn pending(status: RqliteBackupStatus, text: String) -> Step {
    if status.message.as_ref() == Some(&text) && status.phase.is_some() {
        return Step::Wait(WAIT_SECONDS);
    }
    record(RqliteBackupStatus {
        phase: Some(BackupPhase::Pending),
        message: Some(text),
        ..status
    })
}

#[cfg(test)]
mod tests;
