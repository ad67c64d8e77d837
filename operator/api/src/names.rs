//! Names, labels and annotations that the operator puts on objects, in one place.

/// Field manager of every server-side apply.
pub const FIELD_MANAGER: &str = "rqlite-operator";
/// Finalizer of a cluster whose deletion needs an order (claims deleted last) or is refused (deletion protection).
pub const FINALIZER: &str = concat!(crate::group!(), "/cluster");

/// Standard label: the program's name.
pub const APP_NAME_LABEL: &str = "app.kubernetes.io/name";
/// Value of [`APP_NAME_LABEL`].
pub const APP_NAME: &str = "rqlite";
/// Standard label: which cluster.
pub const INSTANCE_LABEL: &str = "app.kubernetes.io/instance";
/// Standard label: who made the object.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY_LABEL`].
pub const MANAGED_BY: &str = "rqlite-operator";
/// Which cluster; with [`POOL_LABEL`] what Services and StatefulSets select.
pub const CLUSTER_LABEL: &str = concat!(crate::group!(), "/cluster");
/// `voter` or `read`.
pub const POOL_LABEL: &str = concat!(crate::group!(), "/pool");
/// `leader` on the leader's pod, `follower` on all others that are in the configuration.
pub const ROLE_LABEL: &str = concat!(crate::group!(), "/role");
/// `member` on a pod that the committed configuration names; what the disruption budget counts.
pub const RAFT_LABEL: &str = concat!(crate::group!(), "/raft");
/// `false` on a pod that is about to leave: the client Service selects `true`.
pub const SERVING_LABEL: &str = concat!(crate::group!(), "/serving");
/// On a pod of a cluster that was recovered: the number of recoveries. A change makes its kubelet look at the state file at once.
pub const EPOCH_LABEL: &str = concat!(crate::group!(), "/epoch");
/// On an RqliteRecovery: the operator made it.
pub const AUTOMATIC_LABEL: &str = concat!(crate::group!(), "/automatic");
/// On a claim whose member left: the time of leaving. Data of such a claim never votes again.
pub const RETIRED_LABEL: &str = concat!(crate::group!(), "/retired");

/// On a pod: the hash of the template it was made from. What decides whether a pod is outdated; live pods are never compared.
pub const TEMPLATE_HASH_ANNOTATION: &str = concat!(crate::group!(), "/template-hash");
/// On an object that the operator applied: the hash of what was applied, so that nothing is sent again while it is there unchanged.
pub const APPLIED_HASH_ANNOTATION: &str = concat!(crate::group!(), "/applied-hash");
/// On a cluster: any change of the value restarts all pods, one at a time. Also works when updates are deferred.
pub const RESTARTED_AT_ANNOTATION: &str = concat!(crate::group!(), "/restarted-at");
/// On a cluster: `"true"` stops the operator from touching it, as `spec.paused` does, where something else owns the spec.
pub const PAUSED_ANNOTATION: &str = concat!(crate::group!(), "/paused");
/// On a cluster without status: `<cluster id>/<lineage id>/<epoch>` of the cluster whose retained claims it takes over.
pub const ADOPT_ANNOTATION: &str = concat!(crate::group!(), "/adopt");
/// On a cluster: `<lineage id>/<epoch>` of a history that a person made by hand (`peers.json`) and that is to be taken over.
pub const ACCEPT_LINEAGE_ANNOTATION: &str = concat!(crate::group!(), "/accept-lineage");
/// On a pod, with update strategy Manual: `"true"` lets the operator replace this pod now.
pub const UPDATE_NOW_ANNOTATION: &str = concat!(crate::group!(), "/update-now");

/// Port of the HTTP API.
pub const HTTP_PORT: i32 = 4001;
/// Port between nodes.
pub const RAFT_PORT: i32 = 4002;
/// Longest name of a cluster: a StatefulSet's pods carry `<name>-ro-<hash>` as a label value, of at most 63 characters.
pub const MAX_NAME_CHARS: usize = 45;

/// The StatefulSet and the pods' name prefix of the voters.
pub fn voters(cluster: &str) -> String {
    cluster.to_owned()
}

/// The StatefulSet of the read replicas.
pub fn readers(cluster: &str) -> String {
    format!("{cluster}-ro")
}

/// The headless Service that gives every pod a name.
pub fn headless(cluster: &str) -> String {
    format!("{cluster}-headless")
}

/// The Service for clients: every serving voter.
pub fn client(cluster: &str) -> String {
    format!("{cluster}-client")
}

/// The Service that selects the leader.
pub fn leader(cluster: &str) -> String {
    format!("{cluster}-leader")
}

/// The Service of the read replicas.
pub fn read(cluster: &str) -> String {
    format!("{cluster}-read")
}

/// The ConfigMap with the cluster's state file.
pub fn state(cluster: &str) -> String {
    format!("{cluster}-state")
}

/// The ConfigMap with a recovery's plan.
pub fn recovery(cluster: &str) -> String {
    format!("{cluster}-recovery")
}

/// Pod of an ordinal.
pub fn pod(stateful_set: &str, ordinal: i32) -> String {
    format!("{stateful_set}-{ordinal}")
}

/// Claim of a pod.
pub fn claim(pod: &str) -> String {
    format!("data-{pod}")
}

/// Ordinal of a pod of this StatefulSet; None for names of others.
pub fn ordinal(stateful_set: &str, pod: &str) -> Option<i32> {
    let digits = pod.strip_prefix(stateful_set)?.strip_prefix('-')?;
    let canonical = digits == "0" || !digits.starts_with('0');
    let number = canonical && digits.bytes().all(|b| b.is_ascii_digit());
    number.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals_are_of_their_own_set_only() {
        let cases = [
            ("demo", "demo-0", Some(0)),
            ("demo", "demo-12", Some(12)),
            ("demo", "demo-ro-1", None),
            ("demo-ro", "demo-ro-1", Some(1)),
            ("demo", "demo-01", None),
            ("demo", "demo-", None),
            ("demo", "demo-+1", None),
            ("demo", "other-1", None),
            ("demo", "demo-99999999999", None),
        ];
        for (set, name, expected) in cases {
            assert_eq!(ordinal(set, name), expected, "{set} {name}");
        }
    }
}
