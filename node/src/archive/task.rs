//! The task that writes the archive: observes, lets `decide.rs` choose a step, carries it out. It runs on
//! every node; only the leader writes.
use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use node_archive::{
    decide::{BaseFacts, BaseRules, Reason, Resume, base_due, resume},
    documents::{Base, Gap, Timeline, Writer},
    moment::Moment,
    segment::Segment,
};
use node_db::{Database, Hashing};
use node_objects::Created;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Archive,
    base::{self, About},
    chain::{self, Chain},
    decide::{Known, Step, TICK, decide, is_urgent},
    manifest,
    notices::{Notices, ask_for_entries},
    parent,
    pending::{self, Pending, share},
    place::Failure,
    retention::{self, Kept},
    segment::{self, Built},
};
use crate::{
    clock::unix_micros, command::logged::LoggedEntry, identity::Cluster, internode::client::Peers,
    local::Local, metrics::Counter, raft::Consensus, raft::storage::logged::Logged,
};

/// How long other members are asked for entries that this node's log lacks, before the archive continues with
/// a gap.
const SEARCH_LIMIT: Duration = Duration::from_secs(30);
/// Least interval between two manifests.
const MANIFEST_INTERVAL: Duration = Duration::from_secs(60);
/// Number of entries before a base that are searched for its time.
const TIME_SEARCH: u64 = 1000;

/// What the task uses of the node.
#[derive(Debug)]
pub struct Parts {
    /// This node's Raft.
    pub consensus: Consensus,
    /// Its database.
    pub db: Database,
    /// Other nodes.
    pub peers: Peers,
    /// This node.
    pub local: Arc<Local>,
    /// `<data>/raft`.
    pub raft_dir: PathBuf,
    /// `-fk`.
    pub foreign_keys: bool,
}

/// Writes the archive until stopped.
pub async fn run(archive: Archive, parts: Parts, stop: CancellationToken) {
    let mut task = Task {
        archive,
        parts,
        notices: Notices::default(),
        chain: None,
        term: 0,
        looked: false,
        timeline: None,
        proven: false,
        pending: Pending::default(),
        failures: None,
        base_failed: None,
        retained: None,
        searching: None,
        overview: None,
        manifest_written: None,
        noted_hash: None,
    };
    let watched = pending::watch(task.archive.clone(), task.parts.consensus.clone());
    let kept = async { tokio::join!(task.keep(), watched) };
    let _ = stop.run_until_cancelled(kept).await;
}

mod leadership;

struct Task {
    archive: Archive,
    parts: Parts,
    notices: Notices,
    /// The end of the archive; `None` unless this node leads and has read it.
    chain: Option<Chain>,
    /// The term in which it was read.
    term: u64,
    looked: bool,
    /// The document with which the archive begins, as found in this leadership.
    timeline: Option<Timeline>,
    /// [`prove_create_once`](node_objects::Store::prove_create_once) has succeeded.
    proven: bool,
    pending: Pending,
    failures: Option<(u32, Instant)>,
    /// When a base that is due but not urgent last failed, and why.
    base_failed: Option<(Instant, String)>,
    retained: Option<Instant>,
    /// Since when other members are asked for entries that this node's log lacks.
    searching: Option<Instant>,
    /// What the archive had when retention was last applied.
    overview: Option<Kept>,
    manifest_written: Option<Instant>,
    /// Index of the last hash of the content that is in a segment.
    noted_hash: Option<u64>,
}

fn now() -> Moment {
    Moment(i64::try_from(unix_micros()).unwrap_or(i64::MAX))
}

impl Task {
    async fn keep(&mut self) {
        loop {
            let Some(cluster) = self.parts.local.cluster() else {
                tokio::time::sleep(TICK).await;
                continue;
            };
            self.archive.begin(&cluster.lineage);
            let known = self.look();
            let step = decide(&known, &self.archive.settings().limits);
            if let Step::Wait(pause) = step {
                tokio::time::sleep(pause).await;
                continue;
            }
            match self.take(step, &cluster, &known).await {
                Ok(()) => {
                    self.failures = None;
                    let base = self.base_failed.as_ref().map(|(_, why)| why.as_str());
                    self.archive.note_error(base);
                }
                Err(Failure(error)) => self.failed(step, &error),
            }
        }
    }

    fn failed(&mut self, step: Step, error: &str) {
        let before = self.failures.map_or(0, |(count, _)| count);
        if before == 0 {
            tracing::warn!(target: "archive", "{error}; the database goes on, and this is tried again");
        }
        self.archive.metrics().count(Counter::ArchiveFailures);
        self.archive.note_error(Some(error));
        let at = Instant::now();
        match step {
            Step::Base(reason) if !is_urgent(reason) => {
                let error = format!("a base is due and cannot be made: {error}");
                self.archive.note_error(Some(&error));
                self.base_failed = Some((at, error));
            }
            Step::Retain => self.retained = Some(at),
            _ => self.failures = Some((before.saturating_add(1), at)),
        }
    }

    /// Collects what [`decide`] depends on.
    fn look(&mut self) -> Known {
        let consensus = &self.parts.consensus;
        let leads = consensus.leads();
        let term = consensus.leadership().term;
        if !leads || term != self.term {
            self.chain = None;
            self.base_failed = None;
            self.term = term;
            self.retained = None;
        }
        let applied = consensus.applied_index();
        let behind = self.pending.look(consensus, self.next_index());
        let log = consensus.log();
        let held = share(log.range(), log.facts().disk_bytes, behind.entries);
        Known {
            leads,
            looked: self.looked || self.archive.hold().archived().is_some(),
            next: self
                .chain
                .as_ref()
                .map(|chain| chain.start.as_ref().map_or(0, |start| start.first)),
            due: self
                .chain
                .as_ref()
                .and_then(|chain| self.due(chain, applied)),
            asked: self.archive.asked(),
            applied,
            pending_bytes: held,
            pending_for: behind.waited,
            failures: self.failures.map(|(count, at)| (count, at.elapsed())),
            base_failed: self.base_failed.as_ref().map(|(at, _)| at.elapsed()),
            unchecked: self.chain.as_ref().is_some_and(|c| c.links.is_unread()),
            retained: self.retained.map(|at| at.elapsed()),
        }
    }

    fn due(&self, chain: &Chain, applied: u64) -> Option<Reason> {
        let limits = &self.archive.settings().limits;
        let (pages, page_bytes) = self.parts.db.pages();
        let progress = self.parts.consensus.progress();
        let facts = BaseFacts {
            newest: chain.base.as_ref(),
            needed: chain.is_broken,
            has_hole: chain.links.hole().is_some(),
            applied,
            now: now(),
            bytes_since: chain.segment_bytes,
            database_bytes: u64::from(pages) * u64::from(page_bytes),
            writer: &self.writer(),
            replaced_at: Some(progress.load_index.load(Ordering::Acquire)),
        };
        let rules = BaseRules {
            interval_seconds: i64::try_from(limits.base_interval.as_secs()).unwrap_or(i64::MAX),
            bytes: limits.base_bytes,
        };
        base_due(&facts, rules)
    }

    fn next_index(&self) -> Option<u64> {
        let chain = self.chain.as_ref().and_then(|chain| chain.start.as_ref());
        let hold = self.archive.hold().archived();
        chain
            .map(|start| start.first)
            .or_else(|| hold.map(|index| index + 1))
    }

    async fn take(&mut self, step: Step, cluster: &Cluster, known: &Known) -> Result<(), Failure> {
        match step {
            Step::Wait(_) => Ok(()),
            // Only a leader that begins an archive creates the folder.
            Step::Look if self.archive.lacks_folder() => {
                self.looked = true;
                Ok(())
            }
            Step::Look => {
                let chain = chain::read(self.archive.place()?, &cluster.lineage).await?;
                self.looked = true;
                self.note_chain(&chain);
                Ok(())
            }
            Step::Resume => self.resume(cluster).await,
            Step::Segment => self.segment(cluster).await,
            Step::Base(reason) => self.base(reason, cluster, known).await,
            Step::Check => self.check().await,
            Step::Retain => self.retain(cluster).await,
        }
    }

    fn note_chain(&self, chain: &Chain) {
        if let Some(base) = &chain.base {
            self.archive.note_base(base);
        }
        if let Some(start) = &chain.start
            && let Some(last) = start.first.checked_sub(1)
        {
            let time = start.not_before.0;
            self.archive.note_archived(&chain.lineage, last, Some(time));
        }
    }

    async fn notify(&mut self, cluster: &Cluster) {
        let start = self.chain.as_ref().and_then(|chain| chain.start.as_ref());
        let Some((last, time)) =
            start.and_then(|start| Some((start.first.checked_sub(1)?, start.not_before.0)))
        else {
            return;
        };
        let Parts {
            consensus, peers, ..
        } = &self.parts;
        let news = (&cluster.lineage, last, time);
        self.notices.notify(consensus, peers, news).await;
    }

    /// Seals one segment and stores it.
    async fn segment(&mut self, cluster: &Cluster) -> Result<(), Failure> {
        let Some(place) = self.next_segment(cluster) else {
            return Ok(());
        };
        let begun = Instant::now();
        let max_bytes = self.archive.settings().limits.segment_bytes;
        let consensus = self.parts.consensus.clone();
        let from_log = place.clone();
        let building = tokio::task::spawn_blocking(move || {
            segment::from_log(&consensus, &from_log, max_bytes)
        });
        let built = match building.await.map_err(|e| Failure(e.to_string()))?? {
            Built::Purged(first) => match self.search(&place, first, cluster).await? {
                Some(entries) => segment::from_entries(&place, entries)?,
                None => return Ok(()),
            },
            built => built,
        };
        let Built::Segment(segment) = built else {
            return Ok(());
        };
        // If the leadership was lost meanwhile, the successor writes these entries.
        if !self.parts.consensus.leads() {
            return Ok(());
        }
        self.searching = None;
        self.still_there(cluster).await?;
        self.store_segment(*segment).await?;
        self.pending.sealed(self.next_index(), begun);
        self.notify(cluster).await;
        if let Some(kept) = &mut self.overview {
            kept.segments += 1;
        }
        if self.is_manifest_due() {
            self.write_manifest(cluster).await?;
        }
        Ok(())
    }

    fn next_segment(&self, cluster: &Cluster) -> Option<segment::Place> {
        let start = self.chain.as_ref()?.start.clone()?;
        Some(segment::Place {
            lineage: cluster.lineage.clone(),
            writer: self.writer(),
            start,
            hash: self.known_hash(),
        })
    }

    /// The last content hash that this node computed for the cluster (`/db/compare`), unless a segment has it
    /// already.
    fn known_hash(&self) -> Option<(u64, String)> {
        match self.parts.db.hashing() {
            Some((position, Hashing::Done(hash))) if self.noted_hash < Some(position.index) => {
                Some((position.index, hash.to_string()))
            }
            _ => None,
        }
    }

    fn writer(&self) -> Writer {
        Writer {
            sqlite: node_db::sqlite_version().to_owned(),
            sqlite_source_id: node_db::sqlite_source_id().to_owned(),
            rqlited: crate::VERSION.to_owned(),
            format_version: self.parts.local.format_version(),
            foreign_keys: Some(self.parts.foreign_keys),
        }
    }

    async fn store_segment(&mut self, segment: Segment) -> Result<(), Failure> {
        let Some(chain) = &mut self.chain else {
            return Ok(());
        };
        let place = self.archive.place()?;
        let first = segment.header().first;
        let name = chain.folder.segment(first);
        let bytes = segment.encode(&name, place.keys.as_ref())?;
        let size = bytes.len() as u64;
        let (segment, own) = match place.store.create(&name, bytes).await? {
            Created::Yes => (segment, Some(size)),
            // Another leader stored it, or this node did and the response was lost.
            Created::No => match chain::winner(place, &chain.folder, first).await? {
                Ok(segment) => (segment, None),
                Err(why) => {
                    chain.is_broken = true;
                    return Err(Failure(format!(
                        "{why}; a new base is made and the archive goes on behind it"
                    )));
                }
            },
        };
        chain.start = Some(segment.after());
        chain
            .links
            .add(segment.header().first, segment.header().last);
        chain.segment_bytes += size;
        let hashes = segment.header().hashes.iter();
        self.noted_hash = hashes.map(|hash| hash.index).max().max(self.noted_hash);
        let last = segment.header().last_time;
        self.archive.note_segment(segment.header(), own);
        self.note_times(last);
        Ok(())
    }

    /// This node's log begins at `first`, after the next entry to archive. Requests the missing entries from
    /// other members; `None` if none has them, so that the archive cannot be continued without a gap.
    async fn search(
        &mut self,
        place: &segment::Place,
        first: u64,
        cluster: &Cluster,
    ) -> Result<Option<Vec<LoggedEntry>>, Failure> {
        let since = *self.searching.get_or_insert_with(Instant::now);
        let Parts {
            consensus, peers, ..
        } = &self.parts;
        let next = place.start.first;
        let found = ask_for_entries(consensus, peers, &cluster.lineage, next).await;
        match found {
            Ok(entries) if !entries.is_empty() => return Ok(Some(entries)),
            Err(why) if since.elapsed() < SEARCH_LIMIT => {
                return Err(Failure(format!(
                    "the entries from {next} on are no longer in this node's log, and another member that may have them does not answer: {why}"
                )));
            }
            Ok(_) | Err(_) => {}
        }
        self.searching = None;
        let Some(chain) = &mut self.chain else {
            return Ok(None);
        };
        let gap = match resume(Some(&place.start), chain.base.as_ref(), first) {
            Resume::At(start) => {
                let last = start.first.saturating_sub(1);
                chain.start = Some(start);
                Gap { first: next, last }
            }
            Resume::NeedsBase { .. } => {
                chain.is_broken = true;
                let last = first.saturating_sub(1);
                Gap { first: next, last }
            }
        };
        tracing::error!(
            target: "archive",
            "the entries {} to {} were purged from the log before they were archived: no moment between them can be restored. A base begins behind them",
            gap.first, gap.last
        );
        self.archive.note_gap(gap);
        chain.gaps.push(gap);
        Ok(None)
    }

    async fn base(
        &mut self,
        reason: Reason,
        cluster: &Cluster,
        known: &Known,
    ) -> Result<(), Failure> {
        self.still_there(cluster).await?;
        let db = self.parts.db.clone();
        let has_checkpoint = tokio::task::spawn_blocking(move || db.pin().is_some()).await;
        let has_checkpoint = has_checkpoint.map_err(|e| Failure(e.to_string()))?;
        if !has_checkpoint || !is_urgent(reason) {
            let made = self.parts.consensus.checkpoint(&self.parts.db, None).await;
            if let Err(why) = made
                && !has_checkpoint
            {
                return Err(Failure(format!("no base can be made yet: {why}")));
            }
        }
        let db = self.parts.db.clone();
        let pinned = tokio::task::spawn_blocking(move || db.pin()).await;
        let pinned = pinned
            .map_err(|e| Failure(e.to_string()))?
            .ok_or_else(|| Failure("no base can be made yet: no checkpoint".to_owned()))?;
        let index = pinned.position.index;
        let Some(chain) = &self.chain else {
            return Ok(());
        };
        let next = chain.start.as_ref().map_or(0, |start| start.first);
        if chain.is_broken && index.saturating_add(1) < next {
            return Err(Failure(format!(
                "the last checkpoint is at entry {index}, before what is archived ({next}): a base is made after the next one"
            )));
        }
        if let Some(hole) = chain.links.hole().filter(|hole| hole.last > index) {
            return Err(Failure(format!(
                "the last checkpoint is at entry {index}, and the entries up to {} are missing in the archive: a base is made after the next one",
                hole.last
            )));
        }
        let is_new = chain.base.as_ref().is_none_or(|base| base.index < index);
        let base = if is_new {
            let time = self.time_of(index, known.applied).await?;
            let about = About {
                lineage: cluster.lineage.clone(),
                folder: chain.folder.clone(),
                writer: self.writer(),
                reason,
                time,
                now: now(),
            };
            Some(base::make(self.archive.place()?, pinned, about).await?)
        } else {
            None
        };
        self.adopt(base, cluster).await
    }

    /// Continues with a new base, or (`None`) with the old one, because nothing was written since.
    async fn adopt(&mut self, base: Option<Base>, cluster: &Cluster) -> Result<(), Failure> {
        self.base_failed = None;
        let writer = self.writer();
        let Some(chain) = &mut self.chain else {
            return Ok(());
        };
        if let Some(base) = base {
            tracing::info!(target: "archive", "made a base at entry {}: {} bytes, stored as {}", base.index, base.bytes, base.object_bytes);
            self.archive.note_base(&base);
            let metrics = self.archive.metrics();
            metrics.count(Counter::ArchiveBases);
            metrics.add(Counter::ArchiveBaseBytes, base.object_bytes);
            let after = chain::after(&base);
            let continues = chain.start.is_some() && !chain.is_broken;
            let next = chain.start.as_ref().map(|start| start.first);
            if let (true, Some(gap)) = (chain.is_broken, chain.gaps.last_mut())
                && Some(gap.first) == next
            {
                // The entries up to the base are in no segment; only the base's own state can be restored.
                gap.last = gap.last.max(base.index);
                self.archive.extend_gap(*gap);
            }
            if !continues {
                chain.start = Some(after);
            }
            chain.links.based(base.index);
            chain.base = Some(base);
        } else if let Some(base) = &mut chain.base {
            // It holds every applied entry, so its age counts from now.
            base.created_at = now();
            base.writer = writer;
            if chain.is_broken {
                chain.start = Some(chain::after(base));
            }
        }
        chain.segment_bytes = 0;
        chain.is_broken = false;
        let chain = chain.clone();
        self.note_chain(&chain);
        self.retained = None;
        self.notify(cluster).await;
        Ok(())
    }

    /// The time of an entry, which is that of the last request up to it; now, if that is unknown. A base may
    /// be dated too late, but never too early: a restore to an earlier time would then start from a base with
    /// later entries.
    async fn time_of(&self, index: u64, applied: u64) -> Result<Moment, Failure> {
        let consensus = self.parts.consensus.clone();
        let from = index.saturating_sub(TIME_SEARCH);
        let known = self.chain.as_ref().and_then(|chain| chain.start.clone());
        let read = move || -> Result<Option<i64>, Failure> {
            let first = consensus.log().range().map_or(applied, |(first, _)| first);
            let mut next = from.max(first);
            let mut latest = None;
            while next <= index {
                let Logged::Entries(entries) = consensus.applied_entries(next, 1 << 20)? else {
                    break;
                };
                let Some(last) = entries.last().map(|entry| entry.index) else {
                    break;
                };
                for entry in entries.iter().filter(|entry| entry.index <= index) {
                    latest = latest.max(entry.unix_micros()?);
                }
                next = last + 1;
            }
            Ok(latest)
        };
        let found = tokio::task::spawn_blocking(read).await;
        let found = found.map_err(|e| Failure(e.to_string()))??;
        let time = found.map_or_else(now, Moment);
        Ok(match known {
            // Times of archived entries never decrease.
            Some(start) if start.first <= index => time.max(start.not_before),
            _ => time,
        })
    }
}
