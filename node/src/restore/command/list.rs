//! `rqlited archive list`.
use clap::Args;
use node_archive::{documents::Base, moment::Moment};
use serde::Serialize;

use super::place::{Done, Place, pretty};
use crate::restore::source::{Refusal, Source, TimelineAt};

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    pub(super) place: Place,
}

/// One timeline.
#[derive(Debug, Serialize)]
struct Listed {
    lineage: String,
    epoch: u64,
    cluster_id: String,
    created_at: Moment,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<node_archive::documents::Parent>,
    /// The oldest point that can be restored.
    from: Option<Point>,
    /// The newest one.
    to: Option<Point>,
    /// Ranges that were never archived, as the manifest has them.
    gaps: Vec<node_archive::documents::Gap>,
    bases: Vec<ListedBase>,
    segments: usize,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Point {
    index: u64,
    time: Moment,
}

#[derive(Debug, Serialize)]
struct ListedBase {
    index: u64,
    time: Moment,
    bytes: u64,
    object_bytes: u64,
    reason: String,
    sqlite: String,
    rqlited: String,
}

impl From<&Base> for ListedBase {
    fn from(base: &Base) -> Self {
        Self {
            index: base.index,
            time: base.time,
            bytes: base.bytes,
            object_bytes: base.object_bytes,
            reason: base.reason.clone(),
            sqlite: base.writer.sqlite.clone(),
            rqlited: base.writer.rqlited.clone(),
        }
    }
}

pub(super) async fn run(args: &ListArgs) -> Result<Done, Refusal> {
    let source = args.place.open()?;
    let mut found = Vec::new();
    for at in source.timelines(args.place.lineage.as_deref()).await? {
        found.push(listed(&source, at).await?);
    }
    if found.is_empty() {
        return Err(match &args.place.lineage {
            Some(id) => format!("{}: there is no lineage {id}", source.place()),
            None => format!(
                "{}: there is no archive below this prefix: check bucket, prefix and path",
                source.place()
            ),
        });
    }
    Ok(Done::fine(if args.place.json {
        pretty(&serde_json::json!({ "timelines": found }))
    } else {
        found.iter().map(table).collect::<Vec<_>>().join("\n\n")
    }))
}

async fn listed(source: &Source, at: TimelineAt) -> Result<Listed, Refusal> {
    let contents = source.contents(&at.folder).await?;
    let bases = source.bases(&at.folder, &contents.bases).await?;
    if let Some((_, why)) = bases.refused.first() {
        return Err(why.to_string());
    }
    let bases = bases.readable;
    let newest = source.newest(&at.folder, &contents.segments).await?;
    let newest = newest.map(|header| Point {
        index: header.last,
        time: header.last_time,
    });
    let of_base = |base: &Base| Point {
        index: base.index,
        time: base.time,
    };
    let manifest = source.manifest(&at.folder).await?;
    Ok(Listed {
        lineage: at.lineage.id,
        epoch: at.lineage.epoch,
        cluster_id: at.timeline.cluster_id,
        created_at: at.timeline.created_at,
        parent: at.timeline.parent,
        from: bases.first().map(of_base),
        to: [newest, bases.last().map(of_base)]
            .into_iter()
            .flatten()
            .max_by_key(|point| point.index),
        gaps: manifest.map(|manifest| manifest.gaps).unwrap_or_default(),
        bases: bases.iter().map(ListedBase::from).collect(),
        segments: contents.segments.len(),
    })
}

fn table(timeline: &Listed) -> String {
    let point = |point: Option<Point>| {
        point.map_or_else(
            || "nothing yet".to_owned(),
            |point| format!("index {} of {}", point.index, point.time),
        )
    };
    let mut lines = vec![
        format!("lineage   {} (epoch {})", timeline.lineage, timeline.epoch),
        format!("cluster   {}", timeline.cluster_id),
        format!("begun     {}", timeline.created_at),
        format!("from      {}", point(timeline.from)),
        format!("to        {}", point(timeline.to)),
        format!("segments  {}", timeline.segments),
    ];
    if let Some(parent) = &timeline.parent {
        lines.push(format!("continues {} ({})", parent.lineage.id, parent.how));
    }
    for gap in &timeline.gaps {
        lines.push(format!(
            "gap       entries {} to {} were never archived",
            gap.first, gap.last
        ));
    }
    for base in &timeline.bases {
        lines.push(format!(
            "base      index {} of {}, {} bytes ({} stored), SQLite {}, why: {}",
            base.index, base.time, base.bytes, base.object_bytes, base.sqlite, base.reason
        ));
    }
    lines.join("\n")
}
