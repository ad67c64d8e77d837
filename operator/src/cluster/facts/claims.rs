//! Which claims are a cluster's own: those that its own pods use or have used, by uid. Clones, restored
//! copies and claims that a user labelled carry the same labels and are not.
use operator_api::{
    names,
    status::{PendingResize, UsedClaim},
};

use crate::cluster::facts::{
    observation::{ObservedClaim, ObservedPod},
    view::{View, seconds_between},
};

/// Seconds for which a file system may take to grow while it is mounted. Drivers that grow file systems
/// online show `FileSystemResizePending`, too, until the kubelet has done it. The kubelet looks at a pod's
/// volumes at least every 90 s (`syncFrequency` of one minute, with jitter). A driver that has not done it
/// after one such round and half a minute for the work needs a restart of the pod.
pub const ONLINE_RESIZE_SECONDS: u64 = 120;

/// The claim that a pod uses.
pub fn name_of(pod: &ObservedPod) -> String {
    let named = pod.claim.clone();
    named.unwrap_or_else(|| names::claim(&pod.name))
}

/// The pod that uses a claim.
fn user<'a>(view: &View<'a>, claim: &ObservedClaim) -> Option<&'a ObservedPod> {
    let mut pods = view.seen.pods.iter();
    pods.find(|pod| name_of(pod) == claim.name)
}

/// Claims recorded in the status. A status from before they were recorded names the claims of members, also
/// of removed ones.
fn on_record(view: &View<'_>) -> Vec<UsedClaim> {
    if !view.status.claims.is_empty() {
        return view.status.claims.clone();
    }
    let used = |name: String, uid: &String| UsedClaim {
        name,
        uid: uid.clone(),
        pending_resize: None,
    };
    let members = view.status.members.iter();
    let members = members.filter_map(|m| Some(used(names::claim(&m.name), m.claim_uid.as_ref()?)));
    let retired = view.status.retired_claims.iter();
    members
        .chain(retired.map(|r| used(r.name.clone(), &r.uid)))
        .collect()
}

/// The own claims to record: those recorded or used now that still exist. An ephemeral cluster has none,
/// since its disks belong to the pods.
pub fn recorded(view: &View<'_>) -> Vec<UsedClaim> {
    if view.spec.storage.ephemeral.is_some() {
        return Vec::new();
    }
    let before = on_record(view);
    let mut all: Vec<UsedClaim> = Vec::new();
    for claim in &view.seen.claims {
        let known = before.iter().find(|known| known.uid == claim.uid);
        let pod = user(view, claim);
        // Kubernetes deletes a claim only after the pods that use it. So a pod whose claim is being deleted
        // may be about to use the next claim of that name, not this one.
        let used = pod.is_some() && !claim.deleting;
        if known.is_none() && !used {
            continue;
        }
        let pending = known.and_then(|known| known.pending_resize.clone());
        let pending = pending.or_else(|| {
            Some(PendingResize {
                since: view.now().clone(),
                pod_uid: pod?.uid.clone(),
            })
        });
        all.push(UsedClaim {
            name: claim.name.clone(),
            uid: claim.uid.clone(),
            pending_resize: pending.filter(|_| claim.resize_pending),
        });
    }
    all.sort_by(|a, b| (&a.name, &a.uid).cmp(&(&b.name, &b.uid)));
    all
}

/// Did a pod of this cluster use this claim, by uid?
pub fn is_own(view: &View<'_>, claim: &ObservedClaim) -> bool {
    recorded(view).iter().any(|used| used.uid == claim.uid)
}

/// Names of the claims that carry the cluster's label and are not its own.
pub fn left_over(view: &View<'_>) -> Option<String> {
    let own = recorded(view);
    let mut names: Vec<&str> = view
        .seen
        .claims
        .iter()
        .filter(|claim| !own.iter().any(|used| used.uid == claim.uid))
        .map(|claim| claim.name.as_str())
        .collect();
    names.sort_unstable();
    (!names.is_empty()).then(|| names.join(", "))
}

fn pending<'a>(view: &View<'a>, claim: &ObservedClaim) -> Option<&'a PendingResize> {
    let mut known = view.status.claims.iter();
    let known = known.find(|known| known.uid == claim.uid)?;
    known
        .pending_resize
        .as_ref()
        .filter(|_| claim.resize_pending)
}

/// Does a pod's file system need a restart to grow? Once restarted for that, the pod is not restarted again.
pub fn needs_restart(view: &View<'_>, pod: &ObservedPod) -> bool {
    let name = name_of(pod);
    let claim = view.seen.claims.iter().find(|claim| claim.name == name);
    let pending = claim.and_then(|claim| pending(view, claim));
    pending.is_some_and(|pending| {
        pending.pod_uid == pod.uid
            && seconds_between(&pending.since, view.now()) >= ONLINE_RESIZE_SECONDS
    })
}

/// What a volume that has grown is waiting for.
pub fn resize_progress(view: &View<'_>, claim: &ObservedClaim) -> Option<String> {
    let pending = pending(view, claim)?;
    let pod = user(view, claim)?;
    Some(if pod.uid == pending.pod_uid {
        format!(
            ": its volume has, its file system follows while {0} runs; if not, {0} is restarted after {ONLINE_RESIZE_SECONDS} s",
            pod.name
        )
    } else {
        format!(
            ": its volume has, its file system has not, although {} was restarted since; kubectl describe pvc {} says why",
            pod.name, claim.name
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{action::Action, fixture::Fixture};

    fn uids(fixture: &Fixture) -> Vec<String> {
        let claims = fixture.status().claims.into_iter();
        claims.map(|claim| claim.uid).collect()
    }

    /// A claim with the cluster's label that no pod uses.
    fn clone(fixture: &mut Fixture, name: &str) {
        let claim = ObservedClaim {
            name: name.to_owned(),
            uid: format!("clone-{name}"),
            ..fixture.seen.claims[0].clone()
        };
        fixture.seen.claims.push(claim);
    }

    #[test]
    fn claims_of_pods_are_recorded_and_clones_are_not() {
        let mut fixture = Fixture::running(2, 1);
        clone(&mut fixture, "data-demo-7");
        clone(&mut fixture, "copy");
        fixture.reconcile();
        let expected = ["claim-demo-0", "claim-demo-1", "claim-demo-ro-0"];
        assert_eq!(uids(&fixture), expected);
        // The record outlasts the pods, not the claims.
        fixture.seen.pods.retain(|pod| pod.name != "demo-1");
        fixture.reconcile();
        assert_eq!(uids(&fixture), expected);
        fixture.claim("demo-1").uid = "another".to_owned();
        fixture.reconcile();
        assert_eq!(uids(&fixture), ["claim-demo-0", "claim-demo-ro-0"]);
        // A claim of another name that a pod uses is its own.
        fixture.pod("demo-0").claim = Some("copy".to_owned());
        fixture.reconcile();
        assert!(uids(&fixture).contains(&"clone-copy".to_owned()));
    }

    #[test]
    fn an_ephemeral_cluster_has_no_claims() {
        let mut fixture = Fixture::running(3, 0);
        fixture.seen.cluster.spec.storage.ephemeral =
            Some(operator_api::cluster::Ephemeral::default());
        fixture.reconcile();
        assert_eq!(uids(&fixture), Vec::<String>::new());
    }

    #[test]
    fn a_status_from_before_the_record() {
        let mut fixture = Fixture::running(3, 0);
        clone(&mut fixture, "copy");
        let status = fixture.seen.cluster.status.as_mut().unwrap();
        status.claims.clear();
        fixture.seen.pods.clear();
        fixture.seen.nodes.clear();
        fixture.reconcile();
        assert_eq!(uids(&fixture).len(), 3, "the members' claims are known");
    }

    #[test]
    fn a_pod_is_restarted_once_if_its_file_system_does_not_grow_online() {
        let restarts = |fixture: &mut Fixture| {
            let action = fixture.action();
            let restart = matches!(
                action,
                Some(Action::EvictPod { .. } | Action::DeletePod { .. })
            );
            assert!(restart || action.is_none(), "{action:?}");
            restart
        };
        let mut fixture = Fixture::running(3, 0);
        fixture.later(60);
        fixture.claim("demo-1").resize_pending = true;
        assert!(!restarts(&mut fixture));
        fixture.later(i64::try_from(ONLINE_RESIZE_SECONDS).unwrap() - 10);
        assert!(!restarts(&mut fixture), "it may still grow");
        fixture.later(10);
        assert!(restarts(&mut fixture));
        fixture.pod("demo-1").uid = "new".to_owned();
        for _ in 0..9 {
            fixture.later(600);
            assert!(!restarts(&mut fixture), "that did not help");
        }
        let seen = fixture.seen.clone();
        let view = View::of(&seen);
        let text = resize_progress(&view, fixture.claim("demo-1")).unwrap();
        assert!(text.contains("was restarted since"), "{text}");
        fixture.claim("demo-1").resize_pending = false;
        fixture.reconcile();
        assert!(
            fixture
                .status()
                .claims
                .iter()
                .all(|c| c.pending_resize.is_none())
        );
        // One that grows online never costs a restart.
        fixture.claim("demo-1").resize_pending = true;
        assert!(!restarts(&mut fixture));
        fixture.claim("demo-1").resize_pending = false;
        fixture.later(600);
        assert!(!restarts(&mut fixture));
    }
}
