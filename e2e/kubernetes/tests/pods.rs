//! `manifests/plain` on a real Kubernetes: each file is applied, and the nodes form one cluster, serve, and
//! stay one cluster.
//!
//! Needs a cluster, the images of `e2e/images` on it, `KUBECONFIG` and `E2E_KUBERNETES=1`; otherwise it is
//! skipped with a message.
use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::{
    access::Access,
    command::until,
    namespace::{LIMIT, Namespace},
    plain::{COUNT, VOTERS, manifest, voters},
};
use serde_json::Value;

/// Goal from the first object to the first write, with images on the nodes; printed, and checked with
/// tolerance for a busy machine.
const GOAL: Duration = Duration::from_secs(30);
/// Default number of formation rounds of each kind; `ROUNDS` overrides it.
const ROUNDS: usize = 2;

/// Runs a statement in a pod's shell.
fn sql(namespace: &Namespace, pod: &str, line: &str) -> Result<String> {
    namespace.in_pod(pod, &["rqlite", "-e", line])
}

fn first_write(namespace: &Namespace) -> Result<()> {
    until("a first write", LIMIT, || {
        sql(
            namespace,
            "rqlite-0",
            "CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY)",
        )?;
        sql(namespace, "rqlite-1", "INSERT INTO t DEFAULT VALUES")
    })
    .map(drop)
}

/// `(id, voter, reachable)` of all nodes.
fn members(namespace: &Namespace) -> Result<Vec<(String, bool, bool)>> {
    let text = namespace.get("rqlite-0", "/nodes?nonvoters&ver=2")?;
    let all: Value = serde_json::from_str(&text).context("read /nodes")?;
    let nodes = all["nodes"]
        .as_array()
        .with_context(|| format!("no nodes: {text}"))?;
    let mut members = Vec::new();
    for node in nodes {
        let id = node["id"]
            .as_str()
            .with_context(|| format!("no ID: {text}"))?;
        let is = |field: &str| node[field].as_bool().unwrap_or_default();
        members.push((id.to_owned(), is("voter"), is("reachable")));
    }
    members.sort();
    Ok(members)
}

/// Checks that there is exactly one cluster with these members.
fn are_one_cluster(namespace: &Namespace) -> Result<()> {
    let expected: Vec<_> = voters().into_iter().map(|id| (id, true, true)).collect();
    until("one cluster of three voters", LIMIT, || {
        let seen = members(namespace)?;
        ensure!(seen == expected, "{seen:?}");
        let leaders: Vec<String> = voters()
            .iter()
            .map(|pod| namespace.leader(std::slice::from_ref(pod)))
            .collect::<Result<_>>()?;
        ensure!(
            leaders.iter().all(|leader| *leader == leaders[0]),
            "{leaders:?}"
        );
        Ok(())
    })
}

#[test]
fn three_nodes_come_from_nothing_and_take_a_write() -> Result<()> {
    let Some(access) = Access::exclusive()? else {
        return Ok(());
    };
    Namespace::within(&access.kubectl, "start", |namespace| {
        let start = Instant::now();
        let since = || start.elapsed().as_secs_f64();
        namespace.apply_plain("three-nodes.yaml")?;
        println!("objects applied             {:5.1} s", since());
        until("three running pods", LIMIT, || {
            let phases = namespace.field("pods", "{.items[*].status.phase}")?;
            ensure!(phases == "Running Running Running", "{phases}");
            Ok(())
        })?;
        println!("three pods with volumes run {:5.1} s", since());
        namespace.voters_ready(LIMIT)?;
        println!("three nodes Ready           {:5.1} s", since());
        first_write(namespace)?;
        let took = start.elapsed();
        println!(
            "first write                 {:5.1} s (goal: {} s)",
            since(),
            GOAL.as_secs()
        );
        ensure!(took < 2 * GOAL, "it took {took:?}");
        are_one_cluster(namespace)
    })
}

#[test]
fn the_namespace_admits_only_restricted_pods() -> Result<()> {
    let Some(access) = Access::shared()? else {
        return Ok(());
    };
    Namespace::within(&access.kubectl, "restricted", |namespace| {
        let yaml = fs::read_to_string(manifest("namespace.yaml"))?;
        // The name may be in use.
        let yaml = yaml.replace("name: rqlite", &format!("name: {}", namespace.name));
        namespace.apply(&yaml)?;
        let run = [
            "run",
            "bare",
            "--image=localhost/busybox:1",
            "--image-pull-policy=IfNotPresent",
        ];
        let refusal = namespace
            .run(&run)
            .err()
            .context("a bare pod was admitted")?;
        ensure!(refusal.to_string().contains("restricted"), "{refusal:#}");
        Ok(())
    })
}

#[test]
fn nodes_form_by_plain_records_and_a_read_only_pool_follows() -> Result<()> {
    let Some(access) = Access::shared()? else {
        return Ok(());
    };
    Namespace::within(&access.kubectl, "readers", |namespace| {
        namespace.apply_plain("three-nodes-dns.yaml")?;
        namespace.voters_ready(LIMIT)?;
        namespace.apply_plain("read-only.yaml")?;
        namespace.until_field(
            "statefulset/rqlite-read",
            "{.status.readyReplicas}",
            "2",
            LIMIT,
        )?;
        first_write(namespace)?;
        until("three voters and two readers", LIMIT, || {
            let seen = members(namespace)?;
            let count = |voting| {
                seen.iter()
                    .filter(|(_, voter, up)| *voter == voting && *up)
                    .count()
            };
            ensure!((count(true), count(false)) == (3, 2), "{seen:?}");
            Ok(())
        })?;
        for reader in ["rqlite-read-0", "rqlite-read-1"] {
            until(
                &format!("the row in {reader}'s own database"),
                LIMIT,
                || {
                    let seen = namespace.get(
                        reader,
                        "/db/query?level=none&q=SELECT%20count(*)%20FROM%20t",
                    )?;
                    ensure!(seen.contains(r#""values":[[1]]"#), "{seen}");
                    Ok(())
                },
            )?;
        }
        // Writes are forwarded.
        sql(namespace, "rqlite-read-0", "INSERT INTO t DEFAULT VALUES")?;
        // A reader that lost its disk rejoins.
        namespace.run(&["delete", "pvc", "data-rqlite-read-1", "--wait=false"])?;
        namespace.run(&["delete", "pod", "rqlite-read-1", "--timeout=60s"])?;
        until("the reader to be back", LIMIT, || {
            let seen = namespace.get(
                "rqlite-read-1",
                "/db/query?level=none&q=SELECT%20count(*)%20FROM%20t",
            )?;
            ensure!(seen.contains(r#""values":[[2]]"#), "{seen}");
            Ok(())
        })?;
        let count = members(namespace)?.len();
        ensure!(count == 5, "{count} members");
        Ok(())
    })
}

#[test]
fn three_nodes_form_again_and_again() -> Result<()> {
    let Some(access) = Access::shared()? else {
        return Ok(());
    };
    let asked = std::env::var("ROUNDS")
        .ok()
        .map(|text| text.parse())
        .transpose();
    let rounds = asked.context("ROUNDS is no number")?.unwrap_or(ROUNDS);
    for manifest in ["three-nodes.yaml", "three-nodes-dns.yaml"] {
        let (mut formed, mut longest) = (0, Duration::ZERO);
        for round in 1..=rounds {
            let took = Namespace::within(&access.kubectl, "form", |namespace| {
                let start = Instant::now();
                namespace.apply_plain(manifest)?;
                namespace.voters_ready(LIMIT)?;
                let took = start.elapsed();
                are_one_cluster(namespace)?;
                first_write(namespace)?;
                // No node gave up during formation.
                let restarts = namespace.field(
                    "pods",
                    "{.items[*].status.containerStatuses[0].restartCount}",
                )?;
                ensure!(restarts == "0 0 0", "restarts: {restarts}");
                Ok(took)
            })
            .with_context(|| format!("{manifest}, round {round}: {formed} formed before"))?;
            formed += 1;
            longest = longest.max(took);
        }
        println!(
            "{manifest}: {formed} of {rounds} formed; Ready after {:.1} s at most",
            longest.as_secs_f64()
        );
    }
    Ok(())
}

/// The image on its own, as its variables and arguments configure it.
#[test]
fn the_image_starts_a_node_without_a_word() -> Result<()> {
    let Some(access) = Access::shared()? else {
        return Ok(());
    };
    Namespace::within(&access.kubectl, "image", |namespace| {
        namespace.apply(ALONE)?;
        let start = Instant::now();
        namespace.until_field(
            "pod/alone",
            "{.status.containerStatuses[0].ready}",
            "true",
            LIMIT,
        )?;
        println!(
            "a node alone is Ready after {:.1} s, 5 s of which are START_DELAY's default",
            start.elapsed().as_secs_f64()
        );
        let status: Value = serde_json::from_str(&namespace.get("alone", "/status")?)?;
        let id = &status["store"]["node_id"];
        ensure!(id == "alone", "node ID {id}");
        ensure!(
            status["http"]["bind_addr"] == "[::]:4001"
                || status["http"]["bind_addr"] == "0.0.0.0:4001",
            "{}",
            status["http"]
        );
        sql(
            namespace,
            "alone",
            "CREATE TABLE t (id INTEGER PRIMARY KEY, p INTEGER REFERENCES t)",
        )?;
        let refused = sql(namespace, "alone", "INSERT INTO t VALUES(1, 2)").err();
        let refused = refused.context("ENABLE_FK has no effect")?.to_string();
        ensure!(refused.contains("FOREIGN KEY"), "{refused}");
        let start = Instant::now();
        namespace.run(&["delete", "pod", "alone", "--timeout=60s"])?;
        let took = start.elapsed();
        println!("and exits {:.1} s after SIGTERM", took.as_secs_f64());
        ensure!(
            took < Duration::from_secs(20),
            "it ignored the signal: {took:?}"
        );
        Ok(())
    })?;
    ensure!(COUNT == 3 && VOTERS == "rqlite", "the manifests' names");
    Ok(())
}

const ALONE: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: alone}
spec:
  automountServiceAccountToken: false
  securityContext: {runAsNonRoot: true, fsGroup: 1000, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: rqlited
    image: localhost/rqlited:dev
    imagePullPolicy: IfNotPresent
    env:
    - {name: ENABLE_FK, value: "1"}
    readinessProbe:
      httpGet: {path: /readyz, port: 4001}
      periodSeconds: 1
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {drop: [ALL]}
    volumeMounts:
    - {name: data, mountPath: /rqlite/file}
    - {name: tmp, mountPath: /tmp}
  volumes:
  - {name: data, emptyDir: {}}
  - {name: tmp, emptyDir: {}}
"#;
