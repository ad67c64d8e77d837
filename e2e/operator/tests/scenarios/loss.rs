//! Volumes and machines are lost: which members are replaced, which are waited for, and what is reported.
use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::{command::until, namespace::LIMIT};
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, LONG, NAME, QUIET, spec},
    fixture::{Cordon, Fixture, condition, text},
    recovery::{await_phase, recover},
    report::Measurements,
};

/// Waits until a lost member is replaced by a new voter with another Raft id, with the other members
/// unchanged.
fn is_replaced(
    cluster: &Cluster<'_>,
    before: &BTreeMap<String, (String, bool)>,
    lost: &str,
) -> Result<()> {
    until(&format!("{lost} to vote again"), LONG, || {
        let now = cluster.configuration()?;
        let (id, votes) = now.get(lost).context("it is not a member")?;
        ensure!(*votes && *id != before[lost].0, "{now:?}");
        let same = now
            .iter()
            .all(|(name, entry)| name == lost || before.get(name) == Some(entry));
        ensure!(same && now.len() == before.len(), "{now:?}");
        Ok(())
    })
}

pub(crate) fn one_disk(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("one-disk", spec(3, json!({})), |cluster| {
        let writer = cluster.writer()?;
        let mut times = Vec::new();
        for leads in [false, true] {
            let lost = if leads {
                cluster.leader()?
            } else {
                cluster.follower()?
            };
            let before = cluster.configuration()?;
            let start = Instant::now();
            let seen = writer.during(|| cluster.lose_disks(&[&lost]))?;
            is_replaced(cluster, &before, &lost)?;
            cluster.ready(LONG)?;
            times.push(format!(
                "{}: {} ms without writes, healthy after {:.0} s",
                if leads { "leader" } else { "follower" },
                seen.longest_gap_ms,
                start.elapsed().as_secs_f64()
            ));
        }
        Ok(cluster.verify_intact(writer)?.with_note(times.join("; ")))
    })
}

/// A voter's volume is pinned to a machine that is lost for good.
pub(crate) fn pinned_to_a_lost_machine(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("pinned", spec(3, json!({})), |cluster| {
        let home = fixture.operator_machine()?;
        let writer = cluster.writer_on(&home)?;
        let pods = cluster.voters()?;
        let lost = pods.iter().find(|pod| pod.machine != home);
        let lost = lost.context("all voters are on the operator's machine")?;
        cluster.transfer_leadership(&lost.name)?;
        let before = cluster.configuration()?;
        let claim = format!("data-{}", lost.name);
        let volume = |cluster: &Cluster<'_>| -> Result<String> {
            let claim = cluster.core("persistentvolumeclaims", &claim)?;
            Ok(text(&claim["spec"]["volumeName"]).to_owned())
        };
        let old = volume(cluster)?;
        let cut = Instant::now();
        let gone = fixture.lose_machine(&lost.machine)?;
        let deleted = Instant::now();
        writer.await_progress(LIMIT)?;
        let seen = writer.report(Some(cut))?;
        let said = cluster.until("the loss to be reported", LIMIT, |object| {
            let members = object["status"]["members"].as_array();
            let mut members = members.into_iter().flatten();
            let member = members.find(|m| m["name"] == lost.name.as_str());
            let member = member.context("it is not a member")?;
            ensure!(member["state"] == "Lost", "{member}");
            Ok(text(&member["reason"]).to_owned())
        })?;
        ensure!(said.contains("whose Node object was deleted"), "{said}");
        is_replaced(cluster, &before, &lost.name)?;
        cluster.ready(LONG)?;
        let whole = deleted.elapsed();
        let now = cluster.voters()?;
        let now = now.iter().find(|pod| pod.name == lost.name);
        let now = now.context("no new pod")?;
        ensure!(now.machine != lost.machine, "{now:?}");
        ensure!(volume(cluster)? != old, "its claim has its old volume");
        // The old process still runs on that machine, which now returns; it is not a member any more.
        drop(gone);
        fixture.await_machine(&lost.machine, true)?;
        let outcome = cluster.verify_intact(writer)?;
        until("the old volume to go", LONG, || {
            let volumes = fixture.api.list("/api/v1/persistentvolumes", "")?;
            let is_old = |v: &Value| v["metadata"]["name"] == old.as_str();
            ensure!(!volumes.iter().any(is_old), "{old} is there");
            Ok(())
        })?;
        let note = format!(
            "the leader's machine: {} ms without writes; healthy on another machine {:.0} s after its Node object was deleted, then the machine came back",
            seen.longest_gap_ms,
            whole.as_secs_f64()
        );
        Ok(outcome.with_note(note))
    })
}

/// Deletes a pod whose machine is cordoned, so that it stays Pending with its data.
fn evict_and_keep_pending<'s>(
    fixture: &'s Fixture,
    cluster: &Cluster<'_>,
    name: &str,
) -> Result<Cordon<'s>> {
    let pods = cluster.voters()?.into_iter().chain(cluster.pods("read")?);
    let pod = pods
        .into_iter()
        .find(|p| p.name == name)
        .context("no such pod")?;
    let cordon = fixture.cordon(&pod.machine)?;
    cluster.delete_pods(&[name])?;
    until(&format!("{name} to wait"), LIMIT, || {
        let now = cluster.core("pods", name)?;
        let is =
            text(&now["metadata"]["uid"]) != pod.uid && text(&now["spec"]["nodeName"]).is_empty();
        ensure!(is, "{}", now["status"]["phase"]);
        Ok(())
    })?;
    Ok(cordon)
}

/// Whether this node leads with a quorum. A leader that has lost its quorum names no leader, although it is
/// still in Raft's leader state.
fn leads(status: &Value) -> bool {
    let store = &status["store"];
    store["raft"]["state"] == "Leader" && store["leader"]["node_id"] == store["node_id"]
}

/// Checks for a while that no node leads, and that the operator neither replaces a member nor reports
/// QuorumLost.
fn ensure_operator_waits(cluster: &Cluster<'_>) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < QUIET {
        for pod in cluster
            .voters()?
            .iter()
            .filter(|pod| !pod.machine.is_empty())
        {
            // A node that does not answer does not lead.
            let Ok(status) = cluster.status_of(&pod.name) else {
                continue;
            };
            ensure!(
                !leads(&status),
                "{} leads: {}",
                pod.name,
                status["store"]["raft"]
            );
        }
        let lost = condition(&cluster.object()?, "QuorumLost").clone();
        ensure!(lost["status"] != "True", "{lost}");
        thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

pub(crate) fn wiped_disk_grants_no_vote(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster(
        "wiped",
        spec(3, json!({"scheduling": {"antiAffinity": "Required"}})),
        |cluster| {
            let home = cluster.voter(1)?.machine;
            let writer = cluster.writer_on(&home)?;
            // C is down while A and B continue; then B's disk is wiped and A is down, too; then C returns.
            let c = evict_and_keep_pending(fixture, cluster, "demo-2")?;
            writer.await_progress(LIMIT)?;
            let machine = cluster.voter(0)?.machine;
            let a = fixture.cordon(&machine)?;
            cluster.lose_disks(&["demo-1"])?;
            cluster.delete_pods(&["demo-0"])?;
            drop(c);
            until("B and C to run", LIMIT, || {
                for name in ["demo-1", "demo-2"] {
                    cluster.status_of(name)?;
                }
                Ok(())
            })?;
            cluster.until_condition("Available", "False", Some("QuorumUnavailable"), LIMIT)?;
            ensure_operator_waits(cluster)?;
            drop(a);
            let start = Instant::now();
            writer.await_progress(LIMIT)?;
            let note = format!(
                "writes {:.1} s after A returned",
                start.elapsed().as_secs_f64()
            );
            Ok(cluster.verify_intact(writer)?.with_note(note))
        },
    )
}

/// Rows that a node reads from its own database.
fn reads_alone(cluster: &Cluster<'_>, pod: &str) -> Result<u64> {
    let path = "/db/query?level=none&q=SELECT%20COUNT(*)%20FROM%20numbered";
    let answer: Value = serde_json::from_str(&cluster.ask(pod, path, None)?)?;
    let count = answer["results"][0]["values"][0][0].as_u64();
    count.with_context(|| format!("no count: {answer}"))
}

pub(crate) fn two_disks_survivor_runs(fixture: &Fixture) -> Result<Measurements> {
    two_disks(fixture, false)
}

pub(crate) fn two_disks_all_restart(fixture: &Fixture) -> Result<Measurements> {
    two_disks(fixture, true)
}

fn two_disks(fixture: &Fixture, all_restart: bool) -> Result<Measurements> {
    fixture.cluster("two-disks", spec(3, json!({})), |cluster| {
        let writer = cluster.writer()?;
        let survivor = cluster.voter(2)?;
        let claim = cluster.core("persistentvolumeclaims", "data-demo-2")?;
        cluster.lose_disks(&["demo-0", "demo-1"])?;
        if all_restart {
            cluster.delete_pods(&["demo-2"])?;
        }
        let said = cluster.until_condition("QuorumLost", "True", Some("VotersLost"), LONG)?;
        for word in ["demo-2", "index", "may be lost", "RqliteRecovery"] {
            ensure!(
                said.contains(word),
                "the condition does not say {word:?}: {said}"
            );
        }
        until("the empty nodes to run", LIMIT, || {
            cluster.status_of("demo-0")?;
            cluster.status_of("demo-1")?;
            Ok(())
        })?;
        no_cluster_forms(cluster)?;
        let rows = until("reads from the survivor", LIMIT, || {
            reads_alone(cluster, "demo-2")
        })?;
        let acknowledged = writer.report(None)?.acknowledged;
        let now = cluster.core("persistentvolumeclaims", "data-demo-2")?;
        ensure!(
            now["metadata"]["uid"] == claim["metadata"]["uid"],
            "the survivor's claim was touched"
        );
        if !all_restart {
            ensure!(
                cluster.voter(2)?.uid == survivor.uid,
                "the survivor's pod was touched"
            );
        }
        ensure!(rows > 0, "the survivor reads nothing");
        let note = format!(
            "{acknowledged} acknowledged, the survivor alone reads {rows}; no cluster formed"
        );
        Ok(Measurements::default().with_note(note))
    })
}

fn no_cluster_forms(cluster: &Cluster<'_>) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < QUIET {
        for pod in cluster.voters()? {
            let Ok(status) = cluster.status_of(&pod.name) else {
                continue;
            };
            ensure!(
                !leads(&status),
                "{} leads: {}",
                pod.name,
                status["store"]["raft"]
            );
        }
        thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

pub(crate) fn two_of_five_lost_one_waits(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("temporary", spec(5, json!({})), |cluster| {
        let pods = cluster.voters()?;
        let away = &pods[4];
        let others = pods.iter().find(|p| p.machine != away.machine);
        let writer = cluster.writer_on(&others.context("one machine")?.machine)?;
        let held = evict_and_keep_pending(fixture, cluster, "demo-4")?;
        // Pods with lost volumes must be schedulable; they are not if their machine is the cordoned one.
        let lost: Vec<&str> = pods
            .iter()
            .filter(|p| p.name != away.name)
            .take(2)
            .map(|p| p.name.as_str())
            .collect();
        cluster.lose_disks(&lost)?;
        cluster.until_condition("Available", "False", Some("QuorumUnavailable"), LIMIT)?;
        recover(cluster, "hasty", &json!({"acceptDataLoss": true}))?;
        let refused = await_phase(cluster, "hasty", &["Rejected"], LIMIT)?;
        let why = text(&refused["status"]["message"]).to_owned();
        ensure!(why.contains("may come back"), "{why}");
        let object = cluster.object()?;
        ensure!(
            condition(&object, "QuorumLost")["status"] == "False",
            "{object}"
        );
        drop(held);
        writer.await_progress(LONG)?;
        Ok(cluster
            .verify_intact(writer)?
            .with_note("recovery rejected; service came back by itself"))
    })
}

pub(crate) fn majority_cut_off(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster(
        "cut-off",
        spec(3, json!({"scheduling": {"antiAffinity": "Required"}})),
        |cluster| {
            let home = fixture.operator_machine()?;
            let writer = cluster.writer_on(&home)?;
            let pods = cluster.voters()?;
            let away: Vec<_> = pods.iter().filter(|p| p.machine != home).collect();
            ensure!(away.len() == 2, "{pods:?}");
            let cuts = [
                fixture.cut(&away[0].machine)?,
                fixture.cut(&away[1].machine)?,
            ];
            for pod in &away {
                fixture.await_machine(&pod.machine, false)?;
            }
            cluster.until_condition("Available", "False", Some("QuorumUnavailable"), LIMIT)?;
            recover(cluster, "hasty", &json!({"acceptDataLoss": true}))?;
            let refused = await_phase(cluster, "hasty", &["Rejected"], LIMIT)?;
            println!("refused: {}", text(&refused["status"]["message"]));
            let object = cluster.object()?;
            ensure!(
                condition(&object, "QuorumLost")["status"] == "False",
                "{object}"
            );
            ensure!(
                object["status"]["lineage"]["epoch"] == 0,
                "{}",
                object["status"]["lineage"]
            );
            drop(cuts);
            writer.await_progress(LONG)?;
            for pod in &away {
                fixture.await_machine(&pod.machine, true)?;
            }
            Ok(cluster
                .verify_intact(writer)?
                .with_note("recovery rejected; service came back by itself"))
        },
    )
}

pub(crate) fn all_disks(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("all-disks", spec(3, json!({})), |cluster| {
        cluster.writer()?;
        cluster.lose_disks(&["demo-0", "demo-1", "demo-2"])?;
        cluster.until_condition("QuorumLost", "True", Some("VotersLost"), LONG)?;
        no_cluster_forms(cluster)?;
        recover(cluster, "hopeless", &json!({"acceptDataLoss": true}))?;
        let refused = await_phase(cluster, "hopeless", &["Rejected"], LIMIT)?;
        let why = text(&refused["status"]["message"]).to_owned();
        ensure!(why.contains("load a backup"), "{why}");
        let replicas = cluster.set(NAME)?["spec"]["replicas"].clone();
        ensure!(replicas == 3, "{replicas}");
        Ok(Measurements::default().with_note("QuorumLost; recovery rejected: a backup is advised"))
    })
}
