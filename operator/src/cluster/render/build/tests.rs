//! Rendered objects: what users add, what platforms need, and ephemeral clusters.
use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::cluster::{
    facts::observation::{NodeStatus, ProbeResult},
    fixture::Fixture,
};

/// All objects that a cluster with this spec gets, by `Kind/name`.
fn rendered(spec: &Value, change: impl FnOnce(&mut Fixture)) -> Value {
    let mut fixture = Fixture::running(3, 2);
    let mut present = serde_json::to_value(&fixture.seen.cluster.spec).unwrap();
    for (name, value) in spec.as_object().unwrap() {
        present[name] = value.clone();
    }
    fixture.seen.cluster.spec = serde_json::from_value(present).unwrap();
    // Otherwise what the operator has found out about the platform waits for the user's next change.
    let update = fixture.seen.cluster.spec.update.get_or_insert_default();
    update.operator_changes = Some(operator_api::cluster::OperatorChanges::Immediate);
    change(&mut fixture);
    let mut found = serde_json::Map::new();
    for _ in 0..4 {
        let plan = fixture.reconcile();
        for object in &plan.objects {
            let (kind, name) = object.id();
            let value = serde_json::to_value(object).unwrap();
            found.insert(format!("{kind}/{name}"), value);
        }
    }
    Value::Object(found)
}

fn of(spec: Value) -> Value {
    rendered(&spec, |_| {})
}

fn pod(objects: &Value) -> Value {
    objects["StatefulSet/demo"]["spec"]["template"]["spec"].clone()
}

fn annotations(objects: &Value) -> Value {
    objects["StatefulSet/demo"]["spec"]["template"]["metadata"]["annotations"].clone()
}

#[test]
fn services_have_the_users_settings() {
    let all = of(json!({"services": {
        "ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6", "IPv4"],
        "headless": {"annotations": {"a": "h"}},
        "client": {
            "type": "LoadBalancer", "port": 80, "nodePort": 30001, "loadBalancerClass": "c",
            "loadBalancerSourceRanges": ["10.0.0.0/8"], "externalTrafficPolicy": "Local",
            "internalTrafficPolicy": "Local", "sessionAffinity": "ClientIP", "sessionAffinitySeconds": 60,
            "annotations": {"a": "b"}, "labels": {"team": "x", "rqlite.dev/cluster": "mine"},
            "allocateLoadBalancerNodePorts": false, "healthCheckNodePort": 30002,
            "trafficDistribution": "PreferClose", "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"]},
        "leader": {"type": "NodePort", "annotations": {"a": "l"}},
        "read": {"port": 4101}}}));
    let client = &all["Service/demo-client"];
    assert_eq!(client["metadata"]["annotations"], json!({"a": "b"}));
    assert_eq!(client["metadata"]["labels"]["team"], "x");
    assert_eq!(client["metadata"]["labels"]["rqlite.dev/cluster"], "demo");
    let mut spec = client["spec"].clone();
    spec.as_object_mut().unwrap().remove("selector");
    assert_eq!(
        spec,
        json!({
            "type": "LoadBalancer", "loadBalancerClass": "c", "loadBalancerSourceRanges": ["10.0.0.0/8"],
            "ports": [{"name": "http", "port": 80, "nodePort": 30001, "targetPort": "http", "protocol": "TCP",
                "appProtocol": "http"}],
            "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local",
            "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
            "allocateLoadBalancerNodePorts": false, "healthCheckNodePort": 30002,
            "trafficDistribution": "PreferClose", "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"],
        })
    );
    assert_eq!(all["Service/demo-leader"]["spec"]["type"], "NodePort");
    assert_eq!(all["Service/demo-read"]["spec"]["ports"][0]["port"], 4101);
    for name in ["headless", "leader", "read"] {
        let spec = &all[format!("Service/demo-{name}")]["spec"];
        assert_eq!(spec["ipFamilyPolicy"], "PreferDualStack", "{name}");
        assert_eq!(spec["ipFamilies"], json!(["IPv6", "IPv4"]), "{name}");
    }
    let headless = &all["Service/demo-headless"];
    assert_eq!(headless["metadata"]["annotations"], json!({"a": "h"}));
    let protocols = headless["spec"]["ports"].as_array().unwrap();
    let protocols: Vec<_> = protocols.iter().map(|p| &p["appProtocol"]).collect();
    assert_eq!(
        protocols,
        ["http", "tcp"],
        "the convention of service meshes"
    );
    let none = of(json!({"services": {"leader": {"enabled": false}, "read": {"enabled": false}}}));
    for name in ["leader", "read"] {
        assert!(none.get(format!("Service/demo-{name}")).is_none(), "{name}");
    }
}

#[test]
fn pods_have_the_users_additions_after_the_operators_parts() {
    let all = of(json!({
        "podMetadata": {"annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}},
        "scheduling": {"zoneKey": "example.org/row", "hostKey": "example.org/rack", "priorityClassName": "high"},
        "pods": {
            "volumes": [{"name": "more", "emptyDir": {}}],
            "volumeMounts": [{"name": "more", "mountPath": "/more"}],
            "envFrom": [{"secretRef": {"name": "s"}}],
            "initContainers": [{"name": "first", "image": "x"}],
            "sidecars": [{"name": "side", "image": "y", "securityContext": {"runAsUser": 7}}, {"name": "plain"}],
            "runtimeClassName": "gvisor", "schedulerName": "own",
            "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}],
            "dnsPolicy": "None", "dnsConfig": {"nameservers": ["10.0.0.2"]},
            "serviceAccountAnnotations": {"role": "r"}}}));
    let pod = pod(&all);
    let names = |list: &str| -> Vec<String> {
        let list = pod[list].as_array().unwrap().iter();
        list.map(|o| o["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names("initContainers"), ["prepare", "first"]);
    assert_eq!(names("containers"), ["rqlited", "side", "plain"]);
    assert_eq!(names("volumes"), ["cluster", "tmp", "more"]);
    let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
    assert_eq!(mounts[0]["mountPath"], "/rqlite");
    assert_eq!(mounts.last().unwrap()["mountPath"], "/more");
    assert_eq!(pod["containers"][0]["envFrom"][0]["secretRef"]["name"], "s");
    assert_eq!(pod["containers"][0]["env"][0]["name"], "POD_NAME");
    assert_eq!(
        pod["containers"][1]["securityContext"],
        json!({"runAsUser": 7})
    );
    let secured = &pod["containers"][2]["securityContext"];
    assert_eq!(secured["capabilities"]["drop"], json!(["ALL"]));
    for (field, value) in [
        ("runtimeClassName", "gvisor"),
        ("schedulerName", "own"),
        ("dnsPolicy", "None"),
        ("priorityClassName", "high"),
    ] {
        assert_eq!(pod[field], value);
    }
    assert_eq!(pod["dnsConfig"]["nameservers"], json!(["10.0.0.2"]));
    assert_eq!(pod["hostAliases"][0]["hostnames"], json!(["a"]));
    assert_eq!(
        pod["topologySpreadConstraints"][0]["topologyKey"],
        "example.org/row"
    );
    let apart =
        &pod["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"];
    assert_eq!(
        apart[0]["podAffinityTerm"]["topologyKey"],
        "example.org/rack"
    );
    let evict = "cluster-autoscaler.kubernetes.io/safe-to-evict";
    assert_eq!(annotations(&all)[evict], "false", "the user's own");
    let local = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";
    assert_eq!(annotations(&all)[local], "tmp");
    let account = all.as_object().unwrap().iter();
    let account = account.filter(|(id, _)| id.starts_with("ServiceAccount/"));
    let account: Vec<_> = account
        .map(|(_, o)| &o["metadata"]["annotations"]["role"])
        .collect();
    assert_eq!(account, ["r"]);
}

#[test]
fn users_are_fixed_or_the_platforms() {
    let context = |spec: &Value, openshift: bool| {
        let all = rendered(spec, |fixture| {
            fixture.seen.operator.platform.assigns_users = openshift;
        });
        let context = pod(&all)["securityContext"].clone();
        assert_eq!(context["runAsNonRoot"], true);
        assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
        [
            context["runAsUser"].as_i64(),
            context["runAsGroup"].as_i64(),
            context["fsGroup"].as_i64(),
        ]
    };
    let same = |id: i64| [Some(id); 3];
    let cases = [
        (json!({}), false, same(1000)),
        (json!({}), true, [None; 3]),
        (
            json!({"podSecurity": {"identity": "Platform"}}),
            false,
            [None; 3],
        ),
        (
            json!({"podSecurity": {"identity": "Fixed"}}),
            true,
            same(1000),
        ),
        (
            json!({"podSecurity": {"runAsUser": 7, "fsGroup": 8}}),
            true,
            [Some(7), Some(1000), Some(8)],
        ),
    ];
    for (spec, openshift, expected) in cases {
        assert_eq!(context(&spec, openshift), expected, "{spec} {openshift}");
    }
}

#[test]
fn a_mesh_leaves_the_nodes_connections_alone() {
    let of_mesh = |mesh: &str| annotations(&of(json!({ "serviceMesh": mesh })));
    let istio = of_mesh("Istio");
    assert_eq!(
        istio["traffic.sidecar.istio.io/excludeInboundPorts"],
        "4002"
    );
    assert_eq!(
        istio["traffic.sidecar.istio.io/excludeOutboundPorts"],
        "4002"
    );
    let hold = istio["proxy.istio.io/config"].as_str().unwrap();
    let hold: Value = serde_json::from_str(hold).unwrap();
    assert_eq!(hold["holdApplicationUntilProxyStarts"], true);
    let linkerd = of_mesh("Linkerd");
    assert_eq!(linkerd["config.linkerd.io/skip-inbound-ports"], "4002");
    assert_eq!(linkerd["config.linkerd.io/proxy-await"], "enabled");
}

#[test]
fn nodes_listen_in_both_families_and_the_domain_is_recorded_once() {
    let flags = |all: &Value| pod(all)["containers"][0]["args"].to_string();
    let all = of(json!({}));
    assert!(
        flags(&all).contains("-http-addr=[::]:4001"),
        "{}",
        flags(&all)
    );
    assert!(
        flags(&all).contains("-raft-addr=[::]:4002"),
        "{}",
        flags(&all)
    );
    let mut fixture = Fixture::running(3, 0);
    assert_eq!(
        fixture.status().cluster_domain.as_deref(),
        Some("cluster.local")
    );
    fixture.seen.operator.platform.cluster_domain = "other.example".to_owned();
    let before = fixture.status().target.map(|target| target.input_hash);
    for given in [Some("cluster.local".to_owned()), None] {
        fixture.seen.cluster.spec.cluster_domain = given;
        fixture.reconcile();
        let after = fixture.status().target.map(|target| target.input_hash);
        assert_eq!(before, after, "pods would restart for a name that stays");
    }
    let client = fixture.status().endpoints.unwrap().client;
    assert!(client.contains("svc.cluster.local:"), "{client}");
    // A cluster of an older operator, whose spec has lost the former default.
    fixture.seen.cluster.status.as_mut().unwrap().cluster_domain = None;
    fixture.reconcile();
    assert_eq!(
        fixture.status().cluster_domain.as_deref(),
        Some("cluster.local")
    );
    fixture.seen.cluster.spec.cluster_domain = Some("third.example".to_owned());
    fixture.reconcile();
    let (_, reason, text) = fixture.condition("Degraded");
    assert!(
        reason == "InvalidSpec" && text.contains("in cluster.local"),
        "{reason}: {text}"
    );
    let mut new = Fixture::running(3, 0);
    new.seen.cluster.status = None;
    new.seen.state = None;
    new.seen.operator.platform.cluster_domain = "found.example".to_owned();
    new.reconcile();
    assert_eq!(
        new.status().cluster_domain.as_deref(),
        Some("found.example")
    );
}

/// A pod's disk stands in for its claim, as in an observation of an ephemeral cluster.
fn ephemeral(voters: i32) -> Fixture {
    let mut fixture = Fixture::running(voters, 0);
    fixture.seen.cluster.spec.storage.ephemeral = Some(operator_api::cluster::Ephemeral::default());
    for pod in fixture.seen.pods.clone() {
        fixture.claim(&pod.name).uid = pod.uid;
    }
    for _ in 0..4 {
        fixture.reconcile();
    }
    fixture
}

#[test]
fn ephemeral_data_is_in_the_pod() {
    let all = of(
        json!({"storage": {"size": "10Gi", "ephemeral": {"medium": "Memory", "sizeLimit": "1Gi"}}}),
    );
    let set = &all["StatefulSet/demo"]["spec"];
    assert!(set.get("volumeClaimTemplates").is_none(), "{set}");
    let volumes = pod(&all)["volumes"].clone();
    let data = json!({"name": "data", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}});
    assert_eq!(volumes[0], data);
    let evict = "cluster-autoscaler.kubernetes.io/safe-to-evict";
    assert_eq!(annotations(&all)[evict], "false");
    let mut fixture = ephemeral(3);
    let (advised, _, text) = fixture.condition("Advisory");
    assert!(
        advised && text.contains("once 2 of 3 voters' pods are gone"),
        "{text}"
    );
    fixture.wipe("demo-2");
    fixture.reconcile();
    let member = fixture
        .status()
        .members
        .into_iter()
        .find(|m| m.name == "demo-2");
    let member = member.unwrap();
    assert_eq!(member.state, operator_api::status::MemberState::Lost);
    assert_eq!(
        member.reason.as_deref(),
        Some("its pod, and with it its ephemeral disk, was replaced")
    );
    for name in ["demo-0", "demo-1"] {
        fixture.wipe(name);
    }
    for _ in 0..4 {
        fixture.reconcile();
        fixture.later(400);
    }
    let (lost, _, text) = fixture.condition("QuorumLost");
    assert!(
        lost && text.contains("delete the RqliteCluster and create it again"),
        "{text}"
    );
}

#[test]
fn an_ephemeral_pod_without_a_spare_is_replaced_by_a_persons_word_only() {
    for (voters, replaced) in [(1, false), (3, true)] {
        let mut fixture = ephemeral(voters);
        fixture.keeps_pods = true;
        fixture.seen.cluster.spec.termination_grace_period_seconds = 61;
        fixture.seen.cluster.metadata.generation = Some(2);
        fixture.later(100);
        let action = fixture.action();
        assert_eq!(action.is_some(), replaced, "{voters} voters: {action:?}");
        if !replaced {
            let (pending, _, text) = fixture.condition("UpdatePending");
            assert!(pending && text.contains("update-now"), "{text}");
            fixture.pod("demo-0").update_now = true;
            assert!(fixture.action().is_some());
        }
    }
}

#[test]
fn without_a_quorum_no_ephemeral_pod_is_deleted_for_a_better_template() {
    for (is_ephemeral, deleted) in [(true, false), (false, true)] {
        let mut fixture = if is_ephemeral {
            ephemeral(3)
        } else {
            Fixture::running(3, 0)
        };
        fixture.keeps_pods = true;
        for name in ["demo-0", "demo-1"] {
            fixture.down(name, "OOMKilled");
        }
        let survivor = fixture.node("demo-2");
        (survivor.leader, survivor.ready) = (None, false);
        fixture.seen.cluster.spec.termination_grace_period_seconds = 61;
        fixture.seen.cluster.metadata.generation = Some(2);
        let action = fixture.action();
        assert_eq!(action.is_some(), deleted, "{is_ephemeral}: {action:?}");
        if is_ephemeral {
            fixture.pod("demo-1").update_now = true;
            assert!(fixture.action().is_some(), "a person may");
        }
    }
}

#[test]
fn a_recovery_of_an_ephemeral_cluster_is_rejected() {
    let mut fixture = ephemeral(3);
    let name = fixture.recovery(|_| {});
    for answer in fixture.seen.nodes.values_mut() {
        *answer = ProbeResult::Ok(NodeStatus::default());
    }
    fixture.reconcile();
    let status = fixture.recovery_status(&name);
    let text = status.message.unwrap_or_default();
    assert!(text.contains("the cluster is ephemeral"), "{text}");
}

/// Who may connect to each port, by the NetworkPolicy; None: everybody.
fn admitted(all: &Value) -> BTreeMap<i64, Option<Vec<Value>>> {
    let rules = all["NetworkPolicy/demo-rqlite"]["spec"]["ingress"].as_array();
    let rules = rules.unwrap().iter().map(|rule| {
        let ports = rule["ports"].as_array().unwrap();
        assert_eq!(ports.len(), 1, "{rule}");
        let from = rule.get("from").map(|from| from.as_array().unwrap().clone());
        (ports[0]["port"].as_i64().unwrap(), from)
    });
    rules.collect()
}

#[test]
fn a_new_cluster_is_closed_to_other_namespaces() {
    let members = |all: &Value| {
        let selector = &all["NetworkPolicy/demo-rqlite"]["spec"]["podSelector"];
        assert_eq!(selector["matchLabels"]["rqlite.dev/cluster"], "demo");
        assert!(selector["matchLabels"].get("rqlite.dev/pool").is_none(), "both pools");
        json!({"podSelector": selector})
    };
    let operator = json!({
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "operators"}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "rqlite-operator"}}});
    let namespace = json!({"podSelector": {}});
    let web = json!({"namespaceSelector": {"matchLabels": {"team": "web"}}});
    let all = of(json!({}));
    let member = members(&all);
    let closed = vec![member.clone(), operator.clone(), namespace];
    let expected = [(4002, Some(vec![member.clone()])), (4001, Some(closed.clone()))];
    assert_eq!(admitted(&all), expected.into(), "nobody is admitted to 4003 but the kubelet");
    let listed = of(json!({"networkPolicy": {"clientFrom": [web], "monitoringFrom": [web]}}));
    let expected = [
        (4002, Some(vec![member.clone()])),
        (4001, Some(vec![member, operator, web.clone()])),
        (4003, Some(vec![web])),
    ];
    assert_eq!(admitted(&listed), expected.into());
    let open = of(json!({"networkPolicy": {"clients": "Everywhere"}}));
    assert_eq!(admitted(&open)[&4001], None);
    assert!(admitted(&open)[&4002].is_some());
    let none = of(json!({"networkPolicy": {"enabled": false}}));
    assert!(none.get("NetworkPolicy/demo-rqlite").is_none());
    // A cluster of an earlier operator stays as it was.
    let before = rendered(&json!({}), |fixture| {
        fixture.seen.cluster.status.as_mut().unwrap().network = None;
        fixture.reconcile();
    });
    assert_eq!(admitted(&before)[&4001], None);
    let policy = &before["NetworkPolicy/demo-rqlite"]["metadata"]["annotations"];
    assert_eq!(policy["rqlite.dev/clients"], "Everywhere");
}
