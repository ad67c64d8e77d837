//! Conversion of a StatefulSet for the planner.
use k8s_openapi::api::apps::v1::StatefulSet;
use operator_api::names;

use super::pod::tls_of;
use crate::cluster::facts::observation::ObservedSet;

fn annotation<'a>(set: &'a StatefulSet, key: &str) -> Option<&'a String> {
    set.metadata.annotations.as_ref()?.get(key)
}

pub(super) fn convert(set: &StatefulSet) -> ObservedSet {
    let spec = set.spec.as_ref();
    let template = spec.and_then(|spec| spec.template.metadata.as_ref());
    let hash = template.and_then(|metadata| {
        let annotations = metadata.annotations.as_ref()?;
        annotations.get(names::TEMPLATE_HASH_ANNOTATION).cloned()
    });
    let claims = spec.and_then(|spec| spec.volume_claim_templates.as_ref());
    let claim = claims.and_then(|claims| claims.first()?.spec.clone());
    let requests = claim.and_then(|claim| claim.resources?.requests);
    ObservedSet {
        uid: set.metadata.uid.clone().unwrap_or_default(),
        replicas: spec.and_then(|spec| spec.replicas).unwrap_or(1),
        template_hash: hash.unwrap_or_default(),
        claim_size: requests
            .and_then(|requests| Some(requests.get("storage")?.0.clone()))
            .unwrap_or_default(),
        owner_label: template
            .and_then(|template| template.labels.as_ref()?.get(names::OWNER_LABEL).cloned()),
        replicas_set: annotation(set, names::REPLICAS_SET_ANNOTATION)
            .and_then(|number| number.parse().ok()),
        account: spec
            .and_then(|spec| spec.template.spec.as_ref())
            .and_then(|pod| pod.service_account_name.clone()),
        image: spec
            .and_then(|spec| spec.template.spec.as_ref())
            .and_then(|pod| pod.containers.iter().find(|c| c.name == "rqlited"))
            .and_then(|container| container.image.clone()),
        deleting: set.metadata.deletion_timestamp.is_some(),
        tls: tls_of(spec.and_then(|spec| spec.template.spec.as_ref())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::facts::stages::PodTls;

    #[test]
    fn a_set() {
        let set: StatefulSet = serde_json::from_value(json!({
            "metadata": {"name": "demo", "uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z",
                "annotations": {"rqlite.dev/replicas-set": "3"}},
            "spec": {"replicas": 4, "selector": {}, "serviceName": "x",
                "template": {"metadata": {"annotations": {"rqlite.dev/template-hash": "h"},
                    "labels": {"rqlite.dev/owner": "o"}},
                    "spec": {"serviceAccountName": "demo",
                        "containers": [{"name": "sidecar", "image": "x"}, {"name": "rqlited", "image": "rqlited:1"}]}},
                "volumeClaimTemplates": [{"spec": {"resources": {"requests": {"storage": "3Gi"}}}}]},
        }))
        .unwrap();
        let expected = ObservedSet {
            uid: "u".to_owned(),
            replicas: 4,
            template_hash: "h".to_owned(),
            claim_size: "3Gi".to_owned(),
            image: Some("rqlited:1".to_owned()),
            owner_label: Some("o".to_owned()),
            replicas_set: Some(3),
            account: Some("demo".to_owned()),
            deleting: true,
            tls: PodTls::default(),
        };
        assert_eq!(convert(&set), expected);
        assert_eq!(
            convert(&StatefulSet::default()).replicas,
            1,
            "Kubernetes' default"
        );
    }
}
