//! Which RqliteRecovery objects belong to a cluster, and when ended ones are deleted.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use operator_api::{RqliteCluster, RqliteRecovery};
use serde::Serialize;

use crate::cluster::facts::view::{View, seconds_between};

/// Type of the condition that says that a recovery has ended.
pub(super) const COMPLETE: &str = "Complete";

const DAY_SECONDS: u64 = 24 * 3600;
/// How long an ended recovery is kept as a record of what was lost: longer than the month in which a loss is
/// usually noticed and discussed.
pub const KEPT_SECONDS: u64 = 30 * DAY_SECONDS;
/// How long an ended dry run is kept: it is of interest only until the recovery that it prepares.
pub const DRY_RUN_KEPT_SECONDS: u64 = DAY_SECONDS;
/// Number of ended recoveries that are kept for each cluster.
pub const KEPT: usize = 10;
/// Marks of tools that would create a deleted object again.
const TOOL_ANNOTATIONS: [&str; 2] = [
    "argocd.argoproj.io/tracking-id",
    "meta.helm.sh/release-name",
];
const TOOL_LABELS: [&str; 3] = [
    "argocd.argoproj.io/instance",
    "kustomize.toolkit.fluxcd.io/name",
    "helm.toolkit.fluxcd.io/name",
];

/// An RqliteRecovery by name and uid, so that a later object of the same name is not changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NamedRecovery {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

impl NamedRecovery {
    fn of(recovery: &RqliteRecovery) -> Self {
        Self {
            name: recovery.metadata.name.clone().unwrap_or_default(),
            uid: recovery.metadata.uid.clone().unwrap_or_default(),
        }
    }
}

/// The owner reference to a cluster; None before the cluster has a uid.
pub fn owner(cluster: &RqliteCluster) -> Option<OwnerReference> {
    Some(OwnerReference {
        api_version: format!("{}/{}", operator_api::GROUP, operator_api::VERSION),
        kind: KIND.to_owned(),
        name: cluster.metadata.name.clone()?,
        uid: cluster.metadata.uid.clone()?,
        // It is deleted with the cluster and neither manages it nor delays its deletion.
        controller: None,
        block_owner_deletion: None,
    })
}

const KIND: &str = "RqliteCluster";

/// Why a recovery that names this cluster is for another one of the same name; None if it is for this one.
pub(super) fn other_cluster(view: &View<'_>, recovery: &RqliteRecovery) -> Option<String> {
    let admitted = view.status.recovery.as_ref();
    if admitted.is_some_and(|record| Some(&record.uid) == recovery.metadata.uid.as_ref()) {
        return None;
    }
    let cluster = &view.seen.cluster.metadata;
    let uid = cluster.uid.as_deref().unwrap_or_default();
    let present = format!("the present RqliteCluster {} has uid {uid}", view.name);
    if let Some(named) = recovery
        .spec
        .cluster_ref
        .uid
        .as_deref()
        .filter(|n| *n != uid)
    {
        return Some(format!("spec.clusterRef.uid is {named}, and {present}"));
    }
    let status = recovery.status.as_ref();
    let recorded = status.and_then(|status| status.cluster_uid.as_deref());
    let owners = recovery.metadata.owner_references.iter().flatten();
    let mut owners = owners.filter(|owner| owner.kind == KIND && owner.name == view.name);
    let former = recorded.filter(|recorded| *recorded != uid);
    let former = former.or_else(|| {
        let owner = owners.find(|owner| owner.uid != uid);
        owner.map(|owner| owner.uid.as_str())
    });
    if let Some(former) = former {
        return Some(format!(
            "it was for an earlier RqliteCluster with uid {former}, and {present}"
        ));
    }
    let times = (
        &recovery.metadata.creation_timestamp,
        &cluster.creation_timestamp,
    );
    let (Some(created), Some(of_cluster)) = times else {
        return None;
    };
    (created.0 < of_cluster.0).then(|| {
        format!(
            "it was created before the present RqliteCluster {}",
            view.name
        )
    })
}

/// Name of the one automatic recovery of the present lineage. Part of the cluster's uid keeps a cluster that
/// is created again under the same name from finding the attempts of its predecessor.
pub(super) fn attempt_name(view: &View<'_>) -> String {
    let uid = view
        .seen
        .cluster
        .metadata
        .uid
        .as_deref()
        .unwrap_or_default();
    let short: String = uid
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(UID_CHARS)
        .collect();
    let short = short.to_ascii_lowercase();
    format!("{}-automatic-{short}-{}", view.name, next_epoch(view))
}

fn next_epoch(view: &View<'_>) -> i64 {
    view.status.lineage.as_ref().map_or(0, |l| l.epoch) + 1
}

/// Is this the automatic recovery of the present lineage, perhaps under the name that earlier operators gave?
pub(super) fn is_present_attempt(view: &View<'_>, recovery: &RqliteRecovery) -> bool {
    let former = format!("{}-automatic-{}", view.name, next_epoch(view));
    let name = recovery.metadata.name.as_deref().unwrap_or_default();
    name == former || name == attempt_name(view)
}

/// Characters of the cluster's uid in the name of an automatic recovery.
const UID_CHARS: usize = 8;

/// Recoveries of this cluster that lack the owner reference to it.
pub fn unowned(view: &View<'_>) -> Vec<NamedRecovery> {
    let Some(owner) = owner(&view.seen.cluster) else {
        return Vec::new();
    };
    let all = view.seen.recoveries.iter();
    let all = all.filter(|r| r.metadata.deletion_timestamp.is_none());
    let all = all.filter(|r| other_cluster(view, r).is_none());
    let lacking = all.filter(|r| {
        let mut owners = r.metadata.owner_references.iter().flatten();
        !owners.any(|known| known.uid == owner.uid)
    });
    lacking.map(NamedRecovery::of).collect()
}

/// Recoveries that ended so long ago that they are deleted.
pub fn expired(view: &View<'_>) -> Vec<NamedRecovery> {
    let all = view.seen.recoveries.iter();
    let all = all.filter(|r| r.metadata.deletion_timestamp.is_none());
    let mut ended: Vec<(&Time, &RqliteRecovery)> =
        all.filter_map(|r| Some((ended_at(r)?, r))).collect();
    ended.sort_by_key(|(at, recovery)| (std::cmp::Reverse(at.0), recovery.metadata.name.clone()));
    let numbered = ended.into_iter().enumerate();
    let over = numbered.filter(|(newer, (at, recovery))| {
        let age = seconds_between(at, view.now());
        if let Some(ttl) = recovery.spec.ttl_seconds_after_finished {
            return age >= u64::try_from(ttl).unwrap_or(0);
        }
        let kept = if recovery.spec.dry_run {
            DRY_RUN_KEPT_SECONDS
        } else {
            KEPT_SECONDS
        };
        // Without the object, the automatic recovery of this lineage would be tried again.
        let counts = is_present_attempt(view, recovery) && other_cluster(view, recovery).is_none();
        !counts && !is_of_tool(&recovery.metadata) && (age >= kept || *newer >= KEPT)
    });
    over.map(|(_, (_, recovery))| NamedRecovery::of(recovery))
        .collect()
}

/// When a recovery ended; None if it has not.
fn ended_at(recovery: &RqliteRecovery) -> Option<&Time> {
    let status = recovery.status.as_ref()?;
    status.phase.filter(|phase| phase.is_final())?;
    let complete = status.conditions.iter().find(|c| c.type_ == COMPLETE);
    let since = complete.map(|condition| &condition.last_transition_time);
    since.or(recovery.metadata.creation_timestamp.as_ref())
}

/// Is an object managed by a tool that would create it again?
pub fn is_of_tool(meta: &ObjectMeta) -> bool {
    let has = |marks: &[&str], map: Option<&std::collections::BTreeMap<String, String>>| {
        map.is_some_and(|map| marks.iter().any(|mark| map.contains_key(*mark)))
    };
    has(&TOOL_ANNOTATIONS, meta.annotations.as_ref()) || has(&TOOL_LABELS, meta.labels.as_ref())
}
