//! `rqlited archive drill`: the newest point of an archive is restored, checked and thrown away. What came of
//! it is one line of JSON.
use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use clap::Args;
use node_archive::plan::Target;
use serde::Serialize;

use super::place::{Done, Place, ReplayArgs};
use crate::restore::{
    run::{self, Report},
    source::Refusal,
};

/// Longest error in the result: Kubernetes keeps 4096 bytes of what a pod says, and half a line is no JSON.
const MAX_ERROR_CHARS: usize = 680;

#[derive(Debug, Args)]
pub(super) struct DrillArgs {
    #[command(flatten)]
    pub(super) place: Place,
    #[command(flatten)]
    replay: ReplayArgs,
    /// Directory for the restored database, which is removed again. If not given, the temporary directory.
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Also write the result, one line of JSON, to this file; after a failure `{"error": "..."}`.
    #[arg(long, value_name = "FILE")]
    result_file: Option<PathBuf>,
}

/// What a drill has shown.
#[derive(Debug, Serialize)]
struct Proof {
    /// What was restored: `index` and `time` are how far the archive reached.
    #[serde(flatten)]
    report: Report,
    /// How long it took.
    seconds: f64,
}

#[derive(Serialize)]
struct Failed<'a> {
    error: &'a str,
}

pub(super) async fn run(args: &DrillArgs) -> Result<Done, Refusal> {
    let result = drill(args).await;
    let line = match &result {
        Ok(proof) => serde_json::to_string(proof),
        Err(why) => serde_json::to_string(&Failed { error: &short(why) }),
    };
    let line = line.map_err(|e| format!("writing the result as JSON: {e}"))?;
    if let Some(path) = &args.result_file {
        let written = std::fs::write(path, &line);
        written.map_err(|e| format!("-result-file {}: {e}", path.display()))?;
    }
    let proof = result?;
    Ok(Done::fine(if args.place.json {
        line
    } else {
        text(&proof)
    }))
}

async fn drill(args: &DrillArgs) -> Result<Proof, Refusal> {
    let began = Instant::now();
    let parent = args.scratch.clone().unwrap_or_else(std::env::temp_dir);
    // Removed when it is dropped, whatever the outcome.
    let scratch = tempfile::tempdir_in(&parent);
    let scratch = scratch.map_err(|e| format!("-scratch {}: {e}", parent.display()))?;
    let report = restore(args, scratch.path()).await?;
    Ok(Proof {
        report,
        seconds: began.elapsed().as_secs_f64(),
    })
}

async fn restore(args: &DrillArgs, scratch: &Path) -> Result<Report, Refusal> {
    let source = args.place.open()?;
    let wish = args.replay.wish(&args.place, Target::End);
    let (_, report) = run::restore(&source, &wish, scratch, &mut |_| {}).await?;
    Ok(report)
}

fn short(text: &str) -> String {
    if text.chars().count() <= MAX_ERROR_CHARS {
        return text.to_owned();
    }
    let begin: String = text.chars().take(MAX_ERROR_CHARS).collect();
    format!("{begin}...")
}

fn text(proof: &Proof) -> String {
    let report = &proof.report;
    let hashes = match report.hashes_compared {
        0 => "the archive has no content hash of the cluster to compare with".to_owned(),
        n => format!("{n} content hashes are those of the cluster"),
    };
    format!(
        "the archive restores to index {} ({}), lineage {}: {} entries replayed on the base at {}, integrity_check {}, {hashes}; {:.1} s",
        report.index,
        report.time,
        report.lineage.id,
        report.entries,
        report.base_index,
        report.integrity,
        proof.seconds
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: DrillArgs,
    }

    #[tokio::test]
    async fn a_failure_is_in_the_result_file_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("empty")).unwrap();
        std::fs::create_dir(at("scratch")).unwrap();
        let place = at("empty").display().to_string();
        let config = serde_json::json!({"type": "file", "sub": {"dir": place, "name": "x"}});
        std::fs::write(at("archive.json"), config.to_string()).unwrap();
        let flag = |name: &str, file: &str| format!("--{name}={}", at(file).display());
        let line = Line::parse_from([
            "drill".to_owned(),
            flag("config", "archive.json"),
            flag("scratch", "scratch"),
            flag("result-file", "result"),
        ]);
        let said = run(&line.args).await.err().unwrap();
        assert!(said.contains("there is no archive"), "{said}");
        let written = std::fs::read_to_string(at("result")).unwrap();
        let written: serde_json::Value = serde_json::from_str(&written).unwrap();
        assert_eq!(written["error"], said.as_str());
        assert_eq!(std::fs::read_dir(at("scratch")).unwrap().count(), 0);
    }

    #[test]
    fn a_long_error_leaves_the_result_readable() {
        let long = "\u{00e4}\"\n".repeat(2000);
        let short = short(&long);
        let line = serde_json::to_string(&Failed { error: &short }).unwrap();
        assert!(line.len() <= 4096, "{}", line.len());
        assert!(long.starts_with(short.trim_end_matches("...")));
    }
}
