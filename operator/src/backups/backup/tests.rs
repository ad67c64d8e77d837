//! Every step of a backup, of its failures and of its deletion.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use operator_api::{
    RqliteBackupSpec, RqliteClusterSpec,
    cluster::{Archive, Deletion},
    status::{RqliteClusterStatus, Target},
    store::{S3, StoreTarget},
};

use super::*;
use crate::backups::job_seen::JobRef;

mod pods;

fn time(second: i64) -> Time {
    Time(k8s_openapi::jiff::Timestamp::from_second(second).unwrap())
}

fn target() -> StoreTarget {
    StoreTarget {
        s3: Some(S3 {
            bucket: "bkt".to_owned(),
            ..S3::default()
        }),
        ..StoreTarget::default()
    }
}

fn a_backup() -> RqliteBackup {
    let mut backup = RqliteBackup::new("one", RqliteBackupSpec::new("demo"));
    backup.metadata.namespace = Some("shop".to_owned());
    backup.metadata.uid = Some("0123456789ab".to_owned());
    backup.spec.how.target = Some(target());
    backup
}

fn a_cluster() -> RqliteCluster {
    let mut cluster = RqliteCluster::new("demo", RqliteClusterSpec::default());
    cluster.metadata.namespace = Some("shop".to_owned());
    cluster.metadata.uid = Some("cluster-uid".to_owned());
    cluster.status = Some(RqliteClusterStatus {
        cluster_id: Some("id".to_owned()),
        target: Some(Target {
            image: "rqlited:1".to_owned(),
            ..Target::default()
        }),
        conditions: vec![Condition {
            type_: AVAILABLE.to_owned(),
            status: "True".to_owned(),
            reason: "Leader".to_owned(),
            message: String::new(),
            last_transition_time: time(0),
            observed_generation: None,
        }],
        ..RqliteClusterStatus::default()
    });
    cluster
}

struct World {
    backup: RqliteBackup,
    cluster: Option<RqliteCluster>,
    job: Option<JobSeen>,
    deletion: Option<JobSeen>,
    pods: Vec<String>,
}

impl World {
    fn new() -> Self {
        Self {
            backup: a_backup(),
            cluster: Some(a_cluster()),
            job: None,
            deletion: None,
            pods: Vec::new(),
        }
    }

    fn seen(&self) -> Seen<'_> {
        Seen {
            now: time(1_800_000_000),
            backup: &self.backup,
            cluster: self.cluster.as_ref(),
            job: self.job.clone(),
            deletion: self.deletion.clone(),
            node_image: "rqlited:default",
            domain: "cluster.local",
            assigns_users: false,
            pods: &self.pods,
        }
    }

    fn step(&self) -> Step {
        decide(&self.seen())
    }

    /// Carries out a recorded status, and returns it.
    fn record(&mut self) -> RqliteBackupStatus {
        let Step::Record(status) = self.step() else {
            panic!("{:?}", self.step());
        };
        self.backup.status = Some((*status).clone());
        *status
    }
}

fn running() -> Option<JobSeen> {
    Some(JobSeen {
        is_ours: true,
        uid: Some("job-uid".to_owned()),
        has_pod: true,
        started: Some(time(1)),
        ..JobSeen::default()
    })
}

#[test]
fn from_request_to_result() {
    let mut world = World::new();
    let begun = world.record();
    assert_eq!(begun.phase, Some(BackupPhase::Running));
    assert_eq!(
        begun.object.as_deref(),
        Some("backups/demo/one-01234567.sqlite.gz")
    );
    assert_eq!(
        begun.uri.as_deref(),
        Some("s3://bkt/backups/demo/one-01234567.sqlite.gz")
    );
    let Step::Create(job) = world.step() else {
        panic!("{:?}", world.step());
    };
    assert_eq!(job.metadata.name.as_deref(), Some("one-backup"));
    let pod = job.spec.unwrap().template.spec.unwrap();
    assert_eq!(pod.automount_service_account_token, Some(false));
    let container = &pod.containers[0];
    assert_eq!(container.image.as_deref(), Some("rqlited:1"));
    let args = container.args.clone().unwrap().join(" ");
    assert!(
        args.contains("-url=http://demo-client.shop.svc.cluster.local:4001"),
        "{args}"
    );
    world.job = running();
    assert_eq!(world.record().started_at, Some(time(1)));
    assert_eq!(
        world.step(),
        Step::Wait(WAIT_SECONDS),
        "nothing new is not written"
    );
    world.job = Some(JobSeen {
        succeeded: Some(true),
        ended: Some(time(9)),
        result: Some(
            "a line\n{\"bytes\":90,\"stored_bytes\":10,\"sha256\":\"ab\",\"raft_index\":7,\"integrity\":\"ok\"}\n"
                .to_owned(),
        ),
        ..running().unwrap()
    });
    let done = world.record();
    assert_eq!(done.phase, Some(BackupPhase::Succeeded));
    assert_eq!(
        (done.bytes, done.raft_index, done.completed_at),
        (Some(10), Some(7), Some(time(9)))
    );
    assert_eq!(done.conditions[0].status, "True");
    assert_eq!(world.step(), Step::Done);
}

#[test]
fn what_is_waited_for_is_said() {
    let mut world = World::new();
    world.cluster = None;
    assert!(
        world
            .record()
            .message
            .unwrap()
            .contains("no RqliteCluster demo")
    );
    assert_eq!(world.step(), Step::Wait(WAIT_SECONDS));
    let mut cluster = a_cluster();
    cluster.status = None;
    world.cluster = Some(cluster);
    assert!(world.record().message.unwrap().contains("not formed"));
    world.cluster = Some(a_cluster());
    world.job = Some(JobSeen::default());
    assert!(
        world
            .record()
            .message
            .unwrap()
            .contains("another Job is called one-backup")
    );
    world.job = None;
    assert_eq!(world.record().phase, Some(BackupPhase::Running));
}

#[test]
fn the_clusters_target_is_recorded_once() {
    let mut world = World::new();
    world.backup.spec.how.target = None;
    let failed = world.record();
    assert_eq!(failed.phase, Some(BackupPhase::Failed));
    assert!(failed.message.unwrap().contains("spec.archive"));
    let mut world = World::new();
    world.backup.spec.how.target = None;
    let mut cluster = a_cluster();
    cluster.spec.archive = Some(Archive {
        target: target(),
        ..Archive::default()
    });
    world.cluster = Some(cluster);
    assert_eq!(world.record().target, Some(target()));
}

#[test]
fn failures_have_reasons() {
    let failed = |result: Option<&str>, message: Option<&str>| JobSeen {
        succeeded: Some(false),
        failed: 4,
        result: result.map(str::to_owned),
        message: message.map(str::to_owned),
        ..running().unwrap()
    };
    let good = |result: &str| JobSeen {
        succeeded: Some(true),
        result: Some(result.to_owned()),
        ..running().unwrap()
    };
    let cases = [
        (
            failed(Some("{\"error\":\"no such bucket\"}"), None),
            "no such bucket",
        ),
        (
            failed(Some("panicked\nat the disk"), None),
            "panicked at the disk",
        ),
        (failed(None, Some("DeadlineExceeded")), "DeadlineExceeded"),
        (failed(None, None), "left no message"),
        (good("{}"), "no readable result"),
        (good("nonsense"), "no readable result"),
        (
            good("{\"stored_bytes\":1,\"sha256\":\"a\",\"integrity\":\"row 3 missing\"}"),
            "the copy is damaged: row 3",
        ),
        (JobSeen::default(), "another Job has taken the name"),
    ];
    for (job, expected) in cases {
        let mut world = World::new();
        world.record();
        world.job = Some(job.clone());
        let status = world.record();
        assert_eq!(status.phase, Some(BackupPhase::Failed), "{job:?}");
        let text = status.message.unwrap();
        assert!(text.contains(expected), "{text}");
    }
    // A Job that was there and is gone is not made again.
    let mut world = World::new();
    world.record();
    world.job = running();
    world.record();
    world.job = None;
    let ended = world.record();
    let text = ended.message.clone().unwrap();
    assert!(text.contains("its Job was deleted") && text.contains("result is unknown"));
    assert_eq!(ended.phase, Some(BackupPhase::Failed));
    assert!(ended_unseen(&ended) && !ended_unseen(&failed_one()));
}

fn failed_one() -> RqliteBackupStatus {
    let mut world = World::new();
    world.record();
    world.job = Some(JobSeen {
        succeeded: Some(false),
        ..running().unwrap()
    });
    world.record()
}

#[test]
fn an_image_that_knows_no_backups_is_said_at_once() {
    let cases = [
        ("rqlited:0.0.9", false),
        ("rqlited:0.1.0", true),
        ("rqlited:main", true),
        ("rqlited@sha256:ab", true),
    ];
    for (image, is_known) in cases {
        let mut world = World::new();
        let status = world.cluster.as_mut().unwrap().status.as_mut().unwrap();
        status.target.as_mut().unwrap().image = image.to_owned();
        let recorded = world.record();
        let expected = match is_known {
            true => BackupPhase::Running,
            false => BackupPhase::Pending,
        };
        assert_eq!(recorded.phase, Some(expected), "{image}");
        let text = recorded.message.unwrap();
        assert_eq!(text.contains("choose a newer image"), !is_known, "{text}");
    }
}

#[test]
fn a_job_or_a_pod_that_is_refused_is_said() {
    let mut world = World::new();
    let begun = world.record().message.unwrap();
    assert_eq!(begun, "its Job is being created");
    let why = "creating Job one-backup: jobs.batch is forbidden: exceeded quota";
    let Step::Record(status) = refused(&world.seen(), why) else {
        panic!();
    };
    assert!(status.message.as_ref().unwrap().contains(why));
    let reported = &status.conditions[0];
    assert_eq!(
        (reported.status.as_str(), reported.reason.as_str()),
        ("Unknown", "JobRefused")
    );
    world.backup.status = Some(*status);
    assert_eq!(refused(&world.seen(), why), Step::Wait(WAIT_SECONDS));
    assert!(matches!(world.step(), Step::Create(_)), "tried again");
    let without = |stuck: Option<&str>| {
        Some(JobSeen {
            has_pod: false,
            stuck: stuck.map(str::to_owned),
            ..running().unwrap()
        })
    };
    let cases = [
        (without(None), "its Job has no pod yet"),
        (
            without(Some("serviceaccount \"nobody\" not found")),
            "its pod does not start: serviceaccount \"nobody\" not found",
        ),
        (running(), "a pod makes the backup"),
    ];
    for (job, expected) in cases {
        world.job = job;
        let status = world.record();
        assert_eq!(status.message.as_deref(), Some(expected));
        assert!(status.conditions.is_empty());
    }
    // The Job that deletes the file.
    world.job = None;
    world.backup.spec.how.deletion_policy = Some(Deletion::Delete);
    world.backup.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    world.backup.metadata.deletion_timestamp = Some(time(5));
    let Step::Record(status) = refused(&world.seen(), why) else {
        panic!();
    };
    assert!(status.message.unwrap().contains(ABANDON_ANNOTATION));
    assert_eq!(status.conditions[0].type_, "ObjectDeleted");
}

#[test]
fn the_class_outlives_the_cluster() {
    let mut world = World::new();
    assert_eq!(world.record().operator_class, None, "the default");
    let mut world = World::new();
    let class = |world: &mut World, class: Option<&str>| {
        let cluster = world.cluster.as_mut().unwrap();
        cluster.spec.operator_class = class.map(str::to_owned);
    };
    class(&mut world, Some("second"));
    let begun = world.record();
    assert_eq!(begun.operator_class.as_deref(), Some("second"));
    world.job = Some(JobSeen {
        succeeded: Some(true),
        result: Some("{\"stored_bytes\":1,\"sha256\":\"a\",\"integrity\":\"ok\"}".to_owned()),
        ..running().unwrap()
    });
    world.record();
    assert_eq!(world.step(), Step::Done);
    // The cluster moves to other operators, or the record is from before there was one.
    class(&mut world, Some("third"));
    assert!(!has_class(&world.backup, world.cluster.as_ref()));
    assert_eq!(world.record().operator_class.as_deref(), Some("third"));
    assert_eq!(world.step(), Step::Done);
    world.cluster = None;
    assert!(has_class(&world.backup, None));
    assert_eq!(world.step(), Step::Done);
}

#[test]
fn what_nothing_holds_is_let_go_by_anybody() {
    let mut world = World::new();
    world.backup.spec.how.deletion_policy = Some(Deletion::Delete);
    assert!(is_let_go(&world.backup), "nothing was begun");
    world.backup.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    world.record();
    assert!(!is_let_go(&world.backup), "its file is to be deleted");
    world.backup.spec.how.deletion_policy = Some(Deletion::Retain);
    assert!(is_let_go(&world.backup));
    world.backup.spec.how.deletion_policy = Some(Deletion::Delete);
    let annotations = world.backup.annotations_mut();
    annotations.insert(ABANDON_ANNOTATION.to_owned(), "true".to_owned());
    assert!(is_let_go(&world.backup));
}

#[test]
fn the_file_goes_with_the_object_only_if_asked() {
    let mut world = World::new();
    world.backup.metadata.deletion_timestamp = Some(time(5));
    assert_eq!(world.step(), Step::Done, "Retain has no finalizer");
    let mut world = World::new();
    world.backup.spec.how.deletion_policy = Some(Deletion::Delete);
    assert_eq!(
        world.step(),
        Step::Finalizer(true),
        "before anything is begun"
    );
    world.backup.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    let mut early = World::new();
    early.backup = world.backup.clone();
    early.backup.metadata.deletion_timestamp = Some(time(5));
    assert_eq!(early.step(), Step::Finalizer(false), "nothing was begun");
    world.record();
    world.job = running();
    world.backup.metadata.deletion_timestamp = Some(time(5));
    let job = JobRef {
        name: "one-backup".to_owned(),
        uid: Some("job-uid".to_owned()),
    };
    assert_eq!(world.step(), Step::Stop(job));
    world.job = None;
    // Its pod may write for as long as it is there.
    world.pods = vec!["one-backup-x".to_owned()];
    let text = world.record().message.unwrap();
    assert!(text.contains("once the pod one-backup-x"), "{text}");
    assert!(matches!(world.step(), Step::Wait(_)));
    world.pods.clear();
    // The cluster may be gone.
    world.cluster = None;
    let Step::Create(job) = world.step() else {
        panic!("{:?}", world.step());
    };
    let pod = job.spec.unwrap().template.spec.unwrap();
    assert_eq!(pod.containers[0].image.as_deref(), Some("rqlited:1"));
    world.deletion = Some(JobSeen {
        succeeded: Some(false),
        result: Some("access denied".to_owned()),
        ..running().unwrap()
    });
    let text = world.record().message.unwrap();
    assert!(
        text.contains("access denied") && text.contains(ABANDON_ANNOTATION),
        "{text}"
    );
    let reported = world
        .backup
        .status
        .as_ref()
        .unwrap()
        .conditions
        .last()
        .unwrap();
    assert_eq!(
        (reported.type_.as_str(), reported.reason.as_str()),
        ("ObjectDeleted", "DeletionFailed")
    );
    assert!(matches!(world.step(), Step::Wait(_)), "said once");
    world.backup.spec.how.deletion_policy = Some(Deletion::Retain);
    assert_eq!(world.step(), Step::Finalizer(false));
    world.backup.spec.how.deletion_policy = Some(Deletion::Delete);
    let annotations = world.backup.annotations_mut();
    annotations.insert(ABANDON_ANNOTATION.to_owned(), "true".to_owned());
    assert_eq!(world.step(), Step::Finalizer(false));
    world.backup.annotations_mut().clear();
    world.deletion = Some(JobSeen {
        succeeded: Some(true),
        ..running().unwrap()
    });
    assert_eq!(world.step(), Step::Finalizer(false));
}

#[test]
fn the_policy_may_change_afterwards() {
    let mut world = World::new();
    world.record();
    world.job = Some(JobSeen {
        succeeded: Some(true),
        result: Some("{\"stored_bytes\":1,\"sha256\":\"a\",\"integrity\":\"ok\"}".to_owned()),
        ..running().unwrap()
    });
    world.record();
    assert_eq!(world.step(), Step::Done);
    assert!(is_settled(&world.backup));
    world.backup.spec.how.deletion_policy = Some(Deletion::Delete);
    assert!(!is_settled(&world.backup));
    assert_eq!(world.step(), Step::Finalizer(true));
    world.backup.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    assert_eq!(world.step(), Step::Done);
    world.backup.spec.how.deletion_policy = Some(Deletion::Retain);
    assert_eq!(world.step(), Step::Finalizer(false));
    // Nothing was begun: there is no file.
    let mut early = World::new();
    early.cluster.as_mut().unwrap().spec.archive = None;
    early.backup.spec.how.target = None;
    early.record();
    early.backup.spec.how.deletion_policy = Some(Deletion::Delete);
    early.backup.metadata.finalizers = None;
    assert!(is_settled(&early.backup));
}

#[test]
fn a_missing_secret_is_said_once() {
    let mut world = World::new();
    world.record();
    let lacks = "the Secret keys has no key access-key-id";
    let Step::Record(status) = lacking(&world.seen(), lacks) else {
        panic!();
    };
    assert!(status.message.as_ref().unwrap().contains(lacks));
    let reported = &status.conditions[0];
    assert_eq!(
        (reported.status.as_str(), reported.reason.as_str()),
        ("Unknown", "SecretMissing")
    );
    world.backup.status = Some(*status);
    assert_eq!(lacking(&world.seen(), lacks), Step::Wait(WAIT_SECONDS));
    assert!(matches!(world.step(), Step::Create(_)), "tried again");
    world.job = running();
    assert!(world.record().conditions.is_empty(), "it is there now");
}
