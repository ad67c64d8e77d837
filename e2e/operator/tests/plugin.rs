//! `kubectl rqlite` on a real API server: what it reads and writes, and its errors.
use std::{process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::command::until;
use e2e_operator::{
    api_server::ApiServer,
    crowd::{self, Clusters, NAMESPACE, machines, nodes::Nodes},
    product,
    stage::Stage,
};

/// How long the cluster may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Exit code and complete output of the plugin.
fn plugin(stage: &Stage, words: &[&str]) -> Result<(i32, String)> {
    let mut command = Command::new(product::built("kubectl-rqlite")?);
    command.env("KUBECONFIG", stage.api.kubeconfig("admin"));
    command.args(words).args(["--namespace", NAMESPACE]);
    let output = command.output().context("run the plugin")?;
    let said = [output.stdout, output.stderr].concat();
    let code = output.status.code().context("it was ended")?;
    Ok((code, String::from_utf8_lossy(&said).into_owned()))
}

fn says(outcome: &(i32, String), code: i32, parts: &[&str]) -> Result<()> {
    let (ended, said) = outcome;
    ensure!(*ended == code, "exit code {ended}: {said}");
    for part in parts {
        ensure!(said.contains(part), "{part:?} is not in {said}");
    }
    Ok(())
}

fn status(stage: &Stage) -> Result<()> {
    let page = plugin(stage, &["status", "crowd-1"])?;
    let parts = [
        "crowd-1: Running, 3 of 3 voters ready, leader crowd-1-0, epoch 0",
        "MEMBER",
        "crowd-1-2",
        "Healthy",
        "10Gi",
        "CONDITION",
        "QuorumLost",
    ];
    says(&page, 0, &parts)?;
    println!("{}", page.1);
    let missing = plugin(stage, &["status", "nobody"])?;
    says(
        &missing,
        1,
        &["reading the RqliteCluster nobody", NAMESPACE],
    )
}

/// All pods are recreated, the leader last.
fn restart(stage: &Stage) -> Result<()> {
    let pods = || -> Result<Vec<String>> {
        let words = [
            "get",
            "pods",
            "-n",
            NAMESPACE,
            "--selector=rqlite.dev/cluster=crowd-1",
        ];
        let mut all = words.to_vec();
        all.extend(["-o", "jsonpath={.items[*].metadata.uid}"]);
        let uids = stage.server.ask(&all)?;
        Ok(uids.split_whitespace().map(str::to_owned).collect())
    };
    let before = pods()?;
    ensure!(before.len() == 3, "{before:?}");
    says(
        &plugin(stage, &["restart", "crowd-1"])?,
        0,
        &["restarts one node at a time"],
    )?;
    // The first pod shows that the operator has accepted the request. Machines are simulated, so each pod
    // takes 10 s to settle.
    until("a pod to be made anew", LIMIT, || {
        let now = pods()?;
        let old = before.iter().filter(|uid| now.contains(uid)).count();
        ensure!(old < 3 && now.len() == 3, "{old} of {now:?} are old");
        Ok(())
    })?;
    let cluster = stage
        .server
        .get(&["rqlitecluster", "crowd-1", "-n", NAMESPACE])?;
    let leader = cluster["status"]["leader"].as_str().unwrap_or_default();
    ensure!(
        leader == "crowd-1-0",
        "the leader was not left for last: {leader}"
    );
    says(
        &plugin(stage, &["restart", "nobody"])?,
        1,
        &["writing the annotation to nobody"],
    )
}

/// Impossible requests are rejected before any node is contacted.
fn promote(stage: &Stage) -> Result<()> {
    let same = plugin(stage, &["promote", "crowd-0", "crowd-0-0"])?;
    says(&same, 0, &["crowd-0-0 leads already"])?;
    let other = plugin(stage, &["promote", "crowd-0", "crowd-0-7"])?;
    let parts = [
        "crowd-0-7 is not a voter that could lead",
        "crowd-0-1, crowd-0-2",
    ];
    says(&other, 1, &parts)?;
    let reader = plugin(stage, &["promote", "crowd-0", "crowd-0-ro-0"])?;
    says(&reader, 1, &["crowd-0-ro-0 is not a voter"])?;
    // Nodes are reached through the API server's proxy, which does not work without machines, so the test
    // only sees that the request was made.
    let asked = plugin(stage, &["promote", "crowd-0", "crowd-0-1"])?;
    says(&asked, 1, &["crowd-0-0 does not hand over to crowd-0-1"])
}

/// The quorum exists, so there is nothing to recover.
fn recover(stage: &Stage) -> Result<()> {
    let refused = plugin(stage, &["recover", "crowd-0", "--dry-run"])?;
    says(&refused, 1, &["Rejected"])?;
    println!("{}", refused.1);
    let nobody = plugin(stage, &["recover", "nobody", "--dry-run"])?;
    says(&nobody, 1, &["reading the RqliteCluster nobody"])
}

async fn all(stage: &Stage) -> Result<()> {
    let client = crowd::client(&stage.api.kubeconfig("admin")).await?;
    stage.server.ask(&["create", "namespace", NAMESPACE])?;
    let clusters = Clusters::new(client.clone());
    let played = tokio::spawn(machines::play(client, Nodes::new()));
    clusters.create(0..2).await?;
    clusters.await_ready(LIMIT).await?;
    let result = status(stage)
        .and_then(|()| promote(stage))
        .and_then(|()| recover(stage))
        .and_then(|()| restart(stage));
    ensure!(!played.is_finished(), "the machines stopped");
    played.abort();
    result
}

#[test]
fn it_does_what_it_says() -> Result<()> {
    let Some(stage) = Stage::start()? else {
        return ApiServer::skip();
    };
    let runtime = tokio::runtime::Runtime::new()?;
    let result = runtime.block_on(all(&stage));
    result.with_context(|| stage.tail())
}
