//! Status codes and texts of failures. They are defined only here.
use hyper::StatusCode;
use node_api::{ParamError, ParseError, Reply, admin::InvalidJson};

use super::limits::MAX_BODY_BYTES;
use crate::{auth::Busy, store::check::run::CheckRefusal, store_types::StoreError};

/// Why a request gets no result.
#[derive(Debug)]
pub(super) enum Failure {
    /// The query string is wrong.
    Params(ParamError),
    /// The request's target is not a path.
    Target,
    /// The body does not contain statements.
    Statements(ParseError),
    /// `/db/sql` without `q`.
    QueryMissing,
    /// The body is larger than the endpoint accepts.
    TooLarge,
    /// The body ended early.
    Body(String),
    /// The body arrived too slowly.
    Stalled,
    /// Other bodies hold all the memory for bodies.
    NoMemory,
    /// Too many requests are in progress.
    Overloaded,
    /// The connection was being closed when the request arrived.
    ConnectionClosing,
    /// The caller does not have the permission.
    Denied,
    /// The caller's password was not checked.
    Logins(Busy),
    NotFound,
    Method,
    /// The body of `/remove` is invalid; without a text.
    RemoveBody,
    /// The body of `/leader` is not JSON.
    LeaderBody(InvalidJson),
    /// `redirect` was requested, but no leader is known.
    RedirectWithoutLeader,
    /// A queued write needs a leader.
    QueueWithoutLeader,
    /// A queued write was not completed within `timeout`.
    QueueTimeout,
    /// The node is stopping.
    QueueStopped,
    /// `vacuum` was requested with a format that does not support it.
    BackupFormat,
    /// The path `/db/running/…` has no number.
    RunningId,
    /// No statement with this number is running.
    NotRunning,
    /// The body of `/db/check` is invalid.
    CheckBody,
    /// A check was not started or ended.
    Check(CheckRefusal),
    /// The upload to `/boot` is too short for a database.
    BootTooShort,
    /// The upload to `/boot` is not a database.
    BootData,
    /// `/boot` failed.
    Boot(StoreError),
    /// `/nodes` failed.
    Nodes(StoreError),
    /// `/leader` knows no leader, or the store is not open.
    LeaderUnknown(StoreError),
    /// Any other call failed.
    Call(StoreError),
    /// This machine failed, for example its disk.
    Machine(String),
}

/// The error of `/boot` and `/db/load`, here and in the store, if the upload is not a database.
const INVALID_SQLITE: &str = "invalid SQLite data";
/// The store's error if the upload is a script that not every node can run.
const INVALID_SCRIPT: &str = "invalid SQL text";

impl Failure {
    /// The status code and the text. Without a text the reply is empty.
    pub(super) fn status_and_text(&self) -> (StatusCode, Option<String>) {
        (self.status(), self.text())
    }

    /// The store's error, if it failed.
    pub(super) fn store_error(&self) -> Option<&StoreError> {
        match self {
            Self::Boot(error)
            | Self::Nodes(error)
            | Self::LeaderUnknown(error)
            | Self::Call(error) => Some(error),
            _ => None,
        }
    }

    /// The same request may succeed in a moment.
    pub(super) fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::NoMemory | Self::Overloaded | Self::ConnectionClosing | Self::Logins(_)
        )
    }

    /// The rest of the body is not read, so the connection takes no further request.
    pub(super) fn leaves_body(&self) -> bool {
        matches!(
            self,
            Self::TooLarge | Self::Body(_) | Self::Stalled | Self::NoMemory
        )
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Params(_) | Self::Statements(_) | Self::QueryMissing | Self::Body(_) => {
                StatusCode::BAD_REQUEST
            }
            Self::RemoveBody | Self::LeaderBody(_) | Self::BootData => StatusCode::BAD_REQUEST,
            Self::Boot(error) if error.to_string().starts_with(INVALID_SQLITE) => {
                StatusCode::BAD_REQUEST
            }
            Self::RunningId | Self::CheckBody | Self::Target => StatusCode::BAD_REQUEST,
            Self::Call(StoreError::Refused(text))
                if text.starts_with(INVALID_SQLITE) || text.starts_with(INVALID_SCRIPT) =>
            {
                StatusCode::BAD_REQUEST
            }
            Self::NotRunning | Self::Check(CheckRefusal::NotRunning) => StatusCode::NOT_FOUND,
            Self::Check(CheckRefusal::Busy(_)) => StatusCode::CONFLICT,
            Self::Check(CheckRefusal::Failed(_)) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Denied | Self::Call(StoreError::Unauthorized(_)) => StatusCode::UNAUTHORIZED,
            Self::Logins(Busy::Address) => StatusCode::TOO_MANY_REQUESTS,
            Self::Logins(Busy::Node) => StatusCode::SERVICE_UNAVAILABLE,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::QueueTimeout | Self::Stalled => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge | Self::Call(StoreError::TooLarge(_)) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RedirectWithoutLeader | Self::BackupFormat | Self::Machine(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::QueueWithoutLeader | Self::QueueStopped => StatusCode::SERVICE_UNAVAILABLE,
            Self::NoMemory | Self::Overloaded | Self::ConnectionClosing => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::BootTooShort | Self::Boot(_) | Self::Nodes(_) | Self::LeaderUnknown(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Call(StoreError::LeaderNotFound) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Call(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn text(&self) -> Option<String> {
        Some(match self {
            Self::NotFound | Self::Method | Self::Denied | Self::RemoveBody => return None,
            Self::Params(error) => error.to_string(),
            Self::Statements(error) => error.to_string(),
            Self::LeaderBody(error) => error.to_string(),
            Self::Target => "the request's target does not begin with a slash".to_owned(),
            Self::RunningId => "the path ends with the id that /db/running shows".to_owned(),
            Self::CheckBody => {
                r#"the body must be {"id":"…","limit_seconds":…} with an id of 1 to 128 bytes; the limit is optional"#
                    .to_owned()
            }
            Self::Check(refusal) => refusal.to_string(),
            Self::NotRunning => "nothing of that id is running on this node".to_owned(),
            Self::QueryMissing => "query not specified".to_owned(),
            Self::Body(error) => format!("reading the request body: {error}"),
            Self::Stalled => "the request body came too slowly".to_owned(),
            Self::NoMemory => "too many large request bodies at a time; nothing was done, try it again, or send less at a time".to_owned(),
            Self::Overloaded => "too many requests at a time; nothing was done, try it again".to_owned(),
            Self::ConnectionClosing => "this connection was idle and is closed to make room for others; nothing was done, try it again on a new one".to_owned(),
            Self::Logins(busy) => busy.to_string(),
            Self::TooLarge => format!(
                "request body is larger than {MAX_BODY_BYTES} bytes; send large SQL scripts and database files to /db/load"
            ),
            Self::RedirectWithoutLeader | Self::QueueWithoutLeader => {
                StoreError::LeaderNotFound.to_string()
            }
            Self::QueueTimeout => "queue wait timeout".to_owned(),
            Self::QueueStopped => "queue stopped".to_owned(),
            Self::BackupFormat => "invalid backup format".to_owned(),
            Self::BootTooShort => "EOF".to_owned(),
            Self::BootData => INVALID_SQLITE.to_owned(),
            Self::Nodes(error) => format!("store nodes: {error}"),
            Self::Boot(error) | Self::LeaderUnknown(error) | Self::Call(error) => error.to_string(),
            Self::Machine(error) => error.clone(),
        })
    }
}

/// The reply with which execute, query and request report most failures; its status is 200.
///
/// # Errors
/// Failures that they report with a status code.
pub(super) fn error_reply(error: StoreError) -> Result<Reply, Failure> {
    match error {
        StoreError::LeaderNotFound | StoreError::Unauthorized(_) | StoreError::TooLarge(_) => {
            Err(Failure::Call(error))
        }
        StoreError::NotLeader
        | StoreError::NotOpen
        | StoreError::NotReady
        | StoreError::Unknown(_)
        | StoreError::Refused(_) => Ok(Reply {
            error: Some(error.to_string()),
            ..Reply::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_and_texts() {
        let refused = |text: &str| StoreError::Refused(text.to_owned());
        #[rustfmt::skip]
        let cases = [
            (Failure::NotFound, 404, None),
            (Failure::Method, 405, None),
            (Failure::Denied, 401, None),
            (Failure::RemoveBody, 400, None),
            (Failure::Logins(Busy::Address), 429, Some("too many logins from your address wait; nothing was done, try it again")),
            (Failure::Logins(Busy::Node), 503, Some("too many logins wait; nothing was done, try it again")),
            (Failure::Params(ParamError::Semicolon), 400, Some("invalid semicolon separator in query")),
            (Failure::Statements(ParseError::Empty), 400, Some("no statements")),
            (Failure::RedirectWithoutLeader, 500, Some("leader not found")),
            (Failure::QueueWithoutLeader, 503, Some("leader not found")),
            (Failure::QueueTimeout, 408, Some("queue wait timeout")),
            (Failure::BackupFormat, 500, Some("invalid backup format")),
            (Failure::RunningId, 400, Some("the path ends with the id that /db/running shows")),
            (Failure::NotRunning, 404, Some("nothing of that id is running on this node")),
            (Failure::BootTooShort, 503, Some("EOF")),
            (Failure::BootData, 400, Some("invalid SQLite data")),
            (Failure::Boot(refused("not single-node")), 503, Some("not single-node")),
            (Failure::Boot(refused("invalid SQLite data: malformed")), 400, Some("invalid SQLite data: malformed")),
            (Failure::Boot(StoreError::NotLeader), 503, Some("not leader")),
            (Failure::Call(refused("invalid SQLite data: malformed")), 400, Some("invalid SQLite data: malformed")),
            (Failure::Call(refused("invalid SQL text: no UTF-8")), 400, Some("invalid SQL text: no UTF-8")),
            (Failure::Nodes(StoreError::NotOpen), 503, Some("store nodes: store not open")),
            (Failure::Call(StoreError::LeaderNotFound), 503, Some("leader not found")),
            (Failure::Call(StoreError::Unauthorized("remote load not authorized".to_owned(), )), 401, Some("remote load not authorized")),
            (Failure::Call(StoreError::TooLarge("too large".to_owned())), 413, Some("too large")),
            (Failure::Call(refused("need at least one voter in configuration")), 500, Some("need at least one voter in configuration")),
        ];
        for (failure, status, text) in cases {
            let (got, shown) = failure.status_and_text();
            assert_eq!(
                (got.as_u16(), shown.as_deref()),
                (status, text),
                "{failure:?}"
            );
        }
    }

    #[test]
    fn most_failures_of_statements_are_told_in_the_reply() {
        for error in [
            StoreError::NotLeader,
            StoreError::NotOpen,
            StoreError::NotReady,
            StoreError::Unknown("x".to_owned()),
        ] {
            let text = error.to_string();
            assert_eq!(error_reply(error).unwrap().error, Some(text));
        }
        assert!(error_reply(StoreError::LeaderNotFound).is_err());
        assert!(error_reply(StoreError::Unauthorized("x".to_owned())).is_err());
    }
}
