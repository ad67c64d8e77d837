//! Backups: copies of the database, made while it is being written.
//!
//! A backup pins the main file only while it copies it, at the disk's speed, and copies the WAL as it is at
//! that time. Both together are the database at that moment. Whatever takes longer (VACUUM, SQL text, a slow
//! client) works on that copy and delays no checkpoint.
use std::{
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use rusqlite::Connection;

use crate::{
    database::inner::Inner,
    dump,
    files::{
        layout::{self, JournalMode, set_journal_mode},
        pin_copy,
    },
    readers::{control::StopReason, gate::ReadPermit, pending::Cancellation},
    sqlite::{connection::open_plain, error::message},
    types::BackupFormat,
};

const INTERRUPTED: &str = "the backup was interrupted because the database was replaced";

/// See [`crate::Database::backup`].
pub(crate) fn write(
    inner: &Inner,
    format: &BackupFormat,
    to: &Path,
    watched: &Cancellation,
) -> Result<(), String> {
    let job = Job {
        inner,
        to,
        watched,
        permit: inner.readers.register_detached("(backup)", watched),
    };
    let made = match format {
        BackupFormat::Binary => job.copy(to, JournalMode::Wal),
        BackupFormat::Delete => job.copy(to, JournalMode::Delete),
        BackupFormat::Vacuumed => job.vacuum(),
        BackupFormat::Sql { tables } => job.sql(tables),
    };
    made.map_err(|text| {
        let _ = fs::remove_file(to);
        ended(&job.permit).unwrap_or(text)
    })
}

/// Why the backup was ended early, as a text for the client.
fn ended(permit: &ReadPermit) -> Option<String> {
    permit.is_cancelled().then(|| match permit.reason() {
        StopReason::Writer | StopReason::None => INTERRUPTED.to_owned(),
        reason => reason.text().replace("query", "backup"),
    })
}

/// A temporary database; dropping this value deletes it and the files that SQLite put beside it.
struct Temporary(PathBuf);

impl Temporary {
    fn unscheduled(path: &Path) -> Self {
        Self(with_ending(path, "-copy"))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        for path in [
            self.0.clone(),
            with_ending(&self.0, "-wal"),
            with_ending(&self.0, "-shm"),
        ] {
            let _ = fs::remove_file(path);
        }
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

struct Job<'a> {
    inner: &'a Inner,
    to: &'a Path,
    watched: &'a Cancellation,
    permit: ReadPermit,
}

impl Job<'_> {
    fn copy(&self, to: &Path, mode: JournalMode) -> Result<(), String> {
        // SQLite would take a left-over file for a part of the copy.
        layout::remove(to).map_err(|error| error.to_string())?;
        let made = self.take(to).map_err(|error| error.to_string());
        made.and_then(|()| merge(to))
            .and_then(|()| set_journal_mode(to, mode).map_err(|error| error.to_string()))
            .inspect_err(|_| {
                let _ = fs::remove_file(with_ending(to, "-wal"));
            })
    }

    /// Copies the main file and its WAL.
    fn take(&self, to: &Path) -> io::Result<()> {
        let files = &self.inner.files;
        let dir = to.parent().unwrap_or(to);
        let is_wanted = || !self.permit.is_cancelled();
        let mut copy = File::create(to)?;
        let (pin, wal) = self.inner.main.hold(&files.main, &files.wal)?;
        layout::check_space(dir, pin.len_bytes()? + wal.metadata()?.len())?;
        let main = |piece: &mut [u8], at| pin.read_at(piece, at);
        pin_copy::copy(main, None, &mut copy, dir, is_wanted)?;
        // The frames committed so far; frames appended during the copy are left out. If the WAL restarts
        // meanwhile, all of its frames were already in the main file, and SQLite finds no valid frame in the
        // mixture.
        let len_bytes = wal.metadata()?.len();
        let mut copy = File::create(with_ending(to, "-wal"))?;
        let read_at = |piece: &mut [u8], at| wal.read_at(piece, at);
        pin_copy::copy(read_at, Some(len_bytes), &mut copy, dir, is_wanted)?;
        Ok(())
    }

    fn vacuum(&self) -> Result<(), String> {
        layout::remove(self.to).map_err(|error| error.to_string())?;
        let name = self.to.to_str().ok_or("the path is not UTF-8")?;
        let whole = Temporary::unscheduled(self.to);
        self.copy(&whole.0, JournalMode::Delete)?;
        let room =
            layout::len(&whole.0).and_then(|len| layout::check_space(&self.inner.files.dir, len));
        room.map_err(|error| error.to_string())?;
        let conn = self.open(&whole.0)?;
        conn.execute("VACUUM INTO ?", [name])
            .map_err(|error| message(&error))?;
        drop(conn);
        set_journal_mode(self.to, JournalMode::Delete).map_err(|error| error.to_string())
    }

    fn sql(&self, tables: &[String]) -> Result<(), String> {
        let files = &self.inner.files;
        let whole = Temporary::unscheduled(self.to);
        let room = layout::len(&files.main)
            .and_then(|len| Ok(len + layout::len(&files.wal)?))
            // The text needs about as much space again.
            .and_then(|len| layout::check_space(&files.dir, len * 2));
        if room.is_ok() {
            self.copy(&whole.0, JournalMode::Delete)?;
            return dump_to(&self.open(&whole.0)?, tables, self.to);
        }
        // Without space for a copy, the database is read in place, and checkpoints wait meanwhile.
        let permit = self.inner.readers.acquire("(backup)", self.watched)?;
        let conn = self.open(&files.main)?;
        let written = dump_to(&conn, tables, self.to);
        // The connection must close before the permit is released.
        drop((conn, permit));
        written
    }

    /// A connection whose statement ends when the backup is cancelled.
    fn open(&self, path: &Path) -> Result<Connection, String> {
        let mut conn = open_plain(path).map_err(|error| message(&error))?;
        self.permit
            .watch(&mut conn)
            .map_err(|error| message(&error))?;
        Ok(conn)
    }
}

/// Lets SQLite move the committed frames of the WAL into the copy.
fn merge(path: &Path) -> Result<(), String> {
    let merged = || {
        let conn = Connection::open(path)?;
        // No other process uses the copy, so no shared memory is needed.
        conn.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        conn.pragma_update(None, "synchronous", "OFF")?;
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
            Ok((
                row.get::<_, i64>(0)?,
                row.get::<_, i64>(1)?,
                row.get::<_, i64>(2)?,
            ))
        })
    };
    match merged() {
        Ok((0, frames, moved)) if frames == moved => {
            layout::remove(&with_ending(path, "-wal")).map_err(|error| error.to_string())
        }
        Ok(other) => Err(format!("the copy could not be completed: {other:?}")),
        Err(error) => Err(message(&error)),
    }
}

fn dump_to(conn: &Connection, tables: &[String], to: &Path) -> Result<(), String> {
    // One read transaction, so that the whole text shows one state.
    conn.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema")
        .map_err(|error| message(&error))?;
    let file = File::create(to).map_err(|error| error.to_string())?;
    let dir = to.parent().unwrap_or(to).to_owned();
    let mut out = BufWriter::with_capacity(
        1 << 16,
        SpaceCheckedFile {
            file,
            dir,
            since: 0,
        },
    );
    dump::write(conn, tables, &mut out).map_err(|error| error.text())?;
    out.flush().map_err(|error| error.to_string())
}

/// A file that refuses to grow before its disk is full.
struct SpaceCheckedFile {
    file: File,
    dir: PathBuf,
    /// Bytes written since the last check of the free space.
    since: u64,
}

impl io::Write for SpaceCheckedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.since += bytes.len() as u64;
        if self.since >= pin_copy::SPACE_CHECK_BYTES {
            self.since = 0;
            layout::check_space(&self.dir, 0)?;
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
