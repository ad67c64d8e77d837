//! Conversion of a pod for the planner: whether it is ready, and why it does not run.
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodCondition, PodSpec,
    PodStatus,
};
use operator_api::{names, recovery::LogPosition, status::Pool};

use crate::{
    cluster::facts::{
        observation::{ObservedPod, PrepareReport},
        stages::PodTls,
    },
    live::{containers, controller},
};

/// Init container that runs `rqlited prepare`.
const PREPARE: &str = "prepare";
/// Reasons of waiting containers that are part of a normal start.
const STARTING: [&str; 2] = ["ContainerCreating", "PodInitializing"];
/// Labels that the operator sets on running pods.
const OWN_LABELS: [&str; 6] = [
    names::OWNER_LABEL,
    names::ROLE_LABEL,
    names::RAFT_LABEL,
    names::SERVING_LABEL,
    names::EPOCH_LABEL,
    names::SECRETS_LABEL,
];
/// Maximum length of an explanation in a status.
const MAX_TEXT_CHARS: usize = 400;

/// Converts a pod; None if its pool label has an unknown value.
pub(super) fn convert(pod: &Pod) -> Option<ObservedPod> {
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    let pool = match labels.get(names::POOL_LABEL).map(String::as_str) {
        Some("voter") => Pool::Voter,
        Some("read") => Pool::Read,
        _ => return None,
    };
    let annotations = pod.metadata.annotations.clone().unwrap_or_default();
    let annotation = |key: &str| annotations.get(key).cloned();
    let status = pod.status.clone().unwrap_or_default();
    let ready = condition(&status, "Ready").filter(|c| c.status == "True");
    let deleting = pod.metadata.deletion_timestamp.is_some();
    let own = labels
        .into_iter()
        .filter(|(key, _)| OWN_LABELS.contains(&key.as_str()));
    Some(ObservedPod {
        name: pod.metadata.name.clone().unwrap_or_default(),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        pool,
        template_hash: annotation(names::TEMPLATE_HASH_ANNOTATION).unwrap_or_default(),
        ready: ready.is_some() && !deleting,
        ready_since: ready.and_then(|c| c.last_transition_time.clone()),
        deleting,
        machine: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        created: pod.metadata.creation_timestamp.clone(),
        unscheduled_since: unscheduled(&status).and_then(|c| c.last_transition_time.clone()),
        stuck: stuck(&status).map(|text| text.chars().take(MAX_TEXT_CHARS).collect()),
        prepared: prepared(&status),
        update_now: annotation(names::UPDATE_NOW_ANNOTATION).as_deref() == Some("true"),
        labels: own.collect::<BTreeMap<_, _>>(),
        claim: claim(pod),
        orphaned: controller(pod).is_none(),
        tls: tls_of(pod.spec.as_ref()),
        archive: annotation(names::ARCHIVE_ANNOTATION),
    })
}

/// What its node speaks, by the flags of its container.
pub(super) fn tls_of(pod: Option<&PodSpec>) -> PodTls {
    let containers = pod.map(|pod| pod.containers.iter());
    let mut containers = containers.into_iter().flatten();
    let node = containers.find(|container| container.name == "rqlited");
    let flags = node
        .and_then(|node| node.args.as_deref())
        .unwrap_or_default();
    PodTls::of_flags(flags.iter().map(String::as_str))
}

/// The claim of its data volume.
fn claim(pod: &Pod) -> Option<String> {
    let mut volumes = pod.spec.as_ref()?.volumes.iter().flatten();
    let data = volumes.find(|volume| volume.name == names::DATA_VOLUME)?;
    let claim = data.persistent_volume_claim.as_ref()?;
    Some(claim.claim_name.clone())
}

pub(super) fn condition<'a>(status: &'a PodStatus, kind: &str) -> Option<&'a PodCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == kind)
}

/// The condition by which the scheduler says that it has no machine for the pod.
fn unscheduled(status: &PodStatus) -> Option<&PodCondition> {
    condition(status, "PodScheduled").filter(|c| c.status == "False")
}

/// Why the pod does not run; None while it runs or starts normally.
fn stuck(status: &PodStatus) -> Option<String> {
    if status.phase.as_deref() == Some("Failed") {
        let reason = status.reason.as_deref().unwrap_or("Failed");
        return Some(reason_and_message(reason, status.message.as_deref()));
    }
    if let Some(scheduled) = unscheduled(status) {
        let reason = scheduled.reason.as_deref().unwrap_or("NotScheduled");
        return Some(reason_and_message(reason, scheduled.message.as_deref()));
    }
    containers(status).find_map(stuck_container)
}

fn stuck_container(container: &ContainerStatus) -> Option<String> {
    let state = container.state.clone().unwrap_or_default();
    let last = container
        .last_state
        .clone()
        .and_then(|state| state.terminated);
    let text = if let Some(waiting) = state.waiting {
        let reason = waiting.reason.as_deref().unwrap_or("Waiting");
        if STARTING.contains(&reason) {
            return None;
        }
        match last {
            // The kubelet's message is only "back-off 40s restarting ...": use how the container ended
            // instead.
            Some(end) if reason == "CrashLoopBackOff" => format!("{reason}, after {}", ended(&end)),
            _ => reason_and_message(reason, waiting.message.as_deref()),
        }
    } else {
        let end = state.terminated.filter(|end| end.exit_code != 0)?;
        ended(&end)
    };
    Some(format!("{}: {text}", container.name))
}

pub(super) fn ended(end: &ContainerStateTerminated) -> String {
    let reason = end.reason.as_deref().unwrap_or("Error");
    let message = end.message.as_deref();
    // The termination message of `rqlited prepare` is a JSON report.
    let message = message.and_then(report).map(|report| report.reason);
    let message = message.or_else(|| end.message.as_deref().map(last_words));
    reason_and_message(
        &format!("{reason} (exit code {})", end.exit_code),
        message.as_deref(),
    )
}

/// The end of a log is the message of a node that is to restore: what counts is why it ended.
fn last_words(message: &str) -> String {
    let fatal = message.rfind("fatal: ");
    let words = fatal.and_then(|at| message.get(at..));
    words.unwrap_or(message).to_owned()
}

pub(super) fn reason_and_message(reason: &str, message: Option<&str>) -> String {
    match message.map(str::trim).filter(|text| !text.is_empty()) {
        Some(message) => format!("{reason}: {message}"),
        None => reason.to_owned(),
    }
}

/// Parses the report of `rqlited prepare`, its termination message.
fn report(message: &str) -> Option<node_contract::PrepareReport> {
    serde_json::from_str(message).ok()
}

/// The last report of `rqlited prepare`.
fn prepared(status: &PodStatus) -> Option<PrepareReport> {
    let container = containers(status).find(|c| c.name == PREPARE)?;
    let end = |state: &Option<ContainerState>| state.clone()?.terminated?.message;
    let message = end(&container.state).or_else(|| end(&container.last_state))?;
    let report = report(&message)?;
    Some(PrepareReport {
        raft_id: report.raft_id,
        last_log: report.last_log.map(LogPosition::from),
        state: report.state,
        cluster_id: report.cluster_id,
        lineage: report.lineage,
        reason: report.reason,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "demo-1", "uid": "u",
                "labels": {"rqlite.dev/pool": "voter", "rqlite.dev/role": "leader", "app": "x"},
                "annotations": {"rqlite.dev/template-hash": "h", "rqlite.dev/update-now": "true"}},
            "spec": {"nodeName": "node-3", "containers": []},
            "status": status,
        }))
        .unwrap()
    }

    fn why(status: Value) -> Option<String> {
        convert(&pod(status)).unwrap().stuck
    }

    #[test]
    fn a_ready_pod() {
        let ready = json!({"phase": "Running", "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
        let mut pod = pod(ready);
        let one = convert(&pod).unwrap();
        assert_eq!(
            (&*one.name, &*one.uid, one.pool),
            ("demo-1", "u", Pool::Voter)
        );
        assert_eq!(one.template_hash, "h");
        assert_eq!(one.machine.as_deref(), Some("node-3"));
        assert!(one.ready && one.ready_since.is_some() && one.update_now && !one.deleting);
        assert_eq!(
            one.labels.len(),
            1,
            "only the operator's own: {:?}",
            one.labels
        );
        assert_eq!((one.stuck, one.prepared, one.claim), (None, None, None));
        assert!(one.orphaned, "it has no controller");
        pod.metadata.deletion_timestamp = one.ready_since;
        let leaving = convert(&pod).unwrap();
        assert!(leaving.deleting && !leaving.ready);
        pod.metadata.owner_references = Some(vec![
            serde_json::from_value(
                json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "demo",
                "uid": "s", "controller": true}),
            )
            .unwrap(),
        ]);
        pod.spec.as_mut().unwrap().volumes = serde_json::from_value(json!([{"name": "tmp"},
            {"name": "data", "persistentVolumeClaim": {"claimName": "data-demo-1"}}]))
        .unwrap();
        let owned = convert(&pod).unwrap();
        assert!(!owned.orphaned);
        assert_eq!(owned.claim.as_deref(), Some("data-demo-1"));
        pod.metadata.labels = None;
        assert_eq!(convert(&pod), None, "no pool");
    }

    #[test]
    fn why_it_does_not_run() {
        let waiting = |reason: &str| {
            json!({"containerStatuses": [{"name": "rqlited", "image": "i", "imageID": "", "ready": false,
                "restartCount": 0, "state": {"waiting": {"reason": reason, "message": "details"}}}]})
        };
        let crash = json!({"containerStatuses": [{"name": "rqlited", "image": "i", "imageID": "", "ready": false,
            "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
            "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]});
        let scheduling = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": "0/3 nodes are available"}]});
        let evicted = json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"});
        let starting = json!({"phase": "Running", "containerStatuses": [{"name": "rqlited", "image": "i",
            "imageID": "", "ready": false, "restartCount": 0, "state": {"running": {}}}]});
        let cases = [
            (json!({}), None),
            (starting, None),
            (waiting("ContainerCreating"), None),
            (waiting("PodInitializing"), None),
            (
                waiting("ImagePullBackOff"),
                Some("rqlited: ImagePullBackOff: details"),
            ),
            (
                waiting("CreateContainerConfigError"),
                Some("rqlited: CreateContainerConfigError: details"),
            ),
            (
                crash,
                Some("rqlited: CrashLoopBackOff, after OOMKilled (exit code 137)"),
            ),
            (scheduling, Some("Unschedulable: 0/3 nodes are available")),
            (evicted, Some("Evicted: low on memory")),
        ];
        for (status, expected) in cases {
            assert_eq!(why(status.clone()).as_deref(), expected, "{status}");
        }
    }

    #[test]
    fn since_when_it_has_no_machine() {
        let scheduled = |status: &str| {
            let at = "2026-01-01T00:00:07Z";
            let pod = pod(
                json!({"conditions": [{"type": "PodScheduled", "status": status,
                "lastTransitionTime": at}]}),
            );
            let since = convert(&pod).unwrap().unscheduled_since;
            since.map(|since| since.0.to_string() == at)
        };
        assert_eq!((scheduled("False"), scheduled("True")), (Some(true), None));
    }

    #[test]
    fn what_the_preparation_reported() {
        let status = |state: Value, last: Value| {
            json!({"initContainerStatuses": [{"name": "prepare", "image": "i", "imageID": "", "ready": false,
                "restartCount": 1, "state": state, "lastState": last}]})
        };
        let ended = |code: i32, report: Value| json!({"terminated": {"exitCode": code, "reason": "Error", "message": report.to_string()}});
        let foreign = json!({"state": "Foreign", "cluster_id": "other", "lineage": {"id": "l", "epoch": 2},
            "raft_id": "demo-1#i", "last_log": {"term": 3, "index": 9}, "name": "demo-1", "reason": "belongs to cluster other"});
        let back_off = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let refused = convert(&pod(status(back_off, ended(1, foreign)))).unwrap();
        let report = refused.prepared.unwrap();
        assert_eq!(report.state, "Foreign");
        assert_eq!(report.cluster_id.as_deref(), Some("other"));
        assert_eq!(report.lineage.map(|l| l.epoch), Some(2));
        assert_eq!(report.raft_id.as_deref(), Some("demo-1#i"));
        assert_eq!(report.last_log.map(|l| (l.term, l.index)), Some((3, 9)));
        assert_eq!(
            refused.stuck.as_deref(),
            Some("prepare: CrashLoopBackOff, after Error (exit code 1): belongs to cluster other")
        );
        let fine = status(ended(0, json!({"state": "Ready", "reason": ""})), json!({}));
        let fine = convert(&pod(fine)).unwrap();
        assert_eq!(
            (fine.prepared.unwrap().state.as_str(), fine.stuck),
            ("Ready", None)
        );
        let other = status(
            json!({"terminated": {"exitCode": 1, "message": "panicked"}}),
            json!({}),
        );
        let other = convert(&pod(other)).unwrap();
        assert_eq!(other.prepared, None);
        assert_eq!(
            other.stuck.as_deref(),
            Some("prepare: Error (exit code 1): panicked")
        );
    }
}
