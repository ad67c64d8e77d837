//! What an observation means: who leads, who is a member, who takes part. All deciders use these definitions.
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use operator_api::{
    ByteSize, RqliteClusterSpec, RqliteClusterStatus, names,
    recovery::RecoveryRecord,
    status::{Operation, OperationType, Pool, Step, Target},
};

use crate::cluster::facts::{
    archive_config,
    observation::{
        Archived, ConfigMember, LeaderSeen, NodeStatus, Observation, ObservedClaim, ObservedPod,
        ObservedSet, ProbeResult,
    },
};

/// A member counts as caught up if it is at most this many entries behind the commit index that the leader
/// reported. Under load an observation takes time: a node that is further behind is asked again for up to two
/// seconds, so that what counts is whether it reaches that index within them, however many entries that is.
pub const MAX_LAG_ENTRIES: u64 = 100;

/// Votes that a quorum needs among this many voters.
pub fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

/// Whole seconds from one time to another; 0 if the clock went backwards.
pub fn seconds_between(then: &Time, now: &Time) -> u64 {
    u64::try_from(now.0.as_second() - then.0.as_second()).unwrap_or(0)
}

/// A confirmed leader: it reports that it leads, and a quorum of the voters of its configuration agree.
#[derive(Clone, Copy, Debug)]
pub struct Leader<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its report.
    pub status: &'a NodeStatus,
}

/// An observation with what follows from it.
pub struct View<'a> {
    /// The observation.
    pub seen: &'a Observation,
    /// The cluster's name.
    pub name: &'a str,
    /// The desired state.
    pub spec: &'a RqliteClusterSpec,
    /// The status as last written.
    pub status: &'a RqliteClusterStatus,
    /// The confirmed leader.
    pub leader: Option<Leader<'a>>,
    /// The image of a template that is kept; see [`crate::cluster::facts::hold`].
    pub kept_image: Option<&'a str>,
}

/// Status of a cluster that has none yet.
static NO_STATUS: std::sync::LazyLock<RqliteClusterStatus> =
    std::sync::LazyLock::new(RqliteClusterStatus::default);

impl<'a> View<'a> {
    /// Evaluates an observation.
    pub fn of(seen: &'a Observation) -> Self {
        let mut view = Self {
            seen,
            name: seen.cluster.metadata.name.as_deref().unwrap_or_default(),
            spec: &seen.cluster.spec,
            status: seen.cluster.status.as_ref().unwrap_or(&NO_STATUS),
            leader: None,
            kept_image: None,
        };
        view.leader = view.confirmed_leader();
        view
    }

    fn confirmed_leader(&self) -> Option<Leader<'a>> {
        let claims = self
            .seen
            .nodes
            .iter()
            .filter_map(|(name, answer)| match answer {
                ProbeResult::Ok(status) if status.is_leader && self.is_ours(status) => {
                    let own = status.config.iter().find(|member| member.name == *name);
                    // Another incarnation of a member cannot lead.
                    let same = own.is_none_or(|member| member.raft_id == status.raft_id);
                    same.then_some(Leader { name, status })
                }
                ProbeResult::Ok(_) | ProbeResult::Failed(_) => None,
            });
        let newest = claims.max_by_key(|leader| leader.status.term)?;
        let voters: Vec<_> = newest.status.config.iter().filter(|m| m.voter).collect();
        let agree = voters.iter().filter(|member| {
            self.node(&member.name).is_some_and(|node| {
                node.raft_id == member.raft_id
                    && node.term == newest.status.term
                    && node.leader.as_deref() == Some(newest.name)
            })
        });
        let agreed = self.agrees(newest.status, agree.count());
        (agreed && self.knows_all(newest.status)).then_some(newest)
    }

    /// Does a leader know every committed configuration? A leader that was just elected may not know yet what
    /// its predecessor committed: with an older configuration it would count other voters and prove members
    /// absent that are not. Once it has committed an entry of its own term, it does know.
    fn knows_all(&self, leader: &NodeStatus) -> bool {
        let newest = self.newest_configuration();
        let newest = newest.map_or(0, |node| node.config_index);
        leader.config_index >= newest.max(self.known_configuration())
            || leader.has_committed_in_term()
    }

    /// Log index of the newest committed configuration that is recorded.
    pub fn known_configuration(&self) -> u64 {
        let known = self.status.configuration_index.unwrap_or(0);
        u64::try_from(known).unwrap_or(0)
    }

    /// The node of this lineage that knows the newest committed configuration. A committed configuration
    /// remains valid without a leader.
    pub fn newest_configuration(&self) -> Option<&'a NodeStatus> {
        let ours = self.status.lineage.as_ref().map(|lineage| &lineage.id);
        let nodes = self.seen.nodes.values().filter_map(|answer| match answer {
            ProbeResult::Ok(node) => Some(node),
            ProbeResult::Failed(_) => None,
        });
        nodes
            .filter(|node| self.is_ours(node) && !node.config.is_empty())
            .filter(|node| node.lineage.as_ref().map(|l| &l.id) == ours)
            .max_by_key(|node| node.config_index)
    }

    /// Does a node's data, if it has any, belong to this cluster? While a recovery's plan is published, the
    /// lineage that it creates belongs to the cluster, too.
    pub fn is_ours(&self, node: &NodeStatus) -> bool {
        let (Some(theirs), Some(ours)) = (&node.cluster_id, &self.status.cluster_id) else {
            return true;
        };
        let (Some(present), Some(recorded)) = (&node.lineage, &self.status.lineage) else {
            return theirs == ours;
        };
        let leads_to = self
            .recovering()
            .is_some_and(|record| record.to.id == present.id);
        let same = recorded.id.is_empty() || present.id == recorded.id || leads_to;
        theirs == ours && same
    }

    /// The recovery whose plan is published and not yet verified.
    pub fn recovering(&self) -> Option<&'a RecoveryRecord> {
        let operation = self.operating(OperationType::Recover)?;
        let is_out = matches!(operation.step, Step::Apply | Step::Verify);
        let record = self.status.recovery.as_ref();
        record.filter(|record| is_out && record.uid == operation.id)
    }

    /// DNS domain of the Kubernetes cluster.
    pub fn cluster_domain(&self) -> &'a str {
        let found = &self.seen.operator.platform.cluster_domain;
        self.seen.cluster.domain(found)
    }

    /// What to keep in memory about the leader: of the confirmed one, or else what is there already.
    pub fn leader_seen(&self) -> Option<LeaderSeen> {
        let lineage = self.status.lineage.as_ref().map(|lineage| &lineage.id);
        let now = self.leader.and_then(|leader| {
            Some(LeaderSeen {
                at: self.now().clone(),
                commit_index: leader.status.commit_index,
                lineage: leader.status.lineage.as_ref()?.id.clone(),
                archived: self.archived_by(leader),
            })
        });
        let known = now.or_else(|| self.seen.leader_seen.clone());
        known.filter(|seen| Some(&seen.lineage) == lineage)
    }

    /// Does this leader archive where the spec says? After a change of the spec it does not before its pod is
    /// replaced.
    pub fn archives_as_spec(&self, leader: Leader<'_>) -> bool {
        let (Some(wanted), Some(pod)) = (self.spec.archive.as_ref(), self.pod(leader.name)) else {
            return false;
        };
        let target = self.target();
        let is_current = target.is_some_and(|t| t.template_hash == pod.template_hash);
        let config = pod.archive.as_ref();
        let is_there = config.is_some_and(|config| archive_config::is_there(config, wanted));
        is_there && (is_current || wanted.target.volume.is_none())
    }

    /// How far the archive of this leader reaches, if it is where the spec says.
    fn archived_by(&self, leader: Leader<'_>) -> Option<Archived> {
        let archive = leader.status.archive.as_ref()?;
        let uri = self.spec.archive.as_ref()?.target.uri();
        let known = self.archives_as_spec(leader);
        Some(Archived {
            index: archive.archived_index.filter(|_| known)?,
            time: archive.archived_time.clone()?,
            uri,
        })
    }

    /// An annotation of the cluster.
    pub fn annotation(&self, key: &str) -> Option<&'a str> {
        let all = self.seen.cluster.metadata.annotations.as_ref()?;
        all.get(key).map(String::as_str)
    }

    /// Time of the reconcile.
    pub fn now(&self) -> &'a Time {
        &self.seen.now
    }

    /// Status of a pod's node, if it responded.
    pub fn node(&self, name: &str) -> Option<&'a NodeStatus> {
        match self.seen.nodes.get(name) {
            Some(ProbeResult::Ok(status)) => Some(status),
            Some(ProbeResult::Failed(_)) | None => None,
        }
    }

    /// Finds a pod by name.
    pub fn pod(&self, name: &str) -> Option<&'a ObservedPod> {
        self.seen.pods.iter().find(|pod| pod.name == name)
    }

    /// Finds the claim of a pod.
    pub fn claim(&self, pod: &str) -> Option<&'a ObservedClaim> {
        let name = names::claim(pod);
        self.seen.claims.iter().find(|claim| claim.name == name)
    }

    /// The StatefulSet of a pool, unless it is being deleted.
    pub fn set(&self, pool: Pool) -> Option<&'a ObservedSet> {
        let set = match pool {
            Pool::Voter => self.seen.voters.as_ref(),
            Pool::Read => self.seen.readers.as_ref(),
        };
        set.filter(|set| !set.deleting)
    }

    /// Name of the StatefulSet of a pool.
    pub fn set_name(&self, pool: Pool) -> String {
        match pool {
            Pool::Voter => names::voters(self.name),
            Pool::Read => names::readers(self.name),
        }
    }

    /// Name of the cluster's ServiceAccount and NetworkPolicy, and prefix of its budgets' names. Clusters
    /// keep the names that they were created with.
    pub fn object_prefix(&self) -> String {
        let status = self.status;
        if let Some(prefix) = &status.object_prefix {
            return prefix.clone();
        }
        let named_alike = |set: &ObservedSet| set.account.as_deref() == Some(self.name);
        if status.cluster_id.is_some() || self.seen.voters.as_ref().is_some_and(named_alike) {
            self.name.to_owned()
        } else {
            names::auxiliary(self.name)
        }
    }

    /// Ordinal of a pod in its pool.
    pub fn ordinal(&self, pod: &ObservedPod) -> Option<i32> {
        names::ordinal(&self.set_name(pod.pool), &pod.name)
    }

    /// The committed configuration as the leader reports it; empty without a leader.
    pub fn config(&self) -> &'a [ConfigMember] {
        self.leader.map_or(&[], |leader| &leader.status.config)
    }

    /// Number of voters in the committed configuration.
    pub fn config_voters(&self) -> usize {
        self.config().iter().filter(|m| m.voter).count()
    }

    /// Finds a member of the committed configuration by name.
    pub fn member(&self, name: &str) -> Option<&'a ConfigMember> {
        self.config().iter().find(|m| m.name == name)
    }

    /// Is a member outside the configuration, as reported by the leader and one more voter? If there is no
    /// other voter, the leader's report suffices.
    pub fn is_proven_absent(&self, name: &str) -> bool {
        let Some(leader) = self.leader else {
            return false;
        };
        let has = |config: &[ConfigMember]| config.iter().any(|m| m.name == name);
        if has(&leader.status.config) {
            return false;
        }
        let mut others = leader
            .status
            .config
            .iter()
            .filter(|m| m.voter && m.name != leader.name)
            .peekable();
        others.peek().is_none()
            || others.any(|m| {
                self.node(&m.name).is_some_and(|node| {
                    node.raft_id == m.raft_id && !node.config.is_empty() && !has(&node.config)
                })
            })
    }

    /// Does this member take part? Its pod is not being deleted, and its node responds as the member in the
    /// configuration, is ready, sees the leader and is caught up.
    pub fn participates(&self, name: &str) -> bool {
        let (Some(leader), Some(member)) = (self.leader, self.member(name)) else {
            return false;
        };
        let stays = self.pod(name).is_some_and(|pod| !pod.deleting);
        let answers = self.node(name).is_some_and(|node| {
            let lag = leader
                .status
                .commit_index
                .saturating_sub(node.applied_index);
            node.raft_id == member.raft_id
                && node.leader.as_deref() == Some(leader.name)
                && node.ready
                && lag <= MAX_LAG_ENTRIES
        });
        stays && answers
    }

    /// Names of the voters that take part.
    pub fn participants(&self) -> Vec<&'a str> {
        self.config()
            .iter()
            .filter(|m| m.voter && self.participates(&m.name))
            .map(|m| m.name.as_str())
            .collect()
    }

    /// Pods of a pool, ordered by ordinal.
    pub fn pods(&self, pool: Pool) -> Vec<&'a ObservedPod> {
        let mut pods: Vec<_> = self
            .seen
            .pods
            .iter()
            .filter(|pod| pod.pool == pool)
            .collect();
        pods.sort_by_key(|pod| (self.ordinal(pod), &pod.name));
        pods
    }

    /// The present operation.
    pub fn operation(&self) -> Option<&'a Operation> {
        self.status.operation.as_ref()
    }

    /// The present operation, if it is of this kind.
    pub fn operating(&self, kind: OperationType) -> Option<&'a Operation> {
        self.operation().filter(|operation| operation.kind == kind)
    }

    /// The target that is being carried out.
    pub fn target(&self) -> Option<&'a Target> {
        self.status.target.as_ref()
    }

    /// Has the cluster formed?
    pub fn is_formed(&self) -> bool {
        self.status.bootstrapped_at.is_some()
    }

    /// Is it hibernated, or being stopped for that?
    pub fn is_hibernating(&self) -> bool {
        self.operating(OperationType::Hibernate).is_some()
            || (self.status.is(operator_api::status::HIBERNATED)
                && self.operating(OperationType::Resume).is_none())
    }

    /// Desired read replicas; None if an autoscaler decides.
    pub fn wanted_readers(&self) -> Option<i32> {
        match &self.spec.read_replicas {
            Some(pool) if pool.autoscaled => None,
            Some(pool) => Some(pool.replicas.unwrap_or(0)),
            None => Some(0),
        }
    }

    /// A caught-up voter to which leadership can be transferred: not `except`; preferably with the current
    /// template, then on a machine that is not cordoned, then of the lowest ordinal.
    pub fn leadership_successor(&self, except: &str) -> Option<&'a str> {
        let hash = self.target().map(|t| t.template_hash.as_str());
        let rank = |name: &str| {
            let pod = self.pod(name)?;
            let cordoned = pod
                .machine
                .as_ref()
                .is_some_and(|m| self.seen.cordoned.contains(m));
            Some((
                Some(pod.template_hash.as_str()) != hash,
                cordoned,
                self.ordinal(pod),
            ))
        };
        self.participants()
            .into_iter()
            .filter(|name| *name != except)
            .filter_map(|name| Some((rank(name)?, name)))
            .min()
            .map(|(_, name)| name)
    }

    /// Size that the spec asks for the volumes of a pool.
    pub fn wanted_size(&self, pool: Pool) -> ByteSize {
        let own = match (pool, &self.spec.read_replicas) {
            (Pool::Read, Some(readers)) => readers.storage.as_ref().and_then(|s| s.size.clone()),
            _ => None,
        };
        own.unwrap_or_else(|| self.spec.storage.size.clone())
    }
}
