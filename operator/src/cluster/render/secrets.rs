//! The Secrets that a cluster is to have, as recipes: nothing here has keys, passwords or chance. What a
//! recipe asks for is made, or kept, by the part that carries the plan out.
use std::collections::BTreeMap;

use serde::Serialize;

use crate::cluster::facts::{
    secrets::{self, SecretBytes},
    view::View,
};

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
            make,
        }
    }

    /// Is there nothing to do?
    pub fn is_empty(&self) -> bool {
        self.make.is_empty() && self.delete.is_empty()
    }
}

/// The Secrets that the cluster is to have.
fn wanted(_view: &View<'_>) -> Vec<PlannedSecret> {
    Vec::new()
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
