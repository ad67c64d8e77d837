//! The Jobs of backups: one makes a backup, another deletes its file. Their pods run the node's image under
//! the restricted Pod Security Standard, without a ServiceAccount token.
use k8s_openapi::api::{batch::v1::Job, core::v1::PodSpec};
use kube::ResourceExt as _;
use operator_api::{
    RqliteBackup, RqliteCluster, backup::BackupOptions, cluster::KeySelector, store::StoreTarget,
};
use serde_json::json;

use super::pod;
use crate::{
    cluster::facts::{
        authentication::BACKUP_USER,
        certificates::{CERTIFICATE, KEY},
    },
    stores::{Access, access},
};

/// Time limit of deleting a file, in seconds.
const DELETION_SECONDS: i64 = 600;
/// Retries of deleting a file within one Job.
const DELETION_RETRIES: i32 = 3;
/// Default time limit of a backup, in seconds.
const BACKUP_SECONDS: i64 = 6 * 3600;
/// Default number of retries of a backup.
const BACKUP_RETRIES: i32 = 3;
/// The container; its termination message is the result.
pub const CONTAINER: &str = "backup";
/// Label of the Jobs and their pods, with the name of the RqliteBackup.
pub const BACKUP_LABEL: &str = concat!(operator_api::group!(), "/backup");

/// Name of the Job that makes a backup.
pub fn name(backup: &str) -> String {
    format!("{backup}-backup")
}

/// Name of the Job that deletes the file of a backup.
pub fn deletion_name(backup: &str) -> String {
    format!("{backup}-delete")
}

/// Name of the file of a backup, below its target's prefix. The uid keeps two backups of the same name apart.
pub fn object(backup: &RqliteBackup) -> String {
    let uid = backup.uid().unwrap_or_default();
    let uid: String = uid.chars().take(8).collect();
    let ending = if backup.spec.how.compress {
        ".sqlite.gz"
    } else {
        ".sqlite"
    };
    let cluster = &backup.spec.cluster_ref.name;
    format!("backups/{cluster}/{}-{uid}{ending}", backup.name_any())
}

/// How a backup's pod reaches the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// URL of the client Service.
    pub url: String,
    /// The Secret with the certificates of the authorities (`ca.crt`), if the nodes use TLS.
    pub authority: Option<String>,
    /// The Secret with a client certificate (`tls.crt`, `tls.key`), if nodes require one.
    pub certificate: Option<String>,
    /// The Secret with the `password` of the user for backups, if the nodes require users.
    pub login: Option<String>,
}

/// The Job that makes a backup, with what it has of its cluster's pods.
pub fn backup(
    backup: &RqliteBackup,
    (cluster, base): (&RqliteCluster, PodSpec),
    target: &StoreTarget,
    object: &str,
    reach: &Reach,
) -> Job {
    let how = &backup.spec.how;
    let mut store = access(target, object, "backup");
    store
        .config
        .insert("no_compress".to_owned(), json!(!how.compress));
    store.config.insert("vacuum".to_owned(), json!(how.vacuum));
    let mut args = vec!["backup".to_owned()];
    args.push(format!("-url={}", reach.url));
    if let Some(authority) = &reach.authority {
        let path = store.file("backup-ca", &key(authority, "ca.crt"), "ca.crt");
        args.push(format!("-ca-file={path}"));
    }
    if let Some(secret) = &reach.certificate {
        let keys = [CERTIFICATE, KEY];
        let folder = store.files("backup-certificate", secret, &keys.map(|key| (key, key)));
        args.push(format!("-cert-file={folder}/{CERTIFICATE}"));
        args.push(format!("-key-file={folder}/{KEY}"));
    }
    if let Some(login) = &reach.login {
        let password = store.file("backup-password", &key(login, "password"), "password");
        args.push(format!("-user={BACKUP_USER}"));
        args.push(format!("-password-file={password}"));
    }
    args.push("-scratch-dir=/tmp".to_owned());
    let limits = (limit(how), how.retries.unwrap_or(BACKUP_RETRIES));
    let name = name(&backup.name_any());
    job(backup, (Some(cluster), base), name, args, store, limits)
}

/// How long a backup may take, in seconds.
pub fn limit(how: &BackupOptions) -> i64 {
    let seconds = how.timeout.as_ref().and_then(|limit| limit.duration().ok());
    let seconds = seconds.and_then(|limit| i64::try_from(limit.as_secs()).ok());
    seconds.unwrap_or(BACKUP_SECONDS).max(1)
}

/// The Job that deletes the file of a backup. The cluster may be gone. `image`: if nothing else says.
pub fn deletion(
    backup: &RqliteBackup,
    of: (Option<&RqliteCluster>, PodSpec),
    image: &str,
    target: &StoreTarget,
    object: &str,
) -> Job {
    let store = access(target, object, "backup");
    let args = vec!["backup".to_owned(), "-delete".to_owned()];
    let limits = (DELETION_SECONDS, DELETION_RETRIES);
    let name = deletion_name(&backup.name_any());
    let mut job = job(backup, of, name, args, store, limits);
    let pod = job
        .spec
        .as_mut()
        .and_then(|spec| spec.template.spec.as_mut());
    for container in pod.into_iter().flat_map(|pod| &mut pod.containers) {
        if container.image.as_deref().unwrap_or_default().is_empty() {
            container.image = Some(image.to_owned());
        }
    }
    job
}

fn key(secret: &str, key: &str) -> KeySelector {
    KeySelector {
        name: secret.to_owned(),
        key: key.to_owned(),
    }
}

/// A Job with one container. The store's configuration is an annotation of the pod, mounted as a file.
fn job(
    backup: &RqliteBackup,
    (cluster, base): (Option<&RqliteCluster>, PodSpec),
    name: String,
    mut args: Vec<String>,
    mut store: Access,
    (seconds, retries): (i64, i32),
) -> Job {
    let config = store.annotation("backup-config", pod::CONFIG, "config.json");
    args.push(format!("-config={config}"));
    args.push("-result-file=/dev/termination-log".to_owned());
    let how = &backup.spec.how;
    pod::job(
        backup,
        pod::Work {
            name,
            app: "rqlite-backup",
            label: BACKUP_LABEL,
            seconds,
            retries,
            cluster,
            pod: pod::Parts {
                base,
                container: CONTAINER,
                args,
                store,
                account: how.service_account_name.clone(),
                resources: how.resources.clone(),
                // The copy is checked here before it is sent.
                scratch: (
                    pod::on_the_machine("tmp", how.scratch_limit.as_ref()),
                    "/tmp",
                ),
            },
        },
    )
}
