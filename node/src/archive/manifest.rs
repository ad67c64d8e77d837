//! The manifest, which tells people what is in the archive. No decision of the writer depends on it, so the
//! last writer may overwrite it.
use node_archive::{
    documents::{self, BaseSummary, FORMAT, Manifest},
    moment::Moment,
};

use node_objects::Metadata;

use super::{
    chain::Chain,
    place::{Failure, Place},
    retention::Kept,
};

pub(super) async fn write(
    place: &Place,
    chain: &Chain,
    kept: &Kept,
    cluster_id: &str,
    now: Moment,
) -> Result<(), Failure> {
    let Some(start) = &chain.start else {
        return Ok(());
    };
    let newest = start.previous.as_ref();
    let manifest = Manifest {
        format: FORMAT,
        cluster_id: cluster_id.to_owned(),
        lineage: chain.lineage.clone(),
        written_at: now,
        archived_index: start.first.saturating_sub(1),
        archived_time: start.not_before,
        oldest_base: kept.oldest.as_ref().map(BaseSummary::from),
        newest_base: chain.base.as_ref().map(BaseSummary::from),
        newest_segment: newest.map(|previous| chain.folder.segment(previous.first)),
        bases: kept.bases,
        segments: kept.segments,
        gaps: chain.gaps.clone(),
    };
    let name = chain.folder.manifest();
    let bytes = documents::encode(&manifest, &name, place.keys.as_ref())?;
    let none = Metadata::new();
    place.store.put(&name, bytes.into(), &none).await?;
    Ok(())
}
