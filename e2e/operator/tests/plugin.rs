//! `kubectl rqlite` on a real API server: what it reads and writes, and its errors.
use std::{process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::command::until;
use e2e_operator::{
    api_server::ApiServer,
    fleet::{self, Clusters, NAMESPACE, machines, nodes::Nodes},
    operator_fixture::OperatorFixture,
    product,
};

/// How long the cluster may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Exit code and complete output of the plugin.
fn plugin(fixture: &OperatorFixture, args: &[&str]) -> Result<(i32, String)> {
    let mut command = Command::new(product::built("kubectl-rqlite")?);
    command.env("KUBECONFIG", fixture.api.kubeconfig("admin"));
    command.args(args).args(["--namespace", NAMESPACE]);
    let output = command.output().context("run the plugin")?;
    let said = [output.stdout, output.stderr].concat();
    let code = output.status.code().context("it was ended")?;
    Ok((code, String::from_utf8_lossy(&said).into_owned()))
}

fn ensure_output(outcome: &(i32, String), code: i32, parts: &[&str]) -> Result<()> {
    let (ended, said) = outcome;
    ensure!(*ended == code, "exit code {ended}: {said}");
    for part in parts {
        ensure!(said.contains(part), "{part:?} is not in {said}");
    }
    Ok(())
}

fn status(fixture: &OperatorFixture) -> Result<()> {
    let page = plugin(fixture, &["status", "fleet-1"])?;
    let parts = [
        "fleet-1: Running, 3 of 3 voters ready, leader fleet-1-0, epoch 0",
        "managed by ",
        "MEMBER",
        "fleet-1-2",
        "Healthy",
        "10Gi",
        "CONDITION",
        "QuorumLost",
    ];
    ensure_output(&page, 0, &parts)?;
    println!("{}", page.1);
    let missing = plugin(fixture, &["status", "nobody"])?;
    ensure_output(
        &missing,
        1,
        &["reading the RqliteCluster nobody", NAMESPACE],
    )?;
    is_plain(&missing.1)?;
    let all = plugin(fixture, &["status"])?;
    ensure_output(&all, 0, &["CLUSTER", "fleet-0", "fleet-1"])
}

/// One line without Rust's own notation, each fact once.
fn is_plain(said: &str) -> Result<()> {
    for word in ["ApiError", "Status {", "Some(", "ErrorResponse"] {
        ensure!(!said.contains(word), "{word:?} is in {said}");
    }
    ensure!(said.matches("not found").count() == 1, "{said}");
    ensure!(said.trim_end().lines().count() == 1, "{said}");
    Ok(())
}

/// All pods are recreated, the leader last.
fn restart(fixture: &OperatorFixture) -> Result<()> {
    let pods = || -> Result<Vec<String>> {
        let args = [
            "get",
            "pods",
            "-n",
            NAMESPACE,
            "--selector=rqlite.dev/cluster=fleet-1",
        ];
        let mut all = args.to_vec();
        all.extend(["-o", "jsonpath={.items[*].metadata.uid}"]);
        let uids = fixture.server.run(&all)?;
        Ok(uids.split_whitespace().map(str::to_owned).collect())
    };
    let before = pods()?;
    ensure!(before.len() == 3, "{before:?}");
    ensure_output(
        &plugin(fixture, &["restart", "fleet-1"])?,
        0,
        &["restarts one node at a time"],
    )?;
    // Whoever waits for Ready from now on waits for the restart.
    let cluster = ["rqlitecluster", "fleet-1", "-n", NAMESPACE];
    let cluster = fixture.server.get(&cluster)?;
    let conditions = cluster["status"]["conditions"].as_array();
    let ready = conditions.and_then(|all| all.iter().find(|one| one["type"] == "Ready"));
    ensure!(
        ready.is_some_and(|one| one["status"] == "False"),
        "{ready:?}"
    );
    // The first pod shows that the operator has accepted the request. Machines are simulated, so each pod
    // takes 10 s to settle.
    until("a pod to be recreated", LIMIT, || {
        let now = pods()?;
        let old = before.iter().filter(|uid| now.contains(uid)).count();
        ensure!(old < 3 && now.len() == 3, "{old} of {now:?} are old");
        Ok(())
    })?;
    let cluster = fixture
        .server
        .get(&["rqlitecluster", "fleet-1", "-n", NAMESPACE])?;
    let leader = cluster["status"]["leader"].as_str().unwrap_or_default();
    ensure!(
        leader == "fleet-1-0",
        "the leader was not left for last: {leader}"
    );
    ensure_output(
        &plugin(fixture, &["restart", "nobody"])?,
        1,
        &["reading the RqliteCluster nobody"],
    )
}

/// Impossible requests are rejected before any node is contacted.
fn promote(fixture: &OperatorFixture) -> Result<()> {
    let same = plugin(fixture, &["promote", "fleet-0", "fleet-0-0"])?;
    ensure_output(&same, 0, &["fleet-0-0 is already the leader"])?;
    let other = plugin(fixture, &["promote", "fleet-0", "fleet-0-7"])?;
    let parts = [
        "fleet-0-7 is not a voter that could lead",
        "fleet-0-1, fleet-0-2",
    ];
    ensure_output(&other, 1, &parts)?;
    let reader = plugin(fixture, &["promote", "fleet-0", "fleet-0-ro-0"])?;
    ensure_output(&reader, 1, &["fleet-0-ro-0 is not a voter"])?;
    // Nodes are reached through the API server's proxy, which does not work without machines, so the test
    // only sees that the request was made.
    let asked = plugin(fixture, &["promote", "fleet-0", "fleet-0-1"])?;
    ensure_output(
        &asked,
        1,
        &["fleet-0-0 did not transfer leadership to fleet-0-1"],
    )
}

/// The quorum exists, so there is nothing to recover.
fn recover(fixture: &OperatorFixture) -> Result<()> {
    let refused = plugin(fixture, &["recover", "fleet-0", "--dry-run"])?;
    ensure_output(&refused, 1, &["Rejected"])?;
    println!("{}", refused.1);
    let nobody = plugin(fixture, &["recover", "nobody", "--dry-run"])?;
    ensure_output(&nobody, 1, &["reading the RqliteCluster nobody"])?;
    let without = plugin(fixture, &["recover", "fleet-0", "--yes"])?;
    ensure_output(&without, 1, &["--yes needs --reason", "Nothing was done"])
}

async fn all(fixture: &OperatorFixture) -> Result<()> {
    let client = fleet::client(&fixture.api.kubeconfig("admin")).await?;
    fixture.server.run(&["create", "namespace", NAMESPACE])?;
    let clusters = Clusters::new(client.clone());
    let simulated = tokio::spawn(machines::simulate(client, Nodes::new()));
    clusters.create(0..2).await?;
    clusters.await_ready(LIMIT).await?;
    let result = status(fixture)
        .and_then(|()| promote(fixture))
        .and_then(|()| recover(fixture))
        .and_then(|()| restart(fixture));
    ensure!(!simulated.is_finished(), "the machines stopped");
    simulated.abort();
    result
}

#[test]
fn it_does_what_it_says() -> Result<()> {
    let Some(fixture) = OperatorFixture::start()? else {
        return ApiServer::skip();
    };
    let runtime = tokio::runtime::Runtime::new()?;
    let result = runtime.block_on(all(&fixture));
    result.with_context(|| fixture.tail())
}
