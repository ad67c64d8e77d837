//! What keeps pods from starting: from the objects' status where possible, otherwise from events about the
//! object.
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ContainerStatus, PersistentVolumeClaim, Pod, PodStatus},
    events::v1::Event,
};
use kube::ResourceExt;
use operator_api::names;

use super::pod;
use crate::{
    cluster::facts::observation::{Blocker, BlockerKind},
    evidence::{IMAGE_REASONS, is_pending, last_seen},
    live::{Live, containers, created, pods_of},
};

/// Waiting reasons of containers that Kubernetes cannot create.
const CONTAINER_REASONS: [&str; 4] = [
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "PostStartHookError",
];
/// Container that runs the node.
const NODE: &str = "rqlited";
/// Maximum age of an event. The StatefulSet controller retries at least every 1000 s, so an older event is
/// outdated.
const EVENT_SECONDS: i64 = 1200;
/// Maximum length of a message in a status.
const MAX_MESSAGE_CHARS: usize = 400;

/// All blockers of one cluster; `now` is in Unix seconds.
pub(super) fn find(live: &Live, now: i64) -> Vec<Blocker> {
    let sets = live.sets.iter().filter_map(|set| refusal(live, set, now));
    let claims = live.claims.iter().filter(|claim| is_of_a_pod(live, claim));
    let claims = claims.filter_map(|claim| volume(live, claim));
    let pods = live.pods.iter().filter_map(|pod| of_pod(live, pod));
    sets.chain(claims).chain(pods).collect()
}

fn blocker(kind: BlockerKind, object: &str, message: &str) -> Blocker {
    Blocker {
        kind,
        object: object.to_owned(),
        message: message.trim().chars().take(MAX_MESSAGE_CHARS).collect(),
    }
}

/// The note of the newest event of an object with this reason, and the event.
fn newest<'a>(
    live: &'a Live,
    about: &impl ResourceExt,
    reason: &str,
) -> Option<(&'a str, &'a Event)> {
    let uid = about.uid();
    let own = live.events.iter().filter(|event| {
        let regarding = event.regarding.as_ref().and_then(|r| r.uid.clone());
        regarding == uid && event.reason.as_deref() == Some(reason)
    });
    let event = own.max_by_key(|event| last_seen(event))?;
    Some((event.note.as_deref().unwrap_or_default(), event))
}

/// A StatefulSet that lacks pods because they or their claims are refused. An event from before the newest
/// pod may be outdated and is ignored.
fn refusal(live: &Live, set: &StatefulSet, now: i64) -> Option<Blocker> {
    let desired = set.spec.as_ref().and_then(|spec| spec.replicas);
    let there = pods_of(live, set).count();
    if set.metadata.deletion_timestamp.is_some()
        || usize::try_from(desired.unwrap_or(1)).is_ok_and(|desired| there >= desired)
    {
        return None;
    }
    let (message, event) = newest(live, set, "FailedCreate")?;
    let newest_pod = pods_of(live, set).filter_map(|pod| created(&**pod)).max();
    let at = last_seen(event);
    let counts = newest_pod.is_none_or(|pod| at >= pod) && now - at < EVENT_SECONDS;
    let message = message
        .split_once("failed error: ")
        .map_or(message, |(_, w)| w);
    counts.then(|| blocker(BlockerKind::Refused, &set.name_any(), message))
}

/// Is a claim named after a pod of one of the StatefulSets? Clones that kept the labels are not.
fn is_of_a_pod(live: &Live, claim: &PersistentVolumeClaim) -> bool {
    let name = claim.name_any();
    let pod = name.strip_prefix(names::claim("").as_str());
    let mut sets = live.sets.iter();
    pod.is_some_and(|pod| sets.any(|set| names::ordinal(&set.name_any(), pod).is_some()))
}

/// A claim for which no volume is provisioned.
fn volume(live: &Live, claim: &PersistentVolumeClaim) -> Option<Blocker> {
    if !is_pending(claim) {
        return None;
    }
    let name = claim.name_any();
    let spec = claim.spec.as_ref();
    let class = spec.and_then(|spec| spec.storage_class_name.as_deref());
    // Unknown without permission to read classes.
    let missing = live
        .default_classes
        .as_ref()
        .is_some_and(|defaults| match class {
            // The empty class disables dynamic provisioning.
            Some("") => false,
            Some(class) => !live.expandable.contains_key(class),
            None => defaults.is_empty(),
        });
    if missing {
        let class = class.unwrap_or_default();
        return Some(blocker(BlockerKind::NoClass, &name, class));
    }
    let (message, _) = newest(live, claim, "ProvisioningFailed")?;
    Some(blocker(BlockerKind::NoVolume, &name, message))
}

fn of_pod(live: &Live, pod: &Pod) -> Option<Blocker> {
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let status = pod.status.clone().unwrap_or_default();
    let name = pod.name_any();
    if let Some(message) = unscheduled(&status) {
        return Some(blocker(BlockerKind::NoMachine, &name, &message));
    }
    let (kind, message) = containers(&status).find_map(container)?;
    let secrets = newest(live, pod, "FailedToRetrieveImagePullSecret")
        .filter(|_| kind == BlockerKind::Image)
        .and_then(|(note, _)| between(note, '(', ')'));
    Some(match secrets {
        Some(secrets) => blocker(BlockerKind::NoPullSecret, &name, secrets),
        None => blocker(kind, &name, &message),
    })
}

fn unscheduled(status: &PodStatus) -> Option<String> {
    let scheduled = pod::condition(status, "PodScheduled")?;
    let unschedulable = scheduled.reason.as_deref() == Some("Unschedulable");
    (scheduled.status == "False" && unschedulable)
        .then(|| scheduled.message.clone().unwrap_or_default())
}

fn between(text: &str, open: char, close: char) -> Option<&str> {
    let (_, rest) = text.split_once(open)?;
    rest.split_once(close).map(|(inner, _)| inner)
}

/// Why a container does not run, and the kind of blocker.
fn container(status: &ContainerStatus) -> Option<(BlockerKind, String)> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    if IMAGE_REASONS.contains(&reason) {
        let message = pod::reason_and_message(reason, waiting.message.as_deref());
        return Some((BlockerKind::Image, format!("{}: {message}", status.image)));
    }
    if CONTAINER_REASONS.contains(&reason) {
        let message = waiting.message.clone();
        let message = message.unwrap_or_else(|| reason.to_owned());
        return Some((BlockerKind::Container, message));
    }
    // A crash of the container `prepare` is explained by its report instead.
    if reason == "CrashLoopBackOff" && status.name == NODE {
        let last = status.last_state.as_ref()?.terminated.as_ref()?;
        return Some((BlockerKind::Crash, pod::ended(last)));
    }
    None
}

#[cfg(test)]
mod tests;
