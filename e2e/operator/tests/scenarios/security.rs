//! TLS and users on a real Kubernetes: what a new cluster has, rotations, repairs, and moves of existing
//! clusters, each under a numbered writer that reads its connection Secret as an application should.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::{command::until, forward::Login, namespace::LIMIT};
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, LONG, NAME, QUIET, open, spec},
    fixture::{Fixture, text},
    report::Measurements,
    within,
};

/// Limit from `kubectl apply` of the smallest sample to Ready, with TLS and users.
const READY_GOAL: Duration = Duration::from_secs(30);
/// Kubelets bring a changed Secret into running pods within about a minute and a half.
const MOUNTED_LIMIT: Duration = Duration::from_secs(150);
/// A query that needs the permission `query`.
const QUERY: &str = "/db/query?q=SELECT%201";

/// The same cluster, used by HTTPS.
fn by_tls<'a>(cluster: &Cluster<'a>) -> Cluster<'a> {
    Cluster {
        tls: true,
        ..*cluster
    }
}

/// A request by nobody in particular is refused with this status.
pub(crate) fn is_refused(cluster: &Cluster<'_>, pod: &str, path: &str, status: &str) -> Result<()> {
    let login = Login {
        user: None,
        ..cluster.login()?
    };
    let said = cluster.namespace.ask(pod, &login, path, None);
    let Err(error) = said else {
        anyhow::bail!("{path} was answered without a password");
    };
    let text = format!("{error:#}");
    ensure!(text.contains(status), "{path}: {text}");
    Ok(())
}

/// SHA-256 of the authority and both certificates, according to the status.
fn certificates(cluster: &Cluster<'_>) -> Result<[String; 3]> {
    let tls = cluster.object()?["status"]["tls"].clone();
    let of = |side: &Value| text(&side["sha256"]).to_owned();
    Ok([
        of(&tls["authority"]),
        of(&tls["nodes"]["certificate"]),
        of(&tls["clients"]["certificate"]),
    ])
}

/// Do all nodes report these certificates in use?
fn in_use(cluster: &Cluster<'_>, nodes: &str, clients: &str) -> Result<()> {
    for pod in cluster.uids()?.keys() {
        let status = cluster.status_of(pod)?;
        let security = &status["security"];
        let leaf = |side: &str| text(&security[side]["leaf_sha256"]).to_owned();
        let seen = (leaf("node_tls"), leaf("http_tls"));
        ensure!(
            seen == (nodes.to_owned(), clients.to_owned()),
            "{pod}: {security}"
        );
    }
    Ok(())
}

/// How often the containers of the nodes were started again.
fn restarts(cluster: &Cluster<'_>) -> Result<u64> {
    let mut all = 0;
    for pod in cluster.uids()?.keys() {
        let pod = cluster.core("pods", pod)?;
        let statuses = pod["status"]["containerStatuses"].as_array();
        let counts = statuses.into_iter().flatten();
        all += counts
            .map(|c| c["restartCount"].as_u64().unwrap_or_default())
            .sum::<u64>();
    }
    Ok(all)
}

/// The cluster's Secrets, by name: those that it controls.
fn own_secrets(cluster: &Cluster<'_>) -> Result<BTreeMap<String, String>> {
    let uid = cluster.object()?["metadata"]["uid"].clone();
    let path = format!("/api/v1/namespaces/{}/secrets", cluster.namespace.name);
    let all = cluster.fixture.api.list(&path, "")?;
    let own = all.iter().filter(|secret| {
        let owners = secret["metadata"]["ownerReferences"].as_array();
        owners
            .into_iter()
            .flatten()
            .any(|owner| owner["uid"] == uid)
    });
    let named = own.map(|s| {
        let metadata = &s["metadata"];
        (
            text(&metadata["name"]).to_owned(),
            text(&metadata["uid"]).to_owned(),
        )
    });
    Ok(named.collect())
}

/// N1: the smallest sample is Ready in time, and is written to over TLS with what its connection Secret says.
pub(crate) fn smallest_sample(fixture: &Fixture) -> Result<Measurements> {
    let sample = e2e_operator::root().join("manifests/samples/smallest.yaml");
    let sample = fs::read_to_string(sample)?;
    fixture.bare("secure", |cluster| {
        let start = Instant::now();
        cluster.namespace.apply(&sample)?;
        cluster.ready(LIMIT)?;
        let took = start.elapsed();
        within("the smallest sample", took, READY_GOAL)?;
        let status = cluster.object()?["status"].clone();
        ensure!(
            status["tls"]["nodes"]["stage"] == "Require",
            "{}",
            status["tls"]
        );
        let binding = text(&status["binding"]["name"]);
        ensure!(binding == "demo-app", "{}", status["binding"]);
        let secret = cluster.secret(binding)?.context("no connection Secret")?;
        for key in [
            "type", "host", "port", "uri", "username", "password", "ca.crt",
        ] {
            ensure!(secret.get(key).is_some_and(|v| !v.is_empty()), "no {key}");
        }
        let leader = cluster.leader()?;
        is_refused(cluster, &leader, QUERY, "401")?;
        let cluster = by_tls(cluster);
        let writer = cluster.writer()?;
        is_refused(&cluster, &leader, QUERY, "401")?;
        let note = format!("Ready after {:.1} s, written over TLS", took.as_secs_f64());
        Ok(cluster.verify_intact(writer)?.with_note(note))
    })
}

/// N2: every certificate and every password is exchanged under a writer; no pod is restarted.
pub(crate) fn rotations(fixture: &Fixture) -> Result<Measurements> {
    let more = json!({"readReplicas": {"replicas": 1}});
    fixture.cluster("rotations", spec(3, more), |cluster| {
        let cluster = by_tls(cluster);
        let writer = cluster.writer()?;
        let (pods, started) = (cluster.uids()?, restarts(&cluster)?);
        for request in ["leaves-1", "authority-1"] {
            let before = certificates(&cluster)?;
            annotate(&cluster, "rqlite.dev/rotate-certificates", request)?;
            let after = until(
                &format!("{request} to be carried out"),
                MOUNTED_LIMIT * 4,
                || {
                    let after = certificates(&cluster)?;
                    let leaves = before[1] != after[1] && before[2] != after[2];
                    let authority = before[0] != after[0] || request.starts_with("leaves");
                    ensure!(leaves && authority, "{before:?}, then {after:?}");
                    in_use(&cluster, &after[1], &after[2])?;
                    Ok(after)
                },
            )?;
            println!("{request}: {before:?}, then {after:?}");
            writer.await_progress(LIMIT)?;
        }
        rotate_passwords(&cluster)?;
        writer.await_progress(MOUNTED_LIMIT)?;
        cluster.ready(LONG)?;
        ensure!(cluster.uids()? == pods, "pods were replaced");
        ensure!(restarts(&cluster)? == started, "containers were restarted");
        cluster.verify_intact(writer)
    })
}

fn annotate(cluster: &Cluster<'_>, annotation: &str, value: &str) -> Result<()> {
    cluster.edit(&json!({"metadata": {"annotations": {annotation: value}}}))
}

/// All passwords become others, and the former ones are refused in the end.
fn rotate_passwords(cluster: &Cluster<'_>) -> Result<()> {
    let of = |name: &str| -> Result<String> {
        let secret = cluster
            .secret(name)?
            .with_context(|| format!("no {name}"))?;
        Ok(secret.get("password").context("no password")?.clone())
    };
    let names = ["demo-app", "demo-rqlite-operator"];
    let before: Vec<String> = names.map(of).into_iter().collect::<Result<_>>()?;
    let former = cluster.login()?;
    annotate(cluster, "rqlite.dev/rotate-passwords", "1")?;
    until("every password to be another", MOUNTED_LIMIT * 2, || {
        let after: Vec<String> = names.map(of).into_iter().collect::<Result<_>>()?;
        let kept = before.iter().zip(&after).filter(|(b, a)| b == a);
        ensure!(kept.count() == 0, "not all are others");
        Ok(())
    })?;
    let leader = cluster.leader()?;
    until(
        "the former password to be refused",
        MOUNTED_LIMIT * 2,
        || {
            let said = cluster.namespace.ask(&leader, &former, "/status", None);
            let refused = said.is_err_and(|error| format!("{error:#}").contains("401"));
            ensure!(refused, "it is still accepted");
            Ok(())
        },
    )
}

/// N4: a cluster without TLS and users, as an earlier operator left it, moves to both by edits of its spec,
/// and back; the writer moves from no password to its connection Secret.
pub(crate) fn moves_there_and_back(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("to-tls", spec(3, open()), |cluster| {
        forget_decisions(cluster)?;
        cluster.until_condition("OpenToAnyone", "True", None, LIMIT)?;
        let writer = cluster.writer()?;
        // First users for those who know their passwords, while others go on without.
        cluster.edit(&json!({"spec": {
            "tls": {"nodes": {"mode": "Required"}, "clients": {"mode": "Optional"}},
            "authentication": {"mode": "Required", "anonymousPermissions": ["execute", "query", "ready"]},
        }}))?;
        cluster.ready(LONG)?;
        let [nodes, clients] = stages(cluster)?;
        ensure!(nodes == "Require" && clients != "Plain", "nodes {nodes}, clients {clients}");
        until("the writer's pod to have the connection Secret", MOUNTED_LIMIT, || {
            ensure!(writer.user()? == "app", "it has none");
            Ok(())
        })?;
        let closed = json!({"mode": "Required", "anonymousPermissions": null});
        cluster.edit(&json!({"spec": {"authentication": closed}}))?;
        cluster.until_condition("OpenToAnyone", "False", None, LONG)?;
        let leader = cluster.leader()?;
        until("requests without a password to be refused", LIMIT, || is_refused(cluster, &leader, QUERY, "401"))?;
        writer.await_progress(LIMIT)?;
        let disabled = json!({"mode": "Disabled"});
        cluster.edit(&json!({"spec": {"tls": {"nodes": disabled, "clients": disabled}, "authentication": disabled}}))?;
        cluster.ready(LONG)?;
        cluster.until_condition("OpenToAnyone", "True", None, LIMIT)?;
        writer.await_progress(LIMIT)?;
        cluster.verify_intact(writer)
    })
}

/// The stages of TLS: of nodes, of clients.
fn stages(cluster: &Cluster<'_>) -> Result<[String; 2]> {
    let tls = cluster.object()?["status"]["tls"].clone();
    Ok(["nodes", "clients"].map(|side| text(&tls[side]["stage"]).to_owned()))
}

/// Makes the object that of an earlier operator: neither spec nor status says anything of TLS, users and
/// network access.
fn forget_decisions(cluster: &Cluster<'_>) -> Result<()> {
    cluster.edit(&json!({"spec": {"tls": null, "authentication": null}}))?;
    let patch =
        json!({"status": {"tls": null, "authentication": null, "network": null}}).to_string();
    let args = [
        "patch",
        "rqlitecluster",
        NAME,
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ];
    cluster.namespace.run(&args)?;
    cluster.ready(LONG)
}

/// N5: each of the cluster's Secrets is deleted once by hand: it is made again, no pod is restarted, and the
/// writer goes on.
pub(crate) fn deleted_secrets(fixture: &Fixture) -> Result<Measurements> {
    fixture.cluster("secrets", spec(3, json!({})), |cluster| {
        let cluster = by_tls(cluster);
        let writer = cluster.writer()?;
        let (pods, started) = (cluster.uids()?, restarts(&cluster)?);
        let secrets = own_secrets(&cluster)?;
        let names: BTreeSet<&str> = secrets.keys().map(String::as_str).collect();
        let expected = ["ca", "node-tls", "http-tls", "users", "operator"];
        for end in expected {
            let name = format!("{NAME}-rqlite-{end}");
            ensure!(
                names.contains(name.as_str()),
                "{name} is not there: {names:?}"
            );
        }
        let mut slowest = Duration::ZERO;
        for (name, uid) in &secrets {
            cluster.namespace.run(&["delete", "secret", name])?;
            let start = Instant::now();
            until(&format!("{name} to be made again"), LIMIT, || {
                let now = own_secrets(&cluster)?;
                let again = now.get(name).context("it is not there")?;
                ensure!(again != uid, "it was not deleted");
                Ok(())
            })?;
            slowest = slowest.max(start.elapsed());
            writer.await_progress(MOUNTED_LIMIT)?;
        }
        cluster.ready(LONG)?;
        cluster.pods_stay(QUIET, &pods)?;
        ensure!(restarts(&cluster)? == started, "containers were restarted");
        let note = format!(
            "{} Secrets, each there again within {:.0} s",
            secrets.len(),
            slowest.as_secs_f64()
        );
        Ok(cluster.verify_intact(writer)?.with_note(note))
    })
}
