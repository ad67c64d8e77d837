//! Kubernetes events about objects that do not start. Only events say why a controller could not create a pod
//! or a volume, and that a kubelet found no pull secret. They are read only when needed, and only for the
//! affected objects.
use k8s_openapi::{
    api::{
        core::v1::{PersistentVolumeClaim, Pod},
        events::v1::Event,
    },
    jiff::Timestamp,
};
use kube::{Api, Client, ResourceExt, api::ListParams};

use crate::live::{Live, containers, created, pods_of};

/// Maximum number of objects whose events are read at a time: one shows the cause, a few more show different
/// causes.
const MAX_OBJECTS: usize = 4;
/// Maximum number of events that are read for each object.
const MAX_EVENTS: u32 = 50;
/// Age before which a missing pod or volume is considered normal.
const GRACE_SECONDS: i64 = 3;
/// Waiting reasons of containers whose image cannot be pulled.
pub const IMAGE_REASONS: [&str; 6] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
];

/// Reads the events of objects that do not start. Read errors are ignored: the condition then has less
/// detail.
pub async fn read(client: &Client, namespace: &str, live: &Live) -> Vec<Event> {
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let mut all = Vec::new();
    for uid in suspects(live, Timestamp::now()) {
        let about = ListParams::default()
            .fields(&format!("regarding.uid={uid}"))
            .limit(MAX_EVENTS);
        match api.list(&about).await {
            Ok(list) => all.extend(list.items),
            Err(error) => {
                tracing::debug!("reading events: {error}");
                break;
            }
        }
    }
    all
}

/// Uids of the objects that do not start.
fn suspects(live: &Live, now: Timestamp) -> Vec<String> {
    let is_old = |created: Option<i64>| {
        created.is_none_or(|created| now.as_second() - created >= GRACE_SECONDS)
    };
    let sets = live.sets.iter().filter(|set| {
        let desired = set.spec.as_ref().and_then(|spec| spec.replicas);
        let there = pods_of(live, set).count();
        is_old(created(&***set))
            && usize::try_from(desired.unwrap_or(1)).is_ok_and(|desired| desired > there)
    });
    let claims = live
        .claims
        .iter()
        .filter(|claim| is_pending(claim) && is_old(created(&***claim)));
    let pods = live.pods.iter().filter(|pod| misses_image(pod));
    sets.filter_map(|set| set.uid())
        .chain(claims.filter_map(|claim| claim.uid()))
        .chain(pods.filter_map(|pod| pod.uid()))
        .take(MAX_OBJECTS)
        .collect()
}

/// Whether a claim is still waiting for a volume.
pub fn is_pending(claim: &PersistentVolumeClaim) -> bool {
    let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref());
    let volume = claim.spec.as_ref().and_then(|s| s.volume_name.as_ref());
    phase == Some("Pending") && volume.is_none() && claim.metadata.deletion_timestamp.is_none()
}

/// Whether a pod with pull secrets is waiting for an image.
fn misses_image(pod: &Pod) -> bool {
    let secrets = pod
        .spec
        .as_ref()
        .and_then(|s| s.image_pull_secrets.as_ref());
    let mut all = pod.status.iter().flat_map(containers);
    let waits = all.any(|container| {
        let waiting = container.state.as_ref().and_then(|s| s.waiting.as_ref());
        let reason = waiting.and_then(|w| w.reason.as_deref());
        reason.is_some_and(|reason| IMAGE_REASONS.contains(&reason))
    });
    secrets.is_some_and(|secrets| !secrets.is_empty()) && waits
}

/// When an event last occurred, in Unix seconds; 0 if unknown.
pub fn last_seen(event: &Event) -> i64 {
    let series = event.series.as_ref().map(|s| s.last_observed_time.0);
    let old = event.deprecated_last_timestamp.as_ref().map(|t| t.0);
    let first = event.event_time.as_ref().map(|t| t.0);
    let made = event.metadata.creation_timestamp.as_ref().map(|t| t.0);
    let last = series.or(old).or(first).or(made);
    last.map_or(0, |time| time.as_second())
}
