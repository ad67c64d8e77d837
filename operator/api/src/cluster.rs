//! `RqliteCluster`: the desired state of a cluster. The doc comment of a field is what `kubectl explain`
//! prints.
mod archive;
mod config;
mod image;
mod pods;
mod policy;
mod repair;
mod restore;
mod scheduling;
mod services;
mod storage;
mod tls;
mod users;

pub use archive::{Archive, Drill, Encryption, Scratch};
pub use config::{Config, EnvSource, EnvVar, KeySelector, Raft, Sqlite, WriteQueue};
pub use image::{Image, PullPolicy, PullSecret};
pub use pods::{DnsPolicy, Identity, PodSecurity, Pods, ServiceMesh};
pub use policy::{
    Bootstrap, ClientAccess, Deletion, Disruption, Management, NetworkPolicy, OnStall,
    OperatorChanges, PodMetadata, Retention, Update, UpdateStrategy,
};
pub use repair::{MemberReplacement, QuorumRecovery, Reaping, RecoveryPolicy, RepairPolicy};
pub use restore::{ArchivePoint, BootstrapRestore};
pub use scheduling::{AntiAffinity, ReadReplicas, Scheduling};
pub use services::{
    IpFamily, IpFamilyPolicy, ServiceKind, ServiceMetadata, ServiceSettings, Services,
    SessionAffinity, TrafficPolicy,
};
pub use storage::{Ephemeral, Medium, ReadStorage, Storage};
pub use tls::{CertificateSource, ClientTls, ClientTlsMode, IssuerRef, NodeTls, NodeTlsMode, Tls};

pub use users::{Authentication, AuthenticationMode, Permission, User};

use k8s_openapi::api::core::v1::ResourceRequirements;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::{names, status::RqliteClusterStatus};

/// Maximum number of voters; more would only add write latency.
pub const MAX_VOTERS: i32 = 9;
/// Maximum number of read replicas; the leader keeps a replication stream for each.
pub const MAX_READ_REPLICAS: i32 = 50;

/// The desired state of an rqlite cluster.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "rqlite.dev",
    version = "v1alpha1",
    kind = "RqliteCluster",
    plural = "rqliteclusters",
    shortname = "rql",
    category = "databases",
    namespaced,
    doc = "A cluster of rqlite nodes: one SQLite database, replicated by Raft, kept running, grown, shrunk and updated without losing an acknowledged write.",
    status = "RqliteClusterStatus",
    derive = "PartialEq",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Voters", type_ = "integer", json_path = ".status.readyReplicas", description = "Voters that are ready"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".spec.replicas"),
    printcolumn(name = "Leader", type_ = "string", json_path = ".status.leader"),
    printcolumn(name = "Available", type_ = "string", json_path = ".status.conditions[?(@.type==\"Available\")].status"),
    printcolumn(name = "Image", type_ = "string", json_path = ".status.target.image", priority = 1),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.lineage.epoch", priority = 1, description = "Recoveries from a lost quorum so far"),
    printcolumn(name = "Manager", type_ = "string", json_path = ".status.managedBy.installation", priority = 1, description = "Installation of the operator that manages the cluster"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 45").message("the name may have at most 45 characters, because Kubernetes derives pod names and labels of at most 63 from it: choose a shorter name"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("the name becomes the name of Services: begin it with a letter and use only lower-case letters, digits and '-'")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.clusterDomain) || !has(oldSelf.clusterDomain) || self.clusterDomain == oldSelf.clusterDomain").message("clusterDomain is part of every node's address and cannot be changed: create a new cluster and load a backup into it"),
    validation = Rule::new("!has(self.serviceAccountName) || self.serviceAccountName != ''").message("serviceAccountName is empty: leave it out to let the operator create an account"),
    validation = Rule::new("self.replicas >= 3 || !has(self.quorumRecovery) || !has(self.quorumRecovery.policy) || self.quorumRecovery.policy != 'Automatic'").message("quorumRecovery.policy Automatic needs at least 3 replicas, as fewer have no majority that could tell a lost disk from a lost network: raise replicas, or use Manual"),
    validation = Rule::new("!((has(self.authentication) && has(self.authentication.mode) && self.authentication.mode == 'Disabled' && !(has(self.tls) && has(self.tls.clients) && self.tls.clients.requireClientCertificate)) || (has(self.tls) && has(self.tls.clients) && has(self.tls.clients.mode) && self.tls.clients.mode == 'Disabled')) || !has(self.services) || !((has(self.services.client) && self.services.client.enabled && has(self.services.client.type) && self.services.client.type != 'ClusterIP') || (has(self.services.leader) && self.services.leader.enabled && has(self.services.leader.type) && self.services.leader.type != 'ClusterIP') || (has(self.services.read) && self.services.read.enabled && has(self.services.read.type) && self.services.read.type != 'ClusterIP'))").message("a Service of type LoadBalancer or NodePort opens the database to clients outside the Kubernetes cluster, which needs users and TLS: set authentication.mode to Required and tls.clients.mode to Required (or Optional), or use type ClusterIP"),
    validation = Rule::new("!has(self.storage.ephemeral) || !self.hibernated").message("an ephemeral cluster loses all its data when its pods stop, so it cannot be hibernated: delete it instead"),
    validation = Rule::new("!has(self.storage.ephemeral) || self.replicas != 2").message("storage.ephemeral with 2 replicas loses all data with any one pod: use 3 or more, or 1 for a database that may be lost at any time"),
    validation = Rule::new("!has(self.storage.ephemeral) || !has(self.quorumRecovery) || !has(self.quorumRecovery.policy) || self.quorumRecovery.policy != 'Automatic'").message("a recovery stops all pods, and with them goes all that an ephemeral cluster still has: use quorumRecovery.policy Manual")
)]
pub struct RqliteClusterSpec {
    /// Class of the operator that manages this cluster, if several are installed: its `--class`. All other
    /// installations leave the cluster alone. Can be changed, which moves the cluster to another
    /// installation. Defaults to default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub operator_class: Option<String>,

    /// Number of voting members, from 1 to 9. Three tolerate the loss of one, five the loss of two. Even
    /// numbers are accepted, but tolerate no more losses than the next lower odd number. A change is carried
    /// out one member at a time: a new member votes once it has caught up, and a member is removed from the
    /// configuration before its pod is deleted. To stop the database, use hibernated. Defaults to 3.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 9))]
    pub replicas: i32,

    /// Image of the nodes. What is not given is taken from the operator's node image once, when the cluster
    /// is created or this field is edited, and kept: another version of the operator changes no cluster's
    /// image. The condition UpdateAvailable says how to move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,

    /// How the cluster is formed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<Bootstrap>,

    /// Nodes that hold all data and serve reads, but do not vote and are never counted for a quorum. Defaults
    /// to none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_replicas: Option<ReadReplicas>,

    /// The volume of each voter.
    #[serde(default)]
    pub storage: Storage,

    /// Settings of SQLite and Raft. A change restarts the nodes one at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Config>,

    /// The Services in front of the nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Services>,

    /// TLS between the nodes and for clients. A new cluster gets it by default; one from before TLS gets it
    /// when this is set, and moves while it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,

    /// CPU and memory of each voter. Defaults to requests of 100m and 128Mi and no limits; an empty object
    /// asks for nothing. Set a memory request for the size of your database, and a limit not far above it. A
    /// cluster of an earlier version gets the default with its next change that restarts pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,

    /// Scheduling of the voter pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling: Option<Scheduling>,

    /// Labels and annotations for the pods. Keys that the operator sets itself keep the operator's value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_metadata: Option<PodMetadata>,

    /// Additional volumes, containers and DNS settings of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<Pods>,

    /// User and groups of the pods' processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_security: Option<PodSecurity>,

    /// The service mesh whose sidecars the pods get: Istio or Linkerd. The nodes' own connections bypass the
    /// sidecar, and nodes start after it. Defaults to none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_mesh: Option<ServiceMesh>,

    /// An existing ServiceAccount for the pods. By default, the operator creates one without any permissions.
    /// The operator mounts no token of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub service_account_name: Option<String>,

    /// Seconds that a stopping node has to transfer leadership and to write out its database. Defaults to 60.
    #[serde(default = "sixty")]
    #[schemars(range(min = 10, max = 3600))]
    pub termination_grace_period_seconds: i64,

    /// Protection against evictions that would break the quorum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disruption: Option<Disruption>,

    /// How changes are rolled out to the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<Update>,

    /// What happens when one member is permanently lost while the others have a quorum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_replacement: Option<MemberReplacement>,

    /// What happens when the quorum is permanently lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quorum_recovery: Option<QuorumRecovery>,

    /// Removal of members that no longer have a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reaping: Option<Reaping>,

    /// Whether users and passwords are asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,

    /// Users of the database; at most 64. Each gets a Secret <cluster>-<user> with all that an application
    /// needs to connect. Users are added, changed and removed without a restart. Defaults to one user app
    /// with the permissions execute and query; an empty list means none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub users: Option<Vec<User>>,

    /// A continuous archive, from which any moment can be restored. Defaults to none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<Archive>,

    /// Restriction of network access to the nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_policy: Option<NetworkPolicy>,

    /// Automatic or Manual. With Manual, pods, volumes, members and numbers of pods change only after a
    /// person has approved the plan in status.proposedPlan by the annotation rqlite.dev/approve, as kubectl
    /// rqlite approve does. Forming, Services, labels, recoveries that a person requested and deletion are
    /// not concerned. Defaults to Automatic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub management: Option<Management>,

    /// Stops the operator from changing anything in this cluster; the status is kept up to date. The
    /// annotation rqlite.dev/paused: "true" does the same, for specs that another tool owns. Defaults to
    /// false.
    #[serde(default)]
    pub paused: bool,

    /// Stops all nodes and keeps their volumes. Set it to false to start them again with all acknowledged
    /// writes. Defaults to false.
    #[serde(default)]
    pub hibernated: bool,

    /// While true, the deletion of the cluster, and of its namespace, is refused to everybody. Without the
    /// admission policies of the operator's chart a deletion is accepted instead, and the cluster keeps
    /// running and its object remains until this is set to false. Defaults to false.
    #[serde(default)]
    pub deletion_protection: bool,

    /// DNS domain of the Kubernetes cluster. It is part of the nodes' addresses and cannot be changed.
    /// Defaults to the domain of the operator's pod when the cluster is created, in most Kubernetes clusters
    /// cluster.local; status.clusterDomain has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 120),
        regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")
    )]
    pub cluster_domain: Option<String>,
}

impl RqliteCluster {
    /// DNS domain of the Kubernetes cluster, which is part of the addresses of the nodes for good: as the
    /// spec says, or else as it was found when the cluster was created. Before it was looked for, it was the
    /// usual one.
    pub fn domain<'a>(&'a self, found: &'a str) -> &'a str {
        let status = self.status.as_ref();
        let recorded = status.and_then(|status| status.cluster_domain.as_deref());
        let exists = status.is_some_and(|status| status.cluster_id.is_some());
        let default = if exists { names::USUAL_DOMAIN } else { found };
        let given = self.spec.cluster_domain.as_deref();
        given.or(recorded).unwrap_or(default)
    }
}

fn three() -> i32 {
    3
}

impl RqliteCluster {
    /// Has a person paused the operator for this cluster?
    pub fn is_paused(&self) -> bool {
        let annotations = self.metadata.annotations.as_ref();
        let annotated = annotations.and_then(|a| a.get(names::PAUSED_ANNOTATION));
        self.spec.paused || annotated.is_some_and(|value| value == "true")
    }
}

fn sixty() -> i64 {
    60
}

impl Default for RqliteClusterSpec {
    fn default() -> Self {
        Self {
            operator_class: None,
            replicas: three(),
            image: None,
            bootstrap: None,
            read_replicas: None,
            storage: Storage::default(),
            config: None,
            services: None,
            tls: None,
            resources: None,
            scheduling: None,
            pod_metadata: None,
            pods: None,
            pod_security: None,
            service_mesh: None,
            service_account_name: None,
            termination_grace_period_seconds: sixty(),
            disruption: None,
            update: None,
            member_replacement: None,
            quorum_recovery: None,
            reaping: None,
            authentication: None,
            users: None,
            archive: None,
            network_policy: None,
            management: None,
            paused: false,
            hibernated: false,
            deletion_protection: false,
            cluster_domain: None,
        }
    }
}
