//! Object names, labels and annotations that the operator sets, in one place.

/// Field manager of every server-side apply.
pub const FIELD_MANAGER: &str = "rqlite-operator";
/// Finalizer of a cluster whose deletion has to follow an order (claims last) or is refused (deletion
/// protection).
pub const FINALIZER: &str = concat!(crate::group!(), "/cluster");

/// Standard label: name of the application.
pub const APP_NAME_LABEL: &str = "app.kubernetes.io/name";
/// Value of [`APP_NAME_LABEL`].
pub const APP_NAME: &str = "rqlite";
/// Standard label: name of the cluster.
pub const INSTANCE_LABEL: &str = "app.kubernetes.io/instance";
/// Standard label: the tool that manages the object.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY_LABEL`].
pub const MANAGED_BY: &str = "rqlite-operator";
/// Name of the cluster. Services and StatefulSets select by this label and [`POOL_LABEL`].
pub const CLUSTER_LABEL: &str = concat!(crate::group!(), "/cluster");
/// The pool: `voter` or `read`.
pub const POOL_LABEL: &str = concat!(crate::group!(), "/pool");
/// `leader` on the leader's pod, `follower` on the pods of all other members.
pub const ROLE_LABEL: &str = concat!(crate::group!(), "/role");
/// `member` on each pod that is in the committed Raft configuration. The PodDisruptionBudget selects by it.
pub const RAFT_LABEL: &str = concat!(crate::group!(), "/raft");
/// `false` on a pod that is about to be removed; the client Service selects `true`.
pub const SERVING_LABEL: &str = concat!(crate::group!(), "/serving");
/// On a pod of a cluster that was recovered: the number of recoveries. A change makes the kubelet refresh the
/// mounted state file at once.
pub const EPOCH_LABEL: &str = concat!(crate::group!(), "/epoch");
/// Uid of the RqliteCluster, on its pods. Services, budgets and policies select by it as well, so that pods
/// of anything else that is called alike are not selected.
pub const OWNER_LABEL: &str = concat!(crate::group!(), "/owner");
/// On a pod with mounted Secrets: changes with them, which makes the kubelet show the new files at once.
pub const SECRETS_LABEL: &str = concat!(crate::group!(), "/secrets");
/// On an RqliteRecovery that the operator created.
pub const AUTOMATIC_LABEL: &str = concat!(crate::group!(), "/automatic");

/// On an RqliteBackup that a schedule made: name of the RqliteScheduledBackup.
pub const SCHEDULE_LABEL: &str = concat!(crate::group!(), "/schedule");
/// On an RqliteBackup that a schedule made: uid of the RqliteScheduledBackup.
pub const SCHEDULE_UID_LABEL: &str = concat!(crate::group!(), "/schedule-uid");
/// On a node's pod: the configuration of its archive, which it reads as a file.
pub const ARCHIVE_ANNOTATION: &str = concat!(crate::group!(), "/archive");
/// On a node's pod of a cluster that begins with a restore: the configuration of that restore.
pub const RESTORE_ANNOTATION: &str = concat!(crate::group!(), "/restore");

/// On a pod: hash of the template that it was created from. A pod is outdated if the hash differs; specs of
/// live pods are never compared.
pub const TEMPLATE_HASH_ANNOTATION: &str = concat!(crate::group!(), "/template-hash");
/// On an object that the operator applied: hash of what was applied, so that an unchanged object is not sent
/// again.
pub const APPLIED_HASH_ANNOTATION: &str = concat!(crate::group!(), "/applied-hash");
/// On a StatefulSet: the number of replicas that the operator set last. Another number was set by somebody
/// else.
pub const REPLICAS_SET_ANNOTATION: &str = concat!(crate::group!(), "/replicas-set");
/// On a cluster: any change of the value restarts all pods, one at a time, even while updates are deferred.
pub const RESTARTED_AT_ANNOTATION: &str = concat!(crate::group!(), "/restarted-at");
/// Annotation by which a person asks for a drill of the archive now: any new value, such as the time.
pub const DRILL_NOW_ANNOTATION: &str = concat!(crate::group!(), "/drill-now");
/// On a cluster: `"true"` pauses the operator, as `spec.paused` does. For specs that another tool owns.
pub const PAUSED_ANNOTATION: &str = concat!(crate::group!(), "/paused");
/// On a cluster without a status: `<cluster id>/<lineage id>/<epoch>` of the cluster whose retained claims it
/// adopts.
pub const ADOPT_ANNOTATION: &str = concat!(crate::group!(), "/adopt");
/// On a cluster: `<lineage id>/<epoch>` of a lineage that was created manually (`peers.json`) and is to be
/// accepted.
pub const ACCEPT_LINEAGE_ANNOTATION: &str = concat!(crate::group!(), "/accept-lineage");
/// On a cluster: `<namespace>/<Lease>` of the installation of the operator that shall manage it, if several
/// have its class.
pub const MANAGER_ANNOTATION: &str = concat!(crate::group!(), "/manager");
/// On a cluster's NetworkPolicy: who may use the HTTP API where the spec does not say, for a cluster whose
/// status was lost.
pub const CLIENTS_ANNOTATION: &str = concat!(crate::group!(), "/clients");
/// On an object whose name a cluster needs: the cluster's name. Set by a person, it offers the object to that
/// cluster; the operator removes it when it has adopted the object.
pub const ADOPT_INTO_ANNOTATION: &str = concat!(crate::group!(), "/adopt-into");
/// On a pod, with update strategy Manual: `"true"` makes the operator replace this pod now.
pub const UPDATE_NOW_ANNOTATION: &str = concat!(crate::group!(), "/update-now");

/// Name of the claim template of the StatefulSets, and of the pods' volume.
pub const DATA_VOLUME: &str = "data";
/// DNS domain of a Kubernetes cluster whose administrator has not chosen another one.
pub const USUAL_DOMAIN: &str = "cluster.local";
/// Class of clusters without `spec.operatorClass`, and of operators without `--class`.
pub const DEFAULT_CLASS: &str = "default";
/// On an RqliteRecovery: `"true"` makes it go on without the check of the database that is under way.
pub const SKIP_CHECK_ANNOTATION: &str = concat!(crate::group!(), "/skip-database-check");
/// On a cluster: `"true"`, or the operator's default image, moves the cluster to that image once.
pub const UPDATE_IMAGE_ANNOTATION: &str = concat!(crate::group!(), "/update-image");
/// On a cluster: `"true"`, or an image, allows to go back to an image of an older release.
pub const ALLOW_DOWNGRADE_ANNOTATION: &str = concat!(crate::group!(), "/allow-downgrade");
/// On a cluster: a new value takes the pods back to the last template that worked.
pub const ROLLBACK_ANNOTATION: &str = concat!(crate::group!(), "/rollback");
/// On a cluster with management Manual: the id of the proposed plan that may be carried out.
pub const APPROVE_ANNOTATION: &str = concat!(crate::group!(), "/approve");

/// On a cluster: a new value renews its certificates; one that begins with `authority`, their authority, too.
pub const ROTATE_CERTIFICATES_ANNOTATION: &str = concat!(crate::group!(), "/rotate-certificates");

/// On a cluster: a new value replaces all passwords that the operator has made. On a connection Secret: any
/// value replaces its password. Former passwords are accepted until every node knows the new ones, and for a
/// minute at least.
pub const ROTATE_PASSWORDS_ANNOTATION: &str = concat!(crate::group!(), "/rotate-passwords");
/// On a Secret: the value of the cluster's annotation that has been acted upon.
pub const ROTATED_PASSWORDS_ANNOTATION: &str = concat!(crate::group!(), "/rotated-passwords");
/// On a Secret of the operator's: when its contents last changed.
pub const CHANGED_AT_ANNOTATION: &str = concat!(crate::group!(), "/changed-at");

/// Port of the HTTP API.
pub const HTTP_PORT: i32 = 4001;
/// Port for connections between nodes.
pub const RAFT_PORT: i32 = 4002;
/// Port for health and metrics: no data, no password.
pub const HEALTH_PORT: i32 = 4003;
/// Maximum length of a cluster's name: pods of a StatefulSet carry `<name>-ro-<hash>` as a label value, of at
/// most 63 characters.
pub const MAX_NAME_CHARS: usize = 45;

/// Name of the voters' StatefulSet and prefix of their pods' names.
pub fn voters(cluster: &str) -> String {
    cluster.to_owned()
}

/// Name of the read replicas' StatefulSet.
pub fn readers(cluster: &str) -> String {
    format!("{cluster}-ro")
}

/// Prefix of the names of objects that no user addresses by name (account, network policy, budgets): a
/// cluster's own name is often that of other objects in its namespace, too.
pub fn auxiliary(cluster: &str) -> String {
    format!("{cluster}-rqlite")
}

/// Name of the Secret with the cluster's own certificate authority. Never mounted.
pub fn authority_secret(cluster: &str) -> String {
    format!("{}-ca", auxiliary(cluster))
}

/// Name of the Secret with the certificate of the nodes for each other.
pub fn node_tls_secret(cluster: &str) -> String {
    format!("{}-node-tls", auxiliary(cluster))
}

/// Name of the Secret with the certificate of the nodes for clients.
pub fn http_tls_secret(cluster: &str) -> String {
    format!("{}-http-tls", auxiliary(cluster))
}

/// Name of the Secret into which cert-manager puts the certificate that is copied to this one.
pub fn issued_secret(copy: &str) -> String {
    format!("{copy}-issued")
}

/// Name of the Secret with the nodes' credentials file.
pub fn users_secret(cluster: &str) -> String {
    format!("{}-users", auxiliary(cluster))
}

/// Name of the Secret with the operator's own credentials at the nodes. Never mounted.
pub fn operator_secret(cluster: &str) -> String {
    format!("{}-operator", auxiliary(cluster))
}

/// Name of the Secret with the credentials of backups' pods.
pub fn backup_secret(cluster: &str) -> String {
    format!("{}-backup", auxiliary(cluster))
}

/// Name of the Secret with the certificate that backups' pods show, where nodes ask clients for one.
pub fn backup_tls_secret(cluster: &str) -> String {
    format!("{}-backup-tls", auxiliary(cluster))
}

/// Name of the Secret by which applications connect as this user.
pub fn connection_secret(cluster: &str, user: &str) -> String {
    format!("{cluster}-{user}")
}

/// Name of the headless Service that gives every pod a DNS name.
pub fn headless(cluster: &str) -> String {
    format!("{cluster}-headless")
}

/// Name of the client Service: every serving voter.
pub fn client(cluster: &str) -> String {
    format!("{cluster}-client")
}

/// Name of the Service that selects the leader.
pub fn leader(cluster: &str) -> String {
    format!("{cluster}-leader")
}

/// Name of the read replicas' Service.
pub fn read(cluster: &str) -> String {
    format!("{cluster}-read")
}

/// Name of the ConfigMap with the cluster's state file.
pub fn state(cluster: &str) -> String {
    format!("{cluster}-state")
}

/// Name of the ConfigMap with the plan of a recovery.
pub fn recovery(cluster: &str) -> String {
    format!("{cluster}-recovery")
}

/// Name of the pod with this ordinal.
pub fn pod(stateful_set: &str, ordinal: i32) -> String {
    format!("{stateful_set}-{ordinal}")
}

/// Name of the pod's PersistentVolumeClaim.
pub fn claim(pod: &str) -> String {
    format!("data-{pod}")
}

/// Ordinal of a pod of this StatefulSet; None for the name of any other pod.
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
