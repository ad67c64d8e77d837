//! `kubectl rqlite drill`: requests a drill (a trial restore) of a cluster's archive, and waits for the
//! result.
use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::Args;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use operator_api::{RqliteCluster, names, status::DrillStatus};

use crate::{manager, target::Target};

/// Interval of reading the cluster.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Time within which the operator should begin the drill. Otherwise no operator is running, or other drills
/// go first.
const TAKEN_UP: Duration = Duration::from_secs(120);
/// Field manager of this program's changes.
const FIELD_MANAGER: &str = "kubectl-rqlite";

/// Arguments of `drill`.
#[derive(Clone, Debug, Args)]
pub(crate) struct DrillOptions {
    /// The cluster.
    pub(crate) cluster: String,
    /// Do not wait for its end.
    #[arg(long)]
    no_wait: bool,
}

/// Requests a drill, and follows it to its end.
pub(crate) async fn run(target: &Target, options: &DrillOptions) -> anyhow::Result<ExitCode> {
    let cluster = target.cluster().await?;
    let name = &target.name;
    if cluster.spec.archive.is_none() {
        bail!("{name} has no archive that could be restored: set spec.archive");
    }
    if let Some(unmanaged) = manager::unmanaged(&cluster) {
        bail!("nothing would restore the archive of {name}: {unmanaged}");
    }
    if cluster.is_paused() {
        bail!("{name} is paused: the operator begins nothing. Nothing was requested");
    }
    let request = Timestamp::now().to_string();
    let patch = serde_json::json!({
        "metadata": {"annotations": {names::DRILL_NOW_ANNOTATION: request}}
    });
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let sent = target
        .clusters()
        .patch(name, &params, &Patch::Merge(&patch))
        .await;
    sent.with_context(|| format!("writing the annotation to {name}"))?;
    if options.no_wait {
        println!(
            "a drill of {name} is requested. Watch: kubectl rqlite archive list {name} -n {}",
            target.namespace
        );
        return Ok(ExitCode::SUCCESS);
    }
    follow(target, &request).await
}

async fn follow(target: &Target, request: &str) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let mut last = String::new();
    loop {
        let drill = drill_of(&target.cluster().await?);
        match progress(&drill, request) {
            Progress::NotBegun if began.elapsed() > TAKEN_UP => bail!(
                "the drill is requested, but has not begun after {} s: is the operator running, does it watch this namespace, or are drills of other clusters under way?",
                TAKEN_UP.as_secs()
            ),
            Progress::NotBegun => {}
            Progress::Runs(line) if line != last => {
                println!("{line}");
                last = line;
            }
            Progress::Runs(_) => {}
            Progress::Ended(is_proven, text) => {
                println!("{text}");
                return Ok(match is_proven {
                    true => ExitCode::SUCCESS,
                    false => ExitCode::FAILURE,
                });
            }
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn drill_of(cluster: &RqliteCluster) -> DrillStatus {
    let status = cluster.status.clone().unwrap_or_default();
    status.archive.unwrap_or_default().drill.unwrap_or_default()
}

#[derive(Debug, PartialEq)]
enum Progress {
    NotBegun,
    Runs(String),
    /// Whether the drill succeeded, and the text to print.
    Ended(bool, String),
}

fn progress(drill: &DrillStatus, request: &str) -> Progress {
    if drill.requested.as_deref() != Some(request) {
        return Progress::NotBegun;
    }
    let said = drill.message.clone().unwrap_or_default();
    match (&drill.job, &drill.proven_at, &drill.failed_at) {
        (Some(job), ..) => Progress::Runs(match &drill.progress {
            Some(what) => format!("Job {job}: {what}"),
            None => format!("Job {job} ..."),
        }),
        (None, Some(proven), Some(failed)) if failed.0 > proven.0 => Progress::Ended(false, said),
        (None, None, _) => Progress::Ended(false, said),
        (None, Some(_), _) => Progress::Ended(true, said),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn from_the_request_to_its_end() {
        let time = |second| Some(Time(Timestamp::from_second(second).unwrap()));
        let old = DrillStatus {
            requested: Some("old".to_owned()),
            proven_at: time(1),
            message: Some("fine".to_owned()),
            ..DrillStatus::default()
        };
        assert_eq!(progress(&old, "new"), Progress::NotBegun);
        let begun = DrillStatus {
            requested: Some("new".to_owned()),
            job: Some("demo-drill-7".to_owned()),
            progress: Some("no image".to_owned()),
            ..old
        };
        let line = "Job demo-drill-7: no image".to_owned();
        assert_eq!(progress(&begun, "new"), Progress::Runs(line));
        let failed = DrillStatus {
            job: None,
            failed_at: time(2),
            message: Some("damaged".to_owned()),
            ..begun
        };
        let text = "damaged".to_owned();
        assert_eq!(progress(&failed, "new"), Progress::Ended(false, text));
        let proven = DrillStatus {
            proven_at: time(3),
            message: Some("fine".to_owned()),
            ..failed
        };
        let text = "fine".to_owned();
        assert_eq!(progress(&proven, "new"), Progress::Ended(true, text));
    }
}
