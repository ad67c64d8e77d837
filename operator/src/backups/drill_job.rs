//! The Job of a drill: a pod restores the newest point of the archive, checks the result, and discards it.
use k8s_openapi::{
    api::{batch::v1::Job, core::v1::Volume},
    jiff::Timestamp,
};
use operator_api::{
    ByteSize, RqliteCluster,
    cluster::{Archive, Drill, KeySelector},
};

use super::{base, pod};
use crate::stores::access;

/// Default time limit of a drill, in seconds.
pub const DRILL_SECONDS: i64 = 6 * 3600;
/// Retries, with growing pauses: a store that is unavailable for a moment is no failed drill.
const RETRIES: i32 = 2;
/// The container; its termination message is the result.
pub const CONTAINER: &str = "drill";
/// Label of the Jobs and their pods, with the name of the RqliteCluster. It differs from the label of the
/// cluster's own pods, so that no Service selects these pods and they do not count as members.
pub const DRILL_LABEL: &str = concat!(operator_api::group!(), "/drill");
/// Mount path of the volume for the restored database.
const SCRATCH: &str = "/scratch";
/// Size of that volume if neither the drill nor the cluster's storage gives one.
const SCRATCH_BYTES: u64 = 2 << 30;

/// Name of a Job. It is derived from the scheduled time, so that the Job is created once.
pub fn name(cluster: &str, at: Timestamp) -> String {
    format!("{cluster}-drill-{}", at.as_second())
}

/// The Job.
pub fn drill(cluster: &RqliteCluster, archive: &Archive, name: &str, assigns_users: bool) -> Job {
    let mut store = access(&archive.target, "", "archive");
    let config = store.annotation("archive-config", pod::CONFIG, "archive.json");
    let mut args = vec![
        "archive".to_owned(),
        "drill".to_owned(),
        format!("-config={config}"),
        format!("-scratch={SCRATCH}"),
        "-result-file=/dev/termination-log".to_owned(),
    ];
    if let Some(encryption) = &archive.encryption {
        let KeySelector { name, key } = encryption.key_secret.clone();
        let path = store.file("archive-key", &KeySelector { name, key }, "keys");
        args.push(format!("-key-file={path}"));
    }
    let status = cluster.status.clone().unwrap_or_default();
    let lineage = status.lineage.map(|lineage| lineage.id);
    let lineage = lineage.filter(|id| !id.is_empty());
    args.extend(lineage.map(|id| format!("-lineage={id}")));
    let config = cluster.spec.config.clone().unwrap_or_default();
    if config.sqlite.is_some_and(|sqlite| sqlite.foreign_keys) {
        args.push("-fk".to_owned());
    }
    let drill = archive.drill.as_ref();
    pod::job(
        cluster,
        pod::Work {
            name: name.to_owned(),
            app: "rqlite-drill",
            label: DRILL_LABEL,
            seconds: limit(drill),
            retries: RETRIES,
            cluster: Some(cluster),
            pod: pod::Parts {
                base: base::of(cluster, assigns_users),
                container: CONTAINER,
                args,
                store,
                account: None,
                resources: drill.and_then(|drill| drill.resources.clone()),
                scratch: (scratch(cluster, drill), SCRATCH),
            },
        },
    )
}

/// Time limit of a drill in seconds.
pub fn limit(drill: Option<&Drill>) -> i64 {
    let limit = drill.and_then(|drill| drill.timeout.as_ref());
    let limit = limit.and_then(|limit| limit.duration().ok());
    let limit = limit.and_then(|limit| i64::try_from(limit.as_secs()).ok());
    limit.unwrap_or(DRILL_SECONDS).max(1)
}

/// The volume for the restored database. It is limited, so that a database that is too large fails the drill
/// instead of filling the machine's disk. Twice the size of a node's volume is enough for its database and
/// the entries after the base, whose segments are fetched one by one.
fn scratch(cluster: &RqliteCluster, drill: Option<&Drill>) -> Volume {
    let wished = drill.and_then(|drill| drill.scratch.clone());
    let wished = wished.unwrap_or_default();
    let size = wished.size.unwrap_or_else(|| {
        let bytes = cluster.spec.storage.size.bytes();
        let bytes = bytes.map_or(SCRATCH_BYTES, |bytes| bytes.saturating_mul(2));
        ByteSize(bytes.to_string())
    });
    match &wished.storage_class_name {
        Some(class) => pod::of_class("scratch", class, &size),
        None => pod::on_the_machine("scratch", Some(&size)),
    }
}
