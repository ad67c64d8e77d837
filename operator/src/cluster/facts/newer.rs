//! Work that a newer operator has begun and this version does not know.
use operator_api::RqliteClusterStatus;

use crate::cluster::facts::view::View;

/// Reason of the conditions that say so.
pub const REASON: &str = "WrittenByNewerOperator";

/// Names what this version cannot continue, if anything: an operation, its step, or a recovery.
pub fn unknown_work(status: &RqliteClusterStatus) -> Option<String> {
    if let Some(operation) = &status.operation {
        if !operation.kind.is_known() {
            return Some(format!("the operation {:?}", operation.kind));
        }
        if !operation.step.is_known() {
            return Some(format!(
                "the step {:?} of the operation {:?}",
                operation.step, operation.kind
            ));
        }
    }
    let record = status.recovery.as_ref()?;
    if !record.phase.is_known() {
        return Some(format!("the phase {:?} of a recovery", record.phase));
    }
    (!record.mode.is_known() && !record.phase.is_final())
        .then(|| format!("a recovery of mode {:?}", record.mode))
}

/// The text of the condition.
pub fn explain(view: &View<'_>, work: &str) -> String {
    let version = view.status.operator_version.as_deref();
    let by = version.map_or(String::new(), |version| format!(" (version {version})"));
    format!(
        "{work} was begun by a newer operator{by} and is unknown to this one, which changes nothing: install the newer operator again and let it finish"
    )
}

#[cfg(test)]
mod tests {
    use operator_api::{
        RqliteClusterStatus,
        status::{AVAILABLE, DEGRADED, PROGRESSING},
    };
    use serde_json::{Value, json};

    use crate::cluster::fixture::Fixture;

    /// Changes the stored status as a newer operator would have written it.
    fn written(fixture: &mut Fixture, change: impl FnOnce(&mut Value)) {
        let mut status = serde_json::to_value(fixture.status()).unwrap();
        change(&mut status);
        fixture.seen.cluster.status = serde_json::from_value(status).unwrap();
    }

    fn stored(status: &RqliteClusterStatus) -> Value {
        serde_json::to_value(status).unwrap()
    }

    #[test]
    fn unknown_work_is_left_alone_and_said() {
        let at = "2026-01-01T00:00:00Z";
        let operation = |kind: &str, step: &str| {
            json!({"id": "o", "type": kind, "step": step, "startedAt": at,
            "stepAt": at, "message": "half done", "shard": 7})
        };
        for (kind, step, said) in [
            ("Defragment", "Start", "the operation Defragment"),
            (
                "ScaleDown",
                "Weigh",
                "the step Weigh of the operation ScaleDown",
            ),
        ] {
            let mut fixture = Fixture::running(3, 0);
            written(&mut fixture, |status| {
                status["operation"] = operation(kind, step);
                status["operatorVersion"] = "9.0.0".into();
            });
            // Whatever the spec asks for meanwhile.
            fixture.seen.cluster.spec.replicas = 1;
            for _ in 0..3 {
                fixture.later(1000);
                let plan = fixture.reconcile();
                assert_eq!((plan.action, plan.objects.len()), (None, 0), "{kind}");
            }
            let now = stored(&fixture.status());
            assert_eq!(now["operation"], operation(kind, step), "{kind}");
            assert_eq!(now["operatorVersion"], "9.0.0");
            for condition in [DEGRADED, PROGRESSING] {
                let (_, reason, text) = fixture.condition(condition);
                assert_eq!(reason, "WrittenByNewerOperator");
                assert!(text.contains(said) && text.contains("9.0.0"), "{text}");
            }
            assert!(fixture.condition(AVAILABLE).0, "the nodes serve");
        }
    }

    #[test]
    fn a_cluster_of_a_newer_operator_is_read_and_its_fields_stay() {
        let mut fixture = Fixture::running(3, 0);
        written(&mut fixture, |status| {
            status["phase"] = "Dreaming".into();
            status["forecast"] = json!({"at": "noon"});
            status["target"]["shape"] = "round".into();
            status["members"][1]["state"] = "Napping".into();
            status["members"][1]["role"] = "observer".into();
            status["members"][1]["pool"] = "observer".into();
        });
        let before = fixture.status().target;
        assert!(fixture.reconcile().action.is_none());
        let now = stored(&fixture.status());
        assert_eq!(now["phase"], "Running");
        assert_eq!(now["forecast"]["at"], "noon");
        assert_eq!(fixture.status().target, before);
        assert_eq!(now["members"][1]["state"], "Healthy");
    }
}
