//! Members without a pod of the operator: nodes that were started manually and disappeared, and members left
//! behind by scaling a StatefulSet.
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::{command::until, namespace::LIMIT};
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, LONG, NAME, open, spec},
    edits::scale_manually,
    fixture::{Fixture, text},
    report::Measurements,
};

/// How long the leader must have had no contact with a read replica: the minimum that the definition allows.
const READER_TIMEOUT: Duration = Duration::from_secs(60);

/// Starts a node manually in its own pod. The operator does not know it.
fn start_manually(cluster: &Cluster<'_>, name: &str, votes: bool) -> Result<()> {
    let image = cluster.voter(0)?.image;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "automountServiceAccountToken": false,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 1000, "fsGroup": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": "rqlited", "image": image, "imagePullPolicy": "IfNotPresent",
                "command": ["rqlited"],
                "args": [
                    format!("-node-id={name}"),
                    "-http-addr=0.0.0.0:4001", "-http-adv-addr=$(POD_IP):4001",
                    "-raft-addr=0.0.0.0:4002", "-raft-adv-addr=$(POD_IP):4002",
                    format!("-raft-non-voter={}", !votes),
                    format!("-join={NAME}-headless:4002"),
                    "/data/node",
                ],
                "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                "securityContext": {
                    "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }],
            "volumes": [{"name": "data", "emptyDir": {}}],
        },
    });
    cluster.namespace.apply(&pod.to_string()).map(drop)
}

fn await_member(cluster: &Cluster<'_>, name: &str) -> Result<()> {
    until(&format!("{name} to be a member"), LIMIT, || {
        let members = cluster.configuration()?;
        ensure!(members.contains_key(name), "{members:?}");
        Ok(())
    })
}

/// Kills it and deletes its pod at once, as if its machine failed.
fn kill_manual_node(cluster: &Cluster<'_>, name: &str) -> Result<()> {
    let args = ["delete", "pod", name, "--grace-period=0", "--force"];
    cluster.namespace.run(&args).map(drop)
}

/// Waits until it is no longer a member; returns how long that took.
fn reaped(cluster: &Cluster<'_>, name: &str, start: Instant) -> Result<Duration> {
    until(&format!("{name} to be removed"), LONG, || {
        let members: BTreeSet<String> = cluster.configuration()?.into_keys().collect();
        ensure!(!members.contains(name), "{members:?}");
        Ok(start.elapsed())
    })
}

/// The operator's message about the removal of a member.
fn removal_message(cluster: &Cluster<'_>, name: &str) -> Result<Option<String>> {
    let args = ["get", "events.events.k8s.io", "-o", "json"];
    let events: Value = serde_json::from_str(&cluster.namespace.run(&args)?)?;
    let all = events["items"].as_array().into_iter().flatten();
    let mut notes = all.filter(|event| event["reason"] == "MemberRemoved");
    let start = format!("removing {name} from the configuration: ");
    let note = notes.find_map(|event| text(&event["note"]).strip_prefix(&start));
    Ok(note.map(str::to_owned))
}

/// Notes of the events with this reason.
fn notes(cluster: &Cluster<'_>, reason: &str) -> Result<Vec<String>> {
    let args = ["get", "events.events.k8s.io", "-o", "json"];
    let events: Value = serde_json::from_str(&cluster.namespace.run(&args)?)?;
    let all = events["items"].as_array().into_iter().flatten();
    let all = all.filter(|event| event["reason"] == reason);
    Ok(all.map(|event| text(&event["note"]).to_owned()).collect())
}

/// A node that no pod of the cluster runs joins, is reported by name, and is removed.
fn joins_and_is_removed(cluster: &Cluster<'_>, name: &str, votes: bool) -> Result<Duration> {
    start_manually(cluster, name, votes)?;
    // Its own log says when it was admitted; the event names its Raft id.
    let said = until("an event about it", LIMIT, || {
        let notes = notes(cluster, "UnknownMember")?;
        let note = notes
            .into_iter()
            .find(|note| note.contains(&format!("{name}#")));
        note.context("none")
    })?;
    ensure!(said.contains(":4002"), "no address: {said}");
    let start = Instant::now();
    let took = reaped(cluster, name, start)?;
    cluster.namespace.run(&["delete", "pod", name, "--now"])?;
    cluster.until_condition("UnknownMember", "False", None, LIMIT)?;
    cluster.ready(LIMIT)?;
    Ok(took)
}

pub(crate) fn unknown_member(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("unknown", spec(3, open()), |cluster| {
        let writer = cluster.writer()?;
        let mut times = Vec::new();
        for (name, votes) in [("rogue", true), ("spy", false)] {
            let took = joins_and_is_removed(cluster, name, votes)?;
            times.push(format!("{name} {:.1} s", took.as_secs_f64()));
        }
        let members = cluster.configuration()?;
        ensure!(members.len() == 3, "{members:?}");
        let removals = &cluster.object()?["status"]["unknownRemovals"]["count"];
        ensure!(removals.as_u64() >= Some(2), "{removals} removals");
        let note = format!("removed after their report: {}", times.join(", "));
        Ok(cluster.verify_intact(writer)?.with_note(note))
    })
}

pub(crate) fn without_a_pod(fixture: &Fixture) -> Result<Measurements> {
    let timeout = format!("{}s", READER_TIMEOUT.as_secs());
    let reaping = json!({"readReplicaTimeout": timeout, "keepUnknownReaders": true});
    let mut more = open();
    more["reaping"] = reaping;
    fixture.cluster("ghosts", spec(3, more), |cluster| {
        let writer = cluster.writer()?;
        start_manually(cluster, "analytics", false)?;
        await_member(cluster, "analytics")?;
        kill_manual_node(cluster, "analytics")?;
        let stopped = Instant::now();
        // While the operator is paused, the StatefulSet is scaled up and down again, which leaves a voter
        // without a pod.
        let pause = |on: bool| cluster.edit(&json!({"spec": {"paused": on}}));
        pause(true)?;
        cluster.until_condition("Paused", "True", None, LIMIT)?;
        scale_manually(cluster, 4)?;
        until("a fourth voter", LIMIT, || {
            let members = cluster.configuration()?;
            let member = members.get("demo-3").context("it is no member")?;
            ensure!(member.1, "it does not vote yet");
            Ok(())
        })?;
        scale_manually(cluster, 3)?;
        until("its pod to be gone", LIMIT, || {
            let pods = cluster.uids()?;
            ensure!(pods.len() == 3, "{pods:?}");
            Ok(())
        })?;
        ensure!(
            cluster.configuration()?.contains_key("demo-3"),
            "it left by itself"
        );
        pause(false)?;
        let voter = reaped(cluster, "demo-3", Instant::now())?;
        let reader = reaped(cluster, "analytics", stopped)?;
        ensure!(
            reader + Duration::from_secs(5) > READER_TIMEOUT,
            "removed after {reader:?}"
        );
        let by = match removal_message(cluster, "analytics")? {
            Some(_) => "the operator",
            None => "the leader itself",
        };
        let note = format!(
            "a surplus voter without a pod: removed {:.0} s after the pause; an unknown read-only node: removed {:.0} s after its last contact, by {by} (readReplicaTimeout: {timeout})",
            voter.as_secs_f64(),
            reader.as_secs_f64()
        );
        Ok(cluster.verify_intact(writer)?.with_note(note))
    })
}
