//! Reads what the drills of one cluster depend on, and carries out what was decided.
use std::{sync::Arc, time::Duration};

use k8s_openapi::api::batch::v1::Job;
use kube::{Api, Client, Resource as _, ResourceExt as _, api::ListParams};
use operator_api::{
    RqliteCluster,
    status::{ArchiveStatus, BACKUPS_PROVEN},
};

use super::{
    carry_out::{CREATED, ELSEWHERE, Look, create_job, delete_job, get, is_managed, params},
    drill::{self, Record, Seen, Step},
    drill_job::{CONTAINER, DRILL_LABEL},
    job_secrets,
    job_seen::{self, JobRef, Which},
};
use crate::{cluster::facts::ownership::is_ours, error::Error, observe::now, reconcile::Context};

/// Pause after a status was written.
const WRITTEN: Duration = Duration::from_secs(1);

/// Reconciles the drills of one cluster. `others`: number of running drills of other clusters.
///
/// # Errors
/// A request to the API server failed.
pub async fn look(
    context: Arc<Context>,
    cached: Arc<RqliteCluster>,
    others: usize,
) -> Result<Look, Error> {
    if !drill::concerns(&cached) {
        return Ok(Look::OnChange);
    }
    let client = &context.client;
    let namespace = cached.namespace().unwrap_or_default();
    let name = cached.name_any();
    let fresh: Option<RqliteCluster> = get(client, &namespace, &name).await?;
    let Some(fresh) = fresh.filter(|fresh| fresh.uid() == cached.uid()) else {
        return Ok(Look::OnChange);
    };
    if !is_managed(&context, Some(&fresh), None).await {
        return Ok(Look::After(ELSEWHERE));
    }
    let uid = fresh.uid().unwrap_or_default();
    let selector = format!("{DRILL_LABEL}={name}");
    let job = match drill::job_on_record(&fresh) {
        None => None,
        Some(job) => {
            let which = Which {
                namespace: &namespace,
                name: job,
                owner: &uid,
                selector: &selector,
                container: CONTAINER,
            };
            job_seen::read(client, which).await?
        }
    };
    let leader = context.leaders.get(&uid);
    let operator = &context.environment.operator;
    let seen = Seen {
        now: now(),
        cluster: &fresh,
        job,
        ended: &ended(client, &fresh, &selector).await?,
        others,
        leader: leader.as_ref(),
        node_image: &operator.node_image,
        assigns_users: operator.platform.assigns_users,
    };
    let step = match drill::decide(&seen) {
        Step::Create(job) => match job_secrets::missing(client, &job).await? {
            Some(missing) => drill::lacking(&seen, missing),
            None => Step::Create(job),
        },
        other => other,
    };
    do_step(&context, &fresh, step).await
}

/// The Jobs of this cluster's drills except the recorded one, the newest first.
async fn ended(
    client: &Client,
    cluster: &RqliteCluster,
    selector: &str,
) -> Result<Vec<JobRef>, Error> {
    let namespace = cluster.namespace().unwrap_or_default();
    let api: Api<Job> = Api::namespaced(client.clone(), &namespace);
    let all = api.list(&ListParams::default().labels(selector)).await;
    let all = all.map_err(Error::kubernetes("the Jobs of drills"))?;
    let uid = cluster.uid().unwrap_or_default();
    let present = drill::job_on_record(cluster);
    let mut own: Vec<Job> = all.items;
    own.retain(|job| is_ours(&job.metadata, &uid));
    own.retain(|job| job.metadata.name.as_deref() != present);
    own.retain(|job| job.metadata.deletion_timestamp.is_none());
    own.sort_by_key(|job| std::cmp::Reverse(job.metadata.creation_timestamp.clone()));
    let all = own.iter().map(|job| JobRef {
        name: job.name_any(),
        uid: job.uid(),
    });
    Ok(all.collect())
}

async fn do_step(context: &Context, cluster: &RqliteCluster, step: Step) -> Result<Look, Error> {
    let namespace = cluster.namespace().unwrap_or_default();
    let client = &context.client;
    context.lease.check()?;
    match step {
        Step::Done => Ok(Look::OnChange),
        Step::Wait(seconds) => Ok(Look::After(Duration::from_secs(seconds))),
        Step::Record(next) => {
            record(context, cluster, *next).await?;
            Ok(Look::After(WRITTEN))
        }
        Step::Delete(job) => {
            delete_job(client, &namespace, job).await?;
            Ok(Look::After(WRITTEN))
        }
        Step::Create(job) => {
            create_job(client, &namespace, &job).await?;
            Ok(Look::After(CREATED))
        }
    }
}

/// Writes the part of the status about drills, only if the cluster is unchanged since it was read.
async fn record(context: &Context, cluster: &RqliteCluster, record: Record) -> Result<(), Error> {
    let mut status = cluster.status.clone().unwrap_or_default();
    let archive = status.archive.take();
    status.archive = match (&record.drill, archive) {
        (None, None) => None,
        (_, archive) => Some(ArchiveStatus {
            drill: record.drill,
            ..archive.unwrap_or_default()
        }),
    };
    status.conditions.retain(|one| one.type_ != BACKUPS_PROVEN);
    status.conditions.extend(record.condition);
    let name = cluster.name_any();
    let namespace = cluster.namespace().unwrap_or_default();
    let api: Api<RqliteCluster> = Api::namespaced(context.client.clone(), &namespace);
    let next = RqliteCluster {
        status: Some(status),
        ..cluster.clone()
    };
    let written = api.replace_status(&name, &params(), &next).await;
    written.map_err(Error::kubernetes(format!("the status of {name}")))?;
    if let Some(event) = &record.event {
        context
            .events
            .publish(&cluster.object_ref(&()), event)
            .await;
    }
    Ok(())
}
