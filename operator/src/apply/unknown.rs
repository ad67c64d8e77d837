//! Objects that the caches do not have as this cluster's: read from the API server before anything is sent,
//! then created or adopted. An object that is not the cluster's is never changed.
use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use operator_api::{RqliteCluster, names};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    cluster::facts::{
        observation::TakenName,
        ownership::{Belonging, adopted_owners, belonging},
    },
    error::Error,
};

/// Value of the hash annotation of an object whose creation is not completed.
pub(super) const CREATING: &str = "creating";

/// What the API server has under a name.
#[derive(Debug)]
pub(super) enum Found<K> {
    /// Nothing.
    Nothing,
    /// An object of this cluster, possibly adopted just now.
    Ours(Box<K>, bool),
    /// An object that is not the cluster's.
    Taken(TakenName),
}

/// Looks an object up by name, and adopts it if a person has offered it.
pub(super) async fn find<K>(
    client: &Client,
    cluster: &RqliteCluster,
    name: &str,
) -> Result<Found<K>, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + DeserializeOwned
        + Clone
        + Debug,
{
    let kind = K::kind(&());
    let api: Api<K> = api(client, cluster);
    let object = api.get_opt(name).await;
    let object = object.map_err(Error::kubernetes(format!("reading {kind} {name}")))?;
    let Some(object) = object else {
        return Ok(Found::Nothing);
    };
    let uid = cluster.uid().unwrap_or_default();
    match belonging(object.meta(), &cluster.name_any(), &uid) {
        Belonging::Ours => Ok(Found::Ours(Box::new(object), false)),
        Belonging::Offered => {
            let adopted = adopt(&api, &object, cluster).await?;
            Ok(Found::Ours(Box::new(adopted), true))
        }
        Belonging::Other { owner, former } => Ok(Found::Taken(TakenName {
            kind: kind.into_owned(),
            name: name.to_owned(),
            owner,
            former,
        })),
    }
}

/// Makes this cluster the owner of an object. The annotation is removed: it is one person's consent for one
/// object, not for a later cluster of the same name.
async fn adopt<K>(api: &Api<K>, object: &K, cluster: &RqliteCluster) -> Result<K, Error>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
{
    let (kind, name) = (K::kind(&()), object.name_any());
    let change = json!({"metadata": {
        "uid": object.uid(), "resourceVersion": object.resource_version(),
        "ownerReferences": adopted_owners(object.meta(), cluster),
        "labels": {names::CLUSTER_LABEL: cluster.name_any()},
        "annotations": {names::ADOPT_INTO_ANNOTATION: null},
    }});
    tracing::info!("adopts {kind} {name}");
    api.patch(&name, &params(), &Patch::Merge(&change))
        .await
        .map_err(Error::kubernetes(format!("adopting {kind} {name}")))
}

/// Creates an object and returns its uid. A plain create, because a server-side apply would also change an
/// object that was created by others since it was looked for.
pub(super) async fn create<K>(
    client: &Client,
    cluster: &RqliteCluster,
    desired: &Value,
) -> Result<String, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug,
{
    let kind = K::kind(&());
    let mut marked = desired.clone();
    marked["metadata"]["annotations"][names::APPLIED_HASH_ANNOTATION] = CREATING.into();
    let object: K =
        serde_json::from_value(marked).map_err(|error| Error::Unreadable(error.to_string()))?;
    let name = object.name_any();
    tracing::info!("creates {kind} {name}");
    let params = PostParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    let api: Api<K> = api(client, cluster);
    let created = api.create(&params, &object).await;
    let created = created.map_err(Error::kubernetes(format!("creating {kind} {name}")))?;
    let uid = created.uid().unwrap_or_default();
    release_fields::<K>(client, cluster, &name, &uid).await?;
    Ok(uid)
}

/// Makes a created object one that server-side apply can take fields away from: the fields of a plain create
/// would be owned by it for ever. A record without any apply would be taken for an object from before
/// server-side apply, so one field stays recorded.
pub(super) async fn release_fields<K>(
    client: &Client,
    cluster: &RqliteCluster,
    name: &str,
    uid: &str,
) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + DeserializeOwned
        + Clone
        + Debug,
{
    let fields = json!({"f:metadata": {"f:labels": {format!("f:{}", names::CLUSTER_LABEL): {}}}});
    let change = json!({"metadata": {"uid": uid, "managedFields": [{
        "manager": names::FIELD_MANAGER, "operation": "Apply", "apiVersion": K::api_version(&()),
        "fieldsType": "FieldsV1", "fieldsV1": fields,
    }]}});
    let api: Api<K> = api(client, cluster);
    let patched = api.patch(name, &params(), &Patch::Merge(&change)).await;
    let doing = format!("completing the creation of {} {name}", K::kind(&()));
    patched.map(drop).map_err(Error::kubernetes(doing))
}

fn api<K>(client: &Client, cluster: &RqliteCluster) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    Api::namespaced(client.clone(), &cluster.namespace().unwrap_or_default())
}

/// A merge patch as the operator.
pub(super) fn params() -> PatchParams {
    PatchParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}
