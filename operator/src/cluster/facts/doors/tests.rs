//! Every combination of TLS and users; Services to the outside.
use serde_json::json;

use super::*;
use crate::cluster::fixture::Fixture;

fn doors(bits: [bool; 5]) -> Doors {
    let [
        node_certificates,
        users,
        client_certificates,
        client_tls,
        anonymous,
    ] = bits;
    Doors {
        node_certificates,
        users,
        anonymous,
        client_certificates,
        client_tls,
    }
}

#[test]
fn only_members_join_in_every_combination_or_it_is_said() {
    for bits in 0..32 {
        let of = |bit: u8| bits & (1 << bit) != 0;
        let one = doors([of(0), of(1), of(2), of(3), of(4)]);
        let said = one.open(&[]).map(|(reason, _)| reason);
        // A certificate, or the password of the nodes' own user, is what a node needs to join.
        let joins = !one.node_certificates && !one.users;
        let queries = (!one.users || one.anonymous) && !one.client_certificates;
        let expected = match (joins, queries) {
            (true, _) => Some("AnyoneMayJoin"),
            (false, true) => Some("AnyoneMayUseSql"),
            (false, false) => None,
        };
        assert_eq!(said, expected, "{one:?}");
        let outside = one.open(&[("client", ServiceKind::LoadBalancer)]);
        let may = one.client_tls && !queries;
        let reason = outside.as_ref().map(|(reason, _)| *reason);
        let expected = if may {
            said
        } else {
            Some("ExposedToTheOutside")
        };
        assert_eq!(reason, expected, "{one:?}");
    }
    let text = |bits| doors(bits).closed();
    assert!(text([false, true, false, false, false]).contains("clear text"));
    assert!(text([true, true, false, true, false]).starts_with("nodes join by certificate; "));
}

/// A cluster of this spec that was created with TLS and users.
fn with(spec: &serde_json::Value) -> Fixture {
    let mut fixture = Fixture::running(3, 0);
    let status = fixture.seen.cluster.status.as_mut().unwrap();
    let tls = json!({"nodes": {"mode": "Required", "stage": "Require"}, "clients": {"mode": "Optional", "stage": "Use"}});
    status.tls = serde_json::from_value(tls).unwrap();
    let users = json!({"mode": "Required", "stage": "Closed"});
    status.authentication = serde_json::from_value(users).unwrap();
    change(&mut fixture, spec);
    fixture
}

fn change(fixture: &mut Fixture, spec: &serde_json::Value) {
    let mut present = serde_json::to_value(&fixture.seen.cluster.spec).unwrap();
    for (name, value) in spec.as_object().unwrap() {
        present[name] = value.clone();
    }
    fixture.seen.cluster.spec = serde_json::from_value(present).unwrap();
}

#[test]
fn a_service_to_the_outside_needs_users_and_tls() {
    let disabled = json!({"mode": "Disabled"});
    let balancer = json!({"client": {"type": "LoadBalancer"}});
    let anonymous = json!({"anonymousPermissions": ["query"]});
    for (spec, expected) in [
        (
            json!({"services": balancer, "authentication": anonymous}),
            Some("services.client of type LoadBalancer"),
        ),
        (json!({"services": balancer}), None),
        (
            json!({"services": balancer, "authentication": disabled}),
            Some("services.client of type LoadBalancer"),
        ),
        (
            json!({"services": balancer, "tls": {"clients": disabled}}),
            Some("services.client of type LoadBalancer"),
        ),
        (
            json!({"services": {"read": {"type": "NodePort"}}, "authentication": disabled}),
            Some("services.read of type NodePort"),
        ),
        (
            json!({"services": {"client": {"type": "ClusterIP"}}, "authentication": disabled}),
            None,
        ),
        (
            json!({"authentication": disabled, "tls": {"nodes": disabled, "clients": disabled}}),
            None,
        ),
    ] {
        let mut fixture = with(&spec);
        let said = mistakes(&View::of(&fixture.seen)).join("; ");
        let plan = fixture.reconcile();
        match expected {
            Some(text) => {
                assert!(said.contains(text), "{spec}: {said}");
                assert!(
                    plan.summary.contains("needs users and TLS"),
                    "{}",
                    plan.summary
                );
                assert_eq!(plan.objects, [], "nothing is changed");
            }
            None => assert_eq!(said, "", "{spec}"),
        }
    }
}

#[test]
fn a_service_of_before_is_kept_and_said_and_another_one_is_refused() {
    let balancer = json!({"services": {"client": {"type": "LoadBalancer"}}});
    let before = |fixture: &mut Fixture| {
        let status = fixture.seen.cluster.status.as_mut().unwrap();
        status.network = None;
        status.tls = None;
        status.authentication = None;
    };
    let mut fixture = with(&balancer);
    before(&mut fixture);
    let plan = fixture.reconcile();
    assert!(!plan.objects.is_empty(), "{}", plan.summary);
    let (open, reason, text) = fixture.condition("OpenToAnyone");
    assert!(open && reason == "ExposedToTheOutside", "{reason}: {text}");
    let status = fixture.status().network.unwrap();
    assert!(status.exposed_before);
    // One that had none gets none.
    let mut fixture = Fixture::running(3, 0);
    before(&mut fixture);
    fixture.reconcile();
    let (open, reason, text) = fixture.condition("OpenToAnyone");
    assert!(open && reason == "AnyoneMayJoin", "{reason}: {text}");
    assert!(text.contains("Runbook: open-to-anyone"), "{text}");
    change(&mut fixture, &balancer);
    assert_eq!(fixture.reconcile().objects, []);
    let (_, reason, _) = fixture.condition("Degraded");
    assert_eq!(reason, "InvalidSpec");
}

#[test]
fn a_new_cluster_is_closed() {
    let fixture = with(&json!({}));
    let (open, reason, text) = condition(&View::of(&fixture.seen));
    assert!(!open && reason == "Closed", "{reason}: {text}");
    assert!(text.starts_with("nodes join by certificate; "), "{text}");
    let off = json!({"authentication": {"mode": "Disabled"}});
    let (open, reason, text) = condition(&View::of(&with(&off).seen));
    assert!(!open && reason == "Opening", "{reason}: {text}");
}
