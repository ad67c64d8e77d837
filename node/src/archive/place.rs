//! The archive's store with its keys, and the error of a step.
use node_archive::{
    keys::Keys,
    names,
    problem::{BadObject, Problem},
    reader::{ArchiveError, Reader},
    segment,
};
use node_objects::{ObjectError, Store};

/// The archive's store, and the keys that encrypt and decrypt it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) store: Store,
    pub(super) keys: Option<Keys>,
}

impl Place {
    pub(super) fn reader(&self) -> Reader<'_, Store> {
        Reader {
            store: &self.store,
            keys: self.keys.as_ref(),
        }
    }
}

/// Whether an object is damaged for good. One whose key is missing is not: with the key it can be read.
pub(super) fn is_lost(why: &BadObject) -> bool {
    matches!(
        why.problem,
        Problem::Damaged(_) | Problem::Truncated(_) | Problem::Foreign(_)
    )
}

/// Why a step failed, as text that names the object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Failure(pub(super) String);

macro_rules! failure_from {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self(error.to_string())
            }
        })*
    };
}

failure_from!(
    ObjectError,
    ArchiveError,
    BadObject,
    names::BadLineage,
    std::io::Error,
    segment::Misplaced,
    node_archive::seal::TooLong,
    crate::command::DecodeError
);
