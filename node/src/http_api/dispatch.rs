//! Dispatch: parameters, permission and method of a request, then its endpoint.
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use hyper::{Method, StatusCode, http::request::Parts};
use node_api::QueryParams;

use super::{
    backup,
    body::RequestBody,
    boot, check, compare, console, debug,
    error::Failure,
    execute, leader, licenses, load, metrics, nodes,
    param::{self, Call},
    query, readyz, reap, remove,
    reply::{HttpResult, Response},
    request,
    route::{self, Content, Endpoint},
    running, snapshot, sql,
    state::HttpState,
    status,
};
use crate::{
    auth::{Access, LoginFrom},
    metrics::{Counter, Timed},
    store_types::StoreError,
};

/// The address of a client that has none.
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

impl HttpState {
    /// Everything that is decided before the body is read.
    ///
    /// # Errors
    /// The reply, if the request is not passed to its endpoint.
    pub(super) async fn admit(
        &self,
        parts: Parts,
        client: Option<SocketAddr>,
    ) -> Result<Call, Box<Response>> {
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
            let from = LoginFrom::Address(client.map_or(NOWHERE, |client| client.ip()));
            let access = self.auth.check(credentials.as_ref(), route.perms, from);
            match access.await {
                Access::Allowed => self.metrics.count(Counter::HttpAuthOk),
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
        })
    }

    /// Answers any request.
    pub(super) async fn handle(
        self: Arc<Self>,
        request: hyper::Request<impl RequestBody>,
        client: Option<SocketAddr>,
    ) -> HttpResult {
        let started = Instant::now();
        let (parts, body) = request.into_parts();
        let call = match self.admit(parts, client).await {
            Ok(call) => call,
            Err(response) => return Ok(*response),
        };
        let (replied, timed) = match call.route.endpoint {
            Endpoint::Execute => (execute::handle(&self, &call, body).await, Timed::Execute),
            Endpoint::Query => (query::handle(&self, &call, body).await, Timed::Query),
            Endpoint::Request => (request::handle(&self, &call, body).await, Timed::Request),
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
            Endpoint::Snapshot => snapshot::handle(self, call).await,
            Endpoint::Reap => Ok(reap::handle(self)),
            Endpoint::Compare => compare::handle(self, call, &call.caller()).await,
            Endpoint::Check => check::handle(self, call, body).await,
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
