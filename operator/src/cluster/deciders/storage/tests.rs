use super::*;
use crate::cluster::scene::Scene;
use operator_api::status::STORAGE_READY;

fn larger(class: &str, may_grow: Option<bool>) -> Scene {
    let mut scene = Scene::running(2, 0);
    for claim in &mut scene.seen.claims {
        claim.class = Some(class.to_owned());
    }
    if let Some(may_grow) = may_grow {
        scene.seen.expandable.insert(class.to_owned(), may_grow);
    }
    scene.seen.cluster.spec.storage.size = ByteSize::from("20Gi");
    scene
}

#[test]
fn every_claim_grows_and_then_the_set_is_made_anew_around_its_pods() {
    let mut scene = larger("fast", Some(true));
    for name in ["demo-0", "demo-1"] {
        let grown = scene.action();
        assert!(
            matches!(&grown, Some(Action::ExpandClaim { uid, size, .. }) if *uid == format!("claim-{name}") && size == "20Gi"),
            "{grown:?}"
        );
        scene.claim(name).requested = "20Gi".to_owned();
    }
    let (ready, reason, _) = scene.condition(STORAGE_READY);
    assert!(!ready && reason == "Expanding", "{reason}");
    let uid = scene.seen.voters.as_ref().unwrap().uid.clone();
    assert!(
        matches!(scene.action(), Some(Action::DeleteStatefulSet { uid: u, orphan: true, .. }) if u == uid)
    );
    // In the gap nothing else happens.
    let set = scene.seen.voters.take();
    scene.seen.cluster.spec.replicas = 5;
    assert_eq!(scene.action(), None);
    let made = scene.seen.voters.insert(set.unwrap());
    (made.uid, made.claim_size) = ("set-new".to_owned(), "20Gi".to_owned());
    scene.seen.cluster.spec.replicas = 2;
    assert_eq!(scene.action(), None);
    assert_eq!(scene.status().operation, None);
}

#[test]
fn what_cannot_grow_is_told_and_holds_nothing_up() {
    let mut scene = larger("fixed", Some(false));
    assert_eq!(scene.action(), None);
    let (ready, reason, text) = scene.condition(STORAGE_READY);
    assert!(!ready && reason == "ExpansionNotAllowed", "{text}");
    assert!(text.contains("allowVolumeExpansion"), "{text}");
    // A class that cannot be read is asked.
    let mut scene = larger("unknown", None);
    assert!(matches!(scene.action(), Some(Action::ExpandClaim { .. })));
}

#[test]
fn nothing_ever_shrinks() {
    for size in ["5Gi", "10Gi", "what"] {
        let mut scene = Scene::running(2, 0);
        scene.seen.cluster.spec.storage.size = ByteSize::from(size);
        assert_eq!(scene.action(), None, "{size}");
    }
}

#[test]
fn a_pool_that_is_not_wanted_any_more_is_made_anew_to_take_its_pods_away() {
    let mut scene = Scene::running(1, 1);
    scene.seen.cluster.spec.storage.size = ByteSize::from("20Gi");
    for name in ["demo-0", "demo-ro-0"] {
        scene.claim(name).requested = "20Gi".to_owned();
    }
    scene.seen.voters.as_mut().unwrap().claim_size = "20Gi".to_owned();
    let action = scene.action();
    assert!(
        matches!(&action, Some(Action::DeleteStatefulSet { name, .. }) if name == "demo-ro"),
        "{action:?}"
    );
    let mut set = scene.seen.readers.take().unwrap();
    scene.seen.cluster.spec.read_replicas = None;
    let made = scene.pass().objects.into_iter().find_map(|object| {
        let crate::cluster::render::build::Object::StatefulSet(set) = object else {
            return None;
        };
        let is_it = set.metadata.name.as_deref() == Some("demo-ro");
        is_it.then(|| set.spec.unwrap().replicas)
    });
    assert_eq!(made, Some(Some(0)));
    (set.uid, set.replicas) = ("set-new".to_owned(), 0);
    scene.seen.readers = Some(set);
    scene.pass();
    assert_eq!(scene.status().operation, None);
}
