//! Why a pass could not be carried out, in classes that are treated differently.
use std::time::Duration;

use crate::cluster::Failure;

/// Why a pass ended early. The next pass begins from what is then seen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server did not do what was asked.
    #[error("{doing}: {source}")]
    Kubernetes {
        /// What was being done.
        doing: String,
        /// Its answer.
        source: Box<kube::Error>,
    },
    /// A node did not do what was asked.
    #[error("{doing}: {}", failure.message)]
    Node {
        /// What was being done.
        doing: String,
        /// Its answer.
        failure: Failure,
    },
    /// The object cannot be read.
    #[error("the object cannot be read: {0}. Correct it, or delete it and create it again")]
    Unreadable(String),
    /// Something that was looked at is another thing by now.
    #[error("{0} has changed meanwhile")]
    Changed(String),
    /// Another operator may be at work.
    #[error("the Lease is not safely held")]
    NotLeading,
    /// A watch has not delivered everything yet.
    #[error("the watch of {0} has not delivered yet; see the log for why")]
    NotSynced(&'static str),
    /// The pass took too long.
    #[error("not done after {0:?}")]
    TooLong(Duration),
}

/// What an error means for the next pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// What was seen is outdated: look again at once.
    Conflict,
    /// Overload, an outage, no answer: wait, longer each time.
    Transient,
    /// Refused for what was asked: somebody has to change something.
    Refused,
    /// This process is not the one that acts.
    NotLeading,
}

impl Class {
    /// Its name in metrics.
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
    /// Wraps an answer of the API server.
    pub fn kubernetes(doing: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Kubernetes {
            doing,
            source: Box::new(source),
        }
    }

    /// Its class.
    pub fn class(&self) -> Class {
        match self {
            Self::Kubernetes { source, .. } => of_kubernetes(source),
            Self::Node { .. } | Self::TooLong(_) | Self::NotSynced(_) => Class::Transient,
            Self::Unreadable(_) => Class::Refused,
            Self::Changed(_) => Class::Conflict,
            Self::NotLeading => Class::NotLeading,
        }
    }
}

fn of_kubernetes(error: &kube::Error) -> Class {
    match error {
        kube::Error::Api(status) => of_code(status.code),
        kube::Error::SerdeError(_) => Class::Refused,
        _ => Class::Transient,
    }
}

/// 404 as well: what was looked at is gone.
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
