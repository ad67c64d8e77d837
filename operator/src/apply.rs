//! Creates and updates the plan's objects if they differ. Objects that do not belong to this cluster are not
//! changed.
mod accepted;
mod compare;
mod secrets;
mod unknown;

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::StatefulSet,
        core::v1::{ConfigMap, Service},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use operator_api::{RqliteCluster, names};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{fmt::Debug, sync::Arc};

use crate::{
    apply::{
        accepted::reverted,
        compare::{Difference, differences, hash_of, is_last, marked},
        unknown::{CREATING, Found},
    },
    cluster::{
        facts::{
            observation::{Edit, TakenName},
            ownership::{is_needed_by_pods, is_ours},
        },
        render::build::Object,
    },
    edits::{REPLICAS_MANAGER, last_manager},
    error::Error,
    live::{Live, named},
};

pub use accepted::Accepted;
pub use secrets::{apply_secrets, delete_secrets};

/// Number of differences of one object that are checked for being edits by others: each check is a request.
const MAX_CANDIDATES: usize = 3;

/// Result of applying the objects.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// External edits that were reverted, with the version of the object that had them.
    pub reverted: Vec<(Edit, Option<String>)>,
    /// Objects of others that have the name of one of this cluster's.
    pub taken: Vec<TakenName>,
    /// Objects that a person had offered and that this cluster has adopted: kind and name.
    pub adopted: Vec<String>,
}

/// Looks for objects of others that have the names of those that identify a cluster. Called before a cluster
/// gets an identity: a state file that is offered to it contains one.
///
/// # Errors
/// The API server cannot be asked, or refuses an adoption.
pub async fn look_first(
    client: &Client,
    cluster: &RqliteCluster,
    live: &Live,
) -> Result<Applied, Error> {
    let name = cluster.name_any();
    let mut applied = Applied::default();
    let accepted = Accepted::default();
    let applier = Applier {
        client,
        cluster,
        accepted: &accepted,
    };
    if named(&live.maps, &names::state(&name)).is_none() {
        applier
            .standing::<ConfigMap>(&names::state(&name), &mut applied)
            .await?;
    }
    if named(&live.sets, &names::voters(&name)).is_none() {
        applier
            .standing::<StatefulSet>(&names::voters(&name), &mut applied)
            .await?;
    }
    Ok(applied)
}

/// Applies all objects in order, then deletes obsolete ones.
///
/// # Errors
/// The first refusal. The objects after it are not applied, because they may depend on it.
pub async fn apply_all(
    client: &Client,
    cluster: &RqliteCluster,
    live: &Live,
    objects: &[Object],
    accepted: &Accepted,
    applied: &mut Applied,
) -> Result<(), Error> {
    let applier = Applier {
        client,
        cluster,
        accepted,
    };
    for object in objects {
        if !may_apply(&cluster.name_any(), object, &applied.taken) {
            continue;
        }
        match object {
            Object::ServiceAccount(o) => applier.apply(o, &live.accounts, applied).await?,
            Object::ConfigMap(o) => applier.apply(o, &live.maps, applied).await?,
            Object::Service(o) => applier.apply(o.as_ref(), &live.services, applied).await?,
            Object::NetworkPolicy(o) => applier.apply(&**o, &live.policies, applied).await?,
            Object::PodDisruptionBudget(o) => applier.apply(o, &live.budgets, applied).await?,
            Object::StatefulSet(o) => applier.apply_set(o, &live.sets, applied).await?,
        }
    }
    if objects.is_empty() {
        return Ok(());
    }
    let uid = cluster.uid().unwrap_or_default();
    // Only kinds that can be deleted without affecting a running pod or its data.
    let keep = |kind: &str, name: &str| objects.iter().any(|o| o.id() == (kind, name));
    for one in live
        .services
        .iter()
        .filter(|o| is_obsolete(&***o, &uid, &keep))
    {
        applier.delete::<Service>(one).await?;
    }
    for one in live
        .budgets
        .iter()
        .filter(|o| is_obsolete(&***o, &uid, &keep))
    {
        applier.delete::<PodDisruptionBudget>(one).await?;
    }
    for one in live
        .policies
        .iter()
        .filter(|o| is_obsolete(&***o, &uid, &keep))
    {
        applier.delete::<NetworkPolicy>(one).await?;
    }
    Ok(())
}

/// Whether all objects that this one depends on are the cluster's: pods need all that they refer to, and the
/// state file may tell them to follow the plan of a recovery.
fn may_apply(cluster: &str, object: &Object, taken: &[TakenName]) -> bool {
    match object {
        Object::StatefulSet(_) => !taken
            .iter()
            .any(|one| is_needed_by_pods(cluster, &one.kind, &one.name)),
        Object::ConfigMap(_) => !taken.iter().any(|one| one.kind == "ConfigMap"),
        _ => true,
    }
}

/// Owned by this cluster, not being deleted, and not part of the plan.
fn is_obsolete<K: Resource<DynamicType = ()>>(
    object: &K,
    owner_uid: &str,
    keep: &impl Fn(&str, &str) -> bool,
) -> bool {
    let going = object.meta().deletion_timestamp.is_some();
    is_ours(object.meta(), owner_uid) && !going && !keep(&K::kind(&()), &object.name_any())
}

#[derive(Clone, Copy)]
struct Applier<'a> {
    client: &'a Client,
    cluster: &'a RqliteCluster,
    accepted: &'a Accepted,
}

impl Applier<'_> {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace())
    }

    fn namespace(&self) -> String {
        self.cluster.namespace().unwrap_or_default()
    }

    /// The object under a name that the caches do not have as this cluster's, if it is this cluster's or
    /// offered to it.
    async fn standing<K>(&self, name: &str, applied: &mut Applied) -> Result<Standing<K>, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + DeserializeOwned
            + Clone
            + Debug,
    {
        match unknown::find::<K>(self.client, self.cluster, name).await? {
            Found::Nothing => Ok(Standing::Free),
            Found::Ours(object, adopted) => {
                if adopted {
                    let kind = K::kind(&());
                    applied.adopted.push(format!("{kind} {name}"));
                }
                Ok(Standing::Ours(Arc::new(*object)))
            }
            Found::Taken(taken) => {
                applied.taken.push(taken);
                Ok(Standing::Taken)
            }
        }
    }

    /// The live object to change into the desired one; `None` if there is nothing more to do, because the
    /// name is taken, or the object has just been created.
    async fn present<K>(
        &self,
        desired: &Value,
        known: &[Arc<K>],
        hash: &str,
        applied: &mut Applied,
    ) -> Result<Option<Arc<K>>, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Serialize
            + DeserializeOwned
            + Clone
            + Debug,
    {
        let name = desired["metadata"]["name"].as_str().unwrap_or_default();
        let there = match named(known, name) {
            Some(known) => Arc::clone(known),
            None => match self.standing::<K>(name, applied).await? {
                Standing::Ours(there) => there,
                Standing::Taken => return Ok(None),
                Standing::Free => {
                    let uid = unknown::create::<K>(self.client, self.cluster, desired).await?;
                    let desired = bound(marked(desired.clone(), hash), &uid);
                    let sent = self.send::<K>(name, &desired, names::FIELD_MANAGER);
                    return sent.await.map(|_| None);
                }
            },
        };
        let is_unfinished = there
            .annotations()
            .get(names::APPLIED_HASH_ANNOTATION)
            .is_some_and(|hash| hash == CREATING);
        if is_unfinished {
            let uid = there.uid().unwrap_or_default();
            unknown::release_fields::<K>(self.client, self.cluster, name, &uid).await?;
        }
        Ok(Some(there))
    }

    /// Applies an object if it differs.
    async fn apply<K>(
        &self,
        desired: &K,
        known: &[Arc<K>],
        applied: &mut Applied,
    ) -> Result<(), Error>
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
        let Some(there) = self.present(&desired, known, &hash, applied).await? else {
            return Ok(());
        };
        let desired = marked(desired, &hash);
        let live = value(&*there)?;
        let before = differences(&desired, &live);
        if self.is_settled::<K>(&name, &desired, &before) {
            return Ok(());
        }
        let edits = self.edits::<K>(&name, &desired, &live, &before).await;
        let body = bound(desired.clone(), &there.uid().unwrap_or_default());
        let after = self.send_own::<K>(&name, &body, !edits.is_empty()).await?;
        let after = self.settle::<K>(&name, &desired, &after);
        let edit = reverted(edits, &before, &after);
        let edit = edit.map(|edit| (edit, there.resource_version()));
        applied.reverted.extend(edit);
        Ok(())
    }

    /// Whether an object is as it was applied, or as the API server changes it whenever it is applied.
    fn is_settled<K>(&self, name: &str, desired: &Value, differences: &[Difference]) -> bool
    where
        K: Resource<DynamicType = ()>,
    {
        let uid = self.cluster.uid().unwrap_or_default();
        let kind = K::kind(&());
        let covers =
            |accepted: &Accepted| accepted.covers(&uid, (&kind, name), desired, differences);
        differences.is_empty() || covers(self.accepted)
    }

    /// Records what the response to an apply has different, and returns it.
    fn settle<K>(&self, name: &str, desired: &Value, response: &Value) -> Vec<Difference>
    where
        K: Resource<DynamicType = ()>,
    {
        let uid = self.cluster.uid().unwrap_or_default();
        let after = differences(desired, response);
        let object = (&*K::kind(&()), name);
        self.accepted.note(&uid, object, desired, after.clone());
        after
    }

    /// The fields that differ from what was last applied, and their managers. None if the operator itself
    /// wants something else now.
    async fn edits<K>(
        &self,
        name: &str,
        desired: &Value,
        live: &Value,
        differences: &[Difference],
    ) -> Vec<Edit>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + DeserializeOwned
            + Clone
            + Debug,
    {
        let mut all = Vec::new();
        if !is_last(desired, live) {
            return all;
        }
        for one in differences.iter().take(MAX_CANDIDATES) {
            all.push(Edit {
                kind: K::kind(&()).into_owned(),
                name: name.to_owned(),
                by: last_manager::<K>(self.client, &self.namespace(), name, &one.path).await,
                field: one.path.clone(),
                value: None,
                times: 1,
            });
        }
        all
    }

    /// Applies an object; returns what the API server has made of it.
    async fn send<K>(&self, name: &str, body: &Value, manager: &str) -> Result<Value, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Serialize
            + DeserializeOwned
            + Clone
            + Debug,
    {
        let kind = K::kind(&());
        let params = PatchParams::apply(manager).force();
        tracing::info!("applies {kind} {name}");
        let sent = self
            .api::<K>()
            .patch(name, &params, &Patch::Apply(body))
            .await
            .map_err(Error::kubernetes(format!("applying {kind} {name}")))
            .map_err(|error| changed_uid(error, &format!("{kind} {name}")))?;
        value(&sent)
    }

    /// Applies a StatefulSet. Its spec includes the number of replicas, which an outdated observation must
    /// not reset; therefore the apply is bound to the observed resourceVersion.
    async fn apply_set(
        &self,
        desired: &StatefulSet,
        known: &[Arc<StatefulSet>],
        applied: &mut Applied,
    ) -> Result<(), Error> {
        let name = desired.name_any();
        let whole = value(desired)?;
        let mut next = desired.clone();
        let replicas = next.spec.as_mut().and_then(|spec| spec.replicas.take());
        let hash = hash_of(&value(&next)?);
        let Some(there) = self.present(&whole, known, &hash, applied).await? else {
            return Ok(());
        };
        let there = &*there;
        if there.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let mut next = marked(value(&with_fixed_fields(next, there))?, &hash);
        let there_value = value(there)?;
        let before = differences(&next, &there_value);
        if self.is_settled::<StatefulSet>(&name, &next, &before) {
            return Ok(());
        }
        let edits = self
            .edits::<StatefulSet>(&name, &next, &there_value, &before)
            .await;
        let compared = next.clone();
        let version = there.resource_version();
        next = bound(next, &there.uid().unwrap_or_default());
        if let Some(replicas) = replicas {
            next["spec"]["replicas"] = replicas.into();
            next["metadata"]["resourceVersion"] = version.clone().into();
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
        let after = self
            .send_own::<StatefulSet>(&name, &next, !edits.is_empty())
            .await?;
        let after = self.settle::<StatefulSet>(&name, &compared, &after);
        let edit = reverted(edits, &before, &after);
        applied.reverted.extend(edit.map(|edit| (edit, version)));
        Ok(())
    }

    /// Applies an object as the operator's own. Falls back to a merge patch, which writes lists as a whole,
    /// if someone has edited it. Server-side apply merges lists by keys, such as a port's number: if someone
    /// has changed a key, the merged list has two items where one is allowed, and the API server rejects the
    /// object as invalid.
    async fn send_own<K>(&self, name: &str, body: &Value, is_edited: bool) -> Result<Value, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Serialize
            + DeserializeOwned
            + Clone
            + Debug,
    {
        match self.send::<K>(name, body, names::FIELD_MANAGER).await {
            Err(error) if is_edited && is_invalid(&error) => {}
            sent => return sent,
        }
        let replaced = self
            .api::<K>()
            .patch(name, &unknown::params(), &Patch::Merge(body))
            .await;
        let replaced = replaced.map_err(Error::kubernetes(format!(
            "replacing lists of {} {name}",
            K::kind(&())
        )))?;
        value(&replaced)
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

/// Who has a name that the caches do not have.
enum Standing<K> {
    Free,
    Ours(Arc<K>),
    Taken,
}

/// Binds a change to the object with this uid: one that has taken its place is refused.
fn bound(mut desired: Value, uid: &str) -> Value {
    desired["metadata"]["uid"] = uid.into();
    desired
}

/// The API server reports another uid as an invalid change of this field.
fn changed_uid(error: Error, what: &str) -> Error {
    if is_invalid(&error) && error.to_string().contains("metadata.uid") {
        Error::Changed(what.to_owned())
    } else {
        error
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_and_unwanted_objects_go() {
        let service = |uid: &str, name: &str| -> Service {
            serde_json::from_value(json!({"metadata": {"name": name, "ownerReferences": [
                {"apiVersion": "rqlite.dev/v1alpha1", "kind": "RqliteCluster", "name": "demo", "uid": uid, "controller": true}]}}))
            .unwrap()
        };
        let keep = |kind: &str, name: &str| (kind, name) == ("Service", "demo-client");
        assert!(is_obsolete(&service("u", "demo-leader"), "u", &keep));
        assert!(!is_obsolete(&service("u", "demo-client"), "u", &keep));
        assert!(!is_obsolete(&service("other", "demo-leader"), "u", &keep));
    }
}
