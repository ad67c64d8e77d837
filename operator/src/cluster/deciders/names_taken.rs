//! A new cluster whose objects' names are taken by objects of others: it waits, and takes nothing over.
use operator_api::{names, status::Pool};

use crate::cluster::{
    action::Decision,
    facts::{ownership, view::View},
};

/// Waits while pods cannot be created because an object that is not the cluster's has a name that they need.
/// A cluster that has pods continues; its conditions report what is missing.
pub fn decide(view: &View<'_>) -> Decision {
    let taken = &view.seen.taken;
    let voters = names::voters(view.name);
    let blocks = |kind: &str, name: &str| {
        ownership::is_needed_by_pods(view.name, kind, name)
            || (kind == "StatefulSet" && name == voters)
    };
    let blocked = taken.iter().any(|one| blocks(&one.kind, &one.name));
    if !blocked || view.set(Pool::Voter).is_some() {
        return Decision::Continue;
    }
    let text = ownership::describe(&view.seen.cluster, taken);
    if taken.iter().all(|one| one.former) {
        Decision::Wait(text)
    } else {
        Decision::Blocked(ownership::REASON, text)
    }
}

#[cfg(test)]
mod tests {
    use crate::cluster::{facts::observation::TakenName, fixture::Fixture};

    fn taken(kind: &str, name: &str, former: bool) -> TakenName {
        TakenName {
            kind: kind.to_owned(),
            name: name.to_owned(),
            owner: former.then(|| "RqliteCluster demo".to_owned()),
            former,
        }
    }

    fn new_cluster(taken: Vec<TakenName>) -> Fixture {
        let mut fixture = Fixture::running(3, 0);
        fixture.seen.cluster.status = None;
        fixture.seen.voters = None;
        fixture.seen.pods.clear();
        fixture.seen.nodes.clear();
        fixture.seen.taken = taken;
        fixture
    }

    #[test]
    fn a_new_cluster_gets_no_identity_before_its_names_are_free() {
        let mut fixture = new_cluster(vec![taken("ConfigMap", "demo-state", false)]);
        let plan = fixture.reconcile();
        assert_eq!(plan.objects, []);
        assert!(fixture.status().cluster_id.is_none());
        for kind in ["Ready", "Available"] {
            let (status, reason, _) = fixture.condition(kind);
            assert_eq!((status, reason.as_str()), (false, "NameTaken"), "{kind}");
        }
        let (degraded, reason, message) = fixture.condition("Degraded");
        assert_eq!((degraded, reason.as_str()), (true, "NameTaken"));
        assert!(message.contains("ConfigMap demo-state"), "{message}");
        assert!(plan.event.is_some_and(|event| event.warning));
        fixture.seen.taken.clear();
        fixture.reconcile();
        assert!(
            fixture.status().cluster_id.is_some(),
            "it continues automatically"
        );
    }

    #[test]
    fn what_goes_with_a_former_cluster_is_waited_for() {
        let mut fixture = new_cluster(vec![taken("StatefulSet", "demo", true)]);
        let plan = fixture.reconcile();
        assert!(fixture.status().cluster_id.is_none());
        assert_eq!(plan.event, None, "this ends by itself");
        let (_, _, message) = fixture.condition("Progressing");
        assert!(message.contains("garbage collector"), "{message}");
    }

    #[test]
    fn only_what_pods_need_stops_a_new_cluster() {
        for (kind, name, stops) in [
            ("ServiceAccount", "demo-rqlite", true),
            ("StatefulSet", "demo", true),
            ("StatefulSet", "demo-ro", false),
            ("Service", "demo-headless", true),
            ("Service", "demo-client", false),
        ] {
            let mut fixture = new_cluster(vec![taken(kind, name, false)]);
            fixture.reconcile();
            assert_eq!(
                fixture.status().cluster_id.is_none(),
                stops,
                "{kind} {name}"
            );
        }
    }

    #[test]
    fn a_running_cluster_goes_on_and_says_it() {
        for (kind, name) in [("Service", "demo-client"), ("ConfigMap", "demo-state")] {
            let mut fixture = Fixture::running(3, 0);
            fixture.seen.taken = vec![taken(kind, name, false)];
            fixture.seen.cluster.spec.replicas = 5;
            let plan = fixture.reconcile();
            assert!(fixture.status().operation.is_some(), "{}", plan.summary);
            fixture.seen.cluster.spec.replicas = 3;
            let mut fixture = Fixture::running(3, 0);
            fixture.seen.taken = vec![taken(kind, name, false)];
            let plan = fixture.reconcile();
            assert!(plan.again_after_seconds < 10, "it looks again soon");
            assert!(fixture.condition("Available").0);
            for (condition, status) in
                [("Degraded", true), ("Progressing", false), ("Ready", false)]
            {
                let (found, reason, message) = fixture.condition(condition);
                assert_eq!(
                    (found, reason.as_str()),
                    (status, "NameTaken"),
                    "{condition}"
                );
                assert!(message.contains(name), "{message}");
            }
        }
    }
}
