//! Probes a member's addresses before its record is replaced by another data directory.
use std::time::Duration;

use crate::{
    internode::wire::{Connection, Hello, Purpose, WireError},
    local::Local,
    raft::{
        network::server::ANOTHER_DIRECTORY,
        types::{Member as MemberRecord, RaftId},
    },
    version,
};

/// Attempts: a node may be restarting, or its machine may pause for a moment.
const ATTEMPTS: u32 = 3;
/// Limit of one attempt; all attempts together stay below the time that a join waits for its response.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(1);
/// Pause between attempts.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(500);

/// Which node responds at a member's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// The member.
    Member,
    /// A node with another data directory, so the member is not there any more.
    OtherNode,
    /// No response, or none that can be understood: it is unknown whether the member is alive.
    NoResponse,
}

/// Probes the recorded address of the member `id`, and the one that it announced after a move.
pub(super) async fn probe_member(
    local: &Local,
    id: &RaftId,
    members: &[(RaftId, MemberRecord, bool)],
) -> ProbeResult {
    let recorded = members.iter().find(|(member, ..)| member == id);
    let recorded = recorded.map(|(_, member, _)| member.raft_addr.clone());
    let mut last = ProbeResult::NoResponse;
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(ATTEMPT_PAUSE).await;
        }
        let moved = local.moved_to(&id.0);
        let results = moved
            .iter()
            .chain(&recorded)
            .map(|address| probe(local, id, address));
        let results = futures_util::future::join_all(results).await;
        if results.contains(&ProbeResult::Member) {
            return ProbeResult::Member;
        }
        last = results.last().copied().unwrap_or(ProbeResult::NoResponse);
        if last == ProbeResult::OtherNode && moved.is_none() {
            break;
        }
    }
    last
}

async fn probe(local: &Local, id: &RaftId, address: &str) -> ProbeResult {
    let hello = Hello {
        purpose: Purpose::Beat,
        from: local.raft_id().to_owned(),
        to: Some(id.to_string()),
        cluster: local.cluster(),
        version: version::NEWEST,
    };
    classify(
        &Connection::dial(&local.transport, address, &hello, ATTEMPT_LIMIT)
            .await
            .map(|_| ()),
    )
}

fn classify(result: &Result<(), WireError>) -> ProbeResult {
    match result {
        Ok(()) => ProbeResult::Member,
        Err(WireError::Refused { reason, .. }) if reason.contains(ANOTHER_DIRECTORY) => {
            ProbeResult::OtherNode
        }
        Err(_) => ProbeResult::NoResponse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_data_directory_proves_that_the_member_is_gone() {
        let refused = |reason: &str| {
            Err(WireError::Refused {
                address: "b:4002".into(),
                reason: reason.into(),
            })
        };
        let dial = |kind: std::io::ErrorKind| {
            Err(WireError::Dial {
                address: "b:4002".into(),
                source: kind.into(),
            })
        };
        for (result, want) in [
            (Ok(()), ProbeResult::Member),
            (
                refused("this is b#2, not b#1: its data directory is another one"),
                ProbeResult::OtherNode,
            ),
            (refused("too many connections"), ProbeResult::NoResponse),
            (
                dial(std::io::ErrorKind::ConnectionRefused),
                ProbeResult::NoResponse,
            ),
            (dial(std::io::ErrorKind::TimedOut), ProbeResult::NoResponse),
        ] {
            assert_eq!(classify(&result), want, "{result:?}");
        }
    }
}
