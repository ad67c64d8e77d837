//! What the pod of a drill said.
use operator_api::{Moment, failure::one_line};
use serde::Deserialize;

use crate::backups::job_seen::JobSeen;

/// Longest text in a status.
const MAX_TEXT_CHARS: usize = 1024;

/// The result that the pod writes: `rqlited archive drill`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Outcome {
    /// Id of the cluster whose data it is.
    pub(super) cluster_id: Option<String>,
    /// The last entry that the restored database has.
    pub(super) index: Option<i64>,
    /// Its time.
    pub(super) time: Option<Moment>,
    /// Entries that were replayed.
    pub(super) entries: Option<i64>,
    /// Content hashes of the cluster that were compared.
    pub(super) hashes_compared: Option<i64>,
    /// Length of the restored database.
    pub(super) bytes: Option<i64>,
    /// How long it took.
    pub(super) seconds: Option<f64>,
    integrity: Option<String>,
    error: Option<String>,
}

/// How far a Job is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Ended {
    /// It runs; what there is to say.
    NotYet(Option<String>),
    /// The archive was restored and is sound.
    Well(Box<Outcome>),
    /// It was not; why.
    Badly(String),
}

/// What came of a Job.
pub(super) fn of(job: &JobSeen) -> Ended {
    let outcome = job.result.as_deref().and_then(|text| {
        let mut lines = text.lines().rev();
        let line = lines.find(|line| line.trim_start().starts_with('{'))?;
        serde_json::from_str::<Outcome>(line).ok()
    });
    let said = outcome.as_ref().and_then(|outcome| outcome.error.clone());
    let said = said.or_else(|| job.result.clone().filter(|_| outcome.is_none()));
    match job.succeeded {
        None => Ended::NotYet(match &job.stuck {
            Some(why) => Some(short(&format!("its pod does not start: {why}"))),
            None => said
                .filter(|_| job.failed > 0)
                .map(|said| short(&format!("attempt {} failed: {said}", job.failed))),
        }),
        Some(true) => sound(outcome.unwrap_or_default()),
        Some(false) => {
            let kubernetes = job.message.clone();
            let why = said.or_else(|| job.stuck.clone());
            let why = why.or_else(|| kubernetes.clone());
            let why = why.unwrap_or_else(|| "its pods failed and left no message".to_owned());
            Ended::Badly(match kubernetes.filter(|text| *text != why) {
                Some(kubernetes) => short(&format!("{why} ({kubernetes})")),
                None => short(&why),
            })
        }
    }
}

/// Nothing counts as a proof that does not say what was restored.
fn sound(outcome: Outcome) -> Ended {
    if let Some(error) = &outcome.error {
        return Ended::Badly(short(error));
    }
    match &outcome.integrity {
        Some(found) if found != "ok" => {
            return Ended::Badly(short(&format!("the restored database is damaged: {found}")));
        }
        Some(_) if outcome.index.is_some() => {}
        _ => {
            let text = "its pod ended well but left no readable result: look at its log";
            return Ended::Badly(text.to_owned());
        }
    }
    Ended::Well(Box::new(outcome))
}

impl Outcome {
    /// Why this is no proof for the cluster with this id.
    pub(super) fn foreign(&self, cluster_id: Option<&str>) -> Option<String> {
        let (restored, own) = (self.cluster_id.as_deref()?, cluster_id?);
        (restored != own).then(|| {
            format!(
                "the archive has the data of the cluster with id {restored}, and this one's is {own}: give each cluster a prefix of its own"
            )
        })
    }

    /// How long it took, rounded up.
    pub(super) fn whole_seconds(&self) -> Option<i64> {
        let seconds = self.seconds.filter(|seconds| seconds.is_finite())?;
        let seconds = std::time::Duration::try_from_secs_f64(seconds.ceil()).ok()?;
        i64::try_from(seconds.as_secs()).ok()
    }

    /// For a person.
    pub(super) fn text(&self) -> String {
        let index = self.index.unwrap_or(0);
        let time = self.time.as_ref();
        let time = time.map_or_else(String::new, |time| format!(" ({time})"));
        let took = self.whole_seconds();
        let took = took.map_or_else(String::new, |seconds| format!(", in {seconds} s"));
        let hashes = match self.hashes_compared.unwrap_or(0) {
            0 => "no content hash of the cluster was there to compare with".to_owned(),
            1 => "its content has the cluster's hash at one index".to_owned(),
            n => format!("its content has the cluster's hashes at {n} indexes"),
        };
        format!(
            "the archive was restored up to index {index}{time}{took}: integrity_check ok; {hashes}"
        )
    }
}

/// The first part of a text: there the program says what is wrong.
fn short(text: &str) -> String {
    one_line(text).chars().take(MAX_TEXT_CHARS).collect()
}
