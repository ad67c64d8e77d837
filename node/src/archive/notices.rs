//! What the leader reports to the other members about the archive, and the entries that it requests from
//! them.
use std::{collections::HashMap, time::Duration};

use futures_util::future::join_all;
use node_contract::Lineage;
use tokio::time::Instant;

use crate::{
    command::logged::LoggedEntry,
    internode::{
        client::Peers,
        messages::{PeerRequest, PeerResponse},
    },
    raft::Consensus,
};

/// Timeout of a notice. A member that misses it keeps its log until the next one.
const NOTICE_LIMIT: Duration = Duration::from_secs(2);
/// A member that did not respond, or does not know the request, gets no notice for this long.
const PAUSE: Duration = Duration::from_secs(10);
/// Timeout of a request for entries.
const ENTRIES_LIMIT: Duration = Duration::from_secs(10);

/// Notifies the other members.
#[derive(Debug, Default)]
pub(super) struct Notices {
    /// Time of the last failure by address.
    failed: HashMap<String, Instant>,
}

impl Notices {
    /// Everything up to `index` is archived.
    pub(super) async fn notify(
        &mut self,
        consensus: &Consensus,
        peers: &Peers,
        (lineage, index, unix_micros): (&Lineage, u64, i64),
    ) {
        self.failed.retain(|_, at| at.elapsed() < PAUSE);
        let addresses = others(consensus);
        let calls = addresses
            .into_iter()
            .filter(|address| !self.failed.contains_key(address))
            .map(|address| async move {
                let request = PeerRequest::Archived {
                    lineage: lineage.clone(),
                    index,
                    unix_micros,
                };
                let answer = peers.call(&address, &request, NOTICE_LIMIT).await;
                let understood = matches!(answer, Ok(PeerResponse::Done(Ok(()))));
                (!understood).then_some(address)
            });
        let failed: Vec<_> = join_all(calls).await;
        let now = Instant::now();
        for address in failed.into_iter().flatten() {
            self.failed.insert(address, now);
        }
    }
}

/// The addresses of the other members.
fn others(consensus: &Consensus) -> Vec<String> {
    let own = consensus.local().raft_id().to_owned();
    let members = consensus.members().into_iter();
    members
        .filter(|(id, ..)| *id.0 != *own)
        .map(|(_, member, _)| member.raft_addr)
        .collect()
}

/// Entries from `from` on that another member still has; empty if no member has them. An error if a member
/// that may have them did not respond.
pub(super) async fn ask_for_entries(
    consensus: &Consensus,
    peers: &Peers,
    lineage: &Lineage,
    from: u64,
) -> Result<Vec<LoggedEntry>, String> {
    let mut unknown = None;
    for address in others(consensus) {
        let request = PeerRequest::LoggedEntries {
            lineage: lineage.clone(),
            from,
        };
        match peers.call(&address, &request, ENTRIES_LIMIT).await {
            Ok(PeerResponse::LoggedEntries(Ok(entries))) => {
                let follow = entries
                    .iter()
                    .map(|entry| entry.index)
                    .eq(from..from + entries.len() as u64);
                if follow && !entries.is_empty() {
                    return Ok(entries);
                }
            }
            Ok(PeerResponse::LoggedEntries(Err(e))) => unknown = Some(format!("{address}: {e}")),
            Ok(_) => unknown = Some(format!("{address}: unexpected response")),
            Err(e) => unknown = Some(e.to_string()),
        }
    }
    unknown.map_or_else(|| Ok(Vec::new()), Err)
}
