//! Conversion of a PersistentVolumeClaim for the planner.
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use operator_api::{ByteSize, names};

use crate::{
    cluster::facts::{
        observation::ObservedClaim,
        volume::{self, Volume},
    },
    live::Live,
};

/// Condition of a claim whose volume has been expanded and whose file system is resized when the pod starts.
const RESIZE_PENDING: &str = "FileSystemResizePending";

pub(super) fn convert(claim: &PersistentVolumeClaim, live: &Live) -> ObservedClaim {
    let named = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_name.as_ref());
    let volume = match named.and_then(|name| live.volumes.get(name)) {
        None => Volume::Unknown,
        Some(None) => Volume::Missing,
        Some(Some(volume)) => Volume::There(volume),
    };
    let lost = volume::loss(claim, volume, live.host_names.as_ref());
    let spec = claim.spec.clone().unwrap_or_default();
    let status = claim.status.clone().unwrap_or_default();
    let requests = spec.resources.and_then(|r| r.requests).unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    ObservedClaim {
        name: claim.metadata.name.clone().unwrap_or_default(),
        uid: claim.metadata.uid.clone().unwrap_or_default(),
        requested: requests
            .get("storage")
            .map(|q| q.0.clone())
            .unwrap_or_default(),
        capacity: status
            .capacity
            .and_then(|c| Some(c.get("storage")?.0.clone())),
        class: spec.storage_class_name,
        resize_pending: conditions
            .iter()
            .any(|c| c.type_ == RESIZE_PENDING && c.status == "True"),
        lost,
        deleting: claim.metadata.deletion_timestamp.is_some(),
    }
}

/// The disk of an ephemeral cluster's pod as a claim: it belongs to the pod and is deleted with it. A member
/// whose pod has another uid has therefore lost its disk.
pub(super) fn of_ephemeral(pod: &Pod, size: &ByteSize) -> ObservedClaim {
    ObservedClaim {
        name: names::claim(&pod.name_any()),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        requested: size.0.clone(),
        capacity: Some(size.0.clone()),
        class: None,
        resize_pending: false,
        lost: None,
        deleting: pod.metadata.deletion_timestamp.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use serde_json::{Value, json};

    use super::*;

    fn of(phase: &str, conditions: Value) -> ObservedClaim {
        let claim = json!({
            "metadata": {"name": "data-demo-0", "uid": "u"},
            "spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "2Gi"}}},
            "status": {"phase": phase, "capacity": {"storage": "1Gi"}, "conditions": conditions},
        });
        convert(&serde_json::from_value(claim).unwrap(), &Live::default())
    }

    #[test]
    fn a_volume_that_is_gone() {
        let claim = serde_json::from_value(json!({
            "metadata": {"name": "data-demo-0", "uid": "u"},
            "spec": {"volumeName": "pv-1"}, "status": {"phase": "Bound"},
        }))
        .unwrap();
        let mut live = Live::default();
        assert_eq!(convert(&claim, &live).lost, None, "nothing is known of it");
        live.volumes.insert("pv-1".to_owned(), None);
        assert!(convert(&claim, &live).lost.is_some());
        live.host_names = Some(BTreeMap::new());
        live.volumes.insert("pv-1".to_owned(), Some(Arc::default()));
        assert_eq!(convert(&claim, &live).lost, None);
    }

    #[test]
    fn claims() {
        let bound = of("Bound", json!([]));
        assert_eq!((&*bound.name, &*bound.uid), ("data-demo-0", "u"));
        assert_eq!(bound.requested, "2Gi");
        assert_eq!(bound.capacity.as_deref(), Some("1Gi"));
        assert_eq!(bound.class.as_deref(), Some("fast"));
        assert!(bound.lost.is_none() && !bound.resize_pending && !bound.deleting);
        let pending = |status: &str| json!([{"type": RESIZE_PENDING, "status": status}]);
        assert!(of("Bound", pending("True")).resize_pending);
        assert!(!of("Bound", pending("False")).resize_pending);
        let unbound = convert(&PersistentVolumeClaim::default(), &Live::default());
        assert_eq!((unbound.capacity, unbound.lost), (None, None));
    }
}
