//! Tests of the removal of unknown members.
use operator_api::cluster::Reaping;

use super::*;
use crate::cluster::fixture::Fixture;

const ADDRESS: &str = "10.9.9.9:4002";

fn removed(fixture: &mut Fixture) -> Option<String> {
    match fixture.action() {
        Some(Action::RemoveMember { name, .. }) => Some(name),
        None => None,
        other => panic!("{other:?}"),
    }
}

/// Removes it and lets it be gone.
fn remove_now(fixture: &mut Fixture, name: &str) {
    assert_eq!(removed(fixture).as_deref(), Some(name));
    fixture.leave(name);
    fixture.reconcile();
}

#[test]
fn it_is_told_at_once_and_removed() {
    for voter in [true, false] {
        let mut fixture = Fixture::running(3, 1);
        fixture.join("rogue", voter, ADDRESS);
        let first = fixture.reconcile();
        let event = first.event.unwrap();
        assert!(
            event.warning && event.reason == "UnknownMember",
            "{event:?}"
        );
        assert!(
            event.message.contains("rogue#i0 at 10.9.9.9:4002"),
            "{event:?}"
        );
        let (unknown, reason, text) = fixture.condition("UnknownMember");
        assert!(unknown && text.contains("rogue#i0"), "{text}");
        assert_eq!(reason == "UnknownVoter", voter, "{reason}");
        let ready = fixture.condition("Ready");
        assert!(!ready.0 && ready.1 == "UnknownMember", "{ready:?}");
        let known = &fixture.status().unknown_members[0];
        assert_eq!((known.name.as_str(), known.voter), ("rogue", voter));
        assert_eq!(known.address.as_deref(), Some(ADDRESS));
        remove_now(&mut fixture, "rogue");
        fixture.reconcile();
        assert!(!fixture.condition("UnknownMember").0);
        assert!(fixture.condition("Ready").0, "{:?}", fixture.status());
        assert!(fixture.status().unknown_members.is_empty());
    }
}

#[test]
fn one_that_comes_back_waits_longer_each_time() {
    let mut fixture = Fixture::running(3, 0);
    let mut waits = Vec::new();
    for _ in 0..7 {
        fixture.join("rogue", true, ADDRESS);
        let first = fixture.reconcile();
        assert_eq!(first.event.unwrap().reason, "UnknownMember");
        let from = fixture.seen.now.0.as_second();
        while fixture.reconcile().action.is_none() {
            let waited = fixture.seen.now.0.as_second() - from;
            assert!(waited < 100, "never removed: {:?}", fixture.status());
        }
        waits.push(fixture.seen.now.0.as_second() - from);
        fixture.leave("rogue");
        fixture.reconcile();
    }
    assert!(waits[0] <= 3 && waits[1] <= 3, "{waits:?}");
    assert!(
        waits.is_sorted() && *waits.last().unwrap() <= 63,
        "{waits:?}"
    );
    assert_eq!(fixture.status().unknown_removals.unwrap().count, 7);
    fixture.later(3600);
    fixture.join("rogue", true, ADDRESS);
    remove_now(&mut fixture, "rogue");
    assert_eq!(fixture.status().unknown_removals.unwrap().count, 1);
}

#[test]
fn only_if_the_own_voters_are_a_quorum_without_it() {
    let mut fixture = Fixture::running(3, 0);
    fixture.join("rogue", true, ADDRESS);
    fixture.node("demo-1").ready = false;
    fixture.node("demo-2").ready = false;
    assert_eq!(removed(&mut fixture), None);
    let (_, _, text) = fixture.condition("UnknownMember");
    assert!(text.contains("1 of 4 voters take part"), "{text}");
    fixture.node("demo-1").ready = true;
    assert_eq!(removed(&mut fixture).as_deref(), Some("rogue"));
}

#[test]
fn all_of_many_dead_ones_first() {
    let mut fixture = Fixture::running(3, 0);
    for name in ["rogue0", "rogue1", "rogue2"] {
        fixture.join(name, true, ADDRESS);
    }
    fixture.join("reader", false, ADDRESS);
    let away = &mut fixture.node("demo-0").unreachable_seconds;
    away.insert("rogue2#i0".to_owned(), 9);
    for name in ["rogue2", "rogue0", "rogue1", "reader"] {
        let removal = (0..90).find_map(|_| fixture.reconcile().action);
        let Some(Action::RemoveMember { name: gone, .. }) = removal else {
            panic!("{removal:?}")
        };
        assert_eq!(gone, name);
        fixture.leave(name);
    }
}

#[test]
fn a_reader_may_be_kept_and_a_voter_may_not() {
    let mut fixture = Fixture::running(3, 0);
    fixture.seen.cluster.spec.reaping = Some(Reaping {
        keep_unknown_readers: true,
        ..Reaping::default()
    });
    fixture.join("analytics", false, ADDRESS);
    assert_eq!(removed(&mut fixture), None);
    let kept = fixture.condition("UnknownMember");
    assert!(kept.0 && kept.1 == "Kept", "{kept:?}");
    assert!(fixture.condition("Ready").0);
    fixture.join("rogue", true, ADDRESS);
    assert_eq!(removed(&mut fixture).as_deref(), Some("rogue"));
}

#[test]
fn one_that_leads_is_asked_through_a_member() {
    let mut fixture = Fixture::running(3, 0);
    fixture.join("rogue", true, ADDRESS);
    for name in ["demo-0", "demo-1", "demo-2"] {
        let node = fixture.node(name);
        (node.is_leader, node.leader) = (false, Some("rogue".to_owned()));
    }
    match fixture.action() {
        Some(Action::RemoveMember { leader, name, .. }) => {
            assert_eq!((leader.as_str(), name.as_str()), ("demo-0", "rogue"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_while_paused_or_recovering() {
    let mut fixture = Fixture::running(3, 0);
    fixture.seen.cluster.spec.paused = true;
    fixture.join("rogue", true, ADDRESS);
    assert_eq!(fixture.reconcile().event.unwrap().reason, "UnknownMember");
    assert_eq!(removed(&mut fixture), None);
    assert!(fixture.condition("UnknownMember").0);
}

#[test]
fn its_vote_counts_as_missing_until_it_is_gone() {
    let mut fixture = Fixture::running(3, 0);
    fixture.join("rogue", true, ADDRESS);
    let budget = |fixture: &mut Fixture| {
        let plan = fixture.reconcile();
        plan.objects.iter().find_map(|object| match object {
            crate::cluster::render::build::Object::PodDisruptionBudget(budget) => {
                budget.spec.clone().unwrap().min_available
            }
            _ => None,
        })
    };
    let three = k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(3);
    assert_eq!(budget(&mut fixture), Some(three), "a quorum of four");
    // Its removal has to wait for another reason: nothing else is begun meanwhile.
    fixture.node("demo-2").ready = false;
    fixture.node("demo-1").ready = false;
    fixture.seen.cluster.spec.replicas = 1;
    fixture.seen.cluster.spec.termination_grace_period_seconds = 77;
    fixture.keeps_pods = true;
    for _ in 0..4 {
        let action = fixture.reconcile().action;
        let harmless = match &action {
            None => true,
            Some(Action::DeletePod { name, .. }) => name != "demo-0",
            Some(_) => false,
        };
        assert!(harmless, "{action:?}");
    }
}
