//! Members and read replicas in the status.
use operator_api::{
    names,
    status::{Member, MemberState, OperationType, Pool, PoolStatus, Role, UnknownMember},
};

use crate::cluster::{
    facts::{quorum::member_state, version::of_program, view::View},
    render::disks,
};

/// Maximum length of `status.members` and `status.unknownMembers`, as in the definition: an outsider who
/// joins many nodes must not make the status too large to be written.
const MOST_MEMBERS: usize = 128;
const MOST_UNKNOWN: usize = 16;

/// The unknown members, voters first.
pub(super) fn unknown(view: &View<'_>) -> Vec<UnknownMember> {
    let unreported = view.leader.is_none() && view.newest_configuration().is_none();
    if unreported || view.operating(OperationType::Recover).is_some() {
        return view.status.unknown_members.clone();
    }
    let mut all: Vec<UnknownMember> = view
        .unknown_members()
        .into_iter()
        .map(|member| {
            let mut known = view.status.unknown_members.iter();
            let known = known.find(|m| m.raft_id == member.raft_id);
            UnknownMember {
                name: member.name.clone(),
                raft_id: member.raft_id.clone(),
                address: view.advertised(member).map(str::to_owned),
                voter: member.voter,
                since: known.map_or_else(|| view.now().clone(), |m| m.since.clone()),
            }
        })
        .collect();
    all.sort_by_key(|member| !member.voter);
    all.truncate(MOST_UNKNOWN);
    all
}

pub(super) fn readers(view: &View<'_>) -> Option<PoolStatus> {
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

/// The members of the confirmed configuration, and all other pods. Without a leader the last confirmed
/// configuration counts, and during a recovery the one of before.
pub(super) fn members(view: &View<'_>, confirmed: &[Member], recovers: bool) -> Vec<Member> {
    let known = |name: &str| view.status.members.iter().find(|m| m.name == name);
    let mut all: Vec<Member> = Vec::new();
    if view.leader.is_some() && !recovers {
        for entry in view.config() {
            let leader = view.leader.map(|leader| &leader.status.raft_id);
            let leads = leader == Some(&entry.raft_id);
            let same = known(&entry.name).filter(|m| m.raft_id.as_ref() == Some(&entry.raft_id));
            let answers = view.node(&entry.name);
            let here = answers.is_some_and(|node| node.raft_id == entry.raft_id);
            let claim = view.claim(&entry.name).map(|claim| claim.uid.clone());
            all.push(Member {
                role: match (leads, entry.voter) {
                    (true, _) => Role::Leader,
                    (false, true) => Role::Voter,
                    (false, false) => Role::Learner,
                },
                raft_id: Some(entry.raft_id.clone()),
                // Only a node that responds proves which claim its data is on.
                claim_uid: claim
                    .filter(|_| here)
                    .or(same.and_then(|m| m.claim_uid.clone())),
                ..Member::absent(&entry.name, pool_of(view, &entry.name))
            });
        }
    } else {
        let known = confirmed.iter().filter(|m| m.role != Role::Absent);
        all.extend(known.map(|member| Member {
            role: present_role(view, member),
            ..member.clone()
        }));
    }
    for pod in &view.seen.pods {
        if !all.iter().any(|m| m.name == pod.name) {
            all.push(Member::absent(&pod.name, pod.pool));
        }
    }
    // Own members first: they have pods, or had claims.
    all.sort_by_key(|m| m.claim_uid.is_none() && view.pod(&m.name).is_none());
    all.truncate(MOST_MEMBERS);
    let leaving = view
        .operating(OperationType::ScaleDown)
        .and_then(|o| o.member.as_deref());
    for member in &mut all {
        let pod = view.pod(&member.name);
        member.pod_uid = pod.map(|pod| pod.uid.clone());
        let node = view.node(&member.name);
        (member.disk, member.parked) = (disks::disk(node), disks::parked(node));
        member.node = pod.and_then(|pod| pod.machine.clone());
        remember_version(view, known(&member.name), member);
        (member.state, member.reason) = member_state(view, member);
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

/// The role of a recorded voter: only the confirmed leader leads.
fn present_role(view: &View<'_>, member: &Member) -> Role {
    let leader = view.leader.map(|leader| &leader.status.raft_id);
    let leads = leader.is_some() && leader == member.raft_id.as_ref();
    match member.role {
        Role::Leader | Role::Voter if leads => Role::Leader,
        Role::Leader => Role::Voter,
        role => role,
    }
}

/// The version that the node runs; while it does not respond, the last one reported.
fn remember_version(view: &View<'_>, before: Option<&Member>, member: &mut Member) {
    let node = view.node(&member.name);
    let reported = node.and_then(|node| node.version.as_deref());
    member.version = reported.map(|text| of_program(text).to_owned());
    member.format_version_max = node.and_then(|node| node.format_version_max).map(i32::from);
    if let Some(before) = before.filter(|_| node.is_none()) {
        member.version.clone_from(&before.version);
        member.format_version_max = before.format_version_max;
    }
}

fn pool_of(view: &View<'_>, name: &str) -> Pool {
    let reader = names::ordinal(&view.set_name(Pool::Read), name);
    reader.map_or(Pool::Voter, |_| Pool::Read)
}
