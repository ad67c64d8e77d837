use super::*;
use crate::cluster::{facts::observation::ConfigMember, scene::Scene};

fn ghost(scene: &mut Scene, name: &str, voter: bool) {
    for node in ["demo-0", "demo-1", "demo-2"] {
        scene.node(node).config.push(ConfigMember {
            raft_id: format!("{name}#i0"),
            name: name.to_owned(),
            voter,
        });
    }
}

fn removes(scene: &mut Scene) -> Option<String> {
    match scene.action() {
        Some(Action::RemoveMember { name, .. }) => Some(name),
        None => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn beyond_the_pools_and_without_a_pod() {
    let mut scene = Scene::running(3, 0);
    ghost(&mut scene, "demo-ro-4", false);
    assert_eq!(removes(&mut scene).as_deref(), Some("demo-ro-4"));
    let mut scene = Scene::running(3, 0);
    ghost(&mut scene, "demo-7", true);
    assert_eq!(removes(&mut scene).as_deref(), Some("demo-7"));
}

#[test]
fn a_stranger_only_by_the_leaders_own_clock() {
    let mut scene = Scene::running(3, 0);
    ghost(&mut scene, "elsewhere", true);
    scene.later(10_000_000);
    assert_eq!(
        removes(&mut scene),
        None,
        "the operator's clock proves nothing"
    );
    let silent = |scene: &mut Scene, seconds| {
        let silences = &mut scene.node("demo-0").unreachable_seconds;
        silences.insert("elsewhere#i0".to_owned(), seconds);
    };
    silent(&mut scene, 72 * 3600 - 1);
    assert_eq!(removes(&mut scene), None);
    silent(&mut scene, 72 * 3600);
    assert_eq!(removes(&mut scene).as_deref(), Some("elsewhere"));
}

#[test]
fn one_voter_at_a_time() {
    let mut scene = Scene::running(3, 0);
    ghost(&mut scene, "demo-8", true);
    assert_eq!(removes(&mut scene).as_deref(), Some("demo-8"));
    for node in ["demo-0", "demo-1", "demo-2"] {
        scene.node(node).config.retain(|m| m.name != "demo-8");
    }
    ghost(&mut scene, "demo-7", true);
    assert_eq!(removes(&mut scene), None);
    scene.later(300);
    assert_eq!(removes(&mut scene).as_deref(), Some("demo-7"));
}

#[test]
fn never_below_what_a_quorum_needs() {
    let mut scene = Scene::running(3, 0);
    ghost(&mut scene, "demo-7", true);
    scene.silent("demo-2");
    // Two of four take part.
    assert_eq!(removes(&mut scene), None);
}
