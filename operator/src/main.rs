//! `rqlite-operator`: parses the command line and prints.
use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Parser, Subcommand};
use rqlite_operator::{
    cluster::{Observation, plan},
    definitions,
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
    /// Prints the custom resource definitions as YAML, or writes one file each.
    Crd {
        /// Write them here instead, one file for each kind.
        #[arg(long)]
        directory: Option<PathBuf>,
    },
    /// Prints what would be done for a captured observation (YAML or JSON). Changes nothing.
    Plan {
        /// The observation; - for standard input.
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Args::parse().command) {
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

fn run(command: Command) -> anyhow::Result<String> {
    match command {
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
            let seen: Observation = serde_yaml::from_str(&text)
                .with_context(|| format!("{} is not an observation", file.display()))?;
            Ok(serde_yaml::to_string(&plan(&seen))?)
        }
    }
}
