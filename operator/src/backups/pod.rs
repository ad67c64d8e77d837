//! The Jobs of backups and drills: a pod of the node's image runs one command and ends, under the restricted
//! Pod Security Standard, without a ServiceAccount token.
use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        batch::v1::{Job, JobSpec},
        core::v1::{
            EmptyDirVolumeSource, EphemeralVolumeSource, PersistentVolumeClaimSpec,
            PersistentVolumeClaimTemplate, PodSpec, PodTemplateSpec, ResourceRequirements,
            SecurityContext, Volume, VolumeMount, VolumeResourceRequirements,
        },
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use kube::{Resource, ResourceExt as _};
use operator_api::{ByteSize, RqliteCluster, cluster::ServiceMesh, names};
use serde_json::Value;

use super::base;
use crate::{cluster::facts::pod_parts, stores::Access};

/// Annotation of the pods with the store's configuration, which is mounted as a file.
pub const CONFIG: &str = concat!(operator_api::group!(), "/config");
/// How long an ended Job is kept, in seconds: its pod has the log and the result, and the operator may be
/// down for a while.
const KEPT_SECONDS: i32 = 24 * 3600;

/// Keeps Istio's sidecar out, as a label or an annotation.
const ISTIO: (&str, &str) = ("sidecar.istio.io/inject", "false");
/// The same for Linkerd.
const LINKERD: (&str, &str) = ("linkerd.io/inject", "disabled");

/// What a pod is made of.
#[derive(Debug)]
pub struct Parts {
    /// What it has of its cluster's pods.
    pub base: PodSpec,
    /// Name of the container.
    pub container: &'static str,
    /// Arguments of `rqlited`.
    pub args: Vec<String>,
    /// How it reaches the store.
    pub store: Access,
    /// ServiceAccount; defaults to that of the cluster's pods.
    pub account: Option<String>,
    /// CPU and memory, if not the default.
    pub resources: Option<ResourceRequirements>,
    /// A volume for temporary files, and its mount path.
    pub scratch: (Volume, &'static str),
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
    /// The cluster, if it is there.
    pub cluster: Option<&'a RqliteCluster>,
    /// Its pod.
    pub pod: Parts,
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
    // Not the labels that the cluster's users give its pods: what they select by those are nodes.
    let (mut of_pod, mut annotations) = mesh(work.cluster);
    of_pod.extend(labels.clone());
    let config = Value::Object(work.pod.store.config.clone()).to_string();
    annotations.insert(CONFIG.to_owned(), config);
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
                    annotations: Some(annotations),
                    ..ObjectMeta::default()
                }),
                spec: Some(spec(work.pod)),
            },
            ..JobSpec::default()
        }),
        status: None,
    }
}

/// Labels and annotations that keep a mesh's sidecar out, with which a Job's pod would not end. Whoever says
/// otherwise for the cluster's pods, because theirs do end, is followed.
fn mesh(cluster: Option<&RqliteCluster>) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let without: &[(&str, &str)] = match cluster.map(|cluster| cluster.spec.service_mesh) {
        // Nobody knows any more.
        None => &[ISTIO, LINKERD],
        Some(None) => &[],
        Some(Some(ServiceMesh::Istio)) => &[ISTIO],
        Some(Some(ServiceMesh::Linkerd)) => &[LINKERD],
    };
    let given = cluster.and_then(|cluster| cluster.spec.pod_metadata.clone());
    let given = given.unwrap_or_default();
    let (mut labels, mut annotations) = (BTreeMap::new(), BTreeMap::new());
    for (key, value) in without {
        let both = [given.labels.get(*key), given.annotations.get(*key)];
        let default = both
            .iter()
            .all(Option::is_none)
            .then(|| (*value).to_owned());
        for (all, given) in [&mut labels, &mut annotations].into_iter().zip(both) {
            let value = given.cloned().or_else(|| default.clone());
            all.extend(value.map(|value| ((*key).to_owned(), value)));
        }
    }
    (labels, annotations)
}

/// The pod.
pub fn spec(parts: Parts) -> PodSpec {
    let mut pod = parts.base;
    let (scratch, path) = parts.scratch;
    let mut mounts = parts.store.mounts;
    mounts.push(VolumeMount {
        name: scratch.name.clone(),
        mount_path: path.to_owned(),
        ..VolumeMount::default()
    });
    let mut volumes = parts.store.volumes;
    volumes.push(scratch);
    base::mounted(&mut pod, volumes, mounts);
    pod.automount_service_account_token = Some(false);
    pod.enable_service_links = Some(false);
    pod.restart_policy = Some("Never".to_owned());
    pod.service_account_name = parts.account.or(pod.service_account_name);
    for container in &mut pod.containers {
        container.name = parts.container.to_owned();
        container.command = Some(vec!["rqlited".to_owned()]);
        container.args = Some(parts.args.clone());
        if !parts.store.env.is_empty() {
            let env = container.env.get_or_insert_default();
            env.retain(|one| parts.store.env.iter().all(|own| own.name != one.name));
            env.extend(parts.store.env.iter().cloned());
        }
        let resources = parts.resources.clone();
        container.resources = Some(resources.unwrap_or_else(pod_parts::default_resources));
        container.termination_message_policy = Some("FallbackToLogsOnError".to_owned());
        container.security_context = Some(SecurityContext {
            read_only_root_filesystem: Some(true),
            ..pod_parts::of_container()
        });
    }
    pod
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

#[cfg(test)]
mod tests {
    use operator_api::{RqliteClusterSpec, cluster::PodMetadata};

    use super::*;

    fn made(mesh: Option<ServiceMesh>, labels: &[(&str, &str)]) -> Value {
        let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let spec = RqliteClusterSpec {
            service_mesh: mesh,
            pod_metadata: Some(PodMetadata {
                labels: labels.iter().map(text).collect(),
                ..PodMetadata::default()
            }),
            ..RqliteClusterSpec::default()
        };
        of(Some(&RqliteCluster::new("demo", spec)), None)
    }

    fn of(cluster: Option<&RqliteCluster>, resources: Option<ResourceRequirements>) -> Value {
        let owner = RqliteCluster::new("demo", RqliteClusterSpec::default());
        let work = Work {
            name: "j".to_owned(),
            app: "rqlite-drill",
            label: "l",
            seconds: 1,
            retries: 0,
            cluster,
            pod: Parts {
                base: base::unknown(false),
                container: "c",
                args: Vec::new(),
                store: Access::default(),
                account: None,
                resources,
                scratch: (on_the_machine("tmp", None), "/tmp"),
            },
        };
        serde_json::to_value(job(&owner, work)).unwrap()["spec"]["template"].clone()
    }

    #[test]
    fn no_sidecar_keeps_a_job_from_ending_and_no_label_makes_it_a_node() {
        let cases = [
            (None, &[][..], None, None),
            (Some(ServiceMesh::Istio), &[], Some("false"), None),
            (Some(ServiceMesh::Linkerd), &[], None, Some("disabled")),
            (
                Some(ServiceMesh::Istio),
                &[(ISTIO.0, "true")],
                Some("true"),
                None,
            ),
        ];
        for (mesh, labels, istio, linkerd) in cases {
            let mut all = vec![("team", "shop")];
            all.extend(labels);
            let metadata = made(mesh, &all)["metadata"].clone();
            let found = |key: &str| metadata["labels"][key].as_str();
            assert_eq!((found(ISTIO.0), found(LINKERD.0)), (istio, linkerd));
            assert_eq!(found("team"), None);
            let annotation = metadata["annotations"].get(ISTIO.0).is_some();
            assert_eq!(annotation, istio == Some("false"), "{labels:?}");
        }
        let gone = of(None, None);
        assert_eq!(gone["metadata"]["labels"][ISTIO.0], "false");
        assert_eq!(gone["metadata"]["annotations"][LINKERD.0], "disabled");
    }

    #[test]
    fn resources_are_requests_unless_they_are_given() {
        let found = |given: Option<ResourceRequirements>| {
            of(None, given)["spec"]["containers"][0]["resources"].clone()
        };
        let default = serde_json::json!({"requests": {"cpu": "100m", "memory": "128Mi"}});
        assert_eq!(found(None), default);
        let limits = serde_json::json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        let given = serde_json::from_value(limits.clone()).unwrap();
        assert_eq!(found(Some(given)), limits);
    }
}
