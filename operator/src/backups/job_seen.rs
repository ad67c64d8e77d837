//! Reads a Job and its pods: progress, result, and why a pod does not start.
use k8s_openapi::{
    api::{batch::v1::Job, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{Api, Client, ResourceExt as _, api::ListParams};

use super::job_secrets;
use crate::{
    cluster::facts::ownership::is_ours, error::Error, evidence, live::controller, observe::now,
};

/// Age in seconds from which a Job should have a pod.
const GRACE_SECONDS: i64 = 2;

/// The state of a Job.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobSeen {
    /// Its uid.
    pub uid: Option<String>,
    /// Whether it is owned by the object in question.
    pub is_ours: bool,
    /// Whether it has a pod.
    pub has_pod: bool,
    /// Number of failed pods.
    pub failed: i32,
    /// Whether it succeeded or failed; `None` while it runs.
    pub succeeded: Option<bool>,
    /// When it began.
    pub started: Option<Time>,
    /// When it ended.
    pub ended: Option<Time>,
    /// Why it failed, by its condition.
    pub message: Option<String>,
    /// Termination message of its newest pod.
    pub result: Option<String>,
    /// Why its pod does not start.
    pub stuck: Option<String>,
}

/// A Job that is to be deleted: by name and uid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRef {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: Option<String>,
}

/// Identifies a Job and its pods.
#[derive(Clone, Copy, Debug)]
pub struct Which<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Uid of the object that should own it.
    pub owner: &'a str,
    /// Label selector that its pods match; others may match, too.
    pub selector: &'a str,
    /// The container whose termination message is the result.
    pub container: &'a str,
}

/// Reads a Job and its pods; `None` if there is no Job of this name.
///
/// # Errors
/// A request to the API server failed.
pub async fn read(client: &Client, which: Which<'_>) -> Result<Option<JobSeen>, Error> {
    let Which {
        namespace, name, ..
    } = which;
    let api: Api<Job> = Api::namespaced(client.clone(), namespace);
    let job = api.get_opt(name).await;
    let job = job.map_err(Error::kubernetes(format!("reading Job {name}")))?;
    let Some(job) = job else {
        return Ok(None);
    };
    let mut seen = JobSeen {
        uid: job.uid(),
        is_ours: is_ours(&job.metadata, which.owner),
        ..JobSeen::default()
    };
    if !seen.is_ours {
        return Ok(Some(seen));
    }
    let status = job.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let is = |kind: &str| {
        let mut all = conditions.iter();
        all.find(|one| one.type_ == kind && one.status == "True")
    };
    seen.failed = status.failed.unwrap_or(0);
    seen.started = status.start_time;
    seen.ended = status.completion_time;
    if is("Complete").is_some() {
        seen.succeeded = Some(true);
    } else if let Some(failed) = is("Failed") {
        seen.succeeded = Some(false);
        seen.message = failed.message.clone().or_else(|| failed.reason.clone());
    }
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let selected = ListParams::default().labels(which.selector);
    let pods = api.list(&selected).await;
    let pods = pods.map_err(Error::kubernetes(format!("the pods of Job {name}")))?;
    let uid = job.uid().unwrap_or_default();
    let mut pods: Vec<Pod> = pods.items;
    pods.retain(|pod| is_ours(&pod.metadata, &uid));
    seen.has_pod = !pods.is_empty();
    pods.sort_by_key(|pod| std::cmp::Reverse(pod.metadata.creation_timestamp.clone()));
    let wanted = |pod: &Pod| {
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        seen.succeeded != Some(true) || phase == Some("Succeeded")
    };
    pods.retain(wanted);
    seen.result = pods.iter().find_map(|pod| result(pod, which.container));
    seen.stuck = pods.first().and_then(stuck);
    let waits = pods.first().is_some_and(is_pending);
    if seen.stuck.is_none() && seen.succeeded.is_none() && waits {
        // The pod's status does not say that a Secret cannot be mounted.
        seen.stuck = job_secrets::missing(client, &job).await?;
    }
    let created = job.metadata.creation_timestamp.as_ref();
    let age = created.map(|at| now().0.as_second().saturating_sub(at.0.as_second()));
    let lacks = !seen.has_pod && seen.succeeded.is_none();
    if lacks && age.is_none_or(|age| age >= GRACE_SECONDS) {
        seen.stuck = evidence::refused_pods(client, namespace, &uid).await;
    }
    Ok(Some(seen))
}

/// Names of the pods of a Job that have not ended and may still write, also if the Job is deleted.
///
/// # Errors
/// A request to the API server failed.
pub async fn unended(
    client: &Client,
    namespace: &str,
    selector: &str,
    job: &str,
) -> Result<Vec<String>, Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pods = api.list(&ListParams::default().labels(selector)).await;
    let pods = pods.map_err(Error::kubernetes(format!("the pods of Job {job}")))?;
    let all = pods.items.iter().filter(|pod| may_write(pod, job));
    Ok(all.map(|pod| pod.name_any()).collect())
}

fn may_write(pod: &Pod, job: &str) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    let owner = controller(pod);
    owner.is_some_and(|owner| owner.kind == "Job" && owner.name == job)
        && !["Succeeded", "Failed"].contains(&phase.unwrap_or_default())
}

fn is_pending(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    status.is_some_and(|status| status.phase.as_deref() == Some("Pending"))
}

/// The termination message of a container that has ended.
fn result(pod: &Pod, name: &str) -> Option<String> {
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    let container = containers.iter().find(|one| one.name == name)?;
    let ended = container.state.as_ref()?.terminated.as_ref()?;
    ended.message.clone().filter(|text| !text.trim().is_empty())
}

/// Why a pod does not start.
fn stuck(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let containers = status.container_statuses.iter().flatten();
    let waiting = containers
        .filter_map(|one| one.state.as_ref()?.waiting.as_ref())
        .find(|waiting| {
            let usual = ["ContainerCreating", "PodInitializing"];
            waiting
                .reason
                .as_deref()
                .is_some_and(|reason| !usual.contains(&reason))
        });
    if let Some(waiting) = waiting {
        let reason = waiting.reason.clone().unwrap_or_default();
        let message = waiting.message.clone().unwrap_or_default();
        return Some(format!("{reason}: {message}"));
    }
    let mut conditions = status.conditions.iter().flatten();
    let scheduled = conditions.find(|one| one.type_ == "PodScheduled" && one.status == "False")?;
    scheduled.message.clone()
}
