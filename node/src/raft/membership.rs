//! Changes of membership on the leader: admitting, promoting, removing, one at a time.
//!
//! What to change is decided by plain functions of the present members (`plan_join`, `plan_removal`); doing it is a few calls to openraft,
//! repeated while another change is still under way.
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use openraft::{
    ChangeMembers, Instant as _,
    errors::{ChangeMembershipError, ClientWriteError, RaftError},
};

use super::{
    Consensus,
    types::{Member, RaftId, Types},
};

/// Longest wait for another membership change to end.
const CHANGE_LIMIT: Duration = Duration::from_secs(10);
/// Pause between looks at a change under way or a learner catching up.
const CHANGE_PAUSE: Duration = Duration::from_millis(10);
/// A learner this close to the end of the log (in entries, each a batch) may vote: the joint change itself will bring the rest.
const CAUGHT_UP_ENTRIES: u64 = 16;
/// A member heard this recently (in heartbeats) is alive; its name cannot be taken over by another data directory.
const ALIVE_HEARTBEATS: u32 = 2;

/// A present member as the plans see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    /// Raft id.
    pub id: RaftId,
    /// Recorded facts.
    pub member: Member,
    /// It votes now.
    pub voter: bool,
    /// Heard within the last heartbeats.
    pub alive: bool,
}

/// Who asks to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joiner {
    /// Raft id.
    pub id: RaftId,
    /// Advertised Raft address.
    pub raft_addr: String,
    /// Wants to vote.
    pub voter: bool,
}

/// What a join asks of the membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinPlan {
    /// It is a member already, exactly so.
    Nothing,
    /// Remove these records (same name, same address or same data directory), then admit it.
    Admit {
        /// Records to remove first.
        replace: BTreeSet<RaftId>,
    },
    /// Not admitted; why.
    Refuse(String),
}

/// Decides a join. `leader` is the deciding node itself.
pub fn plan_join(members: &[Present], leader: &RaftId, joiner: &Joiner) -> JoinPlan {
    let mut replace = BTreeSet::new();
    for present in members {
        let same_id = present.id == joiner.id;
        let same_name = present.id.name() == joiner.id.name();
        let same_addr = present.member.raft_addr == joiner.raft_addr;
        if same_id && same_addr && present.member.wants_vote == joiner.voter {
            return JoinPlan::Nothing;
        }
        if !(same_name || same_addr || present.id.same_directory(&joiner.id)) {
            continue;
        }
        if present.id == *leader {
            return JoinPlan::Refuse(format!(
                "node ID {} or address {} is that of the leader; give the joining node its own -node-id and -raft-adv-addr",
                joiner.id.name(),
                joiner.raft_addr
            ));
        }
        if same_name && !same_id && !same_addr && present.alive {
            return JoinPlan::Refuse(format!(
                "node ID {} is in use by a live node at {}; give the joining node its own -node-id",
                joiner.id.name(),
                present.member.raft_addr
            ));
        }
        replace.insert(present.id.clone());
    }
    JoinPlan::Admit { replace }
}

/// Decides a removal by node name: the records to remove, or why not.
///
/// # Errors
/// No voter would be left.
pub fn plan_removal(members: &[Present], name: &str) -> Result<BTreeSet<RaftId>, String> {
    let gone: BTreeSet<_> = members
        .iter()
        .filter(|m| m.id.name() == name)
        .map(|m| m.id.clone())
        .collect();
    let voters_left = members
        .iter()
        .filter(|m| m.voter && !gone.contains(&m.id))
        .count();
    if !gone.is_empty() && voters_left == 0 {
        return Err("need at least one voter in configuration: {[]}".into());
    }
    Ok(gone)
}

/// Why a change did not happen, or may not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Ask the leader.
    #[error("not leader")]
    NotLeader,
    /// Not allowed; the text says what to change.
    #[error("{0}")]
    Refused(String),
    /// No quorum in time, or leadership lost: it may still take effect.
    #[error("{0}")]
    Unknown(String),
}

impl Consensus {
    /// The members with what the leader knows of their liveness.
    pub fn present(&self) -> Vec<Present> {
        let alive_limit = self.settings().heartbeat * ALIVE_HEARTBEATS;
        let metrics = self.metrics();
        let heartbeat = metrics.heartbeat.unwrap_or_default();
        self.members()
            .into_iter()
            .map(|(id, member, voter)| {
                let alive = heartbeat
                    .get(&id)
                    .and_then(Option::as_ref)
                    .is_some_and(|at| at.elapsed() < alive_limit);
                Present {
                    id,
                    member,
                    voter,
                    alive,
                }
            })
            .collect()
    }

    /// Admits a node, replacing older records of it. Returns once it is a member; it votes as soon as it has caught up.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn admit(&self, joiner: &Joiner) -> Result<JoinPlan, ChangeError> {
        if !self.leads() {
            return Err(ChangeError::NotLeader);
        }
        let own = RaftId::from(self.local().raft_id());
        let plan = plan_join(&self.present(), &own, joiner);
        match &plan {
            JoinPlan::Nothing => return Ok(plan),
            JoinPlan::Refuse(reason) => return Err(ChangeError::Refused(reason.clone())),
            JoinPlan::Admit { replace } => self.remove_records(replace).await?,
        }
        let member = Member {
            raft_addr: joiner.raft_addr.clone(),
            wants_vote: joiner.voter,
        };
        let add = BTreeMap::from([(joiner.id.clone(), member)]);
        self.change(ChangeMembers::AddNodes(add), true).await?;
        tracing::info!(target: "store", "node {} at {} admitted", joiner.id, joiner.raft_addr);
        Ok(plan)
    }

    /// The address under which the membership knows this node; `None` if it is not a member.
    pub fn recorded_address(&self) -> Option<String> {
        let own = RaftId::from(self.local().raft_id());
        self.members()
            .into_iter()
            .find(|(id, ..)| *id == own)
            .map(|(_, member, _)| member.raft_addr)
    }

    /// As leader: records this node's present address. Others are replaced by joining again; a leader cannot be removed and stay leader.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn record_own_address(&self) -> Result<(), ChangeError> {
        let own = RaftId::from(self.local().raft_id());
        let Some((id, mut member, _)) = self.members().into_iter().find(|(id, ..)| *id == own)
        else {
            return Err(ChangeError::NotLeader);
        };
        member.raft_addr.clone_from(&self.local().raft_addr);
        self.change(
            ChangeMembers::SetNodes(BTreeMap::from([(id, member)])),
            true,
        )
        .await
    }

    /// Removes a member by node name. An unknown name is no error.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn remove(&self, name: &str) -> Result<(), ChangeError> {
        if !self.leads() {
            return Err(ChangeError::NotLeader);
        }
        let gone = plan_removal(&self.present(), name).map_err(ChangeError::Refused)?;
        self.remove_records(&gone).await?;
        if !gone.is_empty() {
            tracing::info!(target: "store", "node {name} removed");
        }
        Ok(())
    }

    pub(super) async fn remove_records(&self, ids: &BTreeSet<RaftId>) -> Result<(), ChangeError> {
        let voters: BTreeSet<_> = self
            .members()
            .into_iter()
            .filter(|(id, _, voter)| *voter && ids.contains(id))
            .map(|(id, ..)| id)
            .collect();
        let learners: BTreeSet<_> = ids.difference(&voters).cloned().collect();
        if !voters.is_empty() {
            self.change(ChangeMembers::RemoveVoters(voters), false)
                .await?;
        }
        if !learners.is_empty() {
            self.change(ChangeMembers::RemoveNodes(learners), false)
                .await?;
        }
        Ok(())
    }

    /// Makes learners voters.
    pub(super) async fn promote(&self, ids: BTreeSet<RaftId>) -> Result<(), ChangeError> {
        self.change(ChangeMembers::AddVoterIds(ids), true).await
    }

    /// Waits until `id` votes, at most `limit`; promotion itself is the keeper's.
    pub async fn wait_for_voter(&self, id: &RaftId, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            if self
                .members()
                .iter()
                .any(|(member, _, voter)| member == id && *voter)
            {
                return true;
            }
            if Instant::now() >= deadline || !self.is_mine() {
                return false;
            }
            tokio::time::sleep(CHANGE_PAUSE).await;
        }
    }

    /// Learners that asked to vote and have caught up.
    pub(super) fn promotable(&self) -> BTreeSet<RaftId> {
        let metrics = self.metrics();
        let last = metrics.last_log_index.unwrap_or(0);
        let replication = metrics.replication.unwrap_or_default();
        self.members()
            .into_iter()
            .filter(|(id, member, voter)| {
                let matched = replication.get(id).copied().flatten().map(|m| m.index);
                !voter
                    && member.wants_vote
                    && matched.is_some_and(|m| m + CAUGHT_UP_ENTRIES >= last)
            })
            .map(|(id, ..)| id)
            .collect()
    }

    /// One change, repeated while another is under way.
    async fn change(
        &self,
        change: ChangeMembers<RaftId, Member>,
        retain: bool,
    ) -> Result<(), ChangeError> {
        let deadline = Instant::now() + CHANGE_LIMIT;
        let _one_at_a_time = self.changing().lock().await;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let attempt =
                tokio::time::timeout(left, self.raft.change_membership(change.clone(), retain))
                    .await;
            let error = match attempt {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => error,
                Err(_) => {
                    return Err(ChangeError::Unknown(
                        "timeout waiting for a quorum; the change may still take effect".into(),
                    ));
                }
            };
            match classify(error) {
                Some(error) => return Err(error),
                None if Instant::now() >= deadline => {
                    return Err(ChangeError::Refused(
                        "another membership change is still under way; try again".into(),
                    ));
                }
                None => tokio::time::sleep(CHANGE_PAUSE).await,
            }
        }
    }
}

/// `None` means: try again.
fn classify(error: RaftError<Types, ClientWriteError<Types>>) -> Option<ChangeError> {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => Some(ChangeError::NotLeader),
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => Some(ChangeError::Unknown(
            "leadership lost while changing the membership".into(),
        )),
        RaftError::APIError(ClientWriteError::ChangeMembershipError(
            ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
        ))
        | RaftError::APIError(ClientWriteError::PreconditionFailed(_)) => None,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(
            ChangeMembershipError::EmptyMembership(_),
        )) => Some(ChangeError::Refused(
            "need at least one voter in configuration: {[]}".into(),
        )),
        RaftError::APIError(e @ ClientWriteError::ChangeMembershipError(_)) => {
            Some(ChangeError::Refused(e.to_string()))
        }
        RaftError::Fatal(fatal) => Some(ChangeError::Unknown(fatal.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present(id: &str, addr: &str, voter: bool, alive: bool) -> Present {
        Present {
            id: id.into(),
            member: Member {
                raft_addr: addr.into(),
                wants_vote: voter,
            },
            voter,
            alive,
        }
    }

    fn joiner(id: &str, addr: &str, voter: bool) -> Joiner {
        Joiner {
            id: id.into(),
            raft_addr: addr.into(),
            voter,
        }
    }

    fn admit(replace: &[&str]) -> JoinPlan {
        JoinPlan::Admit {
            replace: replace.iter().map(|id| RaftId::from(*id)).collect(),
        }
    }

    #[test]
    fn joins() {
        let members = [
            present("a#a1", "a:4002", true, true),
            present("b#b1", "b:4002", true, false),
            present("c#c1", "c:4002", false, true),
        ];
        let leader = RaftId::from("a#a1");
        let cases = [
            ("new", joiner("d#d1", "d:4002", true), admit(&[])),
            (
                "the same again",
                joiner("b#b1", "b:4002", true),
                JoinPlan::Nothing,
            ),
            ("moved", joiner("b#b1", "x:4002", true), admit(&["b#b1"])),
            (
                "its disk was lost",
                joiner("b#b2", "b:4002", true),
                admit(&["b#b1"]),
            ),
            (
                "its disk was lost and it moved",
                joiner("b#b2", "x:4002", true),
                admit(&["b#b1"]),
            ),
            (
                "new name on an old address",
                joiner("e#e1", "b:4002", true),
                admit(&["b#b1"]),
            ),
            (
                "new name and address, same data directory",
                joiner("e#b1", "x:4002", true),
                admit(&["b#b1"]),
            ),
            (
                "name of one, address of another",
                joiner("b#b1", "c:4002", true),
                admit(&["b#b1", "c#c1"]),
            ),
            (
                "read-only becomes voter",
                joiner("c#c1", "c:4002", true),
                admit(&["c#c1"]),
            ),
            (
                "voter becomes read-only",
                joiner("b#b1", "b:4002", false),
                admit(&["b#b1"]),
            ),
        ];
        for (name, joiner, want) in cases {
            assert_eq!(plan_join(&members, &leader, &joiner), want, "{name}");
        }
        for (name, joiner) in [
            ("the leader's name", joiner("a#a2", "x:4002", true)),
            ("the leader's address", joiner("x#x1", "a:4002", true)),
            ("a live node's name", joiner("c#c2", "x:4002", true)),
        ] {
            assert!(
                matches!(plan_join(&members, &leader, &joiner), JoinPlan::Refuse(_)),
                "{name}"
            );
        }
    }

    #[test]
    fn removals() {
        let members = [
            present("a#a1", "a:1", true, true),
            present("b#b1", "b:1", false, true),
        ];
        assert_eq!(
            plan_removal(&members, "b"),
            Ok([RaftId::from("b#b1")].into())
        );
        assert_eq!(plan_removal(&members, "nobody"), Ok(BTreeSet::new()));
        assert!(plan_removal(&members, "a").is_err());
    }
}
