//! rqlite's HTTP API, byte for byte, in front of the store.
//!
//! A request goes through `accept.rs` (connections) → `dispatch.rs` (endpoint, parameters, permission,
//! method) → the endpoint's own file → `reply.rs`. Failures become status codes and texts only in `error.rs`.
//!
//! There is no general router: most of rqlite's paths match by prefix, permission is checked before the
//! method, HEAD is not GET, and a 405 has no content. One table in `route.rs` defines that; the three
//! frequent endpoints are matched before it.
mod accept;
mod archive;
mod backup;
mod body;
mod boot;
mod check;
mod client_stream;
mod compare;
mod connections;
mod console;
mod debug;
mod dispatch;
mod error;
mod execute;
mod head_timer;
mod host;
mod leader;
mod licenses;
mod limits;
mod load;
mod memory;
mod metrics;
mod nodes;
mod param;
mod progress;
mod query;
mod readyz;
mod reap;
mod redirect;
mod remove;
mod reply;
mod request;
mod restore;
mod results;
mod route;
mod running;
mod secure;
mod snapshot;
mod sql;
mod state;
mod status;
mod stop_signal;
mod streamed;
mod target;

pub use self::{
    accept::{ServeError, serve},
    state::{HttpServices, HttpSettings},
};
pub(crate) use self::{
    backup::RAFT_INDEX,
    metrics::{OPEN_METRICS, text as metrics_text},
    readyz::describe as describe_readiness,
};

#[cfg(test)]
mod tests;
