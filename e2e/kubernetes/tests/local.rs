//! The local provider creates a working cluster, repeatedly, and leaves nothing behind, also when it is
//! killed.
//!
//! Takes root, the packages of `.ci/install` and minutes, so it runs only under `CI=true` or
//! `E2E_KUBERNETES=1`; otherwise it is skipped with a message. It removes the machine's only local cluster,
//! whoever created it.
use std::{
    fs::File,
    io::Write,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::{
    command::until,
    local::{Local, layout::Layout, removal},
    probe::{self, Kubectl},
    provider::Provider,
    tools,
};

/// How long it may take until a partly built cluster is detected.
const LIMIT: Duration = Duration::from_secs(60);
const CLUSTER: &str = env!("CARGO_BIN_EXE_cluster");

fn is_asked_for() -> bool {
    let set = |name| std::env::var(name).is_ok_and(|value| value == "1" || value == "true");
    if set("CI") || set("E2E_KUBERNETES") {
        return true;
    }
    // Written past the capture of test output: a skipped test must be visible.
    let line =
        "SKIPPED, NOT TESTED: a real cluster; as root, run .ci/install and set E2E_KUBERNETES=1\n";
    let _ = std::io::stderr().write_all(line.as_bytes());
    false
}

fn leftovers() -> Result<Vec<String>> {
    removal::leftovers(&Layout::new(tools::state("local")?))
}

fn is_nothing_left() -> Result<()> {
    let left = leftovers()?;
    ensure!(left.is_empty(), "left: {left:#?}");
    Ok(())
}

fn timed<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let done = work()?;
    println!("{what}: {:.1} s", start.elapsed().as_secs_f64());
    Ok(done)
}

#[test]
fn a_cluster_comes_works_and_goes() -> Result<()> {
    if !is_asked_for() {
        return Ok(());
    }
    // There is one cluster per machine, so another run of this test waits.
    let turn = File::create(std::env::temp_dir().join("rqlited-e2e-local-test.lock"))?;
    turn.lock()?;
    let cluster = Local::new()?;
    for _ in 1..=2 {
        cluster.down()?;
        timed("from nothing to three nodes Ready", || cluster.up(3))?;
        let kubectl = Kubectl::new(&cluster.kubeconfig())?;
        probe::check(&kubectl)?;
        a_cut_node_is_lost_and_comes_back(&cluster, &kubectl)?;
        timed("restarting DNS", || cluster.restart_dns())?;
        probe::names(&kubectl)?;
        timed("`up` of a cluster that is up", || cluster.up(3))?;
        timed("removing volumes", || probe::remove(&kubectl))?;
        timed("`down`", || cluster.down())?;
        is_nothing_left()?;
    }
    killed_runs_are_cleaned_up(&cluster)
}

fn a_cut_node_is_lost_and_comes_back(cluster: &Local, kubectl: &Kubectl) -> Result<()> {
    let node = probe::node(kubectl)?;
    let is = |state: &str| {
        let condition = format!("--for=condition=Ready={state}");
        kubectl.run(&["wait", &condition, &format!("node/{node}"), "--timeout=90s"])
    };
    cluster.cut(&node)?;
    timed("until a cut node counts as lost", || is("Unknown"))?;
    cluster.heal(&node)?;
    timed("until a healed node is Ready", || is("True"))?;
    probe::await_pod(kubectl)?;
    let error = cluster.cut("node-4").err().context("there is no node-4")?;
    assert_eq!(
        error.to_string(),
        "there is no node \"node-4\": they are node-1 to node-3"
    );
    Ok(())
}

/// Kills `up` at two points; the remains are detected, and the next `down` or `up` removes them.
fn killed_runs_are_cleaned_up(cluster: &Local) -> Result<()> {
    for half_built in ["rqk0", "containerd"] {
        let mut up = Command::new(CLUSTER)
            .args(["--provider", "local", "up", "2"])
            .stdout(Stdio::null())
            .spawn()
            .context("start the command")?;
        until("a half-built cluster", LIMIT, || {
            let left = leftovers()?;
            ensure!(
                left.iter().any(|thing| thing.ends_with(half_built)),
                "{left:?}"
            );
            Ok(())
        })?;
        up.kill()?;
        up.wait()?;
        println!("killed with {} things there", leftovers()?.len());
        ensure!(is_nothing_left().is_err(), "the kill left nothing to clean");
        if half_built == "containerd" {
            timed("one node Ready after a killed run", || cluster.up(1))?;
        }
        cluster.down()?;
        is_nothing_left()?;
    }
    Ok(())
}
