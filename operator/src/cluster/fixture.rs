//! Test fixture: a running cluster as an observation, and changes that can happen to it.
use std::collections::BTreeMap;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use node_contract::Lineage as NodeLineage;
use node_contract::status::CheckStatus;
use operator_api::{
    RqliteCluster, RqliteClusterSpec, RqliteRecovery, RqliteRecoverySpec, cluster::ReadReplicas,
    names, status::Pool,
};

use crate::cluster::{
    action::Action,
    facts::{
        observation::{
            ConfigMember, DrainFacts, Failure, FailureKind, NodeStatus, Observation, ObservedClaim,
            ObservedPod, ObservedSet, OperatorFacts, ProbeResult,
        },
        stages::PodTls,
    },
    plan::{Plan, plan},
    render::build::Object,
};

/// The cluster's name.
pub(crate) const NAME: &str = "demo";

/// An observation that tests change between reconciles.
pub(crate) struct Fixture {
    pub(crate) seen: Observation,
    /// Do pods keep their template hash when the StatefulSet's template changes? By default they take over
    /// the new one, as if recreated.
    pub(crate) keeps_pods: bool,
    counter: u64,
}

fn time(second: i64) -> Time {
    Time(Timestamp::from_second(second).unwrap())
}

/// A cluster without pods.
fn observation(cluster: RqliteCluster, voters: i32, readers: i32) -> Observation {
    let set = |replicas: i32| ObservedSet {
        uid: format!("set-{replicas}"),
        replicas,
        template_hash: String::new(),
        claim_size: "10Gi".to_owned(),
        owner_label: None,
        replicas_set: None,
        account: None,
        image: None,
        deleting: false,
        tls: PodTls::default(),
    };
    Observation {
        now: time(1_800_000_000),
        fresh_id: "fresh-0".to_owned(),
        operator: OperatorFacts {
            class: "default".to_owned(),
            installation: "operators/rqlite-operator".to_owned(),
            version: "1".to_owned(),
            node_image: "rqlited:1".to_owned(),
            namespace: "operators".to_owned(),
            platform: crate::cluster::facts::observation::Platform::default(),
        },
        cluster,
        voters: Some(set(voters)),
        readers: (readers > 0).then(|| set(readers)),
        pods: Vec::new(),
        strays: Vec::new(),
        claims: Vec::new(),
        state: None,
        default_clients: None,
        plan: None,
        recoveries: Vec::new(),
        restores: Vec::new(),
        restore_source: None,
        restore_states: BTreeMap::new(),
        nodes: BTreeMap::new(),
        checks: BTreeMap::new(),
        cordoned: Vec::new(),
        drain: DrainFacts::default(),
        expandable: BTreeMap::new(),
        namespace_ends: false,
        refused: None,
        taken: Vec::new(),
        blockers: Vec::new(),
        edits: Vec::new(),
        leader_seen: None,
        secrets: BTreeMap::new(),
        issued: BTreeMap::new(),
    }
}

impl Fixture {
    /// A formed, healthy cluster with this many voters and read replicas; `demo-0` leads, index 100 is
    /// committed.
    pub(crate) fn running(voters: i32, readers: i32) -> Self {
        let spec = RqliteClusterSpec {
            replicas: voters,
            read_replicas: (readers > 0).then(|| ReadReplicas {
                replicas: Some(readers),
                ..ReadReplicas::default()
            }),
            ..RqliteClusterSpec::default()
        };
        let mut cluster = RqliteCluster::new(NAME, spec);
        cluster.metadata.namespace = Some("shop".to_owned());
        cluster.metadata.uid = Some("cluster-uid".to_owned());
        cluster.metadata.generation = Some(1);
        let mut fixture = Self {
            seen: observation(cluster, voters, readers),
            keeps_pods: false,
            counter: 0,
        };
        let of = |set: String, n: i32| (0..n).map(move |o| names::pod(&set, o));
        let all: Vec<(String, Pool)> = of(names::voters(NAME), voters)
            .map(|name| (name, Pool::Voter))
            .chain(of(names::readers(NAME), readers).map(|name| (name, Pool::Read)))
            .collect();
        let config: Vec<ConfigMember> = all
            .iter()
            .map(|(name, pool)| ConfigMember {
                raft_id: format!("{name}#i0"),
                name: name.clone(),
                voter: *pool == Pool::Voter,
            })
            .collect();
        for (name, pool) in &all {
            fixture.add(name, *pool, &config);
        }
        for _ in 0..8 {
            fixture.reconcile();
        }
        assert!(
            fixture.status().bootstrapped_at.is_some(),
            "{:?}",
            fixture.status()
        );
        fixture
    }

    /// A cluster of this many voters whose empty nodes run and have not formed it yet.
    pub(crate) fn forming(voters: i32) -> Self {
        let mut fixture = Self::running(voters, 0);
        fixture.leaderless();
        if let Some(status) = &mut fixture.seen.cluster.status {
            status.bootstrapped_at = None;
            status.members.clear();
            status.configuration_index = None;
        }
        for pod in &mut fixture.seen.pods {
            (pod.ready, pod.ready_since) = (false, None);
        }
        for answer in fixture.seen.nodes.values_mut() {
            if let ProbeResult::Ok(node) = answer {
                let NodeStatus {
                    raft_id,
                    cluster_id,
                    lineage,
                    ..
                } = node.clone();
                *node = NodeStatus {
                    raft_id,
                    cluster_id,
                    lineage,
                    ..NodeStatus::default()
                };
            }
        }
        fixture.reconcile();
        fixture
    }

    fn add(&mut self, name: &str, pool: Pool, config: &[ConfigMember]) {
        self.seen.pods.push(ObservedPod {
            name: name.to_owned(),
            uid: format!("pod-{name}"),
            pool,
            template_hash: String::new(),
            ready: true,
            ready_since: Some(time(1_700_000_000)),
            deleting: false,
            machine: Some("m1".to_owned()),
            created: Some(time(1_700_000_000)),
            unscheduled_since: None,
            stuck: None,
            prepared: None,
            update_now: false,
            labels: BTreeMap::new(),
            claim: None,
            orphaned: false,
            tls: PodTls::default(),
            archive: None,
        });
        self.seen.claims.push(ObservedClaim {
            name: names::claim(name),
            uid: format!("claim-{name}"),
            requested: "10Gi".to_owned(),
            capacity: Some("10Gi".to_owned()),
            class: None,
            resize_pending: false,
            lost: None,
            deleting: false,
        });
        let node = NodeStatus {
            raft_id: format!("{name}#i0"),
            cluster_id: Some("fresh-0".to_owned()),
            lineage: Some(NodeLineage {
                id: "fresh-0-0".to_owned(),
                epoch: 0,
            }),
            leader: Some("demo-0".to_owned()),
            is_leader: name == "demo-0",
            term: 3,
            last_log_term: 3,
            last_log_index: 100,
            commit_index: 100,
            applied_index: 100,
            ready: true,
            config: config.to_vec(),
            ..NodeStatus::default()
        };
        self.seen
            .nodes
            .insert(name.to_owned(), ProbeResult::Ok(node));
    }

    pub(crate) fn status(&self) -> operator_api::RqliteClusterStatus {
        self.seen.cluster.status.clone().unwrap_or_default()
    }

    /// Runs one reconcile, of which the status, the recoveries and the files are applied, and nothing else.
    /// StatefulSets take over new templates.
    pub(crate) fn reconcile(&mut self) -> Plan {
        let plan = plan(&self.seen);
        self.seen.cluster.status = Some((*plan.status).clone());
        for status in &plan.recoveries {
            for recovery in &mut self.seen.recoveries {
                if recovery.metadata.uid.as_ref() == Some(&status.uid) {
                    recovery.status = Some((*status.status).clone());
                }
            }
        }
        for object in &plan.objects {
            match object {
                Object::ConfigMap(map) => {
                    let text = map.data.as_ref().unwrap().values().next().unwrap();
                    if map.metadata.name.as_deref() == Some("demo-state") {
                        self.seen.state = Some(serde_json::from_str(text).unwrap());
                    } else {
                        self.seen.plan = Some(serde_json::from_str(text).unwrap());
                    }
                }
                Object::StatefulSet(set) => {
                    let template = &set.spec.as_ref().unwrap().template;
                    let annotations = template.metadata.as_ref().unwrap().annotations.clone();
                    let hash = annotations.unwrap()[names::TEMPLATE_HASH_ANNOTATION].clone();
                    let pool = if set.metadata.name.as_deref() == Some(NAME) {
                        Pool::Voter
                    } else {
                        Pool::Read
                    };
                    let live = match pool {
                        Pool::Voter => &mut self.seen.voters,
                        Pool::Read => &mut self.seen.readers,
                    };
                    let node = &template.spec.as_ref().unwrap().containers[0];
                    let flags = node.args.iter().flatten().map(String::as_str);
                    let tls = PodTls::of_flags(flags);
                    if let Some(live) = live {
                        live.template_hash.clone_from(&hash);
                        live.tls = tls;
                    }
                    let keeps = self.keeps_pods;
                    let pods = self.seen.pods.iter_mut();
                    for pod in pods.filter(|p| p.pool == pool && !keeps) {
                        pod.template_hash.clone_from(&hash);
                        pod.tls = tls;
                    }
                }
                _ => {}
            }
        }
        self.counter += 1;
        self.seen.fresh_id = format!("fresh-{}", self.counter);
        self.later(1);
        plan
    }

    /// The first action within the next four reconciles.
    pub(crate) fn action(&mut self) -> Option<Action> {
        (0..4).find_map(|_| self.reconcile().action)
    }

    pub(crate) fn later(&mut self, seconds: i64) {
        self.seen.now = time(self.seen.now.0.as_second() + seconds);
    }

    pub(crate) fn node(&mut self, name: &str) -> &mut NodeStatus {
        match self.seen.nodes.get_mut(name) {
            Some(ProbeResult::Ok(node)) => node,
            other => panic!("{name} does not answer: {other:?}"),
        }
    }

    pub(crate) fn pod(&mut self, name: &str) -> &mut ObservedPod {
        self.seen.pods.iter_mut().find(|p| p.name == name).unwrap()
    }

    pub(crate) fn claim(&mut self, name: &str) -> &mut ObservedClaim {
        let claim = names::claim(name);
        let mut claims = self.seen.claims.iter_mut();
        claims.find(|c| c.name == claim).unwrap()
    }

    /// Another node joins: it is in the configuration of every node, and no pod of the cluster runs it.
    pub(crate) fn join(&mut self, name: &str, voter: bool, address: &str) {
        let raft_id = format!("{name}#i0");
        for answer in self.seen.nodes.values_mut() {
            if let ProbeResult::Ok(node) = answer {
                node.config.push(ConfigMember {
                    raft_id: raft_id.clone(),
                    name: name.to_owned(),
                    voter,
                });
                node.addresses.insert(raft_id.clone(), address.to_owned());
            }
        }
    }

    /// A member leaves the configuration.
    pub(crate) fn leave(&mut self, name: &str) {
        for answer in self.seen.nodes.values_mut() {
            if let ProbeResult::Ok(node) = answer {
                node.config.retain(|m| m.name != name);
            }
        }
    }

    /// The node does not answer and its pod does not run.
    pub(crate) fn down(&mut self, name: &str, stuck: &str) {
        self.unreachable(name);
        let pod = self.pod(name);
        pod.ready = false;
        pod.stuck = Some(stuck.to_owned());
    }

    /// The node does not answer the operator; its pod is unchanged.
    pub(crate) fn unreachable(&mut self, name: &str) {
        let failure = Failure {
            failure: FailureKind::Timeout,
            message: "no answer".to_owned(),
        };
        self.seen
            .nodes
            .insert(name.to_owned(), ProbeResult::Failed(failure));
    }

    /// Every node that answers sees no leader any more.
    pub(crate) fn leaderless(&mut self) {
        for answer in self.seen.nodes.values_mut() {
            if let ProbeResult::Ok(node) = answer {
                (node.leader, node.is_leader, node.ready) = (None, false, false);
            }
        }
    }

    /// The pod and its claim were deleted and recreated; the new node has not been admitted yet.
    pub(crate) fn wipe(&mut self, name: &str) {
        self.down(name, "");
        self.pod(name).stuck = None;
        self.claim(name).uid = format!("claim-{name}-new");
    }

    pub(crate) fn recovery(&mut self, change: impl FnOnce(&mut RqliteRecoverySpec)) -> String {
        self.counter += 1;
        let name = format!("recovery-{:03}", self.counter);
        let mut spec = RqliteRecoverySpec::new(NAME, "test");
        change(&mut spec);
        let mut recovery = RqliteRecovery::new(&name, spec);
        recovery.metadata.uid = Some(format!("uid-{name}"));
        recovery.metadata.creation_timestamp = Some(self.seen.now.clone());
        self.seen.recoveries.push(recovery);
        name
    }

    pub(crate) fn recovery_status(&self, name: &str) -> operator_api::RqliteRecoveryStatus {
        let named = |r: &&RqliteRecovery| r.metadata.name.as_deref() == Some(name);
        let recovery = self.seen.recoveries.iter().find(named).unwrap();
        recovery.status.clone().unwrap_or_default()
    }

    /// The node has carried out the check that the last reconcile requested of it.
    pub(crate) fn check(&mut self, requested: &Action, fault: Option<&str>) {
        let state = fault.map_or(CheckStatus::SOUND, |_| CheckStatus::DAMAGED);
        let check = self.checking(requested, state);
        check.message = fault.unwrap_or_default().to_owned();
    }

    /// The node carries out the check, which is in this state.
    pub(crate) fn checking(&mut self, requested: &Action, state: &str) -> &mut CheckStatus {
        let Action::CheckMember {
            name,
            raft_id,
            id,
            limit_seconds,
            ..
        } = requested
        else {
            panic!("{requested:?}");
        };
        let node = self.node(name);
        assert_eq!(node.raft_id, *raft_id);
        node.check.insert(CheckStatus {
            id: id.clone(),
            state: state.to_owned(),
            limit_seconds: *limit_seconds,
            pages: 100,
            ..CheckStatus::default()
        })
    }

    /// A condition's status, reason and message.
    pub(crate) fn condition(&self, kind: &str) -> (bool, String, String) {
        let status = self.status();
        let one = status.condition(kind).unwrap();
        (
            one.status == "True",
            one.reason.clone(),
            one.message.clone(),
        )
    }
}
