//! Measures the operator's memory, processor time and requests with 50, 100 and 200 clusters, on a real API
//! server with simulated machines. Fails if it exceeds the memory limit, or if its usage grows faster than
//! the number of clusters.
//!
//! `cargo run --release -p e2e-operator --bin fleet -- OPERATOR [COUNT...]`
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e_operator::{
    api_server::ApiServer,
    fleet::{
        self, Clusters, NAMESPACE, machines,
        nodes::Nodes,
        operator::{Audit, Operator},
    },
    generated,
    operator_fixture::{self, ACCOUNT},
};

/// How long all clusters may take to become Ready.
const READY_LIMIT: Duration = Duration::from_secs(300);
/// Idle time before a measurement, in which reconciles after the last change complete.
const CALM: Duration = Duration::from_secs(15);
/// Duration of a measurement. Every idle cluster is reconciled at least once in it.
const WINDOW: Duration = Duration::from_secs(60);
/// Maximum memory in MB, for any number of clusters.
const MAX_MB: f64 = 150.0;
/// Maximum ratio of the usage per cluster between the largest and the smallest fleet.
const MAX_GROWTH: f64 = 1.25;

/// One line of the table.
#[derive(Clone, Copy, Debug)]
struct Row {
    clusters: usize,
    ready_seconds: f64,
    resident_mb: f64,
    peak_mb: f64,
    cpu_seconds: f64,
    requests: usize,
}

#[tokio::main]
async fn main() -> ExitCode {
    match measure().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fleet: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let program = PathBuf::from(args.next().context("usage: fleet OPERATOR [COUNT...]")?);
    let mut counts: Vec<usize> = args
        .map(|w| w.parse())
        .collect::<Result<_, _>>()
        .context("a number of clusters")?;
    if counts.is_empty() {
        counts = vec![50, 100, 200];
    }
    let mut api = ApiServer::start()?.context("run e2e/tools/build etcd kubernetes")?;
    api.start_controllers()?;
    let server = api.objects()?;
    operator_fixture::install(&server)?;
    server.run(&["create", "namespace", NAMESPACE])?;
    let admin = fleet::client(&api.kubeconfig("admin")).await?;
    let simulated = tokio::spawn(machines::simulate(admin.clone(), Nodes::new()));
    let clusters = Clusters::new(admin);
    let work = grow(&api, &program, &clusters, &counts);
    tokio::select! {
        result = work => result,
        ended = simulated => ended?.and_then(|()| anyhow::bail!("the machines stopped")),
    }
}

async fn grow(
    api: &ApiServer,
    program: &Path,
    clusters: &Clusters,
    counts: &[usize],
) -> Result<()> {
    let kubeconfig = api.account_kubeconfig(generated::NAMESPACE, ACCOUNT)?;
    let log =
        std::env::temp_dir().join(format!("rqlite-operator-fleet-{}.log", std::process::id()));
    println!("the operator's log: {}", log.display());
    let start = |log: &Path| Operator::start(program, &kubeconfig, generated::NAMESPACE, log);
    let mut operator = start(&log)?;
    let mut audit = Audit::of(&api.audit_log(), generated::NAMESPACE, ACCOUNT)?;
    let mut rows: Vec<Row> = Vec::new();
    println!("clusters  Ready after  memory  at most  CPU per min  requests per min  per cluster");
    for &count in counts {
        let there = rows.last().map_or(0, |row| row.clusters);
        let begun = Instant::now();
        clusters.create(there..count).await?;
        clusters
            .await_ready(READY_LIMIT)
            .await
            .with_context(|| format!("see {}", log.display()))?;
        let ready_seconds = begun.elapsed().as_secs_f64();
        tokio::time::sleep(CALM).await;
        requests(&mut audit)?;
        let before = operator.cost()?;
        tokio::time::sleep(WINDOW).await;
        let requests = requests(&mut audit)?;
        let after = operator.cost()?;
        let row = Row {
            clusters: count,
            ready_seconds,
            resident_mb: after.resident_mb,
            peak_mb: after.peak_mb,
            cpu_seconds: after.cpu_seconds - before.cpu_seconds,
            requests,
        };
        row.print();
        rows.push(row);
    }
    operator.stop()?;
    restart(
        start(&log)?,
        &mut audit,
        clusters,
        counts.iter().max().copied().unwrap_or(0),
    )
    .await?;
    check_limits(&rows)
}

/// Prints the requests since the last call and returns their number. Fails if one was forbidden.
fn requests(audit: &mut Audit) -> Result<usize> {
    let (asked, forbidden) = audit.since()?;
    ensure!(forbidden.is_empty(), "forbidden: {forbidden:#?}");
    Ok(asked.values().sum())
}

/// A new operator reconciles every cluster once and finds nothing to change.
async fn restart(
    mut operator: Operator,
    audit: &mut Audit,
    clusters: &Clusters,
    count: usize,
) -> Result<()> {
    requests(audit)?;
    let begun = Instant::now();
    let mut looked = 0;
    let mut asked_in_all = std::collections::BTreeMap::<String, usize>::new();
    while looked < count {
        ensure!(
            begun.elapsed() < READY_LIMIT,
            "after a restart, {looked} of {count} clusters were reconciled: {asked_in_all:#?}"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
        for (what, times) in audit.since()?.0 {
            *asked_in_all.entry(what).or_default() += times;
        }
        looked = asked_in_all.get("get rqliteclusters").copied().unwrap_or(0);
    }
    let cost = operator.cost()?;
    println!(
        "restart: {count} clusters reconciled after {:.1} s, {:.1} s CPU, {:.0} MB, {} requests",
        begun.elapsed().as_secs_f64(),
        cost.cpu_seconds,
        cost.peak_mb,
        asked_in_all.values().sum::<usize>()
    );
    let changes: Vec<_> = asked_in_all
        .keys()
        .filter(|what| what.starts_with("patch") || what.starts_with("create pods"))
        .collect();
    println!("restart: changed {changes:?}");
    clusters.await_ready(READY_LIMIT).await?;
    operator.stop()
}

impl Row {
    fn print(&self) {
        let clusters = self.clusters as f64;
        println!(
            "{:>8}  {:>9.1} s  {:>3.0} MB  {:>4.0} MB  {:>9.1} s  {:>16}  {:>11.1}",
            self.clusters,
            self.ready_seconds,
            self.resident_mb,
            self.peak_mb,
            self.cpu_seconds,
            self.requests,
            self.requests as f64 / clusters
        );
    }
}

fn check_limits(rows: &[Row]) -> Result<()> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
        return Ok(());
    };
    ensure!(
        last.peak_mb < MAX_MB,
        "{:.0} MB are more than {MAX_MB} MB",
        last.peak_mb
    );
    let per = |row: &Row, cost: f64| cost / row.clusters as f64;
    for (what, early, late) in [
        ("memory", per(first, first.peak_mb), per(last, last.peak_mb)),
        (
            "CPU",
            per(first, first.cpu_seconds),
            per(last, last.cpu_seconds),
        ),
        (
            "requests",
            per(first, first.requests as f64),
            per(last, last.requests as f64),
        ),
    ] {
        ensure!(
            late <= early * MAX_GROWTH,
            "{what} per cluster grew from {early:.3} to {late:.3}"
        );
    }
    println!("memory, CPU and requests grow no faster than the number of clusters");
    Ok(())
}
