//! The continuous archive of a cluster, and drills. Descriptions are short: the definition of the cluster has
//! little room left.
use k8s_openapi::api::core::v1::ResourceRequirements;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::config::KeySelector;
use crate::{
    scalar::{ByteSize, Period, Span},
    schedule::{Cron, ZoneName},
    store::StoreTarget,
};

/// A continuous archive: a base copy of the database, and every committed entry after it.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.every) || duration(self.every) >= duration('1s')").message("archive.every is how far the archive may be behind: set it to 1s or more"))]
pub struct Archive {
    /// Where it is kept. Each lineage has a folder of its own below the prefix; other clusters need other
    /// prefixes.
    pub target: StoreTarget,
    /// How far it may be behind. Defaults to 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Period>,
    /// Longest time between two bases. Defaults to 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_interval: Option<Span>,
    /// How far back any moment can be restored. Defaults to 7d.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Span>,
    /// How much of the log each node keeps while the store is away. Defaults to 1Gi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_limit: Option<ByteSize>,
    /// Defaults to none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// Restores the archive in a pod again and again, to prove that it works. Defaults to none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<Drill>,
}

/// A restore that is checked and thrown away.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Drill {
    /// When, in five fields of cron. The first one runs as soon as there is something to restore.
    pub schedule: Cron,
    /// Defaults to UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<ZoneName>,
    /// How long one may take. Defaults to 6h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// Where the restored database lies meanwhile. Defaults to a disk of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<Scratch>,
    /// CPU and memory of its pod. Defaults to requests of 100m and 128Mi and no limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
}

/// Room for a restored database.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scratch {
    /// Most that it may take. Defaults to twice storage.size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<ByteSize>,
    /// With it, a volume of this class is made for each drill and deleted after it. Without: the machine's
    /// own disk (emptyDir).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
}

/// Encryption before anything leaves the pod.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Encryption {
    /// Key of a Secret with lines `<id> <base64 of 32 bytes>`: the first encrypts, all decrypt.
    pub key_secret: KeySelector,
}
