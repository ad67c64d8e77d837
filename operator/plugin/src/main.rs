//! `kubectl rqlite`: shows a cluster, restarts it, transfers leadership, opens a shell, and guides through a
//! recovery. All of it goes through the API server, with the user's permissions.
mod access;
mod act;
mod certificates;
mod clone;
mod drill;
mod manager;
mod node;
mod parked;
mod recover;
mod restore;
mod say;
mod statements;
mod status;
mod table;
mod target;
mod update;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use kube::{Client, Config, config::KubeConfigOptions};

use target::Target;

/// Examples in the help of `sql`.
const SQL_EXAMPLES: &str = "\
Examples:
  kubectl rqlite sql demo
  kubectl rqlite sql demo 'SELECT * FROM orders' '.tables'
  kubectl rqlite sql demo < schema.sql
  kubectl rqlite sql demo -- -t 5m -e 'DELETE FROM log'";

/// Shows and manages rqlite clusters.
#[derive(Debug, Parser)]
#[command(name = "kubectl-rqlite", bin_name = "kubectl rqlite", version)]
struct Arguments {
    #[command(flatten)]
    scope: Scope,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Scope {
    /// Namespace of the cluster. Defaults to the namespace of the context.
    #[arg(short, long, global = true)]
    namespace: Option<String>,
    /// Context of the kubeconfig. Defaults to the current context.
    #[arg(long, global = true)]
    context: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows members, roles, lag, disks and conditions. The exit code is 0 only if the cluster is Ready.
    Status {
        /// The cluster. Without it, the clusters of the namespace are listed.
        cluster: Option<String>,
        /// Ask the nodes as this user of the cluster, by its connection Secret, instead of as the operator.
        #[arg(long, short)]
        user: Option<String>,
    },
    /// Recovers a cluster that has permanently lost its quorum: shows what would be done and what may be
    /// lost, asks for confirmation, and follows the recovery to its end.
    Recover(recover::Options),
    /// Takes the cluster back to a moment or index of its archive: shows what is undone, asks for
    /// confirmation, and follows the restore to its end.
    Restore(restore::RestoreOptions),
    /// Makes a new cluster from another's archive, as of a moment or now.
    Clone(clone::CloneOptions),
    /// Makes a backup and waits for it, or lists the backups.
    Backup(restore::BackupOptions),
    /// Restores the archive in a pod now, to prove that it works, and waits for the result. The cluster goes
    /// on.
    Drill(drill::DrillOptions),
    /// Shows the archive.
    Archive {
        #[command(subcommand)]
        command: restore::ArchiveCommand,
    },
    /// Takes the pods back to the last template that worked, one at a time, the leader last. The spec is not
    /// changed; what it asks for is not tried again before it changes.
    Rollback {
        /// The cluster.
        cluster: String,
    },
    /// With management Manual: carries out the plan that the operator proposes.
    Approve {
        /// The cluster.
        cluster: String,
        /// Id of the plan, as status shows it. Without it, the plan is shown and nothing is approved.
        plan: Option<String>,
    },
    /// Moves the cluster to the operator's default image, once.
    UpdateImage {
        /// The cluster.
        cluster: String,
    },
    /// Restarts all nodes, one at a time, the leader last.
    Restart {
        /// The cluster.
        cluster: String,
    },
    /// Transfers leadership to another node.
    Promote {
        /// The cluster.
        cluster: String,
        /// The pod of the new leader.
        pod: String,
        /// Log in to the nodes as this user of the cluster, by its connection Secret, instead of as the
        /// operator.
        #[arg(long, short)]
        user: Option<String>,
    },
    /// Prints the address of the cluster with a user and its password, from the connection Secret.
    Credentials {
        /// The cluster.
        cluster: String,
        /// The user. Defaults to app, or the first one.
        #[arg(long, short)]
        user: Option<String>,
    },
    /// Shows the certificates, or asks for new ones. The exit code is 0 only if all are valid.
    Certificates(certificates::Options),
    /// Lists the copies of data that are parked on the volumes; fetches or deletes one.
    Parked(parked::Options),
    /// Runs SQL in the leader's pod by kubectl exec, or opens the shell `rqlite` there.
    ///
    /// Without statements it opens the shell; if standard input is no terminal, the statements are read from
    /// it. The first statement that fails ends it with exit code 1.
    #[command(after_help = SQL_EXAMPLES)]
    Sql {
        /// The cluster.
        cluster: String,
        /// Log in as this user of the cluster, by its connection Secret. Defaults to app, or the first one.
        #[arg(long, short)]
        user: Option<String>,
        /// Statements or commands of the shell, such as .tables. If the first one after -- begins with a
        /// dash, all are arguments for rqlite.
        #[arg(value_name = "SQL")]
        statements: Vec<String>,
    },
}

async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let scope = arguments.scope;
    let options = KubeConfigOptions {
        context: scope.context.clone(),
        ..KubeConfigOptions::default()
    };
    let config = match &scope.context {
        Some(_) => Config::from_kubeconfig(&options)
            .await
            .map_err(anyhow::Error::from),
        None => Config::infer().await.map_err(anyhow::Error::from),
    };
    let config = config.context("reading the kubeconfig (KUBECONFIG or ~/.kube/config)")?;
    let namespace = scope.namespace.unwrap_or(config.default_namespace.clone());
    let client = Client::try_from(config).context("creating the client of the API server")?;
    let target = |name: &str| Target {
        client: client.clone(),
        namespace: namespace.clone(),
        context: scope.context.clone(),
        name: name.to_owned(),
    };
    match arguments.command {
        Command::Status {
            cluster: Some(cluster),
            user,
        } => status::show(&target(&cluster), user.as_deref()).await,
        Command::Status { cluster: None, .. } => status::list(&target("")).await,
        Command::Recover(options) => recover::run(&target(&options.cluster), &options).await,
        Command::Restore(options) => restore::restore(&target(&options.cluster), &options).await,
        Command::Clone(options) => clone::clone(&target(&options.cluster), &options).await,
        Command::Backup(options) => restore::backup(&target(&options.cluster), &options).await,
        Command::Drill(options) => drill::run(&target(&options.cluster), &options).await,
        Command::Archive {
            command: restore::ArchiveCommand::List { cluster, user },
        } => restore::list(&target(&cluster), user.as_deref()).await,
        Command::Rollback { cluster } => update::rollback(&target(&cluster)).await,
        Command::Approve { cluster, plan } => {
            update::approve(&target(&cluster), plan.as_deref()).await
        }
        Command::UpdateImage { cluster } => update::move_image(&target(&cluster)).await,
        Command::Certificates(options) => {
            let target = target(&options.cluster);
            match options.rotated() {
                Some(what) => act::rotate(&target, what).await,
                None => certificates::show(&target).await,
            }
        }
        Command::Parked(options) => parked::run(&target(&options.cluster), &options).await,
        Command::Restart { cluster } => act::restart(&target(&cluster)).await,
        Command::Promote { cluster, pod, user } => {
            act::promote(&target(&cluster), &pod, user.as_deref()).await
        }
        Command::Credentials { cluster, user } => {
            let printed = access::print(&target(&cluster), user.as_deref()).await;
            printed.map(|()| ExitCode::SUCCESS)
        }
        Command::Sql {
            cluster,
            user,
            statements,
        } => act::sql(&target(&cluster), user.as_deref(), &statements).await,
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("kubectl rqlite: {}", say::line(&error));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line() {
        Arguments::command().debug_assert();
        let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
        let sql = parse("kubectl-rqlite sql demo -n shop -- -f json").unwrap();
        assert_eq!(sql.scope.namespace.as_deref(), Some("shop"));
        assert!(
            matches!(sql.command, Command::Sql { statements, .. } if statements == ["-f", "json"])
        );
        let sql = parse("kubectl-rqlite sql demo .tables -n shop").unwrap();
        assert!(
            matches!(sql.command, Command::Sql { statements, .. } if statements == [".tables"])
        );
        assert!(parse("kubectl-rqlite promote demo").is_err());
        assert!(parse("kubectl-rqlite status").is_ok(), "lists all");
    }
}
