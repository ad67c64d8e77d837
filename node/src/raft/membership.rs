//! Membership changes on the leader: adding, promoting and removing members, one at a time.
//!
//! What to change is decided by pure functions of the present members (`plan_join`, `plan_removal`); carrying
//! it out takes a few calls to openraft, repeated while another change is in progress.
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

use self::address_probe::{ProbeResult, probe_member};
use super::{
    consensus::Consensus,
    types::{Member, RaftId, Types},
};

/// Longest wait for another membership change to end.
const CHANGE_LIMIT: Duration = Duration::from_secs(10);
/// Interval at which a change in progress or a learner that catches up is checked; the former ever less
/// often.
const CHANGE_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A learner this close to the end of the log (in entries, each a batch) may vote: the joint change itself
/// brings the rest.
const CAUGHT_UP_ENTRIES: u64 = 16;
/// A member that responded within this many heartbeats is alive; another data directory cannot take its name.
const ALIVE_HEARTBEATS: u32 = 2;
/// A member that does not respond may be restarting, or cut off from the leader alone. After this time
/// without contact it is replaced by another data directory with its name or address; a join is retried for
/// longer than that by default (`-join-attempts` times `-join-interval`).
const REPLACE_AFTER: Duration = Duration::from_secs(10);

/// A member as the decisions see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberView {
    /// Raft id.
    pub id: RaftId,
    /// Its record in the membership.
    pub member: Member,
    /// It is a voter.
    pub voter: bool,
    /// It responded within the last heartbeats.
    pub alive: bool,
    /// Time since this leader's last contact with it; `None` as long as that says nothing about the member.
    pub unreachable_for: Option<Duration>,
    /// The result of probing its address; `None` before that.
    pub probed: Option<ProbeResult>,
}

/// A node that requests to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joiner {
    /// Raft id.
    pub id: RaftId,
    /// Advertised Raft address.
    pub raft_addr: String,
    /// Requests to be a voter.
    pub voter: bool,
}

/// How a join changes the membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinPlan {
    /// It is already a member with this record.
    Nothing,
    /// It is already a member: record its address and, if it wants one, its wish for a vote. Whether it votes
    /// stays unchanged.
    Record,
    /// Remove these records (same name, same address or same data directory), then add it.
    Admit {
        /// Records to remove first.
        replace: BTreeSet<RaftId>,
    },
    /// First probe the addresses of these members, then decide again.
    Probe(BTreeSet<RaftId>),
    /// Refused, with the reason.
    Refuse(String),
}

/// Decides a join. `leader` is the deciding node itself.
pub fn plan_join(members: &[MemberView], leader: &RaftId, joiner: &Joiner) -> JoinPlan {
    let known = members.iter().find(|present| present.id == joiner.id);
    if let Some(present) = known {
        let member = &present.member;
        if member.raft_addr == joiner.raft_addr && member.wants_vote == joiner.voter {
            return JoinPlan::Nothing;
        }
        // The same data directory under another address. An address change does not touch the vote: to remove
        // the vote and add it again would need a majority without this member. If another member is recorded
        // under the same address, it either announces its new address itself or is removed as unreachable.
        let gives_up_a_vote = !joiner.voter && (present.voter || member.wants_vote);
        if !gives_up_a_vote && present.id != *leader {
            return JoinPlan::Record;
        }
    }
    let (mut replace, mut probe) = (BTreeSet::new(), BTreeSet::new());
    for present in members {
        match conflict(present, leader, joiner) {
            Conflict::None => {}
            Conflict::Replace => _ = replace.insert(present.id.clone()),
            Conflict::Probe => _ = probe.insert(present.id.clone()),
            Conflict::Refuse(reason) => return JoinPlan::Refuse(reason),
        }
    }
    if probe.is_empty() {
        JoinPlan::Admit { replace }
    } else {
        JoinPlan::Probe(probe)
    }
}

/// How an existing member conflicts with a joiner that is not a member yet, or not in this role.
enum Conflict {
    /// No conflict.
    None,
    /// Its record is replaced.
    Replace,
    /// Its address must be probed first.
    Probe,
    /// The joiner is refused, with the reason.
    Refuse(String),
}

fn conflict(present: &MemberView, leader: &RaftId, joiner: &Joiner) -> Conflict {
    let (name, addr) = (joiner.id.name(), &joiner.raft_addr);
    let recorded = &present.member.raft_addr;
    let same_name = present.id.name() == name;
    let same_addr = recorded == addr;
    let same_directory = present.id.same_directory(&joiner.id);
    if !(same_name || same_addr || same_directory) {
        return Conflict::None;
    }
    if present.id == *leader {
        return Conflict::Refuse(format!(
            "node ID {name} or address {addr} is that of the leader; give the joining node its own -node-id and -raft-adv-addr"
        ));
    }
    if same_directory {
        return Conflict::Replace;
    }
    let in_use = || {
        Conflict::Refuse(if same_name {
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
    match present.probed {
        _ if present.alive && same_name && !same_addr => in_use(),
        None => Conflict::Probe,
        Some(ProbeResult::Member) => in_use(),
        // It is alive, but its address belongs to the joiner now: it announces its new address itself.
        Some(_) if present.alive => Conflict::None,
        Some(ProbeResult::OtherNode) => Conflict::Replace,
        Some(ProbeResult::NoResponse)
            if present
                .unreachable_for
                .is_some_and(|unreachable_for| unreachable_for >= REPLACE_AFTER) =>
        {
            Conflict::Replace
        }
        Some(ProbeResult::NoResponse) => Conflict::Refuse(format!(
            "member {} at {recorded} has the same node ID or address and does not respond, but has not been unreachable for {REPLACE_AFTER:?} yet: it may come \
             back; try again, or remove it first",
            present.id.name()
        )),
    }
}

/// Decides a removal by node name: the records to remove.
///
/// # Errors
/// No voter would be left, or it is not clear which node is meant.
pub fn plan_removal(
    members: &[MemberView],
    leader: &RaftId,
    name: &str,
) -> Result<BTreeSet<RaftId>, String> {
    let (running, stopped): (Vec<_>, Vec<_>) = members
        .iter()
        .filter(|m| m.id.name() == name)
        .partition(|m| m.alive || m.id == *leader);
    // An older version may have formed the cluster with two nodes of one name.
    let gone = match (running.as_slice(), stopped.as_slice()) {
        ([first, second, ..], []) => {
            return Err(format!(
                "node ID {name} is that of several running nodes, at {} and at {}: stop the one that is to be removed first",
                first.member.raft_addr, second.member.raft_addr
            ));
        }
        (running, []) => running,
        (_, stopped) => stopped,
    };
    let gone: BTreeSet<_> = gone.iter().map(|m| m.id.clone()).collect();
    let voters_left = members
        .iter()
        .filter(|m| m.voter && !gone.contains(&m.id))
        .count();
    if !gone.is_empty() && voters_left == 0 {
        return Err("need at least one voter in configuration: {[]}".into());
    }
    Ok(gone)
}

/// The changes that remove members. openraft takes a vote away in two entries. The first one also records
/// that the member does not want to vote, so that nobody promotes it again, whatever becomes of the second.
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

/// Learners that will be promoted, each with the end of the log when it was first seen as a learner: it must
/// replicate everything up to there, and thereby every entry that might be too large for it.
pub(super) type Goals = BTreeMap<RaftId, u64>;

/// The members to promote: learners that want to vote, have reached their goal, and are close to the end of
/// the log (`last`).
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

/// Why a change was not made, or may not have been.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// This node does not lead.
    #[error("not leader")]
    NotLeader,
    /// Not allowed; the text says what to do.
    #[error("{0}")]
    Refused(String),
    /// No quorum in time, or leadership lost: the change may still take effect.
    #[error("{0}")]
    Unknown(String),
}

impl Consensus {
    /// The members with what the leader knows about their liveness.
    pub fn member_views(&self) -> Vec<MemberView> {
        let alive_limit = self.settings().heartbeat * ALIVE_HEARTBEATS;
        let metrics = self.metrics();
        let heartbeat = metrics.heartbeat.unwrap_or_default();
        let unreachable = self.unreachable();
        self.members()
            .into_iter()
            .map(|(id, member, voter)| {
                let alive = heartbeat
                    .get(&id)
                    .and_then(Option::as_ref)
                    .is_some_and(|at| at.elapsed() < alive_limit);
                MemberView {
                    unreachable_for: unreachable.get(&id).copied(),
                    probed: None,
                    id,
                    member,
                    voter,
                    alive,
                }
            })
            .collect()
    }

    /// Adds a node, replacing older records of it. Returns once it is a member; it votes as soon as it has
    /// caught up.
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
            JoinPlan::Probe(_) => return Err(ChangeError::Refused("try again".into())),
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

    /// Decides a join, probing members' addresses first where that matters.
    async fn plan_join(&self, joiner: &Joiner) -> JoinPlan {
        let own = RaftId::from(self.local().raft_id());
        let JoinPlan::Probe(ids) = plan_join(&self.member_views(), &own, joiner) else {
            return plan_join(&self.member_views(), &own, joiner);
        };
        let probes = ids.into_iter().map(|id| async {
            let probed = probe_member(self.local(), &id, &self.members()).await;
            (id, probed)
        });
        let probed: BTreeMap<_, _> = futures_util::future::join_all(probes)
            .await
            .into_iter()
            .collect();
        // The members are read again: one may have responded meanwhile. A member whose address another data
        // directory has taken counts as alive only if it still responds a moment later: its last response may
        // be from before it stopped.
        let deadline = Instant::now() + self.settings().heartbeat * (2 * ALIVE_HEARTBEATS);
        loop {
            let mut members = self.member_views();
            for present in &mut members {
                present.probed = probed.get(&present.id).copied();
            }
            let unsure = |present: &MemberView| {
                present.probed == Some(ProbeResult::OtherNode) && present.alive
            };
            if !members.iter().any(unsure) || Instant::now() >= deadline {
                return plan_join(&members, &own, joiner);
            }
            tokio::time::sleep(CHANGE_PAUSE).await;
        }
    }

    /// The address under which the membership records this node; `None` if it is not a member.
    pub fn recorded_address(&self) -> Option<String> {
        let own = RaftId::from(self.local().raft_id());
        self.members()
            .into_iter()
            .find(|(id, ..)| *id == own)
            .map(|(_, member, _)| member.raft_addr)
    }

    /// As leader: records this node's own address. Other members are recorded when they join again; a leader
    /// cannot remove itself and remain leader.
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

    /// Removes a member by node name. An unknown name is not an error.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn remove(&self, name: &str) -> Result<(), ChangeError> {
        if !self.leads() {
            return Err(ChangeError::NotLeader);
        }
        let own = RaftId::from(self.local().raft_id());
        let gone = plan_removal(&self.member_views(), &own, name).map_err(ChangeError::Refused)?;
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

    /// Whether this node is to vote, and does not yet do so for good; also before the log has told it.
    pub fn awaits_vote(&self) -> bool {
        let own = RaftId::from(self.local().raft_id());
        let members = self.members();
        let record = members.iter().find(|(id, ..)| *id == own);
        record.is_none_or(|(_, member, _)| member.wants_vote) && !self.votes_for_good(&own)
    }

    /// Whether `id` votes in every part of the newest committed membership. Until a change to a joint one is
    /// completed, the loss of one more node may cost the quorum.
    fn votes_for_good(&self, id: &RaftId) -> bool {
        let committed = self.progress().membership();
        let configs = committed.membership().get_joint_config();
        !configs.is_empty() && configs.iter().all(|voters| voters.contains(id))
    }

    /// Waits until `id` votes for good, at most `limit`; the member maintenance promotes it.
    pub async fn wait_for_voter(&self, id: &RaftId, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            if self.votes_for_good(id) {
                return true;
            }
            if Instant::now() >= deadline || !self.is_mine() {
                return false;
            }
            tokio::time::sleep(CHANGE_PAUSE).await;
        }
    }

    /// Learners that want to vote and have caught up.
    pub(super) fn promotable(&self, goals: &mut Goals) -> BTreeSet<RaftId> {
        let metrics = self.metrics();
        let last = metrics.last_log_index.unwrap_or(0);
        let replication = metrics.replication.unwrap_or_default();
        promotable(&self.members(), goals, last, |id| {
            replication.get(id).copied().flatten().map(|m| m.index)
        })
    }

    /// Makes one change, repeated while another is in progress. A member that loses its vote is removed and
    /// does not stay as a learner, so the next change, whatever it is, completes a removal whose leader died.
    /// (A voter that becomes read-only is added again.)
    async fn change(&self, change: ChangeMembers<RaftId, Member>) -> Result<(), ChangeError> {
        let deadline = Instant::now() + CHANGE_LIMIT;
        let _one_at_a_time = self.changing().lock().await;
        let mut pause = CHANGE_PAUSE;
        loop {
            // openraft would refuse the change, and log that.
            while !self.may_change() && Instant::now() < deadline {
                if !self.is_mine() {
                    return Err(ChangeError::NotLeader);
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            if Instant::now() >= deadline {
                return Err(ChangeError::Refused(
                    "another membership change is still under way; try again".into(),
                ));
            }
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
                None => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Whether the newest membership is committed: otherwise it cannot be changed, perhaps for long.
    pub(super) fn may_change(&self) -> bool {
        let metrics = self.metrics();
        let newest = metrics.membership_config.log_id().map(|id| id.index);
        newest.is_none_or(|index| index <= self.commit_index())
    }
}

/// `None` means: retry.
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
