//! Reads what one backup depends on, and carries out what was decided.
use std::{sync::Arc, time::Duration};

use k8s_openapi::api::batch::v1::Job;
use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use operator_api::{RqliteBackup, RqliteBackupStatus, RqliteCluster, backup::BackupPhase, names};
use serde_json::json;

use super::{
    backup::{self, FINALIZER, Seen, Step},
    base,
    job::{self, BACKUP_LABEL},
    job_secrets,
    job_seen::{self, JobRef, Which},
};
use crate::{
    cluster::{
        action::Event,
        deciders::manager::{self, Manager},
    },
    error::{Class, Error},
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
    /// After this time with jitter, or when something changes.
    After(Duration),
    /// After exactly this time, because something is due then, or when something changes.
    Within(Duration),
    /// When something changes.
    OnChange,
}

/// Whether this installation manages the cluster. If it does not exist, the recorded class decides. Without a
/// record the installation of the default class reports that the cluster is missing.
pub(super) async fn is_managed(
    context: &Context,
    cluster: Option<&RqliteCluster>,
    recorded: Option<&str>,
) -> bool {
    let us = &context.environment.operator;
    match cluster {
        None => us.class == recorded.unwrap_or(names::DEFAULT_CLASS),
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
    let class = fresh.status.as_ref();
    let class = class.and_then(|status| status.operator_class.as_deref());
    if !is_managed(&context, cluster.as_ref(), class).await {
        return elsewhere(&context, &fresh, cluster.is_some()).await;
    }
    let is_over = fresh.status.as_ref().and_then(|status| status.phase);
    let is_over = is_over.is_some_and(BackupPhase::is_final);
    let is_deleted = fresh.meta().deletion_timestamp.is_some();
    let is_settled =
        is_over && backup::is_settled(&fresh) && backup::has_class(&fresh, cluster.as_ref());
    if is_settled && !is_deleted {
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
    let (own, of_file) = (job::name(&name), job::deletion_name(&name));
    let job = job_seen::read(client, which(&own)).await?;
    // Read after the Job: once that is deleted, no other pod of it is created.
    let pods = match is_deleted {
        true => job_seen::unended(client, &namespace, &selector, &own).await?,
        false => Vec::new(),
    };
    let seen = Seen {
        now: now(),
        pods: &pods,
        job,
        deletion: job_seen::read(client, which(&of_file)).await?,
        backup: &fresh,
        cluster: cluster.as_ref(),
        node_image: &operator.node_image,
        domain: &operator.platform.cluster_domain,
        assigns_users: operator.platform.assigns_users,
    };
    let step = match backup::decide(&seen) {
        // Secrets may be deleted before the namespace shows that it ends; only the creation of the Job then
        // fails.
        Step::Create(job) if !is_deleted => match job_secrets::missing(client, &job).await? {
            Some(missing) => backup::lacking(&seen, &missing),
            None => Step::Create(job),
        },
        other => other,
    };
    do_step(&context, &seen, step).await
}

/// A backup that another installation handles is left alone. But if the cluster is deleted, that installation
/// may be, too: then the finalizer is removed where no file is to be deleted, or where the namespace ends.
async fn elsewhere(
    context: &Context,
    backup: &RqliteBackup,
    has_cluster: bool,
) -> Result<Look, Error> {
    let is_held =
        backup.meta().deletion_timestamp.is_some() && backup::has_finalizer(backup) && !has_cluster;
    if !is_held {
        return Ok(Look::After(ELSEWHERE));
    }
    context.lease.check()?;
    if !backup::is_let_go(backup) && !is_refused_by_its_end(context, backup).await {
        return Ok(Look::After(ELSEWHERE));
    }
    set_finalizer(&context.client, backup, false).await?;
    Ok(Look::OnChange)
}

/// Whether the namespace is being deleted, by a dry run of the creation of the Job that deletes the file.
async fn is_refused_by_its_end(context: &Context, backup: &RqliteBackup) -> bool {
    let status = backup.status.clone().unwrap_or_default();
    let (Some(target), Some(object)) = (&status.target, &status.object) else {
        return false;
    };
    let operator = &context.environment.operator;
    let base = base::unknown(operator.platform.assigns_users);
    let job = job::deletion(backup, (None, base), &operator.node_image, target, object);
    let namespace = backup.namespace().unwrap_or_default();
    let api: Api<Job> = Api::namespaced(context.client.clone(), &namespace);
    let dry_run = PostParams {
        dry_run: true,
        ..params()
    };
    let refused = api.create(&dry_run, &job).await.err();
    refused.is_some_and(|error| Error::kubernetes("creating a Job")(error).namespace_ends())
}

async fn do_step(context: &Context, seen: &Seen<'_>, step: Step) -> Result<Look, Error> {
    let client = &context.client;
    let backup = seen.backup;
    let namespace = backup.namespace().unwrap_or_default();
    context.lease.check()?;
    match step {
        Step::Done => return Ok(Look::OnChange),
        Step::Wait(seconds) => return Ok(Look::After(Duration::from_secs(seconds))),
        Step::Finalizer(on) => set_finalizer(client, backup, on).await?,
        Step::Record(status) => record(context, backup, *status).await?,
        Step::Stop(job) => {
            delete_job(client, &namespace, job).await?;
        }
        Step::Create(job) => {
            if let Err(error) = create_job(client, &namespace, &job).await {
                if error.namespace_ends() && backup.meta().deletion_timestamp.is_some() {
                    return set_finalizer(client, backup, false)
                        .await
                        .map(|()| Look::OnChange);
                }
                if error.class() == Class::Refused
                    && let Step::Record(status) = backup::refused(seen, &error.to_string())
                {
                    record(context, backup, *status).await?;
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
pub(super) async fn delete_job(client: &Client, namespace: &str, job: JobRef) -> Result<(), Error> {
    let api: Api<Job> = Api::namespaced(client.clone(), namespace);
    let JobRef { name, uid } = job;
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid,
            resource_version: None,
        }),
        ..DeleteParams::background()
    };
    let deleted = api.delete(&name, &params).await;
    unless_gone(deleted.map(drop), format!("deleting Job {name}"))
}

pub(super) fn unless_gone(result: Result<(), kube::Error>, doing: String) -> Result<(), Error> {
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
