//! Dispatch: parameters, permission and method of a request, then its endpoint.
use std::{
    borrow::Cow,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use hyper::{Method, StatusCode, Uri, http::request::Parts};
use node_api::{QueryParams, unescape_path};

use super::{
    archive, backup,
    body::RequestBody,
    boot, check, compare, console, debug,
    error::Failure,
    execute, leader, licenses, load, metrics, nodes,
    param::{self, Call},
    query, readyz, reap, remove,
    reply::{HttpResult, Response},
    request, restore,
    route::{self, Content, Endpoint},
    running, snapshot, sql,
    state::HttpState,
    status,
};
use crate::{
    audit::{Entry, Notes},
    auth::{Access, LoginFrom},
    metrics::{Counter, Timed},
    store_types::StoreError,
};

/// The address of a client that has none.
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// Longest method in the audit log.
const MAX_METHOD_CHARS: usize = 16;

impl HttpState {
    /// Everything that is decided before the body is read.
    ///
    /// # Errors
    /// The reply, if the request is not passed to its endpoint.
    pub(super) async fn admit(
        &self,
        parts: Parts,
        client: Option<SocketAddr>,
        notes: Option<Arc<Notes>>,
    ) -> Result<Call, Box<Response>> {
        let replies = &self.replies;
        let refuse = |failure, content| Box::new(replies.failure(&failure, content));
        if parts.method == Method::OPTIONS {
            return Err(Box::new(replies.empty(StatusCode::OK)));
        }
        let params = QueryParams::parse(parts.uri.query().unwrap_or_default());
        let params = params.map_err(|error| refuse(Failure::Params(error), Content::Later))?;
        let path = path_of(&parts.uri).map_err(|failure| refuse(failure, Content::Later))?;
        if path == "/" {
            let console = replies.redirect(StatusCode::FOUND, console::PATH, &parts.method);
            return Err(Box::new(console));
        }
        let route =
            route::resolve(&path).ok_or_else(|| refuse(Failure::NotFound, Content::Later))?;
        let credentials = param::credentials(&parts.headers);
        if self.auth.enabled() {
            let from = LoginFrom::Address(client.map_or(NOWHERE, |client| client.ip()));
            let access = self.auth.check(credentials.as_ref(), route.perms, from);
            let access = access.await;
            if let Some(notes) = &notes {
                notes.access(access);
            }
            match access {
                Access::Allowed | Access::Anyone => self.metrics.count(Counter::HttpAuthOk),
                Access::Denied => {
                    self.metrics.count(Counter::HttpAuthFail);
                    return Err(refuse(Failure::Denied, route.content));
                }
                Access::Busy(busy) => return Err(refuse(Failure::Logins(busy), Content::Text)),
            }
        }
        if !route.allows(&parts.method) {
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
            notes,
        })
    }

    /// Answers any request.
    pub(super) async fn handle(
        self: Arc<Self>,
        request: hyper::Request<impl RequestBody>,
        client: Option<SocketAddr>,
    ) -> HttpResult {
        let (parts, body) = request.into_parts();
        let Some(audit) = &self.audit else {
            return self.answer(parts, body, client, None).await;
        };
        let pending = audit.begin(audited(&parts, client));
        let notes = pending.notes();
        let replied = self.answer(parts, body, client, Some(Arc::clone(&notes)));
        // Boxed, so that nodes without an audit log keep small futures.
        let replied = Box::pin(replied).await;
        if let Ok(response) = &replied {
            notes.status(response.status().as_u16());
        }
        pending.finish();
        replied
    }

    async fn answer(
        self: &Arc<Self>,
        parts: Parts,
        body: impl RequestBody,
        client: Option<SocketAddr>,
        notes: Option<Arc<Notes>>,
    ) -> HttpResult {
        let started = Instant::now();
        let call = match self.admit(parts, client, notes).await {
            Ok(call) => call,
            Err(response) => return Ok(*response),
        };
        let (replied, timed) = match call.route.endpoint {
            Endpoint::Execute => (execute::handle(self, &call, body).await, Timed::Execute),
            Endpoint::Query => (query::handle(self, &call, body).await, Timed::Query),
            Endpoint::Request => (request::handle(self, &call, body).await, Timed::Request),
            // Boxed, so that the futures of the three frequent endpoints stay small.
            _ => return Ok(Box::pin(self.handle_other(&call, body)).await),
        };
        self.metrics.time(timed, started.elapsed());
        Ok(replied.unwrap_or_else(|failure| self.fail(&call, &failure)))
    }

    async fn handle_other(self: &Arc<Self>, call: &Call, body: impl RequestBody) -> Response {
        let replied = match call.route.endpoint {
            Endpoint::Execute => execute::handle(self, call, body).await,
            Endpoint::Query => query::handle(self, call, body).await,
            Endpoint::Request => request::handle(self, call, body).await,
            Endpoint::Backup => backup::handle(self, call).await,
            Endpoint::Load => load::handle(self, call, body).await,
            Endpoint::Sql => sql::handle(self, call, body).await,
            Endpoint::Boot => boot::handle(self, body).await,
            Endpoint::Archive => archive::handle(self, call),
            Endpoint::Snapshot => snapshot::handle(self, call).await,
            Endpoint::Reap => Ok(reap::handle(self)),
            Endpoint::Compare => compare::handle(self, call, &call.caller()).await,
            Endpoint::Check => check::handle(self, call, body).await,
            Endpoint::Restore => restore::handle(self, call, body).await,
            Endpoint::Remove => remove::handle(self, call, body).await,
            Endpoint::Leader => leader::handle(self, call, body).await,
            Endpoint::Status => status::handle(self, call).await,
            Endpoint::Nodes => nodes::handle(self, call).await,
            Endpoint::Readyz => Ok(readyz::handle(self, call).await),
            Endpoint::Running | Endpoint::EndRunning => running::handle(self, call),
            Endpoint::Licenses => Ok(licenses::handle(self)),
            Endpoint::Vars => debug::vars(self, call),
            Endpoint::Profile => Ok(debug::profile(self, call)),
            Endpoint::Metrics => metrics::handle(self).await,
            Endpoint::Console => console::handle(self, call),
        };
        replied.unwrap_or_else(|failure| self.fail(call, &failure))
    }

    fn fail(&self, call: &Call, failure: &Failure) -> Response {
        if let (Some(notes), Some(error)) = (&call.notes, failure.store_error()) {
            notes.store_error(error);
        }
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
}

/// The path without its escapes.
fn path_of(uri: &Uri) -> Result<Cow<'_, str>, Failure> {
    // A target such as `readyz` is a host's name.
    if uri.path().is_empty() {
        return Err(Failure::Target);
    }
    unescape_path(uri.path()).map_err(Failure::Params)
}

/// What the audit log says of a request before it is served. The path of an unknown endpoint may hold
/// anything, so it is left out.
fn audited(parts: &Parts, client: Option<SocketAddr>) -> Entry {
    let mut entry = Entry {
        port: "http",
        method: parts
            .method
            .as_str()
            .chars()
            .take(MAX_METHOD_CHARS)
            .collect(),
        remote: client,
        ..Entry::default()
    };
    let path = path_of(&parts.uri).unwrap_or_default();
    if let Some(route) = route::resolve(&path) {
        entry.action = route.path();
        entry.set_permissions(route.perms);
    }
    entry.set_user(param::credentials(&parts.headers).as_ref());
    entry
}
