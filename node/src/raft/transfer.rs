//! Leadership transfer: choosing the target, and waiting until it leads.
use std::time::Duration;

use openraft::Instant as _;

use super::{consensus::Consensus, membership::ChangeError, types::RaftId};

/// A transfer needs one vote round. If the target died meanwhile, an ordinary election replaces it within
/// this time. No longer, because in a cluster that stops as a whole no target is left.
const TRANSFER_LIMIT: Duration = Duration::from_secs(2);
/// A target that has not responded for this many heartbeats would make everybody wait for an election.
const TARGET_HEARTBEATS: u32 = 5;

/// A voter that could become the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Raft id.
    pub id: RaftId,
    /// The last entry known to be in its log.
    pub matched: Option<u64>,
    /// It responded recently.
    pub alive: bool,
}

/// Chooses the target: the named voter, or the live one with the longest log.
///
/// # Errors
/// With rqlite's texts.
pub fn choose_target(
    own: &RaftId,
    voters: &[Candidate],
    to: Option<&str>,
) -> Result<RaftId, String> {
    if let Some(name) = to {
        if own.name() == name {
            return Err("stepdown: cannot step down to the current Leader".into());
        }
        let named = voters.iter().find(|c| c.id.name() == name);
        return named
            .map(|c| c.id.clone())
            .ok_or_else(|| "stepdown: node not found in cluster".into());
    }
    let best = voters
        .iter()
        .filter(|c| c.id != *own)
        .max_by_key(|c| (c.alive, c.matched));
    best.map(|c| c.id.clone())
        .ok_or_else(|| "stepdown: cannot find peer".into())
}

impl Consensus {
    /// Transfers leadership to the named node or the best one, and waits until another node leads.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn transfer_leadership(&self, to: Option<&str>) -> Result<(), ChangeError> {
        if !self.is_mine() {
            return Err(ChangeError::NotLeader);
        }
        let own = RaftId::from(self.local().raft_id());
        let target = choose_target(&own, &self.candidates(), to).map_err(ChangeError::Refused)?;
        let mut leadership = self.watch_leadership();
        let fatal = |e: &dyn std::fmt::Display| ChangeError::Unknown(e.to_string());
        self.raft
            .trigger()
            .transfer_leader(target.clone())
            .await
            .map_err(|e| fatal(&e))?;
        let taken = leadership.wait_for(|l| l.leader.is_some() && !l.mine);
        match tokio::time::timeout(TRANSFER_LIMIT, taken).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => Err(fatal(&e)),
            Err(_) => Err(ChangeError::Unknown(format!(
                "stepdown: node {} did not take over in time",
                target.name()
            ))),
        }
    }

    fn candidates(&self) -> Vec<Candidate> {
        let metrics = self.metrics();
        let (heartbeat, replication) = (
            metrics.heartbeat.unwrap_or_default(),
            metrics.replication.unwrap_or_default(),
        );
        let recently = self.settings().heartbeat * TARGET_HEARTBEATS;
        self.members()
            .into_iter()
            .filter(|(_, _, voter)| *voter)
            .map(|(id, ..)| Candidate {
                matched: replication.get(&id).copied().flatten().map(|m| m.index),
                alive: heartbeat
                    .get(&id)
                    .and_then(Option::as_ref)
                    .is_some_and(|at| at.elapsed() < recently),
                id,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let own = RaftId::from("a#1");
        let candidate = |id: &str, matched, alive| Candidate {
            id: id.into(),
            matched,
            alive,
        };
        let voters = [
            candidate("a#1", Some(9), true),
            candidate("b#1", Some(7), true),
            candidate("c#1", Some(8), false),
        ];
        assert_eq!(
            choose_target(&own, &voters, None),
            Ok("b#1".into()),
            "a live one before a longer log"
        );
        assert_eq!(choose_target(&own, &voters, Some("c")), Ok("c#1".into()));
        assert_eq!(
            choose_target(&own, &voters, Some("a")),
            Err("stepdown: cannot step down to the current Leader".into())
        );
        assert_eq!(
            choose_target(&own, &voters, Some("z")),
            Err("stepdown: node not found in cluster".into())
        );
        assert_eq!(
            choose_target(&own, &voters[..1], None),
            Err("stepdown: cannot find peer".into())
        );
    }
}
