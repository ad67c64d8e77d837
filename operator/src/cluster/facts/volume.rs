//! Can a claim's volume ever be used again? Only positive evidence says no; a volume that cannot be read may
//! be all right.
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorTerm, PersistentVolume, PersistentVolumeClaim};

/// Label by which local volumes name their machine.
const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";

/// Result of looking up a claim's volume.
#[derive(Clone, Copy, Debug)]
pub enum Volume<'a> {
    /// It could not be read.
    Unknown,
    /// No volume has this name.
    Missing,
    /// The volume exists.
    There(&'a PersistentVolume),
}

/// Why the volume of a claim is lost for good, if it is. `machines`: the `kubernetes.io/hostname` label of
/// every Kubernetes Node by name, or None if Nodes may not be read.
pub fn loss(
    claim: &PersistentVolumeClaim,
    volume: Volume<'_>,
    machines: Option<&BTreeMap<String, String>>,
) -> Option<String> {
    let status = claim.status.as_ref();
    let phase = status.and_then(|s| s.phase.as_deref()).unwrap_or_default();
    let name = claim
        .spec
        .as_ref()
        .and_then(|s| s.volume_name.as_deref())
        .filter(|name| !name.is_empty())?;
    if phase == "Lost" {
        return Some(format!("the PersistentVolume {name} of its claim is gone"));
    }
    let volume = match volume {
        Volume::Unknown => return None,
        // A claim that is not bound yet may name a volume that is about to be created.
        Volume::Missing => {
            return (phase == "Bound").then(|| format!("its PersistentVolume {name} is gone"));
        }
        Volume::There(volume) => volume,
    };
    let volume_status = volume.status.as_ref();
    let volume_phase = volume_status.and_then(|s| s.phase.as_deref());
    if volume_phase == Some("Failed") {
        return Some(format!("its PersistentVolume {name} has failed"));
    }
    let owner = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
    let owner = owner.and_then(|r| r.uid.as_deref());
    if owner.is_some() && claim.metadata.uid.is_some() && owner != claim.metadata.uid.as_deref() {
        return Some(format!(
            "its PersistentVolume {name} belongs to another claim"
        ));
    }
    let pinned = pinned_to(volume);
    let gone = !pinned.is_empty()
        && machines.is_some_and(|machines| {
            pinned
                .iter()
                .all(|host| !machines.contains_key(*host) && !machines.values().any(|h| h == *host))
        });
    gone.then(|| {
        format!(
            "its PersistentVolume {name} is on the machine {}, whose Node object was deleted",
            pinned.join(", ")
        )
    })
}

/// Can a volume follow its pod to another machine? Only if it may be used on all machines, or on all of some
/// zones or regions; whatever else its node affinity says may bind it to a machine.
pub fn may_move(volume: &PersistentVolume) -> bool {
    let Some(spec) = &volume.spec else {
        return false;
    };
    if spec.host_path.is_some() || spec.local.is_some() {
        return false;
    }
    let required = spec
        .node_affinity
        .as_ref()
        .and_then(|a| a.required.as_ref());
    let terms = required.map(|required| required.node_selector_terms.as_slice());
    terms.unwrap_or_default().iter().all(|term| {
        let by_zone = |key: &str| key.ends_with("/zone") || key.ends_with("/region");
        let mut labels = term.match_expressions.iter().flatten();
        term.match_fields.is_none() && labels.all(|e| by_zone(&e.key))
    })
}

/// Machines that a volume is bound to; empty if it can move, or if its node affinity has an unknown form.
fn pinned_to(volume: &PersistentVolume) -> Vec<&str> {
    let affinity = volume
        .spec
        .as_ref()
        .and_then(|s| s.node_affinity.as_ref()?.required.as_ref());
    let terms = affinity.map(|required| required.node_selector_terms.as_slice());
    let named: Option<Vec<&[String]>> = terms.unwrap_or_default().iter().map(hosts).collect();
    let named = named.unwrap_or_default();
    named.into_iter().flatten().map(String::as_str).collect()
}

fn hosts(term: &NodeSelectorTerm) -> Option<&[String]> {
    let by_label = term.match_expressions.iter().flatten();
    let by_label = by_label.filter(|e| e.key == HOSTNAME_LABEL && e.operator == "In");
    let by_name = term.match_fields.iter().flatten();
    let by_name = by_name.filter(|e| e.key == "metadata.name" && e.operator == "In");
    by_label.chain(by_name).find_map(|e| e.values.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(phase: &str) -> PersistentVolumeClaim {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "data-demo-0", "uid": "c-1"},
            "spec": {"volumeName": "pv-1"},
            "status": {"phase": phase},
        }))
        .unwrap()
    }

    fn volume(phase: &str, owner: &str, term: &serde_json::Value) -> PersistentVolume {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "pv-1"},
            "spec": {
                "claimRef": {"uid": owner},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
            },
            "status": {"phase": phase},
        }))
        .unwrap()
    }

    #[test]
    fn only_what_is_bound_to_no_machine_may_move() {
        let on = |key: &str| serde_json::json!({"matchExpressions": [{"key": key, "operator": "In", "values": ["a"]}]});
        let there = |term| may_move(&volume("Bound", "c-1", &term));
        assert!(there(on("topology.kubernetes.io/zone")));
        assert!(there(on("topology.ebs.csi.aws.com/zone")));
        assert!(!there(on(HOSTNAME_LABEL)));
        assert!(!there(on("topology.hostpath.csi/node")));
        assert!(!there(
            serde_json::json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["m"]}]})
        ));
        let with =
            |spec| may_move(&serde_json::from_value(serde_json::json!({"spec": spec})).unwrap());
        assert!(with(
            serde_json::json!({"csi": {"driver": "d", "volumeHandle": "v"}})
        ));
        assert!(!with(serde_json::json!({"hostPath": {"path": "/x"}})));
        assert!(
            !may_move(&PersistentVolume::default()),
            "nothing is known of it"
        );
    }

    #[test]
    fn only_positive_evidence_is_loss() {
        let machines: BTreeMap<String, String> = [
            ("m1".to_owned(), "host-1".to_owned()),
            ("m2".to_owned(), "m2".to_owned()),
        ]
        .into();
        let on = |host: &str| serde_json::json!({"matchExpressions": [{"key": HOSTNAME_LABEL, "operator": "In", "values": [host]}]});
        let field = serde_json::json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["m9"]}]});
        let zone = serde_json::json!({"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["a"]}]});
        let there = |term| volume("Bound", "c-1", term);
        let (known, gone) = (on("host-1"), on("m9"));
        let cases = [
            ("Bound", Volume::Unknown, true, None),
            ("Bound", Volume::Missing, true, Some("is gone")),
            ("Pending", Volume::Missing, true, None),
            ("Lost", Volume::Unknown, true, Some("of its claim is gone")),
            ("Bound", Volume::There(&there(&known)), true, None),
            ("Bound", Volume::There(&there(&on("m2"))), true, None),
            ("Bound", Volume::There(&there(&gone)), true, Some("m9")),
            ("Bound", Volume::There(&there(&gone)), false, None),
            ("Bound", Volume::There(&there(&field)), true, Some("m9")),
            ("Bound", Volume::There(&there(&zone)), true, None),
            (
                "Bound",
                Volume::There(&volume("Failed", "c-1", &known)),
                true,
                Some("has failed"),
            ),
            (
                "Bound",
                Volume::There(&volume("Bound", "c-2", &known)),
                true,
                Some("another claim"),
            ),
        ];
        for (phase, volume, readable, expected) in cases {
            let text = loss(&claim(phase), volume, readable.then_some(&machines));
            match expected {
                None => assert_eq!(text, None, "{phase} {volume:?}"),
                Some(part) => assert!(
                    text.as_ref().is_some_and(|s| s.contains(part)),
                    "{phase} {volume:?}: {text:?}"
                ),
            }
        }
        let unbound = PersistentVolumeClaim::default();
        assert_eq!(loss(&unbound, Volume::Missing, Some(&machines)), None);
    }
}
