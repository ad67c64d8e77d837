//! Creates and updates the plan's objects by server-side apply, and only those that differ.
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::StatefulSet, core::v1::Service, networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use operator_api::names;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{fmt::Debug, sync::Arc};

use crate::{
    cluster::{facts::observation::Edit, render::build::Object},
    edits::{REPLICAS_MANAGER, last_manager},
    error::Error,
    live::{Live, named},
};

/// Applies all objects in order, then deletes obsolete ones. Returns the external edits that were reverted.
///
/// # Errors
/// The first refusal. The objects after it are not applied, because they may depend on it.
pub async fn apply_all(
    client: &Client,
    namespace: &str,
    owner_uid: &str,
    live: &Live,
    objects: &[Object],
) -> Result<Vec<Edit>, Error> {
    let applier = Applier { client, namespace };
    let mut reverted = Vec::new();
    for object in objects {
        let edit = match object {
            Object::ServiceAccount(o) => applier.apply(o, &live.accounts).await?,
            Object::ConfigMap(o) => applier.apply(o, &live.maps).await?,
            Object::Service(o) => applier.apply(o.as_ref(), &live.services).await?,
            Object::NetworkPolicy(o) => applier.apply(&**o, &live.policies).await?,
            Object::PodDisruptionBudget(o) => applier.apply(o, &live.budgets).await?,
            Object::StatefulSet(o) => applier.apply_set(o, &live.sets).await?,
        };
        reverted.extend(edit);
    }
    if objects.is_empty() {
        return Ok(reverted);
    }
    // Only kinds that can be deleted without affecting a running pod or its data.
    let keep = |kind: &str, name: &str| objects.iter().any(|o| o.id() == (kind, name));
    let services = live.services.iter();
    for one in services.filter(|o| is_obsolete(&***o, owner_uid, &keep)) {
        applier.delete::<Service>(one).await?;
    }
    for one in live
        .budgets
        .iter()
        .filter(|o| is_obsolete(&***o, owner_uid, &keep))
    {
        applier.delete::<PodDisruptionBudget>(one).await?;
    }
    for one in live
        .policies
        .iter()
        .filter(|o| is_obsolete(&***o, owner_uid, &keep))
    {
        applier.delete::<NetworkPolicy>(one).await?;
    }
    Ok(reverted)
}

/// Owned by this cluster, not being deleted, and not part of the plan.
fn is_obsolete<K: Resource<DynamicType = ()>>(
    object: &K,
    owner_uid: &str,
    keep: &impl Fn(&str, &str) -> bool,
) -> bool {
    let owned = object.owner_references().iter().any(|o| o.uid == owner_uid);
    let going = object.meta().deletion_timestamp.is_some();
    owned && !going && !keep(&K::kind(&()), &object.name_any())
}

#[derive(Clone, Copy)]
struct Applier<'a> {
    client: &'a Client,
    namespace: &'a str,
}

impl Applier<'_> {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), self.namespace)
    }

    /// Applies an object if it differs. Returns the external edit, if that was the difference.
    async fn apply<K>(&self, desired: &K, live: &[Arc<K>]) -> Result<Option<Edit>, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Serialize
            + DeserializeOwned
            + Clone
            + Debug,
    {
        let name = desired.name_any();
        let desired = value(desired)?;
        let hash = hash_of(&desired);
        let desired = marked(desired, &hash);
        let mut edit = None;
        if let Some(live) = named(live, &name) {
            let live = value(&**live)?;
            if is_applied(&desired, &live) {
                return Ok(None);
            }
            edit = self.edit::<K>(&name, &desired, &live).await;
        }
        if let Err(error) = self.send::<K>(&name, &desired, names::FIELD_MANAGER).await {
            self.replace_lists::<K>(&name, &desired, error, edit.is_some())
                .await?;
        }
        Ok(edit)
    }

    /// The field that differs from what was last applied, and its manager.
    async fn edit<K>(&self, name: &str, desired: &Value, live: &Value) -> Option<Edit>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + DeserializeOwned
            + Clone
            + Debug,
    {
        let field = edited(desired, live)?;
        Some(Edit {
            kind: K::kind(&()).into_owned(),
            name: name.to_owned(),
            by: last_manager::<K>(self.client, self.namespace, name, &field).await,
            field,
            value: None,
            times: 1,
        })
    }

    async fn send<K>(&self, name: &str, body: &Value, manager: &str) -> Result<(), Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + DeserializeOwned
            + Clone
            + Debug,
    {
        let kind = K::kind(&());
        let params = PatchParams::apply(manager).force();
        tracing::info!("applies {kind} {name}");
        self.api::<K>()
            .patch(name, &params, &Patch::Apply(body))
            .await
            .map(drop)
            .map_err(Error::kubernetes(format!("applying {kind} {name}")))
    }

    /// Applies a StatefulSet. Its spec includes the number of replicas, which an outdated observation must
    /// not reset; therefore the apply is bound to the observed resourceVersion.
    async fn apply_set(
        &self,
        desired: &StatefulSet,
        live: &[Arc<StatefulSet>],
    ) -> Result<Option<Edit>, Error> {
        let name = desired.name_any();
        let mut next = desired.clone();
        let replicas = next.spec.as_mut().and_then(|spec| spec.replicas.take());
        let hash = hash_of(&value(&next)?);
        let Some(there) = named(live, &name) else {
            let desired = marked(value(desired)?, &hash);
            let sent = self.send::<StatefulSet>(&name, &desired, names::FIELD_MANAGER);
            return sent.await.map(|()| None);
        };
        if there.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let mut next = marked(value(&with_fixed_fields(next, there))?, &hash);
        let there_value = value(&**there)?;
        if is_applied(&next, &there_value) {
            return Ok(None);
        }
        let edit = self.edit::<StatefulSet>(&name, &next, &there_value).await;
        let version = there.resource_version();
        if let Some(replicas) = replicas {
            next["spec"]["replicas"] = replicas.into();
            next["metadata"]["resourceVersion"] = version.into();
        } else {
            // The autoscaler is to own spec.replicas. Dropping a field that has no other owner would reset
            // it, so ownership is first given to another field manager.
            let own = json!({
                "apiVersion": next["apiVersion"], "kind": next["kind"],
                "metadata": {"name": name, "resourceVersion": version},
                "spec": {"replicas": there_value["spec"]["replicas"]},
            });
            self.send::<StatefulSet>(&name, &own, REPLICAS_MANAGER)
                .await?;
        }
        let sent = self.send::<StatefulSet>(&name, &next, names::FIELD_MANAGER);
        if let Err(error) = sent.await {
            self.replace_lists::<StatefulSet>(&name, &next, error, edit.is_some())
                .await?;
        }
        Ok(edit)
    }

    /// Falls back to a merge patch, which writes lists as a whole. Server-side apply merges lists by keys,
    /// such as a port's number: if someone has changed a key, the merged list has two items where one is
    /// allowed, and the API server rejects the object as invalid.
    async fn replace_lists<K>(
        &self,
        name: &str,
        desired: &Value,
        error: Error,
        is_edited: bool,
    ) -> Result<(), Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + DeserializeOwned
            + Clone
            + Debug,
    {
        if !is_edited || !is_invalid(&error) {
            return Err(error);
        }
        let params = PatchParams {
            field_manager: Some(names::FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let replaced = self
            .api::<K>()
            .patch(name, &params, &Patch::Merge(desired))
            .await;
        replaced.map(drop).map_err(Error::kubernetes(format!(
            "replacing lists of {} {name}",
            K::kind(&())
        )))
    }

    async fn delete<K>(&self, object: &K) -> Result<(), Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + DeserializeOwned
            + Clone
            + Debug,
    {
        let (kind, name) = (K::kind(&()), object.name_any());
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: object.uid(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        tracing::info!("deletes {kind} {name}, which is obsolete");
        let deleted = self.api::<K>().delete(&name, &params).await;
        deleted
            .map(drop)
            .map_err(Error::kubernetes(format!("deleting {kind} {name}")))
    }
}

fn is_invalid(error: &Error) -> bool {
    matches!(error, Error::Kubernetes { source, .. } if matches!(&**source, kube::Error::Api(status) if status.code == 422))
}

/// Copies the immutable fields of the live object.
fn with_fixed_fields(mut desired: StatefulSet, live: &StatefulSet) -> StatefulSet {
    if let (Some(desired), Some(live)) = (&mut desired.spec, &live.spec) {
        desired.selector.clone_from(&live.selector);
        desired.service_name.clone_from(&live.service_name);
        desired
            .pod_management_policy
            .clone_from(&live.pod_management_policy);
        desired
            .volume_claim_templates
            .clone_from(&live.volume_claim_templates);
    }
    desired
}

fn value(object: &impl Serialize) -> Result<Value, Error> {
    // Kubernetes' own types can always be serialized.
    serde_json::to_value(object).map_err(|e| Error::Unreadable(e.to_string()))
}

fn hash_of(desired: &Value) -> String {
    let digest = Sha256::digest(desired.to_string());
    digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn marked(mut desired: Value, hash: &str) -> Value {
    desired["metadata"]["annotations"][names::APPLIED_HASH_ANNOTATION] = hash.into();
    desired
}

/// Top-level fields that are compared.
const PARTS: [&str; 4] = ["metadata", "spec", "data", "automountServiceAccountToken"];

/// Whether exactly this was applied last (the hash, which detects removed fields) and is unchanged (the
/// fields, which detects external edits).
fn is_applied(desired: &Value, live: &Value) -> bool {
    is_last(desired, live)
        && PARTS
            .iter()
            .all(|part| differs(&desired[part], &live[part]).is_none())
}

fn is_last(desired: &Value, live: &Value) -> bool {
    let hash = |o: &Value| o["metadata"]["annotations"][names::APPLIED_HASH_ANNOTATION].clone();
    hash(desired) == hash(live)
}

/// The first field that was edited since the last apply; None if the operator itself wants something else
/// now.
fn edited(desired: &Value, live: &Value) -> Option<String> {
    if !is_last(desired, live) {
        return None;
    }
    PARTS.iter().find_map(|part| {
        let rest = differs(&desired[part], &live[part])?;
        Some(format!("{part}{rest}"))
    })
}

/// The path of the first value in `desired` that differs in `live`. Additional fields of `live` are ignored.
fn differs(desired: &Value, live: &Value) -> Option<String> {
    let here = |differ: bool| differ.then(String::new);
    match (desired, live) {
        (Value::Null, _) => None,
        (Value::Object(desired), Value::Null) => here(!desired.is_empty()),
        (Value::Array(desired), Value::Null) => here(!desired.is_empty()),
        (Value::Object(desired), Value::Object(live)) => desired.iter().find_map(|(key, value)| {
            let rest = differs(value, live.get(key).unwrap_or(&Value::Null))?;
            Some(format!(".{key}{rest}"))
        }),
        (Value::Array(desired), Value::Array(live)) if desired.len() == live.len() => {
            let mut pairs = desired.iter().zip(live).enumerate();
            pairs.find_map(|(n, (desired, live))| Some(format!("[{n}]{}", differs(desired, live)?)))
        }
        (Value::String(desired), Value::String(live)) => {
            here(desired != live && !is_same(desired, live))
        }
        (desired, live) => here(desired != live),
    }
}

/// Whether both are the same quantity. The API server rewrites `1024Mi` as `1Gi` and `1000m` as `1`.
fn is_same(desired: &str, live: &str) -> bool {
    let amount = |text: &str| amount(text).filter(|amount| amount.is_finite());
    matches!((amount(desired), amount(live)), (Some(a), Some(b)) if a == b)
}

/// Parses a Kubernetes quantity.
fn amount(text: &str) -> Option<f64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let number: f64 = number.parse().ok()?;
    let factor = match unit {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        "Ei" => 1024f64.powi(6),
        _ => return None,
    };
    Some(number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_of_the_server_are_no_difference() {
        let cases = [
            (json!({"a": 1}), json!({"a": 1, "b": 2}), true),
            (json!({"a": 1}), json!({"a": 2}), false),
            (json!({"a": 1}), json!({}), false),
            (json!({"a": null}), json!({}), true),
            (json!({"a": {}}), json!({}), true),
            (json!({"a": []}), json!({}), true),
            (json!([{"a": 1}]), json!([{"a": 1, "b": 2}]), true),
            (json!([{"a": 1}]), json!([{"a": 1}, {"a": 2}]), false),
            (json!({"a": {"b": 1}}), json!({"a": 1}), false),
            (json!({"cpu": "1000m"}), json!({"cpu": "1"}), true),
            (json!({"memory": "1024Mi"}), json!({"memory": "1Gi"}), true),
            (
                json!({"memory": "1.5Gi"}),
                json!({"memory": "1536Mi"}),
                true,
            ),
            (json!({"memory": "1G"}), json!({"memory": "1Gi"}), false),
            (json!({"a": "01"}), json!({"a": "x"}), false),
        ];
        for (desired, live, same) in cases {
            assert_eq!(differs(&desired, &live).is_none(), same, "{desired} {live}");
        }
    }

    fn whole(desired: Value) -> Value {
        let hash = hash_of(&desired);
        marked(desired, &hash)
    }

    #[test]
    fn what_was_taken_away_is_a_difference() {
        let before = whole(json!({"metadata": {"name": "x"}, "spec": {"a": 1, "b": 2}}));
        let after = whole(json!({"metadata": {"name": "x"}, "spec": {"a": 1}}));
        assert!(is_applied(&before, &before));
        assert!(!is_applied(&after, &before));
        let mut touched = before.clone();
        touched["spec"]["a"] = 3.into();
        assert!(!is_applied(&before, &touched));
        assert_eq!(edited(&before, &touched).as_deref(), Some("spec.a"));
        assert_eq!(edited(&after, &before), None, "the operator's own change");
        let account = whole(json!({"metadata": {}, "automountServiceAccountToken": false}));
        let mut live = account.clone();
        live["automountServiceAccountToken"] = true.into();
        assert!(!is_applied(&account, &live));
    }

    #[test]
    fn only_own_and_unwanted_objects_go() {
        let service = |uid: &str, name: &str| -> Service {
            serde_json::from_value(json!({"metadata": {"name": name, "ownerReferences": [
                {"apiVersion": "rqlite.dev/v1alpha1", "kind": "RqliteCluster", "name": "demo", "uid": uid}]}}))
            .unwrap()
        };
        let keep = |kind: &str, name: &str| (kind, name) == ("Service", "demo-client");
        assert!(is_obsolete(&service("u", "demo-leader"), "u", &keep));
        assert!(!is_obsolete(&service("u", "demo-client"), "u", &keep));
        assert!(!is_obsolete(&service("other", "demo-leader"), "u", &keep));
    }
}
