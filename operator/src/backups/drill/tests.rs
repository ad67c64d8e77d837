//! Every step of a drill: due, begun, followed, proven, failed, stale, asked for, given up.
use operator_api::{
    Moment, RqliteClusterSpec, RqliteClusterStatus, Span,
    cluster::Drill,
    lineage::Lineage,
    schedule::Cron,
    status::{ArchiveStatus, Target},
    store::{S3, StoreTarget},
};

use super::*;
use crate::cluster::facts::observation::{Archived, LeaderSeen};

fn at(text: &str) -> Time {
    Time(text.parse().unwrap())
}

fn archive(schedule: Option<&str>) -> Archive {
    Archive {
        target: StoreTarget {
            s3: Some(S3 {
                bucket: "bkt".to_owned(),
                prefix: Some("demo".to_owned()),
                ..S3::default()
            }),
            ..StoreTarget::default()
        },
        drill: schedule.map(|schedule| Drill {
            schedule: Cron::from(schedule),
            time_zone: None,
            timeout: None,
            scratch: None,
            resources: None,
        }),
        ..Archive::default()
    }
}

fn own(job: &str) -> JobRef {
    JobRef {
        name: job.to_owned(),
        uid: Some("of the job".to_owned()),
    }
}

struct World {
    cluster: RqliteCluster,
    job: Option<JobSeen>,
    ended: Vec<JobRef>,
    others: usize,
    leader: Option<LeaderSeen>,
    now: Time,
}

impl World {
    fn new(schedule: Option<&str>) -> Self {
        let mut cluster = RqliteCluster::new("demo", RqliteClusterSpec::default());
        cluster.metadata.namespace = Some("shop".to_owned());
        cluster.metadata.uid = Some("uid".to_owned());
        cluster.metadata.generation = Some(4);
        cluster.spec.archive = Some(archive(schedule));
        cluster.status = Some(RqliteClusterStatus {
            cluster_id: Some("own".to_owned()),
            lineage: Some(Lineage {
                id: "line".to_owned(),
                ..Lineage::default()
            }),
            target: Some(Target {
                image: "rqlited:1".to_owned(),
                ..Target::default()
            }),
            archive: Some(ArchiveStatus {
                archived_index: Some(50),
                ..ArchiveStatus::default()
            }),
            ..RqliteClusterStatus::default()
        });
        Self {
            cluster,
            job: None,
            ended: Vec::new(),
            others: 0,
            leader: Some(LeaderSeen {
                at: at("2026-01-01T00:00:00Z"),
                commit_index: 120,
                lineage: "line".to_owned(),
                archived: None,
            }),
            now: at("2026-01-01T00:00:00Z"),
        }
    }

    fn seen(&self) -> Seen<'_> {
        Seen {
            now: self.now.clone(),
            cluster: &self.cluster,
            job: self.job.clone(),
            ended: &self.ended,
            others: self.others,
            leader: self.leader.as_ref(),
            node_image: "rqlited:default",
            assigns_users: false,
        }
    }

    fn step(&self) -> Step {
        decide(&self.seen())
    }

    fn write(&mut self, next: Record) -> Record {
        let status = self.cluster.status.as_mut().unwrap();
        let archive = status.archive.take().unwrap_or_default();
        status.archive = Some(ArchiveStatus {
            drill: next.drill.clone(),
            ..archive
        });
        status.conditions = next.condition.clone().into_iter().collect();
        next
    }

    /// Carries out a recorded status, and returns it.
    fn record(&mut self) -> Record {
        let Step::Record(next) = self.step() else {
            panic!("{:?}", self.step());
        };
        self.write(*next)
    }

    fn drill(&self) -> DrillStatus {
        let status = self.cluster.status.clone().unwrap_or_default();
        status.archive.unwrap_or_default().drill.unwrap_or_default()
    }

    /// `True/DrillSucceeded`.
    fn condition(&self) -> String {
        let status = self.cluster.status.as_ref().unwrap();
        status
            .condition(BACKUPS_PROVEN)
            .map_or_else(String::new, |one| format!("{}/{}", one.status, one.reason))
    }

    fn message(&self) -> String {
        let status = self.cluster.status.as_ref().unwrap();
        status.condition(BACKUPS_PROVEN).unwrap().message.clone()
    }

    fn ask(&mut self, value: &str) {
        let all = self.cluster.metadata.annotations.get_or_insert_default();
        all.insert(names::DRILL_NOW_ANNOTATION.to_owned(), value.to_owned());
    }

    /// Lets a drill that has begun end at `now`.
    fn end(&mut self, succeeded: bool, result: &str) {
        assert!(self.drill().job.is_some());
        self.job = Some(JobSeen {
            is_ours: true,
            started: Some(self.now.clone()),
            ended: Some(self.now.clone()),
            succeeded: Some(succeeded),
            result: Some(result.to_owned()),
            ..JobSeen::default()
        });
        self.record();
        self.job = None;
    }
}

const GOOD: &str = r#"{"cluster_id":"own","lineage":{"id":"line","epoch":0},"index":117,"term":2,"time":"2026-01-01T00:00:00Z","base_index":3,"entries":114,"hashes_compared":2,"bytes":8192,"integrity":"ok","seconds":4.2}"#;

#[test]
fn from_the_schedule_to_the_proof() {
    let mut world = World::new(Some("0 3 * * *"));
    let begun = world.record();
    assert_eq!(begun.event.unwrap().reason, "DrillStarted");
    assert_eq!(world.condition(), "Unknown/NeverProven");
    let Step::Create(job) = world.step() else {
        panic!("{:?}", world.step());
    };
    assert_eq!(job.metadata.name, world.drill().job);
    let spec = job.spec.unwrap();
    assert_eq!(spec.active_deadline_seconds, Some(6 * 3600));
    let pod = spec.template.spec.unwrap();
    assert_eq!(pod.automount_service_account_token, Some(false));
    let args = pod.containers[0].args.clone().unwrap().join(" ");
    assert!(
        args.starts_with("archive drill -config=") && args.contains("-lineage=line"),
        "{args}"
    );
    let scratch = pod.volumes.unwrap().pop().unwrap();
    let limit = scratch.empty_dir.unwrap().size_limit.unwrap();
    assert_eq!(limit.0, (20_u64 << 30).to_string(), "twice 10Gi");
    world.job = Some(JobSeen {
        is_ours: true,
        started: Some(at("2026-01-01T00:00:02Z")),
        ..JobSeen::default()
    });
    world.record();
    assert_eq!(world.step(), Step::Wait(WAIT_SECONDS), "no news, no write");
    world.now = at("2026-01-01T00:00:30Z");
    world.end(true, GOOD);
    let drill = world.drill();
    assert_eq!(world.condition(), "True/DrillSucceeded");
    assert_eq!(
        (drill.proven_index, drill.behind_entries, drill.seconds),
        (Some(117), Some(3), Some(5))
    );
    assert_eq!(
        drill.proven_time,
        Some(Moment::from("2026-01-01T00:00:00Z"))
    );
    assert!(drill.message.unwrap().contains("hashes at 2 indexes"));
    assert_eq!((drill.job, drill.started_at), (None, None));
    // A calm cluster is not written.
    assert_eq!(world.step(), Step::Wait(CALM_SECONDS));
    world.now = at("2026-01-01T02:59:50Z");
    assert_eq!(world.step(), Step::Wait(10));
    world.now = at("2026-01-01T03:00:00Z");
    world.record();
    assert_eq!(
        world.drill().last_schedule_time,
        Some(at("2026-01-01T03:00:00Z"))
    );
    assert_eq!(
        world.condition(),
        "True/DrillSucceeded",
        "while the next one runs"
    );
}

#[test]
fn failures_say_why() {
    let failed = |result: Option<&str>, message: Option<&str>| JobSeen {
        is_ours: true,
        succeeded: Some(false),
        result: result.map(str::to_owned),
        message: message.map(str::to_owned),
        ..JobSeen::default()
    };
    let good = |result: &str| JobSeen {
        succeeded: Some(true),
        ..failed(Some(result), None)
    };
    let foreign = GOOD.replace("\"own\"", "\"other\"");
    let cases = [
        (
            failed(
                Some("{\"error\":\"000000-line/segments/7: damaged\"}"),
                Some("BackoffLimitExceeded"),
            ),
            "000000-line/segments/7: damaged (BackoffLimitExceeded)",
        ),
        (
            failed(Some("killed\nfor memory"), None),
            "killed for memory",
        ),
        (failed(None, Some("DeadlineExceeded")), "DeadlineExceeded"),
        (failed(None, None), "left no message"),
        (good("{}"), "no readable result"),
        (good("nonsense"), "no readable result"),
        (
            good("{\"index\":7,\"integrity\":\"row 3 missing\"}"),
            "is damaged: row 3",
        ),
        (good(&foreign), "a prefix of its own"),
        (JobSeen::default(), "another Job is called demo-drill-"),
    ];
    for (job, expected) in cases {
        let mut world = World::new(Some("0 3 * * *"));
        world.record();
        world.job = Some(job.clone());
        let event = world.record().event.unwrap();
        assert!(
            event.warning && event.message.contains(expected),
            "{event:?}"
        );
        assert_eq!(world.condition(), "False/DrillFailed", "{job:?}");
        let text = world.message();
        assert!(
            text.contains(expected) && text.contains("Runbook: drill-failed"),
            "{text}"
        );
        world.job = None;
        assert_eq!(
            world.step(),
            Step::Wait(CALM_SECONDS),
            "not before its time"
        );
    }
}

#[test]
fn what_cannot_run_has_failed() {
    // A Job that was there and is gone is not made again.
    let mut world = World::new(Some("0 3 * * *"));
    world.record();
    world.job = Some(JobSeen {
        is_ours: true,
        started: Some(world.now.clone()),
        ..JobSeen::default()
    });
    world.record();
    world.job = None;
    assert!(
        world
            .record()
            .event
            .unwrap()
            .message
            .contains("was deleted")
    );
    // A Secret that is missing is said without a pod.
    let mut world = World::new(Some("0 3 * * *"));
    world.record();
    let Step::Record(next) = lacking(&world.seen(), "the Secret keys has no key k".to_owned())
    else {
        panic!();
    };
    world.write(*next);
    assert_eq!(world.condition(), "False/DrillFailed");
    assert!(world.message().contains("no key k"));
}

#[test]
fn a_success_after_a_failure_counts_and_the_other_way_round() {
    let mut world = World::new(Some("0 3 * * *"));
    world.record();
    world.end(false, "{\"error\":\"no such bucket\"}");
    assert_eq!(world.condition(), "False/DrillFailed");
    let since = |world: &World| {
        let status = world.cluster.status.as_ref().unwrap();
        status.conditions[0].last_transition_time.clone()
    };
    let first = since(&world);
    world.now = at("2026-01-01T03:00:00Z");
    world.record();
    assert!(
        world.message().contains("no such bucket"),
        "while the next one runs"
    );
    world.end(false, "{\"error\":\"access denied\"}");
    assert_eq!(since(&world), first, "it is still false");
    world.now = at("2026-01-02T03:00:00Z");
    world.record();
    world.end(true, GOOD);
    assert_eq!(world.condition(), "True/DrillSucceeded");
    assert_eq!(since(&world), world.now);
    // The Job's clock is behind the operator's.
    let mut late = World::new(None);
    late.ask("1");
    late.record();
    late.end(false, "{\"error\":\"gone\"}");
    late.ask("2");
    late.record();
    let now = std::mem::replace(&mut late.now, at("2025-12-31T23:59:00Z"));
    late.end(true, GOOD);
    assert_eq!(
        (late.condition().as_str(), late.drill().proven_at),
        ("True/DrillSucceeded", Some(now))
    );
    world.now = at("2026-01-03T03:00:00Z");
    world.record();
    world.end(false, "{\"error\":\"gone\"}");
    assert_eq!(world.condition(), "False/DrillFailed");
    assert_eq!(
        world.drill().proven_at,
        Some(at("2026-01-02T03:00:00Z")),
        "it is still known"
    );
}

#[test]
fn a_proof_grows_old() {
    // The second time of the schedule, and ten minutes or three times the last drill, but never more than one
    // may take.
    let cases = [
        ("0 3 * * *", None, 5, "2026-01-02T03:10:00Z"),
        ("0 3 * * *", None, 3600, "2026-01-02T06:00:00Z"),
        ("0 3 * * *", Some("15m"), 3600, "2026-01-02T03:15:00Z"),
        ("@hourly", None, 5, "2026-01-01T02:10:00Z"),
        ("0 0 1 * *", None, 5, "2026-03-01T00:10:00Z"),
    ];
    for (schedule, timeout, seconds, until) in cases {
        let mut world = World::new(Some(schedule));
        let drill = world.cluster.spec.archive.as_mut().unwrap().drill.as_mut();
        drill.unwrap().timeout = timeout.map(Span::from);
        world.record();
        let good = GOOD.replace("4.2", &seconds.to_string());
        world.end(true, &good);
        // No drill is begun: the cluster is paused.
        world.cluster.spec.paused = true;
        let until = at(until);
        world.now = Time(
            until
                .0
                .checked_sub(k8s_openapi::jiff::SignedDuration::from_secs(1))
                .unwrap(),
        );
        assert_eq!(
            world.step(),
            Step::Wait(1),
            "{schedule}: it is looked at in time"
        );
        world.now = until;
        world.record();
        assert_eq!(world.condition(), "False/Stale", "{schedule}");
        let text = world.message();
        assert!(text.contains("2026-01-01T00:00:00Z"), "{text}");
        assert!(matches!(world.step(), Step::Wait(_)), "said once");
    }
    // Without a schedule nothing is due.
    let mut world = World::new(None);
    world.ask("1");
    world.record();
    world.end(true, GOOD);
    world.now = at("2029-01-01T00:00:00Z");
    assert_eq!(world.step(), Step::Wait(CALM_SECONDS));
    assert_eq!(world.condition(), "True/DrillSucceeded");
}

#[test]
fn what_begins_a_drill() {
    // Nothing is archived yet: nothing is begun, but by a person.
    let mut world = World::new(Some("0 3 * * *"));
    world.cluster.status.as_mut().unwrap().archive = None;
    world.record();
    assert_eq!(world.condition(), "Unknown/NeverProven");
    assert_eq!(world.step(), Step::Wait(CALM_SECONDS));
    world.leader.as_mut().unwrap().archived = Some(Archived {
        index: 9,
        time: "2026-01-01T00:00:00Z".to_owned(),
        uri: String::new(),
    });
    assert!(
        matches!(world.step(), Step::Record(_)),
        "the leader knows better"
    );
    world.leader = None;
    world.ask("now");
    let begun = world.record().drill.unwrap();
    assert_eq!(begun.requested.as_deref(), Some("now"));
    assert_eq!(begun.committed_index, None, "no leader is known");
    world.end(true, GOOD);
    assert_eq!(world.drill().behind_entries, None);
    assert!(
        matches!(world.step(), Step::Wait(_)),
        "once for each request"
    );
    world.ask("again");
    world.record();
    // An archive without drills and without requests has nothing to say.
    let world = World::new(None);
    assert!(!concerns(&world.cluster));
    assert_eq!(world.step(), Step::Wait(CALM_SECONDS));
    // Of several missed times the newest.
    let mut world = World::new(Some("0 3 * * *"));
    world.record();
    world.end(true, GOOD);
    world.now = at("2026-01-09T12:00:00Z");
    world.record();
    assert_eq!(
        world.drill().last_schedule_time,
        Some(at("2026-01-09T03:00:00Z"))
    );
    world.end(true, GOOD);
    assert!(matches!(world.step(), Step::Wait(_)));
    // Others go first.
    let mut world = World::new(Some("0 3 * * *"));
    world.others = MAX_RUNNING;
    world.record();
    assert_eq!(world.step(), Step::Wait(WAIT_SECONDS));
    world.others -= 1;
    assert_eq!(world.record().event.unwrap().reason, "DrillStarted");
}

/// A clock that jumped ahead and back.
#[test]
fn a_time_that_lies_ahead_stops_no_drill() {
    for (succeeded, result, expected) in [
        (true, GOOD, "True/DrillSucceeded"),
        (false, "no such bucket", "False/DrillFailed"),
    ] {
        let mut world = World::new(Some("0 3 * * *"));
        world.now = at("2027-06-01T00:00:00Z");
        world.record();
        world.end(true, GOOD);
        world.now = at("2026-01-01T00:00:00Z");
        assert_eq!(world.record().event.unwrap().reason, "DrillStarted");
        world.end(succeeded, result);
        assert_eq!(world.condition(), expected);
        assert!(matches!(world.step(), Step::Wait(_)), "once");
        world.now = at("2026-01-02T03:00:01Z");
        assert_eq!(world.record().event.unwrap().reason, "DrillStarted");
    }
    // A failure that lies ahead does not make a later success one of that time.
    let mut world = World::new(Some("0 3 * * *"));
    world.now = at("2027-06-01T00:00:00Z");
    world.record();
    world.end(false, "no such bucket");
    world.now = at("2026-01-01T00:00:00Z");
    world.record();
    world.end(true, GOOD);
    assert_eq!(world.drill().proven_at, Some(world.now.clone()));
    assert_eq!(world.condition(), "True/DrillSucceeded");
}

#[test]
fn bounds_and_ends() {
    // Ended Jobs beyond their number go, one after the other.
    let mut world = World::new(Some("0 3 * * *"));
    world.record();
    world.end(true, GOOD);
    world.ended = (0..5)
        .rev()
        .map(|n| own(&format!("demo-drill-{n}")))
        .collect();
    assert_eq!(world.step(), Step::Delete(own("demo-drill-1")));
    world.ended.truncate(3);
    assert!(matches!(world.step(), Step::Wait(_)));
    // A bad schedule is said, and begins nothing.
    let archive = world.cluster.spec.archive.as_mut().unwrap();
    archive.drill.as_mut().unwrap().schedule = Cron::from("0 0 30 2 *");
    world.record();
    assert_eq!(world.condition(), "False/InvalidSchedule");
    assert!(world.message().contains("no month has"));
    assert_eq!(world.step(), Step::Wait(CALM_SECONDS));
    // The archive is given up: what runs is ended, and the condition goes.
    let mut world = World::new(Some("0 3 * * *"));
    world.record();
    world.job = Some(JobSeen {
        is_ours: true,
        uid: Some("of the job".to_owned()),
        ..JobSeen::default()
    });
    let job = world.drill().job.unwrap();
    world.cluster.spec.archive = None;
    assert_eq!(world.step(), Step::Delete(own(&job)));
    world.job = None;
    let gone = world.record();
    assert_eq!((gone.drill, gone.condition), (None, None));
    assert_eq!(world.step(), Step::Done);
    // A cluster that is being deleted is left alone.
    let mut world = World::new(Some("0 3 * * *"));
    world.cluster.metadata.deletion_timestamp = Some(at("2026-01-01T00:00:00Z"));
    assert_eq!(world.step(), Step::Done);
}

#[test]
fn why_a_pod_does_not_start_is_said_once() {
    let mut world = World::new(Some("0 3 * * *"));
    world.record();
    world.job = Some(JobSeen {
        is_ours: true,
        started: Some(world.now.clone()),
        stuck: Some("ImagePullBackOff: no such image".to_owned()),
        ..JobSeen::default()
    });
    world.record();
    assert!(world.message().contains("does not start: ImagePullBackOff"));
    assert_eq!(world.condition(), "Unknown/NeverProven");
    assert_eq!(world.step(), Step::Wait(WAIT_SECONDS));
}
