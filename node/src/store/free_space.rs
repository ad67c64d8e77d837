//! Free space of the members' disks: the leader collects it, so that a write that does not fit on one of them
//! fails on all alike.
use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Opened, Store, status::within_limit};
use crate::{
    disk::FreeSpace,
    internode::messages::{PeerRequest, PeerResponse},
    parked,
    store_types::StoreError,
};

/// Interval at which leadership is checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Interval of the requests to the members. What is written meanwhile is in no response; a third of the space
/// is left for it.
const REQUEST_INTERVAL: Duration = Duration::from_secs(1);
/// Limit of a request. A member that does not respond is not known to have less space.
const RESPONSE_LIMIT: Duration = Duration::from_secs(2);
/// A member with less than this is full already: it stops by itself, and must not stop the others.
const FULL_BYTES: u64 = 16 << 20;

/// Keeps the leader's view of the members' free space up to date, and deletes parked copies that are not to
/// be kept, until stopped.
pub async fn watch_free_space(store: Store, stop: CancellationToken) {
    let Ok(opened) = store.open() else { return };
    let settings = &store.0.settings;
    let sweeping = parked::keep_sweeping(settings.data_dir.clone(), settings.parked);
    let stopped = stop.clone();
    tokio::spawn(async move { stopped.run_until_cancelled(sweeping).await });
    let mut requested: Option<Instant> = None;
    while stop
        .run_until_cancelled(tokio::time::sleep(CHECK_INTERVAL))
        .await
        .is_some()
    {
        if !opened.consensus.is_mine() {
            if requested.take().is_some() {
                opened.consensus.disk().note_free_space(None);
            }
            continue;
        }
        if requested.is_some_and(|at| at.elapsed() < REQUEST_INTERVAL) {
            continue;
        }
        let first = requested.is_none();
        requested = Some(Instant::now());
        store.request_free_space(opened, first).await;
    }
}

/// The free space of the member with the least, without those that are full already.
fn least(own: u64, others: impl Iterator<Item = u64>) -> u64 {
    others
        .filter(|spare| *spare >= FULL_BYTES)
        .fold(own, u64::min)
}

impl Store {
    async fn request_free_space(&self, opened: &Opened, first: bool) {
        let (pages, page_bytes) = opened.db.pages();
        let Ok(own) = self.spare_bytes().await else {
            return;
        };
        let note = |spare_bytes| {
            if page_bytes > 0 {
                opened.consensus.disk().note_free_space(Some(FreeSpace {
                    spare_bytes,
                    pages,
                    page_bytes,
                }));
            }
        };
        if first {
            note(own);
        }
        let members = opened.consensus.members();
        let others = members
            .iter()
            .filter(|(id, ..)| id.0.as_ref() != self.0.local.raft_id())
            .map(|(_, member, _)| async {
                if self.0.local.format_version() < 2 {
                    return None;
                }
                let requested =
                    self.0
                        .peers
                        .call(&member.raft_addr, &PeerRequest::Room, RESPONSE_LIMIT);
                match requested.await {
                    Ok(PeerResponse::Spare(Ok(spare))) => Some(spare),
                    // A member that does not respond cannot block the others.
                    Ok(_) | Err(_) => None,
                }
            });
        let others = futures_util::future::join_all(others).await;
        note(least(own, others.into_iter().flatten()));
    }

    /// Bytes available on this node's disk beside the reserve.
    ///
    /// # Errors
    /// The disk does not respond.
    pub async fn spare_bytes(&self) -> Result<u64, StoreError> {
        let disk = Arc::clone(self.open()?.consensus.disk());
        within_limit(move || disk.spare_bytes())
            .await
            .ok_or_else(|| StoreError::Refused("the disk does not respond".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_the_least_room() {
        let mib = |n: u64| n << 20;
        for (own, others, expected) in [
            (mib(100), vec![], mib(100)),
            (mib(100), vec![mib(200), mib(50)], mib(50)),
            (mib(100), vec![mib(200), 0], mib(100)),
            (0, vec![mib(200)], 0),
        ] {
            assert_eq!(least(own, others.into_iter()), expected);
        }
    }
}
