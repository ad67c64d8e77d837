//! Decides what to do with a data directory, from an observation and the operator's files. A pure function.
use node_contract::{FormingPhase, Lineage, LogPosition, Others, PlanFile, StateFile};

/// The state of a data directory, as far as the decision needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// This node's name.
    pub name: String,
    /// The format version of the data, and the newest one that this program knows.
    pub format: (u16, u16),
    /// Damage found in the directory; empty if none.
    pub damage: Vec<String>,
    /// The data in the directory.
    pub holds: Contents,
    /// The target lineage of an unfinished recovery.
    pub recovering_to: Option<Lineage>,
    /// The plan that was carried out here completely.
    pub plan_done: Option<String>,
    /// The plan under which parking the data has started and is not finished.
    pub parking: Option<String>,
    /// The token under which the data of a removed member is to be parked; `None` if that has been done.
    pub retired: Option<String>,
}

/// The data in a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Nothing, or a name only.
    Nothing,
    /// An identity made by `prepare` for this cluster, and nothing else.
    Birth {
        /// The cluster that it was made for.
        cluster_id: String,
    },
    /// A member's data, or at least its pledge to become a member.
    Data {
        /// The node to which it belongs.
        owner: Option<String>,
        /// Its cluster; `None` if it has entries but no cluster id.
        cluster_id: Option<String>,
        /// Its lineage.
        lineage: Option<Lineage>,
        /// Its incarnation.
        incarnation: String,
        /// The last log entry.
        last_log: Option<LogPosition>,
    },
}

/// What to do with the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing; the node may start.
    Start,
    /// Write an identity that belongs to the state's cluster, then start.
    Create {
        /// The node may take part in the cluster's first forming.
        may_form: bool,
    },
    /// Carry out the plan, then start.
    Recover,
    /// The plan has been carried out; only the record is missing.
    Mark,
    /// Park the data, write an identity that can only join, then start.
    Park,
    /// Like `Park`, for a removed member; the token names the target directory.
    Retire(String),
    /// Do not start yet; try again later. The text is the reason.
    Hold(String),
    /// Do not start; a person or the operator has to decide. The text is the reason.
    Stop(StopReason, String),
}

/// Why a node must not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The data belongs to another cluster. It is never changed.
    Foreign,
    /// The data is in a format of a newer program. It is not changed.
    NewerFormat,
    /// The data is of a lineage that a recovery has ended.
    StaleLineage,
    /// The data is of a lineage that is not in the state file.
    UnknownLineage,
    /// The data is damaged.
    Damaged,
    /// The plan does not match the data.
    Refused,
}

/// Decides. The plan has already been checked by itself.
pub fn decide(observed: &Observation, state: &StateFile, plan: Option<&PlanFile>) -> Action {
    let plan_id = plan.map(|plan| &plan.plan_id);
    if observed.parking.is_some() && observed.parking.as_ref() == plan_id {
        return Action::Park;
    }
    let foreign = foreign(observed, state);
    // Damage does not matter for data that is parked, but its cluster does.
    if let Some(token) = &observed.retired
        && foreign.is_none()
        && state.phase != FormingPhase::Recovering
    {
        return Action::Retire(token.clone());
    }
    // Before damage: what a newer program wrote may look damaged to this one.
    let (format, known) = observed.format;
    if format > known {
        let reason = format!(
            "the data is in format version {format}, and this rqlited knows versions up to {known}: run a newer one; nothing was changed"
        );
        return Action::Stop(StopReason::NewerFormat, reason);
    }
    if !observed.damage.is_empty() {
        return Action::Stop(StopReason::Damaged, observed.damage.join("; "));
    }
    if let Some(foreign) = foreign {
        return Action::Stop(StopReason::Foreign, foreign);
    }
    if let Contents::Data {
        owner: Some(owner), ..
    } = &observed.holds
        && *owner != observed.name
    {
        return refuse(format!(
            "the data directory is that of node {owner}, not of {}: start each node with its own",
            observed.name
        ));
    }
    if let Some(plan) = plan.filter(|plan| plan.cluster_id != state.cluster_id) {
        return refuse(format!(
            "the plan is for cluster {}, the state for {}",
            plan.cluster_id, state.cluster_id
        ));
    }
    match state.phase {
        FormingPhase::Recovering => match plan {
            Some(plan) if follows(observed, plan) => follow(observed, plan),
            Some(plan) => Action::Hold(format!(
                "{} is being recovered from {}",
                state.cluster_id, plan.seed
            )),
            None => Action::Hold(format!("{} is being recovered", state.cluster_id)),
        },
        FormingPhase::Forming | FormingPhase::Formed => outside_recovery(observed, state, plan),
    }
}

fn refuse(reason: String) -> Action {
    Action::Stop(StopReason::Refused, reason)
}

fn foreign(observed: &Observation, state: &StateFile) -> Option<String> {
    let own = match &observed.holds {
        Contents::Nothing => return None,
        Contents::Birth { cluster_id } => Some(cluster_id),
        Contents::Data { cluster_id, .. } => cluster_id.as_ref(),
    };
    match own {
        Some(own) if *own == state.cluster_id => None,
        Some(own) => Some(format!(
            "the data directory belongs to cluster {own}, not to {}; nothing was changed",
            state.cluster_id
        )),
        None => Some(
            "the data directory holds entries of an unnamed cluster; nothing was changed".into(),
        ),
    }
}

/// Whether the plan recovers the data of this node.
fn follows(observed: &Observation, plan: &PlanFile) -> bool {
    let listed = || plan.peers.iter().any(|peer| peer.id == observed.name);
    observed.name == plan.seed || (plan.others == Others::Recover && listed())
}

fn follow(observed: &Observation, plan: &PlanFile) -> Action {
    if observed.plan_done.as_ref() == Some(&plan.plan_id) {
        return Action::Start;
    }
    match &observed.recovering_to {
        Some(to) if *to == plan.to_lineage => return Action::Recover,
        Some(to) => {
            return refuse(format!(
                "another recovery, to lineage {} (epoch {}), is unfinished here",
                to.id, to.epoch
            ));
        }
        None => {}
    }
    let Contents::Data {
        lineage: Some(lineage),
        incarnation,
        last_log,
        ..
    } = &observed.holds
    else {
        return refuse(format!(
            "the data directory of {} holds no data to recover",
            observed.name
        ));
    };
    if *lineage == plan.to_lineage {
        return Action::Mark;
    }
    if *lineage != plan.from_lineage {
        return refuse(format!(
            "the data is of lineage {} (epoch {}), the plan recovers {} (epoch {})",
            lineage.id, lineage.epoch, plan.from_lineage.id, plan.from_lineage.epoch
        ));
    }
    if observed.name == plan.seed {
        if *incarnation != plan.expect.incarnation {
            return refuse(format!(
                "the data is of incarnation {incarnation}, the plan expects {}",
                plan.expect.incarnation
            ));
        }
        let least = plan.expect.min_last_log;
        if last_log.is_none_or(|last| last < least) {
            let last = last_log.map_or_else(
                || "no entry".into(),
                |e| format!("index {}, term {}", e.index, e.term),
            );
            return refuse(format!(
                "the log ends at {last}, the plan expects at least index {}, term {}",
                least.index, least.term
            ));
        }
    }
    Action::Recover
}

/// Decides while no recovery is in progress.
fn outside_recovery(observed: &Observation, state: &StateFile, plan: Option<&PlanFile>) -> Action {
    let Contents::Data { lineage, .. } = &observed.holds else {
        let may_form =
            state.phase == FormingPhase::Forming && state.members.contains(&observed.name);
        return Action::Create { may_form };
    };
    let Some(lineage) = lineage else {
        return Action::Stop(
            StopReason::UnknownLineage,
            "the data names no lineage".into(),
        );
    };
    if *lineage == state.lineage || observed.recovering_to.as_ref() == Some(&state.lineage) {
        return Action::Start;
    }
    let said = format!(
        "the data is of lineage {} (epoch {}), the cluster of {} (epoch {})",
        lineage.id, lineage.epoch, state.lineage.id, state.lineage.epoch
    );
    if lineage.epoch >= state.lineage.epoch {
        return Action::Stop(StopReason::UnknownLineage, said);
    }
    let parks = plan.is_some_and(|plan| {
        plan.others == Others::Park
            && plan.to_lineage == state.lineage
            && plan.seed != observed.name
    });
    if parks {
        Action::Park
    } else {
        Action::Stop(StopReason::StaleLineage, said)
    }
}

#[cfg(test)]
mod tests;
