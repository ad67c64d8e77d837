//! Delays, labels of claims and requests for resources in whole plans.
use super::{SOON_SECONDS, UNHEALTHY_SECONDS};
use crate::cluster::{fixture::Fixture, render::build::Object};

#[test]
fn a_claim_that_is_not_watched_gets_the_label_of_the_cluster_whose_pod_uses_it() {
    let mut fixture = Fixture::running(3, 0);
    assert!(fixture.reconcile().claims.is_empty());
    fixture
        .seen
        .claims
        .retain(|claim| claim.name != "data-demo-1");
    assert_eq!(fixture.reconcile().claims, ["data-demo-1"]);
    fixture.pod("demo-1").deleting = true;
    assert!(fixture.reconcile().claims.is_empty(), "its pod goes");
    fixture.pod("demo-1").deleting = false;
    fixture.seen.cluster.spec.paused = true;
    assert!(fixture.reconcile().claims.is_empty(), "nothing is changed");
}
#[test]
fn an_election_is_looked_at_soon_and_an_outage_less_often() {
    let mut fixture = Fixture::running(3, 0);
    fixture.leaderless();
    assert_eq!(fixture.reconcile().again_after_seconds, SOON_SECONDS);
    fixture.later(70);
    assert_eq!(fixture.reconcile().again_after_seconds, UNHEALTHY_SECONDS);
    let mut fixture = Fixture::running(3, 0);
    fixture.leaderless();
    for name in ["demo-0", "demo-1"] {
        fixture.down(name, "CrashLoopBackOff");
    }
    assert_eq!(fixture.reconcile().again_after_seconds, UNHEALTHY_SECONDS);
}

#[test]
fn pods_ask_for_something_unless_the_spec_says_otherwise() {
    use k8s_openapi::{
        api::core::v1::ResourceRequirements, apimachinery::pkg::api::resource::Quantity,
    };
    let limit = [("memory".to_owned(), Quantity("1Gi".to_owned()))];
    let given = ResourceRequirements {
        limits: Some(limit.into()),
        ..ResourceRequirements::default()
    };
    let nothing = ResourceRequirements::default();
    for (spec, expected) in [
        (None, Some("100m")),
        (Some(nothing), None),
        (Some(given), None),
    ] {
        let mut fixture = Fixture::running(3, 0);
        fixture.seen.cluster.spec.resources = spec.clone();
        let objects = (0..3).flat_map(|_| fixture.reconcile().objects);
        let set = objects.filter_map(|object| match object {
            Object::StatefulSet(set) => Some(set),
            _ => None,
        });
        let pod = set.last().unwrap().spec.unwrap().template.spec.unwrap();
        for container in pod
            .containers
            .iter()
            .chain(pod.init_containers.iter().flatten())
        {
            let requests = container
                .resources
                .as_ref()
                .and_then(|r| r.requests.as_ref());
            let cpu = requests.and_then(|r| r.get("cpu")).map(|q| q.0.as_str());
            assert_eq!(cpu, expected, "{spec:?}");
        }
    }
}
