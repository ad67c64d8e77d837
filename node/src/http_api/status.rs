//! `GET /status`: the state of this node.
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use node_api::{status::select, to_go_json};
use node_contract::duration;
use serde_json::{Map, Value, json};

use super::{error::Failure, host, param::Call, reply::Response, state::HttpState};
use crate::{clock::rfc3339, metrics::Counter};

/// Timeout of calls to other nodes for requests without a timeout of their own.
const CLUSTER_TIMEOUT: Duration = node_api::param::DEFAULT_TIMEOUT;
/// Timeout of the hello of a connection on the inter-node port.
const HELLO_TIMEOUT: &str = "5s";

pub(super) async fn handle(state: &Arc<HttpState>, call: &Call) -> Result<Response, Failure> {
    state.metrics.count(Counter::HttpNumStatus);
    let tree = assemble(state).await;
    // An empty key selects everything.
    let (tree, pretty) = match call.params.key.as_ref().filter(|key| !key.is_empty()) {
        Some(key) => (select(&tree, key), false),
        None => (tree, call.params.pretty),
    };
    let json = to_go_json(&tree).map_err(|error| Failure::Machine(error.to_string()))?;
    Ok(state.replies.json_maybe_pretty(json, pretty))
}

async fn assemble(state: &HttpState) -> Value {
    let settings = &state.settings;
    let open = state.store.is_open();
    let store = if open {
        state.store.status().await
    } else {
        json!({ "open": false })
    };
    let mut tree = Map::new();
    let mut put = |key: &str, value: Value| tree.insert(key.to_owned(), value);
    put("build", build());
    put("http", http(state));
    put("node", node(settings.start_time, SystemTime::now()));
    put("os", host::os());
    put("runtime", runtime());
    put("store", store);
    if open {
        let https = settings.api_url.starts_with("https:").to_string();
        put(
            "cluster",
            json!({ "addr": settings.raft_addr, "api_addr": settings.api_addr, "https": https }),
        );
        // Extensions cannot be loaded.
        put("extensions", json!({ "dir": "", "names": [] }));
        let raft_tls = enabled(settings.raft_tls);
        put(
            "mux",
            json!({ "addr": settings.raft_addr, "handlers": "1", "timeout": HELLO_TIMEOUT, "tls": raft_tls }),
        );
        put("network", host::network());
        if let Some(discovery) = &state.discovery {
            put("disco", discovery.status());
        }
    }
    if let Some(at) = state.last_backup() {
        put("last_backup_time", rfc3339(at).into());
    }
    Value::Object(tree)
}

fn build() -> Value {
    let unknown = |value: Option<&'static str>| value.unwrap_or("unknown");
    json!({
        "build_time": unknown(option_env!("RQLITED_BUILD_TIME")),
        "commit": unknown(option_env!("RQLITED_COMMIT")),
        "compiler_command": "rustc",
        "compiler_toolchain": "rust",
        "version": crate::VERSION,
    })
}

fn http(state: &HttpState) -> Value {
    let settings = &state.settings;
    let tls = settings.api_url.starts_with("https:").to_string();
    let mut http = json!({
        "auth": enabled(state.auth.enabled()),
        "bind_addr": settings.bind_addr,
        "cluster": { "local_node_addr": settings.raft_addr, "timeout": duration::format(CLUSTER_TIMEOUT) },
        "max_connections": settings.max_connections,
        "queue": { "_default": state.queue.status() },
        "tls": { "enabled": tls },
    });
    if let Some(origin) = &settings.allow_origin {
        http["allow_origin"] = origin.as_str().into();
    }
    http
}

fn enabled(is: bool) -> &'static str {
    if is { "enabled" } else { "disabled" }
}

fn node(start: SystemTime, now: SystemTime) -> Value {
    let uptime = now.duration_since(start).unwrap_or_default();
    json!({ "current_time": rfc3339(now), "start_time": rfc3339(start), "uptime": duration::format(uptime) })
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
        assert_eq!(shown["uptime"], "1m30.5s");
        assert_eq!(shown["start_time"], "2023-11-14T22:13:20Z");
        assert_eq!(node(start, start - Duration::from_secs(1))["uptime"], "0s");
    }
}
