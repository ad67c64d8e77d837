//! Errors of a reconcile, and their classes, which are retried differently.
use std::time::Duration;

use operator_api::failure;

use crate::cluster::Failure;

/// Why a reconcile ended early. The next one starts from a new observation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request to the API server failed.
    #[error("{doing}: {}", plain(source))]
    Kubernetes {
        /// The attempted operation.
        doing: String,
        /// The client's error.
        source: Box<kube::Error>,
    },
    /// A request to a node failed.
    #[error("{doing}: {}", failure.message)]
    Node {
        /// The attempted operation.
        doing: String,
        /// The failure.
        failure: Failure,
    },
    /// The object cannot be parsed.
    #[error("the object cannot be read: {0}. Correct it, or delete it and create it again")]
    Unreadable(String),
    /// An observed object has changed since.
    #[error("{0} has changed in the meantime")]
    Changed(String),
    /// The Lease is not held: another operator may be active.
    #[error("the Lease is not held, or expires too soon")]
    NotLeading,
    /// The initial list of a watch has not arrived yet.
    #[error("the watch of {0} is not synced yet; see the log for the reason")]
    NotSynced(&'static str),
    /// The machine gives no random numbers, without which no password or key is made.
    #[error("the machine gives no random numbers: {0}")]
    NoRandomness(String),
    /// No key or certificate could be made.
    #[error("no certificate could be made: {0}")]
    Certificate(String),
    /// The reconcile took too long.
    #[error("not done after {0:?}")]
    TooLong(Duration),
}

/// Cause of a refusal in a namespace that is being deleted.
const NAMESPACE_ENDS: &str = "NamespaceTerminating";

/// How an error is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The observation is outdated: retried at once.
    Conflict,
    /// Overload, an outage, no response: retried with exponential backoff.
    Transient,
    /// The request itself was refused: someone has to change something.
    Refused,
    /// This process does not hold the Lease.
    NotLeading,
}

impl Class {
    /// Value of the label `result` in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Transient => "transient",
            Self::Refused => "refused",
            Self::NotLeading => "not_leading",
        }
    }
}

impl Error {
    /// Wraps an error of the API client.
    pub fn kubernetes(doing: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Kubernetes {
            doing,
            source: Box::new(source),
        }
    }

    /// Whether the API server says that the operator lacks the permission.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Kubernetes { source, .. }
            if matches!(&**source, kube::Error::Api(status) if status.code == 403))
    }

    /// Was the creation of an object refused because its namespace is being deleted?
    pub fn namespace_ends(&self) -> bool {
        let Self::Kubernetes { source, .. } = self else {
            return false;
        };
        let kube::Error::Api(status) = &**source else {
            return false;
        };
        let mut causes = status.details.iter().flat_map(|details| &details.causes);
        status.code == 403 && causes.any(|cause| cause.reason == NAMESPACE_ENDS)
    }

    /// Class of the error.
    pub fn class(&self) -> Class {
        match self {
            Self::Kubernetes { source, .. } => of_kubernetes(source),
            Self::Node { .. }
            | Self::TooLong(_)
            | Self::NotSynced(_)
            | Self::NoRandomness(_)
            | Self::Certificate(_) => Class::Transient,
            Self::Unreadable(_) => Class::Refused,
            Self::Changed(_) => Class::Conflict,
            Self::NotLeading => Class::NotLeading,
        }
    }
}

/// Maximum length of an error text in conditions and events.
const MAX_TEXT_CHARS: usize = 600;

/// The error as one line: the API server's message, or why there is none.
pub fn plain(error: &kube::Error) -> String {
    let text = match error {
        kube::Error::Api(status) => failure::refused(status),
        other => failure::unanswered(other),
    };
    text.chars().take(MAX_TEXT_CHARS).collect()
}

fn of_kubernetes(error: &kube::Error) -> Class {
    match error {
        kube::Error::Api(status) => of_code(status.code),
        kube::Error::SerdeError(_) => Class::Refused,
        _ => Class::Transient,
    }
}

/// Class of an HTTP status. 404 is a conflict: the observed object has been deleted.
fn of_code(code: u16) -> Class {
    match code {
        404 | 409 => Class::Conflict,
        408 | 410 | 429 => Class::Transient,
        400..=499 => Class::Refused,
        _ => Class::Transient,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_plain_line() {
        use kube::core::Status;
        let said = "pods \"demo-0\" is forbidden: exceeded quota: small,\n requested: pods=1";
        let status = Status::failure(said, "Forbidden").with_code(403);
        let error =
            Error::kubernetes("applying StatefulSet demo")(kube::Error::Api(status.boxed()));
        assert_eq!(
            error.to_string(),
            "applying StatefulSet demo: pods \"demo-0\" is forbidden: exceeded quota: small, requested: pods=1"
        );
    }

    #[test]
    fn a_namespace_that_ends_is_told_from_other_refusals() {
        let error = |code: u16, cause: &str| {
            let status = serde_json::json!({ "status": "Failure", "code": code, "reason": "Forbidden",
                "message": "no", "details": { "causes": [{ "reason": cause, "message": "" }] } });
            let status = serde_json::from_value(status).unwrap();
            Error::kubernetes("creating")(kube::Error::Api(status))
        };
        assert!(error(403, "NamespaceTerminating").namespace_ends());
        assert!(!error(403, "QuotaExceeded").namespace_ends());
        assert!(!error(409, "NamespaceTerminating").namespace_ends());
        assert!(!Error::NotLeading.namespace_ends());
    }

    #[test]
    fn codes() {
        let cases = [
            (404, Class::Conflict),
            (409, Class::Conflict),
            (429, Class::Transient),
            (403, Class::Refused),
            (422, Class::Refused),
            (500, Class::Transient),
            (503, Class::Transient),
            (0, Class::Transient),
        ];
        for (code, class) in cases {
            assert_eq!(of_code(code), class, "{code}");
        }
    }
}
