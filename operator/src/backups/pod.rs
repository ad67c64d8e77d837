//! The Jobs of backups and drills: a pod of the node's image runs one command and ends, under the restricted
//! Pod Security Standard, without a ServiceAccount token.
use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        batch::v1::{Job, JobSpec},
        core::v1::{
            Capabilities, Container, EmptyDirVolumeSource, EphemeralVolumeSource,
            LocalObjectReference, PersistentVolumeClaimSpec, PersistentVolumeClaimTemplate,
            PodSecurityContext, PodSpec, PodTemplateSpec, ResourceRequirements, SeccompProfile,
            SecurityContext, Volume, VolumeMount, VolumeResourceRequirements,
        },
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use kube::{Resource, ResourceExt as _};
use operator_api::{ByteSize, RqliteCluster, names};
use serde_json::Value;

use crate::stores::Access;

/// Annotation of the pods with the store's configuration, which is mounted as a file.
pub const CONFIG: &str = concat!(operator_api::group!(), "/config");
/// How long an ended Job is kept, in seconds: its pod has the log and the result, and the operator may be
/// down for a while.
const KEPT_SECONDS: i32 = 24 * 3600;

/// User and group of the image.
const USER_ID: i64 = 1000;

/// What a pod is made of.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The cluster whose image, pull secrets and scheduling it has. It may be gone.
    pub cluster: Option<&'a RqliteCluster>,
    /// Name of the container.
    pub container: &'static str,
    /// Arguments of `rqlited`.
    pub args: Vec<String>,
    /// How it reaches the store.
    pub store: Access,
    /// ServiceAccount; defaults to that of the cluster's pods.
    pub account: Option<String>,
    /// A volume for temporary files, and its mount path.
    pub scratch: (Volume, &'static str),
    /// Whether the platform assigns users to pods (OpenShift).
    pub assigns_users: bool,
}

/// What a Job is made of.
#[derive(Debug)]
pub struct Work<'a> {
    /// Its name.
    pub name: String,
    /// Value of `app.kubernetes.io/name`.
    pub app: &'static str,
    /// The label that names its owner.
    pub label: &'static str,
    /// Time limit in seconds.
    pub seconds: i64,
    /// Number of retries.
    pub retries: i32,
    /// Its pod.
    pub pod: Parts<'a>,
}

/// The Job, owned by this object.
pub fn job<K: Resource<DynamicType = ()>>(owner: &K, work: Work<'_>) -> Job {
    let labels: BTreeMap<String, String> = [
        (names::APP_NAME_LABEL.to_owned(), work.app.to_owned()),
        (
            names::MANAGED_BY_LABEL.to_owned(),
            names::MANAGED_BY.to_owned(),
        ),
        (work.label.to_owned(), owner.name_any()),
    ]
    .into();
    let cluster = work.pod.cluster;
    let given = cluster.and_then(|cluster| cluster.spec.pod_metadata.clone());
    let mut of_pod = given.unwrap_or_default().labels;
    of_pod.extend(labels.clone());
    let config = Value::Object(work.pod.store.config.clone()).to_string();
    Job {
        metadata: ObjectMeta {
            name: Some(work.name),
            namespace: owner.namespace(),
            labels: Some(labels),
            owner_references: owner.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            active_deadline_seconds: Some(work.seconds),
            backoff_limit: Some(work.retries),
            ttl_seconds_after_finished: Some(KEPT_SECONDS),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(of_pod),
                    annotations: Some([(CONFIG.to_owned(), config)].into()),
                    ..ObjectMeta::default()
                }),
                spec: Some(spec(work.pod)),
            },
            ..JobSpec::default()
        }),
        status: None,
    }
}

/// The pod.
pub fn spec(parts: Parts<'_>) -> PodSpec {
    let cluster = parts.cluster;
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
    let (scratch, path) = parts.scratch;
    let mut mounts = parts.store.mounts;
    mounts.push(VolumeMount {
        name: scratch.name.clone(),
        mount_path: path.to_owned(),
        ..VolumeMount::default()
    });
    let mut volumes = parts.store.volumes;
    volumes.push(scratch);
    let running = cluster.and_then(|cluster| cluster.status.as_ref()?.target.as_ref());
    let pull = image.pull_secrets.into_iter();
    let pull: Vec<_> = pull
        .map(|s| LocalObjectReference { name: s.name })
        .collect();
    let env = parts.store.env;
    PodSpec {
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        restart_policy: Some("Never".to_owned()),
        service_account_name: parts.account.or(account),
        security_context: Some(security(parts.assigns_users)),
        image_pull_secrets: (!pull.is_empty()).then_some(pull),
        node_selector: (!scheduling.node_selector.is_empty()).then_some(scheduling.node_selector),
        tolerations: (!scheduling.tolerations.is_empty()).then_some(scheduling.tolerations),
        priority_class_name: scheduling.priority_class_name,
        containers: vec![Container {
            name: parts.container.to_owned(),
            image: running.map(|target| target.image.clone()),
            command: Some(vec!["rqlited".to_owned()]),
            args: Some(parts.args),
            env: (!env.is_empty()).then_some(env),
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

/// A volume on the machine's disk (`emptyDir`), deleted with the pod.
pub fn on_the_machine(name: &str, limit: Option<&ByteSize>) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: None,
            size_limit: limit.map(|size| Quantity(size.0.clone())),
        }),
        ..Volume::default()
    }
}

/// A volume of a StorageClass (generic ephemeral volume), created for the pod and deleted with it.
pub fn of_class(name: &str, class: &str, size: &ByteSize) -> Volume {
    let storage = [("storage".to_owned(), Quantity(size.0.clone()))];
    Volume {
        name: name.to_owned(),
        ephemeral: Some(EphemeralVolumeSource {
            volume_claim_template: Some(PersistentVolumeClaimTemplate {
                metadata: None,
                spec: PersistentVolumeClaimSpec {
                    access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
                    storage_class_name: Some(class.to_owned()),
                    resources: Some(VolumeResourceRequirements {
                        requests: Some(storage.into()),
                        limits: None,
                    }),
                    ..PersistentVolumeClaimSpec::default()
                },
            }),
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
