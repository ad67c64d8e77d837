//! Tests of the growth of volumes.
use super::*;
use crate::cluster::fixture::Fixture;
use operator_api::status::STORAGE_READY;

fn larger(class: &str, may_grow: Option<bool>) -> Fixture {
    let mut fixture = Fixture::running(2, 0);
    for claim in &mut fixture.seen.claims {
        claim.class = Some(class.to_owned());
    }
    if let Some(may_grow) = may_grow {
        fixture.seen.expandable.insert(class.to_owned(), may_grow);
    }
    fixture.seen.cluster.spec.storage.size = ByteSize::from("20Gi");
    fixture
}

#[test]
fn every_claim_grows_and_then_the_set_is_made_anew_around_its_pods() {
    let mut fixture = larger("fast", Some(true));
    for name in ["demo-0", "demo-1"] {
        let grown = fixture.action();
        assert!(
            matches!(&grown, Some(Action::ExpandClaim { uid, size, .. }) if *uid == format!("claim-{name}") && size == "20Gi"),
            "{grown:?}"
        );
        fixture.claim(name).requested = "20Gi".to_owned();
    }
    let (ready, reason, _) = fixture.condition(STORAGE_READY);
    assert!(!ready && reason == "Expanding", "{reason}");
    let uid = fixture.seen.voters.as_ref().unwrap().uid.clone();
    assert!(
        matches!(fixture.action(), Some(Action::DeleteStatefulSet { uid: u, orphan: true, .. }) if u == uid)
    );
    // While the StatefulSet is missing nothing else happens.
    let set = fixture.seen.voters.take();
    fixture.seen.cluster.spec.replicas = 5;
    assert_eq!(fixture.action(), None);
    let made = fixture.seen.voters.insert(set.unwrap());
    (made.uid, made.claim_size) = ("set-new".to_owned(), "20Gi".to_owned());
    fixture.seen.cluster.spec.replicas = 2;
    assert_eq!(fixture.action(), None);
    assert_eq!(fixture.status().operation, None);
}

#[test]
fn what_cannot_grow_is_told_and_holds_nothing_up() {
    let mut fixture = larger("fixed", Some(false));
    assert_eq!(fixture.action(), None);
    let (ready, reason, text) = fixture.condition(STORAGE_READY);
    assert!(!ready && reason == "ExpansionNotAllowed", "{text}");
    assert!(text.contains("allowVolumeExpansion"), "{text}");
    // For a class that cannot be read, the request is raised.
    let mut fixture = larger("unknown", None);
    assert!(matches!(fixture.action(), Some(Action::ExpandClaim { .. })));
}

#[test]
fn nothing_ever_shrinks() {
    for size in ["5Gi", "10Gi", "what"] {
        let mut fixture = Fixture::running(2, 0);
        fixture.seen.cluster.spec.storage.size = ByteSize::from(size);
        assert_eq!(fixture.action(), None, "{size}");
    }
}

#[test]
fn a_pool_that_is_not_wanted_any_more_is_made_anew_to_take_its_pods_away() {
    let mut fixture = Fixture::running(1, 1);
    fixture.seen.cluster.spec.storage.size = ByteSize::from("20Gi");
    for name in ["demo-0", "demo-ro-0"] {
        fixture.claim(name).requested = "20Gi".to_owned();
    }
    fixture.seen.voters.as_mut().unwrap().claim_size = "20Gi".to_owned();
    let action = fixture.action();
    assert!(
        matches!(&action, Some(Action::DeleteStatefulSet { name, .. }) if name == "demo-ro"),
        "{action:?}"
    );
    let mut set = fixture.seen.readers.take().unwrap();
    fixture.seen.cluster.spec.read_replicas = None;
    let made = fixture.reconcile().objects.into_iter().find_map(|object| {
        let crate::cluster::render::build::Object::StatefulSet(set) = object else {
            return None;
        };
        let is_it = set.metadata.name.as_deref() == Some("demo-ro");
        is_it.then(|| set.spec.unwrap().replicas)
    });
    assert_eq!(made, Some(Some(0)));
    (set.uid, set.replicas) = ("set-new".to_owned(), 0);
    fixture.seen.readers = Some(set);
    fixture.reconcile();
    assert_eq!(fixture.status().operation, None);
}
