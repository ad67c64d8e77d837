//! `GET /status`: the state of this node.
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use node_api::{status::select, to_go_json};
use node_contract::{
    duration,
    status::{
        BuildStatus, ClusterStatus, ExtensionsStatus, HttpClusterStatus, HttpStatus, HttpTlsStatus,
        MuxStatus, NodeTimes, ProcessStatus, SecurityStatus, Status, StoreStatus, TlsStatus,
    },
};
use serde_json::{Value, json};

use super::{error::Failure, host, param::Call, reply::Response, state::HttpState};
use crate::{
    archive::Archive,
    clock::rfc3339,
    metrics::Counter,
    tls::{Port, Side},
};

/// Timeout of calls to other nodes for requests without a timeout of their own.
const CLUSTER_TIMEOUT: Duration = node_api::param::DEFAULT_TIMEOUT;
/// Timeout of the hello of a connection on the inter-node port.
const HELLO_TIMEOUT: &str = "5s";

pub(super) async fn handle(state: &Arc<HttpState>, call: &Call) -> Result<Response, Failure> {
    state.metrics.count(Counter::HttpNumStatus);
    let tree = serde_json::to_value(assemble(state).await)
        .map_err(|error| Failure::Machine(error.to_string()))?;
    // An empty key selects everything.
    let (tree, pretty) = match call.params.key.as_ref().filter(|key| !key.is_empty()) {
        Some(key) => (select(&tree, key), false),
        None => (tree, call.params.pretty),
    };
    let json = to_go_json(&tree).map_err(|error| Failure::Machine(error.to_string()))?;
    Ok(state.replies.json_maybe_pretty(json, pretty))
}

async fn assemble(state: &HttpState) -> Status {
    let settings = &state.settings;
    let open = state.store.is_open();
    let store = if open {
        state.store.status().await
    } else {
        StoreStatus::opening()
    };
    let process = ProcessStatus {
        archive: state.archive.as_ref().map(Archive::status),
        auto_backups: state.auto_backup.as_ref().map(|backup| backup.status()),
        auto_restore: state.store.auto_restore(),
        build: build(),
        cluster: open.then(|| ClusterStatus {
            addr: settings.raft_addr.clone(),
            api_addr: settings.api_addr.clone(),
            https: is_https(state),
        }),
        disco: state
            .discovery
            .as_ref()
            .filter(|_| open)
            .map(|discovery| discovery.status()),
        // Extensions cannot be loaded.
        extensions: open.then(ExtensionsStatus::default),
        http: http(state),
        last_backup_time: state.last_backup().map(rfc3339),
        mux: open.then(|| MuxStatus {
            addr: settings.raft_addr.clone(),
            handlers: "1".to_owned(),
            timeout: HELLO_TIMEOUT.to_owned(),
            tls: enabled(settings.node_tls_stage.is_some()),
        }),
        network: open.then(host::network),
        node: node(settings.start_time, crate::clock::now()),
        os: host::os(),
        runtime: runtime(),
        security: Some(security(state)),
    };
    Status {
        store,
        process: Some(process),
    }
}

fn build() -> BuildStatus {
    let unknown = |value: Option<&'static str>| value.unwrap_or("unknown").to_owned();
    BuildStatus {
        build_time: unknown(option_env!("RQLITED_BUILD_TIME")),
        commit: unknown(option_env!("RQLITED_COMMIT")),
        compiler_command: "rustc".to_owned(),
        compiler_toolchain: "rust".to_owned(),
        version: crate::VERSION.to_owned(),
    }
}

fn http(state: &HttpState) -> HttpStatus {
    let settings = &state.settings;
    HttpStatus {
        allow_origin: settings.allow_origin.clone(),
        auth: enabled(state.auth.enabled()),
        bind_addr: settings.bind_addr.to_string(),
        cluster: HttpClusterStatus {
            local_node_addr: settings.raft_addr.clone(),
            timeout: duration::format(CLUSTER_TIMEOUT),
        },
        max_connections: settings.max_connections,
        queue: [("_default".to_owned(), state.queue.status())].into(),
        tls: http_tls(state),
    }
}

fn http_tls(state: &HttpState) -> HttpTlsStatus {
    let Some(side) = &state.tls.http else {
        return HttpTlsStatus {
            enabled: false.to_string(),
            ..HttpTlsStatus::default()
        };
    };
    let tls = side.settings();
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let client_auth = if tls.verify_client {
        "RequireAndVerifyClientCert"
    } else {
        "NoClientCert"
    };
    let protocols = Port::Http.alpn().into_iter();
    HttpTlsStatus {
        enabled: true.to_string(),
        client_auth: Some(client_auth.to_owned()),
        cert_file: path(&tls.cert),
        key_file: path(&tls.key),
        ca_file: path(&tls.ca_cert),
        next_protos: protocols
            .map(|name| String::from_utf8_lossy(&name).into_owned())
            .collect(),
    }
}

fn security(state: &HttpState) -> SecurityStatus {
    let settings = &state.settings;
    let describe = |side: &Option<Arc<Side>>| side.as_deref().map(Side::describe);
    SecurityStatus {
        http_tls: describe(&state.tls.http),
        node_tls: describe(&state.tls.node).map(|status| TlsStatus {
            stage: settings.node_tls_stage.map(|stage| stage.name().to_owned()),
            ..status
        }),
        credentials: state.auth.status(),
    }
}

fn is_https(state: &HttpState) -> String {
    state.settings.api_url.starts_with("https:").to_string()
}

fn enabled(is: bool) -> String {
    if is { "enabled" } else { "disabled" }.to_owned()
}

fn node(start: SystemTime, now: SystemTime) -> NodeTimes {
    let uptime = now.duration_since(start).unwrap_or_default();
    NodeTimes {
        current_time: rfc3339(now),
        start_time: rfc3339(start),
        uptime: duration::format(uptime),
    }
}

/// Go's names with this program's equivalents: worker threads and tasks.
fn runtime() -> Value {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let tasks = tokio::runtime::Handle::current().metrics();
    json!({
        "GOARCH": arch,
        "GOMAXPROCS": tasks.num_workers(),
        "GOOS": std::env::consts::OS,
        "kubernetes_hint": std::env::var_os("KUBERNETES_SERVICE_HOST").is_some(),
        "num_cpu": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        "num_goroutine": tasks.num_alive_tasks(),
        "version": "rust",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_is_a_duration() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let shown = node(start, start + Duration::from_millis(90_500));
        assert_eq!(shown.uptime, "1m30.5s");
        assert_eq!(shown.start_time, "2023-11-14T22:13:20Z");
        assert_eq!(node(start, start - Duration::from_secs(1)).uptime, "0s");
    }
}
