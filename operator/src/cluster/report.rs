//! The status: what was decided, what is, and conditions that say what a user can do.
mod conditions;

use operator_api::{
    RqliteClusterStatus, names,
    status::{
        Endpoints, HIBERNATED, Member, MemberState, OperationType, Phase, Pool, PoolStatus,
        QUORUM_LOST, Role, Target,
    },
};

use super::{
    action::Decision,
    quorum::{Outage, classify, state_of},
    view::{View, seconds_between},
};

/// Values that change all the time are written at most this often, or each write would wake the next pass.
const VOLATILE_SECONDS: u64 = 30;

/// The status to write.
pub fn status(
    view: &View<'_>,
    wanted: &Target,
    decision: &Decision,
    paused: bool,
) -> RqliteClusterStatus {
    let mut next = match decision {
        Decision::Record(recorded, _) => (**recorded).clone(),
        _ => view.status.clone(),
    };
    next.observed_generation = view.seen.cluster.metadata.generation;
    next.operator_version = Some(view.seen.operator.version.clone());
    if let Some(operation) = &mut next.operation {
        operation.message = match decision {
            Decision::Wait(text) | Decision::Blocked(_, text) | Decision::Act(_, text) => {
                Some(text.clone())
            }
            Decision::Record(..) | Decision::Pass => operation.message.take(),
        };
    }
    // While a recovery is under way, what was confirmed before it stays on record: it may have to be looked up again.
    let recovers = view.operating(OperationType::Recover).is_some();
    if !recovers {
        remember_leader(view, &mut next);
    }
    let pods = view.pods(Pool::Voter).len();
    next.replicas = i32::try_from(pods).unwrap_or(i32::MAX);
    next.ready_replicas = i32::try_from(view.participants().len()).unwrap_or(i32::MAX);
    if view.leader.is_some() && !recovers {
        next.voters = i32::try_from(view.config_voters()).unwrap_or(i32::MAX);
    }
    next.selector = Some(format!(
        "{}={},{}=voter",
        names::CLUSTER_LABEL,
        view.name,
        names::POOL_LABEL
    ));
    next.read_replicas = readers(view);
    next.members = members(view, &next.members);
    next.endpoints = Some(endpoints(view));
    let outage = if view.is_formed() {
        classify(view)
    } else {
        Outage::None
    };
    conditions::write(view, wanted, decision, paused, &outage, &mut next);
    next.phase = Some(phase(view, decision, paused, &outage, &next));
    next
}

fn remember_leader(view: &View<'_>, next: &mut RqliteClusterStatus) {
    let Some(leader) = view.leader else {
        next.leader = None;
        next.leader_since = None;
        return;
    };
    let now = view.now();
    if next.leader.as_deref() != Some(leader.name) || next.leader_since.is_none() {
        next.leader = Some(leader.name.to_owned());
        next.leader_since = Some(now.clone());
    }
    next.configuration_index = i64::try_from(leader.status.config_index).ok();
    let fresh = next
        .last_leader_seen
        .as_ref()
        .is_some_and(|seen| seconds_between(seen, now) < VOLATILE_SECONDS);
    if !fresh {
        next.last_leader_seen = Some(now.clone());
        let index = i64::try_from(leader.status.commit_index).unwrap_or(i64::MAX);
        next.commit_index = Some(index.max(next.commit_index.unwrap_or(0)));
    }
}

fn readers(view: &View<'_>) -> Option<PoolStatus> {
    let set = view.set(Pool::Read);
    if view.spec.read_replicas.is_none() && set.is_none() {
        return None;
    }
    let live = set.map_or(0, |set| set.replicas);
    let ready = view.pods(Pool::Read).iter().filter(|pod| pod.ready).count();
    Some(PoolStatus {
        desired: view.wanted_readers().unwrap_or(live),
        ready: i32::try_from(ready).unwrap_or(i32::MAX),
    })
}

/// The confirmed configuration and all pods. Without a leader the configuration is what was last confirmed.
fn members(view: &View<'_>, confirmed: &[Member]) -> Vec<Member> {
    let known = |name: &str| view.status.members.iter().find(|m| m.name == name);
    let mut all: Vec<Member> = Vec::new();
    if view.leader.is_some() && view.operating(OperationType::Recover).is_none() {
        for entry in view.config() {
            let leads = view.leader.is_some_and(|leader| leader.name == entry.name);
            let same = known(&entry.name).filter(|m| m.raft_id.as_ref() == Some(&entry.raft_id));
            let answers = view.answer(&entry.name);
            let here = answers.is_some_and(|node| node.raft_id == entry.raft_id);
            let claim = view.claim(&entry.name).map(|claim| claim.uid.clone());
            all.push(Member {
                name: entry.name.clone(),
                pool: pool_of(view, &entry.name),
                role: match (leads, entry.voter) {
                    (true, _) => Role::Leader,
                    (false, true) => Role::Voter,
                    (false, false) => Role::Learner,
                },
                raft_id: Some(entry.raft_id.clone()),
                // Only a node that answers proves which claim its data is on.
                claim_uid: claim
                    .filter(|_| here)
                    .or(same.and_then(|m| m.claim_uid.clone())),
                ..absent(&entry.name)
            });
        }
    } else {
        all.extend(confirmed.iter().filter(|m| m.role != Role::Absent).cloned());
    }
    for pod in &view.seen.pods {
        if !all.iter().any(|m| m.name == pod.name) {
            all.push(Member {
                pool: pod.pool,
                ..absent(&pod.name)
            });
        }
    }
    let leaving = view
        .operating(OperationType::ScaleDown)
        .and_then(|o| o.member.as_deref());
    for member in &mut all {
        let pod = view.pod(&member.name);
        member.pod_uid = pod.map(|pod| pod.uid.clone());
        member.node = pod.and_then(|pod| pod.machine.clone());
        (member.state, member.reason) = state_of(view, member);
        member.lost_since = (member.state == MemberState::Lost).then(|| {
            let before = known(&member.name).and_then(|m| m.lost_since.clone());
            before.unwrap_or_else(|| view.now().clone())
        });
        if leaving == Some(member.name.as_str()) {
            member.state = MemberState::Leaving;
        }
    }
    all.sort_by(|a, b| {
        let order = |m: &Member| names::ordinal(&view.set_name(m.pool), &m.name);
        (a.pool, order(a), &a.name).cmp(&(b.pool, order(b), &b.name))
    });
    all
}

fn absent(name: &str) -> Member {
    Member {
        name: name.to_owned(),
        pool: Pool::Voter,
        role: Role::Absent,
        state: MemberState::Starting,
        raft_id: None,
        pod_uid: None,
        claim_uid: None,
        node: None,
        reason: None,
        lost_since: None,
    }
}

fn pool_of(view: &View<'_>, name: &str) -> Pool {
    let reader = names::ordinal(&view.set_name(Pool::Read), name);
    reader.map_or(Pool::Voter, |_| Pool::Read)
}

fn endpoints(view: &View<'_>) -> Endpoints {
    let namespace = view.seen.cluster.metadata.namespace.as_deref();
    let namespace = namespace.unwrap_or("default");
    let url = |service: String, port: i32| {
        format!(
            "http://{service}.{namespace}.svc.{}:{port}",
            view.spec.cluster_domain
        )
    };
    let services = view.spec.services.clone().unwrap_or_default();
    let port = services.client.unwrap_or_default().port;
    let leader = services.leader.unwrap_or_default().enabled;
    let http = names::HTTP_PORT;
    Endpoints {
        client: url(names::client(view.name), port.unwrap_or(http)),
        leader: leader.then(|| url(names::leader(view.name), http)),
        read: super::build::has_readers(view).then(|| url(names::read(view.name), http)),
    }
}

fn phase(
    view: &View<'_>,
    decision: &Decision,
    paused: bool,
    outage: &Outage,
    next: &RqliteClusterStatus,
) -> Phase {
    let metadata = &view.seen.cluster.metadata;
    if metadata.deletion_timestamp.is_some() && !super::deletion::is_protected(view) {
        return Phase::Deleting;
    }
    if paused {
        return Phase::Paused;
    }
    if matches!(decision, Decision::Blocked("InvalidSpec", _)) {
        return Phase::Invalid;
    }
    let stopping = next.operation.as_ref().map(|o| o.kind) == Some(OperationType::Hibernate);
    if stopping || next.is(HIBERNATED) {
        return Phase::Hibernated;
    }
    if next.bootstrapped_at.is_none() {
        return Phase::Forming;
    }
    if next.operation.as_ref().map(|o| o.kind) == Some(OperationType::Recover) {
        return Phase::Recovering;
    }
    if next.is(QUORUM_LOST) {
        return Phase::QuorumLost;
    }
    if *outage != Outage::None {
        return Phase::Unavailable;
    }
    if next.operation.is_some() || matches!(decision, Decision::Record(..) | Decision::Act(..)) {
        return Phase::Changing;
    }
    let complete = view.participants().len() == view.config_voters();
    match decision {
        Decision::Pass if complete => Phase::Running,
        Decision::Pass | Decision::Wait(_) | Decision::Blocked(..) => Phase::Degraded,
        Decision::Record(..) | Decision::Act(..) => Phase::Changing,
    }
}
