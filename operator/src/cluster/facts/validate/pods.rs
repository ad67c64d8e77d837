//! Checks of the spec's additions to pods: they must not reach what the operator's safety depends on.
use k8s_openapi::api::core::v1::Container;
use operator_api::{RqliteClusterSpec, cluster::RecoveryPolicy, names};

/// Volumes of the operator.
const VOLUMES: [&str; 3] = ["data", "cluster", "tmp"];
/// Containers of the operator.
const CONTAINERS: [&str; 2] = ["prepare", "rqlited"];

/// Paths that the node needs as they are.
const PATHS: [&[&str]; 10] = [
    &["rqlite"],
    &["tmp"],
    &["etc", "rqlite-cluster"],
    &["bin"],
    &["lib"],
    &["lib64"],
    &["usr"],
    &["dev"],
    &["proc"],
    &["sys"],
];

/// Would a mount at this path hide something that the node needs? Kubernetes accepts `//` and `/./`.
fn hides(path: &str) -> bool {
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    parts.is_empty() || PATHS.iter().any(|own| parts.starts_with(own)) || parts == ["etc"]
}

/// Everything that is wrong with them.
pub(super) fn mistakes(cluster: &str, spec: &RqliteClusterSpec) -> Vec<String> {
    let mut found = Vec::new();
    let pods = spec.pods.clone().unwrap_or_default();
    let own = |name: &str| VOLUMES.contains(&name);
    for volume in &pods.volumes {
        if own(&volume.name) {
            found.push(format!(
                "pods.volumes names a volume {:?}, which is the operator's: choose another name",
                volume.name
            ));
        }
        let claim = volume.persistent_volume_claim.as_ref();
        let claim = claim.map(|claim| claim.claim_name.as_str());
        if let Some(claim) = claim.filter(|claim| is_of_node(cluster, claim)) {
            found.push(format!(
                "pods.volumes: the volume {:?} names {claim:?}, which has a node's data and only the node may write to: a sidecar mounts data with readOnly: true instead",
                volume.name
            ));
        }
    }
    for mount in &pods.volume_mounts {
        if hides(&mount.mount_path) {
            found.push(format!(
                "pods.volumeMounts mounts {:?} at {:?}, which would hide files that the node needs: choose another path, such as /certificates",
                mount.name, mount.mount_path
            ));
        }
        if !pods.volumes.iter().any(|v| v.name == mount.name) {
            found.push(format!(
                "pods.volumeMounts mounts {:?}, which is not in pods.volumes: add the volume or remove the mount",
                mount.name
            ));
        }
    }
    let lists = [
        ("pods.initContainers", &pods.init_containers),
        ("pods.sidecars", &pods.sidecars),
    ];
    for (list, containers) in lists {
        for one in containers {
            found.extend(container(list, one));
        }
    }
    found.extend(ephemeral(spec));
    found
}

/// Is a claim of this name one of the cluster's nodes'?
fn is_of_node(cluster: &str, claim: &str) -> bool {
    let sets = [names::voters(cluster), names::readers(cluster)];
    sets.iter().any(|set| {
        let pod = claim.strip_prefix(&names::claim(""));
        pod.is_some_and(|pod| names::ordinal(set, pod).is_some())
    })
}

fn container(list: &str, one: &Container) -> Vec<String> {
    let name = &one.name;
    let mut found = Vec::new();
    if CONTAINERS.contains(&name.as_str()) {
        found.push(format!(
            "{list} names a container {name:?}, which is the operator's: choose another name"
        ));
    }
    for mount in one.volume_mounts.iter().flatten() {
        let reads = mount.name == "data" && mount.read_only == Some(true);
        if VOLUMES.contains(&mount.name.as_str()) && !reads {
            found.push(format!(
                "{list}: the container {name:?} mounts {:?}, which only the node may write to: mount data with readOnly: true, or a volume of pods.volumes",
                mount.name
            ));
        }
    }
    let taken = [names::HTTP_PORT, names::RAFT_PORT];
    for port in one.ports.iter().flatten() {
        if taken.contains(&port.container_port)
            || matches!(port.name.as_deref(), Some("http" | "raft"))
        {
            found.push(format!(
                "{list}: the container {name:?} has a port {} that is called or numbered like the node's (http {}, raft {}): choose another one",
                port.container_port,
                names::HTTP_PORT,
                names::RAFT_PORT
            ));
        }
    }
    found
}

fn ephemeral(spec: &RqliteClusterSpec) -> Vec<String> {
    let mut found = Vec::new();
    if spec.storage.ephemeral.is_none() {
        return found;
    }
    if spec.hibernated {
        found.push(
            "an ephemeral cluster loses all its data when its pods stop: set hibernated to false"
                .to_owned(),
        );
    }
    let recovery = spec.quorum_recovery.clone().unwrap_or_default();
    if recovery.policy == Some(RecoveryPolicy::Automatic) {
        found.push("a recovery stops all pods, and with them goes all that an ephemeral cluster still has: use quorumRecovery.policy Manual".to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(pods: Value) -> String {
        let spec = serde_json::from_value(json!({ "pods": pods })).unwrap();
        mistakes("demo", &spec).join("\n")
    }

    #[test]
    fn additions_leave_the_operators_parts_alone() {
        let volume = json!([{"name": "more", "emptyDir": {}}]);
        for claim in ["data-demo-x", "data-other-0", "demo-0"] {
            let named = json!({"claimName": claim});
            let volumes = json!([{"name": "x", "persistentVolumeClaim": named}]);
            assert_eq!(of(json!({ "volumes": volumes })), "", "{claim}");
        }
        let fine = json!({
            "volumes": volume,
            "volumeMounts": [{"name": "more", "mountPath": "/etc/more"}],
            "sidecars": [{"name": "backup", "image": "x", "volumeMounts": [
                {"name": "data", "mountPath": "/rqlite", "readOnly": true}]}],
        });
        assert_eq!(of(fine), "");
        let cases = [
            (
                json!({"volumes": [{"name": "data"}]}),
                "which is the operator's",
            ),
            (
                json!({"volumes": [{"name": "x", "persistentVolumeClaim": {"claimName": "data-demo-0"}}]}),
                "a node's data",
            ),
            (
                json!({"volumes": [{"name": "x", "persistentVolumeClaim": {"claimName": "data-demo-ro-11"}}]}),
                "a node's data",
            ),
            (
                json!({"volumeMounts": [{"name": "x", "mountPath": "/x"}]}),
                "not in pods.volumes",
            ),
            (
                json!({"volumes": volume, "volumeMounts": [{"name": "more", "mountPath": "//rqlite/./data"}]}),
                "which would hide",
            ),
            (
                json!({"volumes": volume, "volumeMounts": [{"name": "more", "mountPath": "/bin"}]}),
                "which would hide",
            ),
            (
                json!({"sidecars": [{"name": "rqlited"}]}),
                "pods.sidecars names a container",
            ),
            (
                json!({"initContainers": [{"name": "prepare"}]}),
                "pods.initContainers names",
            ),
            (
                json!({"sidecars": [{"name": "s", "volumeMounts": [{"name": "data", "mountPath": "/d"}]}]}),
                "only the node may write to",
            ),
            (
                json!({"initContainers": [{"name": "s", "volumeMounts": [{"name": "cluster", "mountPath": "/d", "readOnly": true}]}]}),
                "only the node may write to",
            ),
            (
                json!({"sidecars": [{"name": "s", "ports": [{"containerPort": 4002}]}]}),
                "like the node's",
            ),
            (
                json!({"sidecars": [{"name": "s", "ports": [{"containerPort": 80, "name": "http"}]}]}),
                "like the node's",
            ),
        ];
        for (pods, part) in cases {
            let said = of(pods.clone());
            assert!(said.contains(part), "{pods}: {said}");
        }
    }

    #[test]
    fn an_ephemeral_cluster_is_not_stopped() {
        let of = |extra: Value| {
            let mut spec = json!({"storage": {"ephemeral": {}}});
            spec.as_object_mut()
                .unwrap()
                .extend(extra.as_object().unwrap().clone());
            mistakes("demo", &serde_json::from_value(spec).unwrap()).len()
        };
        assert_eq!(of(json!({})), 0);
        assert_eq!(of(json!({"hibernated": true})), 1);
        assert_eq!(of(json!({"quorumRecovery": {"policy": "Automatic"}})), 1);
    }
}
