//! Test support: a database in a temporary directory, and a log that counts its entries.
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use node_db::{
    Bounds, Checkpoint, Database, Entry, Kind, Options, Outcome, Position, Read, Recovered,
    ReplyTo, Request, Rules, Stamp, Work,
};
use node_values::{Cell, Parameter, Rows, Statement, StatementResult, Value, WriteResult};
use tempfile::TempDir;

pub(crate) const TERM: u64 = 1;

pub(crate) struct Db {
    pub(crate) db: Database,
    pub(crate) recovered: Recovered,
    pub(crate) dir: TempDir,
    next: u64,
}

pub(crate) fn options(dir: &Path) -> Options {
    Options {
        dir: dir.to_owned(),
        foreign_keys: false,
        readers: 2,
        max_readers: 64,
        slow_statement: None,
    }
}

pub(crate) fn stamp(seed: u64) -> Stamp {
    Stamp {
        unix_micros: 1_700_000_000_123_456,
        seed,
    }
}

pub(crate) fn sql(text: &str) -> Statement {
    Statement {
        sql: text.to_owned(),
        parameters: Vec::new(),
    }
}

pub(crate) fn with(text: &str, values: &[Value]) -> Statement {
    let parameters = values
        .iter()
        .map(|value| Parameter {
            name: None,
            value: value.clone(),
        })
        .collect();
    Statement {
        sql: text.to_owned(),
        parameters,
    }
}

pub(crate) fn named(text: &str, values: &[(&str, i64)]) -> Statement {
    let parameter = |(name, value): &(&str, i64)| Parameter {
        name: Some(*name)
            .filter(|name| !name.is_empty())
            .map(str::to_owned),
        value: Value::Integer(*value),
    };
    Statement {
        sql: text.to_owned(),
        parameters: values.iter().map(parameter).collect(),
    }
}

/// The rules that requests follow once every member supports them.
pub(crate) fn newest() -> Rules {
    Rules::V2(Bounds::default())
}

pub(crate) fn request(kind: Kind, transaction: bool, statements: Vec<Statement>) -> Request {
    Request {
        kind,
        transaction,
        qualify_columns: false,
        statements,
        stamp: stamp(1),
        rules: newest(),
    }
}

pub(crate) fn entry(index: u64, requests: Vec<Request>) -> Entry {
    Entry {
        position: Position { term: TERM, index },
        work: Work::Requests(Arc::new(requests)),
        reply_to: ReplyTo::Caller,
    }
}

impl Db {
    pub(crate) fn new() -> Self {
        Self::open_in(TempDir::new().unwrap(), |_| {})
    }

    pub(crate) fn with_foreign_keys() -> Self {
        Self::open_in(TempDir::new().unwrap(), |options| {
            options.foreign_keys = true
        })
    }

    pub(crate) fn open_in(dir: TempDir, adjust: impl Fn(&mut Options)) -> Self {
        let mut options = options(dir.path());
        adjust(&mut options);
        let (db, recovered) = Database::open(options).unwrap();
        let next = recovered.position.map_or(1, |position| position.index + 1);
        Self {
            db,
            recovered,
            dir,
            next,
        }
    }

    /// Closes and reopens the database, as a restart does.
    pub(crate) fn restart(self) -> Self {
        self.db.close();
        drop(self.db);
        Self::open_in(self.dir, |_| {})
    }

    /// Restarts after a checkpoint, so that the content comes from the main file alone.
    pub(crate) fn restart_after_checkpoint(self) -> Self {
        assert!(matches!(self.checkpoint(), Checkpoint::Done(_)));
        self.restart()
    }

    pub(crate) fn position(&mut self) -> Position {
        self.next += 1;
        Position {
            term: TERM,
            index: self.next - 1,
        }
    }

    pub(crate) fn work(&mut self, work: Work) -> Vec<Outcome> {
        let entry = Entry {
            position: self.position(),
            work,
            reply_to: ReplyTo::Caller,
        };
        self.db
            .apply(vec![entry])
            .blocking_recv()
            .unwrap()
            .unwrap()
            .remove(0)
    }

    pub(crate) fn apply(&mut self, request: Request) -> Outcome {
        self.work(Work::Requests(Arc::new(vec![request]))).remove(0)
    }

    pub(crate) fn request(
        &mut self,
        kind: Kind,
        transaction: bool,
        statements: Vec<Statement>,
    ) -> Outcome {
        self.apply(request(kind, transaction, statements))
    }

    pub(crate) fn execute(&mut self, text: &str) -> StatementResult {
        let mut outcome = self.request(Kind::Execute, false, vec![sql(text)]);
        assert_eq!(outcome.error, None, "{text}");
        outcome.results.remove(0)
    }

    /// Executes a statement that must succeed.
    pub(crate) fn must(&mut self, text: &str) {
        let result = self.execute(text);
        assert!(
            !matches!(result, StatementResult::Error(_)),
            "{text}: {result:?}"
        );
    }

    pub(crate) fn read(&self, statements: Vec<Statement>) -> Outcome {
        self.db.read(read(statements)).blocking_recv().unwrap()
    }

    pub(crate) fn query(&self, text: &str) -> Vec<Vec<Cell>> {
        rows(self.read(vec![sql(text)]).results.remove(0)).values
    }

    /// All cells of a query's result as text, rows separated by `|`.
    pub(crate) fn shown(&self, text: &str) -> String {
        let rows = self.query(text);
        rows.iter()
            .map(|row| row.iter().map(show).collect::<Vec<_>>().join(","))
            .collect::<Vec<_>>()
            .join("|")
    }

    pub(crate) fn checkpoint(&self) -> Checkpoint {
        self.db.checkpoint().blocking_recv().unwrap().unwrap()
    }

    /// The whole content as SQL.
    pub(crate) fn dump(&self) -> String {
        let to = self.dir.path().join("dump.sql");
        self.db
            .backup(&node_db::BackupFormat::Sql { tables: Vec::new() }, &to)
            .unwrap();
        std::fs::read_to_string(to).unwrap()
    }
}

pub(crate) fn read(statements: Vec<Statement>) -> Read {
    Read {
        kind: Kind::Query,
        transaction: false,
        qualify_columns: false,
        statements,
        timeout: None,
    }
}

fn show(cell: &Cell) -> String {
    match cell {
        Cell::Null => "NULL".to_owned(),
        Cell::Integer(value) => value.to_string(),
        Cell::Real(value) => format!("{value:?}"),
        Cell::Text(text) => text.clone(),
        Cell::Blob(bytes) => format!("{bytes:02x?}"),
        Cell::Boolean(value) => value.to_string(),
    }
}

pub(crate) fn rows(result: StatementResult) -> Rows {
    match result {
        StatementResult::Rows(mut rows) => {
            rows.time_secs = 0.0;
            rows
        }
        other => panic!("no rows: {other:?}"),
    }
}

/// `(last_insert_id, rows_affected)`.
pub(crate) fn write(result: &StatementResult) -> (i64, i64) {
    match result {
        StatementResult::Write(WriteResult {
            last_insert_id,
            rows_affected,
            ..
        }) => (*last_insert_id, *rows_affected),
        other => panic!("no write: {other:?}"),
    }
}

pub(crate) fn error(result: &StatementResult) -> &str {
    match result {
        StatementResult::Error(text) => text,
        other => panic!("no error: {other:?}"),
    }
}

/// Removes the times, which differ on every run.
pub(crate) fn timeless(mut outcome: Outcome) -> Outcome {
    for result in &mut outcome.results {
        match result {
            StatementResult::Write(write) => write.time_secs = 0.0,
            StatementResult::Rows(rows) => rows.time_secs = 0.0,
            StatementResult::Error(_) => {}
        }
    }
    outcome
}

/// Waits until `done`, at most ten seconds.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::yield_now();
    }
}
