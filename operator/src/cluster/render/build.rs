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
use operator_api::status::{Pool, Target};
use serde::Serialize;

use crate::cluster::{
    deciders::tls,
    facts::{beginning, forming, hash::hash, image, inputs, view::View},
};

pub use common::{has_readers, owner_label, selecting};
pub use state::state;

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
        // Without their certificates, new pods would only wait: they are not created yet.
        let can_start = view.set(pool).is_some() || tls::awaited(view).is_none();
        if exists && same && can_start {
            let set = sets::stateful_set(view, target, pool);
            all.push(Object::StatefulSet(Box::new(set)));
        }
    }
    all
}

/// The target that follows from the present spec and this version of the operator.
pub fn wanted_target(view: &View<'_>) -> Target {
    // A node that restores forms the cluster alone; the others then join it.
    let replicas = match beginning::is_restoring(view) {
        true => 1,
        false => view.spec.replicas,
    };
    let bootstrap = forming::voters_to_form(view);
    let mut target = Target {
        replicas,
        bootstrap_replicas: bootstrap,
        image: view
            .kept_image
            .map_or_else(|| image::resolve(view).reference, str::to_owned),
        input_hash: inputs::template_hash(view),
        template_hash: String::new(),
        read_template_hash: None,
        inputs: Some(inputs::recorded(view)),
        worked_at: None,
        newer: std::collections::BTreeMap::new(),
    };
    target.template_hash = hash(&pod::template(view, &target, Pool::Voter));
    if has_readers(view) {
        target.read_template_hash = Some(hash(&pod::template(view, &target, Pool::Read)));
    }
    target
}
