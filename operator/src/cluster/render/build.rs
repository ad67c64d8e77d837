//! The objects of a cluster, as functions of the desired state. Fields without a meaning for us are left to
//! the API server's defaults, so that applying the same object twice changes nothing.
mod budget;
mod common;
mod network;
mod pod;
mod services;
mod sets;
mod state;

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ConfigMap, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use operator_api::{
    cluster::RqliteClusterSpec,
    names,
    status::{Pool, Target},
};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::cluster::facts::{forming, view::View};

pub use common::{has_readers, owner_label, selecting};
pub use state::state;

/// Hexadecimal digits of a hash: 64 bits suffice to distinguish the few templates of one cluster.
const HASH_CHARS: usize = 16;

/// One object to apply, server-side.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Object {
    /// The pods' account, without permissions.
    ServiceAccount(ServiceAccount),
    /// The state file.
    ConfigMap(ConfigMap),
    /// A Service.
    Service(Box<Service>),
    /// Which pods may connect to the cluster's pods.
    NetworkPolicy(Box<NetworkPolicy>),
    /// Protection from evictions.
    PodDisruptionBudget(PodDisruptionBudget),
    /// The StatefulSet of a pool.
    StatefulSet(Box<StatefulSet>),
}

impl Object {
    /// Kind and name.
    pub fn id(&self) -> (&'static str, &str) {
        let (kind, metadata) = match self {
            Self::ServiceAccount(o) => ("ServiceAccount", &o.metadata),
            Self::ConfigMap(o) => ("ConfigMap", &o.metadata),
            Self::Service(o) => ("Service", &o.metadata),
            Self::NetworkPolicy(o) => ("NetworkPolicy", &o.metadata),
            Self::PodDisruptionBudget(o) => ("PodDisruptionBudget", &o.metadata),
            Self::StatefulSet(o) => ("StatefulSet", &o.metadata),
        };
        (kind, metadata.name.as_deref().unwrap_or_default())
    }
}

/// All objects in the order in which they are applied: what pods need first, the StatefulSets last. A
/// StatefulSet whose template is not the recorded target is left as it is.
pub fn objects(view: &View<'_>, target: &Target, wanted: &Target) -> Vec<Object> {
    let mut all = Vec::new();
    if view.spec.service_account_name.is_none() {
        all.push(Object::ServiceAccount(network::account(view)));
    }
    // The plan comes before the state file that makes pods follow it.
    all.extend(state::plan(view).map(Object::ConfigMap));
    all.extend(state::config_map(view, target).map(Object::ConfigMap));
    all.extend(
        services::all(view)
            .into_iter()
            .map(Box::new)
            .map(Object::Service),
    );
    if view.spec.network_policy.clone().unwrap_or_default().enabled {
        all.push(Object::NetworkPolicy(Box::new(network::policy(view))));
    }
    let budgets = budget::all(view, target).into_iter();
    all.extend(budgets.map(Object::PodDisruptionBudget));
    let pools = [(Pool::Voter, true), (Pool::Read, has_readers(view))];
    for (pool, exists) in pools {
        let same = match pool {
            Pool::Voter => target.template_hash == wanted.template_hash,
            Pool::Read => target.read_template_hash == wanted.read_template_hash,
        };
        if exists && same {
            let set = sets::stateful_set(view, target, pool);
            all.push(Object::StatefulSet(Box::new(set)));
        }
    }
    all
}

/// The target that follows from the present spec and this version of the operator.
pub fn wanted_target(view: &View<'_>) -> Target {
    let replicas = view.spec.replicas;
    let bootstrap = forming::voters_to_form(view);
    let mut target = Target {
        replicas,
        bootstrap_replicas: bootstrap,
        image: image(view),
        input_hash: hash(&inputs(view)),
        template_hash: String::new(),
        read_template_hash: None,
        newer: std::collections::BTreeMap::new(),
    };
    target.template_hash = hash(&pod::template(view, &target, Pool::Voter));
    if has_readers(view) {
        target.read_template_hash = Some(hash(&pod::template(view, &target, Pool::Read)));
    }
    target
}

/// The image that follows from the spec and the operator's default.
fn image(view: &View<'_>) -> String {
    let default = view.seen.operator.node_image.as_str();
    let Some(image) = &view.spec.image else {
        return default.to_owned();
    };
    let (default_name, _) = default.split_once('@').unwrap_or((default, ""));
    let (default_repository, default_tag) = match default_name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (default_name, None),
    };
    let repository = image.repository.as_deref().unwrap_or(default_repository);
    match (&image.digest, image.tag.as_deref()) {
        (Some(digest), Some(tag)) => format!("{repository}:{tag}@{digest}"),
        (Some(digest), None) => format!("{repository}@{digest}"),
        (None, Some(tag)) => format!("{repository}:{tag}"),
        (None, None) if image.repository.is_none() => default.to_owned(),
        (None, None) => format!("{repository}:{}", default_tag.unwrap_or("latest")),
    }
}

/// The parts of the spec and the annotations that affect pods.
fn inputs(view: &View<'_>) -> (RqliteClusterSpec, Option<String>) {
    let mut spec = view.spec.clone();
    let defaults = RqliteClusterSpec::default();
    spec.replicas = defaults.replicas;
    spec.bootstrap = None;
    spec.storage = defaults.storage;
    spec.services = None;
    // Whether the spec names it or the status has it on record makes no difference to pods.
    spec.cluster_domain = Some(view.cluster_domain().to_owned());
    if let Some(pods) = &mut spec.pods {
        pods.service_account_annotations.clear();
    }
    spec.disruption = None;
    spec.update = None;
    spec.member_replacement = None;
    spec.quorum_recovery = None;
    if let Some(reaping) = &mut spec.reaping {
        // Of reaping, only the read replicas' timeout is a flag of the nodes.
        reaping.voters = false;
        reaping.keep_unknown_readers = false;
        reaping.voter_timeout = operator_api::cluster::Reaping::default().voter_timeout;
    }
    spec.network_policy = None;
    spec.paused = false;
    spec.hibernated = false;
    spec.deletion_protection = false;
    if let Some(readers) = &mut spec.read_replicas {
        readers.replicas = None;
        readers.autoscaled = false;
        readers.storage = None;
    }
    let annotations = view.seen.cluster.metadata.annotations.as_ref();
    let restarted = annotations.and_then(|a| a.get(names::RESTARTED_AT_ANNOTATION).cloned());
    (spec, restarted)
}

/// A short hash of a value's JSON. Maps are sorted, so equal values have equal hashes.
fn hash(value: &impl Serialize) -> String {
    // These types always serialize. An empty value would only make different values equal.
    let json = serde_json::to_vec(value).unwrap_or_default();
    let digest = Sha256::digest(json);
    let mut text: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    text.truncate(HASH_CHARS);
    text
}

#[cfg(test)]
mod tests;
