//! Failures in words.
use object_store::Error;
use reqwest::StatusCode;

use crate::error::causes;

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
    let mut text = causes("error sending request", error);
    if error.is_timeout() && !text.contains("timed out") {
        text.push_str(": timed out");
    }
    text
}
