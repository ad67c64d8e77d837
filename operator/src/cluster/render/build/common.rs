//! Names, labels and metadata that the objects of a cluster share.
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use operator_api::{
    names,
    status::{OperationType, Pool},
};

use crate::cluster::facts::{observation::ObservedPod, ownership, view::View};

/// Path of the data directory.
pub(super) const DATA_PATH: &str = "/rqlite/data";
/// Mount path of the certificate for other nodes.
pub(super) const NODE_TLS_PATH: &str = "/etc/rqlite/node-tls";
/// Mount path of the certificate for clients.
pub(super) const HTTP_TLS_PATH: &str = "/etc/rqlite/http-tls";
/// Volume of the certificate for other nodes.
pub(super) const NODE_TLS_VOLUME: &str = "rqlite-node-tls";
/// Volume of the certificate for clients.
pub(super) const HTTP_TLS_VOLUME: &str = "rqlite-http-tls";
/// Mount path of the credentials file.
pub(super) const USERS_PATH: &str = "/etc/rqlite/users";
/// Volume of the credentials file.
pub(super) const USERS_VOLUME: &str = "rqlite-users";
/// Name of the claim template and of its volume.
pub(super) const DATA_VOLUME: &str = names::DATA_VOLUME;
/// Name of the volume for temporary files: the root file system is read-only.
pub(super) const TMP_VOLUME: &str = "tmp";

/// Is there a pool of read replicas, possibly of size 0? True also while its StatefulSet is being recreated
/// around its pods: it has to exist to remove them.
pub fn has_readers(view: &View<'_>) -> bool {
    let resize = view.operating(OperationType::Resize);
    let member = resize.and_then(|o| o.member.as_deref());
    let remade = member == Some(view.set_name(Pool::Read).as_str());
    view.spec.read_replicas.is_some() || view.seen.readers.is_some() || remade
}

pub(super) fn owner(view: &View<'_>) -> OwnerReference {
    ownership::owner_reference(&view.seen.cluster)
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

/// Labels by which Services, budgets and policies select the pods of one pool, or of both: with the owner's
/// uid as soon as every pod has it. Pods that were made from an older template get it first
/// ([`owner_label`]).
pub fn selecting(view: &View<'_>, pool: Option<Pool>) -> BTreeMap<String, String> {
    let mut all = map([(names::CLUSTER_LABEL, view.name)]);
    if let Some(pool) = pool {
        all.extend(selector(view, pool));
    }
    let uid = view.seen.cluster.metadata.uid.as_ref();
    let pools = [Pool::Voter, Pool::Read];
    let in_templates = pools
        .iter()
        .filter_map(|pool| view.set(*pool))
        .all(|set| set.owner_label.as_ref() == uid);
    let mut pods = view.seen.pods.iter();
    let on_pods = pods.all(|pod| pod.labels.get(names::OWNER_LABEL) == uid);
    if let Some(uid) = uid.filter(|_| in_templates && on_pods) {
        all.insert(names::OWNER_LABEL.to_owned(), uid.clone());
    }
    all
}

/// Value of the owner label for a pod; None as long as the template of its StatefulSet has none: then pods
/// that are made while the operator is away would lack it.
pub fn owner_label(view: &View<'_>, pod: &ObservedPod) -> Option<String> {
    let uid = view.seen.cluster.metadata.uid.clone();
    let set = view.set(pod.pool)?;
    uid.filter(|uid| set.owner_label.as_ref() == Some(uid))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{fixture::Fixture, render::build::Object};

    /// Which selectors of the plan's objects name the owner.
    fn selecting_owner(fixture: &mut Fixture) -> Vec<bool> {
        let objects = fixture.reconcile().objects.into_iter();
        let selectors = objects.filter_map(|object| match object {
            Object::Service(o) => o.spec?.selector,
            Object::NetworkPolicy(o) => o.spec?.pod_selector?.match_labels,
            Object::PodDisruptionBudget(o) => o.spec?.selector?.match_labels,
            _ => None,
        });
        let uid = fixture.seen.cluster.metadata.uid.clone();
        let selectors: Vec<_> = selectors.collect();
        assert!(selectors.len() >= 6, "{selectors:?}");
        selectors
            .iter()
            .map(|labels| labels.get(names::OWNER_LABEL) == uid.as_ref())
            .collect()
    }

    #[test]
    fn selectors_name_the_owner_once_every_pod_does() {
        let mut fixture = Fixture::running(3, 1);
        let all = |fixture: &mut Fixture, expected: bool, why: &str| {
            let found = selecting_owner(fixture);
            assert!(found.iter().all(|one| *one == expected), "{why}: {found:?}");
        };
        // Pods and templates from before the label: neither of them changes.
        all(&mut fixture, false, "old templates");
        let labels = fixture.reconcile().labels;
        let owner =
            |one: &crate::cluster::plan::PodLabels| one.labels.contains_key(names::OWNER_LABEL);
        assert!(!labels.iter().any(owner));
        let uid = fixture.seen.cluster.metadata.uid.clone();
        fixture.seen.voters.as_mut().unwrap().owner_label = uid.clone();
        all(
            &mut fixture,
            false,
            "the template of the read replicas is old",
        );
        fixture.seen.readers.as_mut().unwrap().owner_label = uid.clone();
        all(&mut fixture, false, "pods do not have it yet");
        // They get it also without a leader.
        fixture.leaderless();
        let labels = fixture.reconcile().labels;
        assert_eq!(labels.len(), 4);
        for one in labels {
            assert_eq!(
                one.labels,
                [(names::OWNER_LABEL.to_owned(), uid.clone())].into()
            );
            let pod = fixture.pod(&one.pod);
            pod.labels
                .insert(names::OWNER_LABEL.to_owned(), uid.clone().unwrap());
        }
        all(&mut fixture, true, "all have it");
        let selector = fixture.status().selector.unwrap();
        assert!(
            selector.contains("rqlite.dev/owner=cluster-uid"),
            "{selector}"
        );
    }
}
