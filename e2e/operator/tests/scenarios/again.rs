//! What is done twice: scaled, looked at, recovered, installed.
use anyhow::{Result, ensure};
use e2e_kubernetes::{command::until, namespace::LIMIT};
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, LONG, QUIET, spec},
    fixture::{Fixture, condition, text},
    lifecycle,
    recovery::{await_phase, lose_all_but, recover},
    report::Measurements,
};

/// Copies that a node has parked on its volume, and their bytes.
fn parked(cluster: &Cluster<'_>, pod: &str) -> Result<(usize, u64)> {
    let parked = &cluster.status_of(pod)?["store"]["parked"];
    let copies = parked["copies"].as_array().map_or(0, Vec::len);
    Ok((copies, parked["bytes"].as_u64().unwrap_or_default()))
}

/// What the nodes that come back had is parked, and does not pile up.
pub(crate) fn parked_copies(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("parked", spec(5, json!({})), |cluster| {
        let writer = cluster.writer()?;
        let mut seen = Vec::new();
        for round in 1..=4 {
            for to in [3, 5] {
                cluster.scale(to)?;
                cluster.ready(LONG)?;
            }
            for pod in ["demo-3", "demo-4"] {
                let (copies, bytes) = parked(cluster, pod)?;
                ensure!(copies >= 1, "round {round}: {pod} has parked nothing");
                ensure!(copies <= 2, "round {round}: {pod} keeps {copies} copies");
                seen.push(format!("{copies} of {bytes} B"));
            }
        }
        let note = format!("parked after each round: {}", seen.join(", "));
        Ok(cluster.verify_intact(writer)?.with_note(note))
    })
}

/// The second dry run looks again: it does not show what the first one found.
pub(crate) fn dry_runs(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("dry-twice", spec(3, json!({})), |cluster| {
        let writer = cluster.writer()?;
        let survivor = cluster.leader()?;
        lose_all_but(cluster, &[&survivor])?;
        let mut begun: Vec<String> = Vec::new();
        for name in ["look-1", "look-2"] {
            recover(cluster, name, &json!({"dryRun": true}))?;
            let done = await_phase(cluster, name, &["Succeeded"], LONG)?;
            let status = &done["status"];
            ensure!(status["survivor"] == survivor.as_str(), "{status}");
            let steps = status["steps"].as_array();
            let first = steps.and_then(|steps| steps.first());
            let at = first.map_or("", |step| text(&step["at"])).to_owned();
            ensure!(
                !at.is_empty() && at.as_str() >= text(&done["metadata"]["creationTimestamp"]),
                "{name} shows what was found before it was asked: {status}"
            );
            begun.push(at);
        }
        ensure!(begun[0] < begun[1], "{begun:?}");
        recover(cluster, "go", &json!({"acceptDataLoss": true}))?;
        await_phase(cluster, "go", &["Succeeded"], LONG)?;
        let ended = cluster.verify_allowing_loss(writer)?;
        Ok(Measurements::of(&ended))
    })
}

/// What the operator's own recoveries of a deleted cluster have found says nothing of a new one of its name.
pub(crate) fn automatic_after_deletion(fixture: &Fixture) -> Result<Measurements> {
    let policy = || {
        spec(
            3,
            json!({
                "quorumRecovery": {"policy": "Automatic", "detectAfter": "5s", "automaticAfter": "10s",
                    "acceptDataLoss": true},
                "storage": {"size": "1Gi", "retention": {"whenDeleted": "Delete"}},
            }),
        )
    };
    fixture.bare("auto-again", |cluster| {
        for round in ["first", "second"] {
            cluster.create(policy())?;
            cluster.ready(LIMIT)?;
            let survivor = cluster.leader()?;
            let pods = cluster.voters()?;
            let lost = pods.iter().map(|pod| pod.name.as_str());
            let lost: Vec<&str> = lost.filter(|name| *name != survivor).collect();
            cluster.lose_disks(&lost)?;
            let made = cluster.until("a recovery of the operator's own", LONG, |object| {
                let name = text(&object["status"]["recovery"]["name"]).to_owned();
                ensure!(
                    !name.is_empty(),
                    "{round}: {}",
                    condition(object, "QuorumLost")
                );
                Ok(name)
            })?;
            let done = await_phase(cluster, &made, &["Succeeded"], LONG)?;
            let owner = &done["metadata"]["ownerReferences"][0]["uid"];
            let uid = cluster.object()?["metadata"]["uid"].clone();
            ensure!(
                *owner == uid,
                "{round}: {made} belongs to {owner}, not to {uid}"
            );
            cluster.ready(LONG)?;
            lifecycle::delete(cluster)?;
            until("claims and recoveries to go", LIMIT, || {
                let claims = cluster.claims()?.len();
                let left = cluster
                    .namespace
                    .run(&["get", "rqliterecoveries", "-o", "name"])?;
                ensure!(
                    claims == 0 && left.trim().is_empty(),
                    "{claims} claims, {left}"
                );
                Ok(())
            })?;
        }
        Ok(Measurements::default().with_note("recovered by itself, twice"))
    })
}

/// Pods that are the same as before, and an object that says who looks after it.
fn managed(cluster: &Cluster<'_>, pods: &std::collections::BTreeMap<String, String>) -> Result<()> {
    cluster.ready(LONG)?;
    cluster.pods_stay(QUIET, pods)
}

/// Without an operator a cluster goes on, and says that nobody looks after it; the next one takes it over.
pub(crate) fn installed_again(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("reinstalled", spec(3, json!({})), |cluster| {
        let writer = cluster.writer()?;
        let pods = cluster.uids()?;
        let alone = fixture.uninstall().and_then(|()| {
            cluster.until_condition("Managed", "False", Some("OperatorUninstalled"), LIMIT)?;
            cluster.pods_stay(QUIET, &pods)?;
            writer.await_progress(LIMIT)
        });
        fixture.upgrade(&[])?;
        fixture.await_operator()?;
        alone.map_err(|error| error.context("without an operator"))?;
        cluster.until_condition("Managed", "True", None, LIMIT)?;
        managed(cluster, &pods)?;
        cluster.scale(5)?;
        cluster.verify_intact(writer)
    })
}

/// The release of the operator is taken back: no pod of a database is restarted, by neither step.
pub(crate) fn operator_rolled_back(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("op-back", spec(3, json!({})), |cluster| {
        let writer = cluster.writer()?;
        let pods = cluster.uids()?;
        let image = |object: &Value| object["status"]["image"].clone();
        let before = image(&cluster.object()?);
        fixture.upgrade(&["nodeImage.tag=next", "logLevel=debug"])?;
        let upgraded = fixture
            .await_operator()
            .and_then(|()| managed(cluster, &pods));
        fixture.roll_back()?;
        fixture.await_operator()?;
        upgraded.map_err(|error| error.context("with the newer operator"))?;
        managed(cluster, &pods)?;
        let now = image(&cluster.object()?);
        ensure!(now == before, "the image was {before}, and is {now}");
        cluster.verify_intact(writer)
    })
}
