//! `rqlited prepare DATA`: runs before a node starts under an operator. Reads the cluster's state (and the
//! plan of a recovery), inspects the data directory, carries out what both require, and reports. Never
//! deletes data; running it again changes nothing.
mod apply;
pub mod decide;
pub mod files;

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Parser;
use node_contract::{PlanFile, PrepareReport, StateFile};

use self::decide::{Action, Contents, Observation, StopReason, decide};
use crate::{
    data_dir::{self, ParkedMark, is_parked, park},
    identity::{Cluster, Identity},
    inspect::{self, CommandOutput, Facts},
    parked, recovery, version,
};

/// Exit code: the node must not start; a person or the operator has to decide.
const STOPPED: u8 = 1;
/// Exit code: the node must not start yet; try again.
const HELD: u8 = 3;
/// Kubernetes' limit for a termination message.
const MAX_REPORT_BYTES: usize = 4096;
/// Longer reasons are truncated.
const MAX_REASON_CHARS: usize = 600;
/// With `--wait`: interval between two attempts.
const WAIT_PAUSE: Duration = Duration::from_secs(2);

#[derive(Debug, Parser)]
#[command(
    name = "rqlited prepare",
    about = "Prepares a data directory before its node starts: for an operator's init container.",
    after_help = "Exit codes: 0 the node may start; 1 it must not, see the report; 2 wrong command line; 3 not yet, ask again (see --wait).",
    disable_help_subcommand = true
)]
struct Args {
    /// The cluster's state, JSON.
    #[arg(long, value_name = "FILE")]
    state: PathBuf,
    /// The plan of a recovery, JSON. A missing file means that there is no plan.
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// This node's ID; required unless the data directory contains it.
    #[arg(long, value_name = "NODE")]
    name: Option<String>,
    /// Also write the report to this file, for example /dev/termination-log.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Instead of exiting with code 3, read the files again until the node may start.
    #[arg(long)]
    wait: bool,
    /// The node's data directory; created if missing.
    data: PathBuf,
}

/// The result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ready,
    Held,
    Foreign,
    NewerFormat,
    StaleLineage,
    UnknownLineage,
    Damaged,
    Refused,
}

/// The change that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Performed {
    None,
    Created,
    Recovered,
    Parked,
}

/// The report, and its `state` as a value.
#[derive(Clone, Debug)]
struct Report {
    verdict: Verdict,
    document: PrepareReport,
}

/// Runs the subcommand; `arguments` are those after the word `prepare`.
pub fn run(arguments: impl Iterator<Item = OsString>) -> CommandOutput {
    let words = std::iter::once(OsString::from("rqlited prepare")).chain(arguments);
    let args = match Args::try_parse_from(words) {
        Ok(args) => args,
        Err(error) => return CommandOutput::of_clap(&error),
    };
    loop {
        let report = prepare(&args);
        let exit_code = match report.verdict {
            Verdict::Ready => 0,
            Verdict::Held => HELD,
            _ => STOPPED,
        };
        let text = report.json();
        if let Some(path) = &args.report
            && let Err(e) = fs::write(path, &text)
        {
            return CommandOutput {
                exit_code: STOPPED,
                text: format!("{}: {e}\n{text}", path.display()),
                is_error: true,
            };
        }
        if exit_code != HELD || !args.wait {
            return CommandOutput {
                exit_code,
                text,
                is_error: false,
            };
        }
        std::thread::sleep(WAIT_PAUSE);
    }
}

/// Observes, decides, acts, and observes again for the report.
fn prepare(args: &Args) -> Report {
    let refused = |reason: String| Report::of(None, Verdict::Refused, Performed::None, reason);
    let (state, plan) = match read_files(args) {
        Ok(read) => read,
        Err(reason) => return refused(reason),
    };
    if let Err(e) = node_db::durable::create_dir_all(&args.data) {
        return refused(format!("{}: {e}", args.data.display()));
    }
    let _lock = match data_dir::lock(&args.data) {
        Ok(lock) => lock,
        Err(e) => return refused(format!("{e:#}")),
    };
    let facts = inspect::read_locked(&args.data);
    let Some(name) = args.name.clone().or_else(|| facts.name.clone()) else {
        return refused("the data directory is empty: give the node's ID with --name".into());
    };
    let observed = match observe(&args.data, &name, &facts, &state, plan.as_ref()) {
        Ok(observed) => observed,
        Err(reason) => return Report::of(Some(&facts), Verdict::Damaged, Performed::None, reason),
    };
    let done = match decide(&observed, &state, plan.as_ref()) {
        Action::Start => Ok(Performed::None),
        Action::Hold(reason) => {
            return Report::of(Some(&facts), Verdict::Held, Performed::None, reason);
        }
        Action::Stop(stop, reason) => {
            return Report::of(Some(&facts), stop.into(), Performed::None, reason);
        }
        action => act(&args.data, &name, &state, plan.as_ref(), &facts, &action),
    };
    if let Err(e) = parked::set_policy(&args.data, state.parked) {
        tracing::warn!(target: "store", "recording which parked copies are kept: {e}");
    }
    parked::sweep(&args.data, state.parked.unwrap_or_default());
    match done {
        Ok(performed) => {
            let facts = inspect::read_locked(&args.data);
            Report::of(Some(&facts), Verdict::Ready, performed, String::new())
        }
        Err(reason) => Report::of(Some(&facts), Verdict::Refused, Performed::None, reason),
    }
}

fn read_files(args: &Args) -> Result<(StateFile, Option<PlanFile>), String> {
    let state: StateFile = files::read(&args.state)?;
    if state.cluster_id.is_empty() || state.lineage.id.is_empty() {
        return Err(format!(
            "{}: cluster_id and lineage.id must not be empty",
            args.state.display()
        ));
    }
    for name in state.park.keys() {
        let with_path = |e| format!("{}: {e}", args.state.display());
        state.parking_token(name).map_err(with_path)?;
    }
    let plan = match &args.plan {
        Some(path) if path.exists() => {
            let plan: PlanFile = files::read(path)?;
            files::checked_peers(&plan).map_err(|e| format!("{}: {e}", path.display()))?;
            Some(plan)
        }
        Some(_) | None => None,
    };
    Ok((state, plan))
}

fn observe(
    data: &Path,
    name: &str,
    facts: &Facts,
    state: &StateFile,
    plan: Option<&PlanFile>,
) -> Result<Observation, String> {
    let recovering_to = recovery::unfinished_recovery(data).map_err(|e| e.to_string())?;
    let birth = Identity::load(&data.join("raft"))
        .ok()
        .flatten()
        .filter(|identity| identity.cluster.is_none())
        .and_then(|identity| identity.birth);
    let holds_entries = facts.last_log.is_some() || facts.database.is_some();
    let holds = match (&facts.incarnation, birth) {
        (Some(incarnation), None) if facts.cluster_id.is_some() || holds_entries => {
            Contents::Data {
                owner: facts.name.clone(),
                cluster_id: facts.cluster_id.clone(),
                lineage: facts.lineage.clone(),
                incarnation: incarnation.clone(),
                last_log: facts.last_log,
            }
        }
        (_, Some(birth)) => Contents::Birth {
            cluster_id: birth.cluster.id,
        },
        (_, None) => Contents::Nothing,
    };
    Ok(Observation {
        name: name.to_owned(),
        format: (facts.format_version, version::NEWEST),
        damage: facts.damage.clone(),
        holds,
        recovering_to,
        plan_done: apply::plan_done(data),
        parking: plan
            .filter(|plan| data_dir::is_parking(data, &plan.plan_id))
            .map(|plan| plan.plan_id.clone()),
        retired: state
            .parking_token(name)?
            .filter(|token| !is_parked(data, token))
            .cloned(),
    })
}

fn act(
    data: &Path,
    name: &str,
    state: &StateFile,
    plan: Option<&PlanFile>,
    facts: &Facts,
    action: &Action,
) -> Result<Performed, String> {
    let plan = || plan.ok_or_else(|| "there is no plan".to_owned());
    let mark = |may_hold_lost_writes: bool| match may_hold_lost_writes {
        true => ParkedMark::MayHoldLostWrites,
        false => ParkedMark::Replicated,
    };
    let done = |plan: &PlanFile| {
        apply::mark_done(data, &plan.plan_id).map_err(|e| format!("marking the plan as done: {e}"))
    };
    match action {
        Action::Create { may_form } => {
            data_dir::create(data, name, cluster(state), *may_form)?;
            Ok(Performed::Created)
        }
        Action::Recover => {
            let plan = plan()?;
            recovery::recover_by_plan(data, name, &files::checked_peers(plan)?, &plan.to_lineage)
                .map_err(|e| e.to_string())?;
            done(plan)?;
            Ok(Performed::Recovered)
        }
        Action::Mark => {
            done(plan()?)?;
            Ok(Performed::Recovered)
        }
        Action::Park => {
            let plan = plan()?;
            // The survivor had everything up to that entry.
            let beyond = facts
                .last_log
                .is_none_or(|last| last > plan.expect.min_last_log);
            park(data, &plan.plan_id, name, cluster(state), mark(beyond))?;
            Ok(Performed::Parked)
        }
        Action::Retire(token) => {
            // A lineage that has ended may have had writes that the present one lacks.
            let ended = facts.lineage.as_ref() != Some(&state.lineage);
            park(data, token, name, cluster(state), mark(ended))?;
            Ok(Performed::Parked)
        }
        Action::Start | Action::Hold(_) | Action::Stop(..) => Ok(Performed::None),
    }
}

/// The cluster for which a new identity is created.
fn cluster(state: &StateFile) -> Cluster {
    Cluster {
        id: state.cluster_id.clone(),
        lineage: state.lineage.clone(),
    }
}

impl From<StopReason> for Verdict {
    fn from(reason: StopReason) -> Self {
        match reason {
            StopReason::Foreign => Self::Foreign,
            StopReason::NewerFormat => Self::NewerFormat,
            StopReason::StaleLineage => Self::StaleLineage,
            StopReason::UnknownLineage => Self::UnknownLineage,
            StopReason::Damaged => Self::Damaged,
            StopReason::Refused => Self::Refused,
        }
    }
}

impl Report {
    fn of(facts: Option<&Facts>, state: Verdict, action: Performed, reason: String) -> Self {
        let fact =
            |field: fn(&Facts) -> &Option<String>| facts.and_then(|facts| field(facts).clone());
        let document = PrepareReport {
            state: format!("{state:?}"),
            action: format!("{action:?}").to_ascii_lowercase(),
            name: fact(|f| &f.name),
            raft_id: fact(|f| &f.raft_id),
            incarnation: fact(|f| &f.incarnation),
            cluster_id: fact(|f| &f.cluster_id),
            lineage: facts.and_then(|facts| facts.lineage.clone()),
            last_log: facts.and_then(|facts| facts.last_log),
            reason: reason.chars().take(MAX_REASON_CHARS).collect(),
        };
        Self {
            verdict: state,
            document,
        }
    }

    /// The report as JSON of at most [`MAX_REPORT_BYTES`]. Names have no limit, so they are left out of a
    /// report that is too long.
    fn json(&self) -> String {
        // These types always serialize.
        let text = |report: &PrepareReport| serde_json::to_string(report).unwrap_or_default();
        let whole = text(&self.document);
        if whole.len() <= MAX_REPORT_BYTES {
            return whole;
        }
        text(&PrepareReport {
            state: self.document.state.clone(),
            action: self.document.action.clone(),
            ..PrepareReport::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_fits_a_termination_message() {
        let mut report = Report::of(
            None,
            Verdict::Refused,
            Performed::None,
            "\u{1}".repeat(9000),
        );
        assert!(report.json().len() <= MAX_REPORT_BYTES && report.json().contains("u0001"));
        report.document.name = Some("n".repeat(9000));
        assert!(
            report.json().len() <= MAX_REPORT_BYTES,
            "{}",
            report.json().len()
        );
    }

    #[test]
    fn the_command_line() {
        let run_words = |words: &[&str]| run(words.iter().map(OsString::from));
        let help = run_words(&["-h"]);
        assert!(
            help.exit_code == 0 && help.text.contains("--state"),
            "{}",
            help.text
        );
        assert_eq!(run_words(&["data"]).exit_code, 2, "no state");
    }

    #[test]
    fn bad_files_are_told_and_nothing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let (state, data) = (dir.path().join("state.json"), dir.path().join("data"));
        for (content, text) in [
            ("{", "EOF"),
            (
                r#"{"cluster_id":"","lineage":{"id":"l","epoch":0},"phase":"Formed"}"#,
                "must not be empty",
            ),
            (
                r#"{"cluster_id":"c","lineage":{"id":"l","epoch":0},"phase":"Sleeping"}"#,
                "unknown variant",
            ),
        ] {
            fs::write(&state, content).unwrap();
            let words = ["--name", "a", "--state"].map(OsString::from).into_iter();
            let answer = run(words.chain([state.clone().into(), data.clone().into()]));
            assert!(
                answer.exit_code == 1 && answer.text.contains(text),
                "{}",
                answer.text
            );
            assert!(!data.exists(), "created");
        }
    }
}
