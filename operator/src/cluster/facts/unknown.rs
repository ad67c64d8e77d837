//! Members of the configuration that belong to no pod of the cluster: nodes that others have joined. They
//! count in every quorum, but cannot be relied on: they may vanish or refuse their vote.
use operator_api::{names, status::Pool};

use crate::cluster::facts::{
    observation::{ConfigMember, NodeStatus},
    view::{View, quorum},
};

/// A member that the leader has reached within this many seconds takes part at present.
const REACHED_SECONDS: u64 = 2;

/// An unknown member that leads, and the pod of a member that follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownLeader<'a> {
    /// Pod through which a leadership transfer can be requested from the leader.
    pub contact: &'a str,
    /// The leader.
    pub member: &'a ConfigMember,
}

impl<'a> View<'a> {
    /// Does an entry of the configuration that `reporter` reports belong to no pod of this cluster, and was
    /// no pod ever seen to be this member? A name of a pool alone proves nothing: another node may have taken
    /// it while its pod was away. Then it advertises an address that no pod of the cluster has.
    pub fn is_unknown(&self, reporter: &NodeStatus, member: &ConfigMember) -> bool {
        let own = self.node(&member.name);
        if own.is_some_and(|node| node.raft_id == member.raft_id) {
            return false;
        }
        let id = Some(member.raft_id.as_str());
        let known = self.status.members.iter();
        let mut known = known.filter(|m| m.claim_uid.is_some());
        if known.any(|m| m.raft_id.as_deref() == id) {
            return false;
        }
        let Some((pool, ordinal)) = self.place(&member.name) else {
            return true;
        };
        if !self.is_foreign_address(reporter, member) {
            return false;
        }
        let recorded = self.status.unknown_members.iter();
        let recorded = recorded.into_iter().any(|m| m.raft_id == member.raft_id);
        let live = self.set(pool).map_or(0, |set| set.replicas);
        let pod = self.pod(&member.name);
        let beyond = ordinal >= live && pod.is_none();
        recorded || beyond || own.is_some() || self.lives_elsewhere(reporter, member)
    }

    /// Pool and ordinal that a name stands for.
    fn place(&self, name: &str) -> Option<(Pool, i32)> {
        [Pool::Voter, Pool::Read].into_iter().find_map(|pool| {
            let ordinal = names::ordinal(&self.set_name(pool), name)?;
            Some((pool, ordinal))
        })
    }

    /// Does it advertise another address than the pod of its name?
    fn is_foreign_address(&self, reporter: &NodeStatus, member: &ConfigMember) -> bool {
        let namespace = self.seen.cluster.metadata.namespace.as_deref();
        let own = format!(
            "{}.{}.{}.",
            member.name,
            names::headless(self.name),
            namespace.unwrap_or("default")
        );
        let address = reporter.addresses.get(&member.raft_id);
        address.is_some_and(|address| !address.is_empty() && !address.starts_with(&own))
    }

    /// Does the leader reach a member whose pod does not run, in the place of one that was seen there?
    fn lives_elsewhere(&self, reporter: &NodeStatus, member: &ConfigMember) -> bool {
        let runs = self.pod(&member.name).is_some_and(|pod| pod.ready);
        let replaces = self.status.members.iter().any(|m| {
            m.name == member.name
                && m.claim_uid.is_some()
                && m.raft_id.as_deref() != Some(member.raft_id.as_str())
        });
        reporter.is_leader && !runs && replaces && is_reached(reporter, member)
    }

    /// Unknown members of the leader's configuration. Without a confirmed leader, of the newest configuration
    /// that a node knows.
    pub fn unknown_members(&self) -> Vec<&'a ConfigMember> {
        let leader = self.leader.map(|leader| leader.status);
        let Some(reporter) = leader.or_else(|| self.newest_configuration()) else {
            return Vec::new();
        };
        let config = reporter.config.iter();
        config
            .filter(|member| self.is_unknown(reporter, member))
            .collect()
    }

    /// Address that a member advertises, as the leader or another node reports it.
    pub fn advertised(&self, member: &ConfigMember) -> Option<&'a str> {
        let leader = self.leader.map(|leader| leader.status);
        let reporter = leader.or_else(|| self.newest_configuration())?;
        let address = reporter.addresses.get(&member.raft_id)?;
        (!address.is_empty()).then_some(address)
    }

    /// Was a member of this name found to be unknown?
    pub fn is_recorded_unknown(&self, name: &str) -> bool {
        self.status.unknown_members.iter().any(|m| m.name == name)
    }

    /// Do enough voters follow this leader, if `agree` of those that respond do? Unknown voters do not
    /// respond to the operator: those that the leader reaches count, but only besides a quorum of the others.
    pub(super) fn agrees(&self, leader: &NodeStatus, agree: usize) -> bool {
        let voters: Vec<_> = leader.config.iter().filter(|m| m.voter).collect();
        if voters.is_empty() || agree >= quorum(voters.len()) {
            return !voters.is_empty();
        }
        let unknown: Vec<_> = voters
            .iter()
            .filter(|m| self.is_unknown(leader, m))
            .collect();
        let reached = unknown.iter().filter(|m| is_reached(leader, m)).count();
        agree >= quorum(voters.len() - unknown.len()) && agree + reached >= quorum(voters.len())
    }

    /// The unknown member that leads, if enough of the others follow it.
    pub fn unknown_leader(&self) -> Option<UnknownLeader<'a>> {
        if self.leader.is_some() {
            return None;
        }
        let reporter = self.newest_configuration()?;
        let name = reporter.leader.as_deref()?;
        let member = reporter.config.iter().find(|m| m.name == name)?;
        if !self.is_unknown(reporter, member) {
            return None;
        }
        let follows =
            |node: &&NodeStatus| node.leader.as_deref() == Some(name) && node.term == reporter.term;
        let own = reporter.config.iter().filter(|m| m.voter);
        let own: Vec<_> = own.filter(|m| !self.is_unknown(reporter, m)).collect();
        let following: Vec<&str> = own
            .iter()
            .filter(|m| self.node(&m.name).as_ref().is_some_and(follows))
            .map(|m| m.name.as_str())
            .collect();
        let contact = following.first().copied()?;
        (following.len() >= quorum(own.len())).then_some(UnknownLeader { contact, member })
    }

    /// May this unknown member be removed now? A reader always; a voter if the voters of the cluster's own
    /// pods that take part are a quorum without it. Where there are so many unknown voters that only they
    /// make up a quorum, those that the leader reaches count as well, as the last resort: each removal lowers
    /// what is needed.
    pub fn may_remove_unknown(&self, member: &ConfigMember) -> bool {
        if !member.voter {
            return true;
        }
        let Some(leader) = self.leader else {
            return false;
        };
        let voters = self.config().iter().filter(|m| m.voter);
        let (unknown, own): (Vec<_>, Vec<_>) =
            voters.partition(|m| self.is_unknown(leader.status, m));
        let there = self.participants().len();
        let left = unknown.iter().filter(|m| m.raft_id != member.raft_id);
        let reached = left.filter(|m| is_reached(leader.status, m)).count();
        let after = quorum(own.len() + unknown.len() - 1);
        let wanted = quorum(own.len());
        !own.is_empty() && there >= wanted && (there >= after || there + reached >= after)
    }
}

/// Has the leader reached this member within the last moments?
fn is_reached(leader: &NodeStatus, member: &ConfigMember) -> bool {
    let since = leader.unreachable_seconds.get(&member.raft_id);
    since.is_none_or(|seconds| *seconds <= REACHED_SECONDS)
}

#[cfg(test)]
mod tests;
