//! Carries out the planner's actions in the model, and checks the rules that each of them must keep.
use operator_api::{
    names,
    status::{Operation, OperationType, Pool},
};
use rand::rngs::StdRng;
use rqlite_operator::cluster::{
    Action, deciders::recovery::object, facts::observation::DatabaseCheck,
};

use crate::{
    deletion,
    kubernetes::{set_name, stop},
    raft, recovery,
    world::World,
};

/// An action, with the operation that was on record when it was sent.
pub(crate) struct Request<'a> {
    pub(crate) action: &'a Action,
    pub(crate) operation: Option<Operation>,
    /// Set if it arrives late: the version of the StatefulSets that it is bound to.
    pub(crate) late: Option<u64>,
    /// Did the cluster end when it was sent?
    pub(crate) ends: bool,
}

impl Request<'_> {
    fn kind(&self) -> Option<OperationType> {
        self.operation.as_ref().map(|operation| operation.kind)
    }

    fn id(&self) -> Option<String> {
        self.operation
            .as_ref()
            .map(|operation| operation.id.clone())
    }
}

/// Carries out an action.
///
/// # Errors
/// The rule that was broken.
pub(crate) fn act(
    world: &mut World,
    rng: &mut StdRng,
    request: &Request<'_>,
) -> Result<(), String> {
    match request.action {
        Action::SetReplicas { .. } => return set_replicas(world, request),
        Action::TransferLeader { from, to } => transfer_leader(world, rng, from, to),
        Action::RemoveMember { .. } => remove_member(world, rng, request),
        Action::EvictPod { name, uid } | Action::DeletePod { name, uid } => {
            if world.pods.get(name).is_some_and(|pod| pod.uid == *uid) {
                if matches!(request.action, Action::EvictPod { .. }) {
                    record_stop(world, request.id(), uid)?;
                }
                stop(world, rng, name);
            }
        }
        Action::DeleteStatefulSet { uid, .. } if deletion::is_deleting(world) => {
            let mut sets = world.sets.iter();
            if let Some(pool) = sets.find(|(_, set)| set.uid == *uid).map(|(pool, _)| *pool) {
                deletion::remove_set(world, rng, pool);
            }
        }
        Action::DeleteStatefulSet { name, uid, orphan } => {
            if !orphan && request.late.is_none() {
                check_unused(world, name, uid)?;
            }
            world.sets.retain(|_, set| set.uid != *uid);
        }
        Action::ExpandClaim { uid, size, .. } => {
            for claim in world.claims.values_mut().filter(|c| c.uid == *uid) {
                claim.requested.clone_from(size);
            }
        }
        Action::DeleteClaim { uid, .. } if request.ends => deletion::delete_claim(world, uid),
        Action::DeleteClaim { name, uid } => return delete_claim(world, request, name, uid),
        Action::CheckMember {
            name,
            raft_id,
            id,
            as_leader,
            ..
        } => check_member(world, name, raft_id, id, *as_leader),
        Action::EndCheck { name, id } => {
            if world.checks.get(name).is_some_and(|check| check.id == *id) {
                world.checks.remove(name);
            }
        }
        Action::CreateRecovery {
            name,
            accept_data_loss,
            reason,
        } => {
            let object = object(&world.cluster, name, *accept_data_loss, reason);
            recovery::create(world, object);
        }
        Action::Restore { .. } => return Err("nobody asked for a restore".to_owned()),
        Action::ReleaseFinalizer => return deletion::release(world),
    }
    Ok(())
}

fn set_replicas(world: &mut World, request: &Request<'_>) -> Result<(), String> {
    let Action::SetReplicas {
        name,
        uid,
        from,
        to,
        ..
    } = request.action
    else {
        return Ok(());
    };
    let versions: u64 = world.sets.values().map(|set| set.version).sum();
    let pool = if *name == set_name(Pool::Read) {
        Pool::Read
    } else {
        Pool::Voter
    };
    let set = world
        .sets
        .get_mut(&pool)
        .filter(|s| s.uid == *uid && s.replicas == *from);
    let current = |version| version == versions;
    let Some(set) = set.filter(|_| request.late.is_none_or(current)) else {
        return Ok(());
    };
    set.replicas = *to;
    set.version += 1;
    if to < from {
        recovery::check_fence(world)?;
    }
    let stopping = matches!(
        request.kind(),
        // A cluster that has not formed may get fewer voters at once.
        Some(OperationType::Hibernate | OperationType::Recover | OperationType::Bootstrap)
    );
    if to < from && pool == Pool::Voter && !stopping {
        if *to != from - 1 {
            return Err(format!("{from} pods become {to} at once"));
        }
        let removed = names::pod(name, *to);
        // For an action that arrives late the absence cannot be checked again: the other rules must suffice.
        if request.late.is_none() && world.config.iter().any(|m| m.name == removed) {
            return Err(format!(
                "{removed} is stopped while it is in the configuration"
            ));
        }
        record_stop(world, request.id(), &removed)?;
    }
    Ok(())
}

fn transfer_leader(world: &mut World, rng: &mut StdRng, from: &String, to: &str) {
    let able = world.disk(to).is_some_and(|d| d.log >= world.committed) && world.is_up(to);
    if world.leader.as_ref() == Some(from) && able {
        world.lead(to.to_owned(), rng);
        world.transfers += 1;
    }
}

fn remove_member(world: &mut World, rng: &mut StdRng, request: &Request<'_>) {
    let Action::RemoveMember {
        leader,
        name,
        raft_id,
    } = request.action
    else {
        return;
    };
    // A node removes by name.
    let same = world
        .config
        .iter()
        .any(|m| m.raft_id == *raft_id || (request.late.is_some() && m.name == *name));
    if world.leader.as_ref() == Some(leader) && same {
        let mut next = world.config.clone();
        next.retain(|m| m.name != *name);
        if raft::change(world, rng, next)
            && let Some(pod) = world.pods.get_mut(name)
        {
            pod.removed = true;
        }
    }
}

/// Only a StatefulSet of read replicas without pods and members may be deleted.
fn check_unused(world: &World, name: &str, uid: &str) -> Result<(), String> {
    let set = world.sets.get(&Pool::Read).filter(|set| set.uid == uid);
    let readers = set_name(Pool::Read);
    let is_own = |name: &str| names::ordinal(&readers, name).is_some();
    let used = world.config.iter().any(|m| is_own(&m.name));
    if used || set.is_some_and(|set| set.replicas > 0) || name != readers {
        return Err(format!("{name} is deleted while it is used"));
    }
    Ok(())
}

fn delete_claim(
    world: &mut World,
    request: &Request<'_>,
    name: &str,
    uid: &str,
) -> Result<(), String> {
    let replaces = request.kind() == Some(OperationType::Replace);
    let claim = world.claims.get_mut(name).filter(|c| c.uid == uid);
    let Some(claim) = claim else { return Ok(()) };
    let pod = name.strip_prefix(&names::claim("")).unwrap_or_default();
    let reads = names::ordinal(&set_name(Pool::Read), pod).is_some();
    let scales = request.kind() == Some(OperationType::ScaleDown);
    if scales || (reads && !(claim.lost && replaces)) {
        return delete_retired(world, name, request.late.is_some());
    }
    if !claim.lost || !replaces {
        return Err(format!("{name} is deleted"));
    }
    claim.doomed = true;
    let raft_id = claim.disk.raft_id.clone();
    world.replaced += 1;
    let mut members = world.config.iter();
    if members.any(|m| Some(&m.raft_id) == raft_id.as_ref()) {
        return Err(format!(
            "{name} is deleted while its member is in the configuration"
        ));
    }
    // Its pod is not scheduled and does not keep it.
    world.claims.remove(name);
    Ok(())
}

fn check_member(world: &mut World, name: &String, raft_id: &String, id: &str, as_leader: bool) {
    let same = world
        .disk(name)
        .is_some_and(|d| d.raft_id.as_ref() == Some(raft_id));
    let leads = world.leader.as_ref() == Some(name);
    if same && world.is_up(name) && (leads || !as_leader) {
        let checked = DatabaseCheck {
            raft_id: raft_id.clone(),
            id: id.to_owned(),
            fault: None,
        };
        world.checks.insert(name.clone(), checked);
    }
}

/// Deletes the claim of a member that left, if the spec says so.
fn delete_retired(world: &mut World, name: &str, late: bool) -> Result<(), String> {
    let used = world.pods.keys().any(|pod| names::claim(pod) == *name);
    let member = world.config.iter().any(|m| names::claim(&m.name) == *name);
    let keeps = world.cluster.spec.storage.retention.is_none();
    if keeps || (!late && (used || member)) {
        return Err(format!(
            "{name} is deleted: in use {used}, its member {member}"
        ));
    }
    if used {
        let claim = world.claims.get_mut(name);
        claim.unwrap().doomed = true;
    } else {
        world.claims.remove(name);
    }
    Ok(())
}

/// An operation may stop one member at most.
fn record_stop(world: &mut World, operation: Option<String>, what: &str) -> Result<(), String> {
    let Some(id) = operation else {
        return Err(format!("{what} is stopped without an operation on record"));
    };
    let stopped = world.stopped.entry(id.clone()).or_default();
    stopped.insert(what.to_owned());
    if stopped.len() > 1 {
        return Err(format!("the operation {id} has stopped {stopped:?}"));
    }
    Ok(())
}
