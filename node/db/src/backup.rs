//! Copies of the database for users, made while it goes on being written.
use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::Path,
};

use rusqlite::{
    Connection,
    backup::{Backup, StepResult},
};

use crate::{
    BackupFormat, Watched,
    connection::open_plain,
    control::Reason,
    database::Inner,
    dump,
    fault::message,
    readers::Visit,
    replace::{JournalMode, set_journal_mode},
};

/// Pages between two looks at whether the writer needs the room: about 16 MiB, some 10 ms.
const PAGES_A_STEP: i32 = 4096;
const INTERRUPTED: &str = "the backup was interrupted because the database was replaced";

/// See [`crate::Database::backup`].
pub(crate) fn write(
    inner: &Inner,
    format: &BackupFormat,
    to: &Path,
    watched: &Watched,
) -> Result<(), String> {
    let visit = inner.readers.visit("(backup)", watched)?;
    let mut conn = open_plain(&inner.files.main).map_err(|error| message(&error))?;
    visit.watch(&mut conn).map_err(|error| message(&error))?;
    let result = match format {
        BackupFormat::Binary => copy(&conn, to, &visit, JournalMode::Wal),
        BackupFormat::Delete => copy(&conn, to, &visit, JournalMode::Delete),
        BackupFormat::Vacuumed => vacuum(&conn, to),
        BackupFormat::Sql { tables } => dump_to(&conn, tables, to),
    };
    // The connection goes before the visit ends.
    drop(conn);
    match result {
        Err(_) if visit.is_cancelled() => Err(ended(&visit)),
        result => result,
    }
}

/// Why, for the client.
fn ended(visit: &Visit) -> String {
    match visit.reason() {
        Reason::Writer | Reason::None => INTERRUPTED.to_owned(),
        reason => reason.text().replace("query", "backup"),
    }
}

fn copy(conn: &Connection, to: &Path, visit: &Visit, mode: JournalMode) -> Result<(), String> {
    // Left-overs would be taken for the start of the copy.
    crate::files::remove(to).map_err(|error| error.to_string())?;
    let copied = || -> rusqlite::Result<bool> {
        let mut target = Connection::open(to)?;
        target.pragma_update(None, "journal_mode", "OFF")?;
        target.pragma_update(None, "synchronous", "OFF")?;
        begin(conn)?;
        let backup = Backup::new(conn, &mut target)?;
        while !visit.is_cancelled() {
            if backup.step(PAGES_A_STEP)? == StepResult::Done {
                return Ok(true);
            }
        }
        Ok(false)
    };
    match copied() {
        Ok(true) => set_journal_mode(to, mode).map_err(|error| error.to_string()),
        Ok(false) => Err(ended(visit)),
        Err(error) => Err(message(&error)),
    }
}

/// A read transaction keeps the copy to one state, however long it takes.
fn begin(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema")
}

fn vacuum(conn: &Connection, to: &Path) -> Result<(), String> {
    crate::files::remove(to).map_err(|error| error.to_string())?;
    let name = to.to_str().ok_or("the path is not UTF-8")?;
    conn.execute("VACUUM INTO ?", [name])
        .map_err(|error| message(&error))?;
    set_journal_mode(to, JournalMode::Delete).map_err(|error| error.to_string())
}

fn dump_to(conn: &Connection, tables: &[String], to: &Path) -> Result<(), String> {
    begin(conn).map_err(|error| message(&error))?;
    let file = File::create(to).map_err(|error| error.to_string())?;
    let mut out = BufWriter::with_capacity(1 << 16, file);
    let written = dump::write(conn, tables, &mut out).map_err(|error| error.text());
    let written = written.and_then(|()| out.flush().map_err(|error| error.to_string()));
    if written.is_err() {
        let _ = fs::remove_file(to);
    }
    written
}
