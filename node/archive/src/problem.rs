//! Why an object of an archive is refused, always with the object's name.
use thiserror::Error;

/// An object that is not what its name promises.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{object}: {problem}")]
pub struct BadObject {
    /// Its name below the archive's prefix.
    pub object: String,
    /// What is wrong with it.
    pub problem: Problem,
}

impl BadObject {
    /// The object with what is wrong.
    pub fn new(object: &str, problem: Problem) -> Self {
        Self {
            object: object.to_owned(),
            problem,
        }
    }
}

/// What can be wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    /// Shorter than it was written.
    #[error("is truncated: {0}")]
    Truncated(String),
    /// Not the bytes that were written.
    #[error("is damaged: {0}")]
    Damaged(String),
    /// Undamaged, but stored under a name where it does not belong.
    #[error("does not belong here: {0}")]
    Foreign(String),
    /// Written by a newer program.
    #[error("has format {0}, which this rqlited does not know: use a newer rqlited")]
    Newer(u32),
    /// Encrypted with a key that the key file does not have.
    #[error("is encrypted with key {0:?}, which is not in the key file: add that key's line to it")]
    NoSuchKey(String),
    /// Encrypted, and there is no key file.
    #[error("is encrypted with key {0:?}: give the key file that holds it (-archive-key-file)")]
    NoKeys(String),
    /// Encrypted, but the key does not open it.
    #[error(
        "cannot be decrypted with key {0:?}: the object is damaged or was stored under another name, \
         or the key of this id is another one than it was encrypted with"
    )]
    NotAuthentic(String),
    /// Not encrypted although keys are given.
    #[error(
        "is not encrypted, although a key file is given: anybody may have written it. To accept \
         objects from the time before encryption, add the line \"allow-plain\" to the key file"
    )]
    NotEncrypted,
    /// Larger than any object of its kind.
    #[error("has more than {0} bytes, more than any object of its kind")]
    TooLarge(u64),
}

/// Parses bytes whose integrity has been checked as a JSON value.
pub(crate) fn json<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes)
        .map_err(|e| Problem::Damaged(format!("not the JSON expected: {e}")))
}
