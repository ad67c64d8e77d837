//! Tests of unknown members: who is one, who leads, and the quorum arithmetic with them.
use operator_api::status::{Member, MemberState, Pool, Role};

use super::*;
use crate::cluster::{
    facts::observation::ProbeResult,
    fixture::{Fixture, NAME},
};

const OWN: &str = "demo-1.demo-headless.shop.svc.cluster.local:4002";
const FOREIGN: &str = "10.9.9.9:4002";

fn view_of<T>(fixture: &Fixture, work: impl FnOnce(&View<'_>) -> T) -> T {
    work(&View::of(&fixture.seen))
}

/// The entry `name` of every node's configuration has this Raft id and address.
fn replace_entry(fixture: &mut Fixture, name: &str, raft_id: &str, address: &str) {
    for answer in fixture.seen.nodes.values_mut() {
        let ProbeResult::Ok(node) = answer else {
            continue;
        };
        for member in node.config.iter_mut().filter(|m| m.name == name) {
            raft_id.clone_into(&mut member.raft_id);
        }
        node.addresses
            .insert(raft_id.to_owned(), address.to_owned());
    }
}

fn unknown(fixture: &Fixture) -> Vec<String> {
    view_of(fixture, |view| {
        let unknown = view.unknown_members().into_iter();
        unknown.map(|m| m.raft_id.clone()).collect()
    })
}

#[test]
fn who_is_unknown() {
    let fixture = Fixture::running(3, 2);
    assert!(unknown(&fixture).is_empty(), "{:?}", unknown(&fixture));
    // Any other name, whatever its address, reader or voter.
    for (name, voter, address) in [
        ("rogue", true, FOREIGN),
        ("rogue", false, ""),
        ("demo-x", true, OWN),
        ("demo-ro-01", false, FOREIGN),
    ] {
        let mut fixture = Fixture::running(3, 2);
        fixture.join(name, voter, address);
        assert_eq!(unknown(&fixture), [format!("{name}#i0")], "{address}");
    }
    // The next pod of a pool, as a scale-up or an autoscaler creates it: its node does not answer yet.
    for (name, address) in [
        ("demo-3", "demo-3.demo-headless.shop.svc.cluster.local:4002"),
        (
            "demo-ro-2",
            "demo-ro-2.demo-headless.shop.svc.other.domain:4002",
        ),
        ("demo-3", ""),
    ] {
        let mut fixture = Fixture::running(3, 2);
        fixture.join(name, true, address);
        assert!(unknown(&fixture).is_empty(), "{name} {address}");
    }
    // The name of a pod that does not exist, elsewhere.
    let mut fixture = Fixture::running(3, 2);
    fixture.join("demo-7", true, FOREIGN);
    assert_eq!(unknown(&fixture), ["demo-7#i0"]);
}

#[test]
fn a_pods_name_taken_while_it_was_away() {
    // Its pod is down, and was seen with another Raft id.
    let mut fixture = Fixture::running(3, 0);
    fixture.down("demo-1", "ImagePullBackOff");
    replace_entry(&mut fixture, "demo-1", "demo-1#stolen", FOREIGN);
    assert_eq!(unknown(&fixture), ["demo-1#stolen"]);
    // Still after the report has replaced the record, and while its pod cannot join.
    fixture.reconcile();
    assert_eq!(unknown(&fixture), ["demo-1#stolen"]);
    fixture.node("demo-0").unreachable_seconds = [("demo-1#stolen".to_owned(), 99)].into();
    assert_eq!(unknown(&fixture), ["demo-1#stolen"], "it is on record");
    // A pod that lost its disk and joins under its own address.
    let mut fixture = Fixture::running(3, 0);
    fixture.down("demo-1", "");
    replace_entry(&mut fixture, "demo-1", "demo-1#new", OWN);
    assert!(unknown(&fixture).is_empty());
    // Addresses that a person wrote into peers.json: the leader does not reach it, or its pod is ready.
    let mut fixture = Fixture::running(3, 0);
    fixture.down("demo-1", "");
    replace_entry(&mut fixture, "demo-1", "demo-1#manual", FOREIGN);
    fixture.node("demo-0").unreachable_seconds = [("demo-1#manual".to_owned(), 99)].into();
    assert!(unknown(&fixture).is_empty());
    let mut fixture = Fixture::running(3, 0);
    fixture.unreachable("demo-1");
    replace_entry(&mut fixture, "demo-1", "demo-1#manual", FOREIGN);
    assert!(unknown(&fixture).is_empty(), "the operator is cut off");
}

#[test]
fn a_former_member_of_a_pod_is_known() {
    let mut fixture = Fixture::running(3, 0);
    fixture.join("old-name-1", true, FOREIGN);
    let member = Member {
        role: Role::Voter,
        state: MemberState::Recoverable,
        raft_id: Some("old-name-1#i0".to_owned()),
        claim_uid: Some("c".to_owned()),
        ..Member::absent("old-name-1", Pool::Voter)
    };
    let status = fixture.seen.cluster.status.as_mut().unwrap();
    status.members.push(member);
    assert!(unknown(&fixture).is_empty());
}

#[test]
fn a_leader_beside_as_many_unknown_voters() {
    // Own voters, own that answer, unknown, unknown that the leader reaches; is there a confirmed leader?
    let cases = [
        (1, 1, 1, 1, true),
        (1, 1, 1, 0, false),
        (3, 3, 2, 0, true),
        (3, 2, 2, 1, true),
        (3, 2, 2, 0, false),
        (3, 3, 3, 1, true),
        (3, 3, 3, 0, false),
        (3, 1, 2, 2, false),
        (3, 2, 6, 6, true),
    ];
    for (own, answering, unknown, reached, led) in cases {
        let mut fixture = Fixture::running(own, 0);
        for n in 0..unknown {
            fixture.join(&format!("rogue{n}"), true, FOREIGN);
            if n >= reached {
                let away = &mut fixture.node("demo-0").unreachable_seconds;
                away.insert(format!("rogue{n}#i0"), 9);
            }
        }
        for n in answering..own {
            fixture.unreachable(&format!("{NAME}-{n}"));
        }
        let case = format!("{own} {answering} {unknown} {reached}");
        assert_eq!(view_of(&fixture, |v| v.leader.is_some()), led, "{case}");
    }
}

#[test]
fn who_may_be_removed() {
    // Own voters, own that take part, unknown, unknown that the leader reaches; may the first one go?
    let cases = [
        // The others are a quorum of what remains.
        (3, 3, 1, 1, true),
        (3, 2, 1, 1, true),
        (3, 3, 2, 0, true),
        (5, 4, 2, 2, true),
        (1, 1, 1, 1, true),
        // Too few of the cluster's own: nothing is changed.
        (3, 1, 1, 1, false),
        (5, 2, 1, 1, false),
        (3, 1, 4, 4, false),
        // The own voters are no quorum of what remains, but with those that respond they are.
        (3, 3, 4, 4, true),
        (3, 3, 4, 2, true),
        (1, 1, 2, 2, true),
        (1, 1, 3, 1, false),
    ];
    for (own, there, unknown, reached, may) in cases {
        let mut fixture = Fixture::running(own, 0);
        for n in 0..unknown {
            fixture.join(&format!("rogue{n}"), true, FOREIGN);
            if n >= reached {
                let away = &mut fixture.node("demo-0").unreachable_seconds;
                away.insert(format!("rogue{n}#i0"), 9);
            }
        }
        for n in there..own {
            fixture.node(&format!("{NAME}-{n}")).ready = false;
        }
        let case = format!("{own} {there} {unknown} {reached}");
        let found = view_of(&fixture, |view| {
            let first = view.unknown_members()[0];
            view.may_remove_unknown(first)
        });
        assert_eq!(found, may, "{case}");
    }
}

#[test]
fn one_that_leads() {
    let mut fixture = Fixture::running(3, 0);
    fixture.join("rogue", true, FOREIGN);
    for name in ["demo-0", "demo-1", "demo-2"] {
        let node = fixture.node(name);
        (node.is_leader, node.leader) = (false, Some("rogue".to_owned()));
    }
    view_of(&fixture, |view| {
        assert!(view.leader.is_none());
        let leader = view.unknown_leader().unwrap();
        assert_eq!(leader.member.name, "rogue");
        assert_eq!(leader.contact, "demo-0");
    });
    fixture.unreachable("demo-1");
    fixture.node("demo-2").leader = None;
    assert!(view_of(&fixture, |view| view.unknown_leader().is_none()));
}

#[test]
fn it_adds_no_pods() {
    let mut fixture = Fixture::running(3, 0);
    fixture.join("demo-8", true, FOREIGN);
    fixture.join("demo-ro-4", true, FOREIGN);
    fixture.reconcile();
    view_of(&fixture, |view| {
        assert_eq!(crate::cluster::facts::pods::pods_of_members(view), 3);
        assert_eq!(crate::cluster::facts::pods::readers_with_a_vote(view), 0);
    });
}
