//! Updates to other images and settings, good and bad.
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::{command::until, namespace::LIMIT, writer::Writer};
use serde_json::{Value, json};

use crate::{
    ROOM,
    cluster::{Cluster, LONG, QUIET, spec},
    fixture::{Fixture, condition, text},
    report::Measurements,
};

/// Limit without writes while three nodes are updated.
const GAP_GOAL: Duration = Duration::from_secs(2);

fn image(tag: &str) -> Value {
    json!({"spec": {"image": {"tag": tag}}})
}

/// A pod that cannot start is reported and no other pod is touched; correcting the spec is enough to recover.
fn stalls_and_recovers(
    cluster: &Cluster<'_>,
    writer: Writer<'_>,
    bad: &Value,
    good: &Value,
) -> Result<Measurements> {
    let before = cluster.uids()?;
    cluster.edit(bad)?;
    let said = cluster.until_condition("Progressing", "False", Some("UpdateStalled"), LONG)?;
    writer.await_progress(LIMIT)?;
    let now = cluster.uids()?;
    let touched: Vec<_> = before
        .iter()
        .filter(|(name, uid)| now.get(*name) != Some(*uid))
        .collect();
    ensure!(
        touched.len() == 1,
        "{} pods were touched: {touched:?}",
        touched.len()
    );
    let ready = cluster.voters()?.iter().filter(|pod| pod.ready).count();
    ensure!(ready == 2, "{ready} voters are ready");
    println!("stalled: {said}");
    let start = Instant::now();
    cluster.edit(good)?;
    cluster.ready(LONG)?;
    let healed = start.elapsed();
    let outcome = cluster.verify_intact(writer)?;
    Ok(outcome.with_note(format!(
        "Ready {:.0} s after the correction",
        healed.as_secs_f64()
    )))
}

pub(crate) fn bad_image(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("bad-image", spec(3, json!({})), |cluster| {
        let writer = cluster.writer()?;
        stalls_and_recovers(cluster, writer, &image("missing"), &image("next"))
    })
}

pub(crate) fn node_that_cannot_start(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("bad-flag", spec(3, json!({})), |cluster| {
        let writer = cluster.writer()?;
        let bad = json!({"spec": {"config": {"extraArgs": ["-no-such-flag"]}}});
        stalls_and_recovers(cluster, writer, &bad, &json!({"spec": {"config": null}}))
    })
}

pub(crate) fn too_little_memory(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("memory", spec(3, json!({})), |cluster| {
        let writer = cluster.writer()?;
        let members = cluster.configuration()?;
        let claims = cluster.claims()?;
        let bad = json!({"spec": {"resources": {"limits": {"memory": "6Mi"}}}});
        let outcome =
            stalls_and_recovers(cluster, writer, &bad, &json!({"spec": {"resources": null}}))?;
        // Longer than memberReplacement.after: a member that is out of memory was not taken for lost.
        ensure!(cluster.configuration()? == members, "a member was replaced");
        let uid = |all: &[Value]| -> BTreeSet<String> {
            all.iter()
                .map(|c| text(&c["metadata"]["uid"]).to_owned())
                .collect()
        };
        ensure!(
            uid(&cluster.claims()?) == uid(&claims),
            "a claim was replaced"
        );
        Ok(outcome)
    })
}

/// Counts leaders during an update.
fn leaders_during(
    cluster: &Cluster<'_>,
    is_done: impl Fn(&Value) -> Result<bool>,
) -> Result<Vec<String>> {
    let mut leaders: Vec<String> = Vec::new();
    until("the update to be done", LONG, || {
        let object = cluster.object()?;
        let leader = text(&object["status"]["leader"]).to_owned();
        if !leader.is_empty() && leaders.last() != Some(&leader) {
            leaders.push(leader);
        }
        ensure!(is_done(&object)?, "{}", condition(&object, "Progressing"));
        Ok(())
    })?;
    Ok(leaders)
}

pub(crate) fn rolls(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("rolls", spec(3, json!({})), |cluster| {
        let writer = cluster.writer()?;
        let (first, term) = (cluster.leader()?, cluster.term()?);
        let start = Instant::now();
        cluster.edit(&image("next"))?;
        let leaders = leaders_during(cluster, |object| {
            let ready = condition(object, "Ready");
            let current = ready["observedGeneration"] == object["metadata"]["generation"];
            let pods = cluster.voters()?;
            let new = pods
                .iter()
                .filter(|p| p.ready && p.image.ends_with(":next"))
                .count();
            Ok(ready["status"] == "True" && current && new == 3)
        })?;
        let took = start.elapsed();
        let seen = writer.report(Some(start))?;
        let terms = cluster.term()? - term;
        ensure!(
            terms == 1,
            "{terms} elections for one transfer; leaders seen: {first}, then {leaders:?}"
        );
        ensure!(
            u128::from(seen.longest_gap_ms) < (GAP_GOAL * ROOM).as_millis(),
            "{seen}, the goal is {GAP_GOAL:?}"
        );
        let note = format!(
            "rolled in {:.0} s, one leader transfer, {} ms without writes (goal: {} ms)",
            took.as_secs_f64(),
            seen.longest_gap_ms,
            GAP_GOAL.as_millis()
        );
        Ok(cluster.verify_intact(writer)?.with_note(note))
    })
}

pub(crate) fn rolls_with_one_down(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("one-down", spec(3, json!({})), |cluster| {
        let pods = cluster.voters()?;
        let home = pods[0].machine.clone();
        let writer = cluster.writer_on(&home)?;
        cluster.transfer_leadership("demo-0")?;
        let cordon = fixture.cordon(&pods[2].machine)?;
        cluster.delete_pods(&["demo-2"])?;
        let waiting = until("demo-2 to wait", LIMIT, || {
            let pod = cluster.voter(2)?;
            ensure!(pod.uid != pods[2].uid && pod.machine.is_empty(), "{pod:?}");
            Ok(pod)
        })?;
        cluster.edit(&image("next"))?;
        // The member that is down is recreated at once, since it costs no availability.
        until("demo-2 to be recreated", LIMIT, || {
            let pod = cluster.voter(2)?;
            ensure!(
                pod.uid != waiting.uid && pod.image.ends_with(":next"),
                "{pod:?}"
            );
            Ok(())
        })?;
        writer.await_progress(LIMIT)?;
        let others: Vec<_> = cluster
            .voters()?
            .into_iter()
            .take(2)
            .map(|p| p.uid)
            .collect();
        let before: Vec<_> = pods.iter().take(2).map(|p| p.uid.clone()).collect();
        ensure!(others == before, "others were touched while one was down");
        drop(cordon);
        until("all to be updated", LONG, || {
            let pods = cluster.voters()?;
            let old: Vec<_> = pods
                .iter()
                .filter(|p| !p.image.ends_with(":next"))
                .collect();
            ensure!(old.is_empty(), "{old:?}");
            Ok(())
        })?;
        cluster.verify_intact(writer)
    })
}

pub(crate) fn restarts_on_request(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("restart", spec(3, json!({})), |cluster| {
        let writer = cluster.writer()?;
        let before = cluster.uids()?;
        let asked = json!({"metadata": {"annotations": {"rqlite.dev/restarted-at": "now"}}});
        cluster.edit(&asked)?;
        until("all pods to be others", LONG, || {
            let now = cluster.uids()?;
            let old: Vec<_> = before
                .iter()
                .filter(|(n, uid)| now.get(*n) == Some(*uid))
                .collect();
            ensure!(old.is_empty(), "{old:?}");
            Ok(())
        })?;
        cluster.verify_intact(writer)
    })
}

pub(crate) fn new_operator_restarts_no_database(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("upgraded", spec(3, json!({})), |cluster| {
        let writer = cluster.writer()?;
        let before = cluster.uids()?;
        let image = cluster.object()?["status"]["target"]["image"].clone();
        let holder = fixture.operator_holder()?;
        // A new operator with another default image: neither is a reason to restart a database.
        fixture.upgrade(&["nodeImage.tag=next", "logLevel=debug"])?;
        let done = until("the new operator", LIMIT, || {
            let now = fixture.operator_holder()?;
            ensure!(now != holder && !now.is_empty(), "{now}");
            Ok(())
        });
        let checked = done.and_then(|()| {
            fixture.await_operator()?;
            // A change that affects no pod shows that the new operator has reconciled the cluster.
            cluster.edit(&json!({"spec": {"update": {"minReady": "3s"}}}))?;
            cluster.ready(LIMIT)?;
            ensure!(cluster.uids()? == before, "pods were replaced");
            let now = cluster.object()?["status"]["target"]["image"].clone();
            ensure!(now == image, "the image became {now}");
            cluster.until_condition("UpdateAvailable", "True", None, LIMIT)?;
            // A change that does reach the pods brings no other image with it.
            cluster.edit(&json!({"spec": {"podMetadata": {"labels": {"team": "x"}}}}))?;
            until("all pods to be others", LONG, || {
                let pods = cluster.voters()?;
                let done = pods
                    .iter()
                    .all(|p| p.ready && before.get(&p.name) != Some(&p.uid));
                ensure!(done, "{pods:?}");
                let other: Vec<_> = pods.iter().filter(|p| p.image.ends_with(":next")).collect();
                ensure!(other.is_empty(), "{other:?}");
                Ok(())
            })?;
            cluster.ready(LONG)?;
            Ok(())
        });
        fixture.upgrade(&["nodeImage.tag=dev", "logLevel=info"])?;
        fixture.await_operator()?;
        checked.context("after the upgrade")?;
        cluster.verify_intact(writer)
    })
}

/// A stalled update is taken back without an edit of the spec, and held until the spec changes.
fn taken_back(fixture: &Fixture, name: &str, by_policy: bool) -> Result<Measurements> {
    let policy = json!({"update": {"progressDeadline": "30s",
        "onStall": if by_policy { "RollBack" } else { "Pause" }}});
    fixture.cluster(name, spec(3, policy), |cluster| {
        let writer = cluster.writer()?;
        let image = cluster.object()?["status"]["target"]["image"].clone();
        let before = cluster.uids()?;
        cluster.edit(&json!({"spec": {"image": {"tag": "missing"}}}))?;
        if !by_policy {
            cluster.until_condition("Progressing", "False", Some("UpdateStalled"), LONG)?;
            let asked = json!({"metadata": {"annotations": {"rqlite.dev/rollback": "now"}}});
            cluster.edit(&asked)?;
        }
        let said = cluster.until_condition("UpdateRolledBack", "True", None, LONG)?;
        println!("taken back: {said}");
        until("three ready pods of the former image", LONG, || {
            let pods = cluster.voters()?;
            let well = pods
                .iter()
                .all(|p| p.ready && !p.image.ends_with(":missing"));
            ensure!(well && pods.len() == 3, "{pods:?}");
            Ok(())
        })?;
        let now = cluster.uids()?;
        let kept = before.iter().filter(|(n, uid)| now.get(*n) == Some(*uid));
        ensure!(kept.count() == 2, "more than one pod was touched");
        let target = cluster.object()?["status"]["target"]["image"].clone();
        ensure!(target == image, "{target}");
        cluster.edit(&json!({"spec": {"image": {"tag": "next"}}}))?;
        cluster.ready(LONG)?;
        cluster.verify_intact(writer)
    })
}

pub(crate) fn taken_back_on_request(fixture: &Fixture) -> Result<Measurements> {
    taken_back(fixture, "rollback", false)
}

pub(crate) fn taken_back_by_policy(fixture: &Fixture) -> Result<Measurements> {
    taken_back(fixture, "by-policy", true)
}

/// With management Manual nothing changes before a person's word, and then all of the plan.
pub(crate) fn waits_for_approval(fixture: &Fixture) -> Result<Measurements> {
    let manual = spec(3, json!({"management": "Manual"}));
    fixture.cluster("manual", manual, |cluster| {
        let writer = cluster.writer()?;
        for (change, voters) in [(image("next"), 3), (json!({"spec": {"replicas": 5}}), 5)] {
            let before = cluster.uids()?;
            cluster.edit(&change)?;
            cluster.until_condition("ApprovalPending", "True", None, LIMIT)?;
            cluster
                .pods_stay(QUIET, &before)
                .context("without a word")?;
            let plan = cluster.object()?["status"]["proposedPlan"]["id"].clone();
            let word = json!({"metadata": {"annotations": {"rqlite.dev/approve": plan}}});
            cluster.edit(&word)?;
            cluster.ready(LONG)?;
            let pods = cluster.voters()?;
            let done = pods.len() == voters && pods.iter().all(|p| p.image.ends_with(":next"));
            ensure!(done, "{pods:?}");
        }
        cluster.verify_intact(writer)
    })
}
