//! Which copy is at the target: its id is in the object's metadata, or for a folder in `METADATA.json`.
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use node_objects::{ConfigError, Metadata, ObjectError, Store, Target};
use serde_json::{Value, json};

use super::settings::{AutoBackupSettings, METADATA_FILE};
use crate::clock::compact_utc;

const MAX_METADATA_BYTES: u64 = 64 << 10;

/// Name of the id in an object's metadata.
pub(super) fn id_key(target: &Target) -> String {
    target.metadata_key("rqlite-auto-backup-id")
}

/// The name of an object made at this time: `name`, or with `timestamp` `YYYYMMDDhhmmss_name`.
pub(crate) fn name_at(name: &str, timestamp: bool, at: SystemTime) -> String {
    match timestamp {
        true => format!("{}_{name}", compact_utc(at)),
        false => name.to_owned(),
    }
}

/// The folder or prefix that holds the copies.
#[derive(Debug)]
pub(super) struct KeptCopy {
    store: Store,
    name: String,
    /// The folder's path for `METADATA.json`; `None` for other targets.
    dir: Option<std::path::PathBuf>,
}

impl KeptCopy {
    pub(super) fn open(target: &Target) -> Result<Self, ConfigError> {
        target.make_folder()?;
        let (store, name) = target.open_object()?;
        let dir = match target {
            Target::File(folder) => Some(folder.dir.clone()),
            _ => None,
        };
        Ok(Self { store, name, dir })
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn name_at(&self, settings: &AutoBackupSettings, at: SystemTime) -> String {
        name_at(&self.name, settings.timestamp, at)
    }

    /// The id of the copy at the target, if there is one. As in rqlite, the object without a time in its name
    /// is looked for.
    pub(super) async fn id(
        &self,
        settings: &AutoBackupSettings,
    ) -> Result<Option<String>, ObjectError> {
        if self.dir.is_some() {
            if self.store.head(METADATA_FILE).await?.is_none() {
                return Ok(None);
            }
            let bytes = self.store.get(METADATA_FILE, MAX_METADATA_BYTES).await?;
            let about: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            let file = about.get("name").and_then(Value::as_str);
            // The copy may have been deleted without this file.
            let is_there = file.is_some_and(|file| std::path::Path::new(file).is_file());
            let id = about.get("id").and_then(Value::as_str);
            return Ok(id.filter(|_| is_there).map(str::to_owned));
        }
        let found = self.store.head(&self.name).await?;
        let key = id_key(&settings.target);
        Ok(found.and_then(|meta| value_of(&meta.metadata, &key)))
    }

    /// Records the id of a copy in a folder. Objects of other stores have it in their metadata.
    pub(super) async fn note(
        &self,
        name: &str,
        index: u64,
        at: SystemTime,
    ) -> Result<(), ObjectError> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let millis = at.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis());
        let about = json!({
            "id": index.to_string(),
            "timestamp": u64::try_from(millis).unwrap_or(0),
            "name": dir.join(name).display().to_string(),
        });
        let bytes = Bytes::from(about.to_string());
        self.store.put(METADATA_FILE, bytes, &Metadata::new()).await
    }
}

/// The value of a metadata key, whatever its case: servers change it.
fn value_of(metadata: &Metadata, key: &str) -> Option<String> {
    let mut found = metadata
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case(key));
    found.next().map(|(_, value)| value.clone())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_time_stands_before_the_name() {
        let at = UNIX_EPOCH + Duration::from_secs(951_782_399);
        assert_eq!(name_at("a.gz", true, at), "20000228235959_a.gz");
        assert_eq!(name_at("a.gz", false, at), "a.gz");
    }
}
