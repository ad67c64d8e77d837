//! What no status may say at the same time, whatever is observed. Part of the model and of the unit tests.
use operator_api::{
    RqliteCluster, RqliteClusterStatus,
    cluster::UpdateStrategy,
    status::{
        ADVISORY, AVAILABLE, DEGRADED, HIBERNATED, MemberState, OperationType, PAUSED, PROGRESSING,
        Phase, QUORUM_LOST, READY, Role, STORAGE_READY, UPDATE_PENDING,
    },
};

/// Every condition; each is always there.
const ALL: [&str; 10] = [
    READY,
    AVAILABLE,
    PROGRESSING,
    DEGRADED,
    QUORUM_LOST,
    PAUSED,
    HIBERNATED,
    STORAGE_READY,
    UPDATE_PENDING,
    ADVISORY,
];

/// The contradictions in a status that was written for this object.
#[expect(clippy::too_many_lines, reason = "a list of rules")]
pub(crate) fn contradictions(cluster: &RqliteCluster, status: &RqliteClusterStatus) -> Vec<String> {
    let mut found = Vec::new();
    let mut never = |what: &str, holds: bool| {
        if holds {
            found.push(what.to_owned());
        }
    };
    for kind in ALL {
        let count = status.conditions.iter().filter(|c| c.type_ == kind);
        never(&format!("{kind} is there once"), count.count() != 1);
    }
    let is = |kind| status.is(kind);
    let reason = |kind| status.condition(kind).map_or("", |c| c.reason.as_str());
    let phase = status.phase;
    let (ready, available, lost) = (is(READY), is(AVAILABLE), is(QUORUM_LOST));
    for other in [PROGRESSING, DEGRADED, QUORUM_LOST, HIBERNATED] {
        never(&format!("Ready and {other}"), ready && is(other));
    }
    never("Ready and not Available", ready && !available);
    never(
        "Ready during an operation",
        ready && status.operation.is_some(),
    );
    let manual = cluster.spec.update.as_ref().and_then(|u| u.strategy);
    let waits =
        manual == Some(UpdateStrategy::Manual) || reason(UPDATE_PENDING) == "OperatorChanged";
    never(
        "Ready with outdated pods",
        ready && is(UPDATE_PENDING) && !waits,
    );
    never(
        "Running and not Ready",
        phase == Some(Phase::Running) && !ready,
    );
    let with_ready = [Phase::Running, Phase::Paused, Phase::Deleting];
    never(
        "Ready in another phase",
        ready && !phase.is_some_and(|phase| with_ready.contains(&phase)),
    );
    never(
        "Available without a leader",
        available != status.leader.is_some(),
    );
    never(
        "ready voters without a leader",
        status.ready_replicas > 0 && !available,
    );
    for kind in [READY, AVAILABLE, DEGRADED] {
        never(
            &format!("{kind} for QuorumLost, which is false"),
            reason(kind) == "QuorumLost" && !lost,
        );
        never(
            &format!("{kind} for LossDetected beside QuorumLost"),
            reason(kind) == "LossDetected" && lost,
        );
    }
    never("a lost quorum that is Available", lost && available);
    never(
        "a quorum is seen that is not Available",
        reason(QUORUM_LOST) == "LeaderSeen" && !available,
    );
    let without = [Phase::QuorumLost, Phase::Unavailable];
    never(
        "no leader by the phase alone",
        available && phase.is_some_and(|phase| without.contains(&phase)),
    );
    never(
        "the phase alone is QuorumLost",
        phase == Some(Phase::QuorumLost) && !lost,
    );
    never(
        "NoLeader and Available",
        reason(DEGRADED) == "NoLeader" && available,
    );
    never(
        "Paused in another phase",
        is(PAUSED) && !matches!(phase, Some(Phase::Paused | Phase::Deleting)),
    );
    let said = status.condition(READY).map_or("", |c| c.message.as_str());
    never(
        "not Ready, and nothing to do",
        !ready && (said.is_empty() || said == "nothing to do"),
    );
    members(status, &mut never);
    found
}

fn members(status: &RqliteClusterStatus, never: &mut impl FnMut(&str, bool)) {
    let recovers = status.operation.as_ref().map(|o| o.kind) == Some(OperationType::Recover);
    let leading = status.members.iter().filter(|m| m.role == Role::Leader);
    for member in leading.clone() {
        let gone = matches!(
            member.state,
            MemberState::Lost | MemberState::Unreachable | MemberState::Recoverable
        );
        never("a leader that is gone", gone);
        never(
            "another member leads",
            status.leader.as_ref() != Some(&member.name),
        );
    }
    never(
        "a leader that is no member",
        status.leader.is_some() && !recovers && leading.count() != 1,
    );
}
