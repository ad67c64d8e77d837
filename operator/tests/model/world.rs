//! The world: what the API server holds, what runs, and what is on disks.
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use node_contract::{Lineage as NodeLineage, PlanFile, StateFile};
use operator_api::{
    ByteSize, RqliteCluster, RqliteClusterSpec, RqliteRecovery,
    cluster::{
        Deletion, MemberReplacement, QuorumRecovery, ReadReplicas, RecoveryPolicy, Retention,
    },
    names,
    recovery::RecoveryPhase,
    status::{HIBERNATED, Operation, Pool},
};
use rand::{Rng, rngs::StdRng};
use rqlite_operator::cluster::{Action, facts::observation::DatabaseCheck};

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
    /// Changes with everything else.
    pub(crate) version: u64,
}

/// A pod, and the process in it.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) uid: String,
    pub(crate) pool: Pool,
    pub(crate) hash: String,
    pub(crate) image: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// Its node runs from this time on.
    pub(crate) runs_from: u64,
    /// It is gone at this time.
    pub(crate) gone_at: Option<u64>,
    /// Since when it is ready.
    pub(crate) ready_since: Option<u64>,
    /// It was removed from the configuration while running, and stays out.
    pub(crate) removed: bool,
    /// The operator cannot reach it until then.
    pub(crate) cut_until: u64,
    /// The files that its kubelet shows: as they were when the pod was made, or newer.
    pub(crate) files: (Option<StateFile>, Option<PlanFile>),
    /// Its preparation waits.
    pub(crate) held: bool,
    /// What its preparation said, if that did not let it start.
    pub(crate) report: Option<&'static str>,
}

/// What a claim holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    /// Raft id, once a node has run on it.
    pub(crate) raft_id: Option<String>,
    /// Its cluster, once admitted.
    pub(crate) cluster_id: Option<String>,
    /// May it form a cluster?
    pub(crate) may_form: bool,
    /// Entries in its log.
    pub(crate) log: u64,
    /// Term of the newest entry.
    pub(crate) log_term: u64,
    /// The configuration that it knows to be committed, and its index.
    pub(crate) config: Vec<Voter>,
    pub(crate) config_index: u64,
    /// The history that it is of.
    pub(crate) lineage: Option<NodeLineage>,
    /// The plan that was followed here.
    pub(crate) plan_done: Option<String>,
    /// Tokens under which data was put aside here.
    pub(crate) parked: BTreeSet<String>,
    /// Nobody can read it any more.
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
    /// Somebody deleted it; it is gone with its pod.
    pub(crate) doomed: bool,
    /// Its volume is on a machine that is gone for good.
    pub(crate) lost: bool,
}

/// A history that a recovery ended: its last configuration, and whether its members may meet again.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) lineage: NodeLineage,
    pub(crate) config: Vec<Voter>,
}

/// An action whose reply was lost.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) at: u64,
    pub(crate) action: Action,
    pub(crate) operation: Option<Operation>,
    /// The version of the StatefulSets that it is bound to.
    pub(crate) version: u64,
}

/// Everything.
pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) counter: u64,
    pub(crate) cluster: RqliteCluster,
    pub(crate) state: Option<StateFile>,
    pub(crate) plan: Option<PlanFile>,
    pub(crate) recoveries: Vec<RqliteRecovery>,
    /// What the operator remembers of its checks.
    pub(crate) checks: BTreeMap<String, DatabaseCheck>,
    /// The history that acknowledges.
    pub(crate) lineage: Option<NodeLineage>,
    pub(crate) ended: Vec<Ended>,
    /// Acknowledged entries that recoveries left behind, and how many recoveries there were.
    pub(crate) left_behind: u64,
    pub(crate) recovered: u64,
    pub(crate) replaced: u64,
    pub(crate) lost_disks: u64,
    /// Disks that may still be lost.
    pub(crate) disk_budget: u64,
    /// A rule that was broken where nobody could say so.
    pub(crate) violation: Option<String>,
    pub(crate) sets: BTreeMap<Pool, Set>,
    pub(crate) pods: BTreeMap<String, Pod>,
    pub(crate) claims: BTreeMap<String, Claim>,
    /// Committed configuration, and its index.
    pub(crate) config: Vec<Voter>,
    pub(crate) config_index: u64,
    /// Entries that were acknowledged.
    pub(crate) committed: u64,
    pub(crate) term: u64,
    pub(crate) leader: Option<String>,
    /// From then on the leader has committed an entry of its own term, and knows what its predecessors have.
    pub(crate) settles_at: u64,
    /// What each voter's data has helped to acknowledge, by Raft id.
    pub(crate) acknowledged: BTreeMap<String, u64>,
    /// Recoveries of which it was said that nothing acknowledged can be lost.
    pub(crate) promised: BTreeSet<String>,
    /// What was sent, reported as failed, and still takes effect.
    pub(crate) in_flight: Vec<Sent>,
    /// How often.
    pub(crate) late: u64,
    /// The same person for whom leadership is moving.
    pub(crate) formations: u32,
    pub(crate) transfers: u64,
    /// Operations ever begun, and for each what it took down.
    pub(crate) begun: BTreeSet<String>,
    pub(crate) taken: BTreeMap<String, BTreeSet<String>>,
    /// Images that do not start.
    pub(crate) default_image: String,
    /// The operator is down until then.
    pub(crate) operator_down_until: u64,
    pub(crate) trace: bool,
}

impl World {
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
            lineage: None,
            ended: Vec::new(),
            left_behind: 0,
            recovered: 0,
            replaced: 0,
            lost_disks: 0,
            disk_budget: rng.random_range(0..=3),
            violation: None,
            sets: BTreeMap::new(),
            pods: BTreeMap::new(),
            claims: BTreeMap::new(),
            config: Vec::new(),
            config_index: 0,
            committed: 0,
            term: 0,
            leader: None,
            settles_at: 0,
            acknowledged: BTreeMap::new(),
            promised: BTreeSet::new(),
            in_flight: Vec::new(),
            late: 0,
            formations: 0,
            transfers: 0,
            begun: BTreeSet::new(),
            taken: BTreeMap::new(),
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

    pub(crate) fn say(&self, text: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>8} {}", self.now, text());
        }
    }

    /// Does the node in this pod run and reach the others?
    pub(crate) fn is_up(&self, name: &str) -> bool {
        self.pods
            .get(name)
            .is_some_and(|pod| pod.gone_at.is_none() && pod.runs_from <= self.now && starts(pod))
            && self.is_usable(name)
    }

    /// Can the preparation of this pod let its node start?
    fn is_usable(&self, name: &str) -> bool {
        let pod = self.pods.get(name);
        let claim = self.claims.get(&names::claim(name));
        pod.is_some_and(|pod| !pod.held && pod.report.is_none())
            && claim.is_some_and(|claim| !claim.lost && claim.disk.raft_id.is_some())
    }

    /// Members of the configuration whose data exists, whether they run or not.
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

    /// Is there nobody left whose data could be used?
    pub(crate) fn is_dead(&self) -> bool {
        !self.config.is_empty()
            && self.config.iter().all(|m| {
                let claim = self.claims.get(&names::claim(&m.name));
                claim.is_none_or(|c| {
                    let same = c.disk.raft_id.as_ref() == Some(&m.raft_id);
                    // Who has only just been admitted has nothing.
                    let empty = c.disk.config.is_empty();
                    empty || !same || c.lost || c.doomed || c.disk.damaged
                })
            })
    }

    /// Does the leader know all that is committed?
    pub(crate) fn is_settled_leader(&self, name: &str) -> bool {
        self.leader.as_deref() == Some(name) && self.now >= self.settles_at
    }

    /// Somebody leads from now on.
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

    /// Voters of the configuration that run, as the data that the configuration means.
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

    /// Is everything as the spec wants it?
    pub(crate) fn is_settled(&self) -> bool {
        self.unsettled().is_empty()
    }

    /// What is not as the spec wants it.
    pub(crate) fn unsettled(&self) -> String {
        let spec = &self.cluster.spec;
        let status = self.cluster.status.clone().unwrap_or_default();
        let mut wrong = Vec::new();
        if let Some(operation) = &status.operation {
            wrong.push(format!("under way: {operation:?}"));
        }
        // A cluster that was put to sleep while the others came back goes on when it wakes.
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
        // A sleeping cluster's volumes grow when it wakes.
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

/// Images whose tag begins with `bad` never run.
pub(crate) fn starts(pod: &Pod) -> bool {
    !pod.image.contains(":bad")
}
