//! Replies to execute, query and request: results of statements and their errors.
use std::time::Instant;

use node_api::Reply;
use node_values::StatementResult;

use super::{
    error::{Failure, error_reply},
    param::Call,
    reply::{self, Response, shape},
    route::Endpoint,
    state::HttpState,
    streamed,
};
use crate::{
    metrics::Counter,
    store::ReadResponse,
    store_types::{Served, StoreError},
};

impl HttpState {
    /// The reply to a query or a request, whose result may come in parts.
    pub(super) fn read_reply(
        &self,
        call: &Call,
        response: Result<ReadResponse, StoreError>,
        started: Instant,
    ) -> Result<Response, Failure> {
        let streamed = match response {
            Ok(ReadResponse::Parts(streamed)) => streamed,
            Ok(ReadResponse::Whole(served)) => {
                return self.results_reply(call, Ok(served), started);
            }
            Err(error) => return self.results_reply(call, Err(error), started),
        };
        let endpoint = call.route.endpoint;
        if streamed.served_by != self.settings.api_addr {
            self.metrics.count(remote_counter(endpoint));
        }
        let served_by = streamed.served_by.clone();
        let timed = call.params.timings.then_some(started);
        let body = streamed::body(streamed, shape(&call.params, endpoint), timed);
        let response = self.replies.content(reply::JSON, body);
        Ok(self.replies.served_by(response, &served_by))
    }

    /// The reply to an execute, and to a query or a request with a complete result.
    pub(super) fn results_reply(
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
                (error_reply(error)?, None)
            }
        };
        let failed = reply
            .results
            .iter()
            .filter(|result| matches!(result, StatementResult::Error(_)));
        call.note_failed(failed.count() + usize::from(reply.error.is_some()));
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
