//! The end of a recovery: all voters are back, and a read replica that was the survivor gives up its vote.
use operator_api::{
    recovery::{RecoveryMode, RecoveryPhase},
    status::Pool,
};

use super::record::with_outcome;
use crate::cluster::{
    action::{Action, Decision},
    deciders::scale::set_replicas,
    facts::{
        observation::ConfigMember,
        view::{View, quorum},
    },
};

/// After the new lineage has become the cluster's: returns a read replica that was the survivor to its pool,
/// and records the end.
pub fn rejoin(view: &View<'_>) -> Decision {
    let Some(record) = view
        .status
        .recovery
        .as_ref()
        .filter(|r| r.phase == RecoveryPhase::Rejoining)
    else {
        return Decision::Continue;
    };
    let (Some(leader), Some(target)) = (view.leader, view.target()) else {
        return Decision::Continue;
    };
    if let (Some(wanted), Some(set)) = (record.read_replicas, view.set(Pool::Read))
        && set.replicas < wanted
        && view.wanted_readers().is_none()
    {
        let raise = set_replicas(view, Pool::Read, set, wanted);
        return Decision::Act(raise, format!("restoring {wanted} read replicas"));
    }
    let there = view
        .participants()
        .into_iter()
        .filter(|name| operator_api::names::ordinal(&view.set_name(Pool::Voter), name).is_some())
        .count();
    // After a restore of the archive the cluster begins with one voter.
    let wanted = match record.mode {
        RecoveryMode::FromArchive => view.spec.replicas,
        _ => target.replicas.min(view.spec.replicas),
    };
    let wanted = usize::try_from(wanted).unwrap_or(1);
    if there < wanted {
        return Decision::Continue;
    }
    let reader = view
        .member(&record.survivor)
        .filter(|m| m.voter)
        .filter(|_| is_reader(view, &record.survivor));
    if let Some(reader) = reader {
        // There may be voters that the spec no longer asks for and that do not run: they count until they are
        // removed.
        let others = view.participants();
        let others = others.iter().filter(|name| **name != reader.name).count();
        if others < quorum(view.config_voters() - 1) {
            return Decision::Continue;
        }
        return return_vote(view, leader.name, reader);
    }
    let next = with_outcome(
        view,
        record,
        RecoveryPhase::Succeeded,
        format!("{there} voters take part; make a backup now"),
    );
    let from = match record.mode {
        RecoveryMode::FromArchive => "the archive",
        _ => &record.survivor,
    };
    Decision::Record(next, format!("recovered from {from}"))
}

fn is_reader(view: &View<'_>, name: &str) -> bool {
    operator_api::names::ordinal(&view.set_name(Pool::Read), name).is_some()
}

/// The read replica transfers leadership, leaves the configuration and, once restarted, rejoins without a
/// vote.
fn return_vote(view: &View<'_>, leader: &str, reader: &ConfigMember) -> Decision {
    let name = &reader.name;
    if leader == name {
        let successor = view
            .participants()
            .into_iter()
            .filter(|successor| *successor != name && !is_reader(view, successor))
            .min();
        return match successor {
            Some(successor) => Decision::Act(
                Action::TransferLeader {
                    from: name.clone(),
                    to: successor.to_owned(),
                },
                format!("transferring leadership from {name} to {successor}"),
            ),
            None => Decision::Continue,
        };
    }
    Decision::Act(
        Action::RemoveMember {
            leader: leader.to_owned(),
            name: name.clone(),
            raft_id: reader.raft_id.clone(),
        },
        format!("removing the vote of {name}, which rejoins as a read replica"),
    )
}
