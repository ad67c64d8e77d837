//! What is written about RqliteRestore and RqliteRecovery objects, also where nothing is done for them.
use serde::Serialize;

use crate::cluster::{
    deciders::{
        recovery::NamedRecovery,
        restore::{self, RestoreUpdate},
    },
    facts::view::View,
};

/// What to write about RqliteRestore objects.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoresPlan {
    /// Statuses to write together with the cluster's own.
    pub statuses: Vec<RestoreUpdate>,
    /// Objects that lack the owner reference to this cluster.
    pub unowned: Vec<NamedRecovery>,
    /// Objects that ended long ago and are deleted.
    pub expired: Vec<NamedRecovery>,
}

impl RestoresPlan {
    /// `untouched`: nothing is changed in the cluster; `standstill`: why, if a person can change that.
    pub(super) fn of(view: &View<'_>, untouched: bool, standstill: Option<&str>) -> Self {
        match standstill {
            Some(why) => Self {
                statuses: restore::held_updates(view, why),
                ..Self::default()
            },
            None if untouched => Self::default(),
            None => Self {
                statuses: restore::status_updates(view),
                unowned: restore::unowned(view),
                expired: restore::expired(view),
            },
        }
    }

    /// Is there nothing to write?
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Why no restore and no recovery begins in the cluster until a person changes something; None if they may.
pub(super) fn standstill(leaving: bool, paused: bool, mistakes: &[String]) -> Option<String> {
    if leaving {
        Some("the cluster is being deleted".to_owned())
    } else if paused {
        Some("waits: the cluster is paused (spec.paused)".to_owned())
    } else if mistakes.is_empty() {
        None
    } else {
        Some(format!(
            "waits: the cluster's spec has to be corrected first: {}",
            mistakes.join("; ")
        ))
    }
}
