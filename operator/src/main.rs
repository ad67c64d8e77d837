//! The program `rqlite-operator`: parses the command line, and runs the operator or prints.
use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Parser, Subcommand};
use kube::{Api, Client};
use operator_api::RqliteCluster;
use rqlite_operator::{
    carried::CarriedState,
    cluster::{Observation, plan},
    definitions, evidence, farewell,
    live::Live,
    metrics::Metrics,
    node_client::Http,
    observe,
    run::{self, Options},
    secrets, yaml,
};

/// Runs rqlite clusters on Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "rqlite-operator", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the operator until SIGTERM or Ctrl-C.
    Run(Box<Options>),
    /// After the operator was uninstalled: says so in the clusters' statuses and deletes its Lease.
    Farewell(farewell::Options),
    /// Prints the custom resource definitions as YAML, or writes one file each.
    Crd {
        /// Directory to write one file per kind to, instead of standard output.
        #[arg(long)]
        directory: Option<PathBuf>,
    },
    /// Prints the plan for a captured observation (YAML or JSON). Changes nothing.
    Plan {
        /// File with the observation; - for standard input.
        file: PathBuf,
    },
    /// Observes a cluster as the operator would and prints the observation as YAML, for `plan` and for bug
    /// reports. Changes nothing.
    Observe {
        /// The cluster, as NAMESPACE/NAME.
        cluster: String,
        #[command(flatten)]
        options: Box<Options>,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    match execute(Args::parse().command).await {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("rqlite-operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn execute(command: Command) -> anyhow::Result<String> {
    match command {
        Command::Run(options) => run::run(*options).await.map(|()| String::new()),
        Command::Farewell(options) => farewell::run(options).await,
        Command::Crd { directory: None } => {
            let texts = definitions::files()?.into_iter().map(|(_, text)| text);
            Ok(texts.collect::<Vec<_>>().join("---\n"))
        }
        Command::Crd {
            directory: Some(directory),
        } => {
            let context = || format!("writing to {}", directory.display());
            fs::create_dir_all(&directory).with_context(context)?;
            for (name, text) in definitions::files()? {
                fs::write(directory.join(name), text).with_context(context)?;
            }
            Ok(String::new())
        }
        Command::Plan { file } => {
            let text = if file.as_os_str() == "-" {
                std::io::read_to_string(std::io::stdin())?
            } else {
                fs::read_to_string(&file).with_context(|| file.display().to_string())?
            };
            let observation: Observation = yaml::read(&text)
                .with_context(|| format!("{} is not an observation", file.display()))?;
            yaml::write(&plan(&observation))
        }
        Command::Observe { cluster, options } => print_observation(&cluster, &options).await,
    }
}

async fn print_observation(cluster: &str, options: &Options) -> anyhow::Result<String> {
    let (namespace, name) = cluster
        .split_once('/')
        .with_context(|| format!("{cluster:?} is not of the form NAMESPACE/NAME"))?;
    let metrics = Metrics::default();
    let client: Client = run::client(&metrics).await?;
    let api: Api<RqliteCluster> = Api::namespaced(client.clone(), namespace);
    let cluster = api.get(name).await.with_context(|| cluster.to_owned())?;
    let mut live = Live::read(&client, &cluster).await?;
    live.events = evidence::read(&client, namespace, &live, &evidence::Known::default()).await;
    let environment = options.environment(
        client.default_namespace().to_owned(),
        options.platform(&client).await,
    );
    let nodes = Http::new(metrics);
    // Contents are not printed. Whoever may not read Secrets gets an observation without them.
    let secrets = secrets::read(&client, &cluster).await.unwrap_or_default();
    let domain = &environment.operator.platform.cluster_domain;
    let pods = observe::addresses(&cluster, &live, &environment);
    nodes.accesses().note(&cluster, domain, &pods, &secrets);
    let carried = CarriedState {
        secrets,
        ..CarriedState::default()
    };
    let observation = observe::observe(cluster, &live, &nodes, &environment, carried).await;
    yaml::write(&observation)
}
