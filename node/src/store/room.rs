//! What the members' disks can spare: the leader asks them, so that a write that does not fit one of them fails on all alike.
use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Opened, Store, status::within_limit};
use crate::{
    disk::Room,
    internode::messages::{PeerRequest, PeerResponse},
    stop::stopped_within,
    store_types::StoreError,
};

/// How often it is looked whether this node leads.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How often the members are asked. What is written meanwhile is in nobody's answer; a third of the room is left for it.
const ASK_INTERVAL: Duration = Duration::from_secs(1);
/// Who does not answer by then is not known to have less room.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// A member with less to spare is full already: it stops by itself, and must not stop the others.
const FULL_BYTES: u64 = 16 << 20;

/// Keeps the leader's knowledge of the members' room, until stopped.
pub async fn watch_room(store: Store, stop: CancellationToken) {
    let Ok(opened) = store.open() else { return };
    let mut asked: Option<Instant> = None;
    while !stopped_within(&stop, LOOK_INTERVAL).await {
        if !opened.consensus.is_mine() {
            if asked.take().is_some() {
                opened.consensus.disk().note_room(None);
            }
            continue;
        }
        if asked.is_some_and(|at| at.elapsed() < ASK_INTERVAL) {
            continue;
        }
        let first = asked.is_none();
        asked = Some(Instant::now());
        store.ask_for_room(opened, first).await;
    }
}

/// The room of the member that has the least, of those that are not full already.
fn least(own: u64, others: impl Iterator<Item = u64>) -> u64 {
    others
        .filter(|spare| *spare >= FULL_BYTES)
        .fold(own, u64::min)
}

impl Store {
    async fn ask_for_room(&self, opened: &Opened, first: bool) {
        let (pages, page_bytes) = opened.db.pages();
        let Ok(own) = self.spare_bytes().await else {
            return;
        };
        let note = |spare_bytes| {
            if page_bytes > 0 {
                opened.consensus.disk().note_room(Some(Room {
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
                let asked = self
                    .0
                    .peers
                    .call(&member.raft_addr, &PeerRequest::Room, ANSWER_LIMIT);
                match asked.await {
                    Ok(PeerResponse::Spare(Ok(spare))) => Some(spare),
                    // Who is away cannot hold up the others.
                    Ok(_) | Err(_) => None,
                }
            });
        let others = futures_util::future::join_all(others).await;
        note(least(own, others.into_iter().flatten()));
    }

    /// Bytes of this node's disk that may be used beside the reserve.
    ///
    /// # Errors
    /// The disk does not answer.
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
