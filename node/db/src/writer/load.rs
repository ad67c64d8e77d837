//! Loads: collects a file from chunks in the log, then replaces the database by it or runs it as a script.
use std::{fs::File, path::Path};

use node_values::{StatementResult, WriteResult};
use rusqlite::{Batch, fallible_iterator::FallibleIterator as _};

use crate::{
    entry::{Bounds, Kind, LoadChunk, LoadContent, LoadFinish, Outcome, Position, Stamp},
    sql::{
        classify,
        script::{self, MAX_STATEMENT_BYTES, ScriptError, Statements},
    },
    sqlite::{
        authorizer::Mode,
        connection::Session,
        determinism,
        error::{ErrorClass, classify_error, fatal, fatal_io, message},
        meter::{self, Limits},
        statement::{self, Arguments, Failure, StatementRules},
    },
    types::Fatal,
    writer::{
        Writer,
        collected_load::CollectedLoad,
        replace::{self, CheckDepth, InvalidFile},
        request,
        transaction::{self, rollback},
    },
};

impl Writer {
    /// Discards a load from a term before `term`: its proposer cannot continue it.
    pub(crate) fn drop_load_before(&mut self, term: u64) -> Result<(), Fatal> {
        match &self.load {
            Some(load) if load.term < term => self.drop_load(),
            _ => Ok(()),
        }
    }

    /// Discards the unfinished load if it has this id.
    pub(crate) fn abort_load(&mut self, id: u64) -> Result<(), Fatal> {
        match &self.load {
            Some(load) if load.id == id => self.drop_load(),
            _ => Ok(()),
        }
    }

    pub(crate) fn drop_load(&mut self) -> Result<(), Fatal> {
        self.load = None;
        crate::files::layout::remove(&self.files.load)
            .map_err(|error| fatal_io("remove an unfinished load", &error))
    }

    /// Appends a chunk. The last chunk of a load has an outcome.
    pub(crate) fn take_chunk(
        &mut self,
        position: Position,
        chunk: &LoadChunk,
    ) -> Result<Option<Outcome>, Fatal> {
        if chunk.offset == 0 {
            let begun = CollectedLoad::begin(&self.files.load, chunk.load_id, position.term);
            self.load = Some(begun.map_err(|error| fatal_io("begin a load", &error))?);
        }
        let Some(load) = self.load.as_mut().filter(|load| load.continues_with(chunk)) else {
            return Ok(chunk
                .finish
                .is_some()
                .then(|| Outcome::refused("the load was interrupted, send it again")));
        };
        load.append(&chunk.data)
            .map_err(|error| fatal_io("write a load", &error))?;
        let Some(finish) = &chunk.finish else {
            return Ok(None);
        };
        let whole = load.is_whole(finish);
        // Closes the file, and allows checkpoints again.
        self.load = None;
        let outcome = if whole {
            self.finish_load(position, finish)?
        } else {
            Outcome::refused("the load arrived damaged, send it again")
        };
        self.drop_load()?;
        Ok(Some(outcome))
    }

    fn finish_load(&mut self, position: Position, finish: &LoadFinish) -> Result<Outcome, Fatal> {
        let path = self.files.load.clone();
        match finish.content {
            LoadContent::File => {
                // The leader made the full check before it proposed the load. Here all other writes wait, so
                // the check is quick.
                if let Err(invalid) = replace::validate(&path, CheckDepth::Quick) {
                    return refuse_invalid_file(&path, finish.crc32, invalid);
                }
                self.replace_main(&path, position, self.meta.clone())?;
                Ok(Outcome::default())
            }
            LoadContent::Script | LoadContent::BoundedScript(_) => {
                let bounds = match finish.content {
                    LoadContent::BoundedScript(bounds) => bounds,
                    _ => Bounds::NONE,
                };
                let open = || File::open(&path).map_err(|error| fatal_io("read a load", &error));
                let utf8 = script::is_utf8(open()?);
                if utf8.map_err(|error| fatal_io("read a load", &error))? {
                    loop {
                        if let Some(outcome) = self.run_script(open()?, finish.stamp, bounds)? {
                            return Ok(outcome);
                        }
                        transaction::wait_for_space(self.session()?)?;
                    }
                } else {
                    Ok(Outcome::refused("the SQL text is not UTF-8"))
                }
            }
        }
    }

    /// Runs the script in autocommit, where its own BEGIN and COMMIT work, with one statement at a time in
    /// memory. Returns `None` if the disk was full before anything was committed, so that the script can
    /// start over.
    fn run_script(
        &mut self,
        text: File,
        stamp: Stamp,
        bounds: Bounds,
    ) -> Result<Option<Outcome>, Fatal> {
        let session = self.session_mut()?;
        if bounds != Bounds::NONE || session.authorizer.is_dirty() {
            // Resource use is counted identically on all nodes only from a common starting point.
            session
                .reopen()
                .map_err(|error| fatal("reopen the database", &error))?;
        }
        session.use_rules(if bounds == Bounds::NONE {
            crate::entry::Rules::V1
        } else {
            crate::entry::Rules::V2(bounds)
        });
        session
            .begin_request(stamp, true)
            .and_then(|()| session.limit(bounds))
            .map_err(|error| fatal("begin a script", &error))?;
        session.authorizer.set_mode(Mode::Script);
        let mut run = ScriptRun {
            session,
            bounds,
            committed: false,
            last: StatementResult::Write(WriteResult::default()),
        };
        // The leader checked the lengths before it proposed the load.
        let mut statements = Statements::new(text, usize::MAX);
        while !matches!(run.last, StatementResult::Error(_)) {
            match statements.next() {
                Ok(None) => break,
                Ok(Some(text)) => {
                    if !run.text(text)? {
                        return Ok(None);
                    }
                }
                Err(ScriptError::Io(error)) => return Err(fatal_io("read a load", &error)),
                Err(ScriptError::NotUtf8 | ScriptError::TooLong) => {
                    return Err(Fatal("a load changed while it was read".to_owned()));
                }
            }
        }
        let mut last = run.last;
        meter::end();
        if !session.conn.is_autocommit() {
            rollback(session)?;
            if !matches!(last, StatementResult::Error(_)) {
                last = StatementResult::Error(
                    "the script began a transaction without COMMIT".to_owned(),
                );
            }
        }
        session.meters.disk_wait.found();
        session.authorizer.set_mode(Mode::Internal);
        session.authorizer.note_schema_change();
        if session.authorizer.is_dirty() {
            session
                .reopen()
                .map_err(|error| fatal("reopen the database", &error))?;
        }
        Ok(Some(Outcome {
            results: vec![last],
            error: None,
        }))
    }
}

/// A running script.
struct ScriptRun<'s> {
    session: &'s Session,
    bounds: Bounds,
    /// A part of the script is committed, so it cannot start over.
    committed: bool,
    last: StatementResult,
}

impl ScriptRun<'_> {
    /// Runs the statements in `text` (usually one) until one fails. Returns `false` if the disk is full and
    /// the script can start over.
    fn text(&mut self, text: &str) -> Result<bool, Fatal> {
        let rules = StatementRules {
            kind: Kind::Execute,
            qualify_columns: false,
            keep_rows: true,
            counters: true,
        };
        let session = self.session;
        let mut batch = Batch::new(&session.conn, text);
        loop {
            let result = match batch.next() {
                Ok(None) => return Ok(true),
                Ok(Some(mut statement)) => self.step(text, &mut statement, rules)?,
                Err(error) => Err(Failure::Sqlite(error)),
            };
            session.authorizer.set_vacuum(false);
            match result {
                Ok(result) => {
                    self.committed |= session.conn.is_autocommit();
                    self.last = result;
                }
                Err(Failure::Sqlite(error)) => match classify_error(&error) {
                    ErrorClass::DiskFull if !self.committed => return Ok(false),
                    ErrorClass::DiskFull | ErrorClass::Machine => {
                        return Err(fatal("run a script", &error));
                    }
                    ErrorClass::Bound(over) => {
                        self.last = StatementResult::Error(over.text(self.bounds));
                        return Ok(true);
                    }
                    ErrorClass::Statement => return Ok(self.failed(Failure::Sqlite(error))),
                },
                Err(failure) => return Ok(self.failed(failure)),
            }
        }
    }

    fn step(
        &self,
        text: &str,
        statement: &mut rusqlite::Statement<'_>,
        rules: StatementRules,
    ) -> Result<Result<StatementResult, Failure>, Fatal> {
        let session = self.session;
        let alone = session.conn.is_autocommit();
        let vacuum = classify::is_vacuum(text);
        let before = determinism::save(&session.conn);
        loop {
            let result = self.begin(text, vacuum).and_then(|()| {
                session.authorizer.set_vacuum(vacuum);
                statement::run(&session.conn, statement, &mut Arguments::new(&[]), rules)
            });
            if !alone
                || !matches!(&result, Err(Failure::Sqlite(error))
                    if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull))
                || !meter::take_full()
            {
                return Ok(result);
            }
            // The statements before are committed, so only this one is repeated.
            transaction::wait_for_space(session)?;
            determinism::restore(&session.conn, before);
        }
    }

    fn failed(&mut self, failure: Failure) -> bool {
        let refusal = self.session.authorizer.take_refusal();
        self.last = StatementResult::Error(failure_text(failure, refusal.text()));
        true
    }

    /// Sets the limits of the next statement.
    fn begin(&self, text: &str, vacuum: bool) -> Result<(), Failure> {
        let steps = if classify::is_maintenance(text) {
            self.bounds.maintenance_vm_steps
        } else {
            self.bounds.vm_steps
        };
        let disk_bytes = if vacuum {
            request::check_space_to_vacuum(self.session, self.bounds)?;
            u64::MAX
        } else {
            self.bounds.disk_bytes
        };
        if self.session.conn.is_autocommit() {
            meter::begin_transaction();
        }
        meter::begin(Limits { steps, disk_bytes });
        Ok(())
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

fn failure_text(failure: Failure, refusal: Option<&str>) -> String {
    match (failure, refusal) {
        (_, Some(text)) => text.to_owned(),
        (Failure::Refused(text), None) => text,
        (Failure::Sqlite(error), None) => message(&error),
    }
}

/// Refuses a loaded file, but only for a defect that every node finds in the same bytes. If this machine
/// cannot read the file, or reads other bytes than it received, the node must stop instead of recording an
/// outcome that the other nodes do not have.
fn refuse_invalid_file(path: &Path, crc32: u32, invalid: InvalidFile) -> Result<Outcome, Fatal> {
    let doing = "check a load";
    match invalid {
        InvalidFile::Machine(reason) => Err(Fatal(format!("{doing}: {reason}"))),
        InvalidFile::Content(reason) => {
            let now = replace::crc32_of(path).map_err(|error| fatal_io(doing, &error))?;
            if now != crc32 {
                return Err(Fatal(format!(
                    "{doing}: {reason}, because the disk does not give back what was written"
                )));
            }
            Ok(Outcome::refused(&format!("invalid SQLite data: {reason}")))
        }
    }
}
