//! Secrets with passwords: the operator's own, one for each user, and the nodes' credentials file.
use std::collections::BTreeMap;

use operator_api::{
    cluster::User,
    names,
    status::{AuthenticationStage, TlsStage},
};

use super::recipe::{Connection, Credentials, Login, OPAQUE, PlannedSecret, Recipe, Value};
use crate::cluster::facts::{
    authentication::{self, BACKUP_USER, NODE_USER, OPERATOR_USER, PASSWORD},
    secrets::ObservedSecret,
    tls, users,
    view::{View, seconds_between},
};

/// Type of a Secret by which applications connect.
const BINDING: &str = "servicebinding.io/rqlite";
/// For how long at least a former password is accepted: applications read the new one from a mounted Secret,
/// which the kubelet refreshes about once a minute.
const OVERLAP_SECONDS: u64 = 60;

/// All Secrets with passwords, in the order in which they are made.
pub(super) fn planned(view: &View<'_>) -> Vec<PlannedSecret> {
    let now = authentication::resolved(view);
    if !users::has_secrets(&now) || authentication::is_left(view) {
        return Vec::new();
    }
    let users = users::users(&view.seen.cluster);
    let mut all = vec![
        own(view, names::operator_secret(view.name), OPERATOR_USER),
        own(view, names::backup_secret(view.name), BACKUP_USER),
    ];
    all.extend(users.iter().map(|user| connection(view, user)));
    all.push(credentials(view, &users, now.stage));
    all
}

/// The rotation that the annotation on the cluster requests.
fn request<'a>(view: &View<'a>) -> Option<&'a str> {
    view.annotation(names::ROTATE_PASSWORDS_ANNOTATION)
}

fn annotations(view: &View<'_>) -> BTreeMap<String, String> {
    let asked = request(view).into_iter();
    asked
        .map(|value| {
            (
                names::ROTATED_PASSWORDS_ANNOTATION.to_owned(),
                value.to_owned(),
            )
        })
        .collect()
}

/// Was a new password requested for this Secret?
fn rotates(view: &View<'_>, secret: Option<&ObservedSecret>) -> bool {
    let Some(secret) = secret else {
        return false;
    };
    let done = secret.annotations.get(names::ROTATED_PASSWORDS_ANNOTATION);
    let by_cluster = request(view).is_some_and(|asked| done.map(String::as_str) != Some(asked));
    by_cluster
        || secret
            .annotations
            .contains_key(names::ROTATE_PASSWORDS_ANNOTATION)
}

/// Name and password of a user of the operator's own.
fn own(view: &View<'_>, name: String, user: &str) -> PlannedSecret {
    let password = match rotates(view, view.seen.secrets.get(&name)) {
        true => Value::NewPassword,
        false => Value::Password,
    };
    let values = [
        ("username".to_owned(), Value::Text(user.to_owned())),
        (PASSWORD.to_owned(), password),
    ];
    PlannedSecret {
        annotations: annotations(view),
        name,
        secret_type: OPAQUE,
        is_mounted: false,
        recipe: Recipe::Values {
            values: values.into(),
        },
    }
}

/// Do clients reach all nodes by TLS? Not while pods move to it or away from it.
fn is_tls(view: &View<'_>) -> bool {
    let is_on = |stage: TlsStage| !matches!(stage, TlsStage::Plain | TlsStage::Other(_));
    let mut pods = view.seen.pods.iter();
    is_on(tls::resolved(view).clients.stage) && pods.all(|pod| is_on(pod.tls.clients))
}

fn connection(view: &View<'_>, user: &User) -> PlannedSecret {
    let name = names::connection_secret(view.name, &user.name);
    let there = view.seen.secrets.get(&name);
    let namespace = view.seen.cluster.metadata.namespace.as_deref();
    let services = view.spec.services.clone().unwrap_or_default();
    let port = services.client.and_then(|client| client.port);
    let source = user.password_secret.as_ref();
    let is_tls = is_tls(view);
    PlannedSecret {
        annotations: annotations(view),
        secret_type: BINDING,
        is_mounted: false,
        recipe: Recipe::Connection(Connection {
            user: user.name.clone(),
            host: format!(
                "{}.{}.svc.{}",
                names::client(view.name),
                namespace.unwrap_or("default"),
                view.cluster_domain()
            ),
            port: port.unwrap_or(names::HTTP_PORT),
            tls: is_tls,
            authority: is_tls.then(|| names::http_tls_secret(view.name)),
            password: source.map(|source| (source.name.clone(), source.key.clone())),
            users: names::users_secret(view.name),
            rotates: rotates(view, there),
            publishes: authentication::is_read_by_all(view),
        }),
        name,
    }
}

fn credentials(view: &View<'_>, users: &[User], stage: AuthenticationStage) -> PlannedSecret {
    let name = names::users_secret(view.name);
    let there = view.seen.secrets.get(&name);
    let words = |all: &[&str]| all.iter().map(|word| (*word).to_owned()).collect();
    let mut logins = vec![
        Login {
            name: NODE_USER.to_owned(),
            permissions: words(&["join", "join-read-only", "remove"]),
            secret: None,
            is_random: true,
        },
        Login {
            name: OPERATOR_USER.to_owned(),
            permissions: words(&["all"]),
            secret: Some((names::operator_secret(view.name), PASSWORD.to_owned())),
            is_random: true,
        },
    ];
    logins.push(Login {
        name: BACKUP_USER.to_owned(),
        permissions: words(&["backup", "status", "ready"]),
        secret: Some((names::backup_secret(view.name), PASSWORD.to_owned())),
        is_random: true,
    });
    logins.extend(users.iter().map(|user| {
        Login {
            name: user.name.clone(),
            permissions: user
                .permissions
                .iter()
                .map(|one| one.as_str().to_owned())
                .collect(),
            // The connection Secret has the password, whether it was made or given.
            secret: Some((
                names::connection_secret(view.name, &user.name),
                PASSWORD.to_owned(),
            )),
            is_random: user.password_secret.is_none(),
        }
    }));
    let everybody = match stage {
        AuthenticationStage::Closed | AuthenticationStage::Other(_) => {
            let anonymous = authentication::anonymous(view);
            anonymous
                .iter()
                .map(|one| one.as_str().to_owned())
                .collect()
        }
        _ => words(&["all"]),
    };
    let changed = there.and_then(|there| there.changed_at.as_ref());
    let is_late = changed.is_none_or(|at| seconds_between(at, view.now()) >= OVERLAP_SECONDS);
    PlannedSecret {
        annotations: annotations(view),
        name,
        secret_type: OPAQUE,
        is_mounted: true,
        recipe: Recipe::Credentials(Credentials {
            logins,
            everybody,
            drops_previous: is_late && authentication::is_read_by_all(view),
            rotates_own: rotates(view, there),
        }),
    }
}
