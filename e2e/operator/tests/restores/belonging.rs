//! A restore is for one cluster, by uid: an older object does nothing to a later cluster of the same name.
use anyhow::{Result, ensure};
use e2e_kubernetes::command::until;
use e2e_operator::simulated::{LIMIT, Simulated};
use serde_json::{Value, json};

use crate::{KIND, archive, asked, make, up_to_date};

/// Nothing that changes anything was asked of the nodes of this cluster.
fn untouched(place: &Simulated, cluster: &str) -> Result<()> {
    let (_, changes) = asked(place, cluster);
    ensure!(changes.is_empty(), "{cluster} was asked: {changes:?}");
    Ok(())
}

/// Restores of a cluster that was deleted and created again: one that waited goes with its cluster, and one
/// that a backup of the objects brings back, with its status, does nothing.
fn of_a_former_cluster(place: &mut Simulated) -> Result<()> {
    place.nodes.archives("again", Some(up_to_date()));
    let first = place.cluster("again", &archive())?["metadata"]["uid"].clone();
    place.patch(
        "rqlitecluster",
        "again",
        &json!({"spec": {"hibernated": true}}),
    )?;
    place.until("rqlitecluster", "again", |object| {
        let phase = &object["status"]["phase"];
        ensure!(*phase == "Hibernated", "{phase}");
        Ok(())
    })?;
    let again = json!({"clusterRef": {"name": "again"}, "confirm": "again"});
    make(place, "waits", &again)?;
    place.await_phase(KIND, "waits", "Pending", &["hibernated"])?;
    place.run(&["delete", "rqlitecluster", "again", "--timeout=90s"])?;
    place.await_gone(KIND, "waits")?;
    until("its objects to be gone", LIMIT, || {
        let kinds =
            "statefulset,service,configmap,poddisruptionbudget,networkpolicy,serviceaccount";
        let left = place.run(&["get", kinds, "-l", "rqlite.dev/cluster=again", "-o", "name"])?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })?;
    let claims = [
        "delete",
        "pvc",
        "-l",
        "rqlite.dev/cluster=again",
        "--wait=false",
    ];
    place.run(&claims)?;
    let second = place.cluster("again", &archive())?["metadata"]["uid"].clone();
    ensure!(first != second, "the same");
    place.fixture.operator.terminate()?;
    make(place, "brought-back", &again)?;
    let status = json!({"phase": "Pending", "clusterUid": first});
    place.patch_status(KIND, "brought-back", &status)?;
    place.fixture.restart_operator()?;
    let words = ["earlier RqliteCluster", "Nothing was changed"];
    place.await_phase(KIND, "brought-back", "Rejected", &words)?;
    untouched(place, "again")
}

pub(crate) fn run(place: &mut Simulated) -> Result<()> {
    // Created before the cluster of that name: whoever wrote it cannot have meant this one.
    let later = json!({"clusterRef": {"name": "later"}, "confirm": "later"});
    make(place, "too-early", &later)?;
    of_a_former_cluster(place)?;
    place.nodes.archives("later", Some(up_to_date()));
    place.cluster("later", &archive())?;
    let words = [
        "created before the present RqliteCluster later",
        "Nothing was changed",
    ];
    place.await_phase(KIND, "too-early", "Rejected", &words)?;
    let named =
        |uid: &Value| json!({"clusterRef": {"name": "later", "uid": uid}, "confirm": "later"});
    let other = place.get("rqlitecluster", "again")?["metadata"]["uid"].clone();
    make(place, "other-uid", &named(&other))?;
    place.await_phase(KIND, "other-uid", "Rejected", &["spec.clusterRef.uid is"])?;
    untouched(place, "later")?;
    // With its own uid it is carried out, and goes with its cluster.
    let own = place.get("rqlitecluster", "later")?["metadata"]["uid"].clone();
    make(place, "own", &named(&own))?;
    place.await_phase(KIND, "own", "Succeeded", &["the database is as it was"])?;
    place.run(&["delete", "rqlitecluster", "later", "--timeout=90s"])?;
    place.await_gone(KIND, "own")
}
