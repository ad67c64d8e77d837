//! Pods and machines fail under a healthy cluster.
use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::{command::until, namespace::LIMIT};
use serde_json::{Value, json};

use crate::{
    ROOM,
    cluster::{Cluster, spec},
    fixture::{Fixture, text},
    report::Measurements,
};

/// Limit without writes after the leader was killed.
const FAILOVER_GOAL: Duration = Duration::from_secs(5);
/// Limit without writes after the leader was stopped: it transfers leadership first.
const TRANSFER_GOAL: Duration = Duration::from_secs(1);
/// Execution long a machine is off the network.
const CUT: Duration = Duration::from_secs(45);

fn milliseconds(limit: Duration) -> u64 {
    u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)
}

/// Checks a gap, with tolerance for a busy machine.
fn gap(gap_ms: u64, goal: Duration) -> Result<()> {
    ensure!(
        gap_ms < milliseconds(goal * ROOM),
        "{gap_ms} ms without writes, the goal is {goal:?}"
    );
    Ok(())
}

fn container_id(pod: &Value) -> Result<String> {
    let all = pod["status"]["containerStatuses"].as_array();
    let all = all.context("no containers")?;
    let node = all
        .iter()
        .find(|c| c["name"] == "rqlited")
        .context("no node")?;
    let id = text(&node["containerID"]);
    Ok(id.rsplit('/').next().unwrap_or(id).to_owned())
}

pub(crate) fn leader_killed(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("killed", spec(3, json!({})), |cluster| {
        let writer = cluster.writer()?;
        let leader = cluster.leader()?;
        let pod = cluster.core("pods", &leader)?;
        let id = container_id(&pod)?;
        let seen = writer.during(|| fixture.signal(text(&pod["spec"]["nodeName"]), &id, "KILL"))?;
        until("the container to restart", LIMIT, || {
            let now = cluster.core("pods", &leader)?;
            ensure!(
                now["metadata"]["uid"] == pod["metadata"]["uid"],
                "the pod was replaced"
            );
            ensure!(container_id(&now)? != id, "the same container");
            Ok(())
        })?;
        gap(seen.longest_gap_ms, FAILOVER_GOAL)?;
        cluster.verify_intact(writer)
    })
}

pub(crate) fn leader_deleted(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("deleted", spec(3, json!({})), |cluster| {
        let writer = cluster.writer()?;
        let leader = cluster.leader()?;
        let pod = cluster.core("pods", &leader)?;
        let seen = writer.during(|| cluster.delete_pods(&[&leader]))?;
        cluster.await_recreated(&leader, text(&pod["metadata"]["uid"]), LIMIT)?;
        gap(seen.longest_gap_ms, TRANSFER_GOAL)?;
        cluster.verify_intact(writer)
    })
}

/// Afterwards it is the same cluster with the same lineage; nothing was recovered.
fn all_at_once(cluster: &Cluster<'_>, kill: impl FnOnce() -> Result<()>) -> Result<Measurements> {
    let writer = cluster.writer()?;
    let before = cluster.configuration()?;
    let lineage = cluster.object()?["status"]["lineage"].clone();
    let uids = cluster.uids()?;
    let start = Instant::now();
    kill()?;
    let names: Vec<&str> = uids.keys().map(String::as_str).collect();
    cluster.delete_pods(&names)?;
    writer.await_progress(LIMIT)?;
    let back = start.elapsed();
    for (name, uid) in &uids {
        cluster.await_recreated(name, uid, LIMIT)?;
    }
    let outcome = cluster.verify_intact(writer)?;
    let object = cluster.object()?;
    ensure!(cluster.configuration()? == before, "members have changed");
    ensure!(
        object["status"]["lineage"] == lineage,
        "the lineage has changed"
    );
    ensure!(
        object["status"]["recovery"].is_null(),
        "a recovery was started"
    );
    Ok(outcome.with_note(format!(
        "writes {:.1} s after the deletion",
        back.as_secs_f64()
    )))
}

pub(crate) fn all_deleted(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("all", spec(3, json!({})), |cluster| {
        all_at_once(cluster, || Ok(()))
    })
}

pub(crate) fn all_deleted_with_the_operator(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("all", spec(3, json!({})), |cluster| {
        all_at_once(cluster, || fixture.kill_operator())
    })
}

pub(crate) fn leaders_machine_cut(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("minority", spec(3, json!({})), |cluster| {
        let home = fixture.operator_machine()?;
        let writer = cluster.writer_on(&home)?;
        // The operator's machine is not cut off, so the leader must be on another one.
        let away = cluster
            .voters()?
            .into_iter()
            .find(|pod| pod.machine != home);
        let away = away.context("all voters are on the operator's machine")?;
        cluster.transfer_leadership(&away.name)?;
        let start = Instant::now();
        let cut = fixture.cut(&away.machine)?;
        writer.await_progress(LIMIT)?;
        let seen = writer.report(Some(start))?;
        fixture.await_machine(&away.machine, false)?;
        // The sleep is the duration of the fault, not a wait for a condition.
        thread::sleep(CUT.saturating_sub(start.elapsed()));
        let configuration = cluster.configuration()?;
        drop(cut);
        fixture.await_machine(&away.machine, true)?;
        let outcome = cluster.verify_intact(writer)?;
        ensure!(
            cluster.configuration()? == configuration,
            "members have changed"
        );
        let note = format!("writes {} ms after the cut", seen.longest_gap_ms);
        Ok(outcome.with_note(note))
    })
}

pub(crate) fn two_machines_drained(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster(
        "drained",
        spec(3, json!({"scheduling": {"antiAffinity": "Required"}})),
        |cluster| {
            let pods = cluster.voters()?;
            let home = pods[0].machine.clone();
            let writer = cluster.writer_on(&home)?;
            let machines = [pods[1].machine.clone(), pods[2].machine.clone()];
            let drain = |machine: &str| {
                let only = "--pod-selector=rqlite.dev/cluster=demo";
                let args = [
                    "drain",
                    machine,
                    only,
                    "--delete-emptydir-data",
                    "--timeout=40s",
                ];
                fixture.kubectl.run(&args)
            };
            let seen = writer.during(|| {
                let drained = thread::scope(|scope| {
                    let all = machines.each_ref().map(|m| scope.spawn(move || drain(m)));
                    all.map(|one| one.join().is_ok_and(|said| said.is_ok()))
                });
                let fewest = cluster.voters()?.iter().filter(|p| p.ready).count();
                let outcome = writer.await_progress(LIMIT);
                for machine in &machines {
                    fixture.kubectl.run(&["uncordon", machine])?;
                }
                let refused = drained.iter().filter(|done| !**done).count();
                ensure!(refused == 1, "{refused} of two drains were held up");
                ensure!(fewest == 2, "{fewest} voters were ready during the drains");
                outcome
            });
            for machine in &machines {
                fixture.kubectl.run(&["uncordon", machine])?;
            }
            let note = format!(
                "{} ms without writes; one drain waited",
                seen?.longest_gap_ms
            );
            Ok(cluster.verify_intact(writer)?.with_note(note))
        },
    )
}

pub(crate) fn leaders_machine_cordoned(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("cordoned", spec(3, json!({})), |cluster| {
        let leader = cluster.leader()?;
        let pods = cluster.voters()?;
        let pod = pods.iter().find(|pod| pod.name == leader);
        let machine = pod.context("no such pod")?.machine.clone();
        let elsewhere = pods.iter().find(|pod| pod.machine != machine);
        let writer = cluster.writer_on(&elsewhere.context("one machine")?.machine)?;
        let start = Instant::now();
        let cordon = fixture.cordon(&machine)?;
        let successor = until("leadership to leave the machine", LIMIT, || {
            let now = cluster.leader()?;
            let pods = cluster.voters()?;
            let pod = pods.iter().find(|pod| pod.name == now);
            let at = pod.context("no such pod")?.machine.clone();
            ensure!(at != machine, "{now} leads on {at}");
            Ok(now)
        })?;
        let took = start.elapsed();
        let seen = writer.report(Some(start))?;
        drop(cordon);
        let note = format!(
            "{successor} leads {:.1} s after the cordon; {} ms without writes",
            took.as_secs_f64(),
            seen.longest_gap_ms
        );
        Ok(cluster.verify_intact(writer)?.with_note(note))
    })
}
