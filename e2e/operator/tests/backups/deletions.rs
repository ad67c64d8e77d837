//! What is deleted with an RqliteBackup: its file if the policy says so, a Job that runs, nothing else.
use anyhow::{Context, Result, ensure};
use e2e_kubernetes::command::until;
use e2e_operator::simulated::{LIMIT, Simulated};
use serde_json::{Value, json};

use crate::{CONTAINER, KIND, good, job, spec};

fn deletes() -> Value {
    spec(&json!({"deletionPolicy": "Delete"}))
}

/// Makes a backup and ends it well.
fn made(place: &Simulated, name: &str, spec: &Value) -> Result<()> {
    place.make("RqliteBackup", name, spec)?;
    place.end_job_pod(&job(name), CONTAINER, &good(), true)?;
    place.await_phase(KIND, name, "Succeeded", &[]).map(drop)
}

fn delete(place: &Simulated, name: &str) -> Result<()> {
    place.run(&["delete", KIND, name, "--wait=false"]).map(drop)
}

/// The file goes first; a failure is reported, and its Job deleted begins another attempt.
fn with_its_file(place: &Simulated) -> Result<()> {
    made(place, "goes", &deletes())?;
    delete(place, "goes")?;
    let pod = place.job_pod("goes-delete")?;
    let args = pod["spec"]["containers"][0]["args"].to_string();
    ensure!(args.contains("-delete") && !args.contains("-url"), "{args}");
    place.await_phase(KIND, "goes", "Deleting", &["being deleted from the store"])?;
    for _ in 0..4 {
        place.end_job_pod("goes-delete", CONTAINER, "AccessDenied: no delete", false)?;
    }
    let words = [
        "could not be deleted",
        "AccessDenied: no delete",
        "Delete the Job goes-delete",
        "rqlite.dev/abandon-object",
    ];
    place.await_phase(KIND, "goes", "Deleting", &words)?;
    place.run(&["delete", "job", "goes-delete"])?;
    place.end_job_pod("goes-delete", CONTAINER, "{}", true)?;
    place.await_gone(KIND, "goes")
}

/// A store that is gone: the annotation lets the object go.
fn abandoned(place: &Simulated) -> Result<()> {
    made(place, "left", &deletes())?;
    delete(place, "left")?;
    place.job_pod("left-delete")?;
    place.run(&["annotate", KIND, "left", "rqlite.dev/abandon-object=true"])?;
    place.await_gone(KIND, "left")
}

/// By default the file stays, and nothing is asked of the store.
fn retained(place: &Simulated) -> Result<()> {
    made(place, "stays", &spec(&json!({})))?;
    delete(place, "stays")?;
    place.await_gone(KIND, "stays")?;
    ensure!(
        place.get("job", "stays-delete").is_err(),
        "a Job deletes it"
    );
    Ok(())
}

/// One that runs is stopped before its file is deleted: nothing is written after that.
fn while_it_runs(place: &Simulated) -> Result<()> {
    place.make("RqliteBackup", "runs", &deletes())?;
    place.job_pod(&job("runs"))?;
    delete(place, "runs")?;
    place.job_pod("runs-delete")?;
    let job = place.run(&[
        "get",
        "job",
        "runs-backup",
        "--ignore-not-found",
        "-o",
        "json",
    ])?;
    ensure!(job.is_empty(), "it still runs: {job}");
    place.end_job_pod("runs-delete", CONTAINER, "{}", true)?;
    place.await_gone(KIND, "runs")
}

/// A backup of a cluster that is gone, whose file is to be deleted with it, of a class of operators.
fn left_over(place: &Simulated, namespace: &str, name: &str, class: Option<&str>) -> Result<()> {
    let server = &place.fixture.server;
    let mut spec = deletes();
    spec["clusterRef"]["name"] = "former".into();
    let backup = json!({"apiVersion": "rqlite.dev/v1alpha1", "kind": "RqliteBackup",
        "metadata": {"name": name, "finalizers": ["rqlite.dev/backup"]}, "spec": spec});
    server.send(&["create", "-n", namespace], &backup)?;
    let status = json!({"status": {"phase": "Succeeded", "target": crate::target(),
        "object": "backups/shop/old.sqlite", "operatorClass": class}});
    let status = status.to_string();
    let args = [
        "patch",
        KIND,
        name,
        "-n",
        namespace,
        "--subresource=status",
        "--type=merge",
        "-p",
        &status,
    ];
    server.run(&args).map(drop)
}

/// A namespace that is deleted is not held up: no Job can be created in it. Nor is it by what operators of
/// another class look after, who may be gone.
fn with_the_namespace(place: &Simulated) -> Result<()> {
    let server = &place.fixture.server;
    server.run(&["create", "namespace", "ending"])?;
    left_over(place, "ending", "old", None)?;
    left_over(place, "ending", "theirs", Some("second"))?;
    server.run(&["delete", "namespace", "ending", "--wait=false"])?;
    until("the namespace to be gone", LIMIT * 2, || {
        let found = server.run(&[
            "get",
            "namespace",
            "ending",
            "--ignore-not-found",
            "-o",
            "yaml",
        ])?;
        ensure!(found.is_empty(), "{found}");
        Ok(())
    })
}

/// Without its cluster, a backup is its class's: others delete no file, but let go what nothing holds.
fn of_another_class(place: &Simulated) -> Result<()> {
    left_over(place, "fleet", "theirs", Some("second"))?;
    left_over(place, "fleet", "ours", None)?;
    delete(place, "theirs")?;
    delete(place, "ours")?;
    place.end_job_pod("ours-delete", CONTAINER, "{}", true)?;
    place.await_gone(KIND, "ours")?;
    ensure!(place.get("job", "theirs-delete").is_err(), "a Job");
    place.get(KIND, "theirs").context("it is gone")?;
    let retain = json!({"spec": {"deletionPolicy": "Retain"}});
    place.patch(KIND, "theirs", &retain)?;
    place.await_gone(KIND, "theirs")
}

/// A cluster that is gone: its backups stay, and their files can be deleted.
fn after_the_cluster(place: &Simulated) -> Result<()> {
    place.cluster("brief", &json!({"replicas": 1}))?;
    let mut spec = deletes();
    spec["clusterRef"]["name"] = "brief".into();
    made(place, "outlives", &spec)?;
    place.run(&["delete", "rqlitecluster", "brief", "--timeout=90s"])?;
    place.await_phase(KIND, "outlives", "Succeeded", &[])?;
    delete(place, "outlives")?;
    let pod = place.job_pod("outlives-delete")?;
    let image = pod["spec"]["containers"][0]["image"].as_str();
    ensure!(image.is_some_and(|image| !image.is_empty()), "no image");
    place.end_job_pod("outlives-delete", CONTAINER, "{}", true)?;
    place.await_gone(KIND, "outlives")
}

pub(crate) fn run(place: &Simulated) -> Result<()> {
    with_its_file(place).context("Delete")?;
    abandoned(place).context("abandoned")?;
    retained(place).context("Retain")?;
    while_it_runs(place).context("while it runs")?;
    with_the_namespace(place).context("with its namespace")?;
    of_another_class(place).context("of another class")?;
    after_the_cluster(place).context("after its cluster")
}
