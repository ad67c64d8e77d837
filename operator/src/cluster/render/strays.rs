//! Pods that carry the cluster's label and are not its own.
use crate::cluster::{action::Event, facts::view::View};

/// Reason of the condition and the event.
pub const REASON: &str = "StrayPods";
/// How many of them a message names.
const NAMED: usize = 5;

/// Names the pods, and says what they do and do not affect.
pub fn problem(view: &View<'_>) -> Option<String> {
    let strays = &view.seen.strays;
    if strays.is_empty() {
        return None;
    }
    let mut names = strays
        .iter()
        .take(NAMED)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if strays.len() > NAMED {
        names = format!("{names} and {} more", strays.len() - NAMED);
    }
    Some(format!(
        "pods that no StatefulSet of this cluster made carry its labels: {names}. The operator ignores them and leaves them alone; \
         a Service sends clients to one that has all the labels it selects by. Remove the label {} from them, or delete them",
        operator_api::names::CLUSTER_LABEL
    ))
}

/// The event about them; it is the same as long as they are.
pub fn event(view: &View<'_>) -> Option<Event> {
    problem(view).map(|message| Event {
        warning: true,
        reason: REASON.to_owned(),
        message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fixture::Fixture;

    #[test]
    fn they_are_named_and_change_nothing() {
        let mut fixture = Fixture::running(3, 0);
        assert_eq!(fixture.reconcile().notices, []);
        let calm = fixture.reconcile();
        fixture.seen.strays = vec!["debug".to_owned()];
        let plan = fixture.reconcile();
        assert_eq!(plan.action, None);
        assert_eq!(plan.objects, calm.objects);
        assert_eq!(plan.labels, calm.labels);
        let (ready, _, _) = fixture.condition("Ready");
        assert!(ready);
        let (shown, reason, text) = fixture.condition("Advisory");
        assert!(
            shown && reason == REASON && text.contains(": debug. "),
            "{text}"
        );
        let [event] = &plan.notices[..] else {
            panic!("{:?}", plan.notices);
        };
        assert_eq!((event.warning, event.reason.as_str()), (true, REASON));
        fixture.seen.strays = (0..9).map(|n| format!("x-{n}")).collect();
        let text = problem(&View::of(&fixture.seen)).unwrap();
        assert!(text.contains("x-4 and 4 more"), "{text}");
    }
}
