//! A model of Raft with what an operator could break: elections, commits on the smallest quorum, membership
//! changes, joining.
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use rqlite_operator::cluster::facts::view::quorum;

use crate::{
    recovery,
    world::{Voter, World},
};
use operator_api::status::Pool;

/// Simulates one second of Raft.
///
/// # Errors
/// What was lost.
pub(crate) fn tick(world: &mut World, rng: &mut StdRng) -> Result<(), String> {
    form(world)?;
    recovery::check_ended(world)?;
    keep_leader(world);
    elect(world, rng)?;
    if world.leader.is_some() && world.now >= world.settles_at {
        write(world, rng);
        replicate(world, rng);
        admit(world, rng);
    }
    Ok(())
}

/// Empty nodes that may form a cluster do so once all expected nodes are there.
fn form(world: &mut World) -> Result<(), String> {
    let Some(state) = &world.state else {
        return Ok(());
    };
    // A node with data does not form a cluster, and prevents others from it.
    if world
        .claims
        .values()
        .any(|claim| !claim.disk.config.is_empty())
    {
        return Ok(());
    }
    let expect = usize::try_from(state.expect).unwrap();
    let ready: Vec<Voter> = world
        .pods
        .iter()
        .filter(|(name, pod)| pod.pool == Pool::Voter && world.is_up(name))
        .filter_map(|(name, _)| {
            let disk = world.disk(name)?;
            (disk.may_form && disk.config.is_empty()).then(|| Voter {
                raft_id: disk.raft_id.clone().unwrap(),
                name: name.clone(),
                voter: true,
            })
        })
        .collect();
    if ready.len() < expect || expect == 0 {
        return Ok(());
    }
    world.formations += 1;
    if world.formations > 1 {
        return Err("a second cluster has formed".to_owned());
    }
    let config: Vec<Voter> = ready.into_iter().take(expect).collect();
    for member in &config {
        let disk = world.disk_mut(&member.name).unwrap();
        disk.config.clone_from(&config);
        disk.config_index = 1;
        disk.log = 1;
    }
    world.lineage = world.disk(&config[0].name).and_then(|d| d.lineage.clone());
    world.config = config;
    world.config_index = 1;
    world.committed = 1;
    Ok(())
}

fn keep_leader(world: &mut World) {
    let up = world.up_voters();
    let lost = world
        .leader
        .as_ref()
        .is_some_and(|leader| !up.contains(leader) || up.len() < quorum(world.voters()));
    if lost {
        world.leader = None;
    }
}

fn elect(world: &mut World, rng: &mut StdRng) -> Result<(), String> {
    let up = world.up_voters();
    if world.leader.is_some() || up.len() < quorum(world.voters()) || world.config.is_empty() {
        return Ok(());
    }
    if rng.random_bool(0.5) {
        return Ok(());
    }
    let length = |name: &String| world.disk(name).map(|d| (d.log_term, d.log)).unwrap();
    let able: Vec<&String> = up
        .iter()
        .filter(|one| {
            let votes = up.iter().filter(|voter| length(voter) <= length(one));
            votes.count() >= quorum(world.voters())
        })
        .collect();
    let Some(winner) = able.choose(rng).map(|name| (*name).clone()) else {
        return Ok(());
    };
    let log = world.disk(&winner).unwrap().log;
    if log < world.committed {
        return Err(format!(
            "{winner} leads with {log} of {} acknowledged entries",
            world.committed
        ));
    }
    counts_no_wiped_vote(world, &up)?;
    world.note(|| format!("  {winner} leads"));
    world.lead(winner, rng);
    Ok(())
}

/// A node that votes still has everything that it helped to acknowledge.
fn counts_no_wiped_vote(world: &World, up: &[String]) -> Result<(), String> {
    for disk in up.iter().filter_map(|name| world.disk(name)) {
        let id = disk.raft_id.as_deref().unwrap_or_default();
        let promised = world.acknowledged.get(id).copied().unwrap_or(0);
        if disk.log < promised {
            return Err(format!(
                "{id} votes with {} of {promised} entries that it acknowledged",
                disk.log
            ));
        }
    }
    Ok(())
}

/// Appends an entry at the leader and on the smallest quorum.
fn append(world: &mut World, rng: &mut StdRng) {
    let leader = world.leader.clone().unwrap();
    let term = world.term;
    let log = {
        let disk = world.disk_mut(&leader).unwrap();
        disk.log += 1;
        disk.log_term = term;
        disk.log
    };
    let mut others = world.up_voters();
    others.retain(|name| *name != leader);
    while others.len() + 1 > quorum(world.voters()) {
        let index = rng.random_range(0..others.len());
        others.swap_remove(index);
    }
    others.push(leader);
    for name in others {
        let disk = world.disk_mut(&name).unwrap();
        disk.log = log;
        disk.log_term = term;
        let id = disk.raft_id.clone().unwrap_or_default();
        world.acknowledged.insert(id, log);
    }
    world.committed = log;
}

fn write(world: &mut World, rng: &mut StdRng) {
    append(world, rng);
}

/// The other nodes sometimes catch up.
fn replicate(world: &mut World, rng: &mut StdRng) {
    let leader = world.leader.clone().unwrap();
    let source = world.disk(&leader).unwrap().clone();
    let config = world.config.clone();
    for member in &config {
        let current = member.name == leader || rng.random_bool(0.6);
        if current && world.is_up(&member.name) {
            let disk = world.disk_mut(&member.name).unwrap();
            if disk.raft_id.as_ref() == Some(&member.raft_id) {
                disk.log = source.log;
                disk.log_term = source.log_term;
                disk.config.clone_from(&config);
                disk.config_index = source.config_index;
            }
        }
    }
}

/// Nodes outside the configuration join; learners that should vote are promoted. One change per second.
fn admit(world: &mut World, rng: &mut StdRng) {
    let names: Vec<String> = world.pods.keys().cloned().collect();
    for name in names {
        if !world.is_up(&name) {
            continue;
        }
        let pod = &world.pods[&name];
        let voter = pod.pool == Pool::Voter;
        let removed = pod.removed;
        let disk = world.disk(&name).cloned().unwrap_or_default();
        // A node of another lineage is refused.
        let Some(raft_id) = disk.raft_id.filter(|_| disk.lineage == world.lineage) else {
            continue;
        };
        match world.config.iter().position(|m| m.name == name) {
            Some(at) if world.config[at].raft_id != raft_id => {
                let mut next = world.config.clone();
                next.remove(at);
                change(world, rng, next);
                return;
            }
            Some(at) if voter && !world.config[at].voter => {
                let caught_up = world.disk(&name).unwrap().log >= world.committed;
                if caught_up {
                    let mut next = world.config.clone();
                    next[at].voter = true;
                    change(world, rng, next);
                    return;
                }
            }
            Some(_) => {}
            // A removed node stays out until it is restarted, with rare exceptions.
            None if !removed || rng.random_bool(0.002) => {
                let mut next = world.config.clone();
                next.push(Voter {
                    raft_id,
                    name,
                    voter: false,
                });
                change(world, rng, next);
                return;
            }
            None => {}
        }
    }
}

/// Commits another configuration, if a quorum of the old and of the new one is up.
pub(crate) fn change(world: &mut World, rng: &mut StdRng, next: Vec<Voter>) -> bool {
    let up = world.up_voters();
    let voters: Vec<&Voter> = next.iter().filter(|m| m.voter).collect();
    let there = voters
        .iter()
        .filter(|m| up.contains(&m.name) || world.is_up(&m.name));
    let enough = there.count() >= quorum(voters.len()) && up.len() >= quorum(world.voters());
    let settled = world.leader.is_some() && world.now >= world.settles_at;
    if !settled || !enough || voters.is_empty() {
        return false;
    }
    world.note(|| {
        format!(
            "  configuration {:?}",
            next.iter().map(|m| (&m.name, m.voter)).collect::<Vec<_>>()
        )
    });
    // The entry is on a quorum of the old and of the new configuration.
    append(world, rng);
    world.config = next;
    world.config_index = world.committed;
    append_if_leading(world, rng);
    true
}

fn append_if_leading(world: &mut World, rng: &mut StdRng) {
    let leader = world.leader.clone().unwrap();
    if world.up_voters().contains(&leader) {
        let (config, index) = (world.config.clone(), world.config_index);
        let disk = world.disk_mut(&leader).unwrap();
        (disk.config, disk.config_index) = (config, index);
        append(world, rng);
    } else {
        // The leader removed itself: the next leader has the entry, as a quorum of the new configuration has
        // it.
        let log = world.committed;
        let term = world.term;
        for name in world.up_voters() {
            let disk = world.disk_mut(&name).unwrap();
            disk.log = log;
            disk.log_term = term;
        }
        world.leader = None;
    }
}
