//! `kubectl rqlite recover`: a dry run, which shows what would be done and what may be lost, then a
//! confirmation, then the recovery itself, followed to its end.
use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use kube::{Api, ResourceExt, api::PostParams};
use operator_api::{
    Moment, Period, RqliteRecovery, RqliteRecoverySpec, RqliteRecoveryStatus,
    recovery::{RecoveryMode, RecoveryPhase},
};

use crate::{manager, table::table, target::Target};

/// Interval of reading the object.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Arguments of `recover`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// The cluster.
    pub(crate) cluster: String,
    /// Pod to recover from. Defaults to the one with the newest log. Required for a read replica.
    #[arg(long)]
    survivor: Option<String>,
    /// Members that are known to be gone; they are not inspected. Can be repeated.
    #[arg(long, value_name = "POD")]
    ignore: Vec<String>,
    /// Pods that are known not to be running although Kubernetes cannot tell. Can be repeated.
    #[arg(long, value_name = "POD")]
    assume_stopped: Vec<String>,
    /// All voters exist, under new addresses; nothing is lost.
    #[arg(long, conflicts_with_all = ["survivor", "ignore"])]
    rewrite_addresses: bool,
    /// No volume is left: begin again from the cluster's archive, with new, empty volumes.
    #[arg(long, conflicts_with_all = ["survivor", "rewrite_addresses"])]
    from_archive: bool,
    /// With --from-archive: the last state at this time instead of the archive's end.
    #[arg(long, value_name = "TIME", requires = "from_archive", value_parser = crate::say::moment)]
    to_time: Option<Moment>,
    /// With --from-archive: the state after this Raft index.
    #[arg(long, value_name = "INDEX", requires = "from_archive", conflicts_with = "to_time", value_parser = clap::value_parser!(i64).range(1..))]
    to_index: Option<i64>,
    /// Why the recovery is needed, for the record. Asked for, unless --yes is given.
    #[arg(long)]
    reason: Option<String>,
    /// Go on without the integrity check of the survivor's database. Damage is then not noticed.
    #[arg(long)]
    skip_database_check: bool,
    /// How long each check of the database may take, such as 30m or 2h. Defaults to 10 minutes and 2 more for
    /// each GiB.
    #[arg(long, value_name = "DURATION")]
    database_check_timeout: Option<String>,
    /// Only inspect and report.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation: accept what may be lost. Needs --reason.
    #[arg(long)]
    yes: bool,
}

impl Options {
    /// `cluster_uid`: uid of the cluster that the user saw, so that a later one of the same name is not
    /// recovered.
    fn object(&self, cluster_uid: Option<&str>, dry_run: bool, reason: &str) -> RqliteRecovery {
        let mut spec = RqliteRecoverySpec::new(&self.cluster, reason);
        spec.cluster_ref.uid = cluster_uid.map(str::to_owned);
        if self.rewrite_addresses {
            spec.mode = RecoveryMode::RewriteAddresses;
        }
        if self.from_archive {
            spec.mode = RecoveryMode::FromArchive;
        }
        spec.to_time.clone_from(&self.to_time);
        spec.to_index = self.to_index;
        spec.survivor.clone_from(&self.survivor);
        spec.accept_data_loss = !dry_run;
        spec.ignore_members.clone_from(&self.ignore);
        spec.assume_stopped.clone_from(&self.assume_stopped);
        spec.dry_run = dry_run;
        spec.skip_database_check = self.skip_database_check;
        spec.database_check_timeout = self.database_check_timeout.clone().map(Period);
        let mut object = RqliteRecovery::new("", spec);
        object.metadata.name = None;
        object.metadata.generate_name = Some(format!("{}-", self.cluster));
        object
    }
}

pub(crate) async fn run(target: &Target, options: &Options) -> anyhow::Result<ExitCode> {
    let given = options.reason.as_deref().unwrap_or_default();
    if options.yes && !options.dry_run && given.trim().is_empty() {
        bail!(
            "--yes needs --reason: say why the recovery is needed, for the record, such as --reason 'two disks lost'. Nothing was done"
        );
    }
    if !options.yes && !options.dry_run && !std::io::stdin().is_terminal() {
        bail!(
            "standard input is no terminal to confirm at: use --dry-run to look, or --yes with --reason. Nothing was done"
        );
    }
    let api: Api<RqliteRecovery> = Api::namespaced(target.client.clone(), &target.namespace);
    let cluster_uid = target.cluster().await?.uid();
    let cluster_uid = cluster_uid.as_deref();
    let reason = options.reason.clone().unwrap_or_default();
    let dry_run_reason = if reason.is_empty() {
        "dry run"
    } else {
        &reason
    };
    let dry_run = create(&api, &options.object(cluster_uid, true, dry_run_reason)).await?;
    println!("inspecting every member of {} ({dry_run}) ...", target.name);
    let found = follow(&api, &dry_run).await?;
    print!("\n{}", page(&found));
    if found.phase != Some(RecoveryPhase::Succeeded) {
        return Ok(ExitCode::FAILURE);
    }
    if options.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    let reason = match (&options.reason, options.yes) {
        (Some(reason), true) => reason.clone(),
        (given, _) => {
            let what = match options.from_archive {
                true => {
                    "All nodes are stopped, and the cluster begins again from its archive with new volumes."
                }
                false => {
                    "All nodes are stopped, the survivor becomes the cluster, and the others rejoin it; their old data is parked."
                }
            };
            let typed = prompt(&format!(
                "\n{what}\nTo continue, type the cluster's name ({}): ",
                target.name
            ))?;
            if typed != target.name {
                bail!("not confirmed: nothing was done");
            }
            match given {
                Some(reason) => reason.clone(),
                None => prompt("Reason, for the record: ")?,
            }
        }
    };
    if reason.is_empty() {
        bail!("a reason is required for the record: nothing was done");
    }
    let name = create(&api, &options.object(cluster_uid, false, &reason)).await?;
    println!("{name}:");
    let ended = follow(&api, &name).await?;
    print!("\n{}", page(&ended));
    Ok(if ended.phase == Some(RecoveryPhase::Succeeded) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn create(api: &Api<RqliteRecovery>, object: &RqliteRecovery) -> anyhow::Result<String> {
    let made = api.create(&PostParams::default(), object).await;
    Ok(made.context("creating the RqliteRecovery")?.name_any())
}

fn prompt(question: &str) -> anyhow::Result<String> {
    print!("{question}");
    std::io::stdout().flush()?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

/// Prints each new phase and message until the recovery is over or needs the user.
async fn follow(api: &Api<RqliteRecovery>, name: &str) -> anyhow::Result<RqliteRecoveryStatus> {
    let began = std::time::Instant::now();
    let mut last = String::new();
    loop {
        let status = api
            .get(name)
            .await
            .with_context(|| format!("reading {name}"))?
            .status;
        let status = status.unwrap_or_default();
        manager::check_taken_up(name, status.phase.is_some(), began)?;
        let line = line(&status);
        if !line.is_empty() && line != last {
            println!("  {line}");
            last = line;
        }
        if is_over(&status) {
            return Ok(status);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Whether the recovery is over or waits for the user.
fn is_over(status: &RqliteRecoveryStatus) -> bool {
    let phase = status.phase;
    phase.is_some_and(|p| p.is_final() || p == RecoveryPhase::AwaitingApproval)
}

fn line(status: &RqliteRecoveryStatus) -> String {
    let message = status.message.as_deref().unwrap_or_default();
    match status.phase {
        Some(phase) if is_over(status) => format!("{phase:?}"),
        Some(phase) => format!("{phase:?}: {message}"),
        None => String::new(),
    }
}

/// The inspected members and the result.
fn page(status: &RqliteRecoveryStatus) -> String {
    let rows: Vec<Vec<String>> = status
        .candidates
        .iter()
        .map(|c| {
            let chosen = status.survivor.as_ref() == Some(&c.member);
            let last = c
                .last_log
                .map(|l| (l.term.to_string(), l.index.to_string()));
            let (term, index) = last.unwrap_or_else(|| ("-".to_owned(), "-".to_owned()));
            let mark = if chosen { "survivor" } else { "" };
            let reason = c.reason.clone().unwrap_or_else(|| mark.to_owned());
            vec![c.member.clone(), term, index, reason]
        })
        .collect();
    let mut page = String::new();
    if !rows.is_empty() {
        page.push_str(&table(&["MEMBER", "TERM", "INDEX", ""], &rows));
        page.push('\n');
    }
    let phase = status.phase.map_or(String::new(), |p| format!("{p:?}: "));
    let message = status.message.as_deref().unwrap_or_default();
    page.push_str(&format!("{phase}{message}\n"));
    page
}

#[cfg(test)]
mod tests {
    use operator_api::recovery::{Candidate, LogPosition};

    use super::*;

    #[test]
    fn what_was_found() {
        let candidate = |member: &str, index: Option<i64>, reason: Option<&str>| Candidate {
            member: member.to_owned(),
            last_log: index.map(|index| LogPosition { term: 3, index }),
            incarnation: None,
            reason: reason.map(str::to_owned),
        };
        let status = RqliteRecoveryStatus {
            phase: Some(RecoveryPhase::Succeeded),
            survivor: Some("demo-2".to_owned()),
            candidates: vec![
                candidate("demo-1", None, Some("its claim is gone")),
                candidate("demo-2", Some(97), None),
            ],
            message: Some("dry run".to_owned()),
            ..RqliteRecoveryStatus::default()
        };
        let expected = "\
MEMBER   TERM   INDEX
demo-1   -      -       its claim is gone
demo-2   3      97      survivor

Succeeded: dry run
";
        assert_eq!(page(&status), expected);
        assert!(is_over(&status));
    }

    #[test]
    fn only_the_real_one_consents() {
        let options = Options {
            cluster: "demo".to_owned(),
            survivor: None,
            ignore: vec!["demo-1".to_owned()],
            assume_stopped: Vec::new(),
            rewrite_addresses: false,
            from_archive: false,
            to_time: None,
            to_index: None,
            reason: None,
            skip_database_check: true,
            database_check_timeout: Some("2h".to_owned()),
            dry_run: false,
            yes: false,
        };
        let (dry_run, real) = (
            options.object(Some("u"), true, "r"),
            options.object(Some("u"), false, "r"),
        );
        assert_eq!(real.spec.cluster_ref.uid.as_deref(), Some("u"));
        assert!(dry_run.spec.dry_run && !dry_run.spec.accept_data_loss);
        assert!(!real.spec.dry_run && real.spec.accept_data_loss);
        assert_eq!(real.spec.ignore_members, ["demo-1"]);
        assert!(real.spec.skip_database_check && dry_run.spec.skip_database_check);
        assert_eq!(
            real.spec.database_check_timeout,
            Some(Period("2h".to_owned()))
        );
        assert_eq!(real.metadata.generate_name.as_deref(), Some("demo-"));
    }
}
