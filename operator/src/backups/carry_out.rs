//! Reads what one backup or one schedule depends on, and carries out what was decided.
use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::{batch::v1::Job, core::v1::Namespace},
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
};
use operator_api::{
    RqliteBackup, RqliteBackupSpec, RqliteBackupStatus, RqliteCluster, RqliteScheduledBackup,
    RqliteScheduledBackupStatus,
    backup::{BackupOptions, BackupPhase},
    cluster::Deletion,
    names,
};
use serde_json::json;

use super::{
    backup::{self, FINALIZER, Seen, Step},
    job::{self, BACKUP_LABEL},
    job_secrets,
    job_seen::{self, Which},
    schedule::{self, Made},
};
use crate::{
    cluster::{
        action::Event,
        deciders::manager::{self, Manager},
    },
    error::Error,
    observe::now,
    reconcile::Context,
};

/// Pause before checking again an object that another installation manages.
pub(super) const ELSEWHERE: Duration = Duration::from_secs(60);
/// Pause after a Job was created, until its pod may exist.
pub(super) const CREATED: Duration = Duration::from_secs(2);

/// When to reconcile again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// After this time, or when something changes.
    After(Duration),
    /// When something changes.
    OnChange,
}

/// Whether this installation manages the cluster. The installation of the default class also handles objects
/// whose cluster does not exist, and only reports that.
pub(super) async fn is_managed(context: &Context, cluster: Option<&RqliteCluster>) -> bool {
    let us = &context.environment.operator;
    match cluster {
        None => us.class == names::DEFAULT_CLASS,
        Some(cluster) if manager::class(cluster) != us.class => false,
        Some(cluster) => context.installations.manager(cluster, us).await == Manager::Us,
    }
}

pub(super) async fn get<K>(client: &Client, namespace: &str, name: &str) -> Result<Option<K>, Error>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let found = api.get_opt(name).await;
    found.map_err(Error::kubernetes(format!(
        "reading {} {name}",
        K::kind(&())
    )))
}

/// Reconciles one RqliteBackup.
///
/// # Errors
/// A request to the API server failed.
pub async fn backup(context: Arc<Context>, cached: Arc<RqliteBackup>) -> Result<Look, Error> {
    let client = &context.client;
    let namespace = cached.namespace().unwrap_or_default();
    let name = cached.name_any();
    let fresh: Option<RqliteBackup> = get(client, &namespace, &name).await?;
    let Some(fresh) = fresh.filter(|fresh| fresh.uid() == cached.uid()) else {
        return Ok(Look::OnChange);
    };
    let cluster = get(client, &namespace, &fresh.spec.cluster_ref.name).await?;
    if !is_managed(&context, cluster.as_ref()).await {
        return Ok(Look::After(ELSEWHERE));
    }
    let is_over = fresh.status.as_ref().and_then(|status| status.phase);
    let is_over = is_over.is_some_and(BackupPhase::is_final);
    if is_over && fresh.meta().deletion_timestamp.is_none() && backup::is_settled(&fresh) {
        return Ok(Look::OnChange);
    }
    let operator = &context.environment.operator;
    let uid = fresh.uid().unwrap_or_default();
    let selector = format!("{BACKUP_LABEL}={name}");
    let which = |job| Which {
        namespace: &namespace,
        name: job,
        owner: &uid,
        selector: &selector,
        container: job::CONTAINER,
    };
    let seen = Seen {
        now: now(),
        job: job_seen::read(client, which(&job::name(&name))).await?,
        deletion: job_seen::read(client, which(&job::deletion_name(&name))).await?,
        backup: &fresh,
        cluster: cluster.as_ref(),
        node_image: &operator.node_image,
        domain: &operator.platform.cluster_domain,
        assigns_users: operator.platform.assigns_users,
        namespace_ends: fresh.meta().deletion_timestamp.is_some() && ends(client, &namespace).await,
    };
    let step = match backup::decide(&seen) {
        // Secrets may be deleted before the namespace shows that it ends; only the creation of the Job then
        // fails.
        Step::Create(job) if fresh.meta().deletion_timestamp.is_none() => {
            match job_secrets::missing(client, &job).await? {
                Some(missing) => backup::lacking(&seen, &missing),
                None => Step::Create(job),
            }
        }
        other => other,
    };
    do_step(&context, &fresh, step).await
}

/// Whether the namespace is being deleted; `false` if it may not be read.
async fn ends(client: &Client, namespace: &str) -> bool {
    let api: Api<Namespace> = Api::all(client.clone());
    let found = api.get_opt(namespace).await.ok().flatten();
    found.is_some_and(|namespace| namespace.meta().deletion_timestamp.is_some())
}

async fn do_step(context: &Context, backup: &RqliteBackup, step: Step) -> Result<Look, Error> {
    let client = &context.client;
    let namespace = backup.namespace().unwrap_or_default();
    context.lease.check()?;
    match step {
        Step::Done => return Ok(Look::OnChange),
        Step::Wait(seconds) => return Ok(Look::After(Duration::from_secs(seconds))),
        Step::Finalizer(on) => set_finalizer(client, backup, on).await?,
        Step::Record(status) => record(context, backup, *status).await?,
        Step::Stop(job) => {
            delete_job(client, &namespace, &job).await?;
        }
        Step::Create(job) => {
            if let Err(error) = create_job(client, &namespace, &job).await {
                if error.namespace_ends() && backup.meta().deletion_timestamp.is_some() {
                    return set_finalizer(client, backup, false)
                        .await
                        .map(|()| Look::OnChange);
                }
                return Err(error);
            }
            return Ok(Look::After(CREATED));
        }
    }
    Ok(Look::After(Duration::from_secs(1)))
}

pub(super) fn params() -> PostParams {
    PostParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}

/// Creates a Job. If one of the same name exists, the next reconcile finds out whose it is.
pub(super) async fn create_job(client: &Client, namespace: &str, job: &Job) -> Result<(), Error> {
    let api: Api<Job> = Api::namespaced(client.clone(), namespace);
    match api.create(&params(), job).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(Error::kubernetes(format!(
            "creating Job {}",
            job.name_any()
        ))(error)),
    }
}

/// Deletes a Job and its pods.
pub(super) async fn delete_job(client: &Client, namespace: &str, job: &str) -> Result<(), Error> {
    let api: Api<Job> = Api::namespaced(client.clone(), namespace);
    let deleted = api.delete(job, &DeleteParams::background()).await;
    unless_gone(deleted.map(drop), format!("deleting Job {job}"))
}

fn unless_gone(result: Result<(), kube::Error>, doing: String) -> Result<(), Error> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map_err(Error::kubernetes(doing)),
    }
}

/// Adds or removes the finalizer, only if the object is unchanged since it was read.
async fn set_finalizer(client: &Client, backup: &RqliteBackup, on: bool) -> Result<(), Error> {
    let mut all = backup.finalizers().to_vec();
    all.retain(|one| one != FINALIZER);
    all.extend(on.then(|| FINALIZER.to_owned()));
    let patch = json!({ "metadata": {
        "finalizers": all,
        "resourceVersion": backup.resource_version(),
        "uid": backup.uid(),
    }});
    let namespace = backup.namespace().unwrap_or_default();
    let api: Api<RqliteBackup> = Api::namespaced(client.clone(), &namespace);
    let name = backup.name_any();
    let params = PatchParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let patched = api.patch(&name, &params, &Patch::Merge(&patch)).await;
    unless_gone(
        patched.map(drop),
        format!("the finalizer of RqliteBackup {name}"),
    )
}

async fn record(
    context: &Context,
    backup: &RqliteBackup,
    status: RqliteBackupStatus,
) -> Result<(), Error> {
    let name = backup.name_any();
    let before = backup.status.as_ref().and_then(|status| status.phase);
    let namespace = backup.namespace().unwrap_or_default();
    let api: Api<RqliteBackup> = Api::namespaced(context.client.clone(), &namespace);
    let next = RqliteBackup {
        status: Some(status.clone()),
        ..backup.clone()
    };
    let written = api.replace_status(&name, &params(), &next).await;
    written.map_err(Error::kubernetes(format!(
        "the status of RqliteBackup {name}"
    )))?;
    if before != status.phase
        && let Some(phase) = status.phase
    {
        let event = Event {
            warning: phase == BackupPhase::Failed,
            reason: format!("Backup{}", phase.as_str()),
            message: status.message.or(status.uri).unwrap_or_default(),
        };
        context
            .events
            .publish(&backup.object_ref(&()), &event)
            .await;
    }
    Ok(())
}

/// Reconciles one RqliteScheduledBackup.
///
/// # Errors
/// A request to the API server failed.
pub async fn schedule(
    context: Arc<Context>,
    cached: Arc<RqliteScheduledBackup>,
) -> Result<Look, Error> {
    let client = &context.client;
    let namespace = cached.namespace().unwrap_or_default();
    let name = cached.name_any();
    let fresh: Option<RqliteScheduledBackup> = get(client, &namespace, &name).await?;
    let fresh = fresh.filter(|fresh| fresh.uid() == cached.uid());
    let Some(fresh) = fresh.filter(|fresh| fresh.meta().deletion_timestamp.is_none()) else {
        return Ok(Look::OnChange);
    };
    let cluster: Option<RqliteCluster> =
        get(client, &namespace, &fresh.spec.cluster_ref.name).await?;
    if !is_managed(&context, cluster.as_ref()).await {
        return Ok(Look::After(ELSEWHERE));
    }
    let backups: Api<RqliteBackup> = Api::namespaced(client.clone(), &namespace);
    let uid = fresh.uid().unwrap_or_default();
    let selector = format!("{}={uid}", names::SCHEDULE_UID_LABEL);
    let made = backups.list(&ListParams::default().labels(&selector)).await;
    let made = made
        .map_err(Error::kubernetes(format!("the backups of {name}")))?
        .items;
    let status = fresh.status.clone().unwrap_or_default();
    let all: Vec<Made> = made.iter().filter_map(convert).collect();
    let decision = schedule::decide(&schedule::Seen {
        now: now().0,
        name: &name,
        created: fresh
            .creation_timestamp()
            .map_or_else(|| now().0, |at| at.0),
        generation: fresh.meta().generation,
        spec: &fresh.spec,
        status: &status,
        made: &all,
    });
    context.lease.check()?;
    if let Some(due) = &decision.create {
        create(&context, &backups, &fresh, due).await?;
    }
    write(&context, &fresh, &status, &decision, &all).await?;
    for old in made
        .iter()
        .filter(|one| decision.delete.contains(&one.name_any()))
    {
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: old.uid(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let deleted = backups.delete(&old.name_any(), &params).await;
        unless_gone(
            deleted.map(drop),
            format!("deleting RqliteBackup {}", old.name_any()),
        )?;
    }
    let seconds = u64::try_from(decision.again_after_seconds).unwrap_or(1);
    Ok(Look::After(Duration::from_secs(seconds.max(1))))
}

/// A backup of this schedule; `None` if its name is not one that the schedule gives: then something else
/// created it, whatever its labels say.
fn convert(backup: &RqliteBackup) -> Option<Made> {
    let status = backup.status.clone().unwrap_or_default();
    let schedule = backup.labels().get(names::SCHEDULE_LABEL)?;
    let name = backup.name_any();
    let digits = name.strip_prefix(schedule.as_str())?.strip_prefix('-')?;
    let is_named = digits.len() == 14 && digits.bytes().all(|b| b.is_ascii_digit());
    is_named.then(|| Made {
        created: backup
            .creation_timestamp()
            .map_or_else(|| now().0, |at| at.0),
        completed: status.completed_at.map(|at| at.0),
        phase: status.phase.unwrap_or_default(),
        deleting: backup.meta().deletion_timestamp.is_some(),
        name,
    })
}

/// Creates a backup. Its name is derived from its scheduled time, so a second attempt finds the first.
async fn create(
    context: &Context,
    backups: &Api<RqliteBackup>,
    schedule: &RqliteScheduledBackup,
    name: &str,
) -> Result<(), Error> {
    let how = &schedule.spec.how;
    let spec = RqliteBackupSpec {
        cluster_ref: schedule.spec.cluster_ref.clone(),
        how: BackupOptions {
            deletion_policy: Some(how.deletion_policy.unwrap_or(Deletion::Delete)),
            ..how.clone()
        },
    };
    let mut backup = RqliteBackup::new(name, spec);
    let labels = [
        (names::MANAGED_BY_LABEL, names::MANAGED_BY.to_owned()),
        (names::SCHEDULE_LABEL, schedule.name_any()),
        (
            names::SCHEDULE_UID_LABEL,
            schedule.uid().unwrap_or_default(),
        ),
    ];
    let labels = labels
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value));
    backup.metadata.labels = Some(labels.collect());
    match backups.create(&params(), &backup).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => return Ok(()),
        Err(error) => {
            return Err(Error::kubernetes(format!("creating RqliteBackup {name}"))(
                error,
            ));
        }
    }
    let event = Event {
        warning: false,
        reason: "BackupCreated".to_owned(),
        message: format!("created RqliteBackup {name}"),
    };
    context
        .events
        .publish(&schedule.object_ref(&()), &event)
        .await;
    Ok(())
}

/// Writes the status with its condition, if it differs from the present one.
async fn write(
    context: &Context,
    schedule: &RqliteScheduledBackup,
    before: &RqliteScheduledBackupStatus,
    decision: &schedule::Decision,
    made: &[Made],
) -> Result<(), Error> {
    let mut status = decision.status.clone();
    let ended = made.iter().filter(|one| one.phase.is_final());
    let newest = ended.max_by_key(|one| one.completed.unwrap_or(one.created));
    let (is, reason, message) = match (&decision.mistake, newest) {
        (Some(mistake), _) => ("False", "InvalidSchedule", mistake.clone()),
        (None, Some(one)) if one.phase == BackupPhase::Failed => (
            "False",
            "BackupFailed",
            format!("the newest backup, {}, failed", one.name),
        ),
        (None, Some(one)) => (
            "True",
            "BackupSucceeded",
            format!("the newest backup is {}", one.name),
        ),
        (None, None) => (
            "Unknown",
            "NoBackupYet",
            "no backup has ended yet".to_owned(),
        ),
    };
    let old = before.conditions.first().filter(|old| old.status == is);
    let since: Time = old.map_or_else(now, |old| old.last_transition_time.clone());
    status.conditions = vec![Condition {
        type_: "Ready".to_owned(),
        status: is.to_owned(),
        reason: reason.to_owned(),
        message: message.clone(),
        last_transition_time: since,
        observed_generation: schedule.meta().generation,
    }];
    if status == *before {
        return Ok(());
    }
    let name = schedule.name_any();
    let namespace = schedule.namespace().unwrap_or_default();
    let api: Api<RqliteScheduledBackup> = Api::namespaced(context.client.clone(), &namespace);
    let next = RqliteScheduledBackup {
        status: Some(status),
        ..schedule.clone()
    };
    let written = api.replace_status(&name, &params(), &next).await;
    written.map_err(Error::kubernetes(format!(
        "the status of RqliteScheduledBackup {name}"
    )))?;
    if is == "False" && old.is_none() {
        let event = Event {
            warning: true,
            reason: reason.to_owned(),
            message,
        };
        context
            .events
            .publish(&schedule.object_ref(&()), &event)
            .await;
    }
    Ok(())
}
