//! The Secrets that a cluster should have, as recipes: without keys, passwords or random numbers. The module
//! `secrets`, which carries the plan out, creates or keeps the contents.
use std::collections::BTreeMap;

use serde::Serialize;

use operator_api::names;

use crate::cluster::{
    deciders::certificates::{self, Next, Request},
    facts::{
        authentication::BACKUP_USER,
        certificates::Certificate,
        secrets,
        tls::{self, Side},
        view::View,
    },
};

mod recipe;
mod users;

pub use recipe::{Connection, Credentials, Login, OPAQUE, PlannedSecret, Recipe, TLS, Value};

/// A Secret that is to be deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnwantedSecret {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// The plan for Secrets.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SecretsPlan {
    /// Those that the cluster should have, in the order of their creation.
    pub make: Vec<PlannedSecret>,
    /// Its own that are no longer needed.
    pub delete: Vec<UnwantedSecret>,
    /// Certificates to request from cert-manager.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<Request>,
    /// Names of Certificates of cert-manager that are no longer needed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub withdrawn: Vec<String>,
}

impl SecretsPlan {
    /// The plan for a cluster; empty if nothing may be changed.
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

/// The Secrets that the cluster should have.
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
            recipe: recipe(view, next, (tls::common_name(view), Vec::new())),
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
            recipe: recipe(
                view,
                next,
                (tls::common_name(view), tls::certificate_names(view, side)),
            ),
        });
    }
    let next = certificates::backup::next(view, &plan);
    all.extend(next.map(|next| PlannedSecret {
        name: names::backup_tls_secret(view.name),
        secret_type: TLS,
        is_mounted: false,
        annotations: BTreeMap::new(),
        recipe: recipe(view, &next, (BACKUP_USER.to_owned(), Vec::new())),
    }));
    all
}

/// A certificate without names is a client's.
fn recipe(view: &View<'_>, next: &Next, (common_name, for_names): (String, Vec<String>)) -> Recipe {
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
            common_name,
            names: for_names,
            trusted: trusted.iter().map(Certificate::pem).collect(),
            at: view.now().0.as_second(),
        },
    }
}

/// The cluster's own Secrets that exist and are no longer needed.
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
