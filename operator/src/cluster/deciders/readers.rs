//! A pool of read replicas that was removed from the spec: once it has no pods and no members in the
//! configuration, its StatefulSet is deleted, and with it its Service and disruption budget. Its claims are
//! deleted only if the spec says so.
use operator_api::{
    cluster::Deletion,
    names,
    status::{OperationType, Pool},
};

use crate::cluster::{
    action::{Action, Decision},
    facts::{claims, view::View},
};

/// Deletes the rest of a removed pool.
pub fn leave(view: &View<'_>) -> Decision {
    let Some(set) = view.set(Pool::Read) else {
        return Decision::Continue;
    };
    let name = view.set_name(Pool::Read);
    let is_own = |pod: &str| names::ordinal(&name, pod).is_some();
    let is_empty = set.replicas == 0 && view.pods(Pool::Read).is_empty();
    // Only a leader's report proves that no member of the pool is in the configuration.
    let is_out = view.leader.is_some() && !view.config().iter().any(|m| is_own(&m.name));
    let busy = view.operation().is_some_and(|operation| {
        matches!(
            operation.kind,
            OperationType::Resize | OperationType::Recover
        )
    });
    if view.spec.read_replicas.is_some() || !is_empty || !is_out || busy {
        return Decision::Continue;
    }
    let retention = view.spec.storage.retention.clone().unwrap_or_default();
    if retention.when_scaled.unwrap_or_default() == Deletion::Delete {
        let mut claims = view.seen.claims.iter();
        let claim = claims.find(|claim| {
            let pod = claim.name.strip_prefix(names::claim("").as_str());
            !claim.deleting && pod.is_some_and(is_own) && claims::is_own(view, claim)
        });
        if let Some(claim) = claim {
            let delete = Action::DeleteClaim {
                name: claim.name.clone(),
                uid: claim.uid.clone(),
            };
            let text = format!(
                "deleting the claim {} of a removed read replica",
                claim.name
            );
            return Decision::Act(delete, text);
        }
    }
    let delete = Action::DeleteStatefulSet {
        name: name.clone(),
        uid: set.uid.clone(),
        orphan: false,
    };
    let text = format!("deleting {name}: the spec has no read replicas any more");
    Decision::Act(delete, text)
}

#[cfg(test)]
mod tests {
    use operator_api::cluster::Retention;

    use super::*;
    use crate::cluster::fixture::Fixture;

    /// A cluster whose pool was removed from the spec and has no pods; its claims still exist.
    fn removed() -> Fixture {
        let mut fixture = Fixture::running(3, 2);
        fixture.seen.cluster.spec.read_replicas = None;
        let shrink = fixture.action().unwrap();
        assert!(
            matches!(shrink, Action::SetReplicas { to: 0, .. }),
            "{shrink:?}"
        );
        assert!(
            fixture.seen.pods.len() == 5 && !deletes(&mut fixture),
            "pods are there"
        );
        fixture.seen.readers.as_mut().unwrap().replicas = 0;
        fixture.seen.pods.retain(|pod| pod.pool == Pool::Voter);
        fixture
            .seen
            .nodes
            .retain(|name, _| !name.starts_with("demo-ro-"));
        fixture
    }

    fn out(fixture: &mut Fixture) {
        for name in ["demo-0", "demo-1", "demo-2"] {
            let config = &mut fixture.node(name).config;
            config.retain(|m| !m.name.starts_with("demo-ro-"));
        }
    }

    fn deletes(fixture: &mut Fixture) -> bool {
        let action = fixture.reconcile().action;
        matches!(action, Some(Action::DeleteStatefulSet { ref name, orphan: false, .. }) if name == "demo-ro")
    }

    #[test]
    fn it_goes_once_nobody_is_left() {
        let mut fixture = removed();
        assert!(!deletes(&mut fixture), "members are in the configuration");
        out(&mut fixture);
        for _ in 0..3 {
            fixture.reconcile();
        }
        assert!(deletes(&mut fixture), "{:?}", fixture.reconcile().action);
        fixture.seen.readers = None;
        for _ in 0..3 {
            let plan = fixture.reconcile();
            assert_eq!(plan.action, None);
            let left = plan
                .objects
                .iter()
                .find(|o| o.id().1.contains("-ro") || o.id().1 == "demo-read");
            assert_eq!(left, None);
        }
        assert!(
            fixture.condition("Ready").0,
            "{:?}",
            fixture.condition("Ready")
        );
        assert!(
            !fixture.condition("UpdatePending").0,
            "{:?}",
            fixture.condition("UpdatePending")
        );
        assert_eq!(fixture.seen.claims.len(), 5, "claims are kept");
    }

    #[test]
    fn not_without_a_leader() {
        let mut fixture = removed();
        out(&mut fixture);
        fixture.leaderless();
        for _ in 0..5 {
            assert!(!deletes(&mut fixture));
        }
    }

    #[test]
    fn claims_go_where_the_spec_says_so() {
        let mut fixture = removed();
        out(&mut fixture);
        fixture.seen.cluster.spec.storage.retention = Some(Retention {
            when_scaled: Some(Deletion::Delete),
            ..Retention::default()
        });
        for expected in ["data-demo-ro-0", "data-demo-ro-1"] {
            let Some(Action::DeleteClaim { name, .. }) = fixture.action() else {
                panic!("{expected} stays");
            };
            assert_eq!(name, expected);
            fixture.seen.claims.retain(|claim| claim.name != name);
        }
        assert!(deletes(&mut fixture));
        assert_eq!(fixture.seen.claims.len(), 3, "the voters' claims stay");
    }
}
