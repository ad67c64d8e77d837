//! A directory whose database is not open: its position, whether it is sound, and replacement of its
//! metadata. Applies no entries.
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rusqlite::{Connection, OpenFlags};

use crate::{
    entry::Position,
    files::{
        layout::{self, Files, JournalMode, set_journal_mode},
        sidecar::Intent,
    },
    recovery::recover::{check_length, io_error, load_sidecar, write},
    sqlite::error::message,
    types::OpenError,
};

/// Maximum number of problems reported by `PRAGMA quick_check`; the first ones are the most useful.
const MAX_COMPLAINTS: usize = 20;

/// What the next [`crate::Database::open`] will find.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// The position that the main file will equal; `None` if nothing was ever checkpointed.
    pub position: Option<Position>,
    /// The caller's metadata at that position.
    pub meta: Bytes,
    /// A change of the main file that a crash interrupted and the next open will finish.
    pub under_way: Option<&'static str>,
}

/// The state of the main file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Soundness {
    /// Not checked, with the reason.
    Unchecked(&'static str),
    /// `PRAGMA quick_check` found no problem.
    Sound,
    /// The problems found, or why SQLite cannot read the file.
    Damaged(Vec<String>),
}

/// Reads the sidecar. `None`: the directory holds no database.
///
/// # Errors
/// A damaged or missing sidecar, a truncated main file, or a failing disk.
pub fn stored(dir: &Path) -> Result<Option<Stored>, OpenError> {
    let files = Files::new(dir);
    let Some(sidecar) = load_sidecar(&files)? else {
        return Ok(None);
    };
    Ok(Some(match sidecar.intent {
        Some(Intent::Checkpoint { position, meta, .. }) => Stored {
            position: Some(position),
            meta: meta.into(),
            under_way: Some("a checkpoint"),
        },
        Some(Intent::Replace { position, meta, .. }) => Stored {
            position: Some(position),
            meta: meta.into(),
            under_way: Some("a replacement of the whole file"),
        },
        None => {
            check_length(&files, &sidecar.base)?;
            Stored {
                position: sidecar.base.position,
                meta: sidecar.base.meta.into(),
                under_way: None,
            }
        }
    }))
}

/// Durably replaces the metadata wherever the sidecar holds some. `change` receives the current bytes, which
/// are never empty.
///
/// # Errors
/// As [`stored`], or the error of `change`.
pub fn replace_meta(
    dir: &Path,
    change: impl Fn(&[u8]) -> Result<Vec<u8>, String>,
) -> Result<(), OpenError> {
    let files = Files::new(dir);
    let Some(mut sidecar) = load_sidecar(&files)? else {
        return Ok(());
    };
    let intended = match &mut sidecar.intent {
        Some(Intent::Checkpoint { meta, .. } | Intent::Replace { meta, .. }) => Some(meta),
        None => None,
    };
    for meta in intended.into_iter().chain([&mut sidecar.base.meta]) {
        if !meta.is_empty() {
            *meta = change(meta).map_err(OpenError::Corrupt)?;
        }
    }
    write(&files, &sidecar)
}

/// Turns the main file of a closed database into an ordinary SQLite file, in DELETE journal mode and durable:
/// it may then be moved, and the rest of the directory deleted. The directory is no database afterwards.
/// Returns the file's path.
///
/// # Errors
/// As [`stored`]; also if nothing was ever checkpointed, or the last change is not finished.
pub fn release(dir: &Path) -> Result<PathBuf, OpenError> {
    let files = Files::new(dir);
    let unfinished = |why: &str| OpenError::Corrupt(format!("{}: {why}", dir.display()));
    match stored(dir)? {
        None => return Err(unfinished("there is no database")),
        Some(Stored { position: None, .. }) => {
            return Err(unfinished("nothing was ever checkpointed"));
        }
        Some(Stored {
            under_way: Some(what),
            ..
        }) => return Err(unfinished(&format!("{what} was interrupted"))),
        Some(_) => {}
    }
    files.remove_wal().map_err(io_error("delete the WAL"))?;
    layout::remove(&files.state).map_err(io_error("delete the state file"))?;
    if layout::len(&files.main).map_err(io_error("measure the main file"))? > 0 {
        set_journal_mode(&files.main, JournalMode::Delete)
            .map_err(io_error("set the journal mode"))?;
    }
    layout::sync(&files.main).map_err(io_error("fsync the main file"))?;
    Ok(files.main)
}

/// Checks the main file as it is on disk, without its WAL, and changes nothing. Reads the whole file.
///
/// # Errors
/// As [`stored`]. Damage inside the file is not an error but [`Soundness::Damaged`].
pub fn soundness(dir: &Path) -> Result<Soundness, OpenError> {
    let Some(stored) = stored(dir)? else {
        return Ok(Soundness::Unchecked("there is no database"));
    };
    if stored.under_way.is_some() {
        return Ok(Soundness::Unchecked(
            "a change of the main file was interrupted; the next start finishes it",
        ));
    }
    if stored.position.is_none() {
        return Ok(Soundness::Unchecked(
            "nothing was ever checkpointed; the log holds everything",
        ));
    }
    let files = Files::new(dir);
    if layout::len(&files.main).map_err(io_error("measure the main file"))? == 0 {
        // An empty database has no pages.
        return Ok(Soundness::Sound);
    }
    Ok(match quick_check(&files.main) {
        Ok(complaints) if complaints == ["ok"] => Soundness::Sound,
        Ok(complaints) => Soundness::Damaged(complaints),
        Err(error) => Soundness::Damaged(vec![message(&error)]),
    })
}

fn quick_check(main: &Path) -> rusqlite::Result<Vec<String>> {
    // `immutable`: the sidecar describes the file without the WAL beside it, and nothing is created or
    // locked.
    let uri = format!("file:{}?mode=ro&immutable=1", escaped(main));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let conn = Connection::open_with_flags(uri, flags)?;
    conn.prepare(&format!("PRAGMA quick_check({MAX_COMPLAINTS})"))?
        .query_map([], |row| row.get(0))?
        .collect()
}

/// Percent-encodes a path for a URI.
fn escaped(path: &Path) -> String {
    let mut text = String::new();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => {
                text.push(char::from(*byte));
            }
            other => text.push_str(&format!("%{other:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use super::*;
    use crate::{
        database::Database,
        entry::{Entry, Kind, ReplyTo, Request, Stamp, Work},
        types::Options,
    };

    fn options(dir: &Path) -> Options {
        Options {
            dir: dir.to_owned(),
            foreign_keys: false,
            readers: 1,
            max_readers: 64,
            slow_statement: None,
        }
    }

    fn entry(index: u64, work: Work) -> Entry {
        Entry {
            position: Position { term: 1, index },
            work,
            reply_to: ReplyTo::Nobody,
        }
    }

    fn request(sql: &str) -> Work {
        Work::Requests(Arc::new(vec![Request {
            kind: Kind::Execute,
            transaction: false,
            qualify_columns: false,
            statements: vec![node_values::Statement {
                sql: sql.to_owned(),
                ..Default::default()
            }],
            stamp: Stamp::default(),
            rules: crate::entry::Rules::V1,
        }]))
    }

    /// A database with a table, checkpointed with metadata `old`, and one more row that is only in the WAL.
    async fn filled(dir: &Path) {
        let (db, _) = Database::open(options(dir)).unwrap();
        let run = vec![
            entry(1, Work::Meta(Bytes::from_static(b"old"))),
            entry(2, request("CREATE TABLE t(x)")),
            entry(3, request("INSERT INTO t VALUES(zeroblob(20000))")),
        ];
        db.apply(run).await.unwrap().unwrap();
        db.checkpoint().await.unwrap().unwrap();
        let later = vec![entry(4, request("INSERT INTO t VALUES(2)"))];
        db.apply(later).await.unwrap().unwrap();
        db.close();
    }

    #[tokio::test]
    async fn tells_and_replaces_without_opening() {
        let dir = tempfile::Builder::new().prefix("a b?%").tempdir().unwrap();
        let dir = dir.path();
        assert!(stored(dir).unwrap().is_none());
        assert!(matches!(soundness(dir).unwrap(), Soundness::Unchecked(_)));
        assert!(fs::read_dir(dir).unwrap().next().is_none(), "created files");
        filled(dir).await;
        assert_eq!(soundness(dir).unwrap(), Soundness::Sound);
        let found = stored(dir).unwrap().unwrap();
        assert_eq!(
            (found.position.unwrap().index, &found.meta[..]),
            (3, &b"old"[..])
        );
        replace_meta(dir, |old| Ok([old, b"+new"].concat())).unwrap();
        let (db, recovered) = Database::open(options(dir)).unwrap();
        assert_eq!(
            (recovered.position.unwrap().index, &recovered.meta[..]),
            (3, &b"old+new"[..])
        );
        db.close();
    }

    #[tokio::test]
    async fn damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path()).await;
        let main = dir.path().join("db.sqlite");
        let whole = fs::read(&main).unwrap();
        let mut rotten = whole.clone();
        rotten[4096..8192].fill(0x5A);
        fs::write(&main, &rotten).unwrap();
        assert!(matches!(
            soundness(dir.path()).unwrap(),
            Soundness::Damaged(_)
        ));
        fs::write(&main, &whole[..4096]).unwrap();
        assert!(soundness(dir.path()).is_err(), "cut short");
        fs::write(&main, &whole).unwrap();
        fs::write(dir.path().join("state"), b"nonsense").unwrap();
        assert!(stored(dir.path()).is_err());
        assert!(replace_meta(dir.path(), |old| Ok(old.to_vec())).is_err());
    }
}
