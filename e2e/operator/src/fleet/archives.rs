//! The simulated nodes' archive: what the leader says of it, and restores in place as the leader carries them
//! out.
use serde_json::{Value, json};

/// The archive of one cluster, and its restores.
#[derive(Debug, Default)]
pub(super) struct Archive {
    /// `archive` of the leader's status; none: it has none.
    pub(super) status: Option<Value>,
    /// A restore stays under way until this is false.
    pub(super) is_held: bool,
    /// Requests for restores that were received, in their order.
    pub(super) asked: Vec<Value>,
    /// The restore that runs, or the last one.
    state: Option<Value>,
}

impl Archive {
    /// The reply to a request for a restore: status code and body.
    pub(super) fn restore(&mut self, request: Value, id: &Value, newest: u64) -> (u16, Value) {
        self.asked.push(request.clone());
        if self.status.is_none() {
            return (404, json!(null));
        }
        let is_dry = request["dry_run"] == true;
        if !is_dry && request["confirm"] != *id {
            return (400, json!({ "error": "confirm is not the cluster's id" }));
        }
        let is_running = self.state.as_ref().is_some_and(|s| s["state"] == "running");
        let same = self
            .state
            .as_ref()
            .is_some_and(|s| s["id"] == request["id"]);
        if !is_dry && (is_running || same) {
            return (200, self.state.clone().unwrap_or_default());
        }
        let index = request["to_index"].as_u64().unwrap_or(50);
        if index > newest {
            let why = format!("the archive reaches to index {newest}, not to {index}");
            return (400, json!({ "error": why }));
        }
        let mut state = json!({
            "id": request["id"], "state": "done", "dry_run": is_dry, "lineage": "0",
            "index": index, "time": "2026-11-29T08:00:00Z", "message": "",
            "undone_entries": newest.saturating_sub(index), "undone_seconds": 7,
        });
        if !is_dry {
            state["safety_index"] = newest.into();
            state["state"] = if self.is_held { "running" } else { "done" }.into();
            state["restored_at_index"] = (newest + 1).into();
            self.state = Some(state.clone());
        }
        (200, state)
    }

    /// The restore that runs, or the last one.
    pub(super) fn state(&mut self) -> Value {
        let held = self.is_held;
        let Some(state) = &mut self.state else {
            return json!({ "state": "none", "dry_run": false, "message": "" });
        };
        if !held {
            state["state"] = "done".into();
        }
        state.clone()
    }
}
