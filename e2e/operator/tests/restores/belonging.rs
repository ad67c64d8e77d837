//! A restore is for one cluster, by uid: an older object does nothing to a later cluster of the same name.
use anyhow::{Result, ensure};
use e2e_operator::simulated::Simulated;
use serde_json::json;

use crate::{KIND, archive, asked, make, up_to_date};

/// Nothing that changes anything was asked of the nodes of this cluster.
fn untouched(place: &Simulated, cluster: &str) -> Result<()> {
    let (_, changes) = asked(place, cluster);
    ensure!(changes.is_empty(), "{cluster} was asked: {changes:?}");
    Ok(())
}

pub(crate) fn run(place: &Simulated) -> Result<()> {
    // Created before the cluster of that name: whoever wrote it cannot have meant this one.
    make(
        place,
        "too-early",
        &json!({"clusterRef": {"name": "later"}, "confirm": "later"}),
    )?;
    // Of a cluster that was deleted without what belongs to it, while the restore waited.
    place.nodes.archives("again", Some(up_to_date()));
    let first = place.cluster("again", &archive())?;
    place.patch(
        "rqlitecluster",
        "again",
        &json!({"spec": {"hibernated": true}}),
    )?;
    place.until("rqlitecluster", "again", |object| {
        ensure!(
            object["status"]["phase"] == "Hibernated",
            "{}",
            object["status"]["phase"]
        );
        Ok(())
    })?;
    make(
        place,
        "waits",
        &json!({"clusterRef": {"name": "again"}, "confirm": "again"}),
    )?;
    place.await_phase(KIND, "waits", "Pending", &["hibernated"])?;
    place.run(&[
        "delete",
        "rqlitecluster",
        "again",
        "--cascade=orphan",
        "--timeout=90s",
    ])?;
    for left in [
        "statefulset",
        "service",
        "configmap",
        "poddisruptionbudget",
        "networkpolicy",
        "serviceaccount",
    ] {
        place.run(&["delete", left, "-l", "rqlite.dev/cluster=again"])?;
    }
    place.run(&[
        "delete",
        "pvc",
        "-l",
        "rqlite.dev/cluster=again",
        "--wait=false",
    ])?;
    let second = place.cluster("again", &archive())?;
    ensure!(
        first["metadata"]["uid"] != second["metadata"]["uid"],
        "the same"
    );
    place.await_phase(
        KIND,
        "waits",
        "Rejected",
        &["earlier RqliteCluster", "Nothing was changed"],
    )?;
    untouched(place, "again")?;
    place.nodes.archives("later", Some(up_to_date()));
    place.cluster("later", &archive())?;
    let words = [
        "created before the present RqliteCluster later",
        "Nothing was changed",
    ];
    place.await_phase(KIND, "too-early", "Rejected", &words)?;
    let other = json!({"clusterRef": {"name": "later", "uid": second["metadata"]["uid"]}, "confirm": "later"});
    make(place, "other-uid", &other)?;
    place.await_phase(KIND, "other-uid", "Rejected", &["spec.clusterRef.uid is"])?;
    untouched(place, "later")?;
    // With its own uid it is carried out, and goes with its cluster.
    let own = place.get("rqlitecluster", "later")?["metadata"]["uid"].clone();
    let own = json!({"clusterRef": {"name": "later", "uid": own}, "confirm": "later"});
    make(place, "own", &own)?;
    place.await_phase(KIND, "own", "Succeeded", &["the database is as it was"])?;
    place.run(&["delete", "rqlitecluster", "later", "--timeout=90s"])?;
    place.await_gone(KIND, "own")
}
