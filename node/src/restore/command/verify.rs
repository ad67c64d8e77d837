//! `rqlited archive verify`: is everything there, whole and in order, and does it give what the cluster had?
use std::path::PathBuf;

use clap::Args;
use node_archive::{
    documents::{Base, Gap},
    plan::Target,
    record::Record,
    verify::Range,
};
use serde::Serialize;

use super::place::{Done, Place, ReplayArgs, Verdict, pretty};
use crate::restore::{
    run::{self, Planned, Walk},
    source::{Refusal, Source, TimelineAt},
};

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    pub(super) place: Place,
    #[command(flatten)]
    replay: ReplayArgs,
    /// Also replay everything from the oldest base, compare with the content of every later base and with the
    /// hashes that the cluster made, and run integrity_check.
    #[arg(long)]
    full: bool,
    /// With --full: directory for scratch databases. If not given, the temporary directory.
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

/// What was found in one timeline.
#[derive(Debug, Default, Serialize)]
struct Verified {
    lineage: String,
    epoch: u64,
    ok: bool,
    bases: u64,
    segments: u64,
    entries: u64,
    /// First and last index that can be restored.
    from_index: u64,
    to_index: u64,
    /// What can be restored, oldest first: several ranges where there are gaps.
    restorable: Vec<Range>,
    /// Entries that were never archived, each followed by a base: known, and no damage.
    gaps: Vec<Gap>,
    /// With --full: comparisons of content.
    #[serde(skip_serializing_if = "Option::is_none")]
    contents_compared: Option<u64>,
    problems: Vec<String>,
    /// Why it is not known whether everything is in order: something else than the archive failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown: Option<String>,
}

/// Why a check ended early.
enum Ended {
    /// The archive is not in order.
    Problem(Refusal),
    /// The store did not answer, or this machine lacks something.
    Unknown(Refusal),
}

pub(super) async fn run(args: &VerifyArgs) -> Result<Done, Refusal> {
    let source = args.place.open()?;
    let mut found = Vec::new();
    for at in source.timelines(args.place.lineage.as_deref()).await? {
        found.push(verify(args, &source, &at).await);
    }
    if found.is_empty() {
        return Err(format!(
            "{}: there is no such timeline: check bucket, prefix and -lineage",
            source.place()
        ));
    }
    Ok(Done {
        verdict: if found.iter().all(|timeline| timeline.ok) {
            Verdict::Sound
        } else if found.iter().all(|timeline| timeline.problems.is_empty()) {
            Verdict::Unknown
        } else {
            Verdict::Unsound
        },
        text: if args.place.json {
            pretty(&serde_json::json!({ "timelines": found }))
        } else {
            found.iter().map(text).collect::<Vec<_>>().join("\n\n")
        },
    })
}

async fn verify(args: &VerifyArgs, source: &Source, at: &TimelineAt) -> Verified {
    let mut verified = Verified {
        lineage: at.lineage.id.clone(),
        epoch: at.lineage.epoch,
        ..Verified::default()
    };
    match check(args, source, at, &mut verified).await {
        Ok(()) => {}
        Err(Ended::Problem(problem)) => verified.problems.push(problem),
        Err(Ended::Unknown(why)) => verified.unknown = Some(why),
    }
    verified.ok = verified.problems.is_empty() && verified.unknown.is_none();
    verified
}

async fn check(
    args: &VerifyArgs,
    source: &Source,
    at: &TimelineAt,
    verified: &mut Verified,
) -> Result<(), Ended> {
    let report = source.verify(&at.folder).await.map_err(Ended::Unknown)?;
    let ends = (report.restorable.first(), report.restorable.last());
    verified.from_index = ends.0.map_or(0, |range| range.first);
    verified.to_index = ends.1.map_or(0, |range| range.last);
    verified.bases = report.bases;
    verified.segments = report.segments;
    verified.entries = report.entries;
    verified.gaps = report.gaps;
    verified.problems = report.problems;
    if args.full && verified.problems.is_empty() {
        let contents = source.contents(&at.folder).await;
        let indexes = contents.map_err(Ended::Unknown)?.bases;
        let bases = source.bases(&at.folder, &indexes).await;
        let bases = bases.map_err(Ended::Unknown)?.readable;
        let mut compared = 0;
        for range in &report.restorable {
            let mut wish = args.replay.wish(&args.place, Target::Index(range.last));
            wish.lineage = Some(at.lineage.id.clone());
            let planned = run::plan_from(source, &wish, Target::Index(range.first)).await;
            // All objects were read before: what fails from here to the first entry is no fault of theirs.
            let planned = planned.map_err(Ended::Unknown)?;
            compared += replay(args, source, &planned, &bases, &wish).await?;
        }
        verified.contents_compared = Some(compared);
    }
    verified.restorable = report.restorable;
    Ok(())
}

/// Replays everything, and compares with the content of each base on the way.
async fn replay(
    args: &VerifyArgs,
    source: &Source,
    planned: &Planned,
    bases: &[Base],
    wish: &run::Wish,
) -> Result<u64, Ended> {
    let scratch = args.scratch.clone().unwrap_or_else(std::env::temp_dir);
    run::check_room(&planned.plan, &scratch).map_err(Ended::Unknown)?;
    let mut compared = 0;
    let begun = Walk::begin(source, planned, wish, &scratch).await;
    let mut walk = begun.map_err(Ended::Unknown)?;
    let replayed = walk.entries(
        async |walk: &mut Walk<'_>, record: Record| {
            let index = record.index;
            walk.replay_record(record).await?;
            if let Some(base) = bases.iter().find(|base| base.index == index) {
                let replayed = walk.replay.content_hash().await;
                let replayed = replayed.map_err(|e| e.to_string())?;
                let held = run::hash_of_base(source, planned, base, &scratch).await?;
                if replayed != held {
                    return Err(format!(
                        "{}: its content has the hash {held}, but the entries before it give {replayed}",
                        planned.folder.base(index)
                    ));
                }
                compared += 1;
            }
            Ok(())
        },
        &mut |_| {},
    )
    .await;
    replayed.map_err(ended)?;
    let (_, report) = walk.finish().await.map_err(ended)?;
    Ok(compared + report.hashes_compared)
}

/// A full disk says nothing about the archive.
fn ended(why: Refusal) -> Ended {
    let is_full = ["No space left", "disk is full", "Disk quota exceeded"]
        .iter()
        .any(|text| why.contains(text));
    match is_full {
        true => Ended::Unknown(why),
        false => Ended::Problem(why),
    }
}

fn text(timeline: &Verified) -> String {
    let mut lines = vec![format!(
        "lineage {} (epoch {}): {}",
        timeline.lineage,
        timeline.epoch,
        match (timeline.problems.is_empty(), timeline.unknown.is_some()) {
            (true, false) => "sound",
            (true, true) => "NOT KNOWN: the check could not be finished",
            (false, _) => "NOT SOUND",
        }
    )];
    lines.push(format!(
        "  {} bases, {} segments, {} entries, index {} to {}",
        timeline.bases, timeline.segments, timeline.entries, timeline.from_index, timeline.to_index
    ));
    lines.extend(timeline.gaps.iter().map(|gap| {
        format!(
            "  gap: entries {} to {} were never archived; points before and after can be restored",
            gap.first, gap.last
        )
    }));
    if let Some(compared) = timeline.contents_compared {
        lines.push(format!(
            "  replayed, {compared} comparisons of content, integrity_check ok"
        ));
    }
    lines.extend(
        timeline
            .problems
            .iter()
            .chain(&timeline.unknown)
            .map(|problem| format!("  {problem}")),
    );
    lines.join("\n")
}
