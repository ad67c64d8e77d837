//! Failures as status codes and texts: the only place where either is decided.
use hyper::StatusCode;
use node_api::{ParamError, ParseError, Reply, admin::InvalidJson};

use super::body::MAX_BODY_BYTES;
use crate::store_types::StoreError;

/// Why a request is not answered with its result.
#[derive(Debug)]
pub(super) enum Failure {
    /// The query string is wrong.
    Params(ParamError),
    /// The body does not hold statements.
    Statements(ParseError),
    /// `/db/sql` without `q`.
    QueryMissing,
    /// The body is larger than the endpoint takes.
    TooLarge,
    /// The body broke off.
    Body(String),
    /// The body came too slowly.
    Stalled,
    /// Other bodies have all the memory that there is for them.
    NoMemory,
    /// Other requests have all places.
    Crowded,
    /// The connection had been given away when the request came.
    SentAway,
    /// The caller may not do this here.
    Denied,
    NotFound,
    Method,
    /// The body of `/remove` is not what it should be; no text.
    RemoveBody,
    /// The body of `/leader` is not JSON.
    LeaderBody(InvalidJson),
    /// `redirect` was asked but there is nowhere to go.
    RedirectWithoutLeader,
    /// A queued write needs a leader.
    QueueWithoutLeader,
    /// A queued write was not decided within `timeout`.
    QueueTimeout,
    /// The node stops.
    QueueStopped,
    /// `vacuum` with a format that knows none.
    BackupFormat,
    /// `/db/running/…` without a number.
    RunningId,
    /// Nothing of that number is running.
    NotRunning,
    /// `/boot` was given too little to be a database.
    BootTooShort,
    /// `/boot` was given something else than a database.
    BootData,
    /// `/boot` failed.
    Boot(StoreError),
    /// `/nodes` failed.
    Nodes(StoreError),
    /// `/leader` knows no leader, or the store is not open.
    LeaderUnknown(StoreError),
    /// Any other call failed.
    Call(StoreError),
    /// This machine failed: a disk, mostly.
    Machine(String),
}

/// What `/boot` says when the upload is no database, here and in the store.
const INVALID_SQLITE: &str = "invalid SQLite data";

impl Failure {
    /// The status code, and the text if there is one. Without a text the reply is empty.
    pub(super) fn answer(&self) -> (StatusCode, Option<String>) {
        (self.status(), self.text())
    }

    /// It may work in a moment.
    pub(super) fn is_of_the_moment(&self) -> bool {
        matches!(self, Self::NoMemory | Self::Crowded | Self::SentAway)
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
            Self::RunningId => StatusCode::BAD_REQUEST,
            Self::NotRunning => StatusCode::NOT_FOUND,
            Self::Denied | Self::Call(StoreError::Unauthorized(_)) => StatusCode::UNAUTHORIZED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::QueueTimeout | Self::Stalled => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge | Self::Call(StoreError::TooLarge(_)) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RedirectWithoutLeader | Self::BackupFormat | Self::Machine(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::QueueWithoutLeader | Self::QueueStopped => StatusCode::SERVICE_UNAVAILABLE,
            Self::NoMemory | Self::Crowded | Self::SentAway => StatusCode::SERVICE_UNAVAILABLE,
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
            Self::RunningId => "the path ends with the id that /db/running shows".to_owned(),
            Self::NotRunning => "nothing of that id is running on this node".to_owned(),
            Self::QueryMissing => "query not specified".to_owned(),
            Self::Body(error) => format!("reading the request body: {error}"),
            Self::Stalled => "the request body came too slowly".to_owned(),
            Self::NoMemory => "too many large request bodies at a time; nothing was done, try it again, or send less at a time".to_owned(),
            Self::Crowded => "too many requests at a time; nothing was done, try it again".to_owned(),
            Self::SentAway => "this connection was idle and is closed to make room for others; nothing was done, try it again on a new one".to_owned(),
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

/// Execute, query and request tell most failures in a reply with status 200.
///
/// # Errors
/// What they tell with a status code.
pub(super) fn told_in_reply(error: StoreError) -> Result<Reply, Failure> {
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
            (Failure::Nodes(StoreError::NotOpen), 503, Some("store nodes: store not open")),
            (Failure::Call(StoreError::LeaderNotFound), 503, Some("leader not found")),
            (Failure::Call(StoreError::Unauthorized("remote load not authorized".to_owned(), )), 401, Some("remote load not authorized")),
            (Failure::Call(StoreError::TooLarge("too large".to_owned())), 413, Some("too large")),
            (Failure::Call(refused("need at least one voter in configuration")), 500, Some("need at least one voter in configuration")),
        ];
        for (failure, status, text) in cases {
            let (got, told) = failure.answer();
            assert_eq!(
                (got.as_u16(), told.as_deref()),
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
            assert_eq!(told_in_reply(error).unwrap().error, Some(text));
        }
        assert!(told_in_reply(StoreError::LeaderNotFound).is_err());
        assert!(told_in_reply(StoreError::Unauthorized("x".to_owned())).is_err());
    }
}
