//! Deletes one backup: this object, and the files written beside it.
use std::time::Instant;

use node_objects::{Config, Store, Target, Use};
use serde_json::Value;

use super::{
    args::BackupArgs,
    report::{Deleted, joined},
};
use crate::{
    auto_backup::{METADATA_FILE, settings::BackupKeys},
    clock::{now, rfc3339},
};

/// Largest `METADATA.json`, in bytes.
const MAX_METADATA_BYTES: u64 = 64 << 10;

pub(super) async fn delete(args: BackupArgs) -> Result<Deleted, String> {
    let config = Config::<BackupKeys>::read(&args.config, Use::Object).map_err(|e| e.0)?;
    let (folder, configured) = config.target.folder_and_name();
    let name = match &args.object {
        Some(given) => within(given, folder)?,
        None if config.rest.timestamp => {
            return Err(format!(
                "{}: with \"timestamp\" there are many backups: say which one by -object",
                args.config.display()
            ));
        }
        None => configured.to_owned(),
    };
    let (began, at) = (Instant::now(), now());
    let (store, _) = config.target.open_object().map_err(|e| e.0)?;
    let said = |e: node_objects::ObjectError| e.to_string();
    let existed = store.head(&name).await.map_err(said)?.is_some();
    store.delete(&name).await.map_err(said)?;
    if store.head(&name).await.map_err(said)?.is_some() {
        return Err(format!(
            "object '{}' in {} is still there after its deletion: another writer made it again, or the store kept it",
            joined(folder, &name),
            store.place()
        ));
    }
    let beside = match &config.target {
        Target::File(folder) => beside(&store, &folder.dir, &name).await?,
        _ => Vec::new(),
    };
    Ok(Deleted {
        object: joined(folder, &name),
        target: store.place().to_owned(),
        deleted: true,
        existed,
        beside,
        started: rfc3339(at),
        seconds: began.elapsed().as_secs_f64(),
        program: crate::VERSION.to_owned(),
    })
}

/// The name relative to the configured folder. Backups are directly in it; other objects are refused.
fn within(given: &str, folder: &str) -> Result<String, String> {
    let inner = match folder {
        "" => given,
        folder => given
            .strip_prefix(folder)
            .and_then(|rest| rest.strip_prefix('/'))
            .unwrap_or(given),
    };
    let is_plain = !inner.is_empty()
        && !inner.contains('/')
        && !matches!(inner, "." | "..")
        && !inner.chars().any(char::is_control);
    match is_plain {
        true => Ok(inner.to_owned()),
        false => Err(format!(
            "-object '{given}' is not right below the configured folder '{folder}': give the name of a backup there"
        )),
    }
}

/// Deletes what a backup left beside it in a folder: `METADATA.json`, if it is about this backup, and parts
/// of uploads whose process was killed.
async fn beside(store: &Store, dir: &std::path::Path, name: &str) -> Result<Vec<String>, String> {
    let said = |e: node_objects::ObjectError| e.to_string();
    let mut gone = Vec::new();
    if store.head(METADATA_FILE).await.map_err(said)?.is_some() {
        let noted = store.get(METADATA_FILE, MAX_METADATA_BYTES).await;
        let noted: Value = serde_json::from_slice(&noted.map_err(said)?).unwrap_or_default();
        let file = noted.get("name").and_then(Value::as_str);
        if file.is_some_and(|file| std::path::Path::new(file) == dir.join(name)) {
            store.delete(METADATA_FILE).await.map_err(said)?;
            gone.push(METADATA_FILE.to_owned());
        }
    }
    let failed = |e: std::io::Error| format!("{}: {e}", dir.display());
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let file = entry.file_name();
        let Some(part) = file.to_str().filter(|file| is_part(file, name)) else {
            continue;
        };
        match std::fs::remove_file(entry.path()) {
            Ok(()) => gone.push(part.to_owned()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed(e)),
        }
    }
    gone.sort();
    Ok(gone)
}

/// Whether `file` is an unfinished upload of `name`: `object_store` writes `name#1`, `name#2`, …, and
/// renames.
fn is_part(file: &str, name: &str) -> bool {
    let rest = file.strip_prefix(name);
    rest.and_then(|rest| rest.strip_prefix('#'))
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::parsed;

    #[test]
    fn only_names_right_in_the_folder() {
        for (given, folder, want) in [
            ("a.db", "", Some("a.db")),
            ("a.db", "x/y", Some("a.db")),
            ("x/y/a.db", "x/y", Some("a.db")),
            ("x/a.db", "x/y", None),
            ("x/yz/a.db", "x/y", None),
            ("x/y/z/a.db", "x/y", None),
            ("../a.db", "x", None),
            ("x/../a.db", "x", None),
            ("..", "x", None),
            ("/a.db", "", None),
            ("a.db/", "", None),
            ("", "", None),
            ("a\n", "", None),
        ] {
            let got = within(given, folder);
            assert_eq!(got.as_deref().ok(), want, "{given} in {folder}");
            if let Err(why) = got {
                assert!(why.contains("-object"), "{why}");
            }
        }
    }

    #[tokio::test]
    async fn this_one_and_what_is_beside_it_and_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        let note = serde_json::json!({ "id": "3", "name": file("a.db") });
        std::fs::write(file("METADATA.json"), note.to_string()).unwrap();
        for name in ["a.db", "a.db#1", "a.db#x", "b.db", "b.db#1", "ab.db"] {
            std::fs::write(file(name), name).unwrap();
        }
        let config = serde_json::json!({
            "version": 1, "type": "file", "sub": { "dir": dir.path(), "name": "a.db" }
        });
        let config_file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&config_file, config.to_string()).unwrap();
        let run_delete = |more: &[&str]| {
            let path = config_file.path().to_str().unwrap();
            let line = [&["-delete", "-config", path], more].concat();
            let line = line.into_iter().map(std::ffi::OsString::from);
            delete(parsed("rqlited backup", line).unwrap())
        };
        let done = run_delete(&[]).await.unwrap();
        assert!(done.deleted && done.existed);
        assert_eq!(done.beside, ["METADATA.json", "a.db#1"]);
        let mut left: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["a.db#x", "ab.db", "b.db", "b.db#1"]);
        let again = run_delete(&[]).await.unwrap();
        assert!(again.deleted && !again.existed && again.beside.is_empty());
        assert!(run_delete(&["-object", "../b.db"]).await.is_err() && file("b.db").exists());
        assert!(run_delete(&["-object", "b.db"]).await.unwrap().existed && !file("b.db").exists());
    }
}
