//! `/debug/vars`: all counters in the format of Go's expvar. `/debug/pprof`: Go's profiles do not exist here.
use std::{collections::BTreeMap, sync::Arc};

use node_api::to_go_json;
use serde_json::json;

use super::{
    error::Failure,
    host,
    param::Call,
    reply::{Response, TEXT},
    state::HttpState,
};

pub(super) fn vars(state: &Arc<HttpState>, call: &Call) -> Result<Response, Failure> {
    let broken = |error: serde_json::Error| Failure::Machine(error.to_string());
    let mut maps = BTreeMap::new();
    for (map, keys) in state.metrics.by_map() {
        maps.insert(map, counters(&keys));
    }
    maps.insert(
        "cmdline",
        to_go_json(&state.settings.command_line).map_err(broken)?,
    );
    maps.insert("memstats", to_go_json(&memory()).map_err(broken)?);
    Ok(state.replies.json(join(
        &maps,
        call.params.key.as_deref().filter(|key| !key.is_empty()),
    )))
}

/// One map, with the spaces that expvar writes.
fn counters(keys: &[(&str, u64)]) -> Vec<u8> {
    let pairs: Vec<String> = keys
        .iter()
        .map(|(key, value)| format!("\"{key}\": {value}"))
        .collect();
    format!("{{{}}}", pairs.join(", ")).into_bytes()
}

/// All maps, or the requested one, each on a line of its own.
fn join(maps: &BTreeMap<&str, Vec<u8>>, key: Option<&str>) -> Vec<u8> {
    let mut out = b"{\n".to_vec();
    let chosen = maps
        .iter()
        .filter(|(name, _)| key.is_none_or(|key| key == **name));
    for (at, (name, value)) in chosen.enumerate() {
        if at > 0 {
            out.extend_from_slice(b",\n");
        }
        out.extend_from_slice(format!("\"{name}\": ").as_bytes());
        out.extend_from_slice(value);
    }
    out.extend_from_slice(b"\n}\n");
    out
}

/// This process's memory use, under those of Go's names that have an equivalent.
fn memory() -> serde_json::Value {
    let memory = host::memory();
    json!({ "Alloc": memory.resident_bytes, "HeapAlloc": memory.resident_bytes, "HeapSys": memory.virtual_bytes, "Sys": memory.virtual_bytes })
}

pub(super) fn profile(state: &Arc<HttpState>, call: &Call) -> Response {
    let text = if call.uri.path() == "/debug/pprof/cmdline" {
        state.settings.command_line.join("\0")
    } else {
        "profiles of this kind exist only for Go programs; use perf on this process, and /metrics for its counters\n".to_owned()
    };
    state.replies.content(TEXT, text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_map_a_line() {
        let maps = BTreeMap::from([
            ("a", counters(&[("x", 1), ("y", 0)])),
            ("b", b"[]".to_vec()),
        ]);
        let text = |key| String::from_utf8(join(&maps, key)).unwrap();
        assert_eq!(
            text(None),
            "{\n\"a\": {\"x\": 1, \"y\": 0},\n\"b\": []\n}\n"
        );
        assert_eq!(text(Some("b")), "{\n\"b\": []\n}\n");
        assert_eq!(text(Some("c")), "{\n\n}\n");
    }
}
