//! Loads: collecting a file from the log's chunks, then replacing the database by it or running it as a script.
use std::{
    fs::{self, File},
    io::Write as _,
};

use node_api::{StatementResult, WriteResult};
use rusqlite::{Batch, fallible_iterator::FallibleIterator as _};

use crate::{
    Fatal, Kind, LoadChunk, LoadContent, LoadFinish, Outcome, Position, Stamp,
    execute::rollback,
    fault::{fatal, fatal_io, is_machine_fault, message},
    guard::Mode,
    query::{self, Arguments, Failure, Rules},
    replace, sql,
    writer::Writer,
};

/// A load under way. What is collected is not synced: after a crash the log brings the chunks again, because nothing is
/// checkpointed meanwhile.
pub(crate) struct Load {
    id: u64,
    term: u64,
    received: u64,
    crc: crc32fast::Hasher,
    file: File,
}

impl Writer {
    /// Drops a load that its proposer cannot go on with.
    pub(crate) fn drop_load_before(&mut self, term: u64) -> Result<(), Fatal> {
        match &self.load {
            Some(load) if load.term < term => self.drop_load(),
            _ => Ok(()),
        }
    }

    /// Drops the load of this id, if it is the one under way.
    pub(crate) fn abort_load(&mut self, id: u64) -> Result<(), Fatal> {
        match &self.load {
            Some(load) if load.id == id => self.drop_load(),
            _ => Ok(()),
        }
    }

    fn drop_load(&mut self) -> Result<(), Fatal> {
        self.load = None;
        crate::files::remove(&self.files.load)
            .map_err(|error| fatal_io("remove an unfinished load", &error))
    }

    /// Takes a chunk; the last one gives an outcome.
    pub(crate) fn take_chunk(
        &mut self,
        position: Position,
        chunk: &LoadChunk,
    ) -> Result<Option<Outcome>, Fatal> {
        if chunk.offset == 0 {
            let file =
                File::create(&self.files.load).map_err(|error| fatal_io("begin a load", &error))?;
            let crc = crc32fast::Hasher::new();
            self.load = Some(Load {
                id: chunk.load_id,
                term: position.term,
                received: 0,
                crc,
                file,
            });
        }
        let fits = |load: &&mut Load| load.id == chunk.load_id && load.received == chunk.offset;
        let Some(load) = self.load.as_mut().filter(fits) else {
            return Ok(chunk
                .finish
                .is_some()
                .then(|| refusal("the load was interrupted, send it again")));
        };
        load.file
            .write_all(&chunk.data)
            .map_err(|error| fatal_io("write a load", &error))?;
        load.crc.update(&chunk.data);
        load.received += chunk.data.len() as u64;
        let Some(finish) = &chunk.finish else {
            return Ok(None);
        };
        let whole =
            load.received == finish.total_bytes && load.crc.clone().finalize() == finish.crc32;
        // Closes the file; a checkpoint may come again.
        self.load = None;
        let outcome = if whole {
            self.finish_load(position, finish)?
        } else {
            refusal("the load arrived damaged, send it again")
        };
        self.drop_load()?;
        Ok(Some(outcome))
    }

    fn finish_load(&mut self, position: Position, finish: &LoadFinish) -> Result<Outcome, Fatal> {
        let path = self.files.load.clone();
        match finish.content {
            LoadContent::File => {
                if let Err(reason) = replace::validate(&path) {
                    return Ok(refusal(&format!("invalid SQLite data: {reason}")));
                }
                self.replace_main(&path, position, self.meta.clone())?;
                Ok(Outcome::default())
            }
            LoadContent::Script => {
                let bytes = fs::read(&path).map_err(|error| fatal_io("read a load", &error))?;
                match String::from_utf8(bytes) {
                    Ok(script) => self.run_script(script, finish.stamp),
                    Err(_) => Ok(refusal("the SQL text is not UTF-8")),
                }
            }
        }
    }

    /// Runs the text in autocommit, where its own BEGIN and COMMIT work.
    fn run_script(&mut self, mut script: String, stamp: Stamp) -> Result<Outcome, Fatal> {
        // With a terminator in the text SQLite does not copy what is left of it for every statement.
        script.push('\0');
        let session = self.session_mut()?;
        session
            .begin_request(stamp, true)
            .map_err(|error| fatal("begin a script", &error))?;
        session.guard.set_mode(Mode::Script);
        let rules = Rules {
            kind: Kind::Execute,
            qualify_columns: false,
            wanted: true,
            counters: true,
        };
        let mut arguments = Arguments::new(&[]);
        let mut last = StatementResult::Write(WriteResult::default());
        let mut batch = Batch::new(&session.conn, &script);
        loop {
            let result = match batch.next() {
                Ok(None) => break,
                Ok(Some(mut statement)) => {
                    session.guard.set_vacuum(
                        statement
                            .expanded_sql()
                            .is_some_and(|sql| sql::is_vacuum(&sql)),
                    );
                    query::run(&session.conn, &mut statement, &mut arguments, rules)
                }
                Err(error) => Err(Failure::Sqlite(error)),
            };
            session.guard.set_vacuum(false);
            match result {
                Ok(result) => last = result,
                Err(Failure::Sqlite(error)) if is_machine_fault(&error) => {
                    return Err(fatal("run a script", &error));
                }
                Err(failure) => {
                    last =
                        StatementResult::Error(text(failure, session.guard.take_refusal().text()));
                    break;
                }
            }
        }
        if !session.conn.is_autocommit() {
            rollback(session)?;
            if !matches!(last, StatementResult::Error(_)) {
                last = StatementResult::Error(
                    "the script began a transaction without COMMIT".to_owned(),
                );
            }
        }
        session.guard.set_mode(Mode::Internal);
        session.guard.note_schema_change();
        if session.guard.is_dirty() {
            session
                .reopen()
                .map_err(|error| fatal("reopen the database", &error))?;
        }
        Ok(Outcome {
            results: vec![last],
            error: None,
        })
    }
}

fn text(failure: Failure, refusal: Option<&str>) -> String {
    match (failure, refusal) {
        (_, Some(text)) => text.to_owned(),
        (Failure::Refused(text), None) => text,
        (Failure::Sqlite(error), None) => message(&error),
    }
}

fn refusal(text: &str) -> Outcome {
    Outcome {
        results: Vec::new(),
        error: Some(text.to_owned()),
    }
}
