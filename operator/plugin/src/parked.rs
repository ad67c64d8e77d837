//! `kubectl rqlite parked`: what is parked on the volumes of a cluster; one copy fetched or deleted. It runs
//! `rqlited parked` in the pods by kubectl exec, and so with the user's permission to do that.
use std::{
    fs::File,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, bail, ensure};
use clap::Args;

use crate::{node::Nodes, table::table, target::Target};

/// Path of the data directory in a pod.
const DATA: &str = "/rqlite/data";

/// Arguments of `parked`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// The cluster.
    pub(crate) cluster: String,
    /// Saves a copy as a tar archive: a data directory for `rqlited inspect`.
    #[arg(
        long,
        value_name = "POD/COPY",
        requires = "output",
        conflicts_with = "drop"
    )]
    fetch: Option<String>,
    /// The file for --fetch.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Deletes a copy. This cannot be undone.
    #[arg(long, value_name = "POD/COPY")]
    drop: Option<String>,
}

pub(crate) async fn run(target: &Target, options: &Options) -> anyhow::Result<ExitCode> {
    let cluster = target.cluster().await?;
    let members = cluster.status.clone().unwrap_or_default().members;
    let of_cluster = |which: &str| {
        let Some((pod, copy)) = which.split_once('/') else {
            bail!(
                "{which}: write POD/COPY, as kubectl rqlite parked {} lists them",
                target.name
            );
        };
        ensure!(
            members.iter().any(|member| member.name == pod),
            "{pod} is no member of {}",
            target.name
        );
        Ok((pod.to_owned(), copy.to_owned()))
    };
    if let (Some(which), Some(output)) = (&options.fetch, &options.output) {
        let (pod, copy) = of_cluster(which)?;
        let file =
            File::create(output).with_context(|| format!("creating {}", output.display()))?;
        return exec(target, &pod, &["export", DATA, &copy], Stdio::from(file));
    }
    if let Some(which) = &options.drop {
        let (pod, copy) = of_cluster(which)?;
        return exec(target, &pod, &["drop", DATA, &copy], Stdio::inherit());
    }
    let nodes = Nodes::of(target, &cluster, None).await?;
    let mut rows = Vec::new();
    for member in &members {
        let status = match nodes.status(&member.name).await {
            Ok(status) => status,
            Err(error) => {
                eprintln!("{}: {error:#}", member.name);
                continue;
            }
        };
        for copy in status.store.parked.unwrap_or_default().copies {
            let note = match copy.may_hold_lost_writes {
                true => "may hold writes that a recovery has lost; kept until you drop it",
                false => "",
            };
            rows.push(vec![
                format!("{}/{}", member.name, copy.name),
                format!("{} MiB", copy.bytes >> 20),
                copy.parked_at,
                note.to_owned(),
            ]);
        }
    }
    if rows.is_empty() {
        println!("nothing is parked");
    } else {
        print!("{}", table(&["COPY", "SIZE", "PARKED", ""], &rows));
        println!();
    }
    Ok(ExitCode::SUCCESS)
}

fn exec(target: &Target, pod: &str, arguments: &[&str], output: Stdio) -> anyhow::Result<ExitCode> {
    let mut kubectl = Command::new("kubectl");
    if let Some(context) = &target.context {
        kubectl.arg(format!("--context={context}"));
    }
    let fixed = ["exec", "-n", &target.namespace, pod, "-c", "rqlited", "--"];
    kubectl
        .args(fixed)
        .args(["rqlited", "parked"])
        .args(arguments);
    let ended = kubectl.stdout(output).status();
    let ended = ended.context("starting kubectl: is it on the PATH?")?;
    let code = ended.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}
