//! A cluster that begins with another's archive, as the operator makes one: one voter restores, is not ready
//! before, says what it restored, archives below the same prefix in a lineage of its own; then it restarts
//! without the flag, and others join.
use anyhow::{Result, ensure};
use e2e::{
    archive::{self, Archive, content, ensure_equal},
    cluster::Cluster,
    membership::cluster_id,
    process::Node,
};
use serde_json::{Value, json};

/// A node that keeps this archive, and has written to it.
fn source(archive: &Archive) -> Result<Cluster> {
    let mut cluster = Cluster::start(1)?;
    cluster[0].stop()?;
    cluster[0].args.extend(archive.flags());
    cluster[0].start_and_ready()?;
    for sql in [
        "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)",
        "INSERT INTO t(b) VALUES('one'), ('two'), ('three')",
    ] {
        cluster.client(0).execute(sql, &[])?;
    }
    archive::await_archived(&mut cluster)?;
    Ok(cluster)
}

fn status(cluster: &Cluster) -> Result<Value> {
    cluster.client(0).get_json("/status")
}

#[test]
fn a_cluster_begins_with_anothers_archive_in_a_lineage_of_its_own() -> Result<()> {
    let archive = Archive::in_folder(&json!({"every": "100ms", "base_interval": "1h"}))?;
    let old = source(&archive)?;
    let was = status(&old)?;
    let before = content(&archive::live(&old, 0, &archive.scratch().join("before"))?)?;
    let config = archive.auto_restore(&json!({}))?;
    let restore = format!("-auto-restore={}", config.display());
    let keeps = archive.flags();
    let flags: Vec<&str> = keeps.iter().map(String::as_str).collect();
    let mut node = Node::new("new")?.with(&[&flags[..], &[restore.as_str()]].concat());
    node.start_and_ready()?;
    let mut new = Cluster::of(vec![node]);
    let now = status(&new)?;
    let reported = &now["auto_restore"];
    ensure!(reported["state"] == "restored", "{reported}");
    ensure!(
        reported["index"].as_u64() > Some(0) && reported["bytes"].as_u64() > Some(0),
        "{reported}"
    );
    ensure!(
        reported["source"]
            .as_str()
            .is_some_and(|text| text.contains("archive")),
        "{reported}"
    );
    let lineage = |status: &Value| status["store"]["identity"]["lineage"].clone();
    ensure!(reported["lineage"] == lineage(&was)["id"], "{reported}");
    ensure!(
        lineage(&was) != lineage(&now),
        "both write in {}",
        lineage(&now)
    );
    ensure!(cluster_id(&old[0])? != cluster_id(&new[0])?, "one cluster");
    new.client(0)
        .execute("INSERT INTO t(b) VALUES('four')", &[])?;
    archive::await_archived(&mut new)?;
    let folders = archive.lineages()?;
    ensure!(folders.len() == 2, "{folders:?}");
    let untouched = content(&archive::live(
        &old,
        0,
        &archive.scratch().join("untouched"),
    )?)?;
    ensure_equal("the source", &before, &untouched)?;
    // Without the flag it is a node as any other.
    new[0].stop()?;
    new[0].args.retain(|arg| !arg.starts_with("-auto-restore"));
    new[0].start_and_ready()?;
    let again = status(&new)?;
    ensure!(
        again.get("auto_restore").is_none(),
        "{}",
        again["auto_restore"]
    );
    new.join(Node::new("second")?, 0)?;
    let rows = new.agreed_rows("SELECT group_concat(b) FROM t")?;
    ensure!(rows.contains("one,two,three,four"), "{rows}");
    Ok(())
}
