//! Tests of the proof that a cluster has not formed.
use super::*;
use crate::cluster::fixture::Fixture;

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn only_what_is_certain() {
    type Change = fn(&mut Fixture);
    let cases: [(&str, Change, bool); 11] = [
        ("all answer, empty", |_| {}, true),
        (
            "one waits for a machine",
            |f| {
                f.down("demo-2", "Unschedulable");
                f.pod("demo-2").machine = None;
            },
            true,
        ),
        ("one is silent", |f| f.down("demo-2", ""), false),
        (
            "one is silent and stops",
            |f| {
                f.down("demo-2", "");
                f.pod("demo-2").deleting = true;
            },
            false,
        ),
        ("one is ready", |f| f.pod("demo-2").ready = true, false),
        (
            "one has a log",
            |f| f.node("demo-2").last_log_index = 1,
            false,
        ),
        (
            "one sees a leader",
            |f| f.node("demo-2").leader = Some("demo-0".to_owned()),
            false,
        ),
        (
            "there are no pods, and volumes",
            |f| {
                f.seen.pods.clear();
                f.seen.nodes.clear();
            },
            false,
        ),
        (
            "there are no pods, and no volumes",
            |f| {
                f.seen.pods.clear();
                f.seen.nodes.clear();
                f.seen.claims.retain(|claim| claim.name != "data-demo-0");
                for claim in &mut f.seen.claims {
                    claim.capacity = None;
                }
            },
            true,
        ),
        (
            "it has formed",
            |f| {
                let now = f.seen.now.clone();
                f.seen.cluster.status.as_mut().unwrap().bootstrapped_at = Some(now);
            },
            false,
        ),
        (
            "a pod beyond the target has data",
            |f| {
                let mut config = f.node("demo-2").clone();
                config.last_log_index = 7;
                f.seen
                    .nodes
                    .insert("demo-3".to_owned(), ProbeResult::Ok(config));
            },
            false,
        ),
    ];
    for (name, change, certain) in cases {
        let mut fixture = Fixture::forming(3);
        change(&mut fixture);
        let found = doubt(&View::of(&fixture.seen));
        assert_eq!(found.is_none(), certain, "{name}: {found:?}");
    }
}
