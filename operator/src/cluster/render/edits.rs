//! Changes by others to the operator's objects: they are reverted, and a condition and an event say where to
//! make them instead.
use operator_api::{recovery::RecoveryPhase, status::Pool};

use crate::cluster::facts::{observation::Edit, view::View};

/// Reason of the condition and the event.
pub const REASON: &str = "EditedByOthers";

/// A change by hand of the number of voter pods: it is not the number that the operator has set last. For a
/// StatefulSet from before that number was noted, it is the recorded one without an operation under way.
pub fn changed_replicas(view: &View<'_>) -> Option<Edit> {
    let (set, target) = (view.set(Pool::Voter)?, view.target()?);
    let rejoins = view
        .status
        .recovery
        .as_ref()
        .is_some_and(|record| record.phase == RecoveryPhase::Rejoining);
    let idle = view.operation().is_none() && !view.is_hibernating() && !rejoins;
    let changed = match set.replicas_set {
        Some(last) => set.replicas != last,
        None => idle && view.is_formed() && set.replicas != target.replicas,
    };
    changed.then(|| Edit {
        kind: "StatefulSet".to_owned(),
        name: view.set_name(Pool::Voter),
        field: "spec.replicas".to_owned(),
        value: Some(set.replicas.to_string()),
        by: None,
        times: 1,
    })
}

/// Describes a change, and where to make it instead.
pub fn describe(cluster: &str, namespace: &str, edit: &Edit) -> String {
    let by = match &edit.by {
        Some(by) => format!(" by {by}"),
        None => String::new(),
    };
    let to = match &edit.value {
        Some(value) => format!(" to {value}"),
        None => String::new(),
    };
    // Without the number: a message that changes would be a new event each time.
    let times = if edit.times > 1 { " repeatedly" } else { "" };
    let remedy = if edit.field == "spec.replicas" {
        format!("kubectl scale rqlitecluster {cluster} -n {namespace} --replicas=N")
    } else {
        format!(
            "kubectl edit rqlitecluster {cluster} -n {namespace}, or pause the operator first: kubectl annotate rqlitecluster {cluster} -n {namespace} {}=true",
            operator_api::names::PAUSED_ANNOTATION
        )
    };
    let repeated = if edit.times > 1 {
        ". Whatever changes it repeatedly (an autoscaler, a tool that syncs manifests) must leave this object alone"
    } else {
        ""
    };
    format!(
        "{} of {} {} was changed{to}{by}{times} and has been reverted: it is derived from the RqliteCluster. Change that instead: {remedy}{repeated}",
        edit.field, edit.kind, edit.name
    )
}

/// Recent changes by others, for a condition.
pub fn problem(view: &View<'_>) -> Option<String> {
    let namespace = view.seen.cluster.metadata.namespace.as_deref();
    let namespace = namespace.unwrap_or("default");
    let described: Vec<String> = view
        .seen
        .edits
        .iter()
        .map(|edit| describe(view.name, namespace, edit))
        .collect();
    (!described.is_empty()).then(|| described.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fixture::Fixture;

    fn edit(field: &str, by: Option<&str>, times: u32) -> Edit {
        Edit {
            kind: "StatefulSet".to_owned(),
            name: "demo".to_owned(),
            field: field.to_owned(),
            value: (field == "spec.replicas").then(|| "5".to_owned()),
            by: by.map(str::to_owned),
            times,
        }
    }

    #[test]
    fn a_number_of_pods_that_the_operator_has_not_set() {
        let mut fixture = Fixture::running(3, 0);
        assert_eq!(fixture.reconcile().edits, []);
        // A change of the spec is none, at any step.
        fixture.seen.cluster.spec.replicas = 5;
        for _ in 0..4 {
            assert_eq!(fixture.reconcile().edits, []);
        }
        for replicas in [2, 5] {
            let mut fixture = Fixture::running(3, 0);
            fixture.seen.voters.as_mut().unwrap().replicas = replicas;
            let edits = fixture.reconcile().edits;
            assert_eq!(edits.len(), 1);
            assert_eq!(edits[0].value, Some(replicas.to_string()));
        }
        let mut asleep = Fixture::running(3, 0);
        asleep.seen.cluster.spec.hibernated = true;
        for _ in 0..4 {
            assert_eq!(asleep.reconcile().edits, []);
        }
        // Where the number that was set last is known, nothing else is needed, and nothing else counts.
        let mut noted = Fixture::running(3, 0);
        let set = noted.seen.voters.as_mut().unwrap();
        (set.replicas, set.replicas_set) = (1, Some(1));
        assert_eq!(noted.reconcile().edits, [], "the operator's own");
        noted.seen.voters.as_mut().unwrap().replicas = 3;
        noted.seen.cluster.spec.replicas = 5;
        for _ in 0..4 {
            assert_eq!(noted.reconcile().edits.len(), 1);
        }
        let mut paused = Fixture::running(3, 0);
        paused.seen.cluster.spec.paused = true;
        paused.seen.voters.as_mut().unwrap().replicas = 5;
        assert_eq!(paused.reconcile().edits, [], "it is not set back");
    }

    #[test]
    fn what_is_told() {
        let mut fixture = Fixture::running(3, 0);
        fixture.seen.edits = vec![edit("spec.replicas", Some("kubectl"), 1)];
        fixture.reconcile();
        let (hint, reason, message) = fixture.condition("Advisory");
        assert_eq!((hint, reason.as_str()), (true, REASON));
        let expected = "spec.replicas of StatefulSet demo was changed to 5 by kubectl and has been reverted: it is derived from the RqliteCluster. \
             Change that instead: kubectl scale rqlitecluster demo -n shop --replicas=N. Runbook: edited-by-others";
        assert_eq!(message, expected);
        assert!(fixture.condition("Ready").0, "it costs nothing");
        let repeated = |times| describe("demo", "shop", &edit("spec.template", None, times));
        assert!(
            repeated(1).contains("kubectl edit rqlitecluster demo -n shop"),
            "{}",
            repeated(1)
        );
        assert!(
            repeated(2).contains("repeatedly") && repeated(2).contains("leave this object alone")
        );
        assert_eq!(repeated(2), repeated(3), "one event, not one for each time");
    }
}
