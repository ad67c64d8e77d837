//! The chart as rendered by Helm: values that are rejected, and properties of the objects that hold for all
//! values.
use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::command::run;
use e2e_operator::{chart, generated::KUBERNETES, tool};
use serde_yaml::Value;

/// Helm, to render the chart.
struct Chart {
    helm: PathBuf,
}

impl Chart {
    fn render(&self, values: &[&str]) -> Result<Vec<Value>> {
        let mut command = Command::new(&self.helm);
        command.args(["template", "rq"]).arg(chart());
        command.args(["--namespace", "operators", "--kube-version", KUBERNETES]);
        for value in values {
            command.args(["--set", value]);
        }
        let text = run(&mut command)?;
        let mut objects = Vec::new();
        for document in serde_yaml::Deserializer::from_str(&text) {
            let object: Value = serde::Deserialize::deserialize(document)?;
            if !object.is_null() {
                objects.push(object);
            }
        }
        Ok(objects)
    }
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|o| o["kind"] == kind).collect()
}

fn names<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a str> {
    let found = of_kind(objects, kind).into_iter();
    found
        .filter_map(|o| o["metadata"]["name"].as_str())
        .collect()
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_sequence()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

fn refuses(chart: &Chart) -> Result<()> {
    let cases = [
        ("replicas=2", "additional properties 'replicas' not allowed"),
        ("replicaCount=0", "'/replicaCount': minimum: got 0, want 1"),
        ("image.tag=", "'/image/tag': minLength: got 0, want 1"),
        (
            "image.digest=sha256:1",
            "'/image/digest': 'sha256:1' does not match pattern",
        ),
        (
            "image.pullPolicy=Sometimes",
            "'/image/pullPolicy': value must be one of 'Always', 'IfNotPresent', 'Never'",
        ),
        (
            "nodeImage.repository=a@b",
            "'/nodeImage/repository': 'a@b' does not match pattern",
        ),
        (
            "logFormat=xml",
            "'/logFormat': value must be one of 'text', 'json'",
        ),
        (
            "watchNamespaces={Default}",
            "'/watchNamespaces/0': 'Default' does not match pattern",
        ),
        (
            "watchNamespaces={a,a}",
            "'/watchNamespaces': items at 0 and 1 are equal",
        ),
        (
            "crds.installl=true",
            "'/crds': additional properties 'installl' not allowed",
        ),
        (
            "resources.request.cpu=1",
            "'/resources': additional properties 'request' not allowed",
        ),
        (
            "extraArgs={run}",
            "'/extraArgs/0': 'run' does not match pattern",
        ),
        (
            "serviceAccount.create=false",
            "set serviceAccount.name to an account that exists",
        ),
    ];
    for (value, message) in cases {
        let said = chart
            .render(&[value])
            .err()
            .with_context(|| format!("{value} was accepted"))?;
        ensure!(format!("{said:#}").contains(message), "{value}: {said:#}");
    }
    Ok(())
}

fn follows_its_values(chart: &Chart) -> Result<()> {
    let plain = chart.render(&[])?;
    ensure!(
        names(&plain, "PodDisruptionBudget").is_empty(),
        "one operator has a budget"
    );
    for definition in of_kind(&plain, "CustomResourceDefinition") {
        ensure!(
            definition["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep",
            "not kept"
        );
    }
    let bare = chart.render(&["crds.install=false"])?;
    ensure!(
        names(&bare, "CustomResourceDefinition").is_empty(),
        "definitions without crds.install"
    );
    let loose = chart.render(&["crds.keep=false"])?;
    ensure!(
        of_kind(&loose, "CustomResourceDefinition").len() == 5,
        "five definitions"
    );
    let annotated = of_kind(&loose, "CustomResourceDefinition")
        .iter()
        .any(|d| !d["metadata"]["annotations"].is_null());
    ensure!(!annotated, "kept without crds.keep");
    let two = chart.render(&["replicaCount=2"])?;
    ensure!(
        names(&two, "PodDisruptionBudget") == ["rq-rqlite-operator"],
        "two operators have a budget"
    );
    ensure!(
        !operator(&two)["spec"]["affinity"].is_null(),
        "two operators keep apart"
    );
    let scoped = chart.render(&[
        "watchNamespaces={a,b}",
        "rbac.clusterReads=false",
        "rbac.userRoles=false",
    ])?;
    ensure!(
        names(&scoped, "ClusterRole").is_empty(),
        "{:?}",
        names(&scoped, "ClusterRole")
    );
    let roles: Vec<_> = of_kind(&scoped, "Role")
        .iter()
        .filter_map(|r| r["metadata"]["namespace"].as_str())
        .collect();
    ensure!(roles == ["a", "b", "operators"], "{roles:?}");
    let unrun = chart.render(&["runAsUser=null", "runAsGroup=null"])?;
    ensure!(
        operator(&unrun)["spec"]["securityContext"]["runAsUser"].is_null(),
        "a user although null"
    );
    let assigned = chart.render(&["openshift=true", "clusterDomain=k8s.example"])?;
    let security = &operator(&assigned)["spec"]["securityContext"];
    ensure!(
        security["runAsUser"].is_null() && security["runAsNonRoot"] == true,
        "{security:?}"
    );
    let flags = texts(&operator(&assigned)["spec"]["containers"][0]["args"]);
    for flag in ["--openshift=true", "--cluster-domain=k8s.example"] {
        ensure!(flags.contains(&flag), "{flags:?}");
    }
    Ok(())
}

/// Policies for users follow their values, and with a list of namespaces they apply there only.
fn policies_follow_their_values(chart: &Chart) -> Result<()> {
    let kind = "ValidatingAdmissionPolicy";
    let all = [
        "rq-rqlite-operator-recovery-consent",
        "rq-rqlite-operator-pod-rights",
        "rq-rqlite-operator-deletion-protection",
        "rq-rqlite-operator-namespace-protection",
    ];
    let there = |values: &[&str]| -> Result<Vec<bool>> {
        let objects = chart.render(values)?;
        let names = names(&objects, kind);
        Ok(all.iter().map(|name| names.contains(name)).collect())
    };
    ensure!(there(&[])? == [true; 4], "not by default");
    let off = there(&["admissionPolicies.recoveryConsent=false"])?;
    ensure!(off == [false, true, true, true], "{off:?}");
    let off = there(&["admissionPolicies.podRights=false"])?;
    ensure!(off == [true, false, true, true], "{off:?}");
    let off = there(&["admissionPolicies.deletionProtection=false"])?;
    ensure!(off == [true, true, false, false], "{off:?}");
    let own = |value: &str| -> Result<bool> {
        let objects = chart.render(&[value])?;
        let names = names(&objects, kind);
        let all = [
            "rq-rqlite-operator-own-objects",
            "rq-rqlite-operator-own-pods",
        ];
        Ok(all.iter().all(|name| names.contains(name)))
    };
    ensure!(
        own("logLevel=info")?,
        "the operator's account is not bounded by default"
    );
    ensure!(
        !own("admissionPolicies.ownObjects=false")?,
        "not switched off"
    );
    let scoped = chart.render(&["watchNamespaces={a}"])?;
    for binding in of_kind(&scoped, "ValidatingAdmissionPolicyBinding") {
        let policy = binding["spec"]["policyName"].as_str().unwrap_or_default();
        if all.contains(&policy) {
            let selector = &binding["spec"]["matchResources"]["namespaceSelector"];
            ensure!(
                texts(&selector["matchExpressions"][0]["values"]) == ["a"],
                "{policy} applies elsewhere: {binding:?}"
            );
        }
    }
    Ok(())
}

fn operator(objects: &[Value]) -> &Value {
    &of_kind(objects, "Deployment")[0]["spec"]["template"]
}

fn digests_win(chart: &Chart) -> Result<()> {
    let digest = format!("sha256:{}", "0".repeat(64));
    let pinned = chart.render(&[
        &format!("image.digest={digest}"),
        &format!("nodeImage.digest={digest}"),
    ])?;
    let container = &operator(&pinned)["spec"]["containers"][0];
    let image = format!("localhost/rqlite-operator@{digest}");
    ensure!(
        container["image"] == image.as_str(),
        "{:?}",
        container["image"]
    );
    let node = format!("--node-image=localhost/rqlited@{digest}");
    ensure!(
        texts(&container["args"]).contains(&node.as_str()),
        "{:?}",
        container["args"]
    );
    Ok(())
}

/// Checks the properties that hold for all values.
fn is_modest(objects: &[Value]) -> Result<()> {
    for role in objects
        .iter()
        .filter(|o| o["kind"] == "Role" || o["kind"] == "ClusterRole")
    {
        for rule in role["rules"].as_sequence().into_iter().flatten() {
            let resources = texts(&rule["resources"]);
            let all = [
                texts(&rule["apiGroups"]),
                resources.clone(),
                texts(&rule["verbs"]),
            ]
            .concat();
            ensure!(
                !all.iter().any(|word| word.contains('*')),
                "a star: {rule:?}"
            );
            if resources.contains(&"secrets") {
                let verbs = texts(&rule["verbs"]);
                let lists = ["list", "watch"].iter().any(|verb| verbs.contains(verb));
                ensure!(!lists && resources.len() == 1, "Secrets: {rule:?}");
            }
            ensure!(
                !resources.iter().any(|r| r.contains("role")),
                "roles: {rule:?}"
            );
        }
    }
    let pod = &of_kind(objects, "Deployment")[0]["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let secure = &container["securityContext"];
    ensure!(pod["securityContext"]["runAsNonRoot"] == true, "{pod:?}");
    ensure!(
        pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault",
        "{pod:?}"
    );
    ensure!(secure["allowPrivilegeEscalation"] == false, "{secure:?}");
    ensure!(secure["readOnlyRootFilesystem"] == true, "{secure:?}");
    ensure!(
        texts(&secure["capabilities"]["drop"]) == ["ALL"],
        "{secure:?}"
    );
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        ensure!(!container[probe].is_null(), "{probe}");
    }
    ensure!(
        !container["resources"]["limits"]["memory"].is_null(),
        "no limit of memory"
    );
    Ok(())
}

#[test]
fn the_chart_refuses_and_follows_its_values() -> Result<()> {
    let Some(helm) = tool::helm() else {
        return tool::skip("the chart", "run e2e/tools/build helm");
    };
    run(Command::new(&helm).args(["lint", "--strict"]).arg(chart()))?;
    let chart = Chart { helm };
    refuses(&chart)?;
    follows_its_values(&chart)?;
    policies_follow_their_values(&chart)?;
    digests_win(&chart)?;
    for values in [
        &[][..],
        &["replicaCount=3", "networkPolicy.enabled=true"],
        &["watchNamespaces={a}"],
    ] {
        is_modest(&chart.render(values)?)?;
    }
    Ok(())
}

/// Paths of all values in `values.yaml`, as README.md names them.
fn leaves(path: &str, value: &Value, into: &mut Vec<String>) {
    match value.as_mapping() {
        Some(fields) if !fields.is_empty() && path != "resources" => {
            for (name, inner) in fields {
                let name = name.as_str().unwrap_or_default();
                let path = if path.is_empty() {
                    name.to_owned()
                } else {
                    format!("{path}.{name}")
                };
                leaves(&path, inner, into);
            }
        }
        _ => into.push(path.to_owned()),
    }
}

#[test]
fn the_readme_and_the_schema_name_every_value() -> Result<()> {
    let read = |file: &str| fs::read_to_string(chart().join(file)).with_context(|| file.to_owned());
    let values: Value = serde_yaml::from_str(&read("values.yaml")?)?;
    let schema: serde_json::Value = serde_json::from_str(&read("values.schema.json")?)?;
    let readme = read("README.md")?;
    let mut all = Vec::new();
    leaves("", &values, &mut all);
    assert!(all.len() > 30, "{all:?}");
    for path in all {
        assert!(
            readme.contains(&format!("`{path}`")),
            "README.md does not name {path}"
        );
        let pointer = format!("/properties/{}", path.replace('.', "/properties/"));
        assert!(
            schema.pointer(&pointer).is_some(),
            "values.schema.json does not know {path}"
        );
    }
    Ok(())
}
