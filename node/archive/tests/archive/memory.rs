//! A store in memory whose answers can be lost.
use std::{cell::Cell, collections::BTreeMap, sync::Mutex};

use bytes::Bytes;
use futures_util::{FutureExt, future, stream};
use node_archive::{
    moment::Moment,
    store::{Created, Listed, Parts, Pending, Store, StoreError},
};

/// What the next write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Nothing happens, and the caller gets an error.
    Refused,
    /// The object is written, and the caller gets an error.
    ReplyLost,
    /// The caller gets an error; the object is created at any time later.
    Late,
}

thread_local! {
    /// Of this test's thread.
    pub(crate) static NEXT: Cell<Fault> = const { Cell::new(Fault::None) };
}

#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) objects: Mutex<BTreeMap<String, Bytes>>,
    late: Mutex<Vec<(String, Bytes)>>,
}

/// Runs what never waits.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().unwrap()
}

fn ready<'a, T: Send + 'a>(result: Result<T, StoreError>) -> Pending<'a, T> {
    Box::pin(future::ready(result))
}

impl Memory {
    fn object(&self, name: &str) -> Result<Bytes, StoreError> {
        let objects = self.objects.lock().unwrap();
        objects.get(name).cloned().ok_or(StoreError::NotFound {
            object: name.to_owned(),
        })
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.objects.lock().unwrap().keys().cloned().collect()
    }

    pub(crate) fn insert(&self, name: &str, content: Bytes) {
        self.objects
            .lock()
            .unwrap()
            .insert(name.to_owned(), content);
    }

    /// The first of the creations that are late arrives.
    pub(crate) fn arrive(&self) {
        let mut late = self.late.lock().unwrap();
        if !late.is_empty() {
            let (name, content) = late.remove(0);
            self.objects.lock().unwrap().entry(name).or_insert(content);
        }
    }

    fn write<T>(
        &self,
        name: &str,
        write: impl FnOnce(&mut BTreeMap<String, Bytes>) -> T,
    ) -> Result<T, StoreError> {
        let fault = NEXT.replace(Fault::None);
        let error = StoreError::Other {
            object: name.to_owned(),
            message: "no answer".to_owned(),
        };
        if matches!(fault, Fault::Refused | Fault::Late) {
            return Err(error);
        }
        let done = write(&mut self.objects.lock().unwrap());
        if fault == Fault::ReplyLost {
            Err(error)
        } else {
            Ok(done)
        }
    }
}

impl Store for Memory {
    fn get<'a>(&'a self, name: &'a str, _: u64) -> Pending<'a, Bytes> {
        ready(self.object(name))
    }

    fn get_first<'a>(&'a self, name: &'a str, bytes: u64) -> Pending<'a, Bytes> {
        ready(
            self.object(name)
                .map(|o| o.slice(..o.len().min(bytes as usize))),
        )
    }

    fn read<'a>(&'a self, name: &'a str) -> Pending<'a, Parts<'a>> {
        ready(self.object(name).map(|object| {
            let parts: Vec<_> = object
                .chunks(100)
                .map(Bytes::copy_from_slice)
                .map(Ok)
                .collect();
            Box::pin(stream::iter(parts)) as Parts<'a>
        }))
    }

    fn create<'a>(&'a self, name: &'a str, content: Bytes) -> Pending<'a, Created> {
        if NEXT.get() == Fault::Late {
            NEXT.set(Fault::Refused);
            self.late
                .lock()
                .unwrap()
                .push((name.to_owned(), content.clone()));
        }
        ready(self.write(name, |objects| {
            if objects.contains_key(name) {
                return Created::No;
            }
            objects.insert(name.to_owned(), content);
            Created::Yes
        }))
    }

    fn put<'a>(&'a self, name: &'a str, content: Bytes) -> Pending<'a, ()> {
        ready(self.write(name, |objects| {
            objects.insert(name.to_owned(), content);
        }))
    }

    fn list<'a>(&'a self, folder: &'a str) -> Pending<'a, Vec<Listed>> {
        let objects = self.objects.lock().unwrap();
        let below = objects
            .iter()
            .filter(|(name, _)| name.starts_with(&format!("{folder}/")));
        let listed = below.map(|(name, content)| Listed {
            name: name.clone(),
            bytes: content.len() as u64,
            modified: Moment(0),
        });
        ready(Ok(listed.collect()))
    }

    fn folders(&self) -> Pending<'_, Vec<String>> {
        let names = self.names();
        let folders = names
            .iter()
            .filter_map(|n| n.split_once('/'))
            .map(|(folder, _)| folder.to_owned());
        let mut folders: Vec<String> = folders.collect();
        folders.dedup();
        ready(Ok(folders))
    }

    fn delete<'a>(&'a self, name: &'a str) -> Pending<'a, ()> {
        ready(self.write(name, |objects| {
            objects.remove(name);
        }))
    }
}
