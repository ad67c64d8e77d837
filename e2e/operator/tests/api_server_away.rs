//! The API server becomes unavailable and returns, loses its history, rejects requests, and reports
//! conflicts: the operator recovers by itself, repeats no action, and exits only when it has lost its Lease.
use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e_kubernetes::command::until;
use e2e_operator::{
    api_server::ApiServer,
    fleet::{
        self, Clusters, NAMESPACE, machines,
        nodes::Nodes,
        operator::{Audit, Requests},
    },
    generated,
    objects::Objects,
    operator_fixture::{ACCOUNT, OperatorFixture},
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

/// Number of clusters managed meanwhile.
const COUNT: usize = 4;
/// How long all may take to reach their desired state again.
const LIMIT: Duration = Duration::from_secs(60);
/// An outage short enough that the operator keeps its Lease.
const SHORT: Duration = Duration::from_secs(9);
/// A Lease lasts 15 s.
const LEASE_LIMIT: Duration = Duration::from_secs(30);
/// Minimum number of requests that are rejected with 429.
const REJECTIONS: usize = 3;
/// Maximum requests per second during rejection: every cluster's reconcile and every watch backs off.
const MAX_STORM_RATE: f64 = 30.0;
/// How long requests are rejected.
const STORM: Duration = Duration::from_secs(5);
/// Pause between two requests that occupy the seat.
const PAUSE: Duration = Duration::from_millis(50);
/// How long nothing may be written once all clusters are in their desired state.
const CALM: Duration = Duration::from_secs(5);
/// How long a cluster's object may not change: longer than two intervals between reconciles of a healthy one.
const LONG_CALM: Duration = Duration::from_secs(110);

struct OutageFixture {
    base: OperatorFixture,
    clusters: Clusters,
    client: Client,
    audit: Audit,
}

impl OutageFixture {
    fn run(&self, args: &[&str]) -> Result<String> {
        let mut all = vec!["-n", NAMESPACE];
        all.extend(args);
        self.base.server.run(&all)
    }

    /// Changes that the operator must revert and carry out.
    fn disturb(&self, number: usize, replicas: u8) -> Result<()> {
        let service = format!("fleet-{number}-client");
        self.run(&["delete", "service", &service])?;
        let cluster = format!("rqlitecluster/fleet-{number}");
        let replicas = format!("--replicas={replicas}");
        self.run(&["scale", &cluster, &replicas]).map(drop)
    }

    async fn settled(&self, number: usize, replicas: u8) -> Result<()> {
        let set = format!("fleet-{number}");
        let service = format!("fleet-{number}-client");
        until(
            &format!("{set} to have {replicas} pods and its Service"),
            LIMIT,
            || {
                self.run(&["get", "service", &service])?;
                let found = self
                    .base
                    .server
                    .get(&["statefulset", &set, "-n", NAMESPACE])?;
                ensure!(
                    found["spec"]["replicas"] == replicas,
                    "{}",
                    found["spec"]["replicas"]
                );
                Ok(())
            },
        )?;
        self.clusters.await_ready(LIMIT).await
    }

    /// Its requests since the last call; fails if one was forbidden.
    fn requests(&mut self) -> Result<Requests> {
        let (asked, forbidden) = self.audit.since()?;
        ensure!(forbidden.is_empty(), "forbidden: {forbidden:#?}");
        Ok(asked)
    }
}

/// A short outage after which the history needed by watches is gone.
async fn restart(fixture: &mut OutageFixture) -> Result<()> {
    let begun = Instant::now();
    fixture.base.api.stop_server()?;
    let live = fixture.base.operator.probe("/livez")?;
    ensure!(
        live == 200,
        "an operator without an API server is not live: {live}"
    );
    until("/readyz to say that the API server is away", SHORT, || {
        let code = fixture.base.operator.probe("/readyz")?;
        ensure!(code == 503, "{code}");
        Ok(())
    })?;
    fixture.base.api.start_server()?;
    fixture.disturb(0, 4)?;
    fixture.base.api.forget_history()?;
    let away = begun.elapsed();
    fixture.settled(0, 4).await?;
    let ended = fixture.base.operator.ended()?;
    ensure!(
        ended.is_none() || away > SHORT,
        "it ended after {away:?}: {ended:?}"
    );
    if ended.is_some() {
        fixture.base.restart_operator()?;
    }
    println!(
        "unavailable for {:.1} s, settled after {:.1} s",
        away.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

/// An outage longer than a Lease: the operator exits, and its successor continues.
async fn outlast(fixture: &mut OutageFixture) -> Result<()> {
    let begun = Instant::now();
    fixture.base.api.stop_server()?;
    let status = until("the operator to end without its Lease", LEASE_LIMIT, || {
        let ended = fixture.base.operator.ended()?;
        ended.context("it runs")
    })?;
    ensure!(status.code() == Some(1), "it ended with {status}");
    let away = begun.elapsed();
    fixture.base.api.start_server()?;
    fixture.disturb(1, 4)?;
    fixture.base.restart_operator()?;
    fixture.settled(1, 4).await?;
    until("it to be ready", LIMIT, || {
        let code = fixture.base.operator.probe("/readyz")?;
        ensure!(code == 200, "{code}");
        Ok(())
    })?;
    println!(
        "ended after {:.1} s without a Lease, settled after {:.1} s",
        away.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Account whose requests occupy the operator's seat at the API server.
const NOISE: &str = "noise";

/// Gives the operator and another account one seat together, except for Leases: a request that arrives while
/// another is being served is rejected with 429.
fn narrow(server: &Objects) -> Result<()> {
    let flow = |kind: &str, spec: Value| {
        json!({ "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": kind,
            "metadata": { "name": "e2e-storm" }, "spec": spec })
    };
    let limited = json!({ "nominalConcurrencyShares": 0, "borrowingLimitPercent": 0, "limitResponse": { "type": "Reject" } });
    let level = json!({ "type": "Limited", "limited": limited });
    let subject = |name: &str| {
        let account = json!({ "name": name, "namespace": generated::NAMESPACE });
        json!({ "kind": "ServiceAccount", "serviceAccount": account })
    };
    let rule = json!({ "subjects": [subject(ACCOUNT), subject(NOISE)], "resourceRules": [{ "verbs": ["*"],
        "apiGroups": ["", "apps", "policy", "networking.k8s.io", "rqlite.dev"], "resources": ["*"],
        "namespaces": ["*"], "clusterScope": true }] });
    let schema = json!({ "matchingPrecedence": 2, "priorityLevelConfiguration": { "name": "e2e-storm" }, "rules": [rule] });
    server.send(&["create"], &flow("PriorityLevelConfiguration", level))?;
    server
        .send(&["create"], &flow("FlowSchema", schema))
        .map(drop)
}

/// A webhook that never answers is called for the other account's objects, so that its requests occupy the
/// seat.
fn hang(server: &Objects) -> Result<TcpListener> {
    let unanswered = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("https://127.0.0.1:{}/", unanswered.local_addr()?.port());
    let webhook = json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": { "name": "e2e-hang" }, "webhooks": [{ "name": "hang.example.com", "clientConfig": { "url": url },
            "objectSelector": { "matchLabels": { "e2e": "hang" } }, "timeoutSeconds": 30, "failurePolicy": "Ignore",
            "rules": [{ "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"] }],
            "admissionReviewVersions": ["v1"], "sideEffects": "None" }] });
    server.send(&["create"], &webhook)?;
    server.run(&[
        "create",
        "serviceaccount",
        NOISE,
        "-n",
        generated::NAMESPACE,
    ])?;
    let subject = format!("--serviceaccount={}:{NOISE}", generated::NAMESPACE);
    let rights = ["--verb=create", "--resource=configmaps"];
    server.run(&["create", "clusterrole", NOISE, rights[0], rights[1]])?;
    let role = format!("--clusterrole={NOISE}");
    server.run(&["create", "clusterrolebinding", NOISE, &role, &subject])?;
    Ok(unanswered)
}

/// All of the operator's requests except those for its Lease are rejected.
async fn rejected(fixture: &mut OutageFixture) -> Result<()> {
    let unanswered = hang(&fixture.base.server)?;
    narrow(&fixture.base.server)?;
    let kubeconfig = fixture
        .base
        .api
        .account_kubeconfig(generated::NAMESPACE, NOISE)?;
    let maps: Api<ConfigMap> = Api::namespaced(fleet::client(&kubeconfig).await?, NAMESPACE);
    let map = serde_json::from_value::<ConfigMap>(
        json!({ "metadata": { "generateName": "hang-", "labels": { "e2e": "hang" } } }),
    )?;
    let noise = tokio::spawn(async move {
        loop {
            // Further requests are rejected and repeated.
            let _ = maps.create(&PostParams::default(), &map).await;
            tokio::time::sleep(PAUSE).await;
        }
    });
    unanswered.set_nonblocking(true)?;
    let held = until(
        "the webhook to be asked",
        LIMIT,
        || Ok(unanswered.accept()?),
    )?;
    fixture.audit.codes()?;
    fixture.disturb(2, 4)?;
    tokio::time::sleep(STORM).await;
    let codes = fixture.audit.codes()?;
    let live = fixture.base.operator.probe("/livez")?;
    noise.abort();
    drop(held);
    for object in [
        "validatingwebhookconfiguration/e2e-hang",
        "flowschema/e2e-storm",
    ] {
        fixture.base.server.run(&["delete", object])?;
    }
    let times = codes.get(&429).copied().unwrap_or(0);
    ensure!(times >= REJECTIONS, "{codes:?}");
    let asked: usize = codes.values().sum();
    let rate = asked as f64 / STORM.as_secs_f64();
    ensure!(
        rate < MAX_STORM_RATE,
        "{asked} requests in {STORM:?}: {codes:?}"
    );
    ensure!(live == 200, "not live: {live}");
    fixture.settled(2, 4).await?;
    println!("rejected: {codes:?}, {rate:.1} requests a second");
    Ok(())
}

/// Another client keeps changing the object, so that the operator's version is outdated when it writes.
async fn outdated(fixture: &mut OutageFixture) -> Result<()> {
    let kind = GroupVersionKind::gvk("rqlite.dev", "v1alpha1", "RqliteCluster");
    let resource = ApiResource::from_gvk(&kind);
    let api: Api<DynamicObject> =
        Api::namespaced_with(fixture.client.clone(), NAMESPACE, &resource);
    fixture.audit.codes()?;
    let hands = tokio::spawn(async move {
        for n in 0_u32.. {
            let note = json!({ "metadata": { "labels": { "touched": n.to_string() } } });
            api.patch("fleet-3", &PatchParams::default(), &Patch::Merge(note))
                .await?;
        }
        Ok::<_, kube::Error>(())
    });
    fixture.disturb(3, 4)?;
    let mut conflicts = 0;
    let seen = until("a conflict", LIMIT, || {
        conflicts += fixture.audit.codes()?.get(&409).copied().unwrap_or(0);
        ensure!(conflicts > 0, "no conflict");
        Ok(())
    });
    hands.abort();
    seen?;
    fixture.settled(3, 4).await?;
    println!("conflicts: {conflicts}");
    Ok(())
}

/// The clusters' objects are not written again either, whether or not time passes.
async fn unchanged(fixture: &mut OutageFixture) -> Result<()> {
    let versions = |fixture: &OutageFixture| -> Result<Vec<String>> {
        let all = fixture
            .base
            .server
            .get(&["rqliteclusters", "-n", NAMESPACE])?;
        let items = all["items"].as_array().cloned().unwrap_or_default();
        let each = items.iter();
        Ok(each
            .map(|item| item["metadata"]["resourceVersion"].to_string())
            .collect())
    };
    let before = versions(fixture)?;
    ensure!(before.len() == COUNT, "{before:?}");
    fixture.requests()?;
    tokio::time::sleep(LONG_CALM).await;
    let after = versions(fixture)?;
    ensure!(before == after, "versions {before:?} became {after:?}");
    let asked = fixture.requests()?;
    let events: Vec<_> = asked
        .iter()
        .filter(|(what, _)| what.contains("events"))
        .collect();
    ensure!(
        events.is_empty(),
        "events of calm clusters are read: {events:?}"
    );
    Ok(())
}

/// Objects in their desired state are not written again.
async fn calm(fixture: &mut OutageFixture) -> Result<()> {
    let begun = Instant::now();
    loop {
        fixture.requests()?;
        tokio::time::sleep(CALM).await;
        let asked = fixture.requests()?;
        let writes: Vec<_> = asked
            .iter()
            .filter(|(what, _)| {
                ["patch", "create", "delete"]
                    .iter()
                    .any(|verb| what.starts_with(verb))
            })
            .collect();
        if writes.is_empty() {
            println!("in {CALM:?}: {asked:?}");
            return unchanged(fixture).await;
        }
        ensure!(begun.elapsed() < LIMIT, "it goes on writing: {writes:?}");
    }
}

async fn all(base: OperatorFixture) -> Result<()> {
    let client = fleet::client(&base.api.kubeconfig("admin")).await?;
    base.server.run(&["create", "namespace", NAMESPACE])?;
    let audit = Audit::of(&base.api.audit_log(), generated::NAMESPACE, ACCOUNT)?;
    let clusters = Clusters::new(client.clone());
    let mut fixture = OutageFixture {
        base,
        clusters,
        client: client.clone(),
        audit,
    };
    let simulated = tokio::spawn(machines::simulate(client, Nodes::new()));
    let result = async {
        fixture.clusters.create(0..COUNT).await?;
        fixture.clusters.await_ready(LIMIT).await?;
        restart(&mut fixture).await.context("a short outage")?;
        rejected(&mut fixture)
            .await
            .context("requests that are rejected")?;
        outdated(&mut fixture).await.context("conflicts")?;
        calm(&mut fixture).await.context("afterwards")?;
        outlast(&mut fixture).await.context("a long outage")?;
        let log = fixture.base.log()?;
        ensure!(!log.contains("panicked"), "it panicked");
        ensure!(
            log.contains("too old resource version") || log.contains("410"),
            "no watch lost its history"
        );
        Ok(())
    };
    let result = result.await;
    ensure!(
        !simulated.is_finished(),
        "the machines stopped: {:?}",
        simulated.await
    );
    simulated.abort();
    result.with_context(|| fixture.base.tail())
}

#[test]
fn it_goes_on_by_itself() -> Result<()> {
    let Some(base) = OperatorFixture::start()? else {
        return ApiServer::skip();
    };
    tokio::runtime::Runtime::new()?.block_on(all(base))
}
