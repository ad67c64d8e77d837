//! `kubectl rqlite restore`, `backup` and `archive list`: restores in place after a dry run and a typed
//! confirmation; makes a backup; shows the state of the archive.
use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use kube::{
    Api, ResourceExt,
    api::{ListParams, PostParams},
};
use node_contract::status::ArchiveStatus;
use operator_api::{
    Moment, RqliteBackup, RqliteBackupSpec, RqliteCluster, RqliteRestore, RqliteRestoreSpec,
    RqliteRestoreStatus,
    backup::BackupPhase,
    recovery::ClusterRef,
    restore::RestorePhase,
    status::{ARCHIVING, BACKUPS_PROVEN},
};

use crate::{manager, node::Nodes, say, table::table, target::Target};

/// Interval of reading an object.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// A point of an archive.
#[derive(Clone, Debug, Args)]
pub(crate) struct Point {
    /// The last state at this time, such as 2026-11-29T08:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = say::moment)]
    pub(crate) to_time: Option<Moment>,
    /// The state after this Raft index.
    #[arg(long, value_name = "INDEX", conflicts_with = "to_time", value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) to_index: Option<i64>,
    /// Id of the lineage of the point, if the archive has several.
    #[arg(long, value_name = "ID")]
    pub(crate) lineage: Option<String>,
}

/// Arguments of `restore`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RestoreOptions {
    /// The cluster.
    pub(crate) cluster: String,
    #[command(flatten)]
    point: Point,
    /// Only show what would be undone.
    #[arg(long)]
    dry_run: bool,
    /// Why, for the record.
    #[arg(long)]
    reason: Option<String>,
    /// Do not ask for confirmation: undo what was written after the point. Needs --reason.
    #[arg(long)]
    yes: bool,
}

/// Arguments of `backup`.
#[derive(Clone, Debug, Args)]
pub(crate) struct BackupOptions {
    /// The cluster.
    pub(crate) cluster: String,
    /// List the backups of the cluster instead of making one.
    #[arg(long)]
    list: bool,
    /// Name of the RqliteBackup. Defaults to a new one.
    #[arg(long, conflicts_with = "list")]
    name: Option<String>,
    /// Do not wait for its end.
    #[arg(long, conflicts_with = "list")]
    no_wait: bool,
}

/// What to do with an archive.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ArchiveCommand {
    /// Shows how far the archive is and whether it is proven.
    List {
        /// The cluster.
        cluster: String,
        /// Ask the leader as this user of the cluster, by its connection Secret, instead of as the operator.
        #[arg(long, short)]
        user: Option<String>,
    },
}

fn restore_object(
    options: &RestoreOptions,
    cluster_uid: Option<String>,
    dry_run: bool,
    to_index: Option<i64>,
    reason: Option<String>,
) -> RqliteRestore {
    let index = to_index.or(options.point.to_index);
    let spec = RqliteRestoreSpec {
        cluster_ref: ClusterRef {
            name: options.cluster.clone(),
            uid: cluster_uid,
        },
        to_time: options.point.to_time.clone().filter(|_| index.is_none()),
        to_index: index,
        lineage: options.point.lineage.clone(),
        confirm: (!dry_run).then(|| options.cluster.clone()),
        dry_run,
        timeout: None,
        reason,
        ttl_seconds_after_finished: None,
    };
    let mut object = RqliteRestore::new("", spec);
    object.metadata.name = None;
    object.metadata.generate_name = Some(format!("{}-", options.cluster));
    object
}

/// Takes a cluster back to a point of its archive.
pub(crate) async fn restore(target: &Target, options: &RestoreOptions) -> anyhow::Result<ExitCode> {
    if options.point.to_time.is_none() && options.point.to_index.is_none() {
        bail!(
            "say to which point: --to-time 2026-11-29T08:00:00Z or --to-index N. Nothing was done"
        );
    }
    let given = options
        .reason
        .clone()
        .filter(|text| !text.trim().is_empty());
    if options.yes && !options.dry_run && given.is_none() {
        bail!(
            "--yes needs --reason: say why, for the record, such as --reason 'orders were deleted'. Nothing was done"
        );
    }
    if !options.yes && !options.dry_run && !std::io::stdin().is_terminal() {
        bail!(
            "standard input is no terminal to confirm at: use --dry-run to look, or --yes with --reason. Nothing was done"
        );
    }
    let cluster = target.cluster().await?;
    if let Some(unmanaged) = manager::unmanaged(&cluster) {
        bail!("nothing would restore {}: {unmanaged}", target.name);
    }
    let api: Api<RqliteRestore> = Api::namespaced(target.client.clone(), &target.namespace);
    let look = restore_object(options, cluster.uid(), true, None, given.clone());
    let found = create_and_follow(&api, &look).await?;
    println!("{}", ending(&found));
    if found.phase != Some(RestorePhase::Succeeded) {
        return Ok(ExitCode::FAILURE);
    }
    if options.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    if !options.yes {
        print!(
            "\nAll clients see that state; what was written after it is undone.\nTo continue, type the cluster's name ({}): ",
            target.name
        );
        std::io::stdout().flush()?;
        let mut line = String::new();
        std::io::stdin().read_line(&mut line)?;
        if line.trim() != target.name {
            bail!("not confirmed: nothing was done");
        }
    }
    // Exactly to the index that was shown.
    let real = restore_object(options, cluster.uid(), false, found.index, given);
    let ended = create_and_follow(&api, &real).await?;
    println!("{}", ending(&ended));
    Ok(match ended.phase {
        Some(RestorePhase::Succeeded) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

fn ending(status: &RqliteRestoreStatus) -> String {
    let phase = status.phase.unwrap_or_default();
    let message = status.message.as_deref().unwrap_or_default();
    format!("{phase:?}: {message}")
}

async fn create_and_follow(
    api: &Api<RqliteRestore>,
    object: &RqliteRestore,
) -> anyhow::Result<RqliteRestoreStatus> {
    let made = api.create(&PostParams::default(), object).await;
    let name = made.context("creating the RqliteRestore")?.name_any();
    println!("RqliteRestore {name} ...");
    let began = Instant::now();
    let mut last = String::new();
    loop {
        let read = api.get(&name).await;
        let status = read.with_context(|| format!("reading {name}"))?.status;
        let status = status.unwrap_or_default();
        manager::check_taken_up(&name, status.phase.is_some(), began)?;
        if status.phase.is_some_and(RestorePhase::is_final) {
            return Ok(status);
        }
        let line = ending(&status);
        if status.phase.is_some() && line != last {
            println!("  {line}");
            last = line;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Makes a backup and waits for it, or lists the backups.
pub(crate) async fn backup(target: &Target, options: &BackupOptions) -> anyhow::Result<ExitCode> {
    let api: Api<RqliteBackup> = Api::namespaced(target.client.clone(), &target.namespace);
    if options.list {
        let all = api.list(&ListParams::default()).await;
        let all = all.context("listing the RqliteBackups")?.items;
        let of_cluster = all.into_iter();
        let of_cluster: Vec<_> = of_cluster
            .filter(|one| one.spec.cluster_ref.name == target.name)
            .collect();
        print!("{}", backups(&of_cluster));
        return Ok(ExitCode::SUCCESS);
    }
    let cluster = target.cluster().await?;
    if let Some(unmanaged) = manager::unmanaged(&cluster) {
        bail!("nothing would back up {}: {unmanaged}", target.name);
    }
    let mut object = RqliteBackup::new("", RqliteBackupSpec::new(&target.name));
    object.metadata.name.clone_from(&options.name);
    object.metadata.generate_name = match options.name {
        Some(_) => None,
        None => Some(format!("{}-", target.name)),
    };
    let made = api.create(&PostParams::default(), &object).await;
    let name = made.context("creating the RqliteBackup")?.name_any();
    println!("RqliteBackup {name} ...");
    if options.no_wait {
        return Ok(ExitCode::SUCCESS);
    }
    let began = Instant::now();
    loop {
        let read = api.get(&name).await;
        let status = read.with_context(|| format!("reading {name}"))?.status;
        let status = status.unwrap_or_default();
        manager::check_taken_up(&name, status.phase.is_some(), began)?;
        if let Some(phase) = status.phase.filter(|phase| phase.is_final()) {
            let message = status.message.or(status.error).unwrap_or_default();
            println!("{phase:?}: {message} {}", status.uri.unwrap_or_default());
            return Ok(match phase {
                BackupPhase::Succeeded => ExitCode::SUCCESS,
                _ => ExitCode::FAILURE,
            });
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn backups(all: &[RqliteBackup]) -> String {
    let row = |one: &RqliteBackup| {
        let status = one.status.clone().unwrap_or_default();
        let number = |value: Option<i64>| value.map_or("-".to_owned(), |value| value.to_string());
        let completed = status.completed_at.map(|at| at.0.to_string());
        vec![
            one.name_any(),
            format!("{:?}", status.phase.unwrap_or_default()),
            number(status.raft_index),
            number(status.bytes),
            completed.unwrap_or_else(|| "-".to_owned()),
            status.uri.or(status.message).unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    let head = ["BACKUP", "PHASE", "INDEX", "BYTES", "COMPLETED", "WHERE"];
    table(&head, &rows)
}

/// Shows the progress of the archive, as the leader and the status report it.
pub(crate) async fn list(target: &Target, user: Option<&str>) -> anyhow::Result<ExitCode> {
    let cluster = target.cluster().await?;
    let Some(spec) = &cluster.spec.archive else {
        bail!("{} has no archive: set spec.archive", target.name);
    };
    println!("archive of {} in {}", target.name, spec.target.uri());
    let leader = cluster.status.clone().unwrap_or_default().leader;
    let live = match &leader {
        None => None,
        Some(leader) => match Nodes::of(target, &cluster, user).await {
            Ok(nodes) => match nodes.status(leader).await {
                Ok(status) => status.process.and_then(|process| process.archive),
                Err(error) => {
                    eprintln!("{leader} is not queried: {}", say::line(&error));
                    None
                }
            },
            Err(error) => {
                eprintln!("the leader is not queried: {}", say::line(&error));
                None
            }
        },
    };
    print!("{}", archive(&cluster, live.as_ref()));
    Ok(ExitCode::SUCCESS)
}

/// The state of an archive: as the leader reports it, or else as the status has it.
pub(crate) fn archive(cluster: &RqliteCluster, live: Option<&ArchiveStatus>) -> String {
    let status = cluster.status.clone().unwrap_or_default();
    let recorded = status.archive.clone().unwrap_or_default();
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |what: &str, value: Option<String>| {
        rows.extend(value.map(|value| vec![what.to_owned(), value]));
    };
    let text = |value: Option<u64>| value.map(|value| value.to_string());
    row(
        "lineage",
        live.and_then(|a| a.lineage.clone()).or(recorded.lineage),
    );
    let index = live.and_then(|a| text(a.archived_index));
    let index = index.or_else(|| recorded.archived_index.map(|i| i.to_string()));
    row("archived index", index);
    let time = live.and_then(|a| a.archived_time.clone());
    row(
        "archived time",
        time.or_else(|| recorded.archived_time.map(|time| time.0)),
    );
    if let Some(live) = live {
        row("behind, entries", text(live.behind_entries));
        row("behind, seconds", text(live.behind_seconds));
        let base = live.last_base.as_ref();
        row(
            "newest base",
            base.map(|base| format!("index {}, {}, {} bytes", base.index, base.time, base.bytes)),
        );
        row("log held, bytes", text(live.log_held_bytes));
        row("last error", live.last_error.clone());
        let gap = live.gap.as_ref();
        row(
            "gap",
            gap.map(|gap| format!("entries {} to {}", gap.first, gap.last)),
        );
        let restore = live.restore.as_ref();
        row(
            "restore",
            restore.map(|restore| format!("{}: {}", restore.state, restore.message)),
        );
    }
    for kind in [ARCHIVING, BACKUPS_PROVEN] {
        let condition = status.condition(kind);
        row(
            kind,
            condition.map(|c| format!("{} ({}): {}", c.status, c.reason, c.message)),
        );
    }
    table(&["WHAT", "VALUE"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> RestoreOptions {
        RestoreOptions {
            cluster: "demo".to_owned(),
            point: Point {
                to_time: Some(Moment::from("2026-11-29T08:00:00Z")),
                to_index: None,
                lineage: None,
            },
            dry_run: false,
            reason: None,
            yes: false,
        }
    }

    #[test]
    fn only_the_real_one_confirms_and_it_goes_to_what_was_shown() {
        let look = restore_object(&options(), Some("u".to_owned()), true, None, None);
        assert!(look.spec.dry_run && look.spec.confirm.is_none());
        assert!(look.spec.to_time.is_some() && look.spec.to_index.is_none());
        let real = restore_object(&options(), Some("u".to_owned()), false, Some(41), None);
        assert_eq!(real.spec.confirm.as_deref(), Some("demo"));
        assert_eq!((real.spec.to_index, real.spec.to_time), (Some(41), None));
        assert!(say::moment("yesterday").is_err());
    }

    #[test]
    fn without_the_leader_the_record_is_shown() {
        let cluster: RqliteCluster = serde_json::from_value(serde_json::json!({
            "apiVersion": "rqlite.dev/v1alpha1", "kind": "RqliteCluster", "metadata": {"name": "demo"}, "spec": {},
            "status": {"archive": {"archivedIndex": 7, "archivedTime": "2026-11-29T08:00:00Z"}}
        }))
        .unwrap();
        let page = archive(&cluster, None);
        assert!(
            page.contains("archived index") && page.contains("7"),
            "{page}"
        );
        let live = ArchiveStatus {
            archived_index: Some(9),
            last_error: Some("AccessDenied".to_owned()),
            ..ArchiveStatus::default()
        };
        let page = archive(&cluster, Some(&live));
        assert!(
            page.contains("AccessDenied") && page.contains('9'),
            "{page}"
        );
    }
}
