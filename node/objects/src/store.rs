//! The handle on a store: the objects below one prefix, and what can be done with them.
use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    path::{Path as FilePath, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use object_store::{
    Attribute, Attributes, GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, PutMode,
    PutOptions, PutPayload, UpdateVersion, path::Path,
};

use crate::{
    error::{Kind, ObjectError, explain},
    json::ConfigError,
};

/// Transfer rate below which a request times out.
const SLOWEST_BYTES_PER_SECOND: u64 = 32 << 10;
/// Pause before another attempt to create an object when the store reported a conflict but has none of that
/// name.
const CREATE_PAUSE: Duration = Duration::from_millis(200);
const CREATE_ATTEMPTS: u32 = 5;
/// Most entries of one listing: they are held in memory.
const MAX_LISTED: usize = 1_000_000;

/// Metadata of an object: small texts by name.
pub type Metadata = BTreeMap<String, String>;

/// What identifies one content of an object, for [`Store::update`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub(crate) e_tag: Option<String>,
    pub(crate) version: Option<String>,
}

/// Result of [`Store::create`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// The object holds exactly these bytes (by this call, or already).
    Yes,
    /// There is an object of this name with other bytes; it was left unchanged.
    No,
}

/// Result of [`Store::update`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Updated {
    /// The object holds these bytes.
    Yes,
    /// The object no longer had the given version; it was left unchanged.
    No,
}

/// One line of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name below the store's prefix.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
    /// When it was written, by the store's clock, in milliseconds since 1970.
    pub modified_unix_ms: i64,
}

/// Properties of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Length in bytes.
    pub bytes: u64,
    /// When it was written, by the store's clock, in milliseconds since 1970.
    pub modified_unix_ms: i64,
    /// Identifies the content, for [`Store::update`].
    pub version: Version,
    /// The metadata given to [`Store::put`]; always empty for a folder.
    pub metadata: Metadata,
}

/// A handle on the objects below a prefix. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) backend: Arc<dyn ObjectStore>,
    root: Path,
    place: String,
    is_remote: bool,
    /// The folder that must exist before anything is written.
    pub(crate) folder: Option<PathBuf>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({} below '{}')", self.inner.place, self.inner.root)
    }
}

impl Store {
    /// How long a request is retried.
    pub const PATIENCE: Duration = Duration::from_secs(20);

    /// A handle on any `object_store`: for tests that need a store with faults. `place` is shown in errors.
    ///
    /// # Errors
    /// `prefix` cannot be part of a name.
    pub fn new(
        backend: Arc<dyn ObjectStore>,
        prefix: &str,
        place: String,
        is_remote: bool,
    ) -> Result<Self, ConfigError> {
        let root = Path::parse(prefix.trim_matches('/')).map_err(|e| {
            ConfigError(format!(
                "'{prefix}' cannot be part of an object's name: {e}"
            ))
        })?;
        let inner = Inner {
            backend,
            root,
            place,
            is_remote,
            folder: None,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The same store, which writes nothing while this folder does not exist.
    pub(crate) fn in_folder(&self, folder: &FilePath) -> Self {
        let inner = &self.inner;
        Self {
            inner: Arc::new(Inner {
                backend: Arc::clone(&inner.backend),
                root: inner.root.clone(),
                place: inner.place.clone(),
                is_remote: inner.is_remote,
                folder: Some(folder.to_owned()),
            }),
        }
    }

    /// A store in memory, for tests.
    ///
    /// # Errors
    /// Never.
    pub fn memory() -> Result<Self, ConfigError> {
        let memory = Arc::new(object_store::memory::InMemory::new());
        Self::new(memory, "", "memory".to_owned(), true)
    }

    /// The store below a further prefix.
    ///
    /// # Errors
    /// `prefix` cannot be part of a name.
    pub fn below(&self, prefix: &str) -> Result<Self, ConfigError> {
        let root = format!("{}/{prefix}", self.inner.root);
        let inner = &self.inner;
        let below = Self::new(
            Arc::clone(&inner.backend),
            &root,
            inner.place.clone(),
            inner.is_remote,
        )?;
        Ok(match &inner.folder {
            Some(folder) => below.in_folder(folder),
            None => below,
        })
    }

    /// Bucket and endpoint, or folder: for people.
    pub fn place(&self) -> &str {
        &self.inner.place
    }

    /// Whether [`Self::put`] keeps metadata (a folder does not).
    pub fn keeps_metadata(&self) -> bool {
        self.inner.is_remote
    }

    /// Writes an object, and replaces one of the same name.
    ///
    /// # Errors
    /// See [`ObjectError`].
    pub async fn put(
        &self,
        name: &str,
        bytes: Bytes,
        metadata: &Metadata,
    ) -> Result<(), ObjectError> {
        const DOING: &str = "writing";
        let path = self.path(name, DOING)?;
        let options = PutOptions {
            attributes: self.attributes(metadata),
            ..PutOptions::default()
        };
        let limit = limit_for(bytes.len() as u64);
        self.may_write(&path, DOING).await?;
        let put = self.inner.backend.put_opts(&path, bytes.into(), options);
        self.run(&path, DOING, limit, put).await.map(|_| ())
    }

    /// Writes an object only if there is none of this name. Of concurrent calls one succeeds. If the response
    /// to an attempt was lost, the result is [`Created::Yes`] if the object has these bytes.
    ///
    /// # Errors
    /// See [`ObjectError`].
    pub async fn create(&self, name: &str, bytes: Bytes) -> Result<Created, ObjectError> {
        const DOING: &str = "creating";
        let path = self.path(name, DOING)?;
        self.may_write(&path, DOING).await?;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let options = PutOptions::from(PutMode::Create);
            let payload = PutPayload::from(bytes.clone());
            let limit = limit_for(bytes.len() as u64);
            let put = self.inner.backend.put_opts(&path, payload, options);
            let failed = match self.run(&path, DOING, limit, put).await {
                Ok(_) => return Ok(Created::Yes),
                Err(failed) => failed,
            };
            match failed.kind {
                // S3 responds like this also to concurrent attempts of which none has succeeded yet.
                Kind::Changed => match self.holds(name, &bytes).await? {
                    Some(true) => return Ok(Created::Yes),
                    Some(false) => return Ok(Created::No),
                    None if attempt >= CREATE_ATTEMPTS => return Err(failed),
                    None => {}
                },
                Kind::Unreachable | Kind::Slow if attempt < CREATE_ATTEMPTS => {}
                _ => return Err(failed),
            }
            tokio::time::sleep(CREATE_PAUSE * attempt).await;
        }
    }

    /// Whether the object holds exactly these bytes; `None` if there is none.
    async fn holds(&self, name: &str, bytes: &Bytes) -> Result<Option<bool>, ObjectError> {
        match self.head(name).await? {
            None => Ok(None),
            Some(meta) if meta.bytes != bytes.len() as u64 => Ok(Some(false)),
            Some(meta) => match self.get(name, meta.bytes).await {
                Ok(found) => Ok(Some(found == *bytes)),
                Err(e) if e.kind == Kind::NotFound => Ok(None),
                Err(e) => Err(e),
            },
        }
    }

    /// Writes an object only if it still has this version. In a folder, comparing and writing are two steps,
    /// so use it only for objects that nothing depends on.
    ///
    /// # Errors
    /// See [`ObjectError`].
    pub async fn update(
        &self,
        name: &str,
        bytes: Bytes,
        version: &Version,
    ) -> Result<Updated, ObjectError> {
        const DOING: &str = "updating";
        let path = self.path(name, DOING)?;
        if !self.inner.is_remote {
            let now = self.head(name).await?;
            if now.is_none_or(|now| now.version != *version) {
                return Ok(Updated::No);
            }
            self.put(name, bytes, &Metadata::new()).await?;
            return Ok(Updated::Yes);
        }
        let options = PutOptions::from(PutMode::Update(UpdateVersion {
            e_tag: version.e_tag.clone(),
            version: version.version.clone(),
        }));
        let limit = limit_for(bytes.len() as u64);
        let put = self.inner.backend.put_opts(&path, bytes.into(), options);
        match self.run(&path, DOING, limit, put).await {
            Ok(_) => Ok(Updated::Yes),
            Err(e) if matches!(e.kind, Kind::Changed | Kind::NotFound) => Ok(Updated::No),
            Err(e) => Err(e),
        }
    }

    /// A whole object, which must not be longer than `max_bytes`.
    ///
    /// # Errors
    /// See [`ObjectError`].
    pub async fn get(&self, name: &str, max_bytes: u64) -> Result<Bytes, ObjectError> {
        const DOING: &str = "reading";
        let path = self.path(name, DOING)?;
        let read = async {
            let found = self.inner.backend.get(&path).await?;
            let bytes = found.meta.size;
            if bytes > max_bytes {
                return Ok(Err(bytes));
            }
            found.bytes().await.map(Ok)
        };
        match self.run(&path, DOING, limit_for(max_bytes), read).await? {
            Ok(bytes) => Ok(bytes),
            Err(bytes) => Err(self.error(
                &path,
                DOING,
                Kind::TooLarge,
                format!("it has {bytes} bytes, more than the {max_bytes} that it can have"),
            )),
        }
    }

    /// The bytes from `start` (inclusive) to `end` (exclusive), or fewer if the object ends before.
    ///
    /// # Errors
    /// See [`ObjectError`]; also if `start` is after the object's end.
    pub async fn get_range(&self, name: &str, start: u64, end: u64) -> Result<Bytes, ObjectError> {
        const DOING: &str = "reading";
        let path = self.path(name, DOING)?;
        let options = GetOptions {
            range: Some(GetRange::Bounded(start..end)),
            ..GetOptions::default()
        };
        let read = async {
            let found = self.inner.backend.get_opts(&path, options).await?;
            found.bytes().await
        };
        let limit = limit_for(end.saturating_sub(start));
        self.run(&path, DOING, limit, read).await
    }

    /// The properties of an object; `None` if there is none.
    ///
    /// # Errors
    /// See [`ObjectError`].
    pub async fn head(&self, name: &str) -> Result<Option<Meta>, ObjectError> {
        const DOING: &str = "looking for";
        let path = self.path(name, DOING)?;
        let options = GetOptions {
            head: true,
            ..GetOptions::default()
        };
        let look = self.inner.backend.get_opts(&path, options);
        match self.run(&path, DOING, limit_for(0), look).await {
            Ok(found) => Ok(Some(Meta {
                bytes: found.meta.size,
                modified_unix_ms: found.meta.last_modified.timestamp_millis(),
                version: Version {
                    e_tag: found.meta.e_tag,
                    version: found.meta.version,
                },
                metadata: metadata(&found.attributes),
            })),
            // A response to HEAD has no body, so a missing bucket looks like a missing object.
            Err(e) if e.kind == Kind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// All objects below a folder (`""` for all), sorted by name; with `after`, only those whose names come
    /// after it.
    ///
    /// # Errors
    /// See [`ObjectError`]; also if there are more than a million.
    pub async fn list(&self, folder: &str, after: Option<&str>) -> Result<Vec<Entry>, ObjectError> {
        const DOING: &str = "listing";
        let path = self.path(folder, DOING)?;
        let after = after.map(|name| self.path(name, DOING)).transpose()?;
        let backend = &self.inner.backend;
        let prefix = Some(&path).filter(|path| !path.as_ref().is_empty());
        let mut found = match &after {
            Some(after) => backend.list_with_offset(prefix, after),
            None => backend.list(prefix),
        };
        let mut entries = Vec::new();
        loop {
            let next = self
                .run(&path, DOING, limit_for(0), found.try_next())
                .await?;
            let Some(object) = next else { break };
            if entries.len() >= MAX_LISTED {
                let why = format!("more than {MAX_LISTED} objects");
                return Err(self.error(&path, DOING, Kind::TooLarge, why));
            }
            if let Some(name) = self.name_of(&object.location) {
                entries.push(Entry {
                    name,
                    bytes: object.size,
                    modified_unix_ms: object.last_modified.timestamp_millis(),
                });
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// The folders directly below a folder, sorted, each as a name of this store.
    ///
    /// # Errors
    /// See [`ObjectError`].
    pub async fn folders(&self, folder: &str) -> Result<Vec<String>, ObjectError> {
        const DOING: &str = "listing";
        let path = self.path(folder, DOING)?;
        let prefix = Some(&path).filter(|path| !path.as_ref().is_empty());
        let list = self.inner.backend.list_with_delimiter(prefix);
        let found = self.run(&path, DOING, limit_for(0), list).await?;
        let names = found.common_prefixes.iter();
        let mut names: Vec<String> = names.filter_map(|path| self.name_of(path)).collect();
        names.sort();
        Ok(names)
    }

    /// Deletes an object; succeeds if there is none.
    ///
    /// # Errors
    /// See [`ObjectError`].
    pub async fn delete(&self, name: &str) -> Result<(), ObjectError> {
        const DOING: &str = "deleting";
        let path = self.path(name, DOING)?;
        let deletion = self.inner.backend.delete(&path);
        match self.run(&path, DOING, limit_for(0), deletion).await {
            Err(e) if e.kind == Kind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Checks, by writing an object twice, that the store honours the condition of [`Self::create`]: some
    /// S3-compatible stores ignore it and overwrite. Callers that rely on it against concurrent writers run
    /// this once.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] for a store that overwrites; or another failure.
    pub async fn prove_create_once(&self) -> Result<(), ObjectError> {
        const DOING: &str = "creating twice";
        let name = format!("rqlited-probe-{:016x}", rand::random::<u64>());
        let first = self.create(&name, Bytes::from_static(b"first")).await;
        let second = match first {
            Ok(_) => self.create(&name, Bytes::from_static(b"second!")).await,
            Err(e) => Err(e),
        };
        let deleted = self.delete(&name).await;
        match second {
            Ok(Created::No) => deleted,
            Ok(Created::Yes) => {
                let path = self.path(&name, DOING)?;
                let why = "the store ignores conditional writes (If-None-Match), so two writers could \
                           overwrite each other's objects; use a store or a version of it that honours them";
                Err(self.error(&path, DOING, Kind::Unsupported, why.to_owned()))
            }
            Err(e) => Err(e),
        }
    }

    /// The whole name of an object.
    pub(crate) fn path(&self, name: &str, doing: &'static str) -> Result<Path, ObjectError> {
        let root = self.inner.root.as_ref();
        let whole = match (root, name) {
            ("", name) => name.to_owned(),
            (root, "") => root.to_owned(),
            (root, name) => format!("{root}/{name}"),
        };
        Path::parse(&whole).map_err(|e| ObjectError {
            kind: Kind::Other,
            object: whole,
            place: self.inner.place.clone(),
            doing,
            why: format!("this cannot be an object's name: {e}"),
        })
    }

    fn name_of(&self, path: &Path) -> Option<String> {
        let root = self.inner.root.as_ref();
        let whole = path.as_ref();
        let name = match root {
            "" => Some(whole),
            root => whole.strip_prefix(root)?.strip_prefix('/'),
        };
        name.map(str::to_owned)
    }

    pub(crate) fn attributes(&self, metadata: &Metadata) -> Attributes {
        let mut attributes = Attributes::new();
        if self.keeps_metadata() {
            for (name, value) in metadata {
                let key = Attribute::Metadata(name.clone().into());
                attributes.insert(key, value.clone().into());
            }
        }
        attributes
    }

    /// Runs an operation for at most `limit`, and adds the object and the store to its error.
    pub(crate) async fn run<T>(
        &self,
        path: &Path,
        doing: &'static str,
        limit: Duration,
        operation: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, ObjectError> {
        match tokio::time::timeout(limit, operation).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(e)) => {
                let (kind, why) = explain(&e);
                Err(self.error(path, doing, kind, why))
            }
            Err(_) => {
                let why = format!("no answer within {limit:.0?}");
                Err(self.error(path, doing, Kind::Slow, why))
            }
        }
    }

    /// Fails if the folder of this store does not exist: the backend would create it.
    pub(crate) async fn may_write(
        &self,
        path: &Path,
        doing: &'static str,
    ) -> Result<(), ObjectError> {
        let Some(folder) = &self.inner.folder else {
            return Ok(());
        };
        let look = async { Ok(tokio::fs::metadata(folder).await) };
        match self.run(path, doing, limit_for(0), look).await? {
            Ok(_) => Ok(()),
            Err(e) => {
                let why = format!("the folder is not there (not mounted, or deleted?): {e}");
                Err(self.error(path, doing, Kind::Other, why))
            }
        }
    }

    pub(crate) fn error(
        &self,
        path: &Path,
        doing: &'static str,
        kind: Kind,
        why: String,
    ) -> ObjectError {
        ObjectError {
            kind,
            object: path.to_string(),
            place: self.inner.place.clone(),
            doing,
            why,
        }
    }
}

/// Time limit of a transfer of so many bytes, retries included: [`Store::PATIENCE`], 15 s, and 1 s for each
/// 32 KiB.
pub(crate) fn limit_for(bytes: u64) -> Duration {
    let transfer = bytes / SLOWEST_BYTES_PER_SECOND;
    Store::PATIENCE + Duration::from_secs(15) + Duration::from_secs(transfer)
}

fn metadata(attributes: &Attributes) -> Metadata {
    let named = attributes.iter().filter_map(|(key, value)| match key {
        Attribute::Metadata(name) => Some((name.to_string(), value.to_string())),
        _ => None,
    });
    named.collect()
}

#[cfg(test)]
mod tests;
