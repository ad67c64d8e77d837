//! Failures in words.
use std::error::Error as _;

use object_store::Error;
use reqwest::StatusCode;

/// A failure in `object_store`'s terms.
pub(super) fn failure(path: &str, why: &str, status: Option<StatusCode>) -> Error {
    let (path, source) = (path.to_owned(), why.to_owned().into());
    match status {
        Some(StatusCode::NOT_FOUND) => Error::NotFound { path, source },
        Some(StatusCode::PRECONDITION_FAILED) => Error::Precondition { path, source },
        Some(StatusCode::UNAUTHORIZED) => Error::Unauthenticated { path, source },
        Some(StatusCode::FORBIDDEN) => Error::PermissionDenied { path, source },
        _ => Error::Generic {
            store: "GCS",
            source,
        },
    }
}

/// An error with its causes, without the URL.
pub(super) fn chain(error: &reqwest::Error) -> String {
    let mut text = "error sending request".to_owned();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    if error.is_timeout() && !text.contains("timed out") {
        text.push_str(": timed out");
    }
    text
}
