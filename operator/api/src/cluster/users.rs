//! Users of the database, and what may be done without one.
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::config::KeySelector;

/// Whether users and passwords are asked for. A new cluster whose spec says nothing asks for them; one from
/// before stays open until its spec says otherwise. status.authentication has what was decided.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Authentication {
    /// Required: the HTTP API asks for a user and a password, and nodes for a password when one joins.
    /// Disabled: everybody who reaches the port may do everything. A running cluster moves from one to the
    /// other by one rolling restart, and serves meanwhile. Defaults to Required for new clusters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<AuthenticationMode>,
    /// What callers without a user may do, such as ready. Defaults to nothing. Probes and monitoring need
    /// nothing here: they use the health port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("!self.exists(p, p in ['all', 'load', 'remove', 'leader-ops', 'join', 'join-read-only'])").message("anonymousPermissions would let everybody who reaches the port replace the data or change the cluster: remove all, load, remove, leader-ops, join and join-read-only, and give them to a user; or set mode Disabled if nobody else reaches the port"))]
    pub anonymous_permissions: Vec<Permission>,
}

/// Are users asked for?
#[derive(
    schemars::JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize,
)]
pub enum AuthenticationMode {
    /// They are.
    #[default]
    Required,
    /// They are not.
    Disabled,
}

/// A permission, as the node names it.
#[derive(
    schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Permission {
    /// All of them.
    All,
    /// Write statements.
    Execute,
    /// Read statements.
    Query,
    /// Replacing the database.
    Load,
    /// Reading the whole database as a file.
    Backup,
    /// Status, metrics and the list of nodes.
    Status,
    /// Readiness.
    Ready,
    /// Snapshots of the log.
    Snapshot,
    /// Moving leadership, comparing and checking databases.
    LeaderOps,
    /// Removing members.
    Remove,
    /// Joining as a voter.
    Join,
    /// Joining as a read replica.
    JoinReadOnly,
    /// The console in the browser.
    Ui,
}

impl Permission {
    /// As the node names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Execute => "execute",
            Self::Query => "query",
            Self::Load => "load",
            Self::Backup => "backup",
            Self::Status => "status",
            Self::Ready => "ready",
            Self::Snapshot => "snapshot",
            Self::LeaderOps => "leader-ops",
            Self::Remove => "remove",
            Self::Join => "join",
            Self::JoinReadOnly => "join-read-only",
            Self::Ui => "ui",
        }
    }
}

/// A user of the database. The Secret <cluster>-<user> has all that an application needs to connect as this
/// user: uri, host, port, username, password, and ca.crt where TLS is used.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("a user's name becomes part of the name of a Secret: use lower-case letters, digits and '-'; what callers without a user may do is authentication.anonymousPermissions"),
    validation = Rule::new("!self.name.startsWith('rqlite-')").message("names that begin with rqlite- are the operator's own users: choose another name")
)]
pub struct User {
    /// Name of the user.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// What the user may do: execute, query, load, backup, status, ready, snapshot, leader-ops, remove, join,
    /// join-read-only, ui, or all.
    #[schemars(length(min = 1, max = 16))]
    pub permissions: Vec<Permission>,
    /// A key of a Secret that has the password. A change is followed without a restart; the former password
    /// stays valid until every node knows the new one, and for a minute at least. By default the operator
    /// makes a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret: Option<KeySelector>,
}

impl User {
    /// The user of a cluster whose spec names none.
    pub fn application() -> Self {
        Self {
            name: "app".to_owned(),
            permissions: vec![Permission::Execute, Permission::Query],
            password_secret: None,
        }
    }
}
