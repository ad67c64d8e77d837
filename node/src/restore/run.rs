//! One restore: plans it, checks the disk space, fetches the base, replays the entries up to the target, and
//! compares content hashes if the archive has them.
use std::{collections::BTreeMap, fs::File, io::Write as _, path::Path};

use node_archive::{
    documents::Writer,
    moment::Moment,
    names::Folder,
    plan::{Plan, Point, Sequence, Target},
    record::{Kind, Record},
};
use node_contract::Lineage;
use node_db::{ContentHash, Position};
use serde::Serialize;

use super::{
    choose::{Candidate, choose, none_of},
    replay::{Replay, Restored},
    source::{Refusal, Source},
};

/// Bytes of disk for what a replay writes besides the base and the entries: journals, growth at checkpoints.
const MARGIN_BYTES: u64 = 64 << 20;

/// What to restore, and which differences to accept.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The timeline's id, if there are several.
    pub lineage: Option<String>,
    /// The point to restore.
    pub target: Target,
    /// Accept entries that another version of SQLite applied.
    pub allow_other_sqlite: bool,
    /// Whether the cluster enforced foreign keys (`-fk`). Used only if the archive does not record it.
    pub foreign_keys: bool,
    /// `foreign_keys` was given by a person for this archive, so a different record in the archive is an
    /// error.
    pub insists_on_foreign_keys: bool,
}

/// A timeline and the objects that restore a point of it.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Its folder.
    pub folder: Folder,
    /// Id of the cluster.
    pub cluster_id: String,
    /// Its lineage.
    pub lineage: Lineage,
    /// The objects to read.
    pub plan: Plan,
}

/// Progress of a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub enum Progress {
    /// The base is being fetched.
    Base {
        /// Its index.
        index: u64,
        /// Bytes of its database file.
        bytes: u64,
    },
    /// Entries are being replayed.
    Replay {
        /// The last entry that was read.
        index: u64,
        /// The last entry of the segments to read.
        of: u64,
    },
    /// The result is being checked.
    Check,
}

/// What a restore did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Report {
    /// Id of the cluster whose data it is.
    pub cluster_id: String,
    /// Lineage of the timeline.
    pub lineage: Lineage,
    /// The last entry that the database contains.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Its time.
    pub time: Moment,
    /// The base from which it was made.
    pub base_index: u64,
    /// Entries that were replayed on it.
    pub entries: u64,
    /// Content hashes of the archive that were compared with the replay's.
    pub hashes_compared: u64,
    /// Length of the database file.
    pub bytes: u64,
    /// Result of `integrity_check`: always `ok`, since otherwise the restore fails.
    pub integrity: String,
}

/// Lists the archive, and plans the restore.
///
/// # Errors
/// The target cannot be restored; the text says why.
pub async fn plan(source: &Source, wish: &Wish) -> Result<Planned, Refusal> {
    plan_from(source, wish, wish.target).await
}

/// As [`plan()`], but begins with a base at or before `since`, an earlier point.
///
/// # Errors
/// As [`plan()`].
pub async fn plan_from(source: &Source, wish: &Wish, since: Target) -> Result<Planned, Refusal> {
    let wanted = wish.lineage.as_deref();
    let mut candidates = Vec::new();
    for at in source.timelines(wanted).await? {
        let contents = source.contents(&at.folder).await?;
        let bases = source.bases(&at.folder, &contents.bases).await?.readable;
        candidates.push(Candidate { at, bases });
    }
    if let Some(id) = wanted.filter(|_| candidates.is_empty()) {
        return Err(none_of(id, &source.timelines(None).await?));
    }
    let chosen = choose(&candidates, wish.target)?;
    let Candidate { at, .. } = candidates.swap_remove(chosen);
    Ok(Planned {
        plan: source.plan(&at.folder, wish.target, since).await?,
        folder: at.folder,
        cluster_id: at.timeline.cluster_id,
        lineage: at.lineage,
    })
}

/// Estimate of the bytes of disk that a restore takes.
pub fn bytes_needed(plan: &Plan) -> u64 {
    // A load is collected as a file before it replaces the database, so its entries count twice.
    let entries = plan.body_bytes().saturating_mul(2);
    plan.base
        .bytes
        .saturating_add(entries)
        .saturating_add(MARGIN_BYTES)
}

/// Fails if the disk of `dir` has too little space for the restore.
///
/// # Errors
/// Too little space; the text says how much is needed.
pub fn check_room(plan: &Plan, dir: &Path) -> Result<(), Refusal> {
    let (needed, free) = (
        bytes_needed(plan),
        fs4::available_space(dir).unwrap_or(u64::MAX),
    );
    if free >= needed {
        return Ok(());
    }
    Err(format!(
        "not enough space in {}: the restore takes {needed} bytes, {free} are free",
        dir.display()
    ))
}

/// Refuses entries that were applied by another version of SQLite than this program's, which may give other
/// results.
async fn check_sqlite(source: &Source, planned: &Planned, wish: &Wish) -> Result<(), Refusal> {
    let Planned { plan, folder, .. } = planned;
    let own = (node_db::sqlite_version(), node_db::sqlite_source_id());
    let differs = |writer: &Writer| {
        writer.sqlite != own.0
            || (!writer.sqlite_source_id.is_empty() && writer.sqlite_source_id != own.1)
    };
    if wish.allow_other_sqlite || wish.target == Target::Index(plan.base.index) {
        return Ok(());
    }
    match plan.segments.iter().find(|header| differs(&header.writer)) {
        None => Ok(()),
        Some(header) => {
            // A header read alone is unverified: before it is believed, the whole segment is read.
            source.segment(folder, header.first).await?;
            Err(format!(
                "{}: entries {} to {} were applied by SQLite {} ({}) of rqlited {}, and this rqlited has SQLite {}: replayed here, they \
             may give another result. Use that rqlited, restore a point that a later base holds, or accept it with -allow-other-sqlite",
                folder.segment(header.first),
                header.first,
                header.last,
                header.writer.sqlite,
                header.writer.sqlite_source_id,
                header.writer.rqlited,
                own.0
            ))
        }
    }
}

/// Whether the entries of a plan are replayed with foreign keys enforced: as the archive records, or as
/// `wish` says if it does not. One answer for the whole replay, because a database is opened with or without.
///
/// # Errors
/// Some entries were applied with and some without, or otherwise than a person said.
pub fn foreign_keys(folder: &Folder, plan: &Plan, wish: &Wish) -> Result<bool, Refusal> {
    let known = plan.segments.iter();
    let known = known.filter_map(|header| Some((header, header.writer.foreign_keys?)));
    let mut known = known.peekable();
    let Some((first, enforced)) = known.peek().copied() else {
        return Ok(wish.foreign_keys);
    };
    let word = |enforced| if enforced { "with" } else { "without" };
    if let Some((other, _)) = known.find(|(_, found)| *found != enforced) {
        return Err(format!(
            "{}: entries {} to {} were applied {} foreign keys enforced (-fk), but those of {} {}: no replay can do both. Restore a point \
             before entry {}, or one that a base after it holds",
            folder.segment(other.first),
            other.first,
            other.last,
            word(!enforced),
            folder.segment(first.first),
            word(enforced),
            other.first
        ));
    }
    if wish.insists_on_foreign_keys && wish.foreign_keys != enforced {
        return Err(format!(
            "{}: its entries were applied {} foreign keys enforced, as the archive says: leave -fk away, the replay does the same by itself",
            folder.segment(first.first),
            word(enforced)
        ));
    }
    Ok(enforced)
}

/// Carries out a plan, entry by entry.
pub struct Walk<'a> {
    source: &'a Source,
    planned: &'a Planned,
    /// The scratch database.
    pub replay: Replay,
    hashes: BTreeMap<u64, String>,
    compared: u64,
    entries: u64,
    time: Moment,
}

impl<'a> Walk<'a> {
    /// Fetches the base into a scratch database inside `dir`.
    ///
    /// # Errors
    /// Another version of SQLite or foreign keys (see [`Wish`]), too little disk space, a damaged object, or
    /// the file system's error.
    pub async fn begin(
        source: &'a Source,
        planned: &'a Planned,
        wish: &Wish,
        dir: &Path,
    ) -> Result<Self, Refusal> {
        let Planned { plan, folder, .. } = planned;
        check_sqlite(source, planned, wish).await?;
        check_room(plan, dir)?;
        let hashes = known_hashes(plan)?;
        let replay = Replay::begin(dir, foreign_keys(folder, plan, wish)?);
        let mut replay = replay.map_err(|e| e.to_string())?;
        let path = replay.base_path();
        let failed = |e: std::io::Error| format!("{}: {e}", path.display());
        let mut file = File::create(&path).map_err(failed)?;
        let written = source.base_data(folder, &plan.base, |piece| file.write_all(piece));
        written.await?;
        drop(file);
        let position = Position {
            term: plan.base.term,
            index: plan.base.index,
        };
        let version = plan.base.writer.format_version;
        let installed = replay.install(position, version).await;
        installed.map_err(|e| format!("{}: {e}", folder.base(plan.base.index)))?;
        let mut walk = Self {
            source,
            planned,
            replay,
            hashes,
            compared: 0,
            entries: 0,
            time: plan.base.time,
        };
        walk.compare(plan.base.index).await?;
        Ok(walk)
    }

    async fn compare(&mut self, index: u64) -> Result<(), Refusal> {
        let Some(expected) = self.hashes.get(&index).cloned() else {
            return Ok(());
        };
        let got = self.replay.content_hash().await;
        let got = got.map_err(|e| e.to_string())?.to_string();
        if got != expected {
            return Err(format!(
                "the content at entry {index} has the hash {got}, but the cluster's was {expected}: the base {} or the \
                 entries after it do not give what the cluster had. Try another base: a point before or well after it",
                self.planned.folder.base(self.planned.plan.base.index)
            ));
        }
        self.compared += 1;
        Ok(())
    }

    /// Reads all entries up to the target. `each` replays them, see [`Self::replay_record`].
    ///
    /// # Errors
    /// A damaged or foreign object, an entry that cannot be applied, an error of `each`.
    pub async fn entries(
        &mut self,
        mut each: impl AsyncFnMut(&mut Self, Record) -> Result<(), Refusal>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Refusal> {
        let Planned { plan, folder, .. } = self.planned;
        let mut sequence = Sequence::after(&plan.base);
        for header in &plan.segments {
            let name = folder.segment(header.first);
            let segment = self.source.segment(folder, header.first).await?;
            sequence
                .follow(&name, &segment)
                .map_err(|e| e.to_string())?;
            for record in segment.records().map_err(|e| e.to_string())? {
                let record = record.map_err(|e| e.to_string())?;
                if plan.is_after(&record) {
                    return Ok(());
                }
                if plan.includes(&record) {
                    each(self, record).await?;
                }
            }
            progress(Progress::Replay {
                index: header.last,
                of: plan.end.index,
            });
        }
        Ok(())
    }

    /// Replays one entry, together with others where that is faster.
    ///
    /// # Errors
    /// The entry cannot be applied, or the content hash after it differs from the cluster's.
    pub async fn replay_record(&mut self, record: Record) -> Result<(), Refusal> {
        let index = record.index;
        self.note(&record);
        let (position, command) = split(record);
        let applied = self.replay.apply(position, command).await;
        applied.map_err(|e| e.to_string())?;
        self.compare(index).await
    }

    /// Counts an entry that the caller replays itself.
    pub fn note(&mut self, record: &Record) {
        self.entries += 1;
        self.time = record.time;
    }

    /// Ends the replay and checks the result.
    ///
    /// # Errors
    /// The file system's error, or the database is damaged.
    pub async fn finish(self) -> Result<(Restored, Report), Refusal> {
        let restored = self.replay.finish().await.map_err(|e| e.to_string())?;
        let report = Report {
            cluster_id: self.planned.cluster_id.clone(),
            lineage: self.planned.lineage.clone(),
            index: restored.position.index,
            term: restored.position.term,
            time: self.time,
            base_index: self.planned.plan.base.index,
            entries: self.entries,
            hashes_compared: self.compared,
            bytes: restored.bytes,
            integrity: "ok".into(),
        };
        Ok((restored, report))
    }
}

/// Reads all entries of a plan without replaying them.
///
/// # Errors
/// A damaged or foreign object.
pub async fn read(
    source: &Source,
    planned: &Planned,
    each: &mut dyn FnMut(Record),
) -> Result<(), Refusal> {
    let Planned { plan, folder, .. } = planned;
    let mut sequence = Sequence::after(&plan.base);
    for header in &plan.segments {
        let name = folder.segment(header.first);
        let segment = source.segment(folder, header.first).await?;
        sequence
            .follow(&name, &segment)
            .map_err(|e| e.to_string())?;
        for record in segment.records().map_err(|e| e.to_string())? {
            let record = record.map_err(|e| e.to_string())?;
            if plan.includes(&record) {
                each(record);
            }
        }
    }
    Ok(())
}

/// The last entry that a plan includes; that of the base if no segment has one.
///
/// # Errors
/// A damaged or foreign object.
pub async fn point(source: &Source, planned: &Planned) -> Result<Point, Refusal> {
    let Planned { plan, folder, .. } = planned;
    let mut point = Point {
        index: plan.base.index,
        time: plan.base.time,
    };
    // The last segment may begin after the target; then the one before it ends at or before the target.
    for header in plan.segments.iter().rev().take(2).rev() {
        let segment = source.segment(folder, header.first).await?;
        for record in segment.records().map_err(|e| e.to_string())? {
            let record = record.map_err(|e| e.to_string())?;
            if plan.includes(&record) {
                point = Point {
                    index: record.index,
                    time: record.time,
                };
            }
        }
    }
    Ok(point)
}

/// The content hash of a base's database, fetched into a temporary file.
///
/// # Errors
/// A damaged object, or the file system's or SQLite's error.
pub async fn hash_of_base(
    source: &Source,
    planned: &Planned,
    base: &node_archive::documents::Base,
    dir: &Path,
) -> Result<ContentHash, Refusal> {
    let io = |e: std::io::Error| format!("{}: {e}", dir.display());
    let scratch = tempfile::tempdir_in(dir).map_err(io)?;
    let path = scratch.path().join("base.db");
    let mut file = File::create(&path).map_err(io)?;
    let written = source.base_data(&planned.folder, base, |piece| file.write_all(piece));
    written.await?;
    drop(file);
    let hashed = tokio::task::spawn_blocking(move || node_db::hash_file(&path)).await;
    hashed
        .map_err(|e| e.to_string())?
        .map_err(|e| format!("{}: {e}", planned.folder.base(base.index)))
}

/// Position and command of an entry for the replay. Membership entries have no command: they do not concern
/// the database.
pub fn split(record: Record) -> (Position, Option<bytes::Bytes>) {
    let position = Position {
        term: record.term,
        index: record.index,
    };
    (
        position,
        (record.kind == Kind::Command).then_some(record.content),
    )
}

/// The content hashes of the base and the segments, by index.
fn known_hashes(plan: &Plan) -> Result<BTreeMap<u64, String>, Refusal> {
    let mut hashes: BTreeMap<u64, String> = BTreeMap::new();
    let of_base = plan.base.content_hash.clone();
    let of_base = of_base.map(|hash| (plan.base.index, hash));
    let of_segments = plan.segments.iter().flat_map(|header| &header.hashes);
    let of_segments = of_segments.map(|known| (known.index, known.hash.clone()));
    for (index, hash) in of_base.into_iter().chain(of_segments) {
        if let Some(other) = hashes.insert(index, hash.clone())
            && other != hash
        {
            return Err(format!(
                "the archive has two content hashes at entry {index}, {other} and {hash}: some object was exchanged"
            ));
        }
    }
    Ok(hashes)
}

/// Restores into a scratch directory inside `dir`.
///
/// # Errors
/// See [`plan()`] and [`Walk`].
pub async fn restore(
    source: &Source,
    wish: &Wish,
    dir: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<(Restored, Report), Refusal> {
    let planned = plan(source, wish).await?;
    progress(Progress::Base {
        index: planned.plan.base.index,
        bytes: planned.plan.base.bytes,
    });
    let mut walk = Walk::begin(source, &planned, wish, dir).await?;
    walk.entries(
        async |walk: &mut Walk<'_>, record| walk.replay_record(record).await,
        progress,
    )
    .await?;
    progress(Progress::Check);
    walk.finish().await
}
