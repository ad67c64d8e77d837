//! A quorum is lost for good and restored by an RqliteRecovery, under various conditions.
use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::{command::until, namespace::LIMIT, writer::Writer};
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, LONG, NAME, spec},
    fixture::{Fixture, condition, text},
    report::Measurements,
    scaling::{keep_pending, kill_at_each},
};

/// Creates an RqliteRecovery, the administrator's consent. `more`: fields of its spec.
pub(crate) fn recover(cluster: &Cluster<'_>, name: &str, more: &Value) -> Result<()> {
    let mut object = json!({
        "apiVersion": "rqlite.dev/v1alpha1",
        "kind": "RqliteRecovery",
        "metadata": {"name": name},
        "spec": {"clusterRef": {"name": NAME}, "reason": "a test took the volumes away"},
    });
    if let (Some(spec), Some(more)) = (object["spec"].as_object_mut(), more.as_object()) {
        spec.extend(more.clone());
    }
    cluster.namespace.apply(&object.to_string())
}

/// Waits until a recovery is in one of these phases.
pub(crate) fn await_phase(
    cluster: &Cluster<'_>,
    name: &str,
    phases: &[&str],
    limit: Duration,
) -> Result<Value> {
    until(&format!("{name} to be {phases:?}"), limit, || {
        let seen = cluster.recovery(name)?;
        let phase = text(&seen["status"]["phase"]);
        ensure!(phases.contains(&phase), "{}", seen["status"]);
        Ok(seen)
    })
}

/// Deletes all volumes but those of these voters, and waits until the loss is reported.
pub(crate) fn lose_all_but(cluster: &Cluster<'_>, survivors: &[&str]) -> Result<()> {
    let pods = cluster.voters()?;
    let lost = pods.iter().map(|p| p.name.as_str());
    let lost: Vec<&str> = lost.filter(|name| !survivors.contains(name)).collect();
    cluster.lose_disks(&lost)?;
    cluster.until_condition("QuorumLost", "True", Some("VotersLost"), LONG)?;
    Ok(())
}

/// Checks a recovery's result: the new lineage, and the lost rows against the announced loss; notes how long
/// it took.
fn recovered(
    cluster: &Cluster<'_>,
    writer: Writer<'_>,
    recovery: &str,
    start: Instant,
) -> Result<Measurements> {
    writer.await_progress(LONG)?;
    let service = start.elapsed();
    let done = await_phase(cluster, recovery, &["Succeeded"], LONG)?;
    // Absent where the number is unknown: then the recovery says so in words.
    let announced = done["status"]["possiblyLostEntries"].as_u64();
    let epoch = cluster.object()?["status"]["lineage"]["epoch"].clone();
    ensure!(epoch == 1, "epoch {epoch} after one recovery");
    let ended = cluster.verify_allowing_loss(writer)?;
    let lost = ended.check.lost;
    ensure!(
        announced.is_none_or(|announced| lost <= announced),
        "{lost} acknowledged rows lost: {}",
        done["status"]
    );
    let announced = announced.map_or("an unknown number of".to_owned(), |n| n.to_string());
    let note = format!(
        "service {:.0} s after the consent, one human step; {announced} entries announced as possibly lost",
        service.as_secs_f64()
    );
    Ok(Measurements::of(&ended).with_note(note))
}

const CONSENT: &str = r#"{"acceptDataLoss": true}"#;

fn consent() -> Value {
    serde_json::from_str(CONSENT).unwrap_or_default()
}

pub(crate) fn leader_survives(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("recover", spec(3, json!({})), |cluster| {
        let writer = cluster.writer()?;
        let survivor = cluster.leader()?;
        lose_all_but(cluster, &[&survivor])?;
        // Without consent it only reports what would be lost, with dryRun, too.
        recover(cluster, "look", &json!({"dryRun": true}))?;
        let dry = await_phase(cluster, "look", &["Succeeded"], LIMIT)?;
        ensure!(
            dry["status"]["survivor"] == survivor.as_str(),
            "{}",
            dry["status"]
        );
        recover(cluster, "ask", &json!({}))?;
        await_phase(cluster, "ask", &["AwaitingApproval"], LIMIT)?;
        let start = Instant::now();
        recover(cluster, "go", &consent())?;
        recovered(cluster, writer, "go", start)
    })
}

pub(crate) fn follower_survives(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("recover", spec(3, json!({})), |cluster| {
        let writer = cluster.writer()?;
        let survivor = cluster.follower()?;
        lose_all_but(cluster, &[&survivor])?;
        let start = Instant::now();
        recover(cluster, "go", &consent())?;
        recovered(cluster, writer, "go", start)
    })
}

pub(crate) fn three_of_five(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("three-of-five", spec(5, json!({})), |cluster| {
        let writer = cluster.writer()?;
        let leader = cluster.leader()?;
        let follower = cluster.follower()?;
        lose_all_but(cluster, &[&leader, &follower])?;
        let start = Instant::now();
        recover(cluster, "go", &consent())?;
        recovered(cluster, writer, "go", start)
    })
}

/// The phase that the cluster's status records, and the step.
fn phase(object: &Value) -> Option<String> {
    let recovery = &object["status"]["recovery"];
    let phase = recovery["phase"].as_str()?;
    let step = text(&object["status"]["operation"]["step"]);
    Some(format!("{phase}/{step}"))
}

pub(crate) fn operator_killed_at_each_step(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("killed-rec", spec(3, json!({})), |cluster| {
        let writer = cluster.writer()?;
        let survivor = cluster.leader()?;
        lose_all_but(cluster, &[&survivor])?;
        let start = Instant::now();
        recover(cluster, "go", &consent())?;
        let seed_killed = Cell::new(false);
        let killed = kill_at_each(cluster, 2 * LONG, phase, |object| {
            // Once, the survivor's pod is also killed, in the middle of the rewrite.
            let applies = object["status"]["recovery"]["phase"] == "Applying";
            if applies && !seed_killed.get() && cluster.core("pods", &survivor).is_ok() {
                let args = ["delete", "pod", &survivor, "--grace-period=0", "--force"];
                seed_killed.set(cluster.namespace.run(&args).is_ok());
            }
            object["status"]["recovery"]["phase"] == "Succeeded"
        })?;
        ensure!(killed.len() >= 4, "killed only at {killed:?}");
        ensure!(seed_killed.get(), "the survivor's pod was not killed");
        fixture.await_operator()?;
        // A second recovery finds nothing to recover and changes nothing.
        recover(cluster, "again", &consent())?;
        await_phase(cluster, "again", &["Rejected"], LIMIT)?;
        let outcome = recovered(cluster, writer, "go", start)?;
        let note = format!(
            "{}; killed at {}, and the survivor's pod",
            outcome.note,
            killed.join(", ")
        );
        Ok(outcome.with_note(note))
    })
}

pub(crate) fn leader_exists(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("needless", spec(3, json!({})), |cluster| {
        let writer = cluster.writer()?;
        let pods = cluster.uids()?;
        recover(cluster, "needless", &consent())?;
        let refused = await_phase(cluster, "needless", &["Rejected"], LIMIT)?;
        let why = text(&refused["status"]["message"]).to_owned();
        ensure!(why.contains("leads"), "{why}");
        let outcome = cluster.verify_intact(writer)?;
        ensure!(cluster.uids()? == pods, "pods were touched");
        Ok(outcome)
    })
}

pub(crate) fn survivors_machine_drained(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("drained-rec", spec(3, json!({})), |cluster| {
        let survivor = cluster.leader()?;
        let pods = cluster.voters()?;
        let machine = pods
            .iter()
            .find(|p| p.name == survivor)
            .context("no leader")?
            .machine
            .clone();
        let home = pods
            .iter()
            .find(|p| p.machine != machine)
            .context("one machine")?;
        let writer = cluster.writer_on(&home.machine)?;
        lose_all_but(cluster, &[&survivor])?;
        let start = Instant::now();
        recover(cluster, "go", &consent())?;
        until("the survivor to be started with the plan", LONG, || {
            let object = cluster.object()?;
            let phase = text(&object["status"]["recovery"]["phase"]).to_owned();
            ensure!(
                ["Applying", "Verifying", "Rejoining"].contains(&phase.as_str()),
                "{phase}"
            );
            cluster.core("pods", &survivor)
        })?;
        let only = "--pod-selector=rqlite.dev/cluster=demo";
        let args = [
            "drain",
            &machine,
            only,
            "--delete-emptydir-data",
            "--timeout=60s",
            "--force",
        ];
        let drained = fixture.kubectl.run(&args);
        let waits = until("the survivor to wait for its machine", LIMIT, || {
            let pod = cluster.core("pods", &survivor)?;
            ensure!(
                text(&pod["spec"]["nodeName"]).is_empty(),
                "{}",
                pod["status"]["phase"]
            );
            Ok(())
        });
        fixture.kubectl.run(&["uncordon", &machine])?;
        drained?;
        waits?;
        recovered(cluster, writer, "go", start)
    })
}

pub(crate) fn old_machine_returns(fixture: &Fixture) -> Result<Measurements> {
    let required = json!({"scheduling": {"antiAffinity": "Required"}});
    fixture.cluster("returns", spec(3, required), |cluster| {
        let home = fixture.operator_machine()?;
        let pods = cluster.voters()?;
        let survivor = pods
            .iter()
            .find(|p| p.machine == home)
            .context("no voter at home")?;
        let away: Vec<_> = pods.iter().filter(|p| p.machine != home).collect();
        let (burned, old) = (away[0], away[1]);
        let writer = cluster.writer_on(&home)?;
        cluster.transfer_leadership(&survivor.name)?;
        let before = cluster.configuration()?;
        let cut = fixture.cut(&old.machine)?;
        fixture.await_machine(&old.machine, false)?;
        cluster.lose_disks(&[&burned.name])?;
        cluster.until_condition("Available", "False", Some("QuorumUnavailable"), LIMIT)?;
        let start = Instant::now();
        let spec = json!({
            "acceptDataLoss": true,
            "ignoreMembers": [old.name],
            "assumeStopped": [old.name],
        });
        recover(cluster, "go", &spec)?;
        writer.await_progress(LONG)?;
        let service = start.elapsed();
        // The old process is still running, with its old data and its old lineage.
        drop(cut);
        fixture.await_machine(&old.machine, true)?;
        await_phase(cluster, "go", &["Succeeded"], LONG)?;
        let ended = cluster.verify_allowing_loss(writer)?;
        ensure!(ended.check.lost == 0, "{:?}", ended.check);
        let now = cluster.configuration()?;
        let id = |members: &std::collections::BTreeMap<String, (String, bool)>| {
            members.get(&old.name).map(|(id, _)| id.clone())
        };
        ensure!(id(&now) != id(&before), "the old data votes: {now:?}");
        let log = cluster
            .namespace
            .run(&["logs", &old.name, "-c", "prepare"])?;
        ensure!(log.contains("arked"), "its data was not parked: {log}");
        let note = format!(
            "service {:.0} s after the consent; the old data is parked",
            service.as_secs_f64()
        );
        Ok(Measurements::of(&ended).with_note(note))
    })
}

pub(crate) fn read_replica_is_newer(fixture: &Fixture) -> Result<Measurements> {
    let more = json!({"readReplicas": {"replicas": 1}});
    fixture.cluster("reader-newer", spec(3, more), |cluster| {
        let (away, reader) = (cluster.voter(2)?, cluster.pods("read")?.remove(0));
        let others = cluster
            .voters()?
            .into_iter()
            .take(2)
            .find(|p| p.machine != away.machine);
        let writer = cluster.writer_on(&others.context("one machine")?.machine)?;
        cluster.transfer_leadership("demo-0")?;
        // One voter misses the last writes; the two that have them are lost.
        let cordon = keep_pending(fixture, cluster, &away.name)?;
        writer.await_progress(LIMIT)?;
        let burning = cluster.uids()?;
        cluster.lose_disks(&["demo-0", "demo-1"])?;
        until("the two to be gone", LIMIT, || {
            // A terminating pod still serves, and would replicate everything to the third.
            let now = cluster.uids()?;
            let stays = ["demo-0", "demo-1"].map(|name| now.get(name) == burning.get(name));
            ensure!(stays == [false, false], "still there: {stays:?}");
            Ok(())
        })?;
        drop(cordon);
        cluster.until_condition("QuorumLost", "True", Some("VotersLost"), LONG)?;
        recover(cluster, "which", &consent())?;
        let asks = await_phase(cluster, "which", &["AwaitingApproval"], LIMIT)?;
        let why = text(&asks["status"]["message"]).to_owned();
        ensure!(why.contains(&reader.name) && why.contains("newer"), "{why}");
        let start = Instant::now();
        let spec = json!({"acceptDataLoss": true, "survivor": reader.name});
        recover(cluster, "go", &spec)?;
        recovered(cluster, writer, "go", start)
    })
}

pub(crate) fn automatic(fixture: &Fixture) -> Result<Measurements> {
    let policy = json!({"quorumRecovery": {
        "policy": "Automatic", "detectAfter": "5s", "automaticAfter": "10s", "acceptDataLoss": true,
    }});
    fixture.cluster("automatic", spec(3, policy), |cluster| {
        let writer = cluster.writer()?;
        let survivor = cluster.leader()?;
        let pods = cluster.voters()?;
        let lost = pods.iter().map(|p| p.name.as_str());
        let lost: Vec<&str> = lost.filter(|name| *name != survivor).collect();
        let start = Instant::now();
        cluster.lose_disks(&lost)?;
        let made = cluster.until("a recovery of the operator's own", LONG, |object| {
            let name = text(&object["status"]["recovery"]["name"]).to_owned();
            ensure!(!name.is_empty(), "{}", condition(object, "QuorumLost"));
            Ok(name)
        })?;
        let outcome = recovered(cluster, writer, &made, start)?;
        let note = outcome
            .note
            .replace("the consent, one human step", "the loss, no human step");
        Ok(outcome.with_note(note))
    })
}
