//! Which installation of the operator manages a cluster. Exactly one does; the others do not change it.
use operator_api::{RqliteCluster, names, status::ManagedBy};

use crate::cluster::facts::observation::OperatorFacts;

/// Seconds without its Lease after which an installation counts as uninstalled. Longer than a restart of the
/// operator.
const GONE_SECONDS: u64 = 60;
/// Seconds without a renewal of its Lease after which an installation counts as failed. Longer than
/// Kubernetes needs to replace a pod whose machine has failed.
const SILENT_SECONDS: u64 = 600;

/// The state of the Lease of the recorded installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordedLease {
    /// It cannot be read.
    Unknown,
    /// Seconds since it was last observed to change.
    Unchanged(u64),
    /// Seconds for which it has been observed not to exist.
    Gone(u64),
}

/// Who manages a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manager {
    /// This installation.
    Us,
    /// Operators of another class.
    OtherClass,
    /// Another installation of the same class, and what that means.
    Other(String),
}

/// The class of a cluster.
pub fn class(cluster: &RqliteCluster) -> &str {
    let class = cluster.spec.operator_class.as_deref();
    class.unwrap_or(names::DEFAULT_CLASS)
}

/// A class as it is recorded with what outlives a cluster: nothing for the default.
pub fn recorded_class(class: &str) -> Option<String> {
    (class != names::DEFAULT_CLASS).then(|| class.to_owned())
}

/// The other installation of this class that the status records, whose Lease decides.
pub fn recorded<'a>(cluster: &'a RqliteCluster, us: &OperatorFacts) -> Option<&'a str> {
    let recorded = cluster.status.as_ref()?.managed_by.as_ref()?;
    // A person changed the class, so the recorded installation must lose the cluster.
    let stays = recorded.operator_class == class(cluster);
    let other = stays && recorded.installation != us.installation;
    other.then_some(recorded.installation.as_str())
}

/// Decides who manages the cluster. `lease` is that of the installation that [`recorded`] names.
/// `overwritten`: our record was removed from the status by an operator that does not know of such records.
pub fn decide(
    cluster: &RqliteCluster,
    us: &OperatorFacts,
    lease: RecordedLease,
    overwritten: bool,
) -> Manager {
    if class(cluster) != us.class {
        return Manager::OtherClass;
    }
    let annotations = cluster.metadata.annotations.as_ref();
    if let Some(named) = annotations.and_then(|a| a.get(names::MANAGER_ANNOTATION)) {
        return if *named == us.installation {
            Manager::Us
        } else {
            Manager::Other(format!(
                "the annotation {} names the installation {named}",
                names::MANAGER_ANNOTATION
            ))
        };
    }
    if overwritten {
        return Manager::Other(format!(
            "an older operator, which knows no classes, manages it as well and is left alone with it: uninstall that one, or set the annotation {}={} to decide otherwise",
            names::MANAGER_ANNOTATION,
            us.installation
        ));
    }
    let Some(other) = recorded(cluster, us) else {
        return Manager::Us;
    };
    let why = match lease {
        RecordedLease::Gone(seconds) if seconds >= GONE_SECONDS => return Manager::Us,
        RecordedLease::Unchanged(seconds) if seconds >= SILENT_SECONDS => return Manager::Us,
        RecordedLease::Gone(_) => {
            format!("taken over once its Lease has been gone for {GONE_SECONDS} s")
        }
        RecordedLease::Unchanged(_) => {
            format!("taken over if its Lease is not renewed for {SILENT_SECONDS} s")
        }
        RecordedLease::Unknown => "its Lease cannot be read here".to_owned(),
    };
    Manager::Other(format!(
        "the installation {other} of the same class manages it ({why}): to move it here, set the annotation {}={}; to keep both apart, give them different classes",
        names::MANAGER_ANNOTATION,
        us.installation
    ))
}

/// The record of this installation; its time changes only with the installation.
pub fn record(
    before: Option<&ManagedBy>,
    cluster: &RqliteCluster,
    us: &OperatorFacts,
    now: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Time,
) -> ManagedBy {
    let since = before
        .filter(|before| before.installation == us.installation)
        .map_or_else(|| now.clone(), |before| before.since.clone());
    ManagedBy {
        installation: us.installation.clone(),
        operator_class: class(cluster).to_owned(),
        since,
    }
}

#[cfg(test)]
mod tests;
