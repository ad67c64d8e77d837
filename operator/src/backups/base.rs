//! What the pods of Jobs have of their cluster's pods: image, account, scheduling, and what users added so
//! that nodes reach the store. Not sidecars and init containers: with a sidecar a Job would not end.
use k8s_openapi::api::core::v1::{Container, LocalObjectReference, PodSpec, Volume, VolumeMount};
use operator_api::{
    RqliteCluster,
    cluster::{Pods, PullPolicy},
};

use crate::cluster::facts::pod_parts;

/// Of a cluster's pods, with one container, to which a Job adds what it does.
pub fn of(cluster: &RqliteCluster, assigns_users: bool) -> PodSpec {
    let status = cluster.status.as_ref();
    let made = status.and_then(|status| status.object_prefix.clone());
    let lasting = lasting(cluster, assigns_users);
    PodSpec {
        service_account_name: lasting.service_account_name.clone().or(made),
        ..lasting
    }
}

/// The same without what goes with the cluster: the account that the operator made for it.
pub fn lasting(cluster: &RqliteCluster, assigns_users: bool) -> PodSpec {
    let spec = &cluster.spec;
    let image = spec.image.clone().unwrap_or_default();
    let scheduling = spec.scheduling.clone().unwrap_or_default();
    let config = spec.config.clone().unwrap_or_default();
    let user = spec.pods.clone().unwrap_or_default();
    let pull = image.pull_secrets.into_iter();
    let pull: Vec<_> = pull
        .map(|secret| LocalObjectReference { name: secret.name })
        .collect();
    let policy = image.pull_policy.map(|policy| match policy {
        PullPolicy::Always => "Always".to_owned(),
        PullPolicy::IfNotPresent => "IfNotPresent".to_owned(),
        PullPolicy::Never => "Never".to_owned(),
    });
    let running = cluster.status.as_ref().and_then(|s| s.target.as_ref());
    let (volumes, mounts) = added(&user);
    let env: Vec<_> = config.extra_env.iter().map(pod_parts::env).collect();
    PodSpec {
        service_account_name: spec.service_account_name.clone(),
        image_pull_secrets: (!pull.is_empty()).then_some(pull),
        node_selector: (!scheduling.node_selector.is_empty()).then_some(scheduling.node_selector),
        tolerations: (!scheduling.tolerations.is_empty()).then_some(scheduling.tolerations),
        priority_class_name: scheduling.priority_class_name,
        runtime_class_name: user.runtime_class_name,
        scheduler_name: user.scheduler_name,
        dns_policy: user.dns_policy.map(|policy| policy.as_str().to_owned()),
        dns_config: user.dns_config,
        host_aliases: (!user.host_aliases.is_empty()).then_some(user.host_aliases),
        security_context: Some(pod_parts::of_pod(
            spec.pod_security.clone().unwrap_or_default(),
            assigns_users,
        )),
        containers: vec![Container {
            image: running.map(|target| target.image.clone()),
            image_pull_policy: policy,
            env: (!env.is_empty()).then_some(env),
            env_from: (!user.env_from.is_empty()).then_some(user.env_from),
            volume_mounts: (!mounts.is_empty()).then_some(mounts),
            ..Container::default()
        }],
        volumes: (!volumes.is_empty()).then_some(volumes),
        ..PodSpec::default()
    }
}

/// Where nothing is known of the cluster.
pub fn unknown(assigns_users: bool) -> PodSpec {
    lasting(
        &RqliteCluster::new("", operator_api::RqliteClusterSpec::default()),
        assigns_users,
    )
}

/// The volumes that nodes mount, as far as any number of pods on any machine may have them: certificates and
/// settings, not disks, sockets of the machine or tokens.
fn added(user: &Pods) -> (Vec<Volume>, Vec<VolumeMount>) {
    let shared = user.volumes.iter().filter(|volume| is_shared(volume));
    let is_mounted = |volume: &&Volume| user.volume_mounts.iter().any(|m| m.name == volume.name);
    let volumes: Vec<Volume> = shared.filter(is_mounted).cloned().collect();
    let mounts = user.volume_mounts.iter();
    let mounts = mounts.filter(|mount| volumes.iter().any(|volume| volume.name == mount.name));
    let mounts = mounts.cloned().collect();
    (volumes, mounts)
}

fn is_shared(volume: &Volume) -> bool {
    // As the policy own-jobs of the chart has it.
    let is_projected = volume.projected.as_ref().is_some_and(|projected| {
        let mut sources = projected.sources.iter().flatten();
        sources.all(|source| {
            source.config_map.is_some()
                || source.secret.is_some()
                || source.downward_api.is_some()
                || source.cluster_trust_bundle.is_some()
        })
    });
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.empty_dir.is_some()
        || is_projected
}

/// Adds the volumes and mounts of a Job to those of the base, which give way.
pub fn mounted(base: &mut PodSpec, volumes: Vec<Volume>, mounts: Vec<VolumeMount>) {
    let own = base.volumes.get_or_insert_default();
    own.retain(|one| volumes.iter().all(|other| other.name != one.name));
    let names: Vec<String> = own.iter().map(|volume| volume.name.clone()).collect();
    own.extend(volumes);
    for container in &mut base.containers {
        let all = container.volume_mounts.get_or_insert_default();
        all.retain(|one| {
            let is_free = mounts.iter().all(|other| !meet(one, other));
            is_free && names.contains(&one.name)
        });
        all.extend(mounts.iter().cloned());
    }
}

/// Would one mount hide the other?
fn meet(one: &VolumeMount, other: &VolumeMount) -> bool {
    let folder = |mount: &VolumeMount| format!("{}/", mount.mount_path.trim_end_matches('/'));
    let (one, other) = (folder(one), folder(other));
    one.starts_with(&other) || other.starts_with(&one)
}

#[cfg(test)]
mod tests {
    use operator_api::RqliteClusterSpec;
    use serde_json::{Value, json};

    use super::*;

    fn cluster(spec: Value) -> RqliteCluster {
        let spec: RqliteClusterSpec = serde_json::from_value(spec).unwrap();
        let mut cluster = RqliteCluster::new("demo", spec);
        let status = json!({"objectPrefix": "demo-rqlite", "target": {"image": "rqlited:1"}});
        cluster.status = Some(serde_json::from_value(status).unwrap());
        cluster
    }

    #[test]
    fn what_nodes_need_to_reach_a_store_jobs_have_too() {
        let cluster = cluster(json!({
            "image": {"pullPolicy": "Never", "pullSecrets": [{"name": "registry"}]},
            "config": {"extraEnv": [{"name": "SSL_CERT_FILE", "value": "/ca/ca.crt"}]},
            "podSecurity": {"runAsUser": 7, "fsGroup": 8, "supplementalGroups": [9]},
            "scheduling": {"tolerations": [{"key": "db", "operator": "Exists"}]},
            "pods": {
                "volumes": [
                    {"name": "ca", "configMap": {"name": "corp-ca"}},
                    {"name": "unused", "configMap": {"name": "x"}},
                    {"name": "disk", "persistentVolumeClaim": {"claimName": "c"}},
                    {"name": "machine", "hostPath": {"path": "/"}},
                    {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
                ],
                "volumeMounts": [
                    {"name": "ca", "mountPath": "/ca"},
                    {"name": "disk", "mountPath": "/disk"},
                    {"name": "machine", "mountPath": "/machine"},
                    {"name": "token", "mountPath": "/token"},
                ],
                "envFrom": [{"configMapRef": {"name": "settings"}}],
                "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["minio"]}],
                "dnsConfig": {"nameservers": ["10.0.0.2"]},
                "dnsPolicy": "None",
                "runtimeClassName": "gvisor",
                "sidecars": [{"name": "s", "image": "i"}],
                "initContainers": [{"name": "i", "image": "i"}],
            },
        }));
        let pod = serde_json::to_value(of(&cluster, true)).unwrap();
        for (at, expected) in [
            ("/serviceAccountName", json!("demo-rqlite")),
            ("/imagePullSecrets", json!([{"name": "registry"}])),
            (
                "/volumes",
                json!([{"name": "ca", "configMap": {"name": "corp-ca"}}]),
            ),
            (
                "/containers/0/volumeMounts",
                json!([{"name": "ca", "mountPath": "/ca"}]),
            ),
            (
                "/containers/0/env",
                json!([{"name": "SSL_CERT_FILE", "value": "/ca/ca.crt"}]),
            ),
            (
                "/containers/0/envFrom",
                json!([{"configMapRef": {"name": "settings"}}]),
            ),
            ("/containers/0/image", json!("rqlited:1")),
            ("/containers/0/imagePullPolicy", json!("Never")),
            ("/hostAliases/0/ip", json!("10.0.0.1")),
            ("/dnsConfig/nameservers/0", json!("10.0.0.2")),
            ("/dnsPolicy", json!("None")),
            ("/runtimeClassName", json!("gvisor")),
            ("/securityContext/runAsUser", json!(7)),
            ("/securityContext/runAsGroup", json!(1000)),
            ("/securityContext/fsGroup", json!(8)),
            ("/securityContext/supplementalGroups", json!([9])),
            ("/tolerations/0/key", json!("db")),
        ] {
            assert_eq!(pod.pointer(at), Some(&expected), "{at}");
        }
        assert_eq!(pod["containers"].as_array().unwrap().len(), 1);
        assert!(pod.get("initContainers").is_none());
    }

    #[test]
    fn the_account_of_the_cluster_goes_with_it() {
        let own = cluster(json!({}));
        assert_eq!(lasting(&own, false).service_account_name, None);
        let given = cluster(json!({"serviceAccountName": "theirs"}));
        for pod in [of(&given, false), lasting(&given, false)] {
            assert_eq!(pod.service_account_name.as_deref(), Some("theirs"));
        }
        let security = unknown(true).security_context.unwrap();
        assert_eq!(security.run_as_user, None, "the platform's");
    }

    #[test]
    fn what_the_job_mounts_comes_first() {
        let mut pod = of(
            &cluster(json!({"pods": {
                "volumes": [
                    {"name": "mine", "emptyDir": {}}, {"name": "scratch", "emptyDir": {}},
                    {"name": "ca", "emptyDir": {}},
                ],
                "volumeMounts": [
                    {"name": "mine", "mountPath": "/scratch/deep"},
                    {"name": "scratch", "mountPath": "/theirs"},
                    {"name": "ca", "mountPath": "/scratches"},
                ],
            }})),
            false,
        );
        let mount = |path: &str| VolumeMount {
            name: "scratch".to_owned(),
            mount_path: path.to_owned(),
            ..VolumeMount::default()
        };
        let volume = Volume {
            name: "scratch".to_owned(),
            ..Volume::default()
        };
        mounted(&mut pod, vec![volume.clone()], vec![mount("/scratch")]);
        let mounts = pod.containers[0].volume_mounts.clone().unwrap();
        let paths: Vec<_> = mounts.iter().map(|m| m.mount_path.as_str()).collect();
        assert_eq!(paths, ["/scratches", "/scratch"]);
        let volumes = pod.volumes.unwrap();
        let named: Vec<_> = volumes.iter().filter(|v| v.name == "scratch").collect();
        assert_eq!(named, [&volume]);
    }
}
