//! The state of the model: the API server's objects, the running nodes and their disks.
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use node_contract::{Lineage as NodeLineage, PlanFile, StateFile};
use operator_api::{
    ByteSize, RqliteCluster, RqliteClusterSpec, RqliteRecovery,
    cluster::{
        ClientTls, ClientTlsMode, Deletion, MemberReplacement, NodeTls, NodeTlsMode,
        QuorumRecovery, ReadReplicas, RecoveryPolicy, Retention, Tls,
    },
    names,
    recovery::RecoveryPhase,
    status::{HIBERNATED, Operation, Pool},
};
use rand::{Rng, rngs::StdRng};
use rqlite_operator::cluster::{
    Action,
    facts::{
        observation::{DatabaseCheck, LeaderSeen},
        secrets::ObservedSecret,
        stages::{PodTls, goal},
    },
};

use crate::deletion::{Ending, ends};

/// The cluster's name.
pub(crate) const NAME: &str = "demo";

/// A StatefulSet.
#[derive(Clone, Debug)]
pub(crate) struct Set {
    pub(crate) uid: String,
    pub(crate) replicas: i32,
    pub(crate) hash: String,
    pub(crate) image: String,
    pub(crate) claim_size: String,
    pub(crate) tls: PodTls,
    /// Changes with every change of the StatefulSet.
    pub(crate) version: u64,
}

/// A pod, and the process in it.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) uid: String,
    pub(crate) pool: Pool,
    pub(crate) hash: String,
    pub(crate) image: String,
    pub(crate) tls: PodTls,
    pub(crate) labels: BTreeMap<String, String>,
    /// Time at which its node starts.
    pub(crate) runs_from: u64,
    /// Time at which it will be gone.
    pub(crate) gone_at: Option<u64>,
    /// Since when it is ready.
    pub(crate) ready_since: Option<u64>,
    /// Was its node removed from the configuration while it ran? It then stays out.
    pub(crate) removed: bool,
    /// The operator cannot reach its node before this time.
    pub(crate) cut_until: u64,
    /// The files that its kubelet shows: those of the pod's creation, or newer ones.
    pub(crate) files: (Option<StateFile>, Option<PlanFile>),
    /// Does its preparation wait?
    pub(crate) held: bool,
    /// The state that its preparation reported, if that kept the node from starting.
    pub(crate) report: Option<&'static str>,
}

/// The data on a claim's volume.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    /// Raft id, once a node has run on it.
    pub(crate) raft_id: Option<String>,
    /// Id of its cluster, once admitted.
    pub(crate) cluster_id: Option<String>,
    /// May it form a cluster?
    pub(crate) may_form: bool,
    /// Number of entries in its log.
    pub(crate) log: u64,
    /// Term of its newest entry.
    pub(crate) log_term: u64,
    /// The newest committed configuration that it knows, and its index.
    pub(crate) config: Vec<Voter>,
    pub(crate) config_index: u64,
    /// The lineage that it belongs to.
    pub(crate) lineage: Option<NodeLineage>,
    /// Id of the plan that was followed here.
    pub(crate) plan_done: Option<String>,
    /// Tokens under which data was parked here.
    pub(crate) parked: BTreeSet<String>,
    /// Is the data unreadable?
    pub(crate) damaged: bool,
}

/// A member of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Voter {
    pub(crate) raft_id: String,
    pub(crate) name: String,
    pub(crate) voter: bool,
}

/// A claim.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) uid: String,
    pub(crate) requested: String,
    pub(crate) disk: Disk,
    /// Has somebody deleted it? It disappears with its pod.
    pub(crate) doomed: bool,
    /// Is its volume on a machine that is gone for good?
    pub(crate) lost: bool,
}

/// A lineage that a recovery ended, and its last configuration.
#[derive(Clone, Debug)]
pub(crate) struct EndedLineage {
    pub(crate) lineage: NodeLineage,
    pub(crate) config: Vec<Voter>,
}

/// An action whose reply was lost.
#[derive(Clone, Debug)]
pub(crate) struct DelayedAction {
    pub(crate) at: u64,
    pub(crate) action: Action,
    pub(crate) operation: Option<Operation>,
    /// The version of the StatefulSets that it is bound to.
    pub(crate) version: u64,
    /// Did the cluster end when it was sent?
    pub(crate) ends: bool,
}

/// The whole state.
pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) counter: u64,
    pub(crate) cluster: RqliteCluster,
    pub(crate) state: Option<StateFile>,
    pub(crate) plan: Option<PlanFile>,
    pub(crate) recoveries: Vec<RqliteRecovery>,
    /// The operator's database checks.
    pub(crate) checks: BTreeMap<String, DatabaseCheck>,
    /// The leader as the operator last confirmed it, in its memory.
    pub(crate) leader_seen: Option<LeaderSeen>,
    pub(crate) secrets: BTreeMap<String, ObservedSecret>,
    /// Are Secrets made, and does the cluster move to TLS and back? In few runs, because signing takes time.
    pub(crate) moves: bool,
    /// The lineage in which writes are acknowledged.
    pub(crate) lineage: Option<NodeLineage>,
    pub(crate) ended: Vec<EndedLineage>,
    /// Acknowledged entries that recoveries lost, and the number of recoveries.
    pub(crate) lost_entries: u64,
    pub(crate) recovered: u64,
    pub(crate) replaced: u64,
    pub(crate) lost_disks: u64,
    /// Number of disks that may still be lost.
    pub(crate) disk_budget: u64,
    /// A broken rule that could not be returned as an error at that point.
    pub(crate) violation: Option<String>,
    pub(crate) sets: BTreeMap<Pool, Set>,
    pub(crate) pods: BTreeMap<String, Pod>,
    pub(crate) claims: BTreeMap<String, Claim>,
    /// Pods that carry the cluster's labels and are not its own.
    pub(crate) strays: Vec<String>,
    /// Claims that no pod of the cluster has used: names by uid.
    pub(crate) others_claims: BTreeMap<String, String>,
    /// The committed configuration, and its index.
    pub(crate) config: Vec<Voter>,
    pub(crate) config_index: u64,
    /// Number of acknowledged entries.
    pub(crate) committed: u64,
    pub(crate) term: u64,
    pub(crate) leader: Option<String>,
    /// From this time on the leader has committed an entry of its own term, and knows what its predecessors
    /// committed.
    pub(crate) settles_at: u64,
    /// For each voter's data, by Raft id: the newest entry that it helped to acknowledge.
    pub(crate) acknowledged: BTreeMap<String, u64>,
    /// Recoveries whose status said that no acknowledged write can be lost.
    pub(crate) promised_lossless: BTreeSet<String>,
    /// Actions that were reported as failed and still take effect.
    pub(crate) in_flight: Vec<DelayedAction>,
    /// Number of such actions.
    pub(crate) late: u64,
    /// Number of times that a cluster was formed.
    pub(crate) formations: u32,
    pub(crate) transfers: u64,
    /// Number of nodes that others have joined.
    pub(crate) unknown: u64,
    /// All operations, and for each the members that it stopped.
    pub(crate) begun: BTreeSet<String>,
    pub(crate) stopped: BTreeMap<String, BTreeSet<String>>,
    /// What is known of the cluster's deletion, and the number of deletions.
    pub(crate) ending: Ending,
    pub(crate) deleted: u64,
    /// Somebody else's objects have names of the cluster's before this time.
    pub(crate) taken_until: u64,
    /// Default image of the nodes.
    pub(crate) default_image: String,
    /// The operator does not run before this time.
    pub(crate) operator_down_until: u64,
    pub(crate) trace: bool,
}

impl World {
    #[expect(clippy::too_many_lines, reason = "one value, field by field")]
    pub(crate) fn new(rng: &mut StdRng) -> Self {
        let replicas = rng.random_range(1..=5);
        let automatic = replicas >= 3 && rng.random_bool(0.3);
        let mut spec = RqliteClusterSpec {
            replicas,
            member_replacement: Some(MemberReplacement {
                policy: None,
                after: "20s".into(),
            }),
            quorum_recovery: Some(QuorumRecovery {
                policy: automatic.then_some(RecoveryPolicy::Automatic),
                detect_after: "10s".into(),
                automatic_after: "30s".into(),
                max_per_day: 1,
                accept_data_loss: automatic && rng.random_bool(0.5),
            }),
            read_replicas: rng.random_bool(0.3).then(|| ReadReplicas {
                replicas: Some(rng.random_range(0..=2)),
                ..ReadReplicas::default()
            }),
            ..RqliteClusterSpec::default()
        };
        if rng.random_bool(0.3) {
            spec.storage.retention = Some(Retention {
                when_scaled: Some(Deletion::Delete),
                ..Retention::default()
            });
        }
        let moves = rng.random_bool(0.1);
        if moves && rng.random_bool(0.7) {
            spec.tls = Some(nodes_tls(false));
        }
        let mut cluster = RqliteCluster::new(NAME, spec);
        cluster.metadata.namespace = Some("default".to_owned());
        cluster.metadata.uid = Some("cluster".to_owned());
        cluster.metadata.generation = Some(1);
        Self {
            now: 1_000_000,
            counter: 0,
            cluster,
            state: None,
            plan: None,
            recoveries: Vec::new(),
            checks: BTreeMap::new(),
            leader_seen: None,
            secrets: BTreeMap::new(),
            moves,
            lineage: None,
            ended: Vec::new(),
            lost_entries: 0,
            recovered: 0,
            replaced: 0,
            lost_disks: 0,
            disk_budget: rng.random_range(0..=3),
            violation: None,
            sets: BTreeMap::new(),
            pods: BTreeMap::new(),
            claims: BTreeMap::new(),
            strays: Vec::new(),
            others_claims: BTreeMap::new(),
            config: Vec::new(),
            config_index: 0,
            committed: 0,
            term: 0,
            leader: None,
            settles_at: 0,
            acknowledged: BTreeMap::new(),
            promised_lossless: BTreeSet::new(),
            in_flight: Vec::new(),
            late: 0,
            formations: 0,
            transfers: 0,
            unknown: 0,
            begun: BTreeSet::new(),
            stopped: BTreeMap::new(),
            ending: Ending::default(),
            deleted: 0,
            taken_until: if rng.random_bool(0.1) {
                1_000_000 + rng.random_range(0..100)
            } else {
                0
            },
            default_image: "rqlited:1".to_owned(),
            operator_down_until: 0,
            trace: std::env::var_os("MODEL_TRACE").is_some(),
        }
    }

    pub(crate) fn fresh(&mut self, what: &str) -> String {
        self.counter += 1;
        format!("{what}-{}", self.counter)
    }

    pub(crate) fn time(&self, at: u64) -> Time {
        Time(Timestamp::from_second(i64::try_from(at).unwrap()).unwrap())
    }

    pub(crate) fn note(&self, text: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>8} {}", self.now, text());
        }
    }

    /// Does the node in this pod run?
    pub(crate) fn is_up(&self, name: &str) -> bool {
        self.pods
            .get(name)
            .is_some_and(|pod| pod.gone_at.is_none() && pod.runs_from <= self.now && starts(pod))
            && self.is_usable(name)
    }

    /// Does the preparation of this pod let its node start?
    fn is_usable(&self, name: &str) -> bool {
        let pod = self.pods.get(name);
        let claim = self.claims.get(&names::claim(name));
        pod.is_some_and(|pod| !pod.held && pod.report.is_none())
            && claim.is_some_and(|claim| !claim.lost && claim.disk.raft_id.is_some())
    }

    /// Number of voters of the configuration whose data exists, whether they run or not.
    pub(crate) fn intact_voters(&self) -> usize {
        let voters = self.config.iter().filter(|m| m.voter);
        voters
            .filter(|m| {
                let claim = self.claims.get(&names::claim(&m.name));
                claim.is_some_and(|c| {
                    let same = c.disk.raft_id.as_ref() == Some(&m.raft_id);
                    same && !c.lost && !c.doomed && !c.disk.damaged
                })
            })
            .count()
    }

    /// Does no member of the configuration have usable data?
    pub(crate) fn is_dead(&self) -> bool {
        !self.config.is_empty()
            && self.config.iter().all(|m| {
                let claim = self.claims.get(&names::claim(&m.name));
                claim.is_none_or(|c| {
                    let same = c.disk.raft_id.as_ref() == Some(&m.raft_id);
                    // A member that was only just admitted has no data yet.
                    let empty = c.disk.config.is_empty();
                    empty || !same || c.lost || c.doomed || c.disk.damaged
                })
            })
    }

    /// Does this node lead and know everything that is committed?
    pub(crate) fn is_settled_leader(&self, name: &str) -> bool {
        self.leader.as_deref() == Some(name) && self.now >= self.settles_at
    }

    /// This node leads from now on.
    pub(crate) fn lead(&mut self, name: String, rng: &mut StdRng) {
        self.term += 1;
        self.leader = Some(name);
        self.settles_at = self.now + rng.random_range(0..3);
    }

    pub(crate) fn disk(&self, name: &str) -> Option<&Disk> {
        self.claims
            .get(&names::claim(name))
            .map(|claim| &claim.disk)
    }

    pub(crate) fn disk_mut(&mut self, name: &str) -> Option<&mut Disk> {
        let claim = self.claims.get_mut(&names::claim(name));
        claim.map(|claim| &mut claim.disk)
    }

    /// Voters of the configuration that run with their own data.
    pub(crate) fn up_voters(&self) -> Vec<String> {
        self.config
            .iter()
            .filter(|m| m.voter && self.is_up(&m.name))
            .filter(|m| {
                let disk = self.disk(&m.name);
                disk.is_some_and(|d| d.raft_id.as_ref() == Some(&m.raft_id))
            })
            .map(|m| m.name.clone())
            .collect()
    }

    pub(crate) fn voters(&self) -> usize {
        self.config.iter().filter(|m| m.voter).count()
    }

    /// Does everything match the spec?
    pub(crate) fn is_settled(&self) -> bool {
        self.mismatches().is_empty()
    }

    /// Everything that does not match the spec.
    #[expect(clippy::too_many_lines, reason = "one story, told in order")]
    pub(crate) fn mismatches(&self) -> String {
        let spec = &self.cluster.spec;
        let status = self.cluster.status.clone().unwrap_or_default();
        let mut wrong = Vec::new();
        if ends(self) {
            wrong.push("deleted, and not gone".to_owned());
        }
        let tls = status.tls.clone().unwrap_or_default();
        if self.moves && !spec.hibernated && tls.nodes.stage != goal(tls.nodes.mode) {
            wrong.push(format!("TLS: {:?}", tls.nodes));
        }
        if let Some(operation) = &status.operation {
            wrong.push(format!("under way: {operation:?}"));
        }
        // A cluster that was hibernated while its members rejoined continues after its resumption.
        let rests = |phase| spec.hibernated && phase == RecoveryPhase::Rejoining;
        let recovering = status.recovery.as_ref();
        let recovering = recovering.filter(|r| !r.phase.is_final() && !rests(r.phase));
        if let Some(record) = recovering {
            wrong.push(format!("{} is {:?}", record.name, record.phase));
        }
        let open = self.recoveries.iter().find(|r| {
            let phase = r.status.as_ref().and_then(|s| s.phase);
            let phase = phase.unwrap_or(RecoveryPhase::Pending);
            !phase.is_final() && !rests(phase)
        });
        if let Some(open) = open {
            wrong.push(format!("open: {:?} {:?}", open.metadata.name, open.status));
        }
        if spec.hibernated {
            if !status.is(HIBERNATED) || !self.pods.is_empty() {
                wrong.push(format!("not hibernated, pods {:?}", self.pods.keys()));
            }
            return wrong.join("; ");
        }
        // The volumes of a hibernated cluster grow after its resumption.
        let size = |set: Option<&Set>| set.map(|s| s.claim_size.clone());
        let voters = self.sets.get(&Pool::Voter);
        if size(voters).is_none_or(|s| ByteSize(s) != spec.storage.size) {
            wrong.push(format!(
                "volumes of {:?}, not {}",
                size(voters),
                spec.storage.size
            ));
        }
        let wanted = usize::try_from(spec.replicas).unwrap();
        if self.voters() != wanted || self.up_voters().len() != wanted {
            wrong.push(format!(
                "configuration {:?}, up {:?}",
                self.config,
                self.up_voters()
            ));
        }
        let readers = spec
            .read_replicas
            .as_ref()
            .and_then(|r| r.replicas)
            .unwrap_or(0);
        let pods = wanted + usize::try_from(readers).unwrap();
        if self.pods.len() != pods || self.config.len() != pods {
            wrong.push(format!(
                "pods {:?} for {pods} members {:?}",
                self.pods.keys(),
                self.config
            ));
        }
        for (name, pod) in &self.pods {
            let set = self.sets.get(&pod.pool).map(|s| s.hash.as_str());
            let target = status.target.as_ref().map(|t| t.template_hash.as_str());
            let target = if pod.pool == Pool::Voter { target } else { set };
            if Some(pod.hash.as_str()) != target || set != target || !self.is_up(name) {
                wrong.push(format!("{name} of {} for {set:?} {target:?}", pod.hash));
            }
        }
        let phase = status.phase.map(|p| format!("{p:?}")).unwrap_or_default();
        if phase != "Running" {
            wrong.push(format!("phase {phase}: {:?}", status.conditions));
        }
        wrong.join("; ")
    }
}

/// Does the image of this pod start? Tags that begin with `bad` never do.
pub(crate) fn starts(pod: &Pod) -> bool {
    !pod.image.contains(":bad")
}

/// TLS between nodes, on or off; none for clients.
pub(crate) fn nodes_tls(on: bool) -> Tls {
    let mode = if on {
        NodeTlsMode::Required
    } else {
        NodeTlsMode::Disabled
    };
    Tls {
        nodes: Some(NodeTls {
            mode: Some(mode),
            certificate: None,
        }),
        clients: Some(ClientTls {
            mode: Some(ClientTlsMode::Disabled),
            ..ClientTls::default()
        }),
    }
}
