//! A cluster from nothing to formed with its data, and everything that keeps it from that.
use k8s_openapi::api::core::v1::Container;
use node_contract::status::AutoRestoreStatus;
use operator_api::{
    Moment, RqliteBackup, RqliteBackupSpec, RqliteCluster,
    backup::BackupPhase,
    cluster::{ArchivePoint, BootstrapRestore, Encryption, KeySelector},
    status::{AVAILABLE, ArchiveStatus, BootstrapRestoreState, READY, RESTORING},
    store::{ObjectName, S3, SecretName, StoreTarget},
};
use serde_json::Value;

use crate::cluster::{
    action::Action,
    facts::observation::{NodeStatus, RestoreSource},
    fixture::Fixture,
    plan::Plan,
    render::build::Object,
};

fn target(prefix: &str) -> StoreTarget {
    StoreTarget {
        s3: Some(S3 {
            bucket: "bkt".to_owned(),
            prefix: Some(prefix.to_owned()),
            credentials_secret: Some(SecretName {
                name: "keys".to_owned(),
            }),
            ..S3::default()
        }),
        ..StoreTarget::default()
    }
}

fn object(name: &str) -> BootstrapRestore {
    BootstrapRestore {
        target: Some(target("backups")),
        object: Some(name.to_owned()),
        ..BootstrapRestore::default()
    }
}

fn of_backup() -> BootstrapRestore {
    BootstrapRestore {
        backup: Some(ObjectName {
            name: "nightly".to_owned(),
        }),
        ..BootstrapRestore::default()
    }
}

fn of_cluster(point: ArchivePoint) -> BootstrapRestore {
    BootstrapRestore {
        archive: Some(ArchivePoint {
            cluster: Some("prod".to_owned()),
            ..point
        }),
        ..BootstrapRestore::default()
    }
}

fn ask(fixture: &mut Fixture, restore: Option<BootstrapRestore>) {
    let bootstrap = &mut fixture.seen.cluster.spec.bootstrap;
    bootstrap.get_or_insert_default().restore = restore;
}

/// A cluster of three that is about to be created.
fn new(restore: BootstrapRestore) -> Fixture {
    let mut fixture = Fixture::running(3, 0);
    fixture.seen.cluster.status = None;
    fixture.seen.state = None;
    fixture.seen.voters = None;
    fixture.seen.pods.clear();
    fixture.seen.claims.clear();
    fixture.seen.nodes.clear();
    ask(&mut fixture, Some(restore));
    fixture
}

/// The first node's container, if the plan has a StatefulSet.
fn node(plan: &Plan) -> Option<(i32, Container, Option<String>)> {
    plan.objects.iter().find_map(|object| {
        let Object::StatefulSet(set) = object else {
            return None;
        };
        let spec = set.spec.clone()?;
        let annotations = spec.template.metadata?.annotations.unwrap_or_default();
        let config = annotations.get("rqlite.dev/restore").cloned();
        Some((
            spec.replicas?,
            spec.template.spec?.containers.remove(0),
            config,
        ))
    })
}

fn restores(container: &Container) -> bool {
    let flag = |arg: &String| arg.starts_with("-auto-restore=");
    container.args.iter().flatten().any(flag)
}

/// Reconciles until objects are applied.
fn created(fixture: &mut Fixture) -> (i32, Container, Option<String>) {
    (0..4)
        .find_map(|_| node(&fixture.reconcile()))
        .unwrap_or_else(|| panic!("nothing is created: {:?}", fixture.status().conditions))
}

/// Its first pod exists, and its node answers like this.
fn first_node(fixture: &mut Fixture, change: impl FnOnce(&mut NodeStatus)) {
    if fixture.seen.pods.is_empty() {
        let other = Fixture::running(1, 0);
        let hash = fixture.status().target.unwrap().template_hash;
        let mut set = other.seen.voters.unwrap();
        set.template_hash.clone_from(&hash);
        set.replicas = 1;
        fixture.seen.voters = Some(set);
        fixture.seen.pods = other.seen.pods;
        fixture.seen.claims = other.seen.claims;
        fixture.seen.nodes = other.seen.nodes;
        let pod = fixture.pod("demo-0");
        (pod.ready, pod.template_hash) = (false, hash);
    }
    let identity = fixture.status();
    let node = fixture.node("demo-0");
    *node = NodeStatus {
        raft_id: node.raft_id.clone(),
        ..NodeStatus::default()
    };
    change(node);
    if node.is_leader {
        node.cluster_id = identity.cluster_id;
        node.lineage = identity.lineage.as_ref().map(Into::into);
    }
}

fn leads(node: &mut NodeStatus, state: &str) {
    let whole = Fixture::running(1, 0).node("demo-0").clone();
    let raft_id = node.raft_id.clone();
    *node = NodeStatus {
        auto_restore: (!state.is_empty()).then(|| AutoRestoreStatus {
            state: state.to_owned(),
            index: Some(41),
            time: Some("2026-11-29T08:00:00Z".to_owned()),
            bytes: Some(4096),
            ..AutoRestoreStatus::default()
        }),
        raft_id,
        ..whole
    };
}

#[test]
#[expect(clippy::too_many_lines, reason = "one walk from nothing to formed")]
fn one_voter_restores_then_the_flag_goes_and_the_others_come() {
    let mut fixture = new(object("a.sqlite.gz"));
    let (replicas, container, config) = created(&mut fixture);
    assert_eq!(replicas, 1);
    assert!(restores(&container), "{:?}", container.args);
    let expects = |arg: &String| arg == "-bootstrap-expect=1";
    assert!(container.args.iter().flatten().any(expects));
    let policy = container.termination_message_policy.as_deref();
    assert_eq!(policy, Some("FallbackToLogsOnError"));
    let config: Value = serde_json::from_str(&config.unwrap()).unwrap();
    assert_eq!(config["sub"]["path"], "backups/a.sqlite.gz");
    assert_eq!(config["continue_on_failure"], false);
    assert_eq!(
        config["sub"]["secret_access_key"],
        "${RQLITE_RESTORE_SECRET_ACCESS_KEY}"
    );
    assert!(
        !container
            .args
            .iter()
            .flatten()
            .any(|arg| arg.contains("KEY"))
    );
    let from_secret = |name: &str| {
        let env = container.env.iter().flatten();
        env.filter(|env| env.name.starts_with(name))
            .all(|env| env.value.is_none() && env.value_from.is_some())
    };
    assert!(from_secret("RQLITE_RESTORE_"));

    first_node(&mut fixture, |_| {});
    fixture.reconcile();
    let (is_true, reason, text) = fixture.condition(RESTORING);
    assert!(is_true && reason == "Restoring", "{reason}: {text}");
    assert!(text.contains("s3://bkt/backups/a.sqlite.gz"), "{text}");
    // For hours, which is no failure.
    fixture.later(100_000);
    fixture.reconcile();
    assert!(fixture.condition(RESTORING).0);
    // It leads, and is not ready yet.
    first_node(&mut fixture, |node| {
        leads(node, AutoRestoreStatus::LOADING);
        node.ready = false;
    });
    fixture.reconcile();
    assert!(fixture.status().bootstrapped_at.is_none());

    first_node(&mut fixture, |node| {
        leads(node, AutoRestoreStatus::RESTORED)
    });
    fixture.pod("demo-0").ready = true;
    fixture.reconcile();
    let record = fixture.status().bootstrap_restore.unwrap();
    assert_eq!(record.state, BootstrapRestoreState::Succeeded);
    assert_eq!((record.index, record.bytes), (Some(41), Some(4096)));
    assert!(record.completed_at.is_some() && fixture.status().bootstrapped_at.is_some());
    fixture.keeps_pods = true;
    let mut grown = false;
    for _ in 0..6 {
        let plan = fixture.reconcile();
        if let Some((_, container, config)) = node(&plan) {
            assert!(!restores(&container) && config.is_none());
            let names = container.env.iter().flatten();
            assert!(
                names
                    .clone()
                    .all(|env| !env.name.starts_with("RQLITE_RESTORE"))
            );
        }
        grown |= matches!(plan.action, Some(Action::SetReplicas { to: 2, .. }));
        assert!(!matches!(
            plan.action,
            Some(Action::EvictPod { .. } | Action::DeletePod { .. })
        ));
    }
    assert!(grown, "the second voter comes before the first restarts");
    // Neither its removal nor another wish changes anything now.
    let before = fixture.status().target;
    for asked in [None, Some(object("b"))] {
        ask(&mut fixture, asked.clone());
        fixture.reconcile();
        let now = fixture.status();
        assert_eq!(
            now.target.clone().map(|t| t.template_hash),
            before.clone().map(|t| t.template_hash)
        );
        let record = now.bootstrap_restore.clone().unwrap();
        assert_eq!(record.state, BootstrapRestoreState::Succeeded);
        let advice = now.condition("Advisory").unwrap().message.clone();
        let said = advice.contains("bootstrap.restore is ignored");
        assert_eq!(said, asked.is_some(), "{advice}");
    }
}

#[test]
fn a_failed_restore_is_told_in_the_nodes_words_and_corrected_by_the_spec() {
    let mut fixture = new(object("wrong"));
    created(&mut fixture);
    first_node(&mut fixture, |_| {});
    fixture.keeps_pods = true;
    fixture.down(
        "demo-0",
        "rqlited: CrashLoopBackOff, after Error (exit code 1): fatal: auto-restore failed: s3://bkt/backups/wrong: not found",
    );
    for _ in 0..3 {
        let plan = fixture.reconcile();
        assert!(plan.action.is_none(), "{:?}", plan.action);
    }
    for kind in [RESTORING, READY, AVAILABLE] {
        let (is_true, reason, text) = fixture.condition(kind);
        assert!(!is_true && reason == "RestoreFailed", "{kind}: {reason}");
        assert!(text.contains("backups/wrong: not found"), "{kind}: {text}");
    }
    let record = fixture.status().bootstrap_restore.unwrap();
    assert_eq!(record.state, BootstrapRestoreState::Failed);
    ask(&mut fixture, Some(object("right")));
    let action = fixture.action();
    assert!(
        matches!(&action, Some(Action::DeletePod { name, .. }) if name == "demo-0"),
        "{action:?} {:?}",
        fixture.status().conditions
    );
    let source = fixture.status().bootstrap_restore.unwrap().source.unwrap();
    assert!(source.ends_with("right"), "{source}");
    // Without a restore it forms as any other, with all three.
    ask(&mut fixture, None);
    fixture.action();
    let status = fixture.status();
    assert_eq!(status.bootstrap_restore, None);
    assert_eq!(status.target.unwrap().bootstrap_replicas, 3);
}

#[test]
fn nothing_looks_ready_that_did_not_restore() {
    for (state, reason) in [("", "RestoreNotReported"), ("failed", "Restoring")] {
        let mut fixture = new(object("a"));
        created(&mut fixture);
        first_node(&mut fixture, |node| leads(node, state));
        fixture.pod("demo-0").ready = true;
        fixture.reconcile();
        fixture.reconcile();
        assert!(fixture.status().bootstrapped_at.is_none(), "{state}");
        let (is_true, said, text) = fixture.condition(READY);
        assert!(!is_true && !text.is_empty(), "{said}: {text}");
        let (_, said, _) = fixture.condition("Degraded");
        assert_eq!(said, reason);
    }
    // Asked for too late: the nodes have formed an empty cluster meanwhile.
    let mut fixture = Fixture::running(3, 0);
    let status = fixture.seen.cluster.status.as_mut().unwrap();
    status.bootstrapped_at = None;
    ask(&mut fixture, Some(of_backup()));
    fixture.seen.restore_source = Some(RestoreSource::Backup { found: None });
    fixture.reconcile();
    assert!(!fixture.condition(READY).0);
    fixture.seen.restore_source = Some(succeeded());
    for _ in 0..4 {
        fixture.reconcile();
    }
    assert!(fixture.status().bootstrapped_at.is_none());
    assert!(!fixture.condition(READY).0);
}

fn backup(phase: BackupPhase) -> RqliteBackup {
    let mut backup = RqliteBackup::new("nightly", RqliteBackupSpec::new("prod"));
    let status = backup.status.get_or_insert_default();
    status.phase = Some(phase);
    status.message = Some("so it is".to_owned());
    if phase == BackupPhase::Succeeded {
        status.target = Some(target("backups"));
        status.object = Some("nightly.sqlite.gz".to_owned());
    }
    backup
}

fn succeeded() -> RestoreSource {
    RestoreSource::Backup {
        found: Some(Box::new(backup(BackupPhase::Succeeded))),
    }
}

fn production(archives: bool) -> RqliteCluster {
    let mut cluster: RqliteCluster = serde_json::from_value(serde_json::json!({
        "apiVersion": "rqlite.dev/v1alpha1", "kind": "RqliteCluster", "metadata": {"name": "prod"},
        "spec": {"archive": {"target": target("prod"), "encryption": {"keySecret": {"name": "crypt", "key": "k"}}}}
    }))
    .unwrap();
    if !archives {
        cluster.spec.archive = None;
    }
    let status = cluster.status.get_or_insert_default();
    status.archive = Some(ArchiveStatus {
        lineage: Some("prod-1".to_owned()),
        ..ArchiveStatus::default()
    });
    cluster
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn without_a_source_nothing_is_created() {
    let cluster = |found: Option<RqliteCluster>| RestoreSource::Cluster {
        found: found.map(Box::new),
    };
    let of_phase = |phase| RestoreSource::Backup {
        found: Some(Box::new(backup(phase))),
    };
    let unread = RestoreSource::Unread {
        why: "forbidden".to_owned(),
    };
    let none = RestoreSource::Backup { found: None };
    let prod = || of_cluster(ArchivePoint::default());
    for (asked, source, reason, part) in [
        (
            of_backup(),
            none,
            "RestoreSourceMissing",
            "no RqliteBackup nightly in the namespace shop",
        ),
        (
            of_backup(),
            of_phase(BackupPhase::Running),
            "RestoreSourcePending",
            "so it is",
        ),
        (
            of_backup(),
            of_phase(BackupPhase::Pending),
            "RestoreSourcePending",
            "waiting",
        ),
        (
            of_backup(),
            of_phase(BackupPhase::Failed),
            "RestoreSourceFailed",
            "so it is",
        ),
        (
            of_backup(),
            of_phase(BackupPhase::Deleting),
            "RestoreSourceFailed",
            "another one",
        ),
        (of_backup(), unread, "RestoreSourceUnread", "forbidden"),
        (
            prod(),
            cluster(None),
            "RestoreSourceMissing",
            "no RqliteCluster prod",
        ),
        (
            prod(),
            cluster(Some(production(false))),
            "RestoreSourceMissing",
            "has no archive",
        ),
    ] {
        let mut fixture = new(asked);
        fixture.seen.restore_source = Some(source);
        for _ in 0..3 {
            let plan = fixture.reconcile();
            assert!(plan.objects.is_empty() && plan.action.is_none());
        }
        let (is_true, said, text) = fixture.condition(RESTORING);
        assert!(!is_true && said == reason, "{said}, not {reason}: {text}");
        assert!(text.contains(part), "{text}");
        assert!(!fixture.condition(READY).0 && fixture.status().cluster_id.is_none());
        // It appears.
        ask(&mut fixture, Some(of_backup()));
        fixture.seen.restore_source = Some(succeeded());
        let (_, container, config) = created(&mut fixture);
        assert!(restores(&container));
        assert!(config.unwrap().contains("backups/nightly.sqlite.gz"));
        // Once resolved, the object is not needed any more.
        fixture.seen.restore_source = Some(RestoreSource::Backup { found: None });
        first_node(&mut fixture, |_| {});
        fixture.reconcile();
        assert!(fixture.condition(RESTORING).0);
    }
}

#[test]
fn a_point_of_anothers_archive() {
    let time = Moment::from("2026-11-29T08:00:00Z");
    let at = |point: ArchivePoint| {
        let mut fixture = new(of_cluster(point));
        fixture.seen.restore_source = Some(RestoreSource::Cluster {
            found: Some(Box::new(production(true))),
        });
        let (_, container, config) = created(&mut fixture);
        let config: Value = serde_json::from_str(&config.unwrap()).unwrap();
        (container, config)
    };
    let (container, config) = at(ArchivePoint::default());
    assert_eq!(config["type"], "archive");
    let sub = &config["sub"];
    assert_eq!(sub["archive"]["sub"]["path"], "prod");
    assert_eq!(sub["key_file"], "/etc/rqlite/restore-key/keys");
    assert_eq!(sub["lineage"], "prod-1");
    assert!(sub.get("to_time").is_none() && sub.get("to_index").is_none());
    let mounts = container.volume_mounts.unwrap();
    let mounted = |path: &str| mounts.iter().any(|mount| mount.mount_path == path);
    assert!(mounted("/etc/rqlite/restore-key") && mounted("/etc/rqlite/restore-config"));
    let (_, config) = at(ArchivePoint {
        to_index: Some(7),
        ..ArchivePoint::default()
    });
    assert_eq!(config["sub"]["to_index"], 7);
    assert_eq!(config["sub"]["lineage"], "prod-1");
    let (_, config) = at(ArchivePoint {
        to_time: Some(time.clone()),
        ..ArchivePoint::default()
    });
    assert_eq!(config["sub"]["to_time"], time.0);
    assert!(
        config["sub"].get("lineage").is_none(),
        "it may be an earlier one"
    );
    // By its place, without the cluster.
    let mut fixture = new(BootstrapRestore {
        target: Some(target("gone")),
        encryption: Some(Encryption {
            key_secret: KeySelector {
                name: "crypt".to_owned(),
                key: "k".to_owned(),
            },
        }),
        archive: Some(ArchivePoint {
            lineage: Some("x$y".to_owned()),
            ..ArchivePoint::default()
        }),
        ..BootstrapRestore::default()
    });
    let (_, _, config) = created(&mut fixture);
    let config: Value = serde_json::from_str(&config.unwrap()).unwrap();
    assert_eq!(config["sub"]["lineage"], "x$$y", "no variable");
}
