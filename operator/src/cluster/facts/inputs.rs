//! The parts of a spec that the pods' template is made of: taken out, hashed, and put back.
use operator_api::{
    RqliteClusterSpec,
    cluster::Reaping,
    names,
    status::{Target, TemplateInputs},
};

use crate::cluster::facts::{authentication, beginning, hash::hash, tls, view::View};

/// The parts of the spec and the annotations that affect pods.
pub fn of(view: &View<'_>) -> (RqliteClusterSpec, Option<String>) {
    let mut spec = view.spec.clone();
    // What pods get of these depends on the recorded state: see `tls::template_key` and
    // `authentication::template_key`.
    spec.tls = None;
    spec.authentication = None;
    keep_policies(&RqliteClusterSpec::default(), &mut spec);
    // For pods it makes no difference whether the spec or the status names it.
    spec.cluster_domain = Some(view.cluster_domain().to_owned());
    let restarted = view.annotation(names::RESTARTED_AT_ANNOTATION);
    (spec, restarted.map(str::to_owned))
}

/// Takes everything that does not affect pods from another spec.
fn keep_policies(from: &RqliteClusterSpec, into: &mut RqliteClusterSpec) {
    into.replicas = from.replicas;
    into.bootstrap.clone_from(&from.bootstrap);
    into.storage.clone_from(&from.storage);
    into.services.clone_from(&from.services);
    into.tls.clone_from(&from.tls);
    into.authentication.clone_from(&from.authentication);
    into.users.clone_from(&from.users);
    into.cluster_domain.clone_from(&from.cluster_domain);
    into.disruption.clone_from(&from.disruption);
    into.update.clone_from(&from.update);
    into.member_replacement.clone_from(&from.member_replacement);
    into.quorum_recovery.clone_from(&from.quorum_recovery);
    into.network_policy.clone_from(&from.network_policy);
    // Drills run in pods of their own.
    if let Some(archive) = &mut into.archive {
        let kept = from.archive.as_ref();
        archive.drill = kept.and_then(|archive| archive.drill.clone());
    }
    into.management = from.management;
    into.operator_class.clone_from(&from.operator_class);
    into.paused = from.paused;
    into.hibernated = from.hibernated;
    into.deletion_protection = from.deletion_protection;
    // Of reaping, only the read replicas' timeout is a flag of the nodes.
    if into.reaping.is_some() || from.reaping.is_some() {
        let policy = from.reaping.clone().unwrap_or_else(|| Reaping {
            voters: false,
            keep_unknown_readers: false,
            ..Reaping::default()
        });
        let flag = into.reaping.take().unwrap_or_default().read_replica_timeout;
        into.reaping = Some(Reaping {
            read_replica_timeout: flag,
            ..policy
        });
    }
    let account = from.pods.as_ref();
    let account = account.map(|p| p.service_account_annotations.clone());
    let account = account.unwrap_or_default();
    if into.pods.is_some() || !account.is_empty() {
        into.pods
            .get_or_insert_default()
            .service_account_annotations = account;
    }
    let pool = from.read_replicas.as_ref();
    if let Some(readers) = &mut into.read_replicas {
        readers.replicas = pool.and_then(|p| p.replicas);
        readers.autoscaled = pool.is_some_and(|p| p.autoscaled);
        readers.storage = pool.and_then(|p| p.storage.clone());
    }
}

/// Hash of all inputs of a template: the spec, the annotations, and the stage of TLS.
pub fn template_hash(view: &View<'_>) -> String {
    let (spec, restarted) = of(view);
    hash_with(&spec, restarted.as_ref(), security_key(view).as_ref())
}

/// What the template has of TLS, of users and of the restore that a new cluster begins with, by the recorded
/// state; None if nothing. A rollback never reverts it.
fn security_key(view: &View<'_>) -> Option<String> {
    let keys = [
        tls::template_key(view),
        authentication::template_key(view),
        beginning::template_key(view),
    ];
    let keys: Vec<String> = keys.into_iter().flatten().collect();
    (!keys.is_empty()).then(|| keys.join(","))
}

/// Without TLS it is the hash that operators from before TLS made.
fn hash_with(spec: &RqliteClusterSpec, restarted: Option<&String>, tls: Option<&String>) -> String {
    match tls {
        None => hash(&(spec, restarted)),
        Some(tls) => hash(&(spec, restarted, tls)),
    }
}

/// The inputs as the status keeps them.
pub fn recorded(view: &View<'_>) -> TemplateInputs {
    let (spec, restarted_at) = of(view);
    TemplateInputs {
        spec: serde_json::to_value(spec).unwrap_or_default(),
        restarted_at,
        tls: security_key(view),
    }
}

/// A spec with these inputs for the pods, and everything else as it is now; None if they cannot be read.
pub fn restored(inputs: &TemplateInputs, now: &RqliteClusterSpec) -> Option<RqliteClusterSpec> {
    let mut spec: RqliteClusterSpec = serde_json::from_value(inputs.spec.clone()).ok()?;
    keep_policies(now, &mut spec);
    if now.read_replicas.is_none() {
        spec.read_replicas = None;
    } else if spec.read_replicas.is_none() {
        spec.read_replicas.clone_from(&now.read_replicas);
    }
    Some(spec)
}

/// Hash of the spec's part of the inputs: what stays the same when only a restart is requested.
pub fn spec_hash(view: &View<'_>) -> String {
    hash(&of(view).0)
}

/// Do two targets follow from the same inputs? Another version of the operator may know more fields of the
/// spec and so hash the same inputs differently; then the recorded inputs are hashed again.
pub fn are_same(now: &Target, wanted: &Target) -> bool {
    let again = |inputs: &TemplateInputs| {
        let spec: RqliteClusterSpec = serde_json::from_value(inputs.spec.clone()).ok()?;
        let restarted = inputs.restarted_at.as_ref();
        Some(hash_with(&spec, restarted, inputs.tls.as_ref()))
    };
    now.input_hash == wanted.input_hash
        || now.inputs.as_ref().and_then(again).as_ref() == Some(&wanted.input_hash)
}

/// Do two targets differ in TLS alone? That is no template of the user's, which a rollback could return to.
pub fn differ_in_tls_only(one: &Target, other: &Target) -> bool {
    match (&one.inputs, &other.inputs) {
        (Some(now), Some(wanted)) => {
            one.image == other.image
                && (&now.spec, &now.restarted_at) == (&wanted.spec, &wanted.restarted_at)
                && now.tls != wanted.tls
        }
        _ => false,
    }
}

/// Does a target follow from these inputs?
pub fn follows(target: &Target, view: &View<'_>) -> bool {
    let wanted = Target {
        input_hash: template_hash(view),
        ..Target::default()
    };
    are_same(target, &wanted)
}

#[cfg(test)]
mod tests {
    use operator_api::cluster::{PodMetadata, ReadReplicas};

    use super::*;
    use crate::cluster::fixture::Fixture;

    #[test]
    fn what_affects_pods_comes_back_and_nothing_else() {
        let mut fixture = Fixture::running(3, 1);
        let spec = &mut fixture.seen.cluster.spec;
        spec.termination_grace_period_seconds = 99;
        spec.pod_metadata = Some(PodMetadata {
            labels: [("a".to_owned(), "b".to_owned())].into(),
            ..PodMetadata::default()
        });
        let before = spec.clone();
        let inputs = recorded(&View::of(&fixture.seen));
        let text = inputs.spec.to_string();
        assert!(!text.contains("bootstrap") && text.contains("99"), "{text}");
        let spec = &mut fixture.seen.cluster.spec;
        spec.termination_grace_period_seconds = 30;
        spec.pod_metadata = None;
        (spec.replicas, spec.deletion_protection) = (5, true);
        spec.reaping = Some(Reaping::default());
        spec.read_replicas = Some(ReadReplicas {
            replicas: Some(4),
            serve_stale: true,
            ..ReadReplicas::default()
        });
        let now = spec.clone();
        let back = restored(&inputs, &now).unwrap();
        assert_eq!(back.termination_grace_period_seconds, 99);
        assert_eq!(back.pod_metadata, before.pod_metadata);
        assert_eq!((back.replicas, back.deletion_protection), (5, true));
        let readers = back.read_replicas.clone().unwrap();
        assert_eq!((readers.replicas, readers.serve_stale), (Some(4), false));
        fixture.seen.cluster.spec = back;
        let again = recorded(&View::of(&fixture.seen));
        let differs = again.spec != inputs.spec && now.reaping.is_none();
        assert!(!differs, "{} {}", again.spec, inputs.spec);
        fixture.seen.cluster.spec.read_replicas = None;
        let none = restored(&inputs, &fixture.seen.cluster.spec).unwrap();
        assert_eq!(none.read_replicas, None);
    }

    #[test]
    fn the_same_inputs_under_another_hash() {
        let fixture = Fixture::running(3, 0);
        let wanted = fixture.status().target.unwrap();
        let mut now = wanted.clone();
        now.input_hash = "of an older operator".to_owned();
        assert!(are_same(&now, &wanted));
        now.inputs = None;
        assert!(!are_same(&now, &wanted));
    }
}
