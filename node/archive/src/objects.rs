//! [`Store`] by the stores of `node-objects`: S3, GCS, Azure, a folder.
use bytes::Bytes;
use futures_util::stream;
use node_objects::{Kind, Metadata, ObjectError};

use crate::{
    moment::Moment,
    store::{Created, Listed, Parts, Pending, Store, StoreError},
};

/// The error with the object's name below the archive's prefix.
fn named(object: &str, error: &ObjectError) -> StoreError {
    let object = object.to_owned();
    match error.kind {
        Kind::NotFound => StoreError::NotFound { object },
        _ => StoreError::Other {
            object,
            message: error.to_string(),
        },
    }
}

impl Store for node_objects::Store {
    fn get<'a>(&'a self, name: &'a str, limit: u64) -> Pending<'a, Bytes> {
        Box::pin(async move {
            Self::get(self, name, limit)
                .await
                .map_err(|e| named(name, &e))
        })
    }

    fn get_first<'a>(&'a self, name: &'a str, bytes: u64) -> Pending<'a, Bytes> {
        Box::pin(async move {
            let read = self.get_range(name, 0, bytes).await;
            read.map_err(|e| named(name, &e))
        })
    }

    fn read<'a>(&'a self, name: &'a str) -> Pending<'a, Parts<'a>> {
        Box::pin(async move {
            let reader = Self::read(self, name, 0).await;
            let reader = reader.map_err(|e| named(name, &e))?;
            let parts = stream::try_unfold(reader, move |mut reader| async move {
                let part = reader.next().await.map_err(|e| named(name, &e))?;
                Ok(part.map(|part| (part, reader)))
            });
            Ok(Box::pin(parts) as Parts<'a>)
        })
    }

    fn create<'a>(&'a self, name: &'a str, content: Bytes) -> Pending<'a, Created> {
        Box::pin(async move {
            match Self::create(self, name, content).await {
                Ok(node_objects::Created::Yes) => Ok(Created::Yes),
                Ok(node_objects::Created::No) => Ok(Created::No),
                Err(e) => Err(named(name, &e)),
            }
        })
    }

    fn put<'a>(&'a self, name: &'a str, content: Bytes) -> Pending<'a, ()> {
        Box::pin(async move {
            let put = Self::put(self, name, content, &Metadata::new()).await;
            put.map_err(|e| named(name, &e))
        })
    }

    fn list<'a>(&'a self, folder: &'a str) -> Pending<'a, Vec<Listed>> {
        Box::pin(async move {
            let found = Self::list(self, folder, None).await;
            let found = found.map_err(|e| named(folder, &e))?;
            let listed = found.into_iter().map(|entry| Listed {
                name: entry.name,
                bytes: entry.bytes,
                modified: Moment(entry.modified_unix_ms.saturating_mul(1000)),
            });
            Ok(listed.collect())
        })
    }

    fn folders(&self) -> Pending<'_, Vec<String>> {
        Box::pin(async move { Self::folders(self, "").await.map_err(|e| named("", &e)) })
    }

    fn delete<'a>(&'a self, name: &'a str) -> Pending<'a, ()> {
        Box::pin(async move { Self::delete(self, name).await.map_err(|e| named(name, &e)) })
    }
}
