//! Without a leader: may a quorum come back, or is it lost for good? Only positive evidence counts as loss; a
//! member about which nothing is known may come back.
use operator_api::status::{AVAILABLE, Member, MemberState, Pool, Role};

use crate::cluster::facts::{
    archiving,
    lineage::is_stale,
    observation::{FailureKind, NodeStatus, ObservedPod, ProbeResult},
    view::{View, quorum, seconds_between},
};

/// Kinds of outage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outage {
    /// There is a leader.
    None,
    /// Enough voters for a quorum may come back by themselves. The text says who is missing.
    Temporary(String),
    /// Fewer voters than a quorum can ever come back: the text, and for how many seconds that has been
    /// evident.
    Permanent(String, u64),
    /// All pods are ready, but the operator does not reach them, or not enough of them: nothing is known
    /// about the cluster.
    Unreachable(String),
}

/// May an acknowledged write be missing on all survivors? Every write was acknowledged by a quorum; survivors
/// that share a member with every quorum have all writes.
pub fn may_lose_writes(voters: usize, survivors: usize) -> bool {
    survivors + quorum(voters) <= voters
}

/// State of a member, with the reason, from everything that is known about it.
pub fn member_state(view: &View<'_>, member: &Member) -> (MemberState, Option<String>) {
    let pod = view.pod(&member.name);
    if let Some(node) = view.node(&member.name) {
        return state_of_responding(view, member, node);
    }
    if let Some(text) = lost(view, member) {
        return (MemberState::Lost, Some(text));
    }
    match pod {
        Some(pod) if pod.ready => {
            let text = match view.seen.nodes.get(&member.name) {
                Some(ProbeResult::Failed(failure)) => failure.message.clone(),
                _ => "not queried".to_owned(),
            };
            (MemberState::Unreachable, Some(text))
        }
        Some(pod) if pod.stuck.is_none() && !pod.deleting => (
            MemberState::Starting,
            Some("its pod is starting".to_owned()),
        ),
        Some(pod) => {
            let text = pod
                .stuck
                .clone()
                .unwrap_or_else(|| "its pod is stopping".to_owned());
            (MemberState::Recoverable, Some(text))
        }
        None if view.is_recorded_unknown(&member.name) => {
            let text = "unknown: it belongs to no pod of this cluster".to_owned();
            (MemberState::Recoverable, Some(text))
        }
        None => (MemberState::Recoverable, Some("it has no pod".to_owned())),
    }
}

fn state_of_responding(
    view: &View<'_>,
    member: &Member,
    node: &NodeStatus,
) -> (MemberState, Option<String>) {
    let wiped = member
        .raft_id
        .as_ref()
        .is_some_and(|id| *id != node.raft_id);
    if !view.is_ours(node) {
        let text = "its volume belongs to another cluster or lineage".to_owned();
        (MemberState::Foreign, Some(text))
    } else if wiped {
        let text = "its data directory was lost; the node has a new one".to_owned();
        (MemberState::Lost, Some(text))
    } else if view.participates(&member.name) {
        (MemberState::Healthy, None)
    } else if node.leader.is_none() {
        (MemberState::Leaderless, Some("sees no leader".to_owned()))
    } else {
        (MemberState::Starting, Some("catching up".to_owned()))
    }
}

/// Would the deletion of this pod take a copy that may be needed? In an ephemeral cluster a voter's disk goes
/// with its pod, which is harmless only while the other voters are a quorum. A pod that never was a member
/// holds nothing.
pub fn is_disk_needed(view: &View<'_>, pod: &ObservedPod) -> bool {
    let ephemeral = view.spec.storage.ephemeral.is_some() && view.is_formed();
    let holds = view.status.members.iter().any(|member| {
        member.name == pod.name
            && matches!(member.role, Role::Leader | Role::Voter)
            && member.claim_uid.as_ref() == Some(&pod.uid)
    });
    let recorded = usize::try_from(view.status.voters).unwrap_or(0);
    let needed = quorum(view.config_voters().max(recorded));
    let others = view.participants().into_iter();
    ephemeral && holds && others.filter(|name| *name != pod.name).count() < needed
}

/// Why a member that does not respond is lost for good: its claim, its volume or its data. Nothing else is
/// evidence, however long it lasts.
fn lost(view: &View<'_>, member: &Member) -> Option<String> {
    let claim = view.claim(&member.name);
    let (gone, replaced) = match &view.spec.storage.ephemeral {
        None => ("its claim is gone", "its claim was replaced"),
        Some(_) => (
            "its pod, and with it its ephemeral disk, is gone",
            "its pod, and with it its ephemeral disk, was replaced",
        ),
    };
    let volume = match (claim, &member.claim_uid) {
        (None, Some(_)) => Some(gone.to_owned()),
        (Some(now), Some(then)) if now.uid != *then => Some(replaced.to_owned()),
        (Some(now), _) => now.lost.clone(),
        (None, None) => None,
    };
    if volume.is_some() {
        return volume;
    }
    // The report describes the member's data only if the pod uses the claim on which the member was last
    // seen, which was checked above.
    let report = view.pod(&member.name)?.prepared.as_ref()?;
    if report.is_damaged() {
        return Some(format!("its data is damaged: {}", report.reason));
    }
    if is_stale(report) {
        return Some(format!(
            "its data is of a lineage that has ended: {}",
            report.reason
        ));
    }
    match (&report.raft_id, &member.raft_id) {
        (Some(now), Some(then)) if now != then => {
            Some("its data directory was lost; it has a new one".to_owned())
        }
        _ => None,
    }
}

/// A voter of the last confirmed configuration, and its state.
#[derive(Clone, Debug)]
pub struct AssessedVoter<'a> {
    /// The voter.
    pub member: &'a Member,
    /// Its state.
    pub state: MemberState,
    /// Reason of the state.
    pub reason: Option<String>,
}

impl AssessedVoter<'_> {
    /// Is its data gone for good?
    pub fn is_lost(&self) -> bool {
        matches!(self.state, MemberState::Lost | MemberState::Foreign)
    }

    fn describe(&self) -> Option<String> {
        let reason = self.reason.as_deref()?;
        let described = format!("{} ({:?}): {reason}", self.member.name, self.state);
        Some(match hint(self.state, reason) {
            Some(hint) => format!("{described} [{hint}]"),
            None => described,
        })
    }
}

/// The voters of the last confirmed configuration, as the status records it, and their states.
#[derive(Clone, Debug)]
pub struct Assessment<'a> {
    /// The voters.
    pub voters: Vec<AssessedVoter<'a>>,
}

/// Determines the state of each voter. `gone`: names of members that a person has declared lost.
pub fn assess<'a>(view: &View<'a>, gone: &[String]) -> Assessment<'a> {
    let voters = view.status.members.iter();
    let voters = voters.filter(|m| matches!(m.role, Role::Leader | Role::Voter));
    let assessed = voters.map(|member| {
        let (state, reason) = member_state(view, member);
        if gone.contains(&member.name) {
            let reason = Some("given up in the RqliteRecovery".to_owned());
            return AssessedVoter {
                member,
                state: MemberState::Lost,
                reason,
            };
        }
        AssessedVoter {
            member,
            state,
            reason,
        }
    });
    Assessment {
        voters: assessed.collect(),
    }
}

impl Assessment<'_> {
    /// Number of voters that may still have their data.
    pub fn possible(&self) -> usize {
        self.voters.iter().filter(|v| !v.is_lost()).count()
    }

    /// Number of votes that a leader needs.
    pub fn needed(&self) -> usize {
        quorum(self.voters.len())
    }

    /// Can no quorum ever come back by itself?
    pub fn is_permanent(&self) -> bool {
        !self.voters.is_empty() && self.possible() < self.needed()
    }

    /// Every voter that is not healthy, with the reason and a hint.
    pub fn describe(&self) -> String {
        let described: Vec<String> = self
            .voters
            .iter()
            .filter_map(AssessedVoter::describe)
            .collect();
        described.join("; ")
    }

    /// Seconds for which it has been evident that no quorum can come back.
    fn permanent_seconds(&self, view: &View<'_>) -> u64 {
        let since = |then: Option<&_>| then.map_or(0, |then| seconds_between(then, view.now()));
        let lost = self.voters.iter().filter(|v| v.is_lost());
        let mut ages: Vec<u64> = lost.map(|v| since(v.member.lost_since.as_ref())).collect();
        ages.sort_unstable_by(|a, b| b.cmp(a));
        let decisive = self.voters.len() - self.needed();
        let evident = ages.get(decisive).copied().unwrap_or(0);
        // The condition shows since when there is no leader: it changes with the first reconcile that finds
        // none.
        let available = view.status.condition(AVAILABLE);
        let leaderless = available.filter(|c| c.status == "False");
        evident.min(since(leaderless.map(|c| &c.last_transition_time)))
    }
}

/// A hint for a missing voter, from Kubernetes' message.
fn hint(state: MemberState, reason: &str) -> Option<&'static str> {
    if state != MemberState::Recoverable {
        return None;
    }
    const KNOWN: [(&str, &str); 8] = [
        (
            "ImagePull",
            "correct spec.image or the pull secret; the pod is then recreated",
        ),
        ("ErrImage", "correct spec.image; the pod is then recreated"),
        (
            "volume node affinity",
            "bring its machine back, or, if it is gone for good, delete its Node object",
        ),
        (
            "OOMKilled",
            "raise spec.resources.limits.memory; its data is intact",
        ),
        (
            "CrashLoopBackOff",
            "see kubectl logs --previous of its pod; its data is intact",
        ),
        (
            "nodes are available",
            "free resources, or uncordon a machine",
        ),
        ("nodes available", "free resources, or uncordon a machine"),
        ("persistentvolumeclaim", "see kubectl describe of its claim"),
    ];
    let known = KNOWN.iter().find(|(word, _)| reason.contains(word));
    known.map(|(_, hint)| *hint)
}

/// Classifies the absence of a leader by the voters of the last confirmed configuration, as the status
/// records it.
pub fn classify_outage(view: &View<'_>) -> Outage {
    if view.leader.is_some() {
        return Outage::None;
    }
    let assessment = assess(view, &[]);
    let missing = assessment.describe();
    if assessment.is_permanent() {
        let text = format!(
            "{} of {} voters are lost for good and {} are needed: {missing}",
            assessment.voters.len() - assessment.possible(),
            assessment.voters.len(),
            assessment.needed()
        );
        return Outage::Permanent(text, assessment.permanent_seconds(view));
    }
    if operator_cannot_reach(view) {
        let text = format!(
            "all pods are ready, but the operator does not reach the nodes: {missing}. Check NetworkPolicies and a service mesh between its namespace and this one"
        );
        return Outage::Unreachable(text);
    }
    if assessment.voters.is_empty() {
        // For example after an adoption.
        let text = "there is no leader, and no node has reported the voters yet";
        return Outage::Temporary(text.to_owned());
    }
    Outage::Temporary(format!(
        "there is no leader; {} of {} voters may come back and {} are needed: {missing}",
        assessment.possible(),
        assessment.voters.len(),
        assessment.needed()
    ))
}

/// Is a loss that has been evident for this many seconds reported as a lost quorum?
pub fn is_loss_reported(view: &View<'_>, seconds: u64) -> bool {
    let policy = view.spec.quorum_recovery.clone().unwrap_or_default();
    let patience = policy.detect_after.duration().map_or(300, |d| d.as_secs());
    seconds >= patience
}

/// The reason of conditions and events for a loss that has been evident for this many seconds.
pub fn loss_reason(view: &View<'_>, seconds: u64) -> &'static str {
    if is_loss_reported(view, seconds) {
        "QuorumLost"
    } else {
        "LossDetected"
    }
}

/// What a recovery would start from and could lose, and the command for it.
pub fn recovery_instructions(view: &View<'_>) -> String {
    let assessment = assess(view, &[]);
    let survivors: Vec<String> = assessment
        .voters
        .iter()
        .filter(|v| !v.is_lost())
        .map(|v| match view.node(&v.member.name) {
            Some(node) => format!(
                "{} (log ends at index {}, term {})",
                v.member.name, node.last_log_index, node.last_log_term
            ),
            None => format!("{} (does not answer)", v.member.name),
        })
        .collect();
    let (all, left) = (assessment.voters.len(), survivors.len());
    // A read replica that is left may have more than the archive.
    let members = view.status.members.iter();
    let mut members = members.filter(|member| member.role != Role::Absent);
    let gone = members.all(|member| {
        let state = member_state(view, member).0;
        matches!(state, MemberState::Lost | MemberState::Foreign)
    });
    if let Some(text) = archiving::last_resort(view).filter(|_| gone) {
        return text;
    }
    let survivors = if survivors.is_empty() {
        "none".to_owned()
    } else {
        survivors.join(", ")
    };
    let commit = highest_commit_index(view);
    let (loss, consent) = if may_lose_writes(all, left) {
        (
            format!("acknowledged writes may be lost{}", since_last_seen(view)),
            "acceptDataLoss: true, ",
        )
    } else {
        ("no acknowledged write can be lost".to_owned(), "")
    };
    let namespace = view.seen.cluster.metadata.namespace.as_deref();
    let namespace = namespace.unwrap_or("default");
    let name = view.name;
    if view.spec.storage.ephemeral.is_some() {
        return format!(
            "Survivors: {survivors}. The cluster is ephemeral and cannot be recovered, because a recovery stops all pods: read what you need from the survivors with level=none, then delete the RqliteCluster and create it again"
        );
    }
    format!(
        "Survivors: {survivors}; highest commit index seen: {commit}; {loss}. Bring a volume back, or: kubectl rqlite recover {name} -n {namespace}, or kubectl create an object \
         {{apiVersion: {}/{}, kind: RqliteRecovery, metadata: {{generateName: {name}-, namespace: {namespace}}}, spec: {{clusterRef: {{name: {name}}}, {consent}reason: \"...\"}}}}.",
        operator_api::GROUP,
        operator_api::VERSION
    )
}

/// Highest commit index that is known from the status, this process's memory or a node of this lineage.
pub fn highest_commit_index(view: &View<'_>) -> i64 {
    let nodes = view.seen.nodes.keys().filter_map(|n| view.node(n));
    let ours = nodes.filter(|n| view.is_ours(n));
    let known = ours.map(|n| n.commit_index);
    let remembered = view.leader_seen().map(|seen| seen.commit_index);
    let known = known.chain(remembered).max().unwrap_or(0);
    let known = i64::try_from(known).unwrap_or(i64::MAX);
    view.status.commit_index.unwrap_or(0).max(known)
}

/// Text about entries committed after the leader was last seen: only the nodes know how many there are.
fn since_last_seen(view: &View<'_>) -> String {
    let seen = view.leader_seen().map(|seen| seen.at);
    let seen = seen.or_else(|| view.status.last_leader_seen.clone());
    seen.map_or_else(String::new, |at| {
        format!(
            ", also some that were committed after a leader was last seen, at {}",
            at.0
        )
    })
}

/// Does Kubernetes report that all is well, while the operator gets no response from nodes, and those that
/// respond see a leader? Then the operator's view is not to be trusted.
fn operator_cannot_reach(view: &View<'_>) -> bool {
    let pods = view.pods(Pool::Voter);
    let unanswered = |name: &str| match view.seen.nodes.get(name) {
        Some(ProbeResult::Failed(failure)) => failure.failure != FailureKind::Malformed,
        Some(ProbeResult::Ok(_)) => false,
        None => true,
    };
    let follows = |name: &str| view.node(name).is_some_and(|node| node.leader.is_some());
    pods.iter().any(|pod| unanswered(&pod.name))
        && pods
            .iter()
            .all(|pod| pod.ready && (unanswered(&pod.name) || follows(&pod.name)))
}

#[cfg(test)]
mod tests;
