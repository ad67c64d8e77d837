//! Kubernetes events for `kubectl describe`. Each event is published once, not at every reconcile.
use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event as KubeEvent},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use operator_api::names;
use parking_lot::Mutex;

use crate::cluster::action::Event;

/// An event that still applies is published again after this time; the API server keeps events for an hour.
const REPEAT_AFTER: Duration = Duration::from_secs(1800);
/// Number of different recent events remembered per object, so that an object that alternates between a few
/// states does not flood the API server.
const REMEMBERED: usize = 16;
/// Kubernetes' limit for the length of a note.
const MAX_NOTE_CHARS: usize = 1000;

/// Publishes events.
pub struct Events {
    client: Client,
    identity: String,
    published_events: Mutex<HashMap<String, Published>>,
}

/// Recent events of one object, the newest last.
type Published = VecDeque<(Event, Instant)>;

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    /// Creates a publisher; `identity` is reported as the events' `reportingInstance`.
    pub fn new(client: Client, identity: &str) -> Self {
        Self {
            client,
            identity: identity.to_owned(),
            published_events: Mutex::default(),
        }
    }

    /// Logs and publishes an event, unless it was published for this object recently. Failures are only
    /// logged: nothing depends on events.
    pub async fn publish(&self, about: &ObjectReference, event: &Event) {
        let key = about.uid.clone().unwrap_or_default();
        {
            let mut all = self.published_events.lock();
            if !is_new(all.entry(key).or_default(), event, Instant::now()) {
                return;
            }
        }
        let message = event.message.as_str();
        if event.warning {
            tracing::warn!(event.reason, "{message}");
        } else {
            tracing::info!(event.reason, "{message}");
        }
        let namespace = about.namespace.clone().unwrap_or_default();
        let api: Api<KubeEvent> = Api::namespaced(self.client.clone(), &namespace);
        let published = api
            .create(&PostParams::default(), &self.object(about, event))
            .await;
        if let Err(error) = published {
            tracing::warn!(event.reason, "publishing an event: {error}");
        }
    }

    fn object(&self, about: &ObjectReference, event: &Event) -> KubeEvent {
        let now = Timestamp::now();
        let name = about.name.clone().unwrap_or_default();
        KubeEvent {
            metadata: ObjectMeta {
                name: Some(format!("{name}.{:x}", now.as_nanosecond())),
                namespace: about.namespace.clone(),
                ..ObjectMeta::default()
            },
            type_: Some(if event.warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(event.reason.clone()),
            action: Some(event.reason.clone()),
            note: Some(event.message.chars().take(MAX_NOTE_CHARS).collect()),
            event_time: Some(MicroTime(now)),
            regarding: Some(about.clone()),
            reporting_controller: Some(names::MANAGED_BY.to_owned()),
            reporting_instance: Some(self.identity.clone()),
            ..KubeEvent::default()
        }
    }

    /// Removes the events of a deleted object.
    pub fn forget(&self, uid: &str) {
        let mut published_events = self.published_events.lock();
        published_events.remove(uid);
    }
}

/// Records an event; false if it was published recently.
fn is_new(published_events: &mut Published, event: &Event, now: Instant) -> bool {
    published_events.retain(|(_, at)| now.saturating_duration_since(*at) < REPEAT_AFTER);
    if published_events.iter().any(|(old, _)| old == event) {
        return false;
    }
    if published_events.len() >= REMEMBERED {
        published_events.pop_front();
    }
    published_events.push_back((event.clone(), now));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_is_enough() {
        let event = |message: &str| Event {
            warning: true,
            reason: "QuorumUnavailable".to_owned(),
            message: message.to_owned(),
        };
        let start = Instant::now();
        let mut published_events = Published::default();
        let steps = [
            ("a", 0, true),
            ("a", 1, false),
            ("b", 2, true),
            ("a", 3, false),
            ("a", 1800, true),
            ("b", 1801, false),
            ("b", 1802, true),
        ];
        for (message, after, new) in steps {
            let now = start + Duration::from_secs(after);
            assert_eq!(
                is_new(&mut published_events, &event(message), now),
                new,
                "{message} {after}"
            );
        }
        for n in 0..100 {
            is_new(&mut published_events, &event(&n.to_string()), start);
        }
        assert_eq!(published_events.len(), REMEMBERED);
    }
}
