//! The beginning of a leadership, and the checks that the archive stays the one that was found then.
use super::{
    Cluster, Failure, Gap, Instant, MANIFEST_INTERVAL, Moment, Task, chain, manifest, now, parent,
    retention,
};

/// How far the times of entries may be ahead of the clock before it is reported.
const CLOCK_TOLERANCE_SECONDS: i64 = 60;

impl Task {
    /// Finds or begins the archive, and where to continue.
    pub(super) async fn resume(&mut self, cluster: &Cluster) -> Result<(), Failure> {
        let known = self.archive.hold().archived();
        if known.is_none() {
            self.archive.make_folder()?;
        }
        let place = self.archive.place()?;
        let there = chain::timeline(place, cluster).await?;
        if there.is_none() && known.is_some() {
            return Err(chain::gone(&cluster.lineage));
        }
        if !self.proven {
            place.store.prove_create_once().await?;
            self.proven = true;
        }
        let timeline = match there {
            Some(timeline) => timeline,
            None => {
                let parent = parent::of(&self.parts.raft_dir, &cluster.lineage);
                chain::create_timeline(place, cluster, parent, now()).await?
            }
        };
        let chain = chain::read(place, &cluster.lineage).await?;
        let end = chain.start.as_ref().and_then(|at| at.first.checked_sub(1));
        if let (false, Some(end), Some(known)) = (chain.is_broken, end, known)
            && end < known
        {
            tracing::error!(target: "archive", "the archive held the entries up to {known}, and now ends with {end}: it continues there, or with a gap if no log holds the next ones");
            self.archive.hold().shrink(end);
        }
        self.note_chain(&chain);
        self.chain = Some(chain);
        self.timeline = Some(timeline);
        self.notify(cluster).await;
        Ok(())
    }

    /// Before something is added: the archive is there, and is the one that was found when this leadership
    /// began. If not, it is searched again.
    pub(super) async fn still_there(&mut self, cluster: &Cluster) -> Result<(), Failure> {
        let place = self.archive.place()?;
        let there = chain::timeline(place, cluster).await;
        let there = match there {
            Ok(there) => there,
            Err(failure) => {
                self.chain = None;
                return Err(failure);
            }
        };
        if there.is_some() && there == self.timeline {
            return Ok(());
        }
        self.chain = None;
        Err(match there {
            None => chain::gone(&cluster.lineage),
            Some(_) => Failure("the archive was replaced by another one of the same cluster: what follows is read from the store again".to_owned()),
        })
    }

    /// Times of entries never decrease in an archive: after a clock that was ahead, they stand still until it
    /// is caught up with.
    pub(super) fn note_times(&self, last: Moment) {
        let ahead = last.seconds_since(now());
        let held = (ahead > CLOCK_TOLERANCE_SECONDS).then_some(last);
        if self.archive.note_times_held(held) {
            tracing::warn!(
                target: "archive",
                "the last archived entry has the time {last}, {ahead} s ahead of this node's clock: until then all entries get that time, and only indexes tell them apart. Check the clocks of the nodes"
            );
        }
    }

    /// Reads the next headers of the segments that were there before.
    pub(super) async fn check(&mut self) -> Result<(), Failure> {
        let place = self.archive.place()?;
        if let Some(chain) = &mut self.chain {
            chain.links.read(place, &chain.folder).await?;
        }
        self.look_for_hole();
        Ok(())
    }

    /// A hole is logged and shown; a base that follows makes what comes after it restorable.
    fn look_for_hole(&mut self) {
        let Some(chain) = &mut self.chain else { return };
        let end = chain.start.as_ref().map_or(0, |start| start.first);
        let found = match &chain.base {
            Some(base) if !chain.is_broken => chain.links.look(base.index, end.saturating_sub(1)),
            _ => None,
        };
        let Some(gap) = found else { return };
        tracing::error!(
            target: "archive",
            "the entries {} to {} were archived, and no segment in the store holds them any more: nothing from there up to the next base can be restored. A base is made now",
            gap.first, gap.last
        );
        note(chain, gap);
        self.archive.note_gap(gap);
    }

    pub(super) async fn retain(&mut self, cluster: &Cluster) -> Result<(), Failure> {
        let Some(chain) = &mut self.chain else {
            return Ok(());
        };
        let retention = self.archive.settings().retention;
        let place = self.archive.place()?;
        let kept = retention::apply(place, &chain.folder, retention, now()).await?;
        if kept.deleted > 0 {
            tracing::info!(target: "archive", "deleted {} objects that are older than {} hours", kept.deleted, retention.as_secs() / 3600);
        }
        self.retained = Some(Instant::now());
        let written = chain
            .start
            .as_ref()
            .and_then(|start| start.previous.as_ref());
        if let Some(written) = written.filter(|written| kept.firsts.last() < Some(&written.first)) {
            let name = chain.folder.segment(written.first);
            // Read the end of the archive again; the log may still hold what is missing.
            self.chain = None;
            return Err(Failure(format!(
                "{name}: the store accepted it, and does not have it: what follows is read from the store again"
            )));
        }
        chain.links.listed(&kept.firsts);
        self.look_for_hole();
        self.overview = Some(retention::Kept {
            firsts: Vec::new(),
            ..kept
        });
        self.write_manifest(cluster).await
    }

    /// Writes the manifest, at most once per [`MANIFEST_INTERVAL`].
    pub(super) async fn write_manifest(&mut self, cluster: &Cluster) -> Result<(), Failure> {
        let (Some(chain), Some(kept)) = (&self.chain, &self.overview) else {
            return Ok(());
        };
        self.manifest_written = Some(Instant::now());
        manifest::write(self.archive.place()?, chain, kept, &cluster.id, now()).await
    }

    pub(super) fn is_manifest_due(&self) -> bool {
        let is_due = |at: Instant| at.elapsed() >= MANIFEST_INTERVAL;
        self.manifest_written.is_none_or(is_due)
    }
}

/// The manifest names each gap once.
fn note(chain: &mut chain::Chain, gap: Gap) {
    if !chain.gaps.contains(&gap) {
        chain.gaps.push(gap);
    }
}
