//! The operations that the archive needs of an object store. Names are relative to the archive's prefix.
use std::{future::Future, pin::Pin};

use bytes::Bytes;
use futures_util::Stream;
use thiserror::Error;

use crate::moment::Moment;

/// A future of a store.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;
/// Bytes of an object as they arrive.
pub type Parts<'a> = Pin<Box<dyn Stream<Item = Result<Bytes, StoreError>> + Send + 'a>>;

/// A request that the store did not fulfil, after its own retries.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoreError {
    /// There is no such object.
    #[error("{object}: there is no such object")]
    NotFound {
        /// Its name.
        object: String,
    },
    /// Anything else. A write may have taken effect nevertheless.
    #[error("{}{message}", begun(object))]
    Other {
        /// The object's name, or the beginning of the names listed.
        object: String,
        /// The store's error.
        message: String,
    },
}

/// How an error's text begins; a listing of everything has no name.
fn begun(object: &str) -> String {
    match object {
        "" => String::new(),
        object => format!("{object}: "),
    }
}

/// Result of [`Store::create`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// The object holds these bytes.
    Yes,
    /// There is an object of this name with other bytes; it was left unchanged.
    No,
}

/// An object in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub bytes: u64,
    /// When it was last written, by the store's clock.
    pub modified: Moment,
}

/// A store of objects.
pub trait Store: Send + Sync {
    /// A whole object; fails if it has more than `limit` bytes.
    fn get<'a>(&'a self, name: &'a str, limit: u64) -> Pending<'a, Bytes>;
    /// The first bytes of an object; fewer if it ends before.
    fn get_first<'a>(&'a self, name: &'a str, bytes: u64) -> Pending<'a, Bytes>;
    /// An object's bytes as they arrive.
    fn read<'a>(&'a self, name: &'a str) -> Pending<'a, Parts<'a>>;
    /// Creates an object, atomically, unless there is one of this name.
    fn create<'a>(&'a self, name: &'a str, content: Bytes) -> Pending<'a, Created>;
    /// Creates or replaces a small object on which no decision depends, such as the manifest.
    fn put<'a>(&'a self, name: &'a str, content: Bytes) -> Pending<'a, ()>;
    /// The objects below a folder (empty: all), in the order of their names.
    fn list<'a>(&'a self, folder: &'a str) -> Pending<'a, Vec<Listed>>;
    /// The folders right below the archive's prefix.
    fn folders(&self) -> Pending<'_, Vec<String>>;
    /// Deletes an object; one that is not there counts as deleted.
    fn delete<'a>(&'a self, name: &'a str) -> Pending<'a, ()>;
}
