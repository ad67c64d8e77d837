//! The contents that a Secret should have, as a recipe.
use std::collections::BTreeMap;

use serde::Serialize;

use crate::cluster::facts::secrets::SecretBytes;

/// Type of a Secret without a format of its own.
pub const OPAQUE: &str = "Opaque";
/// Type of a Secret with a certificate and its key.
pub const TLS: &str = "kubernetes.io/tls";

/// A Secret that should exist. Others of the cluster's own are deleted.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedSecret {
    /// Its name.
    pub name: String,
    /// Its type.
    pub secret_type: &'static str,
    /// Do pods mount it? Then no pod is created before it exists.
    pub is_mounted: bool,
    /// The annotations that the operator sets on it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Its contents. A recipe may use Secrets that come before this one.
    pub recipe: Recipe,
}

/// How the contents of a Secret are made. The same recipe keeps contents that match it: what is random or
/// signed is made once.
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
        /// Does the present authority cross-sign it?
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
        /// Further trusted authorities, in PEM.
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
    /// Do all nodes accept TLS from clients?
    pub tls: bool,
    /// Name of the Secret by whose `ca.crt` clients know the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// Name and key of the Secret in which a person provides the password; None if the operator makes it.
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
    /// Permissions of all clients, also without a user.
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

/// How one value is made.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Value {
    /// This text, which is no secret.
    Text(String),
    /// These bytes.
    Given(#[serde(skip)] SecretBytes),
    /// A random password; an existing one is kept.
    Password,
    /// Another random password.
    NewPassword,
}
