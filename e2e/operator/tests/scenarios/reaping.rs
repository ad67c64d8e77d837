//! Members without a pod of the operator: nodes that were started manually and disappeared, and members left
//! behind by scaling a StatefulSet.
//!
//! One scenario removes a validation rule from the definition: `reaping.voterTimeout` is at least an hour,
//! and twenty seconds there. The operator and the nodes are as users get them.
use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::{command::until, namespace::LIMIT};
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, LONG, NAME, spec},
    edits::scale_manually,
    fixture::{Fixture, text},
    report::Measurements,
    scaling::keep_pending,
};

const DEFINITION: &str = "customresourcedefinition/rqliteclusters.rqlite.dev";
/// Path of the rules about `spec.reaping` in it.
const RULES: &str = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/reaping/x-kubernetes-validations";
/// Execution long the leader must have had no contact with a voter in these scenarios.
const VOTER_TIMEOUT: Duration = Duration::from_secs(20);
/// The same for a read replica: the minimum that the definition allows.
const READER_TIMEOUT: Duration = Duration::from_secs(60);

/// The definition without its minimum of `voterTimeout`; restored when dropped.
struct RelaxedRule<'a> {
    fixture: &'a Fixture,
    rules: Value,
}

impl<'a> RelaxedRule<'a> {
    fn new(fixture: &'a Fixture) -> Result<Self> {
        let args = ["get", DEFINITION, "-o", "json"];
        let definition: Value = serde_json::from_str(&fixture.kubectl.run(&args)?)?;
        let rules = definition.pointer(RULES).context("no rules")?.clone();
        let relaxed = Self { fixture, rules };
        let all = relaxed.rules.as_array().context("no list of rules")?;
        let others = all.iter();
        let others = others.filter(|rule| !text(&rule["rule"]).contains("voterTimeout"));
        let others: Vec<&Value> = others.collect();
        ensure!(others.len() + 1 == all.len(), "{}", relaxed.rules);
        relaxed.write(&json!(others))?;
        Ok(relaxed)
    }

    fn write(&self, rules: &Value) -> Result<()> {
        let patch = json!([{"op": "replace", "path": RULES, "value": rules}]).to_string();
        let args = ["patch", DEFINITION, "--type=json", "-p", &patch];
        self.fixture.kubectl.run(&args).map(drop)
    }
}

impl Drop for RelaxedRule<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.write(&self.rules) {
            eprintln!("the definition stays without a rule: {error:#}");
        }
    }
}

/// Starts a node manually in its own pod, and waits until it has joined. The operator does not know it.
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
    cluster.namespace.apply(&pod.to_string())?;
    until(&format!("{name} to be a member"), LIMIT, || {
        let members = cluster.configuration()?;
        let member = members.get(name).context("it is not a member")?;
        ensure!(member.1 == votes, "{member:?}");
        Ok(())
    })
}

/// Kills it and deletes its pod at once, as if its machine failed.
fn kill_manual_node(cluster: &Cluster<'_>, name: &str) -> Result<()> {
    let args = ["delete", "pod", name, "--grace-period=0", "--force"];
    cluster.namespace.run(&args).map(drop)
}

/// Checks for this time that the node is a member, according to a node that need not be the leader.
fn stays_member(cluster: &Cluster<'_>, name: &str, asked: &str, time: Duration) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < time {
        let status = cluster.status_of(asked)?;
        let members = &status["store"]["raft"]["committed_configuration"]["members"];
        let there = members.as_array().into_iter().flatten();
        ensure!(
            there.clone().any(|member| member["id"] == name),
            "{name} was removed after {:.0} s: {members}",
            start.elapsed().as_secs_f64()
        );
        thread::sleep(Duration::from_millis(500));
    }
    Ok(())
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

pub(crate) fn unknown_voter(fixture: &Fixture) -> Result<Measurements> {
    let _lowered = RelaxedRule::new(fixture)?;
    fixture.bare("unknown", |cluster| {
        let timeout = format!("{}s", VOTER_TIMEOUT.as_secs());
        let spec = spec(3, json!({"reaping": {"voterTimeout": timeout}}));
        until("the definition to allow it", LIMIT, || {
            cluster.create(spec.clone())
        })?;
        cluster.ready(LIMIT)?;
        let home = cluster.voter(0)?;
        let writer = cluster.writer_on(&home.machine)?;
        start_manually(cluster, "elsewhere", true)?;
        // It answers its leader, so it is not removed merely for being unknown.
        stays_member(
            cluster,
            "elsewhere",
            "demo-0",
            VOTER_TIMEOUT + Duration::from_secs(5),
        )?;
        let away = cluster.voters()?;
        let away = away.iter().find(|pod| pod.machine != home.machine);
        let away = &away.context("one machine")?.name;
        kill_manual_node(cluster, "elsewhere")?;
        let cordon = keep_pending(fixture, cluster, away)?;
        // Two of four are no quorum: no member is removed from a configuration that cannot change.
        cluster.until_condition("Available", "False", Some("QuorumUnavailable"), LIMIT)?;
        stays_member(cluster, "elsewhere", "demo-0", VOTER_TIMEOUT)?;
        let lost = &cluster.object()?["status"]["voters"];
        ensure!(*lost == 4, "{lost} voters");
        drop(cordon);
        writer.await_progress(LIMIT)?;
        let took = reaped(cluster, "elsewhere", Instant::now())?;
        let why = until("the operator to have said why", LIMIT, || {
            removal_message(cluster, "elsewhere")?.context("no event")
        })?;
        ensure!(why.starts_with("it belongs to no pool"), "{why}");
        // The purpose of the removal: one of three may be down again.
        let cordon = keep_pending(fixture, cluster, away)?;
        writer.await_progress(LIMIT)?;
        drop(cordon);
        let note = format!(
            "kept while it answered and while two of four were no quorum; removed {:.0} s after the quorum returned (voterTimeout: {timeout}; the definition's minimum of an hour removed for this)",
            took.as_secs_f64()
        );
        Ok(cluster.verify_intact(writer)?.with_note(note))
    })
}

pub(crate) fn without_a_pod(fixture: &Fixture) -> Result<Measurements> {
    let timeout = format!("{}s", READER_TIMEOUT.as_secs());
    let spec = spec(3, json!({"reaping": {"readReplicaTimeout": timeout}}));
    fixture.cluster("ghosts", spec, |cluster| {
        let writer = cluster.writer()?;
        start_manually(cluster, "analytics", false)?;
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
