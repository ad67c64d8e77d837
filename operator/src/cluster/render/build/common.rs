//! Names, labels and metadata that the objects of a cluster share.
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use operator_api::{
    names,
    status::{OperationType, Pool},
};

use crate::cluster::facts::view::View;

/// Path of the data directory.
pub(super) const DATA_PATH: &str = "/rqlite/data";
/// Name of the claim template and of its volume.
pub(super) const DATA_VOLUME: &str = "data";

/// Is there a pool of read replicas, possibly of size 0? True also while its StatefulSet is being recreated
/// around its pods: it has to exist to remove them.
pub fn has_readers(view: &View<'_>) -> bool {
    let resize = view.operating(OperationType::Resize);
    let member = resize.and_then(|o| o.member.as_deref());
    let remade = member == Some(view.set_name(Pool::Read).as_str());
    view.spec.read_replicas.is_some() || view.seen.readers.is_some() || remade
}

pub(super) fn owner(view: &View<'_>) -> OwnerReference {
    OwnerReference {
        api_version: format!("{}/{}", operator_api::GROUP, operator_api::VERSION),
        kind: "RqliteCluster".to_owned(),
        name: view.name.to_owned(),
        uid: view.seen.cluster.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

pub(super) fn labels(view: &View<'_>) -> BTreeMap<String, String> {
    map([
        (names::APP_NAME_LABEL, names::APP_NAME),
        (names::INSTANCE_LABEL, view.name),
        (names::MANAGED_BY_LABEL, names::MANAGED_BY),
        (names::CLUSTER_LABEL, view.name),
    ])
}

/// Labels that select the pods of one pool. They never change, because a StatefulSet's selector is immutable.
pub(super) fn selector(view: &View<'_>, pool: Pool) -> BTreeMap<String, String> {
    map([
        (names::CLUSTER_LABEL, view.name),
        (names::POOL_LABEL, pool_label(pool)),
    ])
}

pub(super) fn pool_label(pool: Pool) -> &'static str {
    match pool {
        Pool::Voter => "voter",
        Pool::Read => "read",
    }
}

pub(super) fn map<const N: usize>(entries: [(&str, &str); N]) -> BTreeMap<String, String> {
    entries
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

pub(super) fn metadata(view: &View<'_>, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: view.seen.cluster.metadata.namespace.clone(),
        labels: Some(labels(view)),
        owner_references: Some(vec![owner(view)]),
        ..ObjectMeta::default()
    }
}
