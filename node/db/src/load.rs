//! Loads: collecting a file from the log's chunks, then replacing the database by it or running it as a script.
use std::{fs::File, io::Write as _, path::Path};

use node_api::{StatementResult, WriteResult};
use rusqlite::{Batch, fallible_iterator::FallibleIterator as _};

use crate::{
    Fatal, Kind, LoadChunk, LoadContent, LoadFinish, Outcome, Position, Stamp,
    connection::Session,
    execute::rollback,
    fault::{fatal, fatal_io, is_machine_fault, message},
    guard::Mode,
    query::{self, Arguments, Failure, Rules},
    replace::{self, Unfit},
    script::{self, MAX_STATEMENT_BYTES, ScriptError, Statements},
    sql,
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

    pub(crate) fn drop_load(&mut self) -> Result<(), Fatal> {
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
                if let Err(unfit) = replace::validate(&path) {
                    return refused_alike(&path, finish.crc32, unfit);
                }
                self.replace_main(&path, position, self.meta.clone())?;
                Ok(Outcome::default())
            }
            LoadContent::Script => {
                let open = || File::open(&path).map_err(|error| fatal_io("read a load", &error));
                let utf8 = script::is_utf8(open()?);
                if utf8.map_err(|error| fatal_io("read a load", &error))? {
                    self.run_script(open()?, finish.stamp)
                } else {
                    Ok(refusal("the SQL text is not UTF-8"))
                }
            }
        }
    }

    /// Runs the text in autocommit, where its own BEGIN and COMMIT work. One statement at a time is in memory.
    fn run_script(&mut self, text: File, stamp: Stamp) -> Result<Outcome, Fatal> {
        let session = self.session_mut()?;
        session.follow(crate::Rules::V1);
        session
            .begin_request(stamp, true)
            .map_err(|error| fatal("begin a script", &error))?;
        session.guard.set_mode(Mode::Script);
        let mut last = StatementResult::Write(WriteResult::default());
        // Its length was looked at before it was proposed.
        let mut statements = Statements::new(text, usize::MAX);
        while !matches!(last, StatementResult::Error(_)) {
            match statements.next() {
                Ok(None) => break,
                Ok(Some(text)) => run_text(session, text, &mut last)?,
                Err(ScriptError::Io(error)) => return Err(fatal_io("read a load", &error)),
                Err(ScriptError::NotUtf8 | ScriptError::TooLong) => {
                    return Err(Fatal("a load changed while it was read".to_owned()));
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

/// See [`crate::Database::validate_script`].
pub(crate) fn validate_script(path: &Path) -> Result<(), String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    match script::check_lengths(file, MAX_STATEMENT_BYTES) {
        Ok(()) | Err(ScriptError::NotUtf8) => Ok(()),
        Err(ScriptError::TooLong) => Err(format!(
            "a statement is longer than {} MiB: split it, or load an SQLite file",
            MAX_STATEMENT_BYTES >> 20
        )),
        Err(ScriptError::Io(error)) => Err(error.to_string()),
    }
}

/// Runs what stands in `text`, usually one statement, until one fails.
fn run_text(session: &Session, text: &str, last: &mut StatementResult) -> Result<(), Fatal> {
    let rules = Rules {
        kind: Kind::Execute,
        qualify_columns: false,
        wanted: true,
        counters: true,
    };
    let mut batch = Batch::new(&session.conn, text);
    loop {
        let result = match batch.next() {
            Ok(None) => return Ok(()),
            Ok(Some(mut statement)) => {
                session.guard.set_vacuum(sql::is_vacuum(text));
                query::run(
                    &session.conn,
                    &mut statement,
                    &mut Arguments::new(&[]),
                    rules,
                )
            }
            Err(error) => Err(Failure::Sqlite(error)),
        };
        session.guard.set_vacuum(false);
        match result {
            Ok(result) => *last = result,
            Err(Failure::Sqlite(error)) if is_machine_fault(&error) => {
                return Err(fatal("run a script", &error));
            }
            Err(failure) => {
                let refusal = session.guard.take_refusal();
                *last = StatementResult::Error(failure_text(failure, refusal.text()));
                return Ok(());
            }
        }
    }
}

fn failure_text(failure: Failure, refusal: Option<&str>) -> String {
    match (failure, refusal) {
        (_, Some(text)) => text.to_owned(),
        (Failure::Refused(text), None) => text,
        (Failure::Sqlite(error), None) => message(&error),
    }
}

/// A loaded file is refused only for what every node finds in the same bytes. What this machine could not read, or reads otherwise than it was
/// sent, must not become another outcome than that of the others: the node ends instead.
fn refused_alike(path: &Path, crc32: u32, unfit: Unfit) -> Result<Outcome, Fatal> {
    let doing = "check a load";
    match unfit {
        Unfit::Machine(reason) => Err(Fatal(format!("{doing}: {reason}"))),
        Unfit::Content(reason) => {
            let now = replace::crc32_of(path).map_err(|error| fatal_io(doing, &error))?;
            if now != crc32 {
                return Err(Fatal(format!(
                    "{doing}: {reason}, because the disk does not give back what was written"
                )));
            }
            Ok(refusal(&format!("invalid SQLite data: {reason}")))
        }
    }
}

fn refusal(text: &str) -> Outcome {
    Outcome {
        results: Vec::new(),
        error: Some(text.to_owned()),
    }
}
