//! Tests of what is said about pods and volumes that do not start.
use operator_api::cluster::{Image, PullSecret};

use super::*;
use crate::cluster::{fixture::Fixture, render::runbook};

fn blocker(kind: BlockerKind, object: &str, message: &str) -> Blocker {
    Blocker {
        kind,
        object: object.to_owned(),
        message: message.to_owned(),
    }
}

/// Every kind of bad input: the reason, and parts of the message that a user must find.
const CASES: [(BlockerKind, &str, &str, &str, &[&str]); 16] = [
    (
        BlockerKind::Refused,
        "demo",
        "pods \"demo-3\" is forbidden: exceeded quota: small, requested: pods=1, used: pods=3, limited: pods=3",
        "QuotaExceeded",
        &[
            "demo has 3 of 3 pods",
            "exceeded quota: small",
            "kubectl describe resourcequota -n shop",
            "spec.replicas",
        ],
    ),
    (
        BlockerKind::Refused,
        "demo",
        "persistentvolumeclaims \"data-demo-0\" is forbidden: exceeded quota: small, requested: requests.storage=10Gi",
        "QuotaExceeded",
        &["data-demo-0", "spec.storage.size"],
    ),
    (
        BlockerKind::Refused,
        "demo",
        "pods \"demo-0\" is forbidden: failed quota: small: must specify limits.memory for: rqlited",
        "QuotaExceeded",
        &["limits.memory", "spec.resources"],
    ),
    (
        BlockerKind::Refused,
        "demo",
        "pods \"demo-0\" is forbidden: error looking up service account shop/bot: serviceaccount \"bot\" not found",
        "ServiceAccountMissing",
        &["kubectl create serviceaccount", "spec.serviceAccountName"],
    ),
    (
        BlockerKind::Refused,
        "demo",
        "pods \"demo-0\" is forbidden: no PriorityClass with name high was found",
        "PodsRefused",
        &[
            "no PriorityClass with name high",
            "spec.scheduling.priorityClassName",
        ],
    ),
    (
        BlockerKind::Refused,
        "demo-ro",
        "admission webhook denied the request",
        "PodsRefused",
        &["kubectl describe statefulset demo-ro -n shop"],
    ),
    (
        BlockerKind::NoClass,
        "data-demo-0",
        "fast",
        "StorageClassMissing",
        &["data-demo-0", "\"fast\"", "kubectl get storageclass"],
    ),
    (
        BlockerKind::NoClass,
        "data-demo-0",
        "",
        "StorageClassMissing",
        &["none is the default"],
    ),
    (
        BlockerKind::NoVolume,
        "data-demo-0",
        "quota of the cloud is used up",
        "VolumePending",
        &[
            "quota of the cloud",
            "kubectl describe pvc data-demo-0 -n shop",
        ],
    ),
    (
        BlockerKind::NoPullSecret,
        "demo-0",
        "creds",
        "PullSecretMissing",
        &[
            "creds",
            "kubectl create secret docker-registry creds -n shop",
            "spec.image.pullSecrets",
        ],
    ),
    (
        BlockerKind::Image,
        "demo-0",
        "example.com/x:1: ImagePullBackOff: Back-off pulling image",
        "ImagePullFailed",
        &[
            "example.com/x:1",
            "Correct spec.image: kubectl edit rqlitecluster demo -n shop",
            "spec.image.pullSecrets",
        ],
    ),
    (
        BlockerKind::Container,
        "demo-0",
        "secret \"creds\" not found",
        "SecretMissing",
        &[
            "kubectl create secret generic creds --from-literal=KEY=VALUE -n shop",
            "spec.config.extraEnv",
        ],
    ),
    (
        BlockerKind::Container,
        "demo-0",
        "couldn't find key token in Secret shop/creds",
        "SecretMissing",
        &["token", "kubectl edit secret creds -n shop"],
    ),
    (
        BlockerKind::Container,
        "demo-0",
        "configmap \"settings\" not found",
        "ConfigMapMissing",
        &["kubectl create configmap settings --from-literal=KEY=VALUE -n shop"],
    ),
    (
        BlockerKind::NoMachine,
        "demo-0",
        "0/3 nodes are available: 3 Insufficient cpu.",
        "Unschedulable",
        &[
            "no machine is available for demo-0",
            "Insufficient cpu",
            "spec.resources",
        ],
    ),
    (
        BlockerKind::Crash,
        "demo-0",
        "Error (exit code 2)",
        "NodeCrashLooping",
        &[
            "kubectl logs --previous demo-0 -c rqlited -n shop",
            "spec.config.extraArgs",
        ],
    ),
];

#[test]
fn each_is_told_with_what_to_type() {
    for (kind, object, message, reason, parts) in CASES {
        let mut fixture = Fixture::running(3, 0);
        fixture.seen.blockers = vec![blocker(kind, object, message)];
        let plan = fixture.reconcile();
        let (degraded, given, message) = fixture.condition("Degraded");
        assert_eq!((degraded, given.as_str()), (true, reason), "{message}");
        for part in parts {
            assert!(message.contains(part), "{part:?} is not in {message}");
        }
        let page = runbook::page(reason).unwrap();
        assert!(message.ends_with(&format!("Runbook: {page}")), "{message}");
        let event = plan.event.unwrap();
        assert_eq!((event.warning, event.reason.as_str()), (true, reason));
        assert!(
            message.starts_with(event.message.trim_end_matches('.')),
            "{}",
            event.message
        );
        assert!(!fixture.condition("Ready").0);
        let storage = matches!(kind, BlockerKind::NoClass | BlockerKind::NoVolume);
        assert_eq!(fixture.condition("StorageReady").0, !storage, "{reason}");
    }
}

#[test]
fn the_gravest_comes_first_and_few_are_named() {
    let mut fixture = Fixture::running(5, 0);
    let stuck = |n: i32| {
        blocker(
            BlockerKind::Image,
            &format!("demo-{n}"),
            "x:1: ErrImagePull",
        )
    };
    fixture.seen.blockers = (0..5).map(stuck).collect();
    fixture.reconcile();
    let (_, reason, message) = fixture.condition("Degraded");
    assert_eq!(reason, "ImagePullFailed");
    assert!(
        message.starts_with("demo-0, demo-1, demo-2 and 2 more cannot pull"),
        "{message}"
    );
    let refused = blocker(BlockerKind::Refused, "demo", "exceeded quota: q");
    fixture.seen.blockers.push(refused);
    fixture.reconcile();
    assert_eq!(fixture.condition("Degraded").1, "QuotaExceeded");
}

#[test]
fn a_pull_secret_that_is_there_may_be_old() {
    let mut fixture = Fixture::running(3, 0);
    fixture.seen.cluster.spec.image = Some(Image {
        pull_secrets: vec![PullSecret {
            name: "creds".to_owned(),
        }],
        ..Image::default()
    });
    fixture.seen.blockers = vec![blocker(
        BlockerKind::Image,
        "demo-0",
        "x:1: ErrImagePull: denied",
    )];
    fixture.reconcile();
    let message = fixture.condition("Degraded").2;
    assert!(
        message.contains("renew the credentials in the Secret creds"),
        "{message}"
    );
}

#[test]
fn what_is_waited_for_names_its_cause() {
    let mut fixture = Fixture::running(3, 0);
    fixture.seen.cluster.spec.replicas = 5;
    fixture.reconcile();
    fixture.seen.voters.as_mut().unwrap().replicas = 4;
    fixture.seen.blockers = vec![blocker(
        BlockerKind::Refused,
        "demo",
        "pods \"demo-3\" is forbidden: exceeded quota: small",
    )];
    fixture.reconcile();
    let (progressing, reason, message) = fixture.condition("Progressing");
    assert!(progressing && reason == "Waiting", "{reason}");
    assert!(message.contains("exceeded quota: small"), "{message}");
    fixture.seen.blockers.clear();
    fixture.reconcile();
    assert!(!fixture.condition("Progressing").2.contains("quota"));
}

#[test]
fn a_cluster_that_never_formed_says_why() {
    let mut fixture = Fixture::running(3, 0);
    let mut status = fixture.status();
    status.bootstrapped_at = None;
    fixture.seen.cluster.status = Some(status);
    fixture.seen.nodes.clear();
    fixture.seen.blockers = vec![blocker(BlockerKind::NoClass, "data-demo-0", "fast")];
    fixture.reconcile();
    fixture.reconcile();
    for kind in ["Available", "Ready", "Degraded"] {
        let (status, reason, message) = fixture.condition(kind);
        assert_eq!(
            (status, reason.as_str()),
            (kind == "Degraded", "StorageClassMissing"),
            "{kind}"
        );
        assert!(message.contains("\"fast\""), "{message}");
    }
}
