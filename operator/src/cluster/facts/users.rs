//! The users of a cluster, and the Secrets that they need.
use std::collections::BTreeSet;

use operator_api::{
    RqliteCluster,
    cluster::{AuthenticationMode, User},
    names,
    status::{AuthenticationStage, AuthenticationStatus, UserStatus},
};

/// The users that a cluster is to have besides the operator's own.
pub fn users(cluster: &RqliteCluster) -> Vec<User> {
    let given = cluster.spec.users.clone();
    given.unwrap_or_else(|| vec![User::application()])
}

/// The names of connection Secrets that a cluster has or is to have, by user.
pub fn connections(cluster: &RqliteCluster) -> Vec<UserStatus> {
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    let status = cluster.status.as_ref();
    let known = status.and_then(|status| status.authentication.clone());
    let mut all = known.unwrap_or_default().users;
    for user in users(cluster) {
        if !all.iter().any(|one| one.name == user.name) {
            all.push(UserStatus {
                secret_name: names::connection_secret(name, &user.name),
                name: user.name,
            });
        }
    }
    all
}

/// Does the cluster have Secrets with passwords?
pub fn has_secrets(authentication: &AuthenticationStatus) -> bool {
    authentication.stage != AuthenticationStage::Off
}

/// Names of the Secrets with passwords that the spec names.
pub fn given_secrets(cluster: &RqliteCluster) -> BTreeSet<String> {
    let all = users(cluster).into_iter();
    all.filter_map(|user| Some(user.password_secret?.name))
        .collect()
}

/// Does a cluster have Secrets with passwords, or is it about to get them?
pub fn uses_secrets(cluster: &RqliteCluster) -> bool {
    let status = cluster.status.as_ref();
    let known = status.and_then(|status| status.authentication.as_ref());
    let asked = cluster.spec.authentication.as_ref().and_then(|a| a.mode);
    match (known, status.and_then(|status| status.cluster_id.as_ref())) {
        (Some(known), _) => {
            has_secrets(known)
                || !known.users.is_empty()
                || asked == Some(AuthenticationMode::Required)
        }
        (None, Some(_)) => asked == Some(AuthenticationMode::Required),
        // A new one, or one whose status was lost.
        (None, None) => true,
    }
}
