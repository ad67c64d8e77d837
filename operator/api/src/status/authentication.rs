//! What is decided and known of users: whether they are asked for, the stage of a move, connection Secrets.
use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::open::open_enum;

/// Users of the cluster.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthenticationStatus {
    /// What is aimed at: Required or Disabled. Others are possible after a newer operator.
    #[serde(default)]
    pub mode: AuthenticationGoal,
    /// How far the cluster is: Inactive, Open (pods have the credentials file, and callers without a user may
    /// still do everything), Closed, or Leaving (pods are restarted without the file). Others are possible
    /// after a newer operator.
    #[serde(default)]
    pub stage: AuthenticationStage,
    /// Users that have a connection Secret.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub users: Vec<UserStatus>,
    /// Fields that a newer operator wrote: kept as they are.
    #[serde(flatten)]
    #[schemars(skip)]
    pub newer: BTreeMap<String, Value>,
}

/// A user of the database.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserStatus {
    /// Name of the user.
    pub name: String,
    /// Name of the Secret by which applications connect as this user.
    pub secret_name: String,
}

/// The Secret by which applications find the database, in the form of the Service Binding specification.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Name of the Secret.
    pub name: String,
}

open_enum! {
    /// What is aimed at.
    #[derive(Default)]
    pub enum AuthenticationGoal {
        /// Everybody who reaches the port may do everything.
        #[default]
        Disabled = "Disabled",
        /// Users are asked for.
        Required = "Required",
    }
}

open_enum! {
    /// How far the cluster is.
    #[derive(Default)]
    pub enum AuthenticationStage {
        /// Pods have no credentials file.
        #[default]
        Off = "Inactive",
        /// Pods have it, and it lets everybody do everything.
        Open = "Open",
        /// Users are asked for.
        Closed = "Closed",
        /// It lets everybody do everything, and pods are restarted without it.
        Leaving = "Leaving",
    }
}
