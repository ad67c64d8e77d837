//! The volumes of the nodes.
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::scalar::{ByteSize, Period};

use super::policy::Retention;

/// The volume of each voter. It holds the database, the Raft log and, while one is taken, a snapshot: plan
/// for three times the size of the database.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.ephemeral) == has(oldSelf.ephemeral) && (!has(self.ephemeral) || self.ephemeral == oldSelf.ephemeral)").message("storage.ephemeral cannot be added, changed or removed, as pods would lose their data: create a new cluster and load a backup into it"),
    validation = Rule::new("!has(self.ephemeral) || !has(self.storageClassName)").message("storage.ephemeral uses no volume of a class: remove storageClassName or ephemeral")
)]
#[x_kube(validation = Rule::new("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)").message("storageClassName cannot be changed, as Kubernetes cannot move a volume to another class: create a new cluster and load a backup into it"))]
pub struct Storage {
    /// Size of each volume. It can be increased if the StorageClass allows it, and never decreased. Defaults
    /// to 10Gi.
    #[serde(default = "ten_gibibytes")]
    #[x_kube(validation = Rule::new("quantity(self).compareTo(quantity(oldSelf)) >= 0").message("a volume cannot shrink: keep the size, or create a new cluster with smaller volumes and load a backup into it"))]
    pub size: ByteSize,
    /// StorageClass of the volumes. It cannot be changed, added or removed later. Defaults to the default
    /// class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// What happens to volumes that are no longer needed. By default, all are retained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// Keeps all data in the pods instead of volumes, for tests and caches: a deleted pod's data is gone,
    /// and once the pods of a quorum are gone, so is the database. For both pools; it cannot be changed.
    /// Defaults to volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<Ephemeral>,
    /// Which copies of parked data nodes keep on their volumes: of members that were removed, and of those
    /// that a recovery left behind. A change takes effect when a pod is next started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked: Option<ParkedRetention>,
}

/// Which parked copies are kept. What may hold writes that a recovery has lost is deleted by a person only;
/// the others also if less than a tenth of the volume is free.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParkedRetention {
    /// Number of copies on each volume, the newest ones. Defaults to 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub keep: Option<i32>,
    /// Age from which a copy is deleted; 0s is never. Defaults to 336h, two weeks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Period>,
}

/// Data in the pods instead of volumes.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ephemeral {
    /// Size above which Kubernetes evicts a pod, and with it its data. Defaults to none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_limit: Option<ByteSize>,
    /// Disk or Memory, which counts against the memory limit of the containers. Defaults to Disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub medium: Option<Medium>,
}

/// Where ephemeral data is kept.
#[derive(schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Medium {
    /// On the Kubernetes node's disk.
    Disk,
    /// In its memory.
    Memory,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            size: ten_gibibytes(),
            storage_class_name: None,
            retention: None,
            ephemeral: None,
            parked: None,
        }
    }
}

fn ten_gibibytes() -> ByteSize {
    ByteSize::from("10Gi")
}

/// The volume of each read replica, where it differs from a voter's.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)").message("readReplicas.storage.storageClassName cannot be changed, as Kubernetes cannot move a volume to another class: set readReplicas.replicas to 0, delete the read replicas' StatefulSet and claims, remove readReplicas and add it again"))]
pub struct ReadStorage {
    /// Size of each volume. It can be increased and never decreased. Defaults to the voters' size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("quantity(self).compareTo(quantity(oldSelf)) >= 0").message("a volume cannot shrink: keep the size of the read replicas' volumes"))]
    pub size: Option<ByteSize>,
    /// StorageClass of the volumes. Defaults to the voters' class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
}
