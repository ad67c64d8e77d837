//! Installing, upgrading and uninstalling, by Helm and by kubectl, on a real API server; the exact
//! permissions of the operator's account.
//!
//! Tests objects only. That the installed operator works is tested where there are machines (`scenarios`) and
//! in the fleet.
use std::{collections::BTreeSet, fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::command::run;
use e2e_operator::{api_server::ApiServer, chart, generated, objects::Objects, root, tool};
use serde_json::{Value, json};

const CRDS: [&str; 2] = ["rqliteclusters.rqlite.dev", "rqliterecoveries.rqlite.dev"];
/// Release and namespace for Helm; they differ from the names in `manifests/install.yaml`.
const RELEASE: &str = "rq";
const NAMESPACE: &str = "operators";
const DEPLOYMENT: [&str; 4] = ["deployment", "rq-rqlite-operator", "--namespace", NAMESPACE];

struct Fixture {
    server: Objects,
    api: ApiServer,
    helm: std::path::PathBuf,
}

impl Fixture {
    fn helm(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.helm);
        command.env("KUBECONFIG", self.api.kubeconfig("admin"));
        run(command.args(args).args(["--namespace", NAMESPACE]))
    }

    fn install(&self, chart: &Path, more: &[&str]) -> Result<String> {
        let chart = chart.display().to_string();
        let mut args = vec![
            "upgrade",
            "--install",
            RELEASE,
            &chart,
            "--create-namespace",
        ];
        args.extend(more);
        self.helm(&args)
    }

    /// Creates a database that must survive all changes to the operator.
    fn make_database(&self) -> Result<()> {
        let cluster = json!({ "apiVersion": "rqlite.dev/v1alpha1", "kind": "RqliteCluster",
            "metadata": { "name": "demo", "namespace": "default" }, "spec": { "replicas": 5 } });
        let made = self.server.send(&["create"], &cluster)?;
        let set = json!({ "apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": { "name": "demo", "namespace": "default", "ownerReferences": [{ "apiVersion": "rqlite.dev/v1alpha1",
                "kind": "RqliteCluster", "name": "demo", "uid": made["metadata"]["uid"], "controller": true }] },
            "spec": { "serviceName": "demo", "selector": { "matchLabels": { "a": "b" } }, "template": {
                "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [{ "name": "c", "image": "i" }] } } } });
        self.server.send(&["create"], &set).map(drop)
    }

    /// The uids of the database's objects and of the definitions.
    fn lasting(&self) -> Result<Vec<Value>> {
        let mut args = CRDS.map(|name| vec!["crd", name]).to_vec();
        args.push(vec!["rqlitecluster", "demo"]);
        args.push(vec!["statefulset", "demo"]);
        let uid = |args: &Vec<&str>| Ok(self.server.get(args)?["metadata"]["uid"].clone());
        args.iter().map(uid).collect()
    }
}

/// A copy of the chart whose first definition has an additional field.
fn newer_chart(into: &Path) -> Result<()> {
    run(Command::new("cp").arg("-r").arg(chart()).arg(into))?;
    let file = into.join("templates/crds/rqliteclusters.yaml");
    let text = fs::read_to_string(&file)?;
    let old = "              paused:\n";
    ensure!(
        text.matches(old).count() == 1,
        "spec.paused is not where it was"
    );
    let new =
        "              novelty:\n                description: New.\n                type: string\n";
    fs::write(&file, text.replace(old, &format!("{new}{old}")))
        .context("write the newer definition")
}

fn by_helm(fixture: &Fixture) -> Result<()> {
    fixture.install(&chart(), &[])?;
    fixture.server.definitions_served()?;
    fixture.make_database()?;
    let before = fixture.lasting()?;
    // Changed values.
    let values = [
        "--set",
        "replicaCount=2,logLevel=debug",
        "--set",
        "watchNamespaces={default}",
    ];
    fixture.install(&chart(), &values)?;
    let deployment = fixture.server.get(&DEPLOYMENT)?;
    ensure!(deployment["spec"]["replicas"] == 2, "{deployment}");
    let arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
    ensure!(
        arguments.contains("--log-level=debug") && arguments.contains("--namespaces=default"),
        "{arguments}"
    );
    let role = ["clusterrole", "rq-rqlite-operator"];
    ensure!(
        fixture.server.get(&role).is_err(),
        "with a list of namespaces, a ClusterRole is left"
    );
    // Changed definitions.
    let folder = tempfile::tempdir()?;
    let newer = folder.path().join("chart");
    newer_chart(&newer)?;
    fixture.install(&newer, &[])?;
    let change = [
        "patch",
        "rqlitecluster",
        "demo",
        "--type=merge",
        "-p",
        r#"{"spec":{"novelty":"yes"}}"#,
    ];
    fixture.server.run(&change)?;
    let novelty = fixture.server.get(&["rqlitecluster", "demo"])?["spec"]["novelty"].clone();
    ensure!(
        novelty == "yes",
        "the definition was not upgraded: {novelty}"
    );
    fixture.helm(&["rollback", RELEASE, "1"])?;
    says_farewell(fixture)?;
    // Uninstalled and installed again.
    fixture.helm(&["uninstall", RELEASE])?;
    ensure!(
        fixture.server.get(&DEPLOYMENT).is_err(),
        "the operator is still there"
    );
    ensure!(
        fixture.lasting()? == before,
        "uninstalling touched databases or definitions"
    );
    fixture.install(&chart(), &[])?;
    fixture.server.get(&DEPLOYMENT)?;
    ensure!(
        fixture.lasting()? == before,
        "installing again touched databases or definitions"
    );
    fixture.helm(&["uninstall", RELEASE]).map(drop)
}

/// The Job after an uninstallation is part of a release only where there are machines for it: without any,
/// Helm would wait for it in vain.
fn says_farewell(fixture: &Fixture) -> Result<()> {
    let hooks = || fixture.helm(&["get", "hooks", RELEASE]);
    ensure!(!hooks()?.contains("farewell"), "a Job without machines");
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "m1" } });
    fixture.server.send(&["create"], &node)?;
    fixture.install(&chart(), &[])?;
    let all = hooks()?;
    ensure!(
        all.contains("- farewell") && all.contains("post-delete"),
        "{all}"
    );
    fixture.install(&chart(), &["--set", "farewell=false"])?;
    ensure!(!hooks()?.contains("farewell"), "not switched off");
    fixture.server.run(&["delete", "node", "m1"])?;
    fixture.install(&chart(), &[]).map(drop)
}

fn by_kubectl(fixture: &Fixture) -> Result<()> {
    let before = fixture.lasting()?;
    let file = root().join("manifests/install.yaml").display().to_string();
    // Objects installed by Helm belong to Helm unless conflicts are forced.
    let apply = ["apply", "--server-side", "--force-conflicts", "-f", &file];
    fixture.server.run(&apply)?;
    let again = fixture.server.run(&apply)?;
    ensure!(
        again
            .lines()
            .all(|line| line.ends_with("serverside-applied")),
        "{again}"
    );
    let args = [
        "deployment",
        "rqlite-operator",
        "--namespace",
        generated::NAMESPACE,
    ];
    fixture.server.get(&args)?;
    ensure!(
        fixture.lasting()? == before,
        "kubectl apply touched databases or definitions"
    );
    // From kubectl back to Helm.
    let other = fixture.install(&chart(), &["--set", "fullnameOverride=other"]);
    other.context(
        "a second operator beside the first, with the definitions of an earlier release",
    )?;
    fixture.helm(&["uninstall", RELEASE]).map(drop)
}

/// Everything that the operator's account may do in a namespace, as `group/resource verb`, without what every
/// account may do.
fn rights(server: &Objects, namespace: &str) -> Result<BTreeSet<String>> {
    let account = format!(
        "--as=system:serviceaccount:{}:rqlite-operator",
        generated::NAMESPACE
    );
    let review = json!({ "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": { "namespace": namespace } });
    let answer = server.send(&["create", "--validate=false", &account], &review)?;
    let texts = |list: &Value| -> Vec<String> {
        let all = list.as_array().into_iter().flatten();
        all.filter_map(|text| text.as_str().map(str::to_owned))
            .collect()
    };
    let mut all = BTreeSet::new();
    for rule in answer["status"]["resourceRules"]
        .as_array()
        .into_iter()
        .flatten()
    {
        for group in texts(&rule["apiGroups"]) {
            if ["authentication.k8s.io", "authorization.k8s.io"].contains(&group.as_str()) {
                continue;
            }
            for resource in texts(&rule["resources"]) {
                let names = texts(&rule["resourceNames"]).join(",");
                let verbs = texts(&rule["verbs"]);
                all.extend(
                    verbs
                        .iter()
                        .map(|verb| format!("{group}/{resource} {names} {verb}")),
                );
            }
        }
    }
    Ok(all)
}

/// `group/resource names` and verbs that are allowed in every namespace.
const EVERYWHERE: &[(&str, &str)] = &[
    ("rqlite.dev/rqliteclusters", "get list watch patch"),
    ("rqlite.dev/rqliteclusters/status", "update"),
    ("rqlite.dev/rqliteclusters/finalizers", "update"),
    (
        "rqlite.dev/rqliterecoveries",
        "get list watch create patch delete",
    ),
    ("rqlite.dev/rqliterecoveries/status", "update"),
    (
        "rqlite.dev/rqlitebackups",
        "get list watch create patch delete",
    ),
    ("rqlite.dev/rqlitebackups/status", "update"),
    ("rqlite.dev/rqlitebackups/finalizers", "update"),
    ("rqlite.dev/rqlitescheduledbackups", "get list watch"),
    ("rqlite.dev/rqlitescheduledbackups/status", "update"),
    ("rqlite.dev/rqliterestores", "get list watch patch delete"),
    ("rqlite.dev/rqliterestores/status", "update"),
    // Backups and drills; bounded by an admission policy.
    ("batch/jobs", "get list watch create delete"),
    ("apps/statefulsets", "get list watch create patch delete"),
    ("/pods", "get list watch patch delete"),
    ("/pods/eviction", "create"),
    ("/persistentvolumeclaims", "get list watch patch delete"),
    ("/configmaps", "get list watch create patch delete"),
    ("/services", "get list watch create patch delete"),
    // By name only: none is listed.
    ("/secrets", "get create patch delete"),
    ("cert-manager.io/certificates", "get create patch delete"),
    ("/serviceaccounts", "get list watch create patch"),
    (
        "networking.k8s.io/networkpolicies",
        "get list watch create patch delete",
    ),
    (
        "policy/poddisruptionbudgets",
        "get list watch create patch delete",
    ),
    ("events.k8s.io/events", "create list"),
    ("/nodes", "list watch"),
    ("/persistentvolumes", "get list watch"),
    ("coordination.k8s.io/leases", "get"),
    ("storage.k8s.io/storageclasses", "list watch"),
];

fn has_no_other_rights(server: &Objects) -> Result<()> {
    let mut expected = BTreeSet::new();
    for (resource, verbs) in EVERYWHERE {
        expected.extend(verbs.split(' ').map(|verb| format!("{resource}  {verb}")));
    }
    let same = |namespace: &str, expected: &BTreeSet<String>| -> Result<()> {
        let found = rights(server, namespace)?;
        let more: Vec<_> = found.difference(expected).collect();
        let fewer: Vec<_> = expected.difference(&found).collect();
        ensure!(
            more.is_empty() && fewer.is_empty(),
            "in {namespace}: too much {more:#?}, too little {fewer:#?}"
        );
        Ok(())
    };
    same("default", &expected)?;
    let lease = "coordination.k8s.io/leases";
    expected.insert(format!("{lease}  create"));
    expected.extend(["get", "update"].map(|verb| format!("{lease} rqlite-operator {verb}")));
    same(generated::NAMESPACE, &expected)
}

/// Roles for people: permission to edit clusters does not include consent to data loss.
fn roles_for_people(server: &Objects) -> Result<()> {
    for (role, verb, resource, expected) in [
        ("view", "get", "rqliteclusters.rqlite.dev", "yes"),
        ("view", "create", "rqliteclusters.rqlite.dev", "no"),
        ("edit", "create", "rqliteclusters.rqlite.dev", "yes"),
        ("edit", "patch", "rqliteclusters.rqlite.dev/scale", "yes"),
        ("edit", "create", "rqliterecoveries.rqlite.dev", "no"),
        ("recover", "create", "rqliterecoveries.rqlite.dev", "yes"),
        ("recover", "delete", "rqliteclusters.rqlite.dev", "no"),
    ] {
        let user = format!("{role}-person");
        let role = format!("rqlite-operator-{role}");
        let bind = [
            "create",
            "rolebinding",
            &user,
            "--namespace=default",
            "--user",
            &user,
            "--clusterrole",
            &role,
        ];
        if server
            .get(&["rolebinding", &user, "--namespace=default"])
            .is_err()
        {
            server.run(&bind)?;
        }
        let (kind, sub) = resource
            .split_once("dev/")
            .map_or((resource, ""), |(kind, sub)| (kind, sub));
        let kind = if sub.is_empty() {
            kind.to_owned()
        } else {
            format!("{kind}dev")
        };
        let subresource = format!("--subresource={sub}");
        let args = [
            "auth",
            "can-i",
            verb,
            &kind,
            &subresource,
            "--namespace=default",
            "--as",
            &user,
        ];
        // The answer “no” also makes the command fail.
        let said = server
            .run(&args)
            .unwrap_or_else(|error| format!("{error:#}"));
        let last = said.split_whitespace().last().unwrap_or_default();
        ensure!(last == expected, "may {user} {verb} {resource}? {said}");
    }
    Ok(())
}

#[test]
fn helm_and_kubectl_install_upgrade_and_leave_databases_alone() -> Result<()> {
    let Some(helm) = tool::helm() else {
        return tool::skip("installation by Helm", "run e2e/tools/build helm");
    };
    let Some(api) = ApiServer::start()? else {
        return ApiServer::skip();
    };
    let server = api.objects()?;
    let fixture = Fixture { server, api, helm };
    by_helm(&fixture).context("by Helm")?;
    by_kubectl(&fixture).context("by kubectl")?;
    has_no_other_rights(&fixture.server)?;
    roles_for_people(&fixture.server)
}
