//! What users add to Services and pods, and what platforms ask for, against a real API server that has both
//! IP families and enforces the restricted Pod Security standard. Pods are created and admitted; none runs.
use std::{process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::command::{run, until};
use e2e_operator::{
    api_server::ApiServer,
    objects::Objects,
    operator_fixture::{OperatorFixture, condition},
    product,
};
use serde_json::{Value, json};

/// Limit for one reconcile and Kubernetes' controllers.
const LIMIT: Duration = Duration::from_secs(60);
/// Name of the cluster in each namespace.
const NAME: &str = "demo";

fn namespace(server: &Objects, name: &str) -> Result<()> {
    let labels = json!({ "pod-security.kubernetes.io/enforce": "restricted" });
    let object = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels } });
    server.send(&["create"], &object).map(drop)
}

fn cluster(server: &Objects, namespace: &str, verb: &str, spec: &Value) -> Result<Value> {
    let object = json!({
        "apiVersion": "rqlite.dev/v1alpha1", "kind": "RqliteCluster", "metadata": { "name": NAME }, "spec": spec,
    });
    let args = [verb, "-n", namespace];
    server.send(&args, &object)
}

/// Creates a cluster in a namespace of its own.
fn create(server: &Objects, namespace_name: &str, spec: &Value) -> Result<()> {
    namespace(server, namespace_name)?;
    cluster(server, namespace_name, "create", spec).map(drop)
}

/// Waits until a named object exists and satisfies `check`.
fn await_object(
    server: &Objects,
    namespace: &str,
    [kind, name]: [&str; 2],
    check: impl Fn(&Value) -> Result<()>,
) -> Result<Value> {
    until(&format!("{kind} {namespace}/{name}"), LIMIT, || {
        let object = server.get(&[kind, name, "-n", namespace])?;
        check(&object)?;
        Ok(object)
    })
}

/// The pods, once the StatefulSet's controller has created all: admission refused none.
fn admitted(server: &Objects, namespace: &str, count: usize) -> Result<Vec<Value>> {
    until(&format!("{count} pods in {namespace}"), LIMIT, || {
        let list = server.get(&["pods", "-n", namespace])?;
        let pods = list["items"].as_array().cloned().unwrap_or_default();
        let events = server.get(&["events", "-n", namespace])?;
        let refused = events["items"].as_array().into_iter().flatten();
        let refused: Vec<_> = refused
            .filter(|event| event["reason"] == "FailedCreate")
            .map(|event| event["message"].to_string())
            .collect();
        ensure!(pods.len() == count, "{} pods; {refused:?}", pods.len());
        Ok(pods)
    })
}

/// Every field of the Services.
fn services(server: &Objects) -> Result<()> {
    let at = "services";
    let client = json!({
        "type": "LoadBalancer", "port": 80, "nodePort": 30080, "loadBalancerClass": "example.com/internal",
        "loadBalancerSourceRanges": ["10.0.0.0/8"], "externalTrafficPolicy": "Local", "healthCheckNodePort": 30081,
        "internalTrafficPolicy": "Local", "sessionAffinity": "ClientIP", "sessionAffinitySeconds": 60,
        "trafficDistribution": "PreferClose", "annotations": {"example.com/a": "b"}, "labels": {"team": "x"},
    });
    let spec = json!({ "services": {
        "ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"], "client": client,
        "leader": { "type": "NodePort", "nodePort": 30082 } } });
    create(server, at, &spec)?;
    let made = await_object(server, at, ["service", "demo-client"], |service| {
        let spec = &service["spec"];
        for field in [
            "type",
            "loadBalancerClass",
            "loadBalancerSourceRanges",
            "externalTrafficPolicy",
            "healthCheckNodePort",
            "internalTrafficPolicy",
            "sessionAffinity",
            "trafficDistribution",
        ] {
            ensure!(spec[field] == client[field], "{field}: {}", spec[field]);
        }
        ensure!(
            spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"] == 60,
            "{spec}"
        );
        let port = &spec["ports"][0];
        ensure!(port["port"] == 80 && port["nodePort"] == 30080, "{port}");
        ensure!(port["appProtocol"] == "http", "{port}");
        let metadata = &service["metadata"];
        ensure!(
            metadata["annotations"]["example.com/a"] == "b",
            "{metadata}"
        );
        ensure!(metadata["labels"]["team"] == "x", "{metadata}");
        Ok(())
    })?;
    for name in ["demo-client", "demo-leader", "demo-headless"] {
        await_object(server, at, ["service", name], |service| {
            let spec = &service["spec"];
            ensure!(
                spec["ipFamilies"] == json!(["IPv4", "IPv6"]),
                "{name}: {spec}"
            );
            Ok(())
        })?;
    }
    services_go_back(server, at, &made["metadata"]["uid"])
}

/// The same Services without settings, and without the leader's.
fn services_go_back(server: &Objects, at: &str, uid: &Value) -> Result<()> {
    cluster(server, at, "replace", &json!({}))?;
    await_object(server, at, ["service", "demo-client"], |service| {
        let spec = &service["spec"];
        ensure!(spec["type"] == "ClusterIP", "{spec}");
        for field in [
            "loadBalancerClass",
            "loadBalancerSourceRanges",
            "externalTrafficPolicy",
        ] {
            ensure!(spec[field].is_null(), "{field} stays: {spec}");
        }
        ensure!(service["metadata"]["uid"] == *uid, "it was recreated");
        ensure!(service["metadata"]["labels"]["team"].is_null(), "{service}");
        Ok(())
    })?;
    cluster(
        server,
        at,
        "replace",
        &json!({ "services": { "leader": { "enabled": false } } }),
    )?;
    until("the leader's Service to go", LIMIT, || {
        let list = server.get(&["services", "-n", at])?;
        let list = list["items"].to_string();
        ensure!(!list.contains("\"demo-leader\""), "it is there");
        Ok(())
    })
}

/// What Kubernetes refuses ends in a condition with its words.
fn refused_service(server: &Objects) -> Result<()> {
    let spec = json!({ "services": { "client": { "type": "NodePort", "nodePort": 81 } } });
    create(server, "refused", &spec)?;
    await_object(server, "refused", ["rqlitecluster", NAME], |object| {
        let degraded = condition(object, "Degraded");
        ensure!(degraded["reason"] == "KubernetesRefused", "{degraded}");
        let message = degraded["message"].as_str().unwrap_or_default();
        ensure!(
            message.contains("provided port is not in the valid range"),
            "{message}"
        );
        Ok(())
    })
    .map(drop)
}

/// Additions are admitted under the restricted standard, with the operator's parts first.
fn additions(server: &Objects) -> Result<()> {
    let spec = json!({
        "serviceMesh": "Istio",
        "scheduling": { "zoneKey": "example.com/row", "topologySpreadConstraints": [
            { "maxSkew": 1, "topologyKey": "example.com/rack", "whenUnsatisfiable": "ScheduleAnyway" } ] },
        "podMetadata": { "labels": { "team": "x" }, "annotations": { "example.com/a": "b" } },
        "pods": {
            "volumes": [ { "name": "more", "emptyDir": {} } ],
            "volumeMounts": [ { "name": "more", "mountPath": "/more" } ],
            "initContainers": [ { "name": "first", "image": "example.com/x:1" } ],
            "sidecars": [ { "name": "side", "image": "example.com/y:1", "volumeMounts": [
                { "name": "data", "mountPath": "/rqlite", "readOnly": true } ] } ],
            "schedulerName": "other", "hostAliases": [ { "ip": "10.0.0.1", "hostnames": ["a"] } ],
            "dnsConfig": { "options": [ { "name": "ndots", "value": "2" } ] },
            "serviceAccountAnnotations": { "example.com/role": "r" } } });
    create(server, "additions", &spec)?;
    for pod in admitted(server, "additions", 3)? {
        let names = |list: &str| -> Vec<String> {
            let list = pod["spec"][list].as_array().into_iter().flatten();
            list.filter_map(|one| one["name"].as_str().map(str::to_owned))
                .collect()
        };
        ensure!(names("initContainers") == ["prepare", "first"], "{pod}");
        ensure!(names("containers") == ["rqlited", "side"], "{pod}");
        ensure!(pod["metadata"]["labels"]["team"] == "x", "{pod}");
        let spread = &pod["spec"]["topologySpreadConstraints"][0];
        ensure!(
            spread["labelSelector"]["matchLabels"]["rqlite.dev/cluster"] == NAME,
            "{spread}"
        );
        let annotations = &pod["metadata"]["annotations"];
        ensure!(
            annotations["traffic.sidecar.istio.io/excludeInboundPorts"] == "4002",
            "{annotations}"
        );
    }
    // What the rules of the definition cannot see.
    let wrong = json!({ "pods": { "sidecars": [ { "name": "side", "image": "example.com/y:1", "volumeMounts": [
        { "name": "data", "mountPath": "/d" } ] } ] } });
    create(server, "wrong", &wrong)?;
    await_object(server, "wrong", ["rqlitecluster", NAME], |object| {
        let degraded = condition(object, "Degraded");
        let message = degraded["message"].as_str().unwrap_or_default();
        ensure!(degraded["reason"] == "InvalidSpec", "{degraded}");
        ensure!(
            message.contains("mount data with readOnly: true"),
            "{message}"
        );
        Ok(())
    })?;
    let made = server.get(&["statefulsets", "-n", "wrong"])?;
    ensure!(made["items"] == json!([]), "something was made of it");
    Ok(())
}

/// No user is named where the platform assigns them, and the rest of the standard holds.
fn platform_users(server: &Objects) -> Result<()> {
    for (at, spec, user) in [
        (
            "assigned",
            json!({ "podSecurity": { "identity": "Platform" } }),
            json!(null),
        ),
        ("fixed", json!({}), json!(1000)),
        (
            "own",
            json!({ "podSecurity": { "runAsUser": 7 } }),
            json!(7),
        ),
    ] {
        create(server, at, &spec)?;
        for pod in admitted(server, at, 3)? {
            let context = &pod["spec"]["securityContext"];
            ensure!(context["runAsUser"] == user, "{at}: {context}");
            ensure!(context["runAsNonRoot"] == true, "{at}: {context}");
        }
    }
    Ok(())
}

/// Pods instead of volumes: no claim is made, and what would stop all pods is refused.
fn ephemeral(server: &Objects) -> Result<()> {
    let at = "ephemeral";
    let spec = json!({ "storage": { "ephemeral": { "sizeLimit": "1Gi" } } });
    create(server, at, &spec)?;
    for pod in admitted(server, at, 3)? {
        let volumes = pod["spec"]["volumes"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let data = volumes.iter().find(|volume| volume["name"] == "data");
        let data = data.context("no volume data")?;
        ensure!(data["emptyDir"]["sizeLimit"] == "1Gi", "{data}");
    }
    let claims = server.get(&["persistentvolumeclaims", "-n", at])?;
    ensure!(claims["items"] == json!([]), "{claims}");
    await_object(server, at, ["rqlitecluster", NAME], |object| {
        let advisory = condition(object, "Advisory");
        let message = advisory["message"].as_str().unwrap_or_default();
        ensure!(message.contains("the data is in the pods"), "{advisory}");
        Ok(())
    })?;
    let stopped = json!({ "storage": { "ephemeral": { "sizeLimit": "1Gi" } }, "hibernated": true });
    let refused = cluster(server, at, "replace", &stopped);
    let said = refused.map_or_else(|error| format!("{error:#}"), |made| made.to_string());
    ensure!(said.contains("it cannot be hibernated"), "{said}");
    server.run(&["delete", "rqlitecluster", NAME, "-n", at, "--timeout=60s"])?;
    Ok(())
}

/// OpenShift is recognized by its API group, and the domain is recorded with the cluster.
fn recognized(fixture: &OperatorFixture) -> Result<()> {
    let server = &fixture.server;
    let observe = || -> Result<Value> {
        let mut command = Command::new(product::built("rqlite-operator")?);
        command.args(["observe", "fixed/demo", "--cluster-domain=k8s.example"]);
        command.env("KUBECONFIG", fixture.api.kubeconfig("admin"));
        Ok(serde_yaml::from_str(&run(&mut command)?)?)
    };
    let seen = observe()?;
    ensure!(
        seen["operator"]["platform"]["assignsUsers"] == false,
        "{}",
        seen["operator"]
    );
    ensure!(
        seen["operator"]["platform"]["clusterDomain"] == "k8s.example",
        "{}",
        seen["operator"]
    );
    let recorded = server.get(&["rqlitecluster", NAME, "-n", "fixed"])?;
    let recorded = recorded["status"]["clusterDomain"].clone();
    ensure!(recorded.is_string(), "no domain in the status");
    let group = "security.openshift.io";
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("securitycontextconstraints.{group}") },
        "spec": { "group": group, "scope": "Cluster",
            "names": { "plural": "securitycontextconstraints", "kind": "SecurityContextConstraints",
                "singular": "securitycontextconstraints" },
            "versions": [ { "name": "v1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } } } ] } });
    server.send(&["create"], &definition)?;
    until("OpenShift to be recognized", LIMIT, || {
        let seen = observe()?;
        ensure!(
            seen["operator"]["platform"]["assignsUsers"] == true,
            "{}",
            seen["operator"]
        );
        Ok(())
    })
}

#[test]
fn it_fits_everywhere() -> Result<()> {
    let Some(fixture) = OperatorFixture::start()? else {
        return ApiServer::skip();
    };
    let server = &fixture.server;
    let result = services(server)
        .and_then(|()| refused_service(server))
        .and_then(|()| additions(server))
        .and_then(|()| platform_users(server))
        .and_then(|()| ephemeral(server))
        .and_then(|()| recognized(&fixture));
    result.with_context(|| fixture.tail())
}
