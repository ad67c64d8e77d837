//! `rqlited archive show`: what entries said and did, so that a person finds the point to restore.
use std::path::PathBuf;

use clap::Args;
use node_archive::{moment::Moment, plan::Target, record::Record};
use serde_json::json;

use super::place::{Done, Place, ReplayArgs, moment, pretty};
use crate::restore::{
    entries::{Shown, add_effects, describe},
    run::{self, Planned, Walk, split},
    source::Refusal,
};

/// Entries shown by default.
const DEFAULT_LIMIT: usize = 1000;

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    replay: ReplayArgs,
    /// From this entry on. If not given, from the newest base before the end of the range.
    #[arg(long, value_name = "INDEX")]
    from_index: Option<u64>,
    /// Up to this entry.
    #[arg(long, value_name = "INDEX", conflicts_with = "to_time")]
    to_index: Option<u64>,
    /// From this time on (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = moment, conflicts_with = "from_index")]
    from_time: Option<Moment>,
    /// Up to this time (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = moment)]
    to_time: Option<Moment>,
    /// Only entries whose statements or parameters contain this text.
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
    /// Show at most so many entries, the last ones.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_LIMIT)]
    limit: usize,
    /// Replay the entries, and show rows affected and errors.
    #[arg(long)]
    effects: bool,
    /// With --effects: directory for the scratch database. If not given, the temporary directory.
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

impl ShowArgs {
    /// What is wrong with the command line.
    pub(super) fn misuse(&self) -> Option<Refusal> {
        if self.limit == 0 {
            return Some("-limit 0 would show nothing: give at least 1".into());
        }
        let indexes = self.from_index.zip(self.to_index);
        if let Some((from, to)) = indexes.filter(|(from, to)| from > to) {
            return Some(format!("-from-index {from} is after -to-index {to}"));
        }
        let times = self.from_time.zip(self.to_time);
        if let Some((from, to)) = times.filter(|(from, to)| from > to) {
            return Some(format!("-from-time {from} is after -to-time {to}"));
        }
        self.place.misuse()
    }

    /// First and last index that were read.
    fn searched(&self, planned: &Planned) -> (u64, u64) {
        let first = planned.plan.base.index.saturating_add(1);
        let first = first.max(self.from_index.unwrap_or(0));
        let last = planned.plan.end.index;
        (first, last.min(self.to_index.unwrap_or(u64::MAX)))
    }

    fn until(&self) -> Target {
        match (self.to_index, self.to_time) {
            (Some(index), _) => Target::Index(index),
            (_, Some(time)) => Target::Time(time),
            (None, None) => Target::End,
        }
    }

    /// Where reading begins: a base before it, so that effects can be replayed.
    fn since(&self) -> Option<Target> {
        match (self.from_index, self.from_time) {
            (Some(index), _) => Some(Target::Index(index.saturating_sub(1))),
            // One microsecond before: an entry of exactly this time is shown.
            (_, Some(time)) => Some(Target::Time(Moment(time.0.saturating_sub(1)))),
            (None, None) => None,
        }
    }

    fn wants(&self, record: &Record) -> bool {
        self.from_index.is_none_or(|from| record.index >= from)
            && self.from_time.is_none_or(|from| record.time >= from)
    }
}

pub(super) async fn run(args: &ShowArgs) -> Result<Done, Refusal> {
    let source = args.place.open()?;
    let wish = args.replay.wish(&args.place, args.until());
    let planned = match args.since() {
        None => run::plan(&source, &wish).await?,
        Some(since) => {
            let planned = run::plan_from(&source, &wish, since).await;
            planned.map_err(|why| match args.from_index {
                Some(from) => format!("-from-index {from}: a base before it is needed: {why}"),
                None => why,
            })?
        }
    };
    let mut shown: std::collections::VecDeque<Shown> = std::collections::VecDeque::new();
    let mut left_out = 0_usize;
    let mut take = |entry: Shown| {
        if args.grep.as_ref().is_none_or(|text| entry.contains(text)) {
            shown.push_back(entry);
            if shown.len() > args.limit {
                shown.pop_front();
                left_out += 1;
            }
        }
    };
    if args.effects {
        let scratch = args.scratch.clone().unwrap_or_else(std::env::temp_dir);
        let mut walk = Walk::begin(&source, &planned, &wish, &scratch).await?;
        walk.entries(
            async |walk: &mut Walk<'_>, record: Record| {
                if !args.wants(&record) {
                    return walk.replay_record(record).await;
                }
                let mut entry = describe(&record);
                walk.note(&record);
                let (position, command) = split(record);
                let outcomes = walk.replay.apply_and_report(position, command).await;
                add_effects(&mut entry, &outcomes.map_err(|e| e.to_string())?);
                take(entry);
                Ok(())
            },
            &mut |_| {},
        )
        .await?;
    } else {
        run::read(&source, &planned, &mut |record| {
            if args.wants(&record) {
                take(describe(&record));
            }
        })
        .await?;
    }
    let (first, last) = args.searched(&planned);
    Ok(Done::fine(if args.place.json {
        pretty(&json!({
            "lineage": planned.lineage,
            "searched": { "first": first, "last": last },
            "entries": shown,
            "left_out": left_out,
        }))
    } else {
        text(
            &shown.into_iter().collect::<Vec<_>>(),
            left_out,
            (first, last),
        )
    }))
}

fn text(shown: &[Shown], left_out: usize, (from, to): (u64, u64)) -> String {
    let Some(first) = shown.first() else {
        return format!(
            "no entry matches among those from {from} to {to}; -from-index and -from-time search from earlier on"
        );
    };
    let mut lines: Vec<String> = shown.iter().map(Shown::lines).collect();
    if left_out > 0 {
        lines.insert(
            0,
            format!("({left_out} earlier entries are left out: see --limit)"),
        );
    }
    lines.push(format!(
        "To restore the database as it was just before entry {0}: rqlited archive restore -before-index {0} -output FILE ...",
        first.index
    ));
    lines.join("\n")
}
