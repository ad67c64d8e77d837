//! The operator's API as enforced by the API server: every rule rejects with its message, defaults are set,
//! and valid objects are accepted.
//!
//! Runs against its own API server, without machines and without the operator.
#[path = "rules/backups.rs"]
mod backups;
#[path = "rules/cases.rs"]
mod cases;

use std::{collections::BTreeSet, fs};

use anyhow::{Context, Result, ensure};
use e2e_operator::{api_server::ApiServer, objects::Objects, root};
use serde_json::{Value, json};

const CREATE: &[&str] = &["create", "--dry-run=server", "--validate=strict"];
const REPLACE: &[&str] = &["replace", "--dry-run=server", "--validate=strict"];

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": "rqlite.dev/v1alpha1", "kind": kind, "metadata": { "name": name, "namespace": "default" }, "spec": spec })
}

/// `base` with the fields of `change`; null removes a field.
fn changed(base: Value, change: &Value) -> Value {
    let mut fields = base.as_object().cloned().unwrap_or_default();
    for (name, value) in change.as_object().into_iter().flatten() {
        if value.is_null() {
            fields.remove(name);
        } else {
            fields.insert(name.clone(), value.clone());
        }
    }
    Value::Object(fields)
}

/// The rejections, and the cases with another result than expected.
#[derive(Default)]
struct Findings {
    refusals: String,
    wrong: Vec<String>,
    cases: usize,
}

impl Findings {
    fn refused(&mut self, what: &str, outcome: Result<Value>, message: &str) {
        self.cases += 1;
        match outcome {
            Ok(_) => self.wrong.push(format!("{what} was accepted")),
            Err(error) => {
                let said = format!("{error:#}");
                if !said.contains(message) {
                    self.wrong
                        .push(format!("{what} was refused without {message:?}: {said}"));
                }
                self.refusals.push_str(&said);
            }
        }
    }

    fn accepted(&mut self, what: &str, outcome: Result<Value>) {
        self.cases += 1;
        if let Err(error) = outcome {
            self.wrong.push(format!("{what} was refused: {error:#}"));
        }
    }
}

/// All messages of rules in `crds/`.
fn messages() -> Result<BTreeSet<String>> {
    fn collect(value: &serde_yaml::Value, into: &mut BTreeSet<String>) {
        match value {
            serde_yaml::Value::Mapping(fields) => {
                for (name, inner) in fields {
                    if name == "x-kubernetes-validations" {
                        let rules = inner.as_sequence().into_iter().flatten();
                        into.extend(
                            rules.filter_map(|r| Some(r.get("message")?.as_str()?.to_owned())),
                        );
                    }
                    collect(inner, into);
                }
            }
            serde_yaml::Value::Sequence(items) => items.iter().for_each(|item| collect(item, into)),
            _ => {}
        }
    }
    let mut all = BTreeSet::new();
    for entry in fs::read_dir(root().join("crds"))? {
        collect(
            &serde_yaml::from_str(&fs::read_to_string(entry?.path())?)?,
            &mut all,
        );
    }
    Ok(all)
}

fn clusters(server: &Objects, found: &mut Findings) -> Result<()> {
    let flag = |flag: &&str| json!({ "config": { "extraArgs": [flag] } }).to_string();
    let flags = cases::OWNED_FLAGS
        .iter()
        .map(|f| (flag(f), cases::OWNED_FLAG_REFUSAL));
    let others = cases::NEW_CLUSTERS
        .iter()
        .map(|(spec, message)| ((*spec).to_owned(), *message));
    for (spec, message) in others.chain(flags) {
        let outcome = server.send(CREATE, &cluster("demo", &spec)?);
        found.refused(&format!("a new cluster with {spec}"), outcome, message);
    }
    for (name, message) in cases::NAMES {
        let outcome = server.send(CREATE, &cluster(name, "{}")?);
        found.refused(&format!("a new cluster named {name}"), outcome, message);
    }
    for (before, after, message) in cases::CHANGED_CLUSTERS {
        let outcome = replaced(server, before, after)?;
        found.refused(
            &format!("a change from {before} to {after}"),
            outcome,
            message,
        );
    }
    for (before, after) in cases::ALLOWED_CHANGES {
        let outcome = replaced(server, before, after)?;
        found.accepted(&format!("a change from {before} to {after}"), outcome);
    }
    Ok(())
}

fn cluster(name: &str, spec: &str) -> Result<Value> {
    let spec = serde_json::from_str(spec).with_context(|| spec.to_owned())?;
    Ok(object("RqliteCluster", name, &spec))
}

/// Result of replacing one spec by another.
fn replaced(server: &Objects, before: &str, after: &str) -> Result<Result<Value>> {
    server.send(&["create"], &cluster("changed", before)?)?;
    let outcome = server.send(REPLACE, &cluster("changed", after)?);
    server.run(&["delete", "rqlitecluster", "changed"])?;
    Ok(outcome)
}

/// A valid recovery with this change.
fn recovery(change: &str) -> Result<Value> {
    let spec = changed(
        serde_json::from_str(cases::RECOVERY)?,
        &serde_json::from_str(change)?,
    );
    Ok(object("RqliteRecovery", "demo", &spec))
}

fn recoveries(server: &Objects, found: &mut Findings) -> Result<()> {
    for (change, message) in cases::NEW_RECOVERIES {
        let outcome = server.send(CREATE, &recovery(change)?);
        found.refused(&format!("a new recovery with {change}"), outcome, message);
    }
    server.send(&["create"], &recovery("{}")?)?;
    found.accepted(
        "an unchanged recovery",
        server.send(REPLACE, &recovery("{}")?),
    );
    for change in cases::CHANGED_RECOVERIES {
        let outcome = server.send(REPLACE, &recovery(change)?);
        found.refused(
            &format!("a change of a recovery by {change}"),
            outcome,
            "create another RqliteRecovery",
        );
    }
    Ok(())
}

/// A spec with this change.
fn with(spec: &str, change: &str) -> Result<Value> {
    let spec = serde_json::from_str(spec).with_context(|| spec.to_owned())?;
    let change = serde_json::from_str(change).with_context(|| change.to_owned())?;
    Ok(changed(spec, &change))
}

/// Backups, schedules, archives, restores.
fn of_backups(server: &Objects, found: &mut Findings) -> Result<()> {
    for (kind, spec, change, message) in backups::NEW {
        let outcome = server.send(CREATE, &object(kind, "new", &with(spec, change)?));
        found.refused(&format!("a new {kind} with {change}"), outcome, message);
    }
    for (kind, spec, name, message) in backups::NAMES {
        let outcome = server.send(CREATE, &object(kind, name, &with(spec, "{}")?));
        found.refused(&format!("a {kind} named {name}"), outcome, message);
    }
    let change_one = |kind: &str, spec: &str, change: &str| -> Result<Result<Value>> {
        server.send(&["create"], &object(kind, "changes", &with(spec, "{}")?))?;
        let outcome = server.send(REPLACE, &object(kind, "changes", &with(spec, change)?));
        server.run(&["delete", &kind.to_lowercase(), "changes"])?;
        Ok(outcome)
    };
    for (kind, spec, change, message) in backups::CHANGED {
        let outcome = change_one(kind, spec, change)?;
        found.refused(&format!("a change of {kind} by {change}"), outcome, message);
    }
    for (kind, spec, change) in backups::ALLOWED {
        let outcome = change_one(kind, spec, change)?;
        found.accepted(&format!("a change of {kind} by {change}"), outcome);
    }
    Ok(())
}

/// The defaults of an empty spec.
fn defaults(server: &Objects) -> Result<()> {
    let made = server.send(CREATE, &object("RqliteCluster", "demo", &json!({})))?;
    let expected = json!({
        "replicas": 3,
        "storage": { "size": "10Gi" },
        "terminationGracePeriodSeconds": 60,
        "paused": false,
        "hibernated": false,
        "deletionProtection": false,
    });
    ensure!(
        made["spec"] == expected,
        "an empty spec becomes {}",
        made["spec"]
    );
    // An incomplete nested object gets its defaults.
    let given =
        json!({ "config": { "raft": { "electionTimeout": "3s" } }, "update": {}, "bootstrap": {} });
    let made = server.send(CREATE, &object("RqliteCluster", "demo", &given))?;
    let raft = json!({
        "heartbeatTimeout": "1s",
        "electionTimeout": "3s",
        "snapshotThreshold": 8192,
        "snapshotInterval": "10s",
        "applyTimeout": "10s",
    });
    ensure!(
        made["spec"]["config"]["raft"] == raft,
        "{}",
        made["spec"]["config"]
    );
    let update = json!({ "minReady": "10s", "progressDeadline": "10m" });
    ensure!(
        made["spec"]["update"] == update,
        "{}",
        made["spec"]["update"]
    );
    ensure!(
        made["spec"]["bootstrap"]["timeout"] == "120s",
        "{}",
        made["spec"]["bootstrap"]
    );
    let mut new = recovery("{}")?;
    new["metadata"]["name"] = "another".into();
    let made = server.send(CREATE, &new)?;
    let defaults = r#"{"acceptDataLoss":false,"dryRun":false,"mode":"SingleSurvivor","skipDatabaseCheck":false}"#;
    let expected = recovery(defaults)?;
    ensure!(made["spec"] == expected["spec"], "{}", made["spec"]);
    Ok(())
}

/// `kubectl scale`, within the bounds of the spec.
fn scale(server: &Objects) -> Result<()> {
    server.send(&["create"], &object("RqliteCluster", "scaled", &json!({})))?;
    server.run(&["scale", "rqlitecluster/scaled", "--replicas=5"])?;
    let spec = server.get(&["rqlitecluster", "scaled"])?["spec"]["replicas"].clone();
    ensure!(spec == 5, "scaled to 5, spec.replicas is {spec}");
    for (count, message) in [
        ("0", "greater than or equal to 1"),
        ("10", "less than or equal to 9"),
    ] {
        let args = [
            "scale",
            "rqlitecluster/scaled",
            &format!("--replicas={count}"),
        ];
        let said = server
            .run(&args)
            .err()
            .with_context(|| format!("scaled to {count}"))?;
        ensure!(
            format!("{said:#}").contains(message),
            "scaling to {count}: {said:#}"
        );
    }
    let status = json!({ "status": { "replicas": 3, "readyReplicas": 2, "selector": "a=b", "phase": "Changing", "leader": "scaled-1",
        "target": { "image": "i:1" }, "lineage": { "epoch": 4 }, "conditions": [{ "type": "Available", "status": "True", "reason": "r",
        "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z" }] } });
    let args = [
        "patch",
        "rqlitecluster",
        "scaled",
        "--subresource=status",
        "--type=merge",
        "-p",
        &status.to_string(),
    ];
    server.run(&args)?;
    let path = "/apis/rqlite.dev/v1alpha1/namespaces/default/rqliteclusters/scaled/scale";
    let scale: Value = serde_json::from_str(&server.run(&["get", "--raw", path])?)?;
    ensure!(
        scale["status"] == json!({ "replicas": 3, "selector": "a=b" }),
        "{scale}"
    );
    columns(server)
}

/// Columns of `kubectl get`, by every name of the kind.
fn columns(server: &Objects) -> Result<()> {
    for name in ["rql", "rqlitecluster", "rqliteclusters", "databases"] {
        let table = server.run(&["get", name])?;
        ensure!(table.contains("scaled"), "get {name}: {table}");
    }
    let args = |line: &str| {
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let table = server.run(&["get", "rql", "scaled"])?;
    let lines: Vec<_> = table.lines().map(args).collect();
    let expected = [
        "NAME",
        "PHASE",
        "VOTERS",
        "DESIRED",
        "LEADER",
        "AVAILABLE",
        "AGE",
    ];
    ensure!(lines.len() == 2 && lines[0] == expected, "{table}");
    ensure!(
        lines[1][..6] == ["scaled", "Changing", "2", "5", "scaled-1", "True"],
        "{table}"
    );
    let table = server.run(&["get", "rql", "scaled", "-o", "wide"])?;
    ensure!(
        table.contains("IMAGE") && table.contains("EPOCH") && table.contains("i:1"),
        "{table}"
    );
    let table = server.run(&["get", "rqrec"])?;
    let expected = [
        "NAME", "CLUSTER", "PHASE", "STALLED", "CHECK", "%", "SURVIVOR", "KNOWN", "LOST", "AGE",
    ];
    ensure!(
        table
            .lines()
            .next()
            .map(args)
            .is_some_and(|head| head == expected),
        "{table}"
    );
    Ok(())
}

/// `kubectl explain` prints the published schema: every field of ours has a description.
#[expect(clippy::too_many_lines, reason = "a list of Kubernetes' own fields")]
fn explanations(server: &Objects) -> Result<()> {
    fn undescribed(path: &str, schema: &Value, into: &mut Vec<String>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if field["description"].as_str().is_none_or(str::is_empty) {
                into.push(path.clone());
            }
            // Kubernetes' own types are not explained a second time.
            let foreign = [
                "affinity",
                "clientFrom",
                "dnsConfig",
                "envFrom",
                "hostAliases",
                "initContainers",
                "monitoringFrom",
                "resources",
                "seLinuxOptions",
                "sidecars",
                "tolerations",
                "topologySpreadConstraints",
                "volumeMounts",
                "volumes",
            ];
            if !foreign.contains(&name.as_str()) {
                undescribed(&path, field, into);
                undescribed(&path, &field["items"], into);
            }
        }
    }
    let published: Value = serde_json::from_str(&server.run(&[
        "get",
        "--raw",
        "/openapi/v3/apis/rqlite.dev/v1alpha1",
    ])?)?;
    let mut without = Vec::new();
    let kinds = [
        "RqliteCluster",
        "RqliteRecovery",
        "RqliteBackup",
        "RqliteScheduledBackup",
        "RqliteRestore",
    ];
    for kind in kinds {
        let schema = &published["components"]["schemas"][format!("dev.rqlite.v1alpha1.{kind}")]["properties"];
        ensure!(
            schema["spec"]["properties"].is_object(),
            "{kind} is not published"
        );
        undescribed(&format!("{kind}.spec"), &schema["spec"], &mut without);
        undescribed(&format!("{kind}.status"), &schema["status"], &mut without);
    }
    ensure!(without.is_empty(), "not explained: {without:#?}");
    for (field, text) in [
        ("rqlitecluster", "One SQLite database"),
        (
            "rqlitecluster.spec.replicas",
            "Three tolerate the loss of one",
        ),
        ("rql.spec.storage.size", "never decreased"),
        ("rqrec.spec.acceptDataLoss", "Consent to lose"),
        ("rqbk.spec.compress", "compressed"),
        ("rqsb.spec.schedule", "five fields of cron"),
        ("rqrs.spec.confirm", "name once more"),
    ] {
        // kubectl wraps lines.
        let said = server
            .run(&["explain", field])?
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        ensure!(
            said.to_lowercase().contains(&text.to_lowercase()),
            "explain {field}: {said}"
        );
    }
    Ok(())
}

/// Applying twice changes nothing, and a second field manager sees a conflict with the first.
fn applying(server: &Objects) -> Result<()> {
    let apply = |manager: &str, spec: Value| {
        let args = ["apply", "--server-side", "--field-manager", manager];
        server.send(&args, &object("RqliteCluster", "applied", &spec))
    };
    let first = apply(
        "one",
        json!({ "replicas": 3, "storage": { "size": "1Gi" } }),
    )?;
    let second = apply(
        "one",
        json!({ "replicas": 3, "storage": { "size": "1Gi" } }),
    )?;
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    ensure!(
        version(&first) == version(&second),
        "applying twice: {second}"
    );
    let conflict = apply("two", json!({ "replicas": 5 }))
        .err()
        .context("no conflict")?;
    let said = format!("{conflict:#}");
    ensure!(
        said.contains(r#"conflict with "one""#) && said.contains(".spec.replicas"),
        "{said}"
    );
    apply("two", json!({ "paused": true })).map(drop)
}

#[test]
fn the_api_server_refuses_defaults_explains_and_scales() -> Result<()> {
    let Some(api) = ApiServer::start()? else {
        return ApiServer::skip();
    };
    let server = api.objects()?;
    let crds = root().join("crds").display().to_string();
    server.run(&["apply", "--server-side", "-f", &crds])?;
    server.definitions_served()?;

    let mut found = Findings::default();
    clusters(&server, &mut found)?;
    recoveries(&server, &mut found)?;
    of_backups(&server, &mut found)?;
    for message in messages()? {
        if !found.refusals.contains(&message) {
            found
                .wrong
                .push(format!("no case is refused with: {message}"));
        }
    }
    ensure!(found.wrong.is_empty(), "{}", found.wrong.join("\n"));
    println!("{} objects, {} rules", found.cases, messages()?.len());
    defaults(&server)?;
    scale(&server)?;
    explanations(&server)?;
    applying(&server)
}
