//! Hashes the content as of one log entry, on a separate thread.
use std::{sync::Arc, thread};

use rusqlite::Connection;

use crate::{
    content_hash::{Hashing, hash},
    entry::Position,
    readers::{gate::ReadPermit, pending::Cancellation},
    sqlite::{connection::open_plain, error::message},
    types::Fatal,
    writer::Writer,
};

impl Writer {
    /// Starts hashing the committed state on a separate thread. A hashing that cannot start or finish is
    /// recorded as failed. It changes no data, so its success may differ from node to node.
    pub(crate) fn begin_hashing(&mut self, position: Position) -> Result<(), Fatal> {
        let begun = self
            .readers
            .try_acquire_as("(content hash)", &Cancellation::default())
            .ok_or_else(|| "the database is being replaced".to_owned())
            .and_then(|permit| {
                // The read transaction begins here, between two entries, so all nodes hash the same state.
                let conn = begin(&self.files.main, &permit).map_err(|error| message(&error))?;
                Ok((permit, conn))
            });
        let progress = Arc::clone(&self.progress);
        let (permit, conn) = match begun {
            Ok(begun) => begun,
            Err(why) => {
                progress.note_hashing(position, Hashing::Failed(why));
                return Ok(());
            }
        };
        progress.note_hashing(position, Hashing::Running);
        let hash_and_report = move || {
            let hashed = hash(&conn);
            // The connection must close before the permit is released.
            drop(conn);
            let hashed = match hashed {
                Ok(hash) => Hashing::Done(hash),
                Err(_) if permit.is_cancelled() => {
                    Hashing::Failed("interrupted: the database was needed".to_owned())
                }
                Err(error) => Hashing::Failed(message(&error)),
            };
            drop(permit);
            progress.note_hashing(position, hashed);
        };
        thread::Builder::new()
            .name("db-hash".to_owned())
            .spawn(hash_and_report)
            .map(|_| ())
            .map_err(|error| Fatal(format!("start a thread: {error}")))
    }
}

fn begin(path: &std::path::Path, permit: &ReadPermit) -> rusqlite::Result<Connection> {
    let mut conn = open_plain(path)?;
    conn.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema")?;
    permit.watch(&mut conn)?;
    Ok(conn)
}
