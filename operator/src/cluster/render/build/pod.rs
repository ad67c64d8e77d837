//! The pod template. It complies with the restricted Pod Security standard; its command line contains every
//! setting that never changes during a cluster's life.
use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Affinity, ConfigMapProjection, Container, ContainerPort, EnvVar, EnvVarSource,
        HTTPGetAction, Lifecycle, LifecycleHandler, LocalObjectReference, ObjectFieldSelector,
        PodAffinityTerm, PodAntiAffinity, PodSpec, PodTemplateSpec, Probe, ProjectedVolumeSource,
        ResourceRequirements, SecretVolumeSource, SecurityContext, SleepAction, TCPSocketAction,
        TopologySpreadConstraint, Volume, VolumeMount, VolumeProjection, WeightedPodAffinityTerm,
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};
use node_contract::{PLAN_FILE, STATE_FILE};
use operator_api::{
    cluster::{AntiAffinity, PullPolicy, Scheduling},
    names,
    status::{Pool, Target, TlsStage},
};

use crate::cluster::deciders::certificates::secret_name;
use crate::cluster::facts::{
    archive, authentication, beginning, pod_parts,
    tls::{Side, resolved},
    view::View,
};
use crate::cluster::render::build::common::{
    DATA_PATH, DATA_VOLUME, HTTP_TLS_PATH, HTTP_TLS_VOLUME, NODE_TLS_PATH, NODE_TLS_VOLUME,
    TMP_VOLUME, USERS_PATH, USERS_VOLUME, labels, map, selector,
};

mod additions;
mod args;

/// Mount path of the volume. The data directory is a subdirectory, because the root of a volume may contain
/// lost+found.
const VOLUME_PATH: &str = "/rqlite";
/// Mount path of the state file and a recovery's plan.
const CLUSTER_PATH: &str = "/etc/rqlite-cluster";
/// Name of their volume.
const CLUSTER_VOLUME: &str = "cluster";
/// Seconds for which a stopping node still serves, so that Services stop selecting it before it stops
/// listening.
const DRAIN_SECONDS: i64 = 2;
/// Files of Secrets: the kubelet gives them to the pod's fsGroup.
const SECRET_MODE: i32 = 0o440;
/// Name of the port for probes and monitoring.
const HEALTH_PORT_NAME: &str = "health";
/// A node that recovers a large database may need this many probes, 2 s each, before it listens. The interval
/// is short because readiness probes start only afterwards.
const STARTUP_PROBES: i32 = 1800;

/// The template without the annotation of its own hash.
pub(super) fn template(view: &View<'_>, target: &Target, pool: Pool) -> PodTemplateSpec {
    let user = view.spec.pod_metadata.clone().unwrap_or_default();
    let mut all = user.labels;
    all.extend(labels(view));
    all.extend(selector(view, pool));
    all.extend(map([(names::SERVING_LABEL, "true")]));
    let uid = view.seen.cluster.metadata.uid.clone();
    all.extend(uid.map(|uid| (names::OWNER_LABEL.to_owned(), uid)));
    let mut annotations = additions::annotations(view);
    let archive = archive::in_pods(view).map(|pods| pods.config);
    annotations.extend(archive.map(|text| (names::ARCHIVE_ANNOTATION.to_owned(), text)));
    let restore = restore(view, pool).map(|pods| pods.config);
    annotations.extend(restore.map(|text| (names::RESTORE_ANNOTATION.to_owned(), text)));
    annotations.extend(user.annotations);
    let given = view.seen.cluster.metadata.annotations.as_ref();
    if let Some(at) = given.and_then(|a| a.get(names::RESTARTED_AT_ANNOTATION)) {
        annotations.insert(names::RESTARTED_AT_ANNOTATION.to_owned(), at.clone());
    }
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(all),
            annotations: (!annotations.is_empty()).then_some(annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(spec(view, target, pool)),
    }
}

fn spec(view: &View<'_>, target: &Target, pool: Pool) -> PodSpec {
    let readers = view
        .spec
        .read_replicas
        .as_ref()
        .filter(|_| pool == Pool::Read);
    let own = readers.and_then(|r| r.scheduling.clone());
    let scheduling = own
        .or_else(|| view.spec.scheduling.clone())
        .unwrap_or_default();
    let account = view.spec.service_account_name.clone();
    let image = view.spec.image.clone().unwrap_or_default();
    let mut pod = PodSpec {
        service_account_name: Some(account.unwrap_or_else(|| view.object_prefix())),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(view.spec.termination_grace_period_seconds),
        image_pull_secrets: (!image.pull_secrets.is_empty()).then(|| {
            let secrets = image.pull_secrets.into_iter();
            secrets
                .map(|s| LocalObjectReference { name: s.name })
                .collect()
        }),
        security_context: Some(pod_parts::of_pod(
            view.spec.pod_security.clone().unwrap_or_default(),
            view.seen.operator.platform.assigns_users,
        )),
        init_containers: Some(vec![prepare(view, target, pool)]),
        containers: vec![node(view, target, pool)],
        volumes: Some(volumes(view, pool)),
        affinity: affinity(view, pool, &scheduling),
        topology_spread_constraints: Some(spread(view, pool, &scheduling)),
        node_selector: (!scheduling.node_selector.is_empty()).then_some(scheduling.node_selector),
        tolerations: (!scheduling.tolerations.is_empty()).then_some(scheduling.tolerations),
        priority_class_name: scheduling.priority_class_name,
        ..PodSpec::default()
    };
    additions::extend(&mut pod, view.spec.pods.clone().unwrap_or_default());
    pod
}

fn container(view: &View<'_>, target: &Target, name: &str) -> Container {
    let policy = view.spec.image.as_ref().and_then(|i| i.pull_policy);
    let policy = match policy.unwrap_or(PullPolicy::IfNotPresent) {
        PullPolicy::Always => "Always",
        PullPolicy::IfNotPresent => "IfNotPresent",
        PullPolicy::Never => "Never",
    };
    let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    };
    Container {
        name: name.to_owned(),
        image: Some(target.image.clone()),
        image_pull_policy: Some(policy.to_owned()),
        command: Some(vec!["rqlited".to_owned()]),
        env: Some(vec![pod_name()]),
        volume_mounts: Some(vec![
            mount(DATA_VOLUME, VOLUME_PATH, false),
            mount(CLUSTER_VOLUME, CLUSTER_PATH, true),
            mount(TMP_VOLUME, "/tmp", false),
        ]),
        security_context: Some(SecurityContext {
            read_only_root_filesystem: Some(true),
            ..pod_parts::of_container()
        }),
        ..Container::default()
    }
}

fn pod_name() -> EnvVar {
    EnvVar {
        name: "POD_NAME".to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: "metadata.name".to_owned(),
                api_version: None,
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

/// The init container `rqlited prepare`: decides what the data directory may become before the node starts.
fn prepare(view: &View<'_>, target: &Target, pool: Pool) -> Container {
    let message = [
        "prepare",
        "--state",
        &format!("{CLUSTER_PATH}/{STATE_FILE}"),
        "--plan",
        &format!("{CLUSTER_PATH}/{PLAN_FILE}"),
        "--name",
        "$(POD_NAME)",
        "--report",
        "/dev/termination-log",
        "--wait",
        DATA_PATH,
    ];
    Container {
        args: Some(message.map(str::to_owned).to_vec()),
        resources: resources(view, pool),
        ..container(view, target, "prepare")
    }
}

/// Resources of both containers of a pool's pods: the scheduler counts the larger of the two.
fn resources(view: &View<'_>, pool: Pool) -> Option<ResourceRequirements> {
    let readers = view.spec.read_replicas.as_ref();
    let own = readers
        .filter(|_| pool == Pool::Read)
        .and_then(|readers| readers.resources.clone());
    let given = own.or_else(|| view.spec.resources.clone());
    given.or_else(|| Some(pod_parts::default_resources()))
}

/// What the voters of a cluster that has not formed have for the restore that it begins with.
fn restore(view: &View<'_>, pool: Pool) -> Option<beginning::InPods> {
    beginning::in_pods(view).filter(|_| pool == Pool::Voter)
}

fn add_restore(container: &mut Container, restore: Option<beginning::InPods>) {
    let Some(restore) = restore else {
        return;
    };
    let mounts = container.volume_mounts.get_or_insert_default();
    mounts.extend(restore.access.mounts);
    let env = container.env.get_or_insert_default();
    env.extend(restore.access.env);
    // If it could not restore, its last log lines say why.
    container.termination_message_policy = Some("FallbackToLogsOnError".to_owned());
}

fn node(view: &View<'_>, target: &Target, pool: Pool) -> Container {
    let mut container = container(view, target, "rqlited");
    let config = view.spec.config.clone().unwrap_or_default();
    if let Some(env) = &mut container.env {
        env.extend(config.extra_env.iter().map(pod_parts::env));
    }
    let readers = view
        .spec
        .read_replicas
        .as_ref()
        .filter(|_| pool == Pool::Read);
    let stale = readers.is_some_and(|r| r.serve_stale);
    let archive = archive::in_pods(view).unwrap_or_default().access;
    container.env.get_or_insert_default().extend(archive.env);
    let own = container.volume_mounts.get_or_insert_default();
    own.extend(archive.mounts);
    own.extend(secrets(view).into_iter().map(|(_, _, mount)| mount));
    add_restore(&mut container, restore(view, pool));
    let has_health = args::has_health(target);
    let probed = if has_health { HEALTH_PORT_NAME } else { "http" };
    Container {
        args: Some(args::of(view, target, pool)),
        ports: Some(ports(has_health)),
        resources: resources(view, pool),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                sleep: Some(SleepAction {
                    seconds: DRAIN_SECONDS,
                }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        readiness_probe: Some(Probe {
            period_seconds: Some(2),
            timeout_seconds: Some(5),
            failure_threshold: Some(3),
            ..http(probed, if stale { "/readyz?noleader" } else { "/readyz" })
        }),
        // Checks only the process: a restart would help neither a node without a leader nor one in a long
        // recovery.
        liveness_probe: Some(Probe {
            period_seconds: Some(10),
            timeout_seconds: Some(10),
            failure_threshold: Some(6),
            ..http(
                probed,
                if has_health {
                    "/livez"
                } else {
                    "/readyz?noleader"
                },
            )
        }),
        startup_probe: Some(Probe {
            tcp_socket: Some(TCPSocketAction {
                port: IntOrString::String("http".to_owned()),
                host: None,
            }),
            period_seconds: Some(2),
            timeout_seconds: Some(2),
            failure_threshold: Some(STARTUP_PROBES),
            ..Probe::default()
        }),
        ..container
    }
}

/// Volumes with certificates and users, as far as the cluster's moves to them are recorded: name, Secret,
/// mount.
fn secrets(view: &View<'_>) -> Vec<(&'static str, String, VolumeMount)> {
    let tls = resolved(view);
    let sides = [
        (tls.nodes.stage, NODE_TLS_VOLUME, NODE_TLS_PATH, Side::Nodes),
        (
            tls.clients.stage,
            HTTP_TLS_VOLUME,
            HTTP_TLS_PATH,
            Side::Clients,
        ),
    ];
    let mount = |name: &'static str, path: &str, secret: String| {
        let mount = VolumeMount {
            name: name.to_owned(),
            mount_path: path.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        };
        (name, secret, mount)
    };
    let used = sides
        .into_iter()
        .filter(|(stage, ..)| !matches!(stage, TlsStage::Plain | TlsStage::Other(_)));
    let used = used.map(|(_, name, path, side)| mount(name, path, secret_name(view, side)));
    let users = authentication::in_pods(view)
        .then(|| mount(USERS_VOLUME, USERS_PATH, names::users_secret(view.name)));
    used.chain(users).collect()
}

/// A Secret as files that only owner and group can read.
fn secret_volume(name: &str, secret: String) -> Volume {
    Volume {
        name: name.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret),
            default_mode: Some(SECRET_MODE),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// The ports by name.
fn ports(has_health: bool) -> Vec<ContainerPort> {
    let port = |name: &str, number: i32| ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    let mut all = vec![
        port("http", names::HTTP_PORT),
        port("raft", names::RAFT_PORT),
    ];
    all.extend(has_health.then(|| port(HEALTH_PORT_NAME, names::HEALTH_PORT)));
    all
}

fn http(port: &str, path: &str) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(port.to_owned()),
            ..HTTPGetAction::default()
        }),
        ..Probe::default()
    }
}

/// The state file, and the plan of a recovery if there is one. An ephemeral cluster's data is in the pod.
fn volumes(view: &View<'_>, pool: Pool) -> Vec<Volume> {
    let source = |name: String, optional: bool| VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name,
            optional: optional.then_some(true),
            items: None,
        }),
        ..VolumeProjection::default()
    };
    let data = view.spec.storage.ephemeral.as_ref();
    let mut all: Vec<Volume> = data.map(additions::ephemeral).into_iter().collect();
    all.extend([
        Volume {
            name: CLUSTER_VOLUME.to_owned(),
            projected: Some(ProjectedVolumeSource {
                sources: Some(vec![
                    source(names::state(view.name), false),
                    source(names::recovery(view.name), true),
                ]),
                default_mode: None,
            }),
            ..Volume::default()
        },
        Volume {
            name: TMP_VOLUME.to_owned(),
            empty_dir: Some(k8s_openapi::api::core::v1::EmptyDirVolumeSource::default()),
            ..Volume::default()
        },
    ]);
    let secrets = secrets(view).into_iter();
    all.extend(secrets.map(|(name, secret, _)| secret_volume(name, secret)));
    let archive = archive::in_pods(view);
    all.extend(archive.map(|pods| pods.access.volumes).unwrap_or_default());
    let restore = restore(view, pool);
    all.extend(restore.map(|pods| pods.access.volumes).unwrap_or_default());
    all
}

fn of_pool(view: &View<'_>, pool: Pool) -> LabelSelector {
    LabelSelector {
        match_labels: Some(selector(view, pool)),
        match_expressions: None,
    }
}

fn affinity(view: &View<'_>, pool: Pool, scheduling: &Scheduling) -> Option<Affinity> {
    let given = scheduling.affinity.clone();
    if given
        .as_ref()
        .is_some_and(|a| a.pod_anti_affinity.is_some())
    {
        return given;
    }
    let term = PodAffinityTerm {
        label_selector: Some(of_pool(view, pool)),
        topology_key: scheduling
            .host_key
            .clone()
            .unwrap_or_else(|| "kubernetes.io/hostname".to_owned()),
        ..PodAffinityTerm::default()
    };
    let apart = match scheduling.anti_affinity.unwrap_or_default() {
        AntiAffinity::None => return given,
        AntiAffinity::Required => PodAntiAffinity {
            required_during_scheduling_ignored_during_execution: Some(vec![term]),
            ..PodAntiAffinity::default()
        },
        AntiAffinity::Preferred => PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![
                WeightedPodAffinityTerm {
                    weight: 100,
                    pod_affinity_term: term,
                },
            ]),
            ..PodAntiAffinity::default()
        },
    };
    Some(Affinity {
        pod_anti_affinity: Some(apart),
        ..given.unwrap_or_default()
    })
}

fn spread(view: &View<'_>, pool: Pool, scheduling: &Scheduling) -> Vec<TopologySpreadConstraint> {
    if !scheduling.topology_spread_constraints.is_empty() {
        let given = scheduling.topology_spread_constraints.iter().cloned();
        // Without a selector, a constraint would count no pods.
        return given
            .map(|constraint| TopologySpreadConstraint {
                label_selector: constraint
                    .label_selector
                    .or_else(|| Some(of_pool(view, pool))),
                ..constraint
            })
            .collect();
    }
    vec![TopologySpreadConstraint {
        max_skew: 1,
        topology_key: scheduling
            .zone_key
            .clone()
            .unwrap_or_else(|| "topology.kubernetes.io/zone".to_owned()),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(of_pool(view, pool)),
        ..TopologySpreadConstraint::default()
    }]
}

/// Adds the annotation of the template's hash.
pub(super) fn with_hash(mut template: PodTemplateSpec, hash: &str) -> PodTemplateSpec {
    let metadata = template.metadata.get_or_insert_default();
    let annotations = metadata.annotations.get_or_insert_with(BTreeMap::new);
    annotations.insert(names::TEMPLATE_HASH_ANNOTATION.to_owned(), hash.to_owned());
    template
}
