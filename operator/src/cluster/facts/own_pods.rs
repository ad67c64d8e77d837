//! Which pods are a cluster's own. A label is not enough: copies of pods, and pods of other things with the
//! same name, carry the same labels. Own pods are those that the cluster's StatefulSets created, by uid.
use operator_api::{RqliteClusterStatus, names};

/// Seconds for which a pod of unknown origin is not reported: the watches of pods and StatefulSets are not
/// synchronized, and a StatefulSet adopts a pod shortly after it was made.
const GRACE_SECONDS: i64 = 10;

/// What identifies a pod's origin.
#[derive(Clone, Copy, Debug)]
pub struct PodIdentity<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its uid.
    pub uid: &'a str,
    /// Its controller, from its owner references.
    pub controller: Option<Controller<'a>>,
    /// Seconds since it was created, if that is known.
    pub age_seconds: Option<i64>,
}

/// The controller of a pod.
#[derive(Clone, Copy, Debug)]
pub struct Controller<'a> {
    /// Is it a StatefulSet?
    pub is_stateful_set: bool,
    /// Its name.
    pub name: &'a str,
    /// Its uid.
    pub uid: &'a str,
}

/// A StatefulSet that has the name of one of the cluster's.
#[derive(Clone, Debug)]
pub struct KnownSet {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Is it owned by this cluster, by uid?
    pub is_own: bool,
    /// Has its deletion begun?
    pub is_deleting: bool,
}

/// Whether a pod is the cluster's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// The cluster's own.
    Own,
    /// Not known yet: it does not count, and is not reported.
    Unclear,
    /// Not the cluster's: it does not count, and is reported.
    Stray,
}

/// Determines whether a pod with the cluster's label is its own. A pod whose uid is recorded stays the
/// cluster's while its StatefulSet is recreated around it.
pub fn of_pod(
    pod: &PodIdentity<'_>,
    cluster: &str,
    sets: &[KnownSet],
    status: Option<&RqliteClusterStatus>,
) -> Ownership {
    let members = status.map_or(&[][..], |status| &status.members);
    let on_record = members
        .iter()
        .any(|m| m.pod_uid.as_deref() == Some(pod.uid) && m.name == pod.name);
    let set = [names::voters(cluster), names::readers(cluster)]
        .into_iter()
        .find(|set| names::ordinal(set, pod.name).is_some());
    let origin = match (&pod.controller, set) {
        (Some(controller), Some(set)) if controller.is_stateful_set && controller.name == set => {
            match sets.iter().find(|known| known.uid == controller.uid) {
                Some(known) if known.is_own => Ownership::Own,
                Some(_) => Ownership::Stray,
                None if on_record => Ownership::Own,
                // Its StatefulSet is not in the cache yet, or was deleted: then the garbage collector deletes
                // the pod.
                None => Ownership::Unclear,
            }
        }
        (None, Some(set)) => {
            let there = sets
                .iter()
                .any(|known| known.name == set && known.is_own && !known.is_deleting);
            match (on_record, there) {
                (true, _) => Ownership::Own,
                (false, true) => Ownership::Stray,
                (false, false) => Ownership::Unclear,
            }
        }
        _ => Ownership::Stray,
    };
    let young = pod.age_seconds.is_some_and(|age| age < GRACE_SECONDS);
    match origin {
        Ownership::Stray if young => Ownership::Unclear,
        origin => origin,
    }
}

#[cfg(test)]
mod tests {
    use operator_api::status::{Member, MemberState, Pool, Role};

    use super::*;

    fn set(name: &str, uid: &str, is_own: bool) -> KnownSet {
        KnownSet {
            name: name.to_owned(),
            uid: uid.to_owned(),
            is_own,
            is_deleting: false,
        }
    }

    fn status(pod: &str, uid: &str) -> RqliteClusterStatus {
        let member = Member {
            role: Role::Voter,
            state: MemberState::Healthy,
            pod_uid: Some(uid.to_owned()),
            ..Member::absent(pod, Pool::Voter)
        };
        RqliteClusterStatus {
            members: vec![member],
            ..RqliteClusterStatus::default()
        }
    }

    #[test]
    fn whose_a_pod_is() {
        use Ownership::{Own, Stray, Unclear};
        let own = [set("demo", "s", true), set("demo-ro", "r", true)];
        let foreign = [set("demo", "s", false)];
        let going = [KnownSet {
            is_deleting: true,
            ..set("demo", "s", true)
        }];
        let none: [KnownSet; 0] = [];
        let of = |name, uid| {
            Some(Controller {
                is_stateful_set: true,
                name,
                uid,
            })
        };
        let job = Some(Controller {
            is_stateful_set: false,
            name: "demo",
            uid: "s",
        });
        #[expect(clippy::type_complexity, reason = "a table of cases")]
        let cases: [(&str, Option<Controller<'_>>, &[KnownSet], &str, Ownership); 17] = [
            ("demo-0", of("demo", "s"), &own, "", Own),
            ("demo-ro-0", of("demo-ro", "r"), &own, "", Own),
            ("demo-0", of("demo", "s"), &going, "", Own),
            ("demo-0", of("demo", "s"), &foreign, "", Stray),
            ("demo-0", of("demo", "s"), &foreign, "u", Stray),
            // The StatefulSet was just created, or just deleted.
            ("demo-0", of("demo", "new"), &none, "", Unclear),
            ("demo-0", of("demo", "new"), &own, "", Unclear),
            ("demo-0", of("demo", "old"), &none, "u", Own),
            // Orphans while it is recreated.
            ("demo-0", None, &none, "u", Own),
            ("demo-0", None, &going, "u", Own),
            ("demo-0", None, &own, "u", Own),
            ("demo-0", None, &none, "another", Unclear),
            // It is adopted at once, or never.
            ("demo-7", None, &own, "", Stray),
            ("copy-of-demo-0", None, &own, "", Stray),
            ("demo-0", job, &own, "", Stray),
            ("other-0", of("other", "x"), &own, "", Stray),
            ("demo-0", of("other", "x"), &own, "", Stray),
        ];
        for (name, controller, sets, recorded, expected) in cases {
            let pod = PodIdentity {
                name,
                uid: "u",
                controller,
                age_seconds: Some(600),
            };
            let known = status(name, recorded);
            let found = of_pod(&pod, "demo", sets, Some(&known));
            assert_eq!(found, expected, "{name} {controller:?} {sets:?} {recorded}");
            let young = PodIdentity {
                age_seconds: Some(1),
                ..pod
            };
            let found = of_pod(&young, "demo", sets, Some(&known));
            let expected = if expected == Stray { Unclear } else { expected };
            assert_eq!(found, expected, "young {name}");
        }
    }
}
