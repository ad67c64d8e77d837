//! A lineage that a person created by hand, for example with a `peers.json`: data of this cluster with a
//! later epoch than the recorded one. It is not adopted automatically, because two survivors may have been
//! recovered separately and only a person knows which of them counts. It is adopted once a person names it.
use std::collections::BTreeSet;

use node_contract::Lineage as NodeLineage;
use operator_api::{lineage::Lineage, names, status::OperationType};

use crate::cluster::{
    action::{Action, Decision},
    facts::{
        lineage::{has_ended, newer_lineages},
        view::View,
    },
};

/// Reason of the condition while a person has to choose.
pub const RECOVERED_BY_HAND: &str = "RecoveredByHand";

/// The value of the annotation that names this lineage.
fn annotation_value(lineage: &NodeLineage) -> String {
    format!("{}/{}", lineage.id, lineage.epoch)
}

/// Adopts a newer lineage if a person has named it; otherwise reports the command for that. A quorum of the
/// recorded lineage takes precedence over any other.
pub fn decide(view: &View<'_>) -> Decision {
    if view.operating(OperationType::Recover).is_some() {
        return Decision::Continue;
    }
    let found = newer_lineages(view);
    if found.is_empty() {
        return Decision::Continue;
    }
    let annotations = view.seen.cluster.metadata.annotations.as_ref();
    let accepted = annotations.and_then(|a| a.get(names::ACCEPT_LINEAGE_ANNOTATION));
    let mut all = found.iter();
    let chosen = all.find(|(_, lineage)| accepted == Some(&annotation_value(lineage)));
    match chosen {
        _ if view.leader.is_some() => {
            Decision::Blocked(RECOVERED_BY_HAND, quorum_message(view, &found))
        }
        Some((_, lineage)) => accept(view, lineage),
        None => Decision::Blocked(RECOVERED_BY_HAND, choice_message(view, &found)),
    }
}

fn name_and_namespace<'a>(view: &View<'a>) -> (&'a str, &'a str) {
    let namespace = view.seen.cluster.metadata.namespace.as_deref();
    (view.name, namespace.unwrap_or("default"))
}

fn list(found: &[(&str, &NodeLineage)]) -> String {
    let all = found
        .iter()
        .map(|(name, lineage)| format!("{name} ({})", annotation_value(lineage)));
    all.collect::<Vec<_>>().join(", ")
}

/// The command that lets a member rejoin without its data.
fn rejoin_command(view: &View<'_>, pod: &str) -> String {
    let (_, namespace) = name_and_namespace(view);
    format!(
        "kubectl delete pvc {} -n {namespace} --wait=false; kubectl delete pod {pod} -n {namespace}",
        names::claim(pod)
    )
}

/// The message if the other members have a quorum: there is nothing to choose.
fn quorum_message(view: &View<'_>, found: &[(&str, &NodeLineage)]) -> String {
    let pods: BTreeSet<&str> = found.iter().map(|(name, _)| *name).collect();
    let each: Vec<String> = pods.iter().map(|pod| rejoin_command(view, pod)).collect();
    format!(
        "recovered by hand into a lineage of its own, while the others have a quorum: {}. That data is not used. Copy what you need from it, then \
         let the member rejoin: {}",
        list(found),
        each.join("; ")
    )
}

fn choice_message(view: &View<'_>, found: &[(&str, &NodeLineage)]) -> String {
    let (name, namespace) = name_and_namespace(view);
    let lineages: BTreeSet<String> = found
        .iter()
        .map(|(_, lineage)| annotation_value(lineage))
        .collect();
    let annotate: Vec<String> = lineages
        .iter()
        .map(|annotation_value| {
            // Text that is appended to the message must not touch the last word of the command.
            format!(
                "kubectl annotate rqlitecluster {name} -n {namespace} --overwrite {}={annotation_value} (writes that only other members acknowledged are lost then)",
                names::ACCEPT_LINEAGE_ANNOTATION
            )
        })
        .collect();
    format!(
        "recovered by hand (peers.json), with data of this cluster and a newer lineage: {}. It is not adopted automatically. To continue with it: {}",
        list(found),
        annotate.join(", or ")
    )
}

/// Restarts a node of an ended lineage, so that its preparation reports that lineage and its data is parked.
/// One that follows a leader is left to a person.
pub fn restart_ended_lineage(view: &View<'_>) -> Decision {
    if view.leader.is_none() || view.operating(OperationType::Recover).is_some() {
        return Decision::Continue;
    }
    let mut pods = view.seen.pods.iter().filter(|pod| !pod.deleting);
    let left = pods.find(|pod| {
        let node = view.node(&pod.name);
        node.is_some_and(|node| has_ended(view, node))
    });
    match left {
        Some(pod) => Decision::Act(
            Action::delete_pod(pod),
            format!(
                "restarting {}, which runs in a lineage that has ended",
                pod.name
            ),
        ),
        None => Decision::Continue,
    }
}

fn accept(view: &View<'_>, lineage: &NodeLineage) -> Decision {
    let mut next = view.status.clone();
    next.lineage = Some(Lineage::of_node(lineage, Some(view.now().clone())));
    // Members confirmed in the former lineage are not known to be in this one.
    next.members.clear();
    next.configuration_index = None;
    next.leader = None;
    next.operation = None;
    next.recovery = None;
    let text = format!(
        "adopting the lineage {}, as the annotation says",
        annotation_value(lineage)
    );
    Decision::Record(Box::new(next), text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{
        facts::{
            lineage::STALE,
            observation::{PrepareReport, ProbeResult},
        },
        fixture::Fixture,
    };

    fn lineage_of(id: &str, epoch: u64) -> NodeLineage {
        NodeLineage {
            id: id.to_owned(),
            epoch,
        }
    }

    /// demo-0 alone was recovered by hand; the others do not answer.
    fn by_hand() -> Fixture {
        let mut fixture = Fixture::running(3, 0);
        fixture.down("demo-1", "");
        fixture.down("demo-2", "");
        let node = fixture.node("demo-0");
        node.lineage = Some(lineage_of("made-by-hand", 1));
        node.config.retain(|m| m.name == "demo-0");
        fixture
    }

    fn annotate(fixture: &mut Fixture, value: &str) {
        let metadata = &mut fixture.seen.cluster.metadata;
        let annotations = metadata.annotations.get_or_insert_default();
        annotations.insert(
            names::ACCEPT_LINEAGE_ANNOTATION.to_owned(),
            value.to_owned(),
        );
    }

    #[test]
    fn a_person_is_asked_and_nothing_is_taken_over() {
        let mut fixture = by_hand();
        let before = fixture.status().lineage;
        for _ in 0..5 {
            let plan = fixture.reconcile();
            assert_eq!(plan.action, None);
            assert_eq!(plan.event.unwrap().reason, RECOVERED_BY_HAND);
        }
        assert_eq!(fixture.status().lineage, before);
        let (_, reason, message) = fixture.condition("Degraded");
        assert_eq!(reason, RECOVERED_BY_HAND);
        let command = "kubectl annotate rqlitecluster demo -n shop --overwrite rqlite.dev/accept-lineage=made-by-hand/1";
        assert!(message.contains(command), "{message}");
        assert!(!fixture.condition("Available").0);
    }

    #[test]
    fn the_named_one_is_taken_over() {
        let mut fixture = by_hand();
        for other in ["made-by-hand", "made-by-hand/2", "other/1"] {
            annotate(&mut fixture, other);
            fixture.reconcile();
            assert_eq!(
                fixture.condition("Degraded").1,
                RECOVERED_BY_HAND,
                "{other}"
            );
        }
        annotate(&mut fixture, "made-by-hand/1");
        for _ in 0..3 {
            fixture.reconcile();
        }
        let lineage = fixture.status().lineage.unwrap();
        assert_eq!((lineage.id.as_str(), lineage.epoch), ("made-by-hand", 1));
        assert_eq!(
            fixture.seen.state.as_ref().unwrap().lineage,
            lineage_of("made-by-hand", 1)
        );
        assert!(
            fixture.condition("Available").0,
            "{:?}",
            fixture.condition("Available")
        );
    }

    fn taken_over() -> Fixture {
        let mut fixture = by_hand();
        annotate(&mut fixture, "made-by-hand/1");
        for _ in 0..3 {
            fixture.reconcile();
        }
        fixture
    }

    #[test]
    fn what_the_others_have_is_put_aside_in_its_time_one_after_the_other() {
        let mut fixture = taken_over();
        for name in ["demo-1", "demo-2"] {
            fixture.pod(name).prepared = Some(PrepareReport {
                state: STALE.to_owned(),
                cluster_id: None,
                lineage: None,
                raft_id: Some(format!("{name}#i0")),
                last_log: None,
                reason: "epoch 0".to_owned(),
            });
        }
        fixture.reconcile();
        assert_eq!(fixture.condition("Degraded").1, "MemberLost");
        assert_eq!(fixture.action(), None, "not before its time");
        fixture.later(601);
        let action = fixture.action();
        assert!(
            matches!(&action, Some(Action::DeletePod { uid, .. }) if uid == "pod-demo-1"),
            "{action:?}"
        );
        let park = &fixture.seen.state.as_ref().unwrap().park;
        assert_eq!(park.keys().collect::<Vec<_>>(), ["demo-1"]);
        fixture.pod("demo-1").uid = "new".to_owned();
        fixture.pod("demo-1").prepared = None;
        assert_eq!(fixture.action(), None, "the first has not joined yet");
    }

    #[test]
    fn who_still_runs_in_the_former_history_is_started_again() {
        let former = Fixture::running(3, 0).node("demo-1").clone();
        let mut fixture = taken_over();
        let mut answers = |leader: Option<&str>| {
            let mut node = former.clone();
            node.leader = leader.map(str::to_owned);
            node.ready = false;
            fixture
                .seen
                .nodes
                .insert("demo-1".to_owned(), ProbeResult::Ok(node));
            let action = fixture.action();
            (action, fixture.condition("Degraded").1)
        };
        let (action, _) = answers(None);
        assert!(
            matches!(&action, Some(Action::DeletePod { uid, .. }) if uid == "pod-demo-1"),
            "{action:?}"
        );
        // Until the new lineage has a leader, the node is left alone.
        let mut early = taken_over();
        early.node("demo-0").leader = None;
        early.node("demo-0").is_leader = false;
        let mut node = former.clone();
        (node.leader, node.ready) = (None, false);
        early
            .seen
            .nodes
            .insert("demo-1".to_owned(), ProbeResult::Ok(node));
        assert_eq!(early.action(), None);
        assert_eq!(early.condition("Degraded").1, "QuorumUnavailable");
        let (action, reason) = answers(Some("demo-2"));
        assert_eq!((action, reason.as_str()), (None, "ForeignData"));
    }

    #[test]
    fn a_quorum_goes_before_it() {
        let mut fixture = Fixture::running(3, 0);
        fixture.node("demo-2").lineage = Some(lineage_of("made-by-hand", 1));
        fixture.node("demo-2").leader = None;
        annotate(&mut fixture, "made-by-hand/1");
        let before = fixture.status().lineage;
        for _ in 0..3 {
            assert_eq!(fixture.reconcile().action, None);
        }
        assert_eq!(fixture.status().lineage, before);
        let (_, reason, message) = fixture.condition("Degraded");
        assert_eq!(reason, RECOVERED_BY_HAND);
        assert!(
            message.contains("kubectl delete pvc data-demo-2 -n shop"),
            "{message}"
        );
    }

    #[test]
    fn another_cluster_is_none_of_it() {
        let mut fixture = by_hand();
        fixture.node("demo-0").cluster_id = Some("another".to_owned());
        fixture.reconcile();
        assert_eq!(fixture.condition("Degraded").1, "ForeignData");
    }
}
