//! Assembles the operator, and stops it in order: no new reconciles, running ones finished, the Lease
//! released.
use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::Args;
use futures_util::{StreamExt, future::join_all};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder},
};
use operator_api::names;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tower::util::MapRequestLayer;

use crate::{
    api_health,
    apply::Accepted,
    backups,
    caches::{Caches, ClusterScopedCaches, Scope},
    carried::{Checks, Ending, Leaders, Refused, Restores, Taken},
    cluster::facts::observation::{OperatorFacts, Platform},
    controller::{ScopeController, wait_until_synced},
    edits::Edits,
    events::Events,
    installations::Installations,
    lease::{Election, LeaseGuard},
    managed::Managed,
    metrics::Metrics,
    node_client::Http,
    node_watch,
    observe::{Addressing, Environment},
    platform::{self, OpenShift},
    reconcile::Context,
    secrets::SecretCache,
    serve::{self, Ready},
    telemetry::{self, LogFormat},
};

/// How long a stop waits for running reconciles. A pod's grace period is 30 s by default.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// Options of the operator. Each flag can also be given as the environment variable named with it.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Namespaces whose clusters are managed, separated by commas. Defaults to all namespaces.
    #[arg(long, env = "RQLITE_OPERATOR_NAMESPACES", value_delimiter = ',')]
    namespaces: Vec<String>,
    /// Image of the nodes, for clusters without spec.image.
    #[arg(long, env = "RQLITE_OPERATOR_NODE_IMAGE", default_value = DEFAULT_NODE_IMAGE)]
    node_image: String,
    /// Namespace of the operator and of its Lease. Defaults to the namespace of its pod.
    #[arg(long, env = "RQLITE_OPERATOR_NAMESPACE")]
    namespace: Option<String>,
    /// Class of the clusters that are managed: those whose spec.operatorClass has this value. Clusters
    /// without one have class default.
    #[arg(long, env = "RQLITE_OPERATOR_CLASS", default_value = names::DEFAULT_CLASS, value_parser = class)]
    class: String,
    /// Name of the Lease for leader election among operators.
    #[arg(long, env = "RQLITE_OPERATOR_LEASE", default_value = "rqlite-operator")]
    lease: String,
    /// Run without leader election. Only safe if there can never be a second operator.
    #[arg(long, env = "RQLITE_OPERATOR_NO_LEASE")]
    no_lease: bool,
    /// Identity of this process in the Lease. Defaults to the host name and a random suffix.
    #[arg(long, env = "RQLITE_OPERATOR_IDENTITY")]
    identity: Option<String>,
    /// Listen address of /metrics.
    #[arg(
        long,
        env = "RQLITE_OPERATOR_METRICS_ADDRESS",
        default_value = "[::]:8080"
    )]
    metrics_address: SocketAddr,
    /// Listen address of /livez and /readyz.
    #[arg(
        long,
        env = "RQLITE_OPERATOR_HEALTH_ADDRESS",
        default_value = "[::]:8081"
    )]
    health_address: SocketAddr,
    /// How nodes are addressed.
    #[arg(
        long,
        env = "RQLITE_OPERATOR_NODE_ADDRESS",
        value_enum,
        default_value_t
    )]
    node_address: Addressing,
    /// DNS domain of the Kubernetes cluster, for clusters that are created without spec.clusterDomain.
    /// Defaults to the one in this machine's /etc/resolv.conf, or else cluster.local.
    #[arg(long, env = "RQLITE_OPERATOR_CLUSTER_DOMAIN")]
    cluster_domain: Option<String>,
    /// Whether the platform assigns users and groups to pods, so that pods must name none. By default, auto:
    /// it does where the API server has the group security.openshift.io.
    #[arg(long, env = "RQLITE_OPERATOR_OPENSHIFT", value_enum, default_value_t)]
    openshift: OpenShift,
    /// Log level: error, warn, info, debug, trace, or directives such as info,rqlite_operator=debug.
    #[arg(long, env = "RQLITE_OPERATOR_LOG_LEVEL", default_value = "info")]
    log_level: String,
    /// Log format.
    #[arg(long, env = "RQLITE_OPERATOR_LOG_FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
}

/// A class as `spec.operatorClass` can name it.
fn class(text: &str) -> Result<String, String> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let fits = (1..=63).contains(&text.len())
        && text.chars().all(|c| inner(c) || c == '-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    if fits {
        Ok(text.to_owned())
    } else {
        Err("use up to 63 lower-case letters, digits and '-', not at the ends".to_owned())
    }
}

/// Default image of the nodes, the same as the chart's `nodeImage`.
pub const DEFAULT_NODE_IMAGE: &str = "localhost/rqlited:dev";

impl Options {
    fn scopes(&self) -> Vec<Scope> {
        let names = self.namespaces.iter().filter(|name| !name.is_empty());
        let named: std::collections::BTreeSet<_> = names.cloned().collect();
        if named.is_empty() {
            vec![Scope::Everywhere]
        } else {
            named.into_iter().map(Scope::Namespace).collect()
        }
    }

    fn identity(&self) -> String {
        let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "operator".to_owned());
        let random = rand::random::<u32>();
        self.identity
            .clone()
            .unwrap_or_else(|| format!("{host}_{random:08x}"))
    }

    /// Determines the properties of the Kubernetes cluster. Repeats the request to the API server until it
    /// responds.
    pub async fn platform(&self, client: &Client) -> Platform {
        platform::find(client, self.cluster_domain.clone(), self.openshift).await
    }

    /// Inputs of observations that do not come from objects.
    pub fn environment(&self, namespace: String, platform: Platform) -> Environment {
        Environment {
            operator: OperatorFacts {
                class: self.class.clone(),
                installation: format!("{namespace}/{}", self.lease),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                node_image: self.node_image.clone(),
                namespace,
                platform,
            },
            addressing: self.node_address,
        }
    }
}

/// Creates the client of the API server, which counts its requests. It does not retry: watches and reconciles
/// restart by themselves, and an eviction that a budget refuses must not be repeated blindly.
///
/// # Errors
/// There is neither an in-cluster service account nor a kubeconfig.
pub async fn client(metrics: &Metrics) -> anyhow::Result<Client> {
    let mut config = Config::infer()
        .await
        .context("finding the API server (in-cluster account or KUBECONFIG)")?;
    config.default_retry = false;
    let metrics = metrics.clone();
    let count = MapRequestLayer::new(move |request: hyper::Request<Body>| {
        metrics.requested(verb(&request));
        request
    });
    Ok(ClientBuilder::try_from(config)?.with_layer(&count).build())
}

fn verb(request: &hyper::Request<Body>) -> &'static str {
    let query = request.uri().query().unwrap_or_default();
    match request.method().as_str() {
        "GET" if query.contains("watch=true") => "watch",
        "GET" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "other",
    }
}

/// Runs the operator until SIGTERM or SIGINT.
///
/// # Errors
/// It cannot start, or it has lost the Lease.
pub async fn run(options: Options) -> anyhow::Result<()> {
    telemetry::start(&options.log_level, options.log_format)?;
    let metrics = Metrics::default();
    let ready = Ready::default();
    let (stop_serving, serving) = watch::channel(false);
    let metrics_router = serve::metrics(metrics.clone());
    serve::serve(options.metrics_address, metrics_router, serving.clone()).await?;
    serve::serve(
        options.health_address,
        serve::health(ready.clone()),
        serving,
    )
    .await?;
    let (stop, stopping) = watch::channel(false);
    tokio::spawn(forward_signals(stop)?);
    let result = lead(&options, &metrics, &ready, stopping).await;
    let _ = stop_serving.send(true);
    result
}

/// Sends the stop signal at the first SIGTERM or SIGINT.
fn forward_signals(stop: watch::Sender<bool>) -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        // There are no receivers if the operator is already ending.
        let _ = stop.send(true);
        // A dropped sender would count as a stop signal for later receivers.
        std::future::pending::<()>().await;
    })
}

fn announce(options: &Options, identity: &str, namespace: &str) {
    tracing::info!(
        identity,
        namespace,
        class = options.class,
        scopes = ?options.scopes(),
        node_image = options.node_image,
        "rqlite-operator {}",
        env!("CARGO_PKG_VERSION")
    );
}

/// Waits for the Lease, then runs the controllers for as long as it is held.
async fn lead(
    options: &Options,
    metrics: &Metrics,
    ready: &Ready,
    mut stopping: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let client = client(metrics).await?;
    tokio::spawn(api_health::watch(client.clone(), ready.clone()));
    let identity = options.identity();
    let namespace = options.namespace.clone();
    let namespace = namespace.unwrap_or_else(|| client.default_namespace().to_owned());
    announce(options, &identity, &namespace);
    let metrics = metrics.clone();
    let context = |lease: LeaseGuard, platform: Platform| {
        Arc::new(Context {
            nodes: Http::new(metrics.clone()),
            environment: options.environment(namespace.clone(), platform),
            lease,
            events: Events::new(client.clone(), &identity),
            metrics: metrics.clone(),
            refused: Refused::default(),
            ending: Ending::default(),
            installations: Installations::new(client.clone()),
            managed: Managed::default(),
            checks: Checks::default(),
            restores: Restores::default(),
            edits: Edits::default(),
            leaders: Leaders::default(),
            accepted: Accepted::default(),
            taken: Taken::default(),
            secrets: SecretCache::default(),
            client: client.clone(),
        })
    };
    if options.no_lease {
        let platform = options.platform(&client).await;
        let context = context(LeaseGuard::always(), platform);
        return run_controllers(options, context, ready, stopping).await;
    }
    let mut election = Election::new(
        client.clone(),
        &namespace,
        &options.lease,
        &identity,
        metrics.clone(),
    );
    let guard = election.guard();
    tokio::select! {
        () = election.win(|| ready.set()) => {}
        _ = stopping.wait_for(|stop| *stop) => return Ok(()),
    }
    let platform = tokio::select! {
        platform = options.platform(&client) => platform,
        _ = stopping.wait_for(|stop| *stop) => return Ok(()),
    };
    let (done, until_done) = watch::channel(false);
    let mut renewal = tokio::spawn(async move { election.keep(until_done).await });
    tokio::select! {
        result = run_controllers(options, context(guard, platform), ready, stopping) => {
            let _ = done.send(true);
            renewal.await.context("the Lease's task")?.context("the Lease")?;
            result
        }
        lost = &mut renewal => {
            lost.context("the Lease's task")?.context("exiting, because another operator may be active")
        }
    }
}

/// Runs a controller for each scope until the stop signal.
async fn run_controllers(
    options: &Options,
    context: Arc<Context>,
    ready: &Ready,
    mut stopping: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let (cluster_scoped, streams) = ClusterScopedCaches::start(&context.client).await;
    let cluster_scoped_fill = join_all(streams.into_iter().map(|s| s.for_each(std::future::ready)));
    let mut controllers = Vec::new();
    let mut caches = Vec::new();
    for scope in options.scopes() {
        let (cache, mut triggers) = Caches::start(&context.client, &scope, cluster_scoped.clone());
        triggers.push(node_watch::triggers(
            cache.clone(),
            context.nodes.clone(),
            context.managed.clone(),
        ));
        triggers.push(node_watch::machine_triggers(cache.clone()));
        caches.push(cache.clone());
        controllers.push(ScopeController {
            scope,
            caches: cache,
            triggers,
            shared: Arc::clone(&context),
        });
    }
    let ready = ready.clone();
    let synced = tokio::spawn(async move {
        wait_until_synced(caches).await;
        tracing::info!("the watches are synced");
        ready.set();
    });
    let backups = options.scopes().into_iter();
    let backups = backups.map(|scope| {
        let (context, stopping) = (Arc::clone(&context), stopping.clone());
        futures_util::future::join(
            backups::drill_controller::run(scope.clone(), Arc::clone(&context), stopping.clone()),
            backups::controller::run(scope, context, stopping),
        )
    });
    let running = controllers.into_iter().map(|c| c.run(stopping.clone()));
    let running = futures_util::future::join(join_all(running), join_all(backups));
    let result = tokio::select! {
        _ = running => {
            if *stopping.borrow() { Ok(()) } else { Err(anyhow::anyhow!("the controllers have ended")) }
        }
        _ = cluster_scoped_fill, if cluster_scoped.exist() => {
            Err(anyhow::anyhow!("a watch has ended"))
        }
        () = stop_timeout(&mut stopping) => {
            tracing::warn!("running reconciles are cancelled after {STOP_LIMIT:?}");
            Ok(())
        }
    };
    synced.abort();
    result
}

/// Completes [`STOP_LIMIT`] after the stop signal.
async fn stop_timeout(stopping: &mut watch::Receiver<bool>) {
    // A dropped sender also means stop.
    let _ = stopping.wait_for(|stop| *stop).await;
    tokio::time::sleep(STOP_LIMIT).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chart_names_the_same_image() {
        let values = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../charts/rqlite-operator/values.yaml"
        );
        let text = std::fs::read_to_string(values).unwrap();
        let values: serde_json::Value = crate::yaml::read(&text).unwrap();
        let part = |key: &str| values["nodeImage"][key].as_str().unwrap().to_owned();
        let image = format!("{}:{}", part("repository"), part("tag"));
        assert_eq!(DEFAULT_NODE_IMAGE, image);
    }
}
