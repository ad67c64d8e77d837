//! Which RqliteRestore objects belong to a cluster, and when ended ones are deleted.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use operator_api::RqliteRestore;

use super::objects::{is_over, name, uid};
use crate::cluster::{
    deciders::recovery::{
        DRY_RUN_KEPT_SECONDS, KEPT, KEPT_SECONDS, NamedRecovery, is_of_tool, owner,
    },
    facts::view::{View, seconds_between},
};

/// Why a restore that names this cluster was meant for an earlier one of the same name; `None` if it is for
/// this one.
pub(super) fn other_cluster(view: &View<'_>, restore: &RqliteRestore) -> Option<String> {
    let cluster = &view.seen.cluster.metadata;
    let own = cluster.uid.as_deref().unwrap_or_default();
    let present = format!("the present RqliteCluster {} has uid {own}", view.name);
    let named = restore.spec.cluster_ref.uid.as_deref();
    if let Some(named) = named.filter(|named| *named != own) {
        return Some(format!("spec.clusterRef.uid is {named}, and {present}"));
    }
    let status = restore.status.as_ref();
    let recorded = status.and_then(|status| status.cluster_uid.as_deref());
    if let Some(former) = recorded.filter(|recorded| *recorded != own) {
        return Some(format!(
            "it was for an earlier RqliteCluster with uid {former}, and {present}"
        ));
    }
    let created = restore.metadata.creation_timestamp.as_ref()?;
    let of_cluster = cluster.creation_timestamp.as_ref()?;
    (created.0 < of_cluster.0).then(|| {
        let name = view.name;
        format!("it was created before the present RqliteCluster {name}")
    })
}

fn named(restore: &RqliteRestore) -> NamedRecovery {
    NamedRecovery {
        name: name(restore).to_owned(),
        uid: uid(restore).to_owned(),
    }
}

/// Restores of this cluster that lack the owner reference to it.
pub fn unowned(view: &View<'_>) -> Vec<NamedRecovery> {
    let Some(owner) = owner(&view.seen.cluster) else {
        return Vec::new();
    };
    let all = view.seen.restores.iter();
    let all = all.filter(|r| r.metadata.deletion_timestamp.is_none());
    let all = all.filter(|r| other_cluster(view, r).is_none());
    let lacking = all.filter(|r| {
        let mut owners = r.metadata.owner_references.iter().flatten();
        !owners.any(|known| known.uid == owner.uid)
    });
    lacking.map(named).collect()
}

/// Restores that ended so long ago that they are deleted.
pub fn expired(view: &View<'_>) -> Vec<NamedRecovery> {
    let all = view.seen.restores.iter();
    let all = all.filter(|r| r.metadata.deletion_timestamp.is_none() && is_over(r));
    let mut ended: Vec<(&Time, &RqliteRestore)> =
        all.filter_map(|r| Some((ended_at(r)?, r))).collect();
    ended.sort_by_key(|(at, restore)| (std::cmp::Reverse(at.0), name(restore).to_owned()));
    let over = ended
        .into_iter()
        .enumerate()
        .filter(|(newer, (at, restore))| {
            let age = seconds_between(at, view.now());
            if let Some(ttl) = restore.spec.ttl_seconds_after_finished {
                return age >= u64::try_from(ttl).unwrap_or(0);
            }
            let kept = match restore.spec.dry_run {
                true => DRY_RUN_KEPT_SECONDS,
                false => KEPT_SECONDS,
            };
            !is_of_tool(&restore.metadata) && (age >= kept || *newer >= KEPT)
        });
    over.map(|(_, (_, restore))| named(restore)).collect()
}

fn ended_at(restore: &RqliteRestore) -> Option<&Time> {
    let status = restore.status.as_ref();
    let ended = status.and_then(|status| status.completed_at.as_ref());
    ended.or(restore.metadata.creation_timestamp.as_ref())
}
