//! A history that a person made by hand, such as with a `peers.json`: data of this very cluster, of a later epoch than the one on record. Never taken
//! over by itself, as two survivors may have been recovered apart and only a person knows which of them counts; taken over when they say so.
use std::collections::BTreeSet;

use operator_api::{
    names,
    recovery::RecoveryPhase,
    state::StateLineage,
    status::{Lineage, OperationType},
};

use super::{action::Decision, observation::Answer, view::View};

/// Reason of the condition where a person has to choose.
pub const RECOVERED_BY_HAND: &str = "RecoveredByHand";
/// Reason of the condition where data of the former history is left.
pub const STALE: &str = "StaleLineage";

/// Data of this cluster with a newer history: whose it is, and the history.
fn newer<'a>(view: &View<'a>) -> Vec<(&'a str, &'a StateLineage)> {
    let Some(ours) = &view.status.lineage else {
        return Vec::new();
    };
    let is_newer = |cluster: &Option<String>, history: &StateLineage| {
        cluster.is_some()
            && *cluster == view.status.cluster_id
            && history.id != ours.id
            && history.epoch > ours.epoch
    };
    let running = view.seen.nodes.iter().filter_map(|(name, answer)| {
        let Answer::Ok(node) = answer else {
            return None;
        };
        Some((name.as_str(), &node.cluster_id, node.lineage.as_ref()?))
    });
    // The preparation does not let such data start.
    let held = view.seen.pods.iter().filter_map(|pod| {
        let report = pod.prepared.as_ref()?;
        let refused = report.state == "UnknownLineage" && view.answer(&pod.name).is_none();
        let history = report.lineage.as_ref().filter(|_| refused)?;
        Some((pod.name.as_str(), &report.cluster_id, history))
    });
    let all = running.chain(held);
    all.filter(|(_, cluster, history)| is_newer(cluster, history))
        .map(|(name, _, history)| (name, history))
        .collect()
}

/// What the annotation says of a history.
fn word(history: &StateLineage) -> String {
    format!("{}/{}", history.id, history.epoch)
}

/// Takes a newer history over if a person has named it, else says what to type. A quorum of the history on record goes before any other.
pub fn decide(view: &View<'_>) -> Decision {
    if view.operating(OperationType::Recover).is_some() {
        return Decision::Pass;
    }
    let found = newer(view);
    if found.is_empty() {
        return Decision::Pass;
    }
    let annotations = view.seen.cluster.metadata.annotations.as_ref();
    let accepted = annotations.and_then(|a| a.get(names::ACCEPT_LINEAGE_ANNOTATION));
    let mut all = found.iter();
    let chosen = all.find(|(_, history)| accepted == Some(&word(history)));
    match chosen {
        _ if view.leader.is_some() => Decision::Blocked(RECOVERED_BY_HAND, beside(view, &found)),
        Some((_, history)) => accept(view, history),
        None => Decision::Blocked(RECOVERED_BY_HAND, choice(view, &found)),
    }
}

fn place<'a>(view: &View<'a>) -> (&'a str, &'a str) {
    let namespace = view.seen.cluster.metadata.namespace.as_deref();
    (view.name, namespace.unwrap_or("default"))
}

fn who(found: &[(&str, &StateLineage)]) -> String {
    let all = found
        .iter()
        .map(|(name, history)| format!("{name} ({})", word(history)));
    all.collect::<Vec<_>>().join(", ")
}

/// What to type to let a member join anew.
fn anew(view: &View<'_>, pod: &str) -> String {
    let (_, namespace) = place(view);
    format!(
        "kubectl delete pvc {} -n {namespace} --wait=false; kubectl delete pod {pod} -n {namespace}",
        names::claim(pod)
    )
}

/// The others have a quorum: there is nothing to choose.
fn beside(view: &View<'_>, found: &[(&str, &StateLineage)]) -> String {
    let pods: BTreeSet<&str> = found.iter().map(|(name, _)| *name).collect();
    let each: Vec<String> = pods.iter().map(|pod| anew(view, pod)).collect();
    format!(
        "recovered by hand into a history of its own, while the others have a quorum: {}. That data is not used. Copy what you need of it, then \
         let the member join anew: {}",
        who(found),
        each.join("; ")
    )
}

fn choice(view: &View<'_>, found: &[(&str, &StateLineage)]) -> String {
    let (name, namespace) = place(view);
    let histories: BTreeSet<String> = found.iter().map(|(_, history)| word(history)).collect();
    let annotate: Vec<String> = histories
        .iter()
        .map(|word| {
            format!(
                "kubectl annotate rqlitecluster {name} -n {namespace} --overwrite {}={word}",
                names::ACCEPT_LINEAGE_ANNOTATION
            )
        })
        .collect();
    format!(
        "recovered by hand (peers.json), with data of this cluster and a newer history: {}. It is not taken over by itself: what only other members \
         have acknowledged is lost with it. To go on with it: {}",
        who(found),
        annotate.join(", or ")
    )
}

/// Data of a history before the one on record that no plan puts aside, and what to do about it.
pub fn stale(view: &View<'_>) -> Option<String> {
    let record = view.status.recovery.as_ref();
    // After a recovery of the operator's, its plan has such data put aside.
    let parks = record.is_some_and(|record| {
        matches!(
            record.phase,
            RecoveryPhase::Rejoining | RecoveryPhase::Succeeded
        ) && Some(&record.to.id) == view.status.lineage.as_ref().map(|l| &l.id)
    });
    if parks || view.leader.is_none() {
        return None;
    }
    let pods = view.seen.pods.iter().filter(|pod| {
        let report = pod.prepared.as_ref();
        report.is_some_and(|report| report.state == STALE) && view.answer(&pod.name).is_none()
    });
    let told: Vec<String> = pods
        .map(|pod| format!("{}: {}", pod.name, anew(view, &pod.name)))
        .collect();
    (!told.is_empty()).then(|| {
        format!(
            "data of the history before a recovery by hand is not used; let each such member join anew, one after the other: {}",
            told.join("; ")
        )
    })
}

fn accept(view: &View<'_>, history: &StateLineage) -> Decision {
    let mut next = view.status.clone();
    next.lineage = Some(Lineage {
        id: history.id.clone(),
        epoch: history.epoch,
        since: Some(view.now().clone()),
    });
    // What was confirmed of the former history says nothing about this one.
    next.members.clear();
    next.configuration_index = None;
    next.leader = None;
    next.operation = None;
    next.recovery = None;
    let text = format!(
        "takes over the history {}, as the annotation says",
        word(history)
    );
    Decision::Record(Box::new(next), text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{observation::Prepared, scene::Scene};

    fn history(id: &str, epoch: i64) -> StateLineage {
        StateLineage {
            id: id.to_owned(),
            epoch,
        }
    }

    /// demo-0 alone was recovered by hand; the others do not answer.
    fn by_hand() -> Scene {
        let mut scene = Scene::running(3, 0);
        scene.down("demo-1", "");
        scene.down("demo-2", "");
        let node = scene.node("demo-0");
        node.lineage = Some(history("made-by-hand", 1));
        node.config.retain(|m| m.name == "demo-0");
        scene
    }

    fn annotate(scene: &mut Scene, value: &str) {
        let metadata = &mut scene.seen.cluster.metadata;
        let annotations = metadata.annotations.get_or_insert_default();
        annotations.insert(
            names::ACCEPT_LINEAGE_ANNOTATION.to_owned(),
            value.to_owned(),
        );
    }

    #[test]
    fn a_person_is_asked_and_nothing_is_taken_over() {
        let mut scene = by_hand();
        let before = scene.status().lineage;
        for _ in 0..5 {
            let plan = scene.pass();
            assert_eq!(plan.action, None);
            assert_eq!(plan.event.unwrap().reason, RECOVERED_BY_HAND);
        }
        assert_eq!(scene.status().lineage, before);
        let (_, reason, message) = scene.condition("Degraded");
        assert_eq!(reason, RECOVERED_BY_HAND);
        let command = "kubectl annotate rqlitecluster demo -n shop --overwrite rqlite.dev/accept-lineage=made-by-hand/1";
        assert!(message.contains(command), "{message}");
        assert!(!scene.condition("Available").0);
    }

    #[test]
    fn the_named_one_is_taken_over() {
        let mut scene = by_hand();
        for other in ["made-by-hand", "made-by-hand/2", "other/1"] {
            annotate(&mut scene, other);
            scene.pass();
            assert_eq!(scene.condition("Degraded").1, RECOVERED_BY_HAND, "{other}");
        }
        annotate(&mut scene, "made-by-hand/1");
        for _ in 0..3 {
            scene.pass();
        }
        let lineage = scene.status().lineage.unwrap();
        assert_eq!((lineage.id.as_str(), lineage.epoch), ("made-by-hand", 1));
        assert_eq!(
            scene.seen.state.as_ref().unwrap().lineage,
            history("made-by-hand", 1)
        );
        assert!(
            scene.condition("Available").0,
            "{:?}",
            scene.condition("Available")
        );
        scene.pod("demo-1").prepared = Some(Prepared {
            state: STALE.to_owned(),
            cluster_id: None,
            lineage: None,
            raft_id: None,
            last_log: None,
            reason: String::new(),
        });
        scene.pass();
        let (_, reason, message) = scene.condition("Degraded");
        assert_eq!(reason, STALE, "{message}");
        assert!(
            message.contains("kubectl delete pvc data-demo-1 -n shop"),
            "{message}"
        );
    }

    #[test]
    fn a_quorum_goes_before_it() {
        let mut scene = Scene::running(3, 0);
        scene.node("demo-2").lineage = Some(history("made-by-hand", 1));
        scene.node("demo-2").leader = None;
        annotate(&mut scene, "made-by-hand/1");
        let before = scene.status().lineage;
        for _ in 0..3 {
            assert_eq!(scene.pass().action, None);
        }
        assert_eq!(scene.status().lineage, before);
        let (_, reason, message) = scene.condition("Degraded");
        assert_eq!(reason, RECOVERED_BY_HAND);
        assert!(
            message.contains("kubectl delete pvc data-demo-2 -n shop"),
            "{message}"
        );
    }

    #[test]
    fn another_cluster_is_none_of_it() {
        let mut scene = by_hand();
        scene.node("demo-0").cluster_id = Some("another".to_owned());
        scene.pass();
        assert_eq!(scene.condition("Degraded").1, "ForeignData");
    }
}
