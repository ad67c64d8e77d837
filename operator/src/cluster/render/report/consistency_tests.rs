//! Whatever is observed, no two parts of the status contradict each other.
use operator_api::status::{Operation, OperationType, Step};

use crate::cluster::{facts::observation::ProbeResult, fixture::Fixture};

#[path = "../../../../tests/model/contradictions.rs"]
mod contradictions;

use contradictions::contradictions;

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn pod(&mut self) -> String {
        format!("demo-{}", self.below(3))
    }
}

fn happen(fixture: &mut Fixture, dice: &mut Dice) {
    let name = dice.pod();
    let answers = matches!(fixture.seen.nodes.get(&name), Some(ProbeResult::Ok(_)));
    let there = fixture.seen.pods.iter().any(|p| p.name == name);
    let seen = &mut fixture.seen;
    match dice.below(20) {
        0 => fixture.unreachable(&name),
        1 if there => fixture.down(&name, "CrashLoopBackOff"),
        2 if there && seen.claims.len() == 3 => fixture.wipe(&name),
        3 => fixture.leaderless(),
        4 => seen.claims.retain(|c| !c.name.ends_with(&name)),
        5 => {
            seen.pods.retain(|p| p.name != name);
            seen.nodes.remove(&name);
        }
        6 => seen.cluster.spec.paused ^= true,
        7 => seen.cluster.spec.hibernated ^= true,
        8 => seen.cluster.spec.replicas = [1, 3, 5][usize::try_from(dice.below(3)).unwrap()],
        9 => {
            let annotations = seen.cluster.metadata.annotations.get_or_insert_default();
            let at = dice.below(1000).to_string();
            annotations.insert(operator_api::names::RESTARTED_AT_ANNOTATION.to_owned(), at);
        }
        10 => {
            let now = seen.now.clone();
            seen.cluster.metadata.deletion_timestamp = Some(now);
        }
        11 => seen.cluster.spec.deletion_protection ^= true,
        12 if answers => fixture.node(&name).applied_index = 0,
        13 => seen.refused = Some("quota".to_owned()),
        // A leader is of the incarnation that its own configuration names.
        14 if answers && name != "demo-0" => fixture.node(&name).raft_id = format!("{name}#other"),
        15 => fixture.keeps_pods ^= true,
        16 => {
            let kinds = [
                OperationType::Bootstrap,
                OperationType::ScaleUp,
                OperationType::ScaleDown,
                OperationType::Update,
                OperationType::Hibernate,
                OperationType::Resume,
                OperationType::Replace,
                OperationType::Recover,
            ];
            let at = seen.now.clone();
            let kind = kinds[usize::try_from(dice.below(8)).unwrap()];
            seen.cluster.status.as_mut().unwrap().operation = Some(Operation {
                id: "o".to_owned(),
                kind,
                step: Step::Start,
                member: Some(name),
                uid: None,
                started_at: at.clone(),
                step_at: at,
                message: None,
                newer: Default::default(),
            });
        }
        17 => {
            fixture.recovery(|_| {});
        }
        18 => seen.cluster.status.as_mut().unwrap().bootstrapped_at = None,
        _ => fixture.later(i64::try_from(dice.below(400)).unwrap()),
    }
}

#[test]
fn no_two_parts_contradict_each_other() {
    let mut not_ready = 0;
    for seed in 0..1500 {
        let mut dice = Dice(seed);
        let mut fixture = Fixture::running(3, 0);
        let mut summaries = Vec::new();
        for _ in 0..6 {
            if dice.below(2) == 0 {
                happen(&mut fixture, &mut dice);
            }
            let cluster = fixture.seen.cluster.clone();
            let plan = fixture.reconcile();
            summaries.push(plan.summary);
            let found = contradictions(&cluster, &fixture.status());
            let status = serde_json::to_string_pretty(&fixture.status()).unwrap();
            assert!(
                found.is_empty(),
                "seed {seed}: {found:?} {summaries:?} {status}"
            );
            not_ready += u32::from(!fixture.condition("Ready").0);
        }
    }
    assert!((1000..9000).contains(&not_ready), "{not_ready}");
}
