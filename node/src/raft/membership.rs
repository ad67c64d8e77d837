//! Changes of membership on the leader: admitting, promoting, removing, one at a time.
//!
//! What to change is decided by plain functions of the present members (`plan_join`, `plan_removal`); doing it is a few calls to openraft,
//! repeated while another change is still under way.
mod address_probe;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod walk;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use openraft::{
    ChangeMembers, Instant as _,
    errors::{ChangeMembershipError, ClientWriteError, RaftError},
};

use self::address_probe::{Found, whereabouts};
use super::{
    consensus::Consensus,
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
/// A member where nobody answers may be restarting, or cut off from the leader alone. Silent for this long, it gives way to another data
/// directory with its name or address; a join is tried for longer than that by default (`-join-attempts` of `-join-interval`).
const GONE_AFTER: Duration = Duration::from_secs(10);

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
    /// For how long this leader has not heard it; `None` as long as that says nothing about the member.
    pub silent: Option<Duration>,
    /// Who answers at its address, once that was asked.
    pub found: Option<Found>,
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
    /// It is a member: record its address, and that it wants to vote if it does. Its vote, or that it has none, stays as it is.
    Record,
    /// Remove these records (same name, same address or same data directory), then admit it.
    Admit {
        /// Records to remove first.
        replace: BTreeSet<RaftId>,
    },
    /// First ask who answers at the addresses of these members; then decide again.
    Ask(BTreeSet<RaftId>),
    /// Not admitted; why.
    Refuse(String),
}

/// Decides a join. `leader` is the deciding node itself.
pub fn plan_join(members: &[Present], leader: &RaftId, joiner: &Joiner) -> JoinPlan {
    let known = members.iter().find(|present| present.id == joiner.id);
    if let Some(present) = known {
        let member = &present.member;
        if member.raft_addr == joiner.raft_addr && member.wants_vote == joiner.voter {
            return JoinPlan::Nothing;
        }
        // The same data directory elsewhere. An address is not a vote: to take the vote away and give it again would need a majority
        // of the others. Whoever else is recorded at that address says himself where he is now, or is removed as silent.
        let gives_up_a_vote = !joiner.voter && (present.voter || member.wants_vote);
        if !gives_up_a_vote && present.id != *leader {
            return JoinPlan::Record;
        }
    }
    let (mut replace, mut ask) = (BTreeSet::new(), BTreeSet::new());
    for present in members {
        match rival(present, leader, joiner) {
            Rival::None => {}
            Rival::Gives => _ = replace.insert(present.id.clone()),
            Rival::Ask => _ = ask.insert(present.id.clone()),
            Rival::Refuses(reason) => return JoinPlan::Refuse(reason),
        }
    }
    if ask.is_empty() {
        JoinPlan::Admit { replace }
    } else {
        JoinPlan::Ask(ask)
    }
}

/// What a member means for a joiner that is not yet, or not in this role, a member.
enum Rival {
    /// They have nothing in common.
    None,
    /// Its record gives way.
    Gives,
    /// Somebody has to look whether it lives.
    Ask,
    /// The joiner must not come in; why.
    Refuses(String),
}

fn rival(present: &Present, leader: &RaftId, joiner: &Joiner) -> Rival {
    let (name, addr) = (joiner.id.name(), &joiner.raft_addr);
    let recorded = &present.member.raft_addr;
    let same_name = present.id.name() == name;
    let same_addr = recorded == addr;
    let same_directory = present.id.same_directory(&joiner.id);
    if !(same_name || same_addr || same_directory) {
        return Rival::None;
    }
    if present.id == *leader {
        return Rival::Refuses(format!(
            "node ID {name} or address {addr} is that of the leader; give the joining node its own -node-id and -raft-adv-addr"
        ));
    }
    if same_directory {
        return Rival::Gives;
    }
    let in_use = || {
        Rival::Refuses(if same_name {
            format!(
                "node ID {name} is in use by a live node at {recorded}; give the joining node its own -node-id"
            )
        } else {
            format!(
                "address {addr} is in use by the live node {}; give the joining node its own -raft-adv-addr",
                present.id.name()
            )
        })
    };
    match present.found {
        _ if present.alive && same_name && !same_addr => in_use(),
        None => Rival::Ask,
        Some(Found::Itself) => in_use(),
        // It lives, but has left the address to the joiner: it says itself where it is now.
        Some(_) if present.alive => Rival::None,
        Some(Found::Another) => Rival::Gives,
        Some(Found::Nobody) if present.silent.is_some_and(|silent| silent >= GONE_AFTER) => {
            Rival::Gives
        }
        Some(Found::Nobody) => Rival::Refuses(format!(
            "member {} at {recorded} has the same node ID or address and does not answer, but has not been silent for {GONE_AFTER:?} yet: it may come \
             back; try again, or remove it first",
            present.id.name()
        )),
    }
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

/// The changes that remove members. openraft takes a vote away in two entries. The first one also notes that the member does not want to
/// vote any more: whatever becomes of the second, nobody promotes it again.
fn removal(
    members: &[(RaftId, Member, bool)],
    ids: &BTreeSet<RaftId>,
) -> Vec<ChangeMembers<RaftId, Member>> {
    let (voters, learners): (Vec<_>, Vec<_>) = members
        .iter()
        .filter(|(id, ..)| ids.contains(id))
        .partition(|(.., voter)| *voter);
    let mut changes = Vec::new();
    if !voters.is_empty() {
        let leaving = voters.iter().map(|(id, member, _)| {
            let mut member = member.clone();
            member.wants_vote = false;
            (id.clone(), member)
        });
        let leaving = ChangeMembers::SetNodes(leaving.collect());
        let votes = voters.iter().map(|(id, ..)| id.clone()).collect();
        let both = vec![leaving, ChangeMembers::RemoveVoters(votes)];
        changes.push(ChangeMembers::Batch(both));
    }
    if !learners.is_empty() {
        let learners = learners.iter().map(|(id, ..)| id.clone()).collect();
        changes.push(ChangeMembers::RemoveNodes(learners));
    }
    changes
}

/// Learners on their way to a vote, each with the end of the log when it was seen first as a learner: it has to get past all that was there, and so
/// past every single entry that might be too much for it.
pub(super) type Goals = BTreeMap<RaftId, u64>;

/// Who of the members is to be promoted: learners that want to vote, have reached their goal, and are close to the end of the log (`last`).
fn promotable(
    members: &[(RaftId, Member, bool)],
    goals: &mut Goals,
    last: u64,
    matched: impl Fn(&RaftId) -> Option<u64>,
) -> BTreeSet<RaftId> {
    let waits = |(_, member, voter): &&(RaftId, Member, bool)| !voter && member.wants_vote;
    let waiting: BTreeSet<_> = members.iter().filter(waits).map(|(id, ..)| id).collect();
    goals.retain(|id, _| waiting.contains(id));
    let ready = waiting.into_iter().filter(|id| {
        let goal = *goals.entry((*id).clone()).or_insert(last);
        matched(id).is_some_and(|matched| matched >= goal && matched + CAUGHT_UP_ENTRIES >= last)
    });
    ready.cloned().collect()
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
        let silences = self.silences();
        self.members()
            .into_iter()
            .map(|(id, member, voter)| {
                let alive = heartbeat
                    .get(&id)
                    .and_then(Option::as_ref)
                    .is_some_and(|at| at.elapsed() < alive_limit);
                Present {
                    silent: silences.get(&id).copied(),
                    found: None,
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
        let plan = self.plan_join(joiner).await;
        let member = Member {
            raft_addr: joiner.raft_addr.clone(),
            wants_vote: joiner.voter,
        };
        let record = BTreeMap::from([(joiner.id.clone(), member)]);
        match &plan {
            JoinPlan::Nothing => {}
            JoinPlan::Refuse(reason) => return Err(ChangeError::Refused(reason.clone())),
            JoinPlan::Ask(_) => return Err(ChangeError::Refused("try again".into())),
            JoinPlan::Record => {
                self.change(ChangeMembers::SetNodes(record)).await?;
                tracing::info!(target: "store", "node {} is now at {}", joiner.id, joiner.raft_addr);
            }
            JoinPlan::Admit { replace } => {
                self.remove_records(replace).await?;
                self.change(ChangeMembers::AddNodes(record)).await?;
                tracing::info!(target: "store", "node {} at {} admitted", joiner.id, joiner.raft_addr);
            }
        }
        Ok(plan)
    }

    /// Decides a join, asking first who answers at a member's address where that matters.
    async fn plan_join(&self, joiner: &Joiner) -> JoinPlan {
        let own = RaftId::from(self.local().raft_id());
        let JoinPlan::Ask(ids) = plan_join(&self.present(), &own, joiner) else {
            return plan_join(&self.present(), &own, joiner);
        };
        let asks = ids.into_iter().map(|id| async {
            let found = whereabouts(self.local(), &id, &self.members()).await;
            (id, found)
        });
        let found: BTreeMap<_, _> = futures_util::future::join_all(asks)
            .await
            .into_iter()
            .collect();
        // Looked at anew: a member may have been heard meanwhile. Whose address another data directory has taken counts as living only if it
        // is still heard after a moment: its last answer may have come before it went.
        let deadline = Instant::now() + self.settings().heartbeat * (2 * ALIVE_HEARTBEATS);
        loop {
            let mut members = self.present();
            for present in &mut members {
                present.found = found.get(&present.id).copied();
            }
            let unsure = |present: &Present| present.found == Some(Found::Another) && present.alive;
            if !members.iter().any(unsure) || Instant::now() >= deadline {
                return plan_join(&members, &own, joiner);
            }
            tokio::time::sleep(CHANGE_PAUSE).await;
        }
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
        self.change(ChangeMembers::SetNodes(BTreeMap::from([(id, member)])))
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
        for change in removal(&self.members(), ids) {
            self.change(change).await?;
        }
        Ok(())
    }

    /// Makes learners voters.
    pub(super) async fn promote(&self, ids: BTreeSet<RaftId>) -> Result<(), ChangeError> {
        self.change(ChangeMembers::AddVoterIds(ids)).await
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
    pub(super) fn promotable(&self, goals: &mut Goals) -> BTreeSet<RaftId> {
        let metrics = self.metrics();
        let last = metrics.last_log_index.unwrap_or(0);
        let replication = metrics.replication.unwrap_or_default();
        promotable(&self.members(), goals, last, |id| {
            replication.get(id).copied().flatten().map(|m| m.index)
        })
    }

    /// One change, repeated while another is under way. Whoever loses its vote by it is removed and does not stay as a learner: so a removal
    /// whose leader did not live to end it is ended by the next change, whatever that is for. (Who becomes read-only is admitted again.)
    async fn change(&self, change: ChangeMembers<RaftId, Member>) -> Result<(), ChangeError> {
        let deadline = Instant::now() + CHANGE_LIMIT;
        let _one_at_a_time = self.changing().lock().await;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let attempt =
                tokio::time::timeout(left, self.raft.change_membership(change.clone(), false))
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
