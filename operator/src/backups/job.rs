//! The Jobs of backups: one makes a backup, another deletes its file. Their pods run the node's image under
//! the restricted Pod Security standard, without a token of Kubernetes.
use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        batch::v1::{Job, JobSpec},
        core::v1::{
            Capabilities, Container, EmptyDirVolumeSource, LocalObjectReference,
            PodSecurityContext, PodSpec, PodTemplateSpec, ResourceRequirements, SeccompProfile,
            SecurityContext, Volume, VolumeMount,
        },
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{ObjectMeta, OwnerReference},
    },
};
use kube::{Resource as _, ResourceExt as _};
use operator_api::{
    ByteSize, RqliteBackup, RqliteCluster, cluster::KeySelector, names, store::StoreTarget,
};
use serde_json::{Value, json};

use crate::{
    cluster::facts::authentication::BACKUP_USER,
    stores::{Access, access},
};

/// How long an ended Job stays: its pod has the log, and the operator may be away.
const KEPT_SECONDS: i32 = 24 * 3600;
/// How long the deletion of a file may take.
const DELETION_SECONDS: i64 = 600;
/// Attempts to delete a file within one Job.
const DELETION_RETRIES: i32 = 3;
/// How long a backup may take if the spec does not say.
const BACKUP_SECONDS: i64 = 6 * 3600;
/// Attempts besides the first if the spec does not say.
const BACKUP_RETRIES: i32 = 3;
/// User and group of the image.
const USER_ID: i64 = 1000;
/// The container; its termination message is the result.
pub const CONTAINER: &str = "backup";
/// Label of the Jobs and their pods: name of the RqliteBackup.
pub const BACKUP_LABEL: &str = concat!(operator_api::group!(), "/backup");
/// Annotation of the pods that has the configuration of the target.
const CONFIG: &str = concat!(operator_api::group!(), "/config");

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

/// How the cluster is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// URL of the client Service.
    pub url: String,
    /// The Secret with the authorities' certificates (`ca.crt`), if TLS is spoken.
    pub authority: Option<String>,
    /// The Secret with the `password` of the backups' user, if users are asked for.
    pub login: Option<String>,
}

/// The Job that makes a backup.
pub fn backup(
    backup: &RqliteBackup,
    cluster: &RqliteCluster,
    target: &StoreTarget,
    object: &str,
    reach: &Reach,
    assigns_users: bool,
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
    if let Some(login) = &reach.login {
        let password = store.file("backup-password", &key(login, "password"), "password");
        args.push(format!("-user={BACKUP_USER}"));
        args.push(format!("-password-file={password}"));
    }
    args.push("-scratch-dir=/tmp".to_owned());
    let seconds = how.timeout.as_ref().and_then(|limit| limit.duration().ok());
    let seconds = seconds.and_then(|limit| i64::try_from(limit.as_secs()).ok());
    let limits = (
        seconds.unwrap_or(BACKUP_SECONDS).max(1),
        how.retries.unwrap_or(BACKUP_RETRIES),
    );
    job(
        backup,
        Some(cluster),
        name(&backup.name_any()),
        args,
        store,
        limits,
        assigns_users,
    )
}

/// The Job that deletes the file of a backup. The cluster may be gone.
pub fn deletion(
    backup: &RqliteBackup,
    cluster: Option<&RqliteCluster>,
    image: &str,
    target: &StoreTarget,
    object: &str,
    assigns_users: bool,
) -> Job {
    let store = access(target, object, "backup");
    let args = vec!["backup".to_owned(), "-delete".to_owned()];
    let limits = (DELETION_SECONDS, DELETION_RETRIES);
    let name = deletion_name(&backup.name_any());
    let mut job = job(backup, cluster, name, args, store, limits, assigns_users);
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

/// A Job with one container. What configures the store is an annotation of the pod, mounted as a file.
fn job(
    backup: &RqliteBackup,
    cluster: Option<&RqliteCluster>,
    name: String,
    mut args: Vec<String>,
    mut store: Access,
    (seconds, retries): (i64, i32),
    assigns_users: bool,
) -> Job {
    let config = store.annotation("backup-config", CONFIG, "config.json");
    args.push(format!("-config={config}"));
    args.push("-result-file=/dev/termination-log".to_owned());
    let given = cluster.and_then(|cluster| cluster.spec.pod_metadata.clone());
    let given = given.unwrap_or_default();
    let mut labels = given.labels;
    labels.extend(own_labels(backup));
    let annotations = [(
        CONFIG.to_owned(),
        Value::Object(store.config.clone()).to_string(),
    )];
    JobTemplate {
        name,
        labels: own_labels(backup),
        pod: ObjectMeta {
            labels: Some(labels),
            annotations: Some(annotations.into()),
            ..ObjectMeta::default()
        },
        spec: pod(backup, cluster, args, store, assigns_users),
        seconds,
        retries,
    }
    .build(backup)
}

/// The parts of a Job.
struct JobTemplate {
    name: String,
    labels: BTreeMap<String, String>,
    pod: ObjectMeta,
    spec: PodSpec,
    seconds: i64,
    retries: i32,
}

impl JobTemplate {
    fn build(self, backup: &RqliteBackup) -> Job {
        Job {
            metadata: ObjectMeta {
                name: Some(self.name),
                namespace: backup.namespace(),
                labels: Some(self.labels),
                owner_references: Some(vec![owner(backup)]),
                ..ObjectMeta::default()
            },
            spec: Some(JobSpec {
                active_deadline_seconds: Some(self.seconds),
                backoff_limit: Some(self.retries),
                ttl_seconds_after_finished: Some(KEPT_SECONDS),
                template: PodTemplateSpec {
                    metadata: Some(self.pod),
                    spec: Some(self.spec),
                },
                ..JobSpec::default()
            }),
            status: None,
        }
    }
}

fn own_labels(backup: &RqliteBackup) -> BTreeMap<String, String> {
    [
        (names::APP_NAME_LABEL.to_owned(), "rqlite-backup".to_owned()),
        (
            names::MANAGED_BY_LABEL.to_owned(),
            names::MANAGED_BY.to_owned(),
        ),
        (BACKUP_LABEL.to_owned(), backup.name_any()),
    ]
    .into()
}

fn owner(backup: &RqliteBackup) -> OwnerReference {
    OwnerReference {
        api_version: RqliteBackup::api_version(&()).into_owned(),
        kind: RqliteBackup::kind(&()).into_owned(),
        name: backup.name_any(),
        uid: backup.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

fn pod(
    backup: &RqliteBackup,
    cluster: Option<&RqliteCluster>,
    args: Vec<String>,
    store: Access,
    assigns_users: bool,
) -> PodSpec {
    let how = &backup.spec.how;
    let spec = cluster.map(|cluster| &cluster.spec);
    let image = spec.and_then(|spec| spec.image.clone()).unwrap_or_default();
    let scheduling = spec
        .and_then(|spec| spec.scheduling.clone())
        .unwrap_or_default();
    let account = spec.and_then(|spec| spec.service_account_name.clone());
    let account = account.or_else(|| {
        let status = cluster?.status.as_ref()?;
        status.object_prefix.clone()
    });
    let mut volumes = store.volumes;
    volumes.push(scratch(how.scratch_limit.as_ref()));
    let mut mounts = store.mounts;
    mounts.push(VolumeMount {
        name: "tmp".to_owned(),
        mount_path: "/tmp".to_owned(),
        ..VolumeMount::default()
    });
    let running = cluster.and_then(|cluster| cluster.status.as_ref()?.target.as_ref());
    let pull = image.pull_secrets.into_iter();
    let pull: Vec<_> = pull
        .map(|s| LocalObjectReference { name: s.name })
        .collect();
    PodSpec {
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        restart_policy: Some("Never".to_owned()),
        service_account_name: how.service_account_name.clone().or(account),
        security_context: Some(security(assigns_users)),
        image_pull_secrets: (!pull.is_empty()).then_some(pull),
        node_selector: (!scheduling.node_selector.is_empty()).then_some(scheduling.node_selector),
        tolerations: (!scheduling.tolerations.is_empty()).then_some(scheduling.tolerations),
        priority_class_name: scheduling.priority_class_name,
        containers: vec![Container {
            name: CONTAINER.to_owned(),
            image: running.map(|target| target.image.clone()),
            command: Some(vec!["rqlited".to_owned()]),
            args: Some(args),
            env: (!store.env.is_empty()).then_some(store.env),
            volume_mounts: Some(mounts),
            resources: Some(resources()),
            termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
            security_context: Some(SecurityContext {
                allow_privilege_escalation: Some(false),
                read_only_root_filesystem: Some(true),
                capabilities: Some(Capabilities {
                    drop: Some(vec!["ALL".to_owned()]),
                    add: None,
                }),
                ..SecurityContext::default()
            }),
            ..Container::default()
        }],
        volumes: Some(volumes),
        ..PodSpec::default()
    }
}

/// The copy is checked here before it is sent.
fn scratch(limit: Option<&ByteSize>) -> Volume {
    Volume {
        name: "tmp".to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: None,
            size_limit: limit.map(|size| Quantity(size.0.clone())),
        }),
        ..Volume::default()
    }
}

/// Requests without limits, as for the nodes.
fn resources() -> ResourceRequirements {
    let requests = [("cpu", "100m"), ("memory", "128Mi")];
    let requests = requests.map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())));
    ResourceRequirements {
        requests: Some(requests.into()),
        ..ResourceRequirements::default()
    }
}

fn security(assigns_users: bool) -> PodSecurityContext {
    let id = (!assigns_users).then_some(USER_ID);
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: id,
        run_as_group: id,
        fs_group: id,
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            localhost_profile: None,
        }),
        ..PodSecurityContext::default()
    }
}
