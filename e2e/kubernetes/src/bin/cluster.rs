//! Test clusters from the command line: `cluster [--provider local|kind] up 3`, and so on; see [`USAGE`].
use std::{io::Write, path::Path, process::ExitCode, time::Instant};

use anyhow::{Context, Result, bail};
use e2e_kubernetes::{
    local::{layout::Layout, removal},
    probe::{self, Kubectl},
    provider::Provider,
    providers, tools,
};

const USAGE: &str = "\
usage: cluster [--provider local|kind] COMMAND     (E2E_PROVIDER sets the provider; default local)
  up [NODES]        create a cluster with this many nodes (default 3), all Ready; print `export KUBECONFIG=...`
  down              remove it, also after a crash, and check that nothing is left
  load IMAGE.tar    load an image (docker-archive) onto every node
  cut NODE          take a node off the network
  heal NODE         reconnect a node
  restart-dns       restart the cluster's DNS
  growing-volumes   start a storage driver whose volumes grow (StorageClasses growing, growing-when-stopped)
  check             check what the product needs: names, volumes, Services
  status            show what is running, and what a killed run has left
  kubeconfig        print the path of the administrator's kubeconfig
  kubectl ARGS...   run kubectl on it";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match carry_out(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(args: &[String]) -> Result<()> {
    let mut args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut name = std::env::var("E2E_PROVIDER").unwrap_or_else(|_| "local".to_owned());
    if args.first() == Some(&"--provider") {
        name = (*args.get(1).context(USAGE)?).to_owned();
        args.drain(..2);
    }
    let cluster = providers::named(&name)?;
    let start = Instant::now();
    let done = |what: &str| eprintln!("{what} in {:.1} s", start.elapsed().as_secs_f64());
    match args[..] {
        ["up"] => up(cluster.as_ref(), "3").map(|()| done("3 nodes Ready")),
        ["up", nodes] => {
            up(cluster.as_ref(), nodes).map(|()| done(&format!("{nodes} nodes Ready")))
        }
        ["down"] => cluster.down().map(|()| done("nothing is left")),
        ["load", archive] => cluster.load(Path::new(archive)).map(|()| done("loaded")),
        ["cut", node] => cluster.cut(node),
        ["heal", node] => cluster.heal(node),
        ["restart-dns"] => cluster.restart_dns().map(|()| done("DNS is back")),
        ["growing-volumes"] => {
            let started = cluster.start_growing_volumes()?;
            anyhow::ensure!(started, "the provider {name} has none");
            Ok(())
        }
        ["check"] => {
            let kubectl = Kubectl::new(&cluster.kubeconfig())?;
            probe::check(&kubectl)?;
            probe::remove(&kubectl)
        }
        ["status"] => status(&name, cluster.as_ref()),
        ["kubeconfig"] => {
            println!("{}", cluster.kubeconfig().display());
            Ok(())
        }
        ["kubectl", ..] => kubectl(cluster.as_ref(), &args[1..]),
        _ => bail!("{USAGE}"),
    }
}

fn up(cluster: &dyn Provider, nodes: &str) -> Result<()> {
    let nodes = nodes
        .parse()
        .with_context(|| format!("{nodes:?} is no number of nodes"))?;
    cluster.up(nodes)?;
    println!("export KUBECONFIG={}", cluster.kubeconfig().display());
    Ok(())
}

fn status(name: &str, cluster: &dyn Provider) -> Result<()> {
    if name == "local" {
        let found = removal::leftovers(&Layout::new(tools::state(name)?))?;
        println!("on this machine: {} things", found.len());
        found.iter().for_each(|thing| println!("  {thing}"));
    }
    if cluster.kubeconfig().exists() {
        println!("logs: {}", cluster.logs().display());
        return kubectl(cluster, &["get", "nodes", "-o", "wide"]);
    }
    println!("no cluster is up");
    Ok(())
}

fn kubectl(cluster: &dyn Provider, args: &[&str]) -> Result<()> {
    let said = Kubectl::new(&cluster.kubeconfig())?.run(args)?;
    // `print!` would panic if the reader closes the pipe (`| head`).
    let _ = std::io::stdout().write_all(said.as_bytes());
    Ok(())
}
