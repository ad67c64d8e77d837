//! Tests of when a pod of a cluster that has not formed is recreated.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::cluster::{action::Action, fixture::Fixture};

const OLD: &str = "old";

/// Five voters: three run, and the scheduler has no machine for demo-3 and demo-4. All were created together.
fn refused() -> Fixture {
    let mut fixture = Fixture::forming(5);
    fixture.keeps_pods = true;
    let now = fixture.seen.now.clone();
    for name in ["demo-0", "demo-1", "demo-2"] {
        fixture.pod(name).created = Some(now.clone());
    }
    for name in ["demo-3", "demo-4"] {
        fixture.down(name, "Unschedulable: no machine");
        let pod = fixture.pod(name);
        (pod.machine, pod.created) = (None, Some(now.clone()));
        pod.unscheduled_since = Some(now.clone());
        fixture.claim(name).capacity = None;
    }
    fixture
}

fn outdated(fixture: &mut Fixture, names: &[&str]) {
    for name in names {
        fixture.pod(name).template_hash = OLD.to_owned();
    }
}

/// The scheduler has not said anything of this pod.
fn silent(fixture: &mut Fixture, name: &str) {
    let pod = fixture.pod(name);
    (pod.machine, pod.stuck) = (None, None);
}

fn ago(fixture: &Fixture, seconds: i64) -> Option<Time> {
    let mut clock = fixture.seen.now.clone();
    clock.0 -= k8s_openapi::jiff::SignedDuration::from_secs(seconds);
    Some(clock)
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn which_one_and_when() {
    type Change = fn(&mut Fixture);
    let cases: [(&str, Change, Option<&str>); 13] = [
        ("all as they should be", |_| {}, None),
        (
            "all outdated: one without a machine first",
            |f| outdated(f, &["demo-0", "demo-1", "demo-2", "demo-3", "demo-4"]),
            Some("demo-3"),
        ),
        (
            "then those that run",
            |f| outdated(f, &["demo-0", "demo-1"]),
            Some("demo-0"),
        ),
        (
            "none while an outdated one is being placed",
            |f| {
                outdated(f, &["demo-0", "demo-4"]);
                silent(f, "demo-0");
            },
            None,
        ),
        (
            "none while a new one is being placed",
            |f| {
                outdated(f, &["demo-0", "demo-4"]);
                silent(f, "demo-1");
            },
            None,
        ),
        (
            "the scheduler says nothing for long: there is none of this name",
            |f| {
                outdated(f, &["demo-1"]);
                silent(f, "demo-1");
                f.pod("demo-1").created = ago(f, 30);
            },
            Some("demo-1"),
        ),
        (
            "none while one stops",
            |f| {
                outdated(f, &["demo-0", "demo-1"]);
                f.pod("demo-0").deleting = true;
            },
            None,
        ),
        (
            "one was refused before another was replaced",
            |f| f.pod("demo-4").created = ago(f, 3),
            Some("demo-4"),
        ),
        (
            "and another one is yet to be replaced",
            |f| {
                f.pod("demo-4").created = ago(f, 3);
                outdated(f, &["demo-2"]);
            },
            Some("demo-2"),
        ),
        (
            "one was refused after all were replaced",
            |f| {
                for name in ["demo-0", "demo-1", "demo-2"] {
                    f.pod(name).created = ago(f, 20);
                }
            },
            None,
        ),
        (
            "refused for less than a minute",
            |f| f.pod("demo-3").unscheduled_since = ago(f, 59),
            None,
        ),
        (
            "refused for a minute",
            |f| f.pod("demo-3").unscheduled_since = ago(f, 61),
            Some("demo-3"),
        ),
        (
            "refused for a minute, and another node is silent",
            |f| {
                f.pod("demo-3").unscheduled_since = ago(f, 61);
                f.unreachable("demo-0");
            },
            Some("demo-3"),
        ),
    ];
    for (name, change, expected) in cases {
        let mut fixture = refused();
        change(&mut fixture);
        let deleted = match fixture.reconcile().action {
            Some(Action::DeletePod { name, .. }) => Some(name),
            None => None,
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(deleted.as_deref(), expected, "{name}");
    }
}

/// A cluster for which there are no machines: its pods are recreated ever less often, and then no more.
#[test]
fn not_for_ever() {
    let mut fixture = refused();
    let start = fixture.seen.now.0.as_second();
    let mut at = Vec::new();
    while fixture.seen.now.0.as_second() < start + 7200 {
        if let Some(Action::DeletePod { name, .. }) = fixture.reconcile().action {
            let now = fixture.seen.now.clone();
            let pod = fixture.pod(&name);
            (pod.created, pod.unscheduled_since) = (Some(now.clone()), Some(now.clone()));
            if name == "demo-3" {
                at.push(now.0.as_second() - start);
            }
        }
    }
    assert_eq!(at.len(), 4, "{at:?}");
    assert!(at.windows(2).all(|two| two[1] >= 2 * two[0]), "{at:?}");
}
