//! Reads what one schedule depends on, and carries out what was decided.
use std::{sync::Arc, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{DeleteParams, ListParams, Preconditions},
};
use operator_api::{
    RqliteBackup, RqliteBackupSpec, RqliteCluster, RqliteScheduledBackup,
    RqliteScheduledBackupStatus, backup::BackupOptions, cluster::Deletion, names,
};

use super::{
    backup,
    carry_out::{ELSEWHERE, Look, get, is_managed, params, unless_gone},
    schedule::{self, Made},
};
use crate::{
    cluster::{action::Event, deciders::manager},
    error::Error,
    observe::now,
    reconcile::Context,
};

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
        context.metrics.forget_schedule(&namespace, &name);
        return Ok(Look::OnChange);
    };
    let cluster: Option<RqliteCluster> =
        get(client, &namespace, &fresh.spec.cluster_ref.name).await?;
    let status = fresh.status.clone().unwrap_or_default();
    if !is_managed(&context, cluster.as_ref(), status.operator_class.as_deref()).await {
        context.metrics.forget_schedule(&namespace, &name);
        return Ok(Look::After(ELSEWHERE));
    }
    let backups: Api<RqliteBackup> = Api::namespaced(client.clone(), &namespace);
    let uid = fresh.uid().unwrap_or_default();
    let selector = format!("{}={uid}", names::SCHEDULE_UID_LABEL);
    let made = backups.list(&ListParams::default().labels(&selector)).await;
    let made = made
        .map_err(Error::kubernetes(format!("the backups of {name}")))?
        .items;
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
        class: cluster.as_ref().map(manager::class),
    });
    context.lease.check()?;
    if let Some(due) = &decision.create {
        create(&context, &backups, &fresh, due).await?;
    }
    write(&context, &fresh, &status, &decision).await?;
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
    Ok(Look::Within(Duration::from_secs(seconds.max(1))))
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
        unseen: backup::ended_unseen(&status),
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
) -> Result<(), Error> {
    let mut status = decision.status.clone();
    let schedule::Ready {
        is,
        reason,
        message,
    } = decision.ready.clone();
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
    let name = schedule.name_any();
    let namespace = schedule.namespace().unwrap_or_default();
    context.metrics.set_schedule(&namespace, &name, &status);
    if status == *before {
        return Ok(());
    }
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
