//! StatefulSets: Parallel, because forming needs all pods; OnDelete, because only the operator replaces pods;
//! claims are retained.
use k8s_openapi::{
    api::{
        apps::v1::{
            StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec,
            StatefulSetUpdateStrategy,
        },
        core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements},
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, ObjectMeta},
    },
};
use operator_api::{
    ByteSize, names,
    status::{OperationType, Pool, Target},
};

use super::common::{DATA_VOLUME, labels, metadata, selector};
use super::pod;
use crate::cluster::facts::view::View;

pub(super) fn stateful_set(view: &View<'_>, target: &Target, pool: Pool) -> StatefulSet {
    let hash = match pool {
        Pool::Voter => Some(&target.template_hash),
        Pool::Read => target.read_template_hash.as_ref(),
    };
    let template = pod::template(view, target, pool);
    StatefulSet {
        metadata: metadata(view, view.set_name(pool)),
        spec: Some(StatefulSetSpec {
            replicas: replicas(view, target, pool),
            service_name: Some(names::headless(view.name)),
            selector: LabelSelector {
                match_labels: Some(selector(view, pool)),
                match_expressions: None,
            },
            template: pod::with_hash(template, hash.map_or("", String::as_str)),
            volume_claim_templates: view
                .spec
                .storage
                .ephemeral
                .is_none()
                .then(|| vec![claim(view, pool)]),
            pod_management_policy: Some("Parallel".to_owned()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".to_owned()),
                rolling_update: None,
            }),
            persistent_volume_claim_retention_policy: Some(
                StatefulSetPersistentVolumeClaimRetentionPolicy {
                    when_deleted: Some("Retain".to_owned()),
                    when_scaled: Some("Retain".to_owned()),
                },
            ),
            revision_history_limit: Some(10),
            min_ready_seconds: None,
            ordinals: None,
        }),
        status: None,
    }
}

/// Number of replicas to apply. The present number stays: only an action changes it. A missing StatefulSet
/// gets the recorded number. Where an autoscaler decides, the field is not applied.
fn replicas(view: &View<'_>, target: &Target, pool: Pool) -> Option<i32> {
    let live = view.set(pool).map(|set| set.replicas);
    let stopping = view.is_hibernating() || view.operating(OperationType::Recover).is_some();
    match pool {
        Pool::Voter if stopping => Some(live.unwrap_or(0)),
        Pool::Voter => Some(live.unwrap_or(target.replicas)),
        Pool::Read => {
            let wanted = view.wanted_readers()?;
            Some(live.unwrap_or(if stopping { 0 } else { wanted }))
        }
    }
}

/// The claim template is immutable: a StatefulSet keeps its size until it is recreated.
fn claim(view: &View<'_>, pool: Pool) -> PersistentVolumeClaim {
    let live = view
        .set(pool)
        .map(|set| ByteSize::from(set.claim_size.as_str()));
    let size = live.unwrap_or_else(|| view.wanted_size(pool));
    let own = match (pool, &view.spec.read_replicas) {
        (Pool::Read, Some(readers)) => readers.storage.as_ref(),
        _ => None,
    };
    let class = own.and_then(|s| s.storage_class_name.clone());
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(DATA_VOLUME.to_owned()),
            labels: Some(labels(view)),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: class.or_else(|| view.spec.storage.storage_class_name.clone()),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), Quantity(size.0))].into()),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}
