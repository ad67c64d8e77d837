//! Tests of the removal of configuration entries without a node.
use super::*;
use crate::cluster::{facts::observation::ConfigMember, fixture::Fixture};

fn orphan(fixture: &mut Fixture, name: &str, voter: bool) {
    for node in ["demo-0", "demo-1", "demo-2"] {
        fixture.node(node).config.push(ConfigMember {
            raft_id: format!("{name}#i0"),
            name: name.to_owned(),
            voter,
        });
    }
}

fn removes(fixture: &mut Fixture) -> Option<String> {
    match fixture.action() {
        Some(Action::RemoveMember { name, .. }) => Some(name),
        None => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn beyond_the_pools_and_without_a_pod() {
    let mut fixture = Fixture::running(3, 0);
    orphan(&mut fixture, "demo-ro-4", false);
    assert_eq!(removes(&mut fixture).as_deref(), Some("demo-ro-4"));
    let mut fixture = Fixture::running(3, 0);
    orphan(&mut fixture, "demo-7", true);
    assert_eq!(removes(&mut fixture).as_deref(), Some("demo-7"));
}

#[test]
fn a_kept_reader_only_by_the_leaders_own_clock() {
    let mut fixture = Fixture::running(3, 0);
    fixture.seen.cluster.spec.reaping = Some(Reaping {
        keep_unknown_readers: true,
        ..Reaping::default()
    });
    orphan(&mut fixture, "elsewhere", false);
    fixture.later(10_000_000);
    assert_eq!(
        removes(&mut fixture),
        None,
        "the operator's clock proves nothing"
    );
    let unreachable = |fixture: &mut Fixture, seconds| {
        let unreachable = &mut fixture.node("demo-0").unreachable_seconds;
        unreachable.insert("elsewhere#i0".to_owned(), seconds);
    };
    unreachable(&mut fixture, 30 * 60 - 1);
    assert_eq!(removes(&mut fixture), None);
    unreachable(&mut fixture, 30 * 60);
    assert_eq!(removes(&mut fixture).as_deref(), Some("elsewhere"));
}

#[test]
fn one_voter_at_a_time() {
    let mut fixture = Fixture::running(3, 0);
    orphan(&mut fixture, "demo-8", true);
    assert_eq!(removes(&mut fixture).as_deref(), Some("demo-8"));
    for node in ["demo-0", "demo-1", "demo-2"] {
        fixture.node(node).config.retain(|m| m.name != "demo-8");
    }
    orphan(&mut fixture, "demo-7", true);
    assert_eq!(removes(&mut fixture), None);
    fixture.later(300);
    assert_eq!(removes(&mut fixture).as_deref(), Some("demo-7"));
}

#[test]
fn never_below_what_a_quorum_needs() {
    let mut fixture = Fixture::running(3, 0);
    orphan(&mut fixture, "demo-7", true);
    fixture.unreachable("demo-2");
    // Two of four take part.
    assert_eq!(removes(&mut fixture), None);
}
