//! Deletes what no restore needs any more. Every time within `retention` stays restorable: the newest base
//! from before it is kept, and everything after that base.
use std::time::{Duration, SystemTime};

use node_archive::{
    decide::{deletable, orphans},
    documents::Base,
    moment::Moment,
    names::{self, Folder},
};

use super::place::{Failure, Place};

/// Parts of an upload in a folder that nobody has written to for this long belong to no running upload.
const UPLOAD_IDLE_SECONDS: i64 = 24 * 3600;

/// What the archive has afterwards.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// Number of objects that were deleted.
    pub(super) deleted: u64,
    /// The oldest base.
    pub(super) oldest: Option<Base>,
    /// Number of bases.
    pub(super) bases: u64,
    /// Number of segments.
    pub(super) segments: u64,
    /// First indexes of the segments, ascending.
    pub(super) firsts: Vec<u64>,
}

/// Deletes what [`deletable`] and [`orphans`] return for `retention`.
pub(super) async fn apply(
    place: &Place,
    folder: &Folder,
    retention: Duration,
    now: Moment,
) -> Result<Kept, Failure> {
    let seconds = i64::try_from(retention.as_secs()).unwrap_or(i64::MAX);
    let reader = place.reader();
    let contents = reader.contents(folder).await?;
    // A node's clock that is ahead must not delete objects that are young by the store's clock.
    let now = now.min(contents.newest);
    let horizon = now.plus_seconds(seconds.saturating_neg());
    let bases = reader.bases(folder, &contents.bases).await?;
    let doomed = deletable(&bases.readable, &contents.segments, horizon);
    let (old, kept): (Vec<Base>, Vec<Base>) = bases
        .readable
        .into_iter()
        .partition(|base| doomed.bases.contains(&base.index));
    // Documents first, so that no document names data that are gone.
    let documents = old.iter().map(|base| folder.base(base.index));
    let data = old
        .iter()
        .map(|base| format!("{}{}", folder.bases(), base.object));
    let segments = doomed.segments.iter().map(|first| folder.segment(*first));
    let mut names: Vec<String> = documents.chain(data).chain(segments).collect();
    // An unreadable document may name any of the data, so none are deleted; a person has to look.
    if bases.refused.is_empty() {
        let all: Vec<Base> = old.iter().chain(&kept).cloned().collect();
        let written = contents.data.iter().map(|listed| {
            let name = listed.name.rsplit('/').next().unwrap_or_default();
            (name, listed.modified)
        });
        let orphans = orphans(written, &all, now);
        names.extend(
            orphans
                .iter()
                .map(|name| format!("{}{name}", folder.bases())),
        );
    }
    for name in &names {
        place.store.delete(name).await?;
    }
    let is_own = |name: &str| names::parse(name).is_some();
    let idle_since = now.plus_seconds(UPLOAD_IDLE_SECONDS.saturating_neg()).0;
    let idle_since = Duration::from_micros(u64::try_from(idle_since).unwrap_or(0));
    let before = SystemTime::UNIX_EPOCH + idle_since;
    let swept = place.store.sweep(folder.as_str(), before, is_own).await?;
    let firsts = contents.segments.get(doomed.segments.len()..);
    let firsts = firsts.unwrap_or_default().to_vec();
    Ok(Kept {
        deleted: names.len() as u64 + swept,
        bases: kept.len() as u64,
        oldest: kept.into_iter().min_by_key(|base| base.index),
        segments: firsts.len() as u64,
        firsts,
    })
}

#[cfg(test)]
mod tests {
    use node_archive::documents::{self, FORMAT, Writer};
    use node_contract::Lineage;
    use node_objects::{Metadata, Store};

    use super::*;

    fn base(index: u64, seconds: i64) -> Base {
        Base {
            format: FORMAT,
            lineage: Lineage {
                id: "a".to_owned(),
                epoch: 0,
            },
            index,
            term: 1,
            time: Moment(seconds * 1_000_000),
            created_at: Moment(0),
            bytes: 1,
            sha256: String::new(),
            pages: 1,
            object: format!("{index:020}-x.db"),
            object_bytes: 1,
            writer: Writer {
                sqlite: String::new(),
                sqlite_source_id: String::new(),
                rqlited: String::new(),
                format_version: 1,
                foreign_keys: None,
            },
            content_hash: None,
            reason: "first".to_owned(),
        }
    }

    async fn place(bases: &[Base], segments: &[u64]) -> (Place, Folder) {
        let store = Store::memory().unwrap();
        let folder = Folder::new(&base(1, 1).lineage).unwrap();
        let none = Metadata::new();
        for base in bases {
            let name = folder.base(base.index);
            let text = documents::encode(base, &name, None).unwrap();
            store.put(&name, text.into(), &none).await.unwrap();
            let data = format!("{}{}", folder.bases(), base.object);
            store.put(&data, "x".into(), &none).await.unwrap();
        }
        for first in segments {
            let name = folder.segment(*first);
            store.put(&name, "x".into(), &none).await.unwrap();
        }
        (Place { store, keys: None }, folder)
    }

    #[tokio::test]
    async fn what_is_kept_and_what_cannot_be_read_is_nobodys_to_delete() {
        let all = [base(10, 100), base(20, 200), base(30, 300)];
        let firsts: Vec<u64> = (1..=40).collect();
        for damaged in [false, true] {
            let (place, folder) = place(&all, &firsts).await;
            if damaged {
                let name = folder.base(10);
                let none = Metadata::new();
                place.store.put(&name, "{".into(), &none).await.unwrap();
            }
            let hour = Duration::from_secs(50);
            let now = Moment(260 * 1_000_000);
            let kept = apply(&place, &folder, hour, now).await.unwrap();
            assert_eq!(kept.oldest.map(|base| base.index), Some(20), "{damaged}");
            assert_eq!((kept.bases, kept.segments), (2, 24));
            let left = place.store.list(&folder.bases(), None).await.unwrap();
            assert_eq!(left.len(), if damaged { 6 } else { 4 }, "{left:?}");
            let again = apply(&place, &folder, hour, now).await.unwrap();
            assert_eq!(again.deleted, 0);
        }
    }

    #[tokio::test]
    async fn a_clock_far_ahead_deletes_nothing() {
        let seconds = i64::try_from(crate::clock::unix_micros() / 1_000_000).unwrap();
        let all = [base(10, seconds - 90), base(20, seconds - 60)];
        let (place, folder) = place(&all, &(1..=40).collect::<Vec<_>>()).await;
        let year = Moment((seconds + 365 * 24 * 3600) * 1_000_000);
        let kept = apply(&place, &folder, Duration::from_secs(3600), year).await;
        let kept = kept.unwrap();
        assert_eq!((kept.deleted, kept.bases), (0, 2));
        assert_eq!(kept.firsts.last(), Some(&40));
    }
}
