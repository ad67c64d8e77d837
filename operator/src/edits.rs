//! External edits of the operator's objects: who made them, and which of them are shown for how long.
use std::{
    collections::HashMap,
    fmt::Debug,
    time::{Duration, Instant},
};

use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use operator_api::names;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cluster::facts::observation::Edit;

/// Field manager that owns `spec.replicas` of an autoscaled pool until the autoscaler sets it (Kubernetes
/// documentation, "Transferring ownership" of server-side apply).
pub const REPLICAS_MANAGER: &str = "rqlite-operator-replicas";
/// How long an edit is shown after it was last made: long enough to be noticed, and longer than the sync
/// interval of common GitOps tools.
const SHOWN: Duration = Duration::from_secs(600);
/// Maximum number of edits that are kept for a cluster; the oldest is dropped first.
const REMEMBERED: usize = 8;

/// External edits, by uid of the cluster.
#[derive(Debug, Default)]
pub struct Edits(Mutex<HashMap<String, Vec<Noted>>>);

/// An edit that was noted.
#[derive(Debug)]
struct Noted {
    edit: Edit,
    /// Version of the object that had it: a cache shows the same version once more until it has received the
    /// next one, and a change that has to wait to be reverted is still the same change.
    version: Option<String>,
    at: Instant,
}

impl Edits {
    /// Records an edit of this version of its object and returns it with the number of its repetitions; None
    /// if it is known.
    pub fn note(&self, uid: &str, edit: Edit, version: Option<String>) -> Option<Edit> {
        let mut all = self.0.lock();
        let known = all.entry(uid.to_owned()).or_default();
        note(known, edit, version, Instant::now())
    }

    /// The edits that are to be shown.
    pub fn get(&self, uid: &str) -> Vec<Edit> {
        let mut all = self.0.lock();
        let Some(known) = all.get_mut(uid) else {
            return Vec::new();
        };
        forget_old(known, Instant::now());
        let shown = known.iter().map(|noted| noted.edit.clone()).collect();
        if known.is_empty() {
            all.remove(uid);
        }
        shown
    }

    /// Removes the edits of a deleted cluster.
    pub fn forget(&self, uid: &str) {
        let mut all = self.0.lock();
        all.remove(uid);
    }
}

fn forget_old(known: &mut Vec<Noted>, now: Instant) {
    known.retain(|noted| now.saturating_duration_since(noted.at) < SHOWN);
}

fn note(known: &mut Vec<Noted>, edit: Edit, version: Option<String>, now: Instant) -> Option<Edit> {
    forget_old(known, now);
    let same =
        |old: &Edit| (&old.kind, &old.name, &old.field) == (&edit.kind, &edit.name, &edit.field);
    let before = known.iter().position(|noted| same(&noted.edit));
    let before = before.map(|at| known.remove(at));
    if let Some(before) = before {
        if version.is_some() && before.version == version {
            known.push(before);
            return None;
        }
        return Some(remember(known, edit, before.edit.times, version, now));
    }
    Some(remember(known, edit, 0, version, now))
}

fn remember(
    known: &mut Vec<Noted>,
    edit: Edit,
    times: u32,
    version: Option<String>,
    now: Instant,
) -> Edit {
    let noted = Edit {
        times: times.saturating_add(1),
        ..edit
    };
    if known.len() >= REMEMBERED {
        known.remove(0);
    }
    known.push(Noted {
        edit: noted.clone(),
        version,
        at: now,
    });
    noted
}

/// The manager that last set a field, according to `managedFields`; None if unknown.
pub async fn last_manager<K>(
    client: &Client,
    namespace: &str,
    name: &str,
    field: &str,
) -> Option<String>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + DeserializeOwned
        + Clone
        + Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let object = api.get_metadata(name).await.ok()?;
    let entries = object.metadata.managed_fields?;
    let others = entries.iter().filter(|entry| {
        let manager = entry.manager.as_deref().unwrap_or_default();
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
        ![names::FIELD_MANAGER, REPLICAS_MANAGER].contains(&manager)
            && entry.subresource.as_deref() != Some("status")
            && fields.is_some_and(|fields| owns(fields, field))
    });
    let newest = others.max_by_key(|entry| entry.time.as_ref().map(|time| time.0))?;
    newest.manager.clone()
}

/// Whether a `fieldsV1` record contains this path. It identifies list items by their keys, so the path is
/// only compared up to the first list.
fn owns(fields: &Value, path: &str) -> bool {
    let mut at = fields;
    for part in path.split('.') {
        let name = part.split('[').next().unwrap_or(part);
        match at.get(format!("f:{name}")) {
            Some(inner) => at = inner,
            None => return false,
        }
        if name.len() != part.len() {
            return true;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn edit(field: &str) -> Edit {
        Edit {
            kind: "Service".to_owned(),
            name: "demo-client".to_owned(),
            field: field.to_owned(),
            value: None,
            by: None,
            times: 0,
        }
    }

    #[test]
    fn edits_are_counted_and_forgotten() {
        let start = Instant::now();
        let mut known = Vec::new();
        let noted = |known: &mut Vec<Noted>, field: &str, version: Option<&str>, at| {
            let noted = note(known, edit(field), version.map(str::to_owned), at);
            noted.map(|edit| edit.times)
        };
        assert_eq!(noted(&mut known, "a", Some("1"), start), Some(1));
        assert_eq!(noted(&mut known, "a", Some("1"), start), None, "the same");
        assert_eq!(noted(&mut known, "a", Some("2"), start), Some(2));
        assert_eq!(noted(&mut known, "b", None, start), Some(1));
        assert_eq!(noted(&mut known, "b", None, start), Some(2));
        let later = start + SHOWN;
        let again = noted(&mut known, "a", Some("3"), later);
        assert_eq!(again, Some(1), "the old ones are over");
        assert_eq!(known.len(), 1);
        for n in 0..100 {
            noted(&mut known, &n.to_string(), None, later);
        }
        assert_eq!(known.len(), REMEMBERED);
    }

    #[test]
    fn owners_of_fields() {
        let fields =
            json!({"f:spec": {"f:replicas": {}, "f:ports": {"k:{\"port\":1}": {".": {}}}}});
        let cases = [
            ("spec.replicas", true),
            ("spec.ports[0].port", true),
            ("spec.template", false),
            ("data", false),
        ];
        for (path, expected) in cases {
            assert_eq!(owns(&fields, path), expected, "{path}");
        }
    }
}
