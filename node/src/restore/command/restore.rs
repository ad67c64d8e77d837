//! `rqlited archive restore`.
use std::{
    io::{BufRead as _, Read as _, Write as _},
    path::PathBuf,
};

use clap::Args;
use node_archive::{moment::Moment, plan::Target};
use serde_json::json;

use super::place::{Done, Place, ReplayArgs, moment, pretty};
use crate::restore::{
    output::Output,
    run::{self, Progress},
    source::{Refusal, Source, read_keys},
};

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    replay: ReplayArgs,
    /// The database as this entry left it.
    #[arg(long, value_name = "INDEX", conflicts_with_all = ["to_time", "before_index"])]
    to_index: Option<u64>,
    /// The database as it was just before this entry: `archive show` finds it.
    #[arg(long, value_name = "INDEX", conflicts_with = "to_time")]
    before_index: Option<u64>,
    /// The database as of this time (RFC 3339): the last entry not after it.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    to_time: Option<Moment>,
    /// The new database file. Nothing is ever overwritten.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Only say what would be restored.
    #[arg(long)]
    dry_run: bool,
    /// For the node, which runs this for itself: the configuration comes on standard input, whose end ends
    /// the restore; progress goes to standard output.
    #[arg(long, hide = true)]
    supervised: bool,
}

impl RestoreArgs {
    /// What is wrong with the command line.
    pub(super) fn misuse(&self) -> Option<Refusal> {
        if !self.supervised && self.place.config.is_none() {
            return self.place.misuse();
        }
        let lacks = self.output.is_none() && !self.dry_run;
        lacks.then(|| "-output is missing: the database file to make".into())
    }

    fn target(&self) -> Result<Target, Refusal> {
        Ok(match (self.to_index, self.before_index, self.to_time) {
            (Some(index), ..) => Target::Index(index),
            (_, Some(0), _) => return Err("there is nothing before index 0".into()),
            (_, Some(index), _) => Target::Index(index - 1),
            (_, _, Some(time)) => Target::Time(time),
            (None, None, None) => Target::End,
        })
    }
}

pub(super) async fn run(args: &RestoreArgs) -> Result<Done, Refusal> {
    let mut wish = args.replay.wish(&args.place, args.target()?);
    // A node says how it is configured, not how the archive was made.
    wish.insists_on_foreign_keys &= !args.supervised;
    let source = if args.supervised {
        supervised(args)?
    } else {
        args.place.open()?
    };
    if args.dry_run {
        return dry_run(args, &source, &wish).await;
    }
    let Some(path) = &args.output else {
        return Err(args.misuse().unwrap_or_default());
    };
    let output = Output::new(path).map_err(|e| e.to_string())?;
    let mut report_progress = |progress: Progress| {
        if args.supervised {
            // The node that reads it may be gone; then standard input ends, too.
            let _ = writeln!(std::io::stdout(), "{}", json!({ "progress": progress }));
        }
    };
    let restored = run::restore(&source, &wish, output.dir(), &mut report_progress).await;
    let (restored, report) = restored?;
    output
        .place(restored.path.clone())
        .map_err(|e| e.to_string())?;
    let shown = output.path().display().to_string();
    Ok(Done::fine(if args.supervised {
        json!({ "report": report }).to_string()
    } else if args.place.json {
        let mut value = json!(report);
        if let Some(object) = value.as_object_mut() {
            object.insert("output".into(), shown.into());
        }
        pretty(&value)
    } else {
        format!(
            "{shown}: the database as of index {} ({}), lineage {}; {} entries replayed on the base at {}, {} content hashes compared, integrity_check ok",
            report.index,
            report.time,
            report.lineage.id,
            report.entries,
            report.base_index,
            report.hashes_compared
        )
    }))
}

async fn dry_run(args: &RestoreArgs, source: &Source, wish: &run::Wish) -> Result<Done, Refusal> {
    let planned = run::plan(source, wish).await?;
    let plan = &planned.plan;
    let entries = plan.end.index.saturating_sub(plan.base.index);
    let needed = run::bytes_needed(plan);
    Ok(Done::fine(if args.place.json {
        pretty(&json!({
            "cluster_id": planned.cluster_id,
            "lineage": planned.lineage,
            "base_index": plan.base.index,
            "base_bytes": plan.base.bytes,
            "segments": plan.segments.len(),
            "end_index": plan.end.index,
            "end_time": plan.end.time,
            "needed_bytes": needed,
        }))
    } else {
        format!(
            "{} would be restored from the base at index {} ({} bytes) and at most {entries} entries in {} segments; it takes {needed} bytes of disk",
            plan.target,
            plan.base.index,
            plan.base.bytes,
            plan.segments.len()
        )
    }))
}

/// Reads the configuration from the node, and from then on ends this process when the node has ended.
fn supervised(args: &RestoreArgs) -> Result<Source, Refusal> {
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    read.map_err(|e| format!("reading the configuration: {e}"))?;
    let mut config: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&line).map_err(|e| format!("reading the configuration: {e}"))?;
    let (kind, sub) = node_objects::config::take_target(&mut config).map_err(|e| e.to_string())?;
    let target = node_objects::Target::from_json(&kind, sub, node_objects::Use::Prefix);
    let target = target.map_err(|e| e.to_string())?;
    let keys = read_keys(args.place.key_file.as_deref())?;
    let store = target.open().map_err(|e| e.to_string())?;
    #[expect(
        clippy::exit,
        reason = "nothing of this process is worth keeping once its node is gone"
    )]
    std::thread::spawn(|| {
        let mut rest = [0; 64];
        while std::io::stdin().read(&mut rest).is_ok_and(|got| got > 0) {}
        std::process::exit(1)
    });
    Ok(Source::new(store, keys))
}
