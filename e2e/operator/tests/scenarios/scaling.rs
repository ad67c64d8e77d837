//! Adding and removing voters and read replicas, also while the operator is killed.
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::{command::until, namespace::LIMIT, writer::Writer};
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, LONG, NAME, spec},
    fixture::{Fixture, condition, text},
    report::Measurements,
};

/// Scales and waits; checks that exactly the removed pods' claims are retired.
fn scale(cluster: &Cluster<'_>, to: u8) -> Result<Duration> {
    let start = Instant::now();
    cluster.scale(to)?;
    cluster
        .ready(LONG)
        .with_context(|| format!("scale to {to}"))?;
    let voters = cluster.configuration()?;
    let votes = voters.values().filter(|(_, votes)| *votes).count();
    ensure!(votes == usize::from(to), "{votes} voters: {voters:?}");
    Ok(start.elapsed())
}

pub(crate) fn up_and_down(fixture: &Fixture) -> Result<Measurements> {
    walk(fixture, "walk", 3, &[5, 3, 1, 3])
}

pub(crate) fn five_to_one_and_back(fixture: &Fixture) -> Result<Measurements> {
    walk(fixture, "shrink", 5, &[1, 5])
}

fn walk(fixture: &Fixture, purpose: &str, from: u8, sizes: &[u8]) -> Result<Measurements> {
    fixture.cluster(purpose, spec(from, json!({})), |cluster| {
        let writer = cluster.writer()?;
        let mut seen_ids: BTreeSet<String> = ids(cluster)?;
        let mut present = seen_ids.clone();
        let mut times = Vec::new();
        for to in sizes {
            let took = scale(cluster, *to)?;
            times.push(format!("→{to} {:.0} s", took.as_secs_f64()));
            let now = ids(cluster)?;
            // Every added member is new: data of a member that was removed never votes again.
            let again: Vec<_> = now
                .difference(&present)
                .filter(|id| seen_ids.contains(*id))
                .collect();
            ensure!(
                again.is_empty(),
                "came back under their old Raft ids: {again:?}"
            );
            seen_ids.extend(now.iter().cloned());
            present = now;
        }
        let outcome = cluster.verify_intact(writer)?;
        Ok(outcome.with_note(times.join(", ")))
    })
}

fn ids(cluster: &Cluster<'_>) -> Result<BTreeSet<String>> {
    Ok(cluster
        .configuration()?
        .into_values()
        .map(|(id, _)| id)
        .collect())
}

/// Kills the operator whenever `step` returns a new value, until `is_done`. Returns the values.
pub(crate) fn kill_at_each(
    cluster: &Cluster<'_>,
    limit: Duration,
    mut word: impl FnMut(&Value) -> Option<String>,
    mut is_done: impl FnMut(&Value) -> bool,
) -> Result<Vec<String>> {
    let start = Instant::now();
    let mut seen: Vec<String> = Vec::new();
    loop {
        let object = cluster.object()?;
        if is_done(&object) {
            return Ok(seen);
        }
        let remaining = limit.saturating_sub(start.elapsed());
        ensure!(
            !remaining.is_zero(),
            "not done after {limit:?}; killed at {seen:?}: {}",
            object["status"]
        );
        if let Some(word) = word(&object)
            && !seen.contains(&word)
        {
            cluster.fixture.kill_operator()?;
            seen.push(word);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The recorded operation, its step and its target. They are recorded before a side effect.
fn operation(object: &Value) -> Option<String> {
    let operation = &object["status"]["operation"];
    let target = &object["status"]["target"]["replicas"];
    let kind = operation["type"].as_str()?;
    Some(format!("{kind}/{}/{target}", text(&operation["step"])))
}

pub(crate) fn operator_killed_while_scaling(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("killed-op", spec(3, json!({})), |cluster| {
        let writer = cluster.writer()?;
        let before = ids(cluster)?;
        let mut killed = Vec::new();
        for to in [4, 3] {
            cluster.scale(to)?;
            let at = kill_at_each(cluster, LONG, operation, |object| {
                let done = condition(object, "Ready");
                done["status"] == "True"
                    && done["observedGeneration"] == object["metadata"]["generation"]
            })?;
            killed.extend(at);
            cluster.ready(LONG)?;
        }
        ensure!(
            ids(cluster)? == before,
            "members that were to stay were replaced"
        );
        ensure!(killed.len() >= 3, "killed only at {killed:?}");
        fixture.await_operator()?;
        Ok(cluster
            .verify_intact(writer)?
            .with_note(format!("killed at {}", killed.join(", "))))
    })
}

/// Keeps a voter's pod Pending, because its machine is cordoned.
pub(crate) fn keep_pending<'s>(
    fixture: &'s Fixture,
    cluster: &Cluster<'_>,
    name: &str,
) -> Result<crate::fixture::Cordon<'s>> {
    let pods = cluster.voters()?;
    let pod = pods
        .iter()
        .find(|pod| pod.name == name)
        .context("no such pod")?;
    let cordon = fixture.cordon(&pod.machine)?;
    cluster.delete_pods(&[name])?;
    until(&format!("{name} to wait"), LIMIT, || {
        let now = cluster.core("pods", name)?;
        let is = text(&now["metadata"]["uid"]) != pod.uid && now["status"]["phase"] == "Pending";
        ensure!(is, "{}", now["status"]["phase"]);
        Ok(())
    })?;
    Ok(cordon)
}

pub(crate) fn shrinks_only_while_a_quorum_stays(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("blocked", spec(5, json!({})), |cluster| {
        let home = cluster.voter(1)?.machine;
        let writer = cluster.writer_on(&home)?;
        cluster.transfer_leadership("demo-1")?;
        let cordon = keep_pending(fixture, cluster, "demo-0")?;
        cluster.scale(1)?;
        // Members 5 and 4 may be removed at once. Of the two that would then remain one is down, and one of
        // two is no quorum.
        let said = cluster.until("the removal to be held up", LONG, |object| {
            let voters = &object["status"]["voters"];
            ensure!(*voters == 3, "{voters} voters");
            let blocked = condition(object, "Progressing");
            ensure!(blocked["status"] == "False", "{blocked}");
            let said = text(&blocked["message"]).to_owned();
            ensure!(text(&blocked["reason"]) == "ScaleDownBlocked", "{blocked}");
            Ok(format!("{}: {said}", text(&blocked["reason"])))
        })?;
        println!("held up: {said}");
        drop(cordon);
        cluster.ready(LONG)?;
        let outcome = cluster.verify_intact(writer)?;
        Ok(outcome.with_note("held at 3 voters until the one that was down returned"))
    })
}

pub(crate) fn leader_leaves(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("leaves", spec(3, json!({})), |cluster| {
        let writer = cluster.writer()?;
        cluster.transfer_leadership("demo-2")?;
        let start = Instant::now();
        scale(cluster, 2)?;
        let seen = writer.report(Some(start))?;
        let note = format!("{} ms without writes", seen.longest_gap_ms);
        Ok(cluster.verify_intact(writer)?.with_note(note))
    })
}

pub(crate) fn absent_victim_leaves_first(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("absent", spec(3, json!({})), |cluster| {
        let home = cluster.voter(0)?.machine;
        let writer = cluster.writer_on(&home)?;
        cluster.transfer_leadership("demo-0")?;
        let cordon = keep_pending(fixture, cluster, "demo-2")?;
        cluster.scale(2)?;
        // The pod must not be gone while the configuration still counts its vote.
        until("demo-2 to be gone", LONG, || {
            let replicas = cluster.set(NAME)?["spec"]["replicas"].clone();
            let members = cluster.configuration()?;
            let is_member = members.contains_key("demo-2");
            if replicas == 2 && is_member {
                // The set is read first, then the configuration.
                return Ok(Some(format!("{replicas} pods, members {members:?}")));
            }
            ensure!(replicas == 2, "{replicas} pods");
            Ok(None)
        })?
        .map_or(Ok(()), |wrong| Err(anyhow::anyhow!("{wrong}")))?;
        drop(cordon);
        cluster.verify_intact(writer)
    })
}

pub(crate) fn budget_stays_until_it_is_done(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("budget", spec(5, json!({})), |cluster| {
        let writer = cluster.writer()?;
        let budget = || {
            cluster
                .namespace
                .field(&format!("pdb/{NAME}-rqlite"), "{.spec.minAvailable}")
        };
        ensure!(
            budget()? == "3",
            "five voters are protected by {:?}",
            budget()
        );
        cluster.scale(3)?;
        until("three voters", LONG, || {
            // The budget is read before the members, so that a budget relaxed too early is noticed. A pod
            // that is no longer a member is not counted by it.
            let before = budget()?;
            let object = cluster.object()?;
            let voters = object["status"]["voters"].as_u64().unwrap_or_default();
            if voters > 3 {
                if before != "3" {
                    return Ok(Err(format!("{voters} voters and a budget of {before}")));
                }
                anyhow::bail!("{voters} voters");
            }
            Ok(Ok(()))
        })?
        .map_err(anyhow::Error::msg)?;
        let outcome = cluster.verify_intact(writer)?;
        until("the budget of three", LIMIT, || {
            ensure!(budget()? == "2", "{:?}", budget());
            Ok(())
        })?;
        Ok(outcome)
    })
}

fn readers(cluster: &Cluster<'_>, wanted: usize) -> Result<Duration> {
    let start = Instant::now();
    until(&format!("{wanted} read replicas"), LONG, || {
        let pods = cluster.pods("read")?;
        let ready = pods.iter().filter(|p| p.ready && !p.deleting).count();
        ensure!(
            pods.len() == wanted && ready == wanted,
            "{ready} of {} are ready",
            pods.len()
        );
        let members = cluster.configuration()?;
        let learners: Vec<_> = members.iter().filter(|(_, (_, votes))| !votes).collect();
        ensure!(learners.len() == wanted, "learners: {learners:?}");
        Ok(start.elapsed())
    })
}

pub(crate) fn read_replicas(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("readers", spec(3, json!({})), |cluster| {
        let writer = cluster.writer()?;
        let set = |n: u8| cluster.edit(&json!({"spec": {"readReplicas": {"replicas": n}}}));
        set(5)?;
        let up = readers(cluster, 5)?;
        let killed = &cluster.pods("read")?[1];
        cluster.delete_pods(&[&killed.name])?;
        cluster.await_recreated(&killed.name, &killed.uid, LIMIT)?;
        set(1)?;
        let down = readers(cluster, 1)?;
        // From here on an autoscaler sets the number; kubectl simulates it.
        cluster.edit(&json!({"spec": {"readReplicas": {"replicas": null, "autoscaled": true}}}))?;
        cluster.ready(LIMIT)?;
        let autoscaler = |n: u8| -> Result<()> {
            let replicas = format!("--replicas={n}");
            let args = ["scale", "statefulset/demo-ro", &replicas];
            cluster.namespace.run(&args).map(drop)
        };
        autoscaler(3)?;
        readers(cluster, 3)?;
        autoscaler(1)?;
        let ghosts = readers(cluster, 1)?;
        let note = format!(
            "0→5 {:.0} s, 5→1 {:.0} s, members left by an autoscaler removed after {:.0} s",
            up.as_secs_f64(),
            down.as_secs_f64(),
            ghosts.as_secs_f64()
        );
        quorum_untouched(cluster, writer, note)
    })
}

fn quorum_untouched(
    cluster: &Cluster<'_>,
    writer: Writer<'_>,
    note: String,
) -> Result<Measurements> {
    let members = cluster.configuration()?;
    let votes = members.values().filter(|(_, votes)| *votes).count();
    ensure!(votes == 3, "{members:?}");
    Ok(cluster.verify_intact(writer)?.with_note(note))
}
