//! The Secrets that a cluster is to have, as recipes: nothing here has keys, passwords or chance. What a
//! recipe asks for is made, or kept, by the part that carries the plan out.
use std::collections::BTreeMap;

use serde::Serialize;

use operator_api::names;

use crate::cluster::{
    deciders::certificates::{self, Next, Request},
    facts::{
        certificates::Certificate,
        secrets::{self, SecretBytes},
        tls::{self, Side},
        view::View,
    },
};

mod users;

/// Type of a Secret without a format of its own.
pub const OPAQUE: &str = "Opaque";
/// Type of a Secret with a certificate and its key.
pub const TLS: &str = "kubernetes.io/tls";

/// A Secret that is to exist. Others of the cluster's own are deleted.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedSecret {
    /// Its name.
    pub name: String,
    /// Its type.
    pub secret_type: &'static str,
    /// Do pods mount it? Then none is created before it is there.
    pub is_mounted: bool,
    /// Its annotations of the operator's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What is in it. Recipes may use Secrets that come before this one.
    pub recipe: Recipe,
}

/// How the contents of a Secret come about. The same recipe with the same contents before gives the same
/// contents again: what is random or signed is made once.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "make", rename_all = "camelCase")]
pub enum Recipe {
    /// Each key has a value of its own.
    Values {
        /// Keys and values.
        values: BTreeMap<String, Value>,
    },
    /// A new authority: its certificate and its key.
    Authority {
        /// Common name.
        common_name: String,
        /// Does the one that is there sign it as well?
        cross: bool,
        /// When it is made, in seconds since 1970.
        at: i64,
    },
    /// A new certificate with its key, signed by a cluster's authority.
    Leaf {
        /// Name of the authority's Secret.
        authority: String,
        /// Common name.
        common_name: String,
        /// DNS names and IP addresses.
        names: Vec<String>,
        /// Authorities that are trusted besides, in PEM.
        trusted: Vec<String>,
        /// When it is made, in seconds since 1970.
        at: i64,
    },
    /// How an application connects.
    Connection(Connection),
    /// The nodes' credentials file.
    Credentials(Credentials),
}

/// How an application connects as one user.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// The user.
    pub user: String,
    /// DNS name of the Service.
    pub host: String,
    /// Port of the Service.
    pub port: i32,
    /// Do all nodes speak TLS to clients?
    pub tls: bool,
    /// Name of the Secret by whose `ca.crt` clients know the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// Name and key of the Secret that a person keeps the password in; None: it is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<(String, String)>,
    /// Name of the Secret with the credentials file.
    pub users: String,
    /// Is a new password to be made? It is accepted by the nodes before it is published.
    pub rotates: bool,
    /// Is a password to be published that the credentials file has: do all nodes have that file?
    pub publishes: bool,
}

/// The nodes' credentials file.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// Its users.
    pub logins: Vec<Login>,
    /// Permissions of everybody, also without a user.
    pub everybody: Vec<String>,
    /// Are former passwords to be dropped? Only those of users whose password does not change now.
    pub drops_previous: bool,
    /// Is the password of the nodes' own user to be replaced?
    pub rotates_own: bool,
}

/// A user of the credentials file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Login {
    /// The user's name.
    pub name: String,
    /// What the user may do.
    pub permissions: Vec<String>,
    /// Name and key of the Secret with the password; None: it is in the file itself, in clear text, because
    /// the nodes log in with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<(String, String)>,
    /// Is the password random?
    pub is_random: bool,
}

/// How one value comes about.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Value {
    /// This text, which is no secret.
    Text(String),
    /// These bytes.
    Given(#[serde(skip)] SecretBytes),
    /// A random password; one that is there is kept.
    Password,
    /// Another random password.
    NewPassword,
}

/// A Secret that is to be deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnwantedSecret {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// What is to be done about Secrets.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SecretsPlan {
    /// Those that the cluster is to have, in the order in which they are made.
    pub make: Vec<PlannedSecret>,
    /// Its own that are not wanted any more.
    pub delete: Vec<UnwantedSecret>,
    /// Certificates to ask cert-manager for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<Request>,
    /// Names of Certificates of cert-manager that are not wanted any more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub withdrawn: Vec<String>,
}

impl SecretsPlan {
    /// The plan for a cluster; nothing where nothing may be touched.
    pub fn unless(untouched: bool, view: &View<'_>) -> Self {
        if untouched {
            return Self::default();
        }
        let make = wanted(view);
        Self {
            delete: unwanted(view, &make),
            requests: certificates::requests(view),
            withdrawn: certificates::unwanted_requests(view),
            make,
        }
    }

    /// Is there nothing to do?
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The Secrets that the cluster is to have.
fn wanted(view: &View<'_>) -> Vec<PlannedSecret> {
    let mut all = certificates(view);
    all.extend(users::planned(view));
    all
}

/// The authority, then what it signs.
fn certificates(view: &View<'_>) -> Vec<PlannedSecret> {
    let plan = certificates::plan(view);
    let mut all = Vec::new();
    if let Some(next) = &plan.authority {
        let name = names::authority_secret(view.name);
        all.push(PlannedSecret {
            recipe: recipe(view, next, None),
            name,
            secret_type: OPAQUE,
            is_mounted: false,
            annotations: BTreeMap::new(),
        });
    }
    for side in [Side::Nodes, Side::Clients] {
        let Some(next) = plan.side(side).and_then(|side| side.next.as_ref()) else {
            continue;
        };
        all.push(PlannedSecret {
            name: certificates::secret_name(view, side),
            secret_type: TLS,
            is_mounted: true,
            annotations: BTreeMap::new(),
            recipe: recipe(view, next, Some(side)),
        });
    }
    all
}

fn recipe(view: &View<'_>, next: &Next, side: Option<Side>) -> Recipe {
    match next {
        Next::Given(contents) => {
            let values = contents.iter();
            let values = values.map(|(key, bytes)| (key.clone(), Value::Given(bytes.clone())));
            Recipe::Values {
                values: values.collect(),
            }
        }
        Next::Authority { cross } => Recipe::Authority {
            common_name: format!("rqlite-ca-{}", view.seen.fresh_id),
            cross: *cross,
            at: view.now().0.as_second(),
        },
        Next::Leaf { trusted } => Recipe::Leaf {
            authority: names::authority_secret(view.name),
            common_name: tls::common_name(view),
            names: side.map_or_else(Vec::new, |side| tls::certificate_names(view, side)),
            trusted: trusted.iter().map(Certificate::pem).collect(),
            at: view.now().0.as_second(),
        },
    }
}

/// The cluster's own Secrets that exist and are not wanted any more.
fn unwanted(view: &View<'_>, wanted: &[PlannedSecret]) -> Vec<UnwantedSecret> {
    let names = secrets::names(&view.seen.cluster);
    let own = view.seen.secrets.iter().filter(|(name, secret)| {
        let is_wanted = wanted.iter().any(|one| one.name == **name);
        names.own.contains(*name) && secret.is_ours() && !is_wanted && !secret.deleting
    });
    own.map(|(name, secret)| UnwantedSecret {
        name: name.clone(),
        uid: secret.uid.clone(),
    })
    .collect()
}
