//! Brings objects to what the plan says, server-side, and only if they are not so already.
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
    cluster::build::Object,
    error::Error,
    live::{Live, named},
};

/// Owner of the number of an autoscaled pool's pods between the operator and the autoscaler.
const HANDOVER_MANAGER: &str = "rqlite-operator-handover";

/// Applies all objects in their order, then deletes those that are not wanted any more.
///
/// # Errors
/// The first that was refused; the others after it are not tried, as they may depend on it.
pub async fn apply_all(
    client: &Client,
    namespace: &str,
    owner_uid: &str,
    live: &Live,
    objects: &[Object],
) -> Result<(), Error> {
    let hands = Hands { client, namespace };
    for object in objects {
        match object {
            Object::ServiceAccount(o) => hands.apply(o, &live.accounts).await?,
            Object::ConfigMap(o) => hands.apply(o, &live.maps).await?,
            Object::Service(o) => hands.apply(o.as_ref(), &live.services).await?,
            Object::NetworkPolicy(o) => hands.apply(&**o, &live.policies).await?,
            Object::PodDisruptionBudget(o) => hands.apply(o, &live.budgets).await?,
            Object::StatefulSet(o) => hands.apply_set(o, &live.sets).await?,
        }
    }
    if objects.is_empty() {
        return Ok(());
    }
    // Only what can go without touching a running pod or its data.
    let keep = |kind: &str, name: &str| objects.iter().any(|o| o.id() == (kind, name));
    let services = live.services.iter();
    for one in services.filter(|o| is_left(&***o, owner_uid, &keep)) {
        hands.delete::<Service>(one).await?;
    }
    for one in live
        .budgets
        .iter()
        .filter(|o| is_left(&***o, owner_uid, &keep))
    {
        hands.delete::<PodDisruptionBudget>(one).await?;
    }
    for one in live
        .policies
        .iter()
        .filter(|o| is_left(&***o, owner_uid, &keep))
    {
        hands.delete::<NetworkPolicy>(one).await?;
    }
    Ok(())
}

/// Ours, not on its way out, and not among what is wanted.
fn is_left<K: Resource<DynamicType = ()>>(
    object: &K,
    owner_uid: &str,
    keep: &impl Fn(&str, &str) -> bool,
) -> bool {
    let owned = object.owner_references().iter().any(|o| o.uid == owner_uid);
    let going = object.meta().deletion_timestamp.is_some();
    owned && !going && !keep(&K::kind(&()), &object.name_any())
}

#[derive(Clone, Copy)]
struct Hands<'a> {
    client: &'a Client,
    namespace: &'a str,
}

impl Hands<'_> {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), self.namespace)
    }

    async fn apply<K>(&self, wanted: &K, live: &[Arc<K>]) -> Result<(), Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Serialize
            + DeserializeOwned
            + Clone
            + Debug,
    {
        let name = wanted.name_any();
        let wanted = value(wanted)?;
        let hash = hash_of(&wanted);
        let wanted = marked(wanted, &hash);
        if let Some(live) = named(live, &name)
            && is_applied(&wanted, &value(&**live)?)
        {
            return Ok(());
        }
        self.send::<K>(&name, &wanted, names::FIELD_MANAGER).await
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

    /// A StatefulSet takes its number of pods with it. An outdated look must not undo a change of it, so it is applied only to the very
    /// version that was looked at.
    async fn apply_set(
        &self,
        wanted: &StatefulSet,
        live: &[Arc<StatefulSet>],
    ) -> Result<(), Error> {
        let name = wanted.name_any();
        let mut next = wanted.clone();
        let replicas = next.spec.as_mut().and_then(|spec| spec.replicas.take());
        let hash = hash_of(&value(&next)?);
        let Some(there) = named(live, &name) else {
            let wanted = marked(value(wanted)?, &hash);
            return self
                .send::<StatefulSet>(&name, &wanted, names::FIELD_MANAGER)
                .await;
        };
        if there.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let mut next = marked(value(&with_fixed_fields(next, there))?, &hash);
        let there_value = value(&**there)?;
        if is_applied(&next, &there_value) {
            return Ok(());
        }
        let version = there.resource_version();
        if let Some(replicas) = replicas {
            next["spec"]["replicas"] = replicas.into();
            next["metadata"]["resourceVersion"] = version.into();
        } else {
            // Dropping a field that nobody else owns would reset it: somebody else has to own it first.
            let own = json!({
                "apiVersion": next["apiVersion"], "kind": next["kind"],
                "metadata": {"name": name, "resourceVersion": version},
                "spec": {"replicas": there_value["spec"]["replicas"]},
            });
            self.send::<StatefulSet>(&name, &own, HANDOVER_MANAGER)
                .await?;
        }
        self.send::<StatefulSet>(&name, &next, names::FIELD_MANAGER)
            .await
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
        tracing::info!("deletes {kind} {name}, which is not wanted any more");
        let deleted = self.api::<K>().delete(&name, &params).await;
        deleted
            .map(drop)
            .map_err(Error::kubernetes(format!("deleting {kind} {name}")))
    }
}

/// What the API server never lets change stays as it is.
fn with_fixed_fields(mut wanted: StatefulSet, live: &StatefulSet) -> StatefulSet {
    if let (Some(wanted), Some(live)) = (&mut wanted.spec, &live.spec) {
        wanted.selector.clone_from(&live.selector);
        wanted.service_name.clone_from(&live.service_name);
        wanted
            .pod_management_policy
            .clone_from(&live.pod_management_policy);
        wanted
            .volume_claim_templates
            .clone_from(&live.volume_claim_templates);
    }
    wanted
}

fn value(object: &impl Serialize) -> Result<Value, Error> {
    // Kubernetes' own types always serialize.
    serde_json::to_value(object).map_err(|e| Error::Unreadable(e.to_string()))
}

fn hash_of(wanted: &Value) -> String {
    let digest = Sha256::digest(wanted.to_string());
    digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn marked(mut wanted: Value, hash: &str) -> Value {
    wanted["metadata"]["annotations"][names::APPLIED_HASH_ANNOTATION] = hash.into();
    wanted
}

/// Was exactly this applied last, and is all of it still there? The first finds what is to be taken away, the second what others changed.
fn is_applied(wanted: &Value, live: &Value) -> bool {
    let hash = |o: &Value| o["metadata"]["annotations"][names::APPLIED_HASH_ANNOTATION].clone();
    let same = hash(wanted) == hash(live);
    let part = |key: &str| is_part(&wanted[key], &live[key]);
    same && ["metadata", "spec", "data", "automountServiceAccountToken"]
        .into_iter()
        .all(part)
}

/// Is everything that is named in `wanted` the same in `live`, which may have more?
fn is_part(wanted: &Value, live: &Value) -> bool {
    match (wanted, live) {
        (Value::Null, _) => true,
        (Value::Object(wanted), Value::Null) => wanted.is_empty(),
        (Value::Array(wanted), Value::Null) => wanted.is_empty(),
        (Value::Object(wanted), Value::Object(live)) => wanted
            .iter()
            .all(|(key, value)| is_part(value, live.get(key).unwrap_or(&Value::Null))),
        (Value::Array(wanted), Value::Array(live)) => {
            wanted.len() == live.len() && wanted.iter().zip(live).all(|(w, l)| is_part(w, l))
        }
        (wanted, live) => wanted == live,
    }
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
        ];
        for (wanted, live, same) in cases {
            assert_eq!(is_part(&wanted, &live), same, "{wanted} {live}");
        }
    }

    fn whole(wanted: Value) -> Value {
        let hash = hash_of(&wanted);
        marked(wanted, &hash)
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
        assert!(is_left(&service("u", "demo-leader"), "u", &keep));
        assert!(!is_left(&service("u", "demo-client"), "u", &keep));
        assert!(!is_left(&service("other", "demo-leader"), "u", &keep));
    }
}
