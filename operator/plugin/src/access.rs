//! How a cluster's nodes are reached if they require users or TLS: reads the Secrets, with the permissions of
//! the caller.
use std::fmt;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};
use operator_api::{
    RqliteCluster, names,
    status::{AuthenticationStage, TlsStage},
};

use crate::target::Target;

/// Keys of Secrets.
const PASSWORD: &str = "password";
const USERNAME: &str = "username";
const AUTHORITIES: &str = "ca.crt";

/// A user with the password.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({})", self.user)
    }
}

impl Login {
    /// The line `user:password` for the shell's standard input.
    pub(crate) fn line(&self) -> String {
        format!("{}:{}\n", self.user, self.password)
    }
}

/// What a cluster's nodes require of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Demands {
    /// A user and a password.
    pub(crate) user: bool,
    /// TLS; otherwise plain connections are accepted.
    pub(crate) tls: bool,
    /// A certificate of the client.
    pub(crate) certificate: bool,
}

impl Demands {
    /// The requirements by the cluster's status.
    pub(crate) fn of(cluster: &RqliteCluster) -> Self {
        let status = cluster.status.as_ref();
        let authentication = status.and_then(|status| status.authentication.as_ref());
        let tls = status.and_then(|status| status.tls.as_ref());
        let tls = tls.is_some_and(|tls| tls.clients.stage == TlsStage::Require);
        let spec = cluster
            .spec
            .tls
            .as_ref()
            .and_then(|tls| tls.clients.as_ref());
        Self {
            user: authentication.is_some_and(|one| one.stage == AuthenticationStage::Closed),
            tls,
            certificate: tls && spec.is_some_and(|clients| clients.require_client_certificate),
        }
    }

    /// Is nothing required?
    pub(crate) fn is_nothing(self) -> bool {
        !self.user && !self.tls
    }
}

async fn secret(target: &Target, name: &str) -> anyhow::Result<Secret> {
    let api: Api<Secret> = Api::namespaced(target.client.clone(), &target.namespace);
    api.get(name).await.with_context(|| {
        format!(
            "reading the Secret {name} in the namespace {}",
            target.namespace
        )
    })
}

fn text(secret: &Secret, key: &str) -> anyhow::Result<String> {
    let value = secret.data.as_ref().and_then(|data| data.get(key));
    let value = value.with_context(|| format!("the Secret {} has no {key}", secret.name_any()))?;
    let text = String::from_utf8(value.0.clone());
    text.with_context(|| format!("{key} of the Secret {}", secret.name_any()))
}

async fn login(target: &Target, name: &str) -> anyhow::Result<Login> {
    let secret = secret(target, name).await?;
    Ok(Login {
        user: text(&secret, USERNAME)?,
        password: text(&secret, PASSWORD)?,
    })
}

/// The name of the Secret by which an application connects as this user; by default that of the status.
pub(crate) fn connection_name(
    cluster: &RqliteCluster,
    user: Option<&str>,
) -> anyhow::Result<String> {
    let status = cluster.status.clone().unwrap_or_default();
    let users = status.authentication.unwrap_or_default().users;
    let known = || {
        let names: Vec<_> = users.iter().map(|user| user.name.as_str()).collect();
        names.join(", ")
    };
    let name = cluster.name_any();
    match user {
        Some(user) => match users.iter().find(|one| one.name == user) {
            Some(found) => Ok(found.secret_name.clone()),
            None if users.is_empty() => bail!("{name} has no users"),
            None => bail!("{name} has no user {user}: choose one of {}", known()),
        },
        None => match status.binding {
            Some(binding) => Ok(binding.name),
            None => bail!("{name} has no users: everybody who reaches it may use it"),
        },
    }
}

/// The user for SQL: the given one, or the application's.
pub(crate) async fn for_sql(
    target: &Target,
    cluster: &RqliteCluster,
    user: Option<&str>,
) -> anyhow::Result<Option<Login>> {
    if user.is_none() && !Demands::of(cluster).user {
        return Ok(None);
    }
    let name = connection_name(cluster, user)?;
    login(target, &name).await.map(Some)
}

/// The user for requests to nodes: the given one, or the operator's own.
pub(crate) async fn for_nodes(
    target: &Target,
    cluster: &RqliteCluster,
    user: Option<&str>,
) -> anyhow::Result<Option<Login>> {
    if user.is_some() {
        return for_sql(target, cluster, user).await;
    }
    if !Demands::of(cluster).user {
        return Ok(None);
    }
    let name = names::operator_secret(&target.name);
    let login = login(target, &name).await;
    login
        .with_context(|| format!("{} asks for a user: give one with --user", target.name))
        .map(Some)
}

/// The authorities to verify the nodes with, in PEM, and the client certificate to present if they require
/// one.
pub(crate) async fn certificates(target: &Target) -> anyhow::Result<Certificates> {
    let secret = secret(target, &names::http_tls_secret(&target.name)).await?;
    Ok(Certificates {
        authorities: text(&secret, AUTHORITIES)?,
        certificate: text(&secret, "tls.crt")?,
        key: text(&secret, "tls.key")?,
    })
}

/// Certificates in PEM.
pub(crate) struct Certificates {
    pub(crate) authorities: String,
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// `kubectl rqlite credentials`: how to connect as a user. The password is printed, and only here.
pub(crate) async fn print(target: &Target, user: Option<&str>) -> anyhow::Result<()> {
    let cluster = target.cluster().await?;
    let name = connection_name(&cluster, user)?;
    let secret = secret(target, &name).await?;
    println!("{}", text(&secret, "uri")?);
    eprintln!(
        "The Secret {name} has it in parts: host, port, username, password, and ca.crt where TLS is used. From outside the Kubernetes cluster: kubectl port-forward -n {} service/{} {}",
        target.namespace,
        names::client(&target.name),
        names::HTTP_PORT
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use operator_api::{
        RqliteClusterSpec, RqliteClusterStatus,
        status::{AuthenticationStatus, Binding, UserStatus},
    };

    use super::*;

    fn cluster(stage: AuthenticationStage) -> RqliteCluster {
        let user = |name: &str| UserStatus {
            name: name.to_owned(),
            secret_name: format!("demo-{name}"),
        };
        let mut cluster = RqliteCluster::new("demo", RqliteClusterSpec::default());
        cluster.status = Some(RqliteClusterStatus {
            authentication: Some(AuthenticationStatus {
                stage,
                users: vec![user("app"), user("report")],
                ..AuthenticationStatus::default()
            }),
            binding: Some(Binding {
                name: "demo-app".to_owned(),
            }),
            ..RqliteClusterStatus::default()
        });
        cluster
    }

    #[test]
    fn a_user_is_found_or_the_others_are_named() {
        let closed = cluster(AuthenticationStage::Closed);
        assert!(Demands::of(&closed).user);
        assert!(Demands::of(&cluster(AuthenticationStage::Open)).is_nothing());
        let name = |user| connection_name(&closed, user).map_err(|error| error.to_string());
        assert_eq!(name(None).as_deref(), Ok("demo-app"));
        assert_eq!(name(Some("report")).as_deref(), Ok("demo-report"));
        let error = name(Some("root")).unwrap_err();
        assert!(error.contains("choose one of app, report"), "{error}");
    }

    #[test]
    fn a_password_is_not_printed() {
        let login = Login {
            user: "app".to_owned(),
            password: "hunter2".to_owned(),
        };
        assert_eq!(format!("{login:?}"), "Login(app)");
        assert_eq!(login.line(), "app:hunter2\n");
    }
}
