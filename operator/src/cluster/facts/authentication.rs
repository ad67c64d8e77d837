//! Users: whether nodes require them, who they are, and which nodes have read which credentials file.
use operator_api::{
    cluster::{AuthenticationMode, Permission},
    names,
    status::{AuthenticationGoal, AuthenticationStage, AuthenticationStatus, Pool},
};

use crate::cluster::facts::{
    observation::{NodeStatus, ProbeResult},
    secrets::{ObservedSecret, SecretBytes},
    users::{connections, has_secrets, users},
    version::Release,
    view::View,
};

/// The operator's own user.
pub const OPERATOR_USER: &str = "rqlite-operator";
/// The user of backups' pods.
pub const BACKUP_USER: &str = "rqlite-backup";
/// The user as which nodes join.
pub const NODE_USER: &str = "rqlite-node";
/// Key of the credentials file.
pub const USERS_FILE: &str = "users.json";
/// Key of a password.
pub const PASSWORD: &str = "password";
/// Key of the password that will replace it during a rotation.
pub const NEXT_PASSWORD: &str = "next-password";

/// The first release whose nodes know hashed passwords and the health port.
const FIRST_RELEASE: Release = Release {
    major: 0,
    minor: 1,
    patch: 0,
    is_final: false,
};

/// Whether this release supports hashed passwords and the health port. An image whose tag names no release
/// counts as current.
pub fn is_known_by(release: Option<Release>) -> bool {
    release.is_none_or(|release| release >= FIRST_RELEASE)
}

/// What clients without a user may do once users are required.
pub fn anonymous(view: &View<'_>) -> Vec<Permission> {
    let asked = view.spec.authentication.clone().unwrap_or_default();
    asked.anonymous_permissions
}

/// The recorded state, with the mode to reach. What neither the spec nor the record says is decided here,
/// once: a new cluster requires users, an existing one stays as it is.
pub fn resolved(view: &View<'_>) -> AuthenticationStatus {
    let asked = view.spec.authentication.as_ref().and_then(|a| a.mode);
    let asked = asked.map(|mode| match mode {
        AuthenticationMode::Required => AuthenticationGoal::Required,
        AuthenticationMode::Disabled => AuthenticationGoal::Disabled,
    });
    if let Some(mut known) = view.status.authentication.clone() {
        known.mode = asked.unwrap_or(known.mode);
        return known;
    }
    let is_recorded = view.status.cluster_id.is_some();
    // If the status was lost while the cluster kept running, its Secret shows the users.
    let file = view.seen.secrets.get(&names::users_secret(view.name));
    let had = file.is_some_and(|secret| secret.is_ours());
    let exists = is_recorded || view.seen.state.is_some() || view.set(Pool::Voter).is_some();
    let secure = !exists || (had && !is_recorded);
    let default = match secure {
        true => AuthenticationGoal::Required,
        false => AuthenticationGoal::Disabled,
    };
    let mode = asked.unwrap_or(default);
    let stage = match mode {
        AuthenticationGoal::Required if secure => AuthenticationStage::Closed,
        _ if had && !is_recorded => AuthenticationStage::Closed,
        _ => AuthenticationStage::Off,
    };
    AuthenticationStatus {
        mode,
        stage,
        ..AuthenticationStatus::default()
    }
}

/// What to record. Users stay recorded until their Secret is deleted.
pub fn recorded(view: &View<'_>, before: Option<AuthenticationStatus>) -> AuthenticationStatus {
    let resolved = resolved(view);
    let mut next = AuthenticationStatus {
        mode: resolved.mode,
        ..before.unwrap_or(resolved)
    };
    let is_used = has_secrets(&next);
    if is_used {
        next.users = connections(&view.seen.cluster);
    }
    let wanted = users(&view.seen.cluster);
    next.users.retain(|user| {
        let is_wanted = is_used && wanted.iter().any(|one| one.name == user.name);
        is_wanted || view.seen.secrets.contains_key(&user.secret_name)
    });
    next
}

/// Do the pods of the present template have the credentials file?
pub fn in_pods(view: &View<'_>) -> bool {
    let stage = resolved(view).stage;
    matches!(
        stage,
        AuthenticationStage::Open | AuthenticationStage::Closed
    )
}

/// What the pods' template has of users; None: nothing.
pub fn template_key(view: &View<'_>) -> Option<String> {
    in_pods(view).then(|| "users".to_owned())
}

/// The credentials file as it is in the cluster's Secret.
pub fn file<'a>(view: &View<'a>) -> Option<&'a SecretBytes> {
    let secret = view.seen.secrets.get(&names::users_secret(view.name))?;
    Some(secret)
        .filter(|secret| secret.is_ours())?
        .get(USERS_FILE)
}

fn answers<'a>(view: &View<'a>) -> impl Iterator<Item = Option<&'a NodeStatus>> {
    let pods = view.seen.pods.iter();
    pods.map(|pod| match view.seen.nodes.get(&pod.name) {
        Some(ProbeResult::Ok(status)) => Some(status),
        Some(ProbeResult::Failed(_)) | None => None,
    })
}

/// Does this node require users?
fn asks(node: &NodeStatus) -> bool {
    let security = node.security.as_ref();
    security.is_some_and(|security| security.credentials.enabled)
}

/// Do the nodes of all pods respond, and require users?
pub fn is_everywhere(view: &View<'_>) -> bool {
    let mut all = answers(view).peekable();
    all.peek().is_some() && all.all(|node| node.is_some_and(asks))
}

/// Do the nodes of all pods respond, and none requires users?
fn is_nowhere(view: &View<'_>) -> bool {
    answers(view).all(|node| node.is_some_and(|node| !asks(node)))
}

/// Have all nodes that require users read the file that is in the Secret? A pod that does not respond may
/// still use an older one, unless it is not ready: then it reads the file when it starts.
pub fn is_read_by_all(view: &View<'_>) -> bool {
    let Some(sha256) = file(view).map(SecretBytes::sha256) else {
        return false;
    };
    let mut pods = view.seen.pods.iter().zip(answers(view));
    pods.all(|(pod, node)| match node {
        Some(node) => {
            let security = node.security.as_ref();
            let in_force = security.map(|security| &security.credentials);
            in_force.is_none_or(|file| !file.enabled || file.file_sha256 == sha256)
        }
        None => !pod.ready,
    })
}

/// Is every member's pod there, with the present template?
pub fn has_all_pods(view: &View<'_>) -> bool {
    let pods = &view.seen.pods;
    let current = pods.iter().all(|pod| {
        let set = view.set(pod.pool);
        !pod.deleting && set.is_some_and(|set| set.template_hash == pod.template_hash)
    });
    let mut members = view.status.members.iter();
    let there = members.all(|member| pods.iter().any(|pod| pod.name == member.name));
    current && there && !pods.is_empty()
}

/// Have all pods been restarted without the file, so that its Secrets may be deleted?
pub fn is_left(view: &View<'_>) -> bool {
    let stage = resolved(view).stage;
    stage == AuthenticationStage::Leaving && has_all_pods(view) && is_nowhere(view)
}

/// Have the Secrets been deleted, too?
pub fn has_none(view: &View<'_>) -> bool {
    let mut own = vec![
        names::users_secret(view.name),
        names::operator_secret(view.name),
        names::backup_secret(view.name),
    ];
    let users = connections(&view.seen.cluster).into_iter();
    own.extend(users.map(|user| user.secret_name));
    let secrets = &view.seen.secrets;
    let there = |name: &String| secrets.get(name).is_some_and(ObservedSecret::is_ours);
    is_left(view) && !own.iter().any(there)
}

/// Why nodes refuse the credentials file that is in the Secret, by pod.
pub fn refusals<'a>(view: &View<'a>) -> Vec<(&'a str, &'a str)> {
    let nodes = view.seen.nodes.iter();
    let refused = nodes.filter_map(|(pod, answer)| match answer {
        ProbeResult::Ok(status) => {
            let credentials = &status.security.as_ref()?.credentials;
            Some((pod.as_str(), credentials.last_error.as_deref()?))
        }
        ProbeResult::Failed(_) => None,
    });
    refused.collect()
}

/// What is wrong with passwords that the spec names, as texts for people.
pub fn unusable(view: &View<'_>) -> Vec<String> {
    if !has_secrets(&resolved(view)) {
        return Vec::new();
    }
    let all = users(&view.seen.cluster).into_iter();
    let wrong = all.filter_map(|user| {
        let source = user.password_secret?;
        let (secret, key) = (&source.name, &source.key);
        let why = match view.seen.secrets.get(secret) {
            None => format!("the Secret {secret} does not exist"),
            Some(there) => match there.get(key) {
                None => format!("the Secret {secret} has no key {key}, or it is empty"),
                Some(bytes) if !is_password(bytes) => format!(
                    "the key {key} of the Secret {secret} has a line break or is not text: write it without one, as kubectl create secret generic --from-literal does"
                ),
                Some(_) => return None,
            },
        };
        Some(format!("the password of the user {}: {why}", user.name))
    });
    wrong.collect()
}

/// Can this be sent as a password? It must be text, because HTTP sends it as text, and have no line break.
pub fn is_password(bytes: &SecretBytes) -> bool {
    let text = bytes.expose_text();
    text.is_some_and(|text| !text.is_empty() && !text.chars().any(char::is_control))
}
