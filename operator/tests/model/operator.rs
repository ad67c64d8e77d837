//! The operator in this model: makes an observation, runs the real planner, carries out the plan, and may
//! stop at any point.
use std::collections::BTreeMap;

use node_contract::status::{SecurityStatus, TlsStatus};
use operator_api::{
    RqliteClusterStatus, names,
    status::{Operation, Pool, TlsStage},
};
use rand::{Rng, rngs::StdRng};
use rqlite_operator::cluster::{
    Action, NodeStatus, Observation, Plan,
    facts::{
        certificates::read_pair,
        observation::{
            ConfigMember, Failure, FailureKind, ObservedClaim, ObservedPod, ObservedSet,
            OperatorFacts, PrepareReport, ProbeResult,
        },
        secrets::{ObservedSecret, SecretOwner},
        stages::{PodTls, can_speak},
        view::{View, quorum},
    },
    plan,
    render::build::Object,
};
use rqlite_operator::secrets::Maker;

use crate::{
    actions::{Request, act},
    contradictions::contradictions,
    deletion,
    kubernetes::set_name,
    others, raft,
    world::{DelayedAction, Pod, Set, World, starts},
};

/// One reconcile, perhaps with an outdated observation, perhaps cut off.
///
/// # Errors
/// The rule that was broken.
pub(crate) fn tick(world: &mut World, rng: &mut StdRng, storm: bool) -> Result<(), String> {
    if world.operator_down_until > world.now || rng.random_bool(0.5) {
        return Ok(());
    }
    let seen = observe(world);
    let plan = plan(&seen);
    check(&seen, &plan)?;
    // A cluster that ends has no quorum to keep.
    if !deletion::ends(world) {
        check_quorum(&seen, &plan)?;
    }
    world.leader_seen = View::of(&seen).leader_seen();
    others::check(world, &plan)?;
    deletion::check(world, &plan)?;
    world.note(|| format!("{} | {:?}", plan.summary, plan.action));
    // Time passes between the observation and the action.
    if storm && rng.random_bool(0.1) {
        for _ in 0..rng.random_range(1..4) {
            world.now += 1;
            crate::kubernetes::tick(world, rng);
            raft::tick(world, rng)?;
        }
    }
    carry_out(world, rng, &plan, storm)
}

/// Does the effect happen? The operator may stop before it.
fn survives(world: &mut World, rng: &mut StdRng, storm: bool) -> bool {
    if storm && rng.random_bool(0.04) {
        world.operator_down_until = world.now + rng.random_range(1..20);
        world.checks.clear();
        world.leader_seen = None;
        world.note(|| "! the operator stops".to_owned());
        return false;
    }
    true
}

fn carry_out(world: &mut World, rng: &mut StdRng, plan: &Plan, storm: bool) -> Result<(), String> {
    if !survives(world, rng, storm) {
        return Ok(());
    }
    deletion::write_finalizers(world, plan);
    let was_formed = is_formed(world.cluster.status.as_ref());
    if was_formed && plan.status.bootstrapped_at.is_none() {
        return Err("the cluster may form again".to_owned());
    }
    world.cluster.status = Some((*plan.status).clone());
    if let Some(operation) = &plan.status.operation {
        world.begun.insert(operation.id.clone());
    }
    for update in &plan.recoveries {
        if !survives(world, rng, storm) {
            return Ok(());
        }
        let known = world.recoveries.iter_mut();
        for recovery in known.filter(|r| r.metadata.uid.as_ref() == Some(&update.uid)) {
            recovery.status = Some((*update.status).clone());
            let said = update.status.message.as_deref().unwrap_or_default();
            if said.contains("no acknowledged write can be lost") {
                world.promised_lossless.insert(update.uid.clone());
            } else if said.contains("acknowledged writes may be lost") {
                world.promised_lossless.remove(&update.uid);
            }
        }
    }
    if world.moves {
        make_secrets(world, plan);
    }
    for object in &plan.objects {
        if !survives(world, rng, storm) {
            return Ok(());
        }
        apply(world, object);
    }
    let expired = |uid: Option<&String>| plan.expired.iter().any(|e| Some(&e.uid) == uid);
    let recoveries = &mut world.recoveries;
    recoveries.retain(|r| !expired(r.metadata.uid.as_ref()));
    for labels in &plan.labels {
        if let Some(pod) = world.pods.get_mut(&labels.pod)
            && pod.uid == labels.uid
        {
            for (key, value) in &labels.labels {
                match value {
                    Some(value) => pod.labels.insert(key.clone(), value.clone()),
                    None => pod.labels.remove(key),
                };
            }
        }
    }
    if let Some(action) = &plan.action
        && survives(world, rng, storm)
    {
        let operation = world.cluster.status.as_ref();
        let operation = operation.and_then(|s| s.operation.clone());
        send(world, rng, action, operation, storm)?;
    }
    Ok(())
}

/// Carries out an action now, or later although the operator sees a failure: a request may wait in a queue, a
/// reply may be lost.
fn send(
    world: &mut World,
    rng: &mut StdRng,
    action: &Action,
    operation: Option<Operation>,
    storm: bool,
) -> Result<(), String> {
    if let Action::SetReplicas {
        absent: Some(absent),
        ..
    } = action
    {
        // The leader is queried once more, immediately before the write.
        match probe(world, &absent.leader) {
            ProbeResult::Ok(node) if absent.is_proven_by(&node) => {}
            ProbeResult::Ok(_) | ProbeResult::Failed(_) => return Ok(()),
        }
    }
    let ends = deletion::ends(world);
    if let (true, Action::DeleteClaim { name, .. }) = (ends, action) {
        deletion::check_claim(world, name)?;
    }
    let version = world.sets.values().map(|set| set.version).sum();
    if !storm || rng.random_bool(0.88) {
        let request = Request {
            action,
            operation,
            late: None,
            ends,
        };
        return act(world, rng, &request);
    }
    world.note(|| format!("! a late {action:?}"));
    world.late += 1;
    world.in_flight.push(DelayedAction {
        at: world.now + rng.random_range(0..12),
        action: action.clone(),
        operation,
        version,
        ends,
    });
    Ok(())
}

/// Delayed actions take effect.
///
/// # Errors
/// The rule that was broken.
pub(crate) fn arrive(world: &mut World, rng: &mut StdRng) -> Result<(), String> {
    let now = world.now;
    let (due, later) = std::mem::take(&mut world.in_flight)
        .into_iter()
        .partition(|delayed| delayed.at <= now);
    world.in_flight = later;
    let due: Vec<DelayedAction> = due;
    for delayed in due {
        world.note(|| format!("! arrives late: {:?}", delayed.action));
        let request = Request {
            action: &delayed.action,
            operation: delayed.operation,
            late: Some(delayed.version),
            ends: delayed.ends,
        };
        act(world, rng, &request)?;
    }
    Ok(())
}

fn is_formed(status: Option<&RqliteClusterStatus>) -> bool {
    status.is_some_and(|s| s.bootstrapped_at.is_some())
}

fn apply(world: &mut World, object: &Object) {
    match object {
        Object::ConfigMap(map) => {
            let text = map.data.as_ref().and_then(|d| d.values().next()).unwrap();
            if map.metadata.name == Some(names::recovery(crate::world::NAME)) {
                world.plan = Some(serde_json::from_str(text).unwrap());
            } else {
                world.state = Some(serde_json::from_str(text).unwrap());
            }
        }
        Object::StatefulSet(set) => {
            let name = set.metadata.name.clone().unwrap();
            let pool = if name == set_name(Pool::Read) {
                Pool::Read
            } else {
                Pool::Voter
            };
            let spec = set.spec.clone().unwrap();
            let template = spec.template;
            let hash = template.metadata.unwrap().annotations.unwrap()
                [names::TEMPLATE_HASH_ANNOTATION]
                .clone();
            let node = template.spec.unwrap().containers[0].clone();
            let flags = node.args.unwrap_or_default();
            let tls = PodTls::of_flags(flags.iter().map(String::as_str));
            let image = node.image.unwrap();
            let claims = spec.volume_claim_templates.unwrap();
            let requests = claims[0]
                .spec
                .clone()
                .unwrap()
                .resources
                .unwrap()
                .requests
                .unwrap();
            let size = requests["storage"].0.clone();
            let fresh = world.fresh("set");
            let live = world.sets.entry(pool).or_insert_with(|| Set {
                uid: fresh,
                replicas: 0,
                hash: String::new(),
                image: String::new(),
                tls,
                claim_size: size.clone(),
                version: 0,
            });
            assert_eq!(live.claim_size, size, "claim templates cannot change");
            let replicas = spec.replicas.unwrap_or(1);
            if (&live.hash, live.replicas) != (&hash, replicas) {
                live.version += 1;
            }
            (live.hash, live.image, live.tls) = (hash, image, tls);
            live.replicas = replicas;
        }
        _ => {}
    }
}

/// Makes the plan's Secrets, as the operator does.
fn make_secrets(world: &mut World, plan: &Plan) {
    let seen = world.secrets.clone();
    let mut maker = Maker::new(&seen);
    for one in &plan.secrets.make {
        let before = world.secrets.get(&one.name);
        let data = maker.make(one, before).unwrap();
        maker.note(&one.name, data.clone());
        if before.is_some_and(|before| before.data == data) {
            continue;
        }
        let secret = ObservedSecret {
            uid: one.name.clone(),
            resource_version: world.fresh("version"),
            secret_type: one.secret_type.to_owned(),
            owner: SecretOwner::Ours,
            immutable: false,
            deleting: false,
            labels: BTreeMap::new(),
            annotations: one.annotations.clone(),
            changed_at: None,
            data,
        };
        world.secrets.insert(one.name.clone(), secret);
    }
    for one in &plan.secrets.delete {
        world.secrets.remove(&one.name);
    }
}

/// Certificates that a node reports: it reads changed files at once.
fn security(world: &World, name: &str) -> Option<SecurityStatus> {
    let mut all = SecurityStatus::default();
    let secret = world
        .secrets
        .get(&names::node_tls_secret(crate::world::NAME));
    let pair = secret.and_then(|secret| read_pair(secret).ok());
    if world.pods[name].tls.nodes != TlsStage::Plain
        && let Some(pair) = pair
    {
        all.node_tls = Some(TlsStatus {
            leaf_sha256: pair.leaf.sha256,
            trusted_sha256: pair.trusted.into_iter().map(|ca| ca.sha256).collect(),
            ..TlsStatus::default()
        });
    }
    Some(all)
}

/// Pods of which one understands the other, whatever stage of a move they have.
pub(crate) fn can_all_speak(world: &World) -> Result<(), String> {
    let there = |pod: &&Pod| pod.gone_at.is_none_or(|at| at > world.now);
    let stages: Vec<_> = world
        .pods
        .values()
        .filter(there)
        .map(|pod| pod.tls.nodes)
        .collect();
    let apart = |one: &TlsStage| stages.iter().any(|other| !can_speak(*one, *other));
    match world.pods.values().any(|pod| apart(&pod.tls.nodes)) && world.formations > 0 {
        true => Err(format!("nodes do not understand each other: {stages:?}")),
        false => Ok(()),
    }
}

/// Rules that every plan keeps with respect to its observation.
fn check(seen: &Observation, plan: &Plan) -> Result<(), String> {
    let found = contradictions(&seen.cluster, &plan.status);
    if !found.is_empty() {
        return Err(format!("the status contradicts itself: {found:?}"));
    }
    let Some(action) = &plan.action else {
        return Ok(());
    };
    let before = seen
        .cluster
        .status
        .as_ref()
        .and_then(|s| s.operation.clone());
    if before.as_ref().map(|o| &o.id) != plan.status.operation.as_ref().map(|o| &o.id) {
        return Err(format!(
            "{action:?} in the reconcile that records another operation"
        ));
    }
    Ok(())
}

/// Members stop only while the others are a quorum.
fn check_quorum(seen: &Observation, plan: &Plan) -> Result<(), String> {
    let view = View::of(seen);
    let Some(action) = &plan.action else {
        return Ok(());
    };
    let voters = view.config_voters();
    let participants = view.participants();
    let (leaves, after) = match action {
        Action::EvictPod { name, .. } | Action::DeletePod { name, .. } => (name, voters),
        Action::RemoveMember { name, .. } => {
            let votes = view.member(name).is_some_and(|m| m.voter);
            (name, voters - usize::from(votes))
        }
        _ => return Ok(()),
    };
    if voters <= 2 || !participants.contains(&leaves.as_str()) {
        return Ok(());
    }
    let wanted = usize::try_from(seen.cluster.spec.replicas).unwrap();
    let needed = match action {
        Action::RemoveMember { .. } => quorum(after),
        _ => quorum(after.max(wanted.min(after))),
    };
    if participants.len() - 1 < needed {
        return Err(format!(
            "{action:?} leaves {} of {after} voters",
            participants.len() - 1
        ));
    }
    Ok(())
}

/// The operator's observation of this world.
#[expect(clippy::too_many_lines, reason = "one value, field by field")]
pub(crate) fn observe(world: &mut World) -> Observation {
    let fresh_id = world.fresh("id");
    let set = |pool| {
        world.sets.get(&pool).map(|set| ObservedSet {
            image: None,
            uid: set.uid.clone(),
            replicas: set.replicas,
            template_hash: set.hash.clone(),
            claim_size: set.claim_size.clone(),
            owner_label: None,
            replicas_set: None,
            account: None,
            deleting: false,
            tls: set.tls,
        })
    };
    let pods = world.pods.iter().map(|(name, pod)| ObservedPod {
        name: name.clone(),
        uid: pod.uid.clone(),
        pool: pod.pool,
        template_hash: pod.hash.clone(),
        ready: pod.ready_since.is_some(),
        ready_since: pod.ready_since.map(|at| world.time(at)),
        deleting: pod.gone_at.is_some(),
        machine: Some("m1".to_owned()),
        created: None,
        unscheduled_since: None,
        stuck: stuck(world, name, pod),
        prepared: pod.report.map(|state| PrepareReport {
            state: state.to_owned(),
            cluster_id: None,
            lineage: None,
            raft_id: world.disk(name).and_then(|d| d.raft_id.clone()),
            last_log: None,
            reason: state.to_owned(),
        }),
        update_now: false,
        labels: pod.labels.clone(),
        claim: None,
        orphaned: !world.sets.contains_key(&pod.pool),
        tls: pod.tls,
        archive: None,
    });
    let claims = world.claims.iter().map(|(name, claim)| ObservedClaim {
        name: name.clone(),
        uid: claim.uid.clone(),
        requested: claim.requested.clone(),
        capacity: Some(claim.requested.clone()),
        class: Some("standard".to_owned()),
        resize_pending: false,
        lost: claim.lost.then(|| "its machine is gone".to_owned()),
        deleting: claim.doomed,
    });
    Observation {
        now: world.time(world.now),
        fresh_id,
        restores: Vec::new(),
        restore_source: None,
        restore_states: BTreeMap::new(),
        operator: OperatorFacts {
            class: "default".to_owned(),
            installation: "operators/rqlite-operator".to_owned(),
            version: "1".to_owned(),
            node_image: world.default_image.clone(),
            namespace: "operators".to_owned(),
            platform: rqlite_operator::cluster::facts::observation::Platform::default(),
        },
        cluster: world.cluster.clone(),
        voters: set(Pool::Voter),
        readers: set(Pool::Read),
        pods: pods.collect(),
        strays: world.strays.clone(),
        claims: claims.chain(others::claims(world)).collect(),
        state: world.state.clone(),
        plan: world.plan.clone(),
        recoveries: world.recoveries.clone(),
        checks: world.checks.clone(),
        nodes: world
            .pods
            .keys()
            .map(|n| (n.clone(), probe(world, n)))
            .collect(),
        cordoned: Vec::new(),
        drain: Default::default(),
        expandable: BTreeMap::new(),
        namespace_ends: false,
        refused: None,
        taken: others::taken(world),
        blockers: Vec::new(),
        edits: Vec::new(),
        leader_seen: world.leader_seen.clone(),
        default_clients: None,
        secrets: world.secrets.clone(),
        issued: BTreeMap::new(),
    }
}

fn stuck(world: &World, name: &str, pod: &Pod) -> Option<String> {
    let lost = world
        .claims
        .get(&names::claim(name))
        .is_some_and(|c| c.lost);
    if lost {
        return Some("Unschedulable: volume node affinity conflict".to_owned());
    }
    let report = pod.report.map(|state| format!("prepare: {state}"));
    report.or_else(|| (!starts(pod)).then(|| "ImagePullBackOff".to_owned()))
}

fn probe(world: &World, name: &str) -> ProbeResult {
    let reached = world
        .pods
        .get(name)
        .is_some_and(|p| p.cut_until <= world.now);
    let disk = world.disk(name);
    let (true, true, Some(disk)) = (reached, world.is_up(name), disk) else {
        return ProbeResult::Failed(Failure {
            failure: FailureKind::Timeout,
            message: "no answer".to_owned(),
        });
    };
    let member = world
        .config
        .iter()
        .any(|m| Some(&m.raft_id) == disk.raft_id.as_ref());
    let leader = world.leader.clone().filter(|_| member);
    let leads = world.leader.as_deref() == Some(name);
    let settled = world.is_settled_leader(name);
    let (config, config_index) = match settled {
        true => (&world.config, world.config_index),
        false => (&disk.config, disk.config_index),
    };
    ProbeResult::Ok(NodeStatus {
        archive: None,
        auto_restore: None,
        security: security(world, name),
        version: None,
        format_version: None,
        format_version_max: None,
        raft_id: disk.raft_id.clone().unwrap_or_default(),
        cluster_id: disk.cluster_id.clone(),
        lineage: disk.lineage.clone(),
        ready: leader.is_some(),
        leader,
        is_leader: leads,
        term: world.term,
        last_log_term: disk.log_term,
        last_log_index: disk.log,
        config_index,
        commit_index: if settled {
            // Every other second an entry is not committed yet.
            world.committed.saturating_sub(world.now % 2)
        } else {
            disk.log.min(world.committed)
        },
        unreachable_seconds: if leads {
            let away = world.config.iter().filter(|m| !world.is_up(&m.name));
            away.map(|m| (m.raft_id.clone(), 9)).collect()
        } else {
            BTreeMap::new()
        },
        addresses: BTreeMap::new(),
        database_bytes: None,
        disk: None,
        parked: None,
        // The result is where an older node's is: among those that the operator remembers.
        check: None,
        applied_index: disk.log,
        config: config
            .iter()
            .map(|m| ConfigMember {
                raft_id: m.raft_id.clone(),
                name: m.name.clone(),
                voter: m.voter,
            })
            .collect(),
    })
}
