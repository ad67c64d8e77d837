//! Who answers at a member's address: asked before its record gives way to another data directory.
use std::time::Duration;

use crate::{
    internode::wire::{Connection, Hello, Purpose, WireError},
    local::Local,
    raft::{
        network::server::ANOTHER_DIRECTORY,
        types::{Member, RaftId},
    },
    version,
};

/// A node that restarts, or whose machine is held up for a moment, gets so many chances to answer.
const TRIES: u32 = 3;
/// One try; all of them together stay below the time that a join waits for its answer.
const TRY_LIMIT: Duration = Duration::from_secs(1);
/// Between tries.
const TRY_PAUSE: Duration = Duration::from_millis(500);

/// Who answers where a member is said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The member.
    Itself,
    /// A node with another data directory, so the member is not there any more.
    Another,
    /// Nobody, or nobody that can be understood: it is not known whether the member lives.
    Nobody,
}

/// Asks at the recorded address of the member `id`, and where it said that it has moved to.
pub(super) async fn whereabouts(
    local: &Local,
    id: &RaftId,
    members: &[(RaftId, Member, bool)],
) -> Found {
    let recorded = members.iter().find(|(member, ..)| member == id);
    let recorded = recorded.map(|(_, member, _)| member.raft_addr.clone());
    let mut last = Found::Nobody;
    for attempt in 0..TRIES {
        if attempt > 0 {
            tokio::time::sleep(TRY_PAUSE).await;
        }
        let moved = local.moved_to(&id.0);
        let answers = moved
            .iter()
            .chain(&recorded)
            .map(|address| ask(local, id, address));
        let answers = futures_util::future::join_all(answers).await;
        if answers.contains(&Found::Itself) {
            return Found::Itself;
        }
        last = answers.last().copied().unwrap_or(Found::Nobody);
        if last == Found::Another && moved.is_none() {
            break;
        }
    }
    last
}

async fn ask(local: &Local, id: &RaftId, address: &str) -> Found {
    let hello = Hello {
        purpose: Purpose::Beat,
        from: local.raft_id().to_owned(),
        to: Some(id.to_string()),
        cluster: local.cluster(),
        version: version::NEWEST,
    };
    judge(
        &Connection::dial(address, &hello, TRY_LIMIT)
            .await
            .map(|_| ()),
    )
}

fn judge(answer: &Result<(), WireError>) -> Found {
    match answer {
        Ok(()) => Found::Itself,
        Err(WireError::Refused { reason, .. }) if reason.contains(ANOTHER_DIRECTORY) => {
            Found::Another
        }
        Err(_) => Found::Nobody,
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
        for (answer, want) in [
            (Ok(()), Found::Itself),
            (
                refused("this is b#2, not b#1: its data directory is another one"),
                Found::Another,
            ),
            (refused("too many connections"), Found::Nobody),
            (dial(std::io::ErrorKind::ConnectionRefused), Found::Nobody),
            (dial(std::io::ErrorKind::TimedOut), Found::Nobody),
        ] {
            assert_eq!(judge(&answer), want, "{answer:?}");
        }
    }
}
