//! RqliteRestore on a real API server: what is refused by whom, what is asked of the leader and in which
//! order, one at a time, never for another cluster, and once, whatever the operator does meanwhile.
//!
//! Nodes and their archive are simulated: they record what they are asked.
#[path = "restores/belonging.rs"]
mod belonging;
#[path = "restores/roles.rs"]
mod roles;

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::command::until;
use e2e_operator::{
    api_server::ApiServer,
    operator_fixture::condition,
    simulated::{LIMIT, Simulated, refused},
};
use serde_json::{Value, json};

const KIND: &str = "rqliterestore";
const CLUSTER: &str = "shop";

/// The `spec.archive` of the clusters here.
fn archive() -> Value {
    json!({"archive": {"target": {"s3": {"bucket": "shop-archive"}}}})
}

/// What a leader says of an archive that is up to date.
fn up_to_date() -> Value {
    json!({"enabled": true, "target": "s3://shop-archive", "archived_index": 90, "behind_seconds": 0,
        "last_base": {"index": 10, "time": "2026-11-29T07:00:00Z", "bytes": 5}})
}

fn spec(more: &Value) -> Value {
    let mut spec = json!({"clusterRef": {"name": CLUSTER}, "toIndex": 60});
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    spec
}

fn make(place: &Simulated, name: &str, more: &Value) -> Result<Value> {
    place.make("RqliteRestore", name, &spec(more))
}

fn confirmed() -> Value {
    json!({"confirm": CLUSTER})
}

/// Requests that the leader got since the last look, by whether they change anything.
fn asked(place: &Simulated, cluster: &str) -> (Vec<Value>, Vec<Value>) {
    let all = place.nodes.restores_asked(cluster).into_iter();
    all.partition(|request| request["dry_run"] == true)
}

fn operation(place: &Simulated) -> Result<Value> {
    Ok(place.get("rqlitecluster", CLUSTER)?["status"]["operation"].clone())
}

/// What the API server refuses, with words that say what to write.
fn mistakes(place: &Simulated) -> Result<()> {
    let cases = [
        (json!({}), "repeat the cluster's name in confirm"),
        (
            json!({"confirm": "shop2"}),
            "repeat the cluster's name in confirm",
        ),
        (
            json!({"confirm": CLUSTER, "toIndex": null}),
            "exactly one of toTime and toIndex",
        ),
        (
            json!({"dryRun": true, "toTime": "2026-11-29T08:00:00Z"}),
            "exactly one of toTime and toIndex",
        ),
        (
            json!({"dryRun": true, "toIndex": 0}),
            "greater than or equal to 1",
        ),
        (
            json!({"dryRun": true, "toIndex": null, "toTime": "yesterday"}),
            "toTime",
        ),
    ];
    for (more, part) in cases {
        refused(make(place, "wrong", &more), &[part]).with_context(|| more.to_string())?;
    }
    Ok(())
}

/// Looks, announces, changes nothing.
fn dry_run(place: &Simulated) -> Result<()> {
    make(place, "look", &json!({"dryRun": true}))?;
    let words = [
        "dry run: back to index 60",
        "undoes",
        "entries",
        "Nothing was changed",
    ];
    let ended = place.await_phase(KIND, "look", "Succeeded", &words)?;
    let status = &ended["status"];
    let is = status["index"] == 60
        && status["undoneEntries"].as_i64().is_some_and(|n| n > 0)
        && status["undoneSeconds"] == 7
        && status["time"] == "2026-11-29T08:00:00Z"
        && status["safetyIndex"].is_null();
    ensure!(is, "{status}");
    let complete = condition(&ended, "Complete");
    ensure!(complete["status"] == "True", "{complete}");
    let (plans, changes) = asked(place, CLUSTER);
    ensure!(
        plans.len() == 1 && changes.is_empty(),
        "{plans:?} {changes:?}"
    );
    for change in [
        json!({"spec": {"dryRun": false, "confirm": CLUSTER}}),
        json!({"spec": {"toIndex": 61}}),
    ] {
        let edit = place.patch(KIND, "look", &change);
        refused(edit, &["a restore cannot be changed", "create another"])?;
    }
    make(
        place,
        "beyond",
        &json!({"dryRun": true, "toIndex": 1_000_000_000}),
    )?;
    let words = ["the archive reaches to index", "Nothing was changed"];
    place
        .await_phase(KIND, "beyond", "Rejected", &words)
        .map(drop)
}

/// Announced, then asked once for what was announced, while all else waits; also over the operator's end.
#[expect(clippy::too_many_lines, reason = "one story, step by step")]
fn carried_out(place: &mut Simulated) -> Result<()> {
    place.nodes.hold_restores(CLUSTER, true);
    let cluster = place.get("rqlitecluster", CLUSTER)?;
    let pods = place.uids(CLUSTER)?;
    let time = json!({"confirm": CLUSTER, "toIndex": null, "toTime": "2026-11-29T09:00:00+01:00",
        "reason": "orders were deleted"});
    make(place, "back", &time)?;
    let begun = place.await_phase(KIND, "back", "Restoring", &[])?;
    let owner = &begun["metadata"]["ownerReferences"][0]["uid"];
    ensure!(*owner == cluster["metadata"]["uid"], "{owner}");
    ensure!(
        operation(place)?["type"] == "Restore",
        "{}",
        operation(place)?
    );
    until("the leader to be asked", LIMIT, || {
        let (_, changes) = asked(place, CLUSTER);
        ensure!(changes.len() == 1, "{changes:?}");
        Ok(())
    })?;
    let (plans, changes) = asked(place, CLUSTER);
    let plan = plans.last().context("it was not planned")?;
    ensure!(plan["to_time"] == "2026-11-29T09:00:00+01:00", "{plan}");
    // To the index that was announced, whatever the time would mean by now.
    let (change, status) = (&changes[0], &cluster["status"]);
    let is = change["to_index"] == begun["status"]["index"]
        && change["to_time"].is_null()
        && change["confirm"] == status["clusterId"]
        && change["id"] == begun["metadata"]["uid"];
    ensure!(is, "{change}");
    // One at a time; a consent that waits would undo what this one brings back.
    make(place, "second", &confirmed())?;
    let words = ["RqliteRestore back is under way", "create another one"];
    place.await_phase(KIND, "second", "Rejected", &words)?;
    make(place, "look-again", &json!({"dryRun": true}))?;
    place.await_phase(KIND, "look-again", "Pending", &["waits for the operation"])?;
    // Other changes wait, too.
    place.patch("rqlitecluster", CLUSTER, &json!({"spec": {"replicas": 4}}))?;
    place.fixture.operator.terminate()?;
    place.fixture.restart_operator()?;
    until("the new operator to see the edit", LIMIT, || {
        let cluster = place.get("rqlitecluster", CLUSTER)?;
        let seen = &cluster["status"]["observedGeneration"];
        ensure!(*seen == cluster["metadata"]["generation"], "{seen}");
        Ok(())
    })?;
    ensure!(
        place.uids(CLUSTER)? == pods,
        "pods changed during a restore"
    );
    ensure!(
        operation(place)?["type"] == "Restore",
        "{}",
        operation(place)?
    );
    place.nodes.hold_restores(CLUSTER, false);
    let words = [
        "the database is as it was at index 50",
        "entries are undone",
        "toIndex:",
    ];
    let ended = place.await_phase(KIND, "back", "Succeeded", &words)?;
    let status = &ended["status"];
    ensure!(
        status["safetyIndex"].is_i64() && status["restoredAtIndex"].is_i64(),
        "{status}"
    );
    let steps = status["steps"].as_array().into_iter().flatten();
    let steps: Vec<_> = steps.filter_map(|step| step["phase"].as_str()).collect();
    ensure!(steps == ["Planning", "Restoring", "Succeeded"], "{steps:?}");
    place.await_phase(KIND, "look-again", "Succeeded", &["dry run"])?;
    let (_, changes) = asked(place, CLUSTER);
    ensure!(changes.len() == 1, "asked again: {changes:?}");
    // What waited goes on.
    place.await_ready(CLUSTER)?;
    until("four voters", LIMIT, || {
        ensure!(place.uids(CLUSTER)?.len() == 4, "not yet");
        Ok(())
    })
}

/// Ended ones are kept as long as they say.
fn kept(place: &Simulated) -> Result<()> {
    make(
        place,
        "brief",
        &json!({"dryRun": true, "ttlSecondsAfterFinished": 1}),
    )?;
    place.await_gone(KIND, "brief")?;
    let table = place.run(&["get", "rqrs"])?;
    for part in ["PHASE", "DRY RUN", "UNDONE", "back", "Succeeded"] {
        ensure!(table.contains(part), "{part} is not in {table}");
    }
    Ok(())
}

/// A cluster without an archive, and one that is stopped.
fn cannot(place: &Simulated) -> Result<()> {
    place.cluster("bare", &json!({"replicas": 1}))?;
    let bare = json!({"clusterRef": {"name": "bare"}, "confirm": "bare"});
    make(place, "nothing", &bare)?;
    let words = [
        "bare has no archive (spec.archive)",
        "spec.bootstrap.restore",
        "Nothing was changed",
    ];
    place.await_phase(KIND, "nothing", "Rejected", &words)?;
    make(
        place,
        "nobody",
        &json!({"clusterRef": {"name": "nobody"}, "confirm": "nobody"}),
    )?;
    let none = place.get(KIND, "nobody")?;
    ensure!(none["status"].is_null(), "{none}");
    Ok(())
}

fn all(place: &mut Simulated) -> Result<()> {
    place.nodes.archives(CLUSTER, Some(up_to_date()));
    place.cluster(CLUSTER, &archive())?;
    mistakes(place).context("mistakes")?;
    dry_run(place).context("a dry run")?;
    carried_out(place).context("a restore")?;
    kept(place).context("ended ones")?;
    cannot(place).context("what cannot be restored")?;
    roles::run(place).context("roles")?;
    belonging::run(place).context("whose it is")
}

#[test]
fn a_restore_is_announced_carried_out_once_and_for_its_cluster_only() -> Result<()> {
    let Some(mut place) = Simulated::start()? else {
        return ApiServer::skip();
    };
    let result = all(&mut place);
    place.end(result)
}
