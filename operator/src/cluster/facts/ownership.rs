//! Whether an object with the name of one of the cluster's objects belongs to the cluster. Labels are no
//! proof, because anyone can set or copy them: an object belongs to the cluster whose uid its controller
//! reference has, or to the one that a person offers it to by an annotation.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use operator_api::{GROUP, RqliteCluster, VERSION, names};

use crate::cluster::facts::observation::TakenName;

/// Reason of the condition and the event.
pub const REASON: &str = "NameTaken";

/// Kind of the clusters, in references to owners.
const KIND: &str = "RqliteCluster";

/// To whom an object belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Belonging {
    /// This cluster's: its controller reference has the cluster's uid.
    Ours,
    /// A person offers it to this cluster.
    Offered,
    /// Not this cluster's: it is never changed.
    Other {
        /// Kind and name of its controller, if it has one.
        owner: Option<String>,
        /// Is that controller a former cluster of the same name?
        former: bool,
    },
}

/// The owner reference of a cluster's objects.
pub fn owner_reference(cluster: &RqliteCluster) -> OwnerReference {
    OwnerReference {
        api_version: format!("{GROUP}/{VERSION}"),
        kind: KIND.to_owned(),
        name: cluster.metadata.name.clone().unwrap_or_default(),
        uid: cluster.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

fn controller(object: &ObjectMeta) -> Option<&OwnerReference> {
    let owners = object.owner_references.iter().flatten();
    owners
        .into_iter()
        .find(|owner| owner.controller == Some(true))
}

/// Does an object belong to the cluster with this uid?
pub fn is_ours(object: &ObjectMeta, uid: &str) -> bool {
    controller(object).is_some_and(|owner| owner.uid == uid && !uid.is_empty())
}

/// Whether the owner is a cluster of this name with another uid. Only one cluster can have the name at a
/// time, so that one no longer exists.
fn is_former(owner: &OwnerReference, cluster: &str, uid: &str) -> bool {
    let group = owner.api_version.split('/').next();
    group == Some(GROUP) && owner.kind == KIND && owner.name == cluster && owner.uid != uid
}

/// To whom an object belongs, for the cluster of this name and uid.
pub fn belonging(object: &ObjectMeta, cluster: &str, uid: &str) -> Belonging {
    if is_ours(object, uid) {
        return Belonging::Ours;
    }
    let controller = controller(object);
    let former = controller.is_some_and(|owner| is_former(owner, cluster, uid));
    let annotations = object.annotations.as_ref();
    let offered = annotations.and_then(|all| all.get(names::ADOPT_INTO_ANNOTATION));
    if offered.is_some_and(|to| to == cluster) && (controller.is_none() || former) {
        return Belonging::Offered;
    }
    Belonging::Other {
        owner: controller.map(|owner| format!("{} {}", owner.kind, owner.name)),
        former,
    }
}

/// The owner references of an object that this cluster adopts: a former cluster's is replaced, others stay.
pub fn adopted_owners(object: &ObjectMeta, cluster: &RqliteCluster) -> Vec<OwnerReference> {
    let ours = owner_reference(cluster);
    let others = object.owner_references.iter().flatten();
    let others =
        others.filter(|owner| owner.uid != ours.uid && !is_former(owner, &ours.name, &ours.uid));
    let mut all: Vec<_> = others.cloned().collect();
    all.push(ours);
    all
}

/// Do pods need this object? Without it no pod is created: otherwise pods would run under another owner's
/// account, read its files, or be reachable without a NetworkPolicy.
pub fn is_needed_by_pods(cluster: &str, kind: &str, name: &str) -> bool {
    match kind {
        "ServiceAccount" | "ConfigMap" | "NetworkPolicy" => true,
        "Service" => name == names::headless(cluster),
        // The Secrets that pods mount, not those for applications.
        "Secret" => {
            let mounted = [
                names::node_tls_secret(cluster),
                names::http_tls_secret(cluster),
                names::users_secret(cluster),
            ];
            mounted.iter().any(|one| one == name)
        }
        _ => false,
    }
}

/// The text about names that other objects have: whose they are, and what to do.
pub fn describe(cluster: &RqliteCluster, taken: &[TakenName]) -> String {
    let namespace = cluster.metadata.namespace.as_deref();
    let cluster = cluster.metadata.name.as_deref().unwrap_or_default();
    let namespace = namespace.unwrap_or("default");
    let each = taken.iter().map(|one| {
        let whose = match (&one.owner, one.former) {
            (_, true) => format!("belonged to the former RqliteCluster {cluster}"),
            (Some(owner), false) => format!("belongs to {owner}"),
            (None, false) => "does not belong to it".to_owned(),
        };
        format!("{} {} exists and {whose}", one.kind, one.name)
    });
    let each = each.collect::<Vec<_>>().join("; ");
    let may_adopt = |one: &&TakenName| one.owner.is_none() || one.former;
    let resources: Vec<_> = taken
        .iter()
        .filter(may_adopt)
        .map(|one| format!("{}/{}", one.kind.to_lowercase(), one.name))
        .collect();
    let wait = if taken.iter().all(|one| one.former) {
        "Kubernetes' garbage collector deletes it; if it does not, delete it"
    } else if taken.iter().any(|one| one.owner.is_some() && !one.former) {
        // Deleting it would harm the controller that needs it.
        "Give this RqliteCluster another name, unless that object may go"
    } else {
        "Delete it, or give this RqliteCluster another name"
    };
    let adopt = if resources.is_empty() {
        String::new()
    } else {
        format!(
            ", or let this RqliteCluster adopt and overwrite it: kubectl annotate -n {namespace} {} {}={cluster}",
            resources.join(" "),
            names::ADOPT_INTO_ANNOTATION
        )
    };
    format!("{each}: it is left as it is. {wait}{adopt}")
}

#[cfg(test)]
mod tests;
