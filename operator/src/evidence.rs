//! Kubernetes events about objects that do not start. Only events say why a controller could not create a pod
//! or a volume, and that a kubelet found no pull secret. They are read only when needed, and only for the
//! affected objects.
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::{
        core::v1::{PersistentVolumeClaim, Pod},
        events::v1::Event,
    },
    jiff::Timestamp,
};
use kube::{Api, Client, Resource, api::ListParams};
use parking_lot::Mutex;

use crate::live::{Live, containers, created, pods_of};

/// Maximum number of objects whose events are read at a time: one shows the cause, a few more show different
/// causes.
const MAX_OBJECTS: usize = 4;
/// Maximum number of events that are read for each object.
const MAX_EVENTS: u32 = 50;
/// Age from which a refusal is outdated: a Job's controller tries again at least every ten minutes.
const REFUSED_SECONDS: i64 = 1200;
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

/// First and longest time for which the events of an unchanged object are not read again. In between the wait
/// doubles: an object that is stuck for long has nothing new to say.
const WAITS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// Time after which the events of an object that is no longer stuck or no longer exists are forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// The events that were read, by uid of the object.
#[derive(Debug, Default)]
pub struct Known(Mutex<HashMap<String, OfObject>>);

/// The events of one object.
#[derive(Clone, Debug)]
struct OfObject {
    /// The object's version when they were read.
    version: Option<String>,
    read_at: Instant,
    wait: Duration,
    events: Vec<Event>,
}

impl Known {
    /// The events of an object, unless they are to be read.
    fn get(&self, suspect: &Suspect, now: Instant) -> Option<Vec<Event>> {
        let all = self.0.lock();
        let known = all.get(&suspect.uid)?;
        let fresh = now.saturating_duration_since(known.read_at) < known.wait;
        (fresh && known.version == suspect.version).then(|| known.events.clone())
    }

    fn put(&self, suspect: &Suspect, events: &[Event], now: Instant) {
        let mut all = self.0.lock();
        all.retain(|_, known| now.saturating_duration_since(known.read_at) < FORGOTTEN_AFTER);
        let before = all.get(&suspect.uid);
        let same = before.filter(|known| known.version == suspect.version);
        let wait = same.map_or(WAITS.0, |known| known.wait.saturating_mul(2).min(WAITS.1));
        let of_object = OfObject {
            version: suspect.version.clone(),
            read_at: now,
            wait,
            events: events.to_vec(),
        };
        all.insert(suspect.uid.clone(), of_object);
    }
}

/// An object that does not start.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Suspect {
    uid: String,
    version: Option<String>,
}

impl Suspect {
    fn of<K: Resource>(object: &K) -> Option<Self> {
        Some(Self {
            uid: object.meta().uid.clone()?,
            version: object.meta().resource_version.clone(),
        })
    }
}

/// The events of objects that do not start. Read errors are ignored: the condition then has less detail.
pub async fn read(client: &Client, namespace: &str, live: &Live, known: &Known) -> Vec<Event> {
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let mut all = Vec::new();
    for suspect in suspects(live, Timestamp::now()) {
        if let Some(events) = known.get(&suspect, Instant::now()) {
            all.extend(events);
            continue;
        }
        let uid = &suspect.uid;
        let about = ListParams::default()
            .fields(&format!("regarding.uid={uid}"))
            .limit(MAX_EVENTS);
        match api.list(&about).await {
            Ok(list) => {
                known.put(&suspect, &list.items, Instant::now());
                all.extend(list.items);
            }
            Err(error) => {
                tracing::debug!("reading events: {error}");
                break;
            }
        }
    }
    all
}

/// Why no pod of a Job could be created, as its controller says. Read errors are ignored, as above.
pub async fn refused_pods(client: &Client, namespace: &str, uid: &str) -> Option<String> {
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let about = ListParams::default()
        .fields(&format!("regarding.uid={uid}"))
        .limit(MAX_EVENTS);
    match api.list(&about).await {
        Ok(list) => newest_refusal(&list.items, Timestamp::now()),
        Err(error) => {
            tracing::debug!("reading events: {error}");
            None
        }
    }
}

/// What the newest of these events says of a pod that could not be created, unless it is outdated.
fn newest_refusal(events: &[Event], now: Timestamp) -> Option<String> {
    let refusals = events
        .iter()
        .filter(|event| event.reason.as_deref() == Some("FailedCreate"));
    let newest = refusals.max_by_key(|event| last_seen(event))?;
    let age = now.as_second().saturating_sub(last_seen(newest));
    newest.note.clone().filter(|_| age < REFUSED_SECONDS)
}

/// The objects that do not start.
fn suspects(live: &Live, now: Timestamp) -> Vec<Suspect> {
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
    sets.filter_map(|set| Suspect::of(&**set))
        .chain(claims.filter_map(|claim| Suspect::of(&**claim)))
        .chain(pods.filter_map(|pod| Suspect::of(&**pod)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_refusal_counts() {
        let event = |reason: &str, note: &str, at: &str| -> Event {
            let event = serde_json::json!({"metadata": {}, "reason": reason, "note": note,
                "eventTime": null, "deprecatedLastTimestamp": at});
            serde_json::from_value(event).unwrap()
        };
        let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
        let old = event("FailedCreate", "no account", "2026-01-01T00:30:00Z");
        let first = event("FailedCreate", "no account", "2026-01-01T00:50:00Z");
        let second = event("FailedCreate", "quota", "2026-01-01T00:55:00Z");
        let other = event("SuccessfulCreate", "a pod", "2026-01-01T00:58:00Z");
        let cases: [(&[Event], Option<&str>); 4] = [
            (&[], None),
            (std::slice::from_ref(&old), None),
            (&[first.clone(), second.clone(), old.clone()], Some("quota")),
            (&[other, first], Some("no account")),
        ];
        for (events, expected) in cases {
            assert_eq!(newest_refusal(events, now).as_deref(), expected);
        }
    }

    #[test]
    fn a_stuck_object_is_asked_about_ever_less_often() {
        let known = Known::default();
        let start = Instant::now();
        let suspect = |version: &str| Suspect {
            uid: "u".to_owned(),
            version: Some(version.to_owned()),
        };
        let mut reads = Vec::new();
        for second in 0..300 {
            let now = start + Duration::from_secs(second);
            if known.get(&suspect("1"), now).is_none() {
                known.put(&suspect("1"), &[Event::default()], now);
                reads.push(second);
            }
        }
        assert_eq!(reads, [0, 5, 15, 35, 75, 135, 195, 255]);
        let end = start + Duration::from_secs(300);
        assert_eq!(known.get(&suspect("1"), end).map(|e| e.len()), Some(1));
        assert_eq!(known.get(&suspect("2"), end), None, "it has changed");
        known.put(&suspect("2"), &[], end);
        assert_eq!(known.get(&suspect("2"), end + WAITS.0), None);
    }
}
