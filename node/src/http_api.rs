//! The HTTP edge: rqlite's API, byte for byte, in front of the store.
//!
//! A request goes through `accept.rs` (connections) → `route.rs` (which endpoint) → here (parameters, permission, method) → the
//! endpoint's own file → `reply.rs`. Failures become statuses and texts in `error.rs` alone.
//!
//! No general router: most of rqlite's paths match by prefix, permission is checked before the method, HEAD is not GET, and a 405
//! carries nothing. One table says all of that, and the three endpoints that carry the load are matched before it.
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Instant, SystemTime},
};

use hyper::{Method, StatusCode, http::request::Parts};
use node_api::{QueryParams, Reply};

use self::{
    body::RequestBody,
    error::Failure,
    memory::Memory,
    param::Call,
    reply::{Answered, Replies, Response, shape},
    route::{Content, Endpoint},
};
use crate::{
    auth::Auth,
    discovery::Discovery,
    metrics::{Counter, Metrics, Timed},
    store::{ReadResponse, Store, queue::Queue},
    store_types::{Served, StoreError},
};

mod accept;
mod backup;
mod bell;
mod body;
mod boot;
mod compare;
mod console;
mod crowd;
mod debug;
mod doorway;
mod error;
mod execute;
mod head_timer;
mod host;
mod large;
mod leader;
mod licenses;
mod load;
mod memory;
mod metrics;
mod nodes;
mod pace;
mod param;
mod query;
mod readyz;
mod reap;
mod redirect;
mod remove;
mod reply;
mod request;
mod route;
mod running;
mod snapshot;
mod sql;
mod status;
mod target;

pub use accept::{ServeError, serve, serve_wrapped};

/// What the edge needs to know about this node.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// Value of `Access-Control-Allow-Origin`; `None` leaves the header out.
    pub allow_origin: Option<String>,
    /// Advertised HTTP address, `host:port`.
    pub api_addr: String,
    /// The same as a URL, for example `http://host:4001`.
    pub api_url: String,
    /// Where the HTTP listener is bound.
    pub bind_addr: String,
    /// Advertised Raft address.
    pub raft_addr: String,
    /// Where uploads are kept while they are taken in; the disk of the database.
    pub data_dir: PathBuf,
    /// Connections at a time.
    pub max_connections: usize,
    /// Connections between nodes are encrypted.
    pub raft_tls: bool,
    /// When this process started.
    pub start_time: SystemTime,
    /// Program and arguments, shown by `/debug/vars`.
    pub command_line: Vec<String>,
}

/// The rooms behind the edge.
#[derive(Clone, Debug)]
pub struct HttpState {
    /// The database.
    pub store: Store,
    /// Who may do what.
    pub auth: Arc<Auth>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Queued writes.
    pub queue: Queue,
    /// This node.
    pub settings: HttpSettings,
    /// How it finds others, if it was told to; for `/status`.
    pub discovery: Option<Arc<Discovery>>,
}

/// The edge at work: the rooms behind it and what is prepared once.
#[derive(Debug)]
struct Edge {
    store: Store,
    auth: Arc<Auth>,
    metrics: Arc<Metrics>,
    queue: Queue,
    settings: HttpSettings,
    discovery: Option<Arc<Discovery>>,
    replies: Replies,
    memory: Memory,
    last_backup: Mutex<Option<SystemTime>>,
}

impl Edge {
    fn new(state: HttpState) -> Result<Self, ServeError> {
        let HttpState {
            store,
            auth,
            metrics,
            queue,
            settings,
            discovery,
        } = state;
        let replies = Replies::new(
            settings.allow_origin.as_deref(),
            &settings.api_addr,
            auth.enabled(),
        )
        .map_err(ServeError::Header)?;
        Ok(Self {
            discovery,
            store,
            auth,
            metrics,
            queue,
            settings,
            replies,
            memory: Memory::default(),
            last_backup: Mutex::new(None),
        })
    }

    fn note_backup(&self, at: SystemTime) {
        *self
            .last_backup
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(at);
    }

    fn last_backup(&self) -> Option<SystemTime> {
        *self
            .last_backup
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Who serves what only the leader can: this node's HTTP address if it leads, else the leader's Raft address.
    fn leader_address(&self) -> String {
        match self.store.leader() {
            Some(leader) if !self.store.is_leader() => leader.raft_addr,
            _ => self.settings.api_addr.clone(),
        }
    }

    /// Everything that is decided before the body is looked at.
    ///
    /// # Errors
    /// The reply, if that is all the request gets.
    fn admit(&self, parts: Parts, client: Option<SocketAddr>) -> Result<Call, Box<Response>> {
        let replies = &self.replies;
        let refuse = |failure, content| Box::new(replies.failure(&failure, content));
        if parts.method == Method::OPTIONS {
            return Err(Box::new(replies.empty(StatusCode::OK)));
        }
        let params = QueryParams::parse(parts.uri.query().unwrap_or_default());
        let params = params.map_err(|error| refuse(Failure::Params(error), Content::Later))?;
        let path = parts.uri.path();
        if path.is_empty() || path == "/" {
            let console = replies.redirect(StatusCode::FOUND, console::PATH, &parts.method);
            return Err(Box::new(console));
        }
        let route =
            route::resolve(path).ok_or_else(|| refuse(Failure::NotFound, Content::Later))?;
        let credentials = param::credentials(&parts.headers);
        if self.auth.enabled() {
            let allowed = route
                .perms
                .iter()
                .all(|perm| self.auth.allows(credentials.as_ref(), *perm));
            self.metrics.count(if allowed {
                Counter::HttpAuthOk
            } else {
                Counter::HttpAuthFail
            });
            if !allowed {
                return Err(refuse(Failure::Denied, route.content));
            }
        }
        if !route.takes(&parts.method) {
            return Err(refuse(Failure::Method, route.content));
        }
        Ok(Call {
            route,
            method: parts.method,
            uri: parts.uri,
            headers: parts.headers,
            params,
            credentials,
            client,
        })
    }

    /// Answers any request.
    async fn answer(
        self: Arc<Self>,
        request: hyper::Request<impl RequestBody>,
        client: Option<SocketAddr>,
    ) -> Answered {
        let started = Instant::now();
        let (parts, body) = request.into_parts();
        let call = match self.admit(parts, client) {
            Ok(call) => call,
            Err(response) => return Ok(*response),
        };
        let (answered, timed) = match call.route.endpoint {
            Endpoint::Execute => (execute::answer(&self, &call, body).await, Timed::Execute),
            Endpoint::Query => (query::answer(&self, &call, body).await, Timed::Query),
            Endpoint::Request => (request::answer(&self, &call, body).await, Timed::Request),
            // Boxed, so that the three above do not carry the room that the others need.
            _ => return Ok(Box::pin(self.answer_other(&call, body)).await),
        };
        self.metrics.time(timed, started.elapsed());
        Ok(answered.unwrap_or_else(|failure| self.fail(&call, &failure)))
    }

    async fn answer_other(self: &Arc<Self>, call: &Call, body: impl RequestBody) -> Response {
        let answered = match call.route.endpoint {
            Endpoint::Execute => execute::answer(self, call, body).await,
            Endpoint::Query => query::answer(self, call, body).await,
            Endpoint::Request => request::answer(self, call, body).await,
            Endpoint::Backup => backup::answer(self, call).await,
            Endpoint::Load => load::answer(self, call, body).await,
            Endpoint::Sql => sql::answer(self, call, body).await,
            Endpoint::Boot => boot::answer(self, body).await,
            Endpoint::Snapshot => snapshot::answer(self, call).await,
            Endpoint::Reap => Ok(reap::answer(self)),
            Endpoint::Compare => compare::answer(self, call, &call.caller()).await,
            Endpoint::Remove => remove::answer(self, call, body).await,
            Endpoint::Leader => leader::answer(self, call, body).await,
            Endpoint::Status => status::answer(self, call).await,
            Endpoint::Nodes => nodes::answer(self, call).await,
            Endpoint::Readyz => Ok(readyz::answer(self, call).await),
            Endpoint::Running | Endpoint::EndRunning => running::answer(self, call),
            Endpoint::Licenses => Ok(licenses::answer(self)),
            Endpoint::Vars => debug::vars(self, call),
            Endpoint::Profile => Ok(debug::profile(self, call)),
            Endpoint::Metrics => metrics::answer(self).await,
            Endpoint::Console => console::answer(self, call),
        };
        answered.unwrap_or_else(|failure| self.fail(call, &failure))
    }

    fn fail(&self, call: &Call, failure: &Failure) -> Response {
        if matches!(
            failure,
            Failure::Call(StoreError::LeaderNotFound)
                | Failure::QueueWithoutLeader
                | Failure::RedirectWithoutLeader
        ) {
            self.metrics.count(Counter::HttpLeaderNotFound);
        }
        self.replies.failure(failure, call.route.content)
    }

    /// The reply of query and request.
    fn answered(
        &self,
        call: &Call,
        answered: Result<ReadResponse, StoreError>,
        started: Instant,
    ) -> Result<Response, Failure> {
        let streamed = match answered {
            Ok(ReadResponse::Parts(streamed)) => streamed,
            Ok(ReadResponse::Whole(served)) => return self.results(call, Ok(served), started),
            Err(error) => return self.results(call, Err(error), started),
        };
        let endpoint = call.route.endpoint;
        if streamed.served_by != self.settings.api_addr {
            self.metrics.count(remote_counter(endpoint));
        }
        let served_by = streamed.served_by.clone();
        let timed = call.params.timings.then_some(started);
        let body = large::body(streamed, shape(&call.params, endpoint), timed);
        let response = self.replies.content(reply::JSON, body);
        Ok(self.replies.served_by(response, &served_by))
    }

    /// The reply of execute, and of what came whole.
    fn results(
        &self,
        call: &Call,
        outcome: Result<Served, StoreError>,
        started: Instant,
    ) -> Result<Response, Failure> {
        let endpoint = call.route.endpoint;
        let (mut reply, served_by) = match outcome {
            Ok(Served {
                results,
                error,
                raft_index,
                served_by,
            }) => {
                if served_by != self.settings.api_addr {
                    self.metrics.count(remote_counter(endpoint));
                }
                let raft_index = raft_index.filter(|_| call.params.raft_index);
                (
                    Reply {
                        results,
                        error,
                        raft_index,
                        ..Reply::default()
                    },
                    Some(served_by),
                )
            }
            Err(error) => {
                if !matches!(error, StoreError::LeaderNotFound) && !self.store.is_leader() {
                    self.metrics.count(remote_failure_counter(endpoint));
                }
                (error::told_in_reply(error)?, None)
            }
        };
        if call.params.timings {
            reply.time_secs = Some(started.elapsed().as_secs_f64());
        }
        Ok(self
            .replies
            .results(&reply, &shape(&call.params, endpoint), served_by.as_deref()))
    }
}

fn remote_counter(endpoint: Endpoint) -> Counter {
    match endpoint {
        Endpoint::Execute => Counter::ProxyRemoteExecutions,
        Endpoint::Query => Counter::ProxyRemoteQueries,
        _ => Counter::ProxyRemoteRequests,
    }
}

fn remote_failure_counter(endpoint: Endpoint) -> Counter {
    match endpoint {
        Endpoint::Execute => Counter::ProxyRemoteExecutionsFailed,
        Endpoint::Query => Counter::ProxyRemoteQueriesFailed,
        _ => Counter::ProxyRemoteRequestsFailed,
    }
}

#[cfg(test)]
mod tests;
