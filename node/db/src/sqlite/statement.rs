//! Runs one prepared statement: binds its parameters, steps its rows, and converts values to what clients
//! see.
use std::time::Instant;

use node_values::{Cell, Parameter, Rows, StatementResult, Value, WriteResult};
use rusqlite::{Connection, Error, Statement, types::ValueRef};

use crate::{
    entry::Kind,
    sql::{
        classify, dates,
        result_size::{result_bytes, row_bytes},
    },
    sqlite::{authorizer::READ_ONLY_TEXT, determinism},
};

/// The rules of the request that a statement belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StatementRules {
    pub(crate) kind: Kind,
    pub(crate) qualify_columns: bool,
    /// Collect the rows; otherwise only the effects matter.
    pub(crate) keep_rows: bool,
    /// The connection applies log entries, so the counters are meaningful.
    pub(crate) counters: bool,
}

/// Why a statement has no result.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A rule of this crate; the text is for the client.
    Refused(String),
    /// An error of SQLite.
    Sqlite(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Sqlite(error)
    }
}

/// The parameters of one SQL text, consumed by its statements from left to right.
pub(crate) struct Arguments<'a> {
    all: &'a [Parameter],
    used: usize,
    has_names: bool,
}

impl<'a> Arguments<'a> {
    pub(crate) fn new(all: &'a [Parameter]) -> Self {
        Self {
            all,
            used: 0,
            has_names: all.iter().any(|parameter| parameter.name.is_some()),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Number of parameters used so far.
    pub(crate) fn mark(&self) -> usize {
        self.used
    }

    /// Returns to a mark, for a statement that is repeated.
    pub(crate) fn go_back(&mut self, mark: usize) {
        self.used = mark;
    }

    /// Binds the statement's parameters. `lenient`: if no parameter was given at all, all are NULL.
    fn bind(&mut self, statement: &mut Statement<'_>, lenient: bool) -> Result<(), Failure> {
        let want = statement.parameter_count();
        if want == 0 {
            return Ok(());
        }
        let left = &self.all[self.used.min(self.all.len())..];
        if left.len() < want && !(lenient && self.all.is_empty()) {
            return Err(Failure::Refused(format!(
                "not enough args to execute query: want {want} got {}",
                left.len()
            )));
        }
        let window = &left[..want.min(left.len())];
        self.used += want;
        if !self.has_names {
            for (at, parameter) in window.iter().enumerate() {
                bind(statement, at + 1, &parameter.value)?;
            }
            return Ok(());
        }
        let mut positional = window.iter().filter(|parameter| parameter.name.is_none());
        for index in 1..=want {
            let name = statement
                .parameter_name(index)
                .and_then(|name| name.strip_prefix([':', '@', '$']));
            let named = name.and_then(|name| {
                self.all
                    .iter()
                    .find(|given| given.name.as_deref() == Some(name))
            });
            if let Some(parameter) = named.or_else(|| positional.next()) {
                bind(statement, index, &parameter.value)?;
            }
        }
        Ok(())
    }
}

fn bind(statement: &mut Statement<'_>, index: usize, value: &Value) -> rusqlite::Result<()> {
    match value {
        Value::Null => statement.raw_bind_parameter(index, rusqlite::types::Null),
        Value::Integer(value) => statement.raw_bind_parameter(index, value),
        Value::Real(value) => statement.raw_bind_parameter(index, value),
        Value::Text(value) => statement.raw_bind_parameter(index, value.as_str()),
        Value::Blob(value) => statement.raw_bind_parameter(index, value.as_slice()),
    }
}

/// Limit of all results of one request that goes through the log: they are held in memory, and reach another
/// node in one frame.
const LOG_BYTES: usize = 32 << 20;
/// The error of a larger result.
const TOO_LARGE: &str = "the result is larger than 32 MiB; query it at level none, weak or linearizable, where a result may have any size";

/// Decides what happens to the rows of a result that becomes large.
pub(crate) trait Overflow {
    /// Bytes of rows to collect before `take` is called.
    fn limit(&self) -> usize;

    /// Called when that many bytes have been collected; rows left in `rows` are kept.
    ///
    /// # Errors
    /// Ends the statement with this error.
    fn take(&mut self, rows: &mut Rows) -> Result<(), Failure>;
}

/// Drops the rows beyond the limit for results through the log. The statement still runs to its end, because
/// its effects must be the same on every node. A dropped result is marked by having columns without types,
/// and becomes an error only after the request ([`cap_result`]), because an earlier error would roll the
/// request back.
struct Dropped;

impl Overflow for Dropped {
    fn limit(&self) -> usize {
        LOG_BYTES
    }

    fn take(&mut self, rows: &mut Rows) -> Result<(), Failure> {
        rows.values.clear();
        rows.types.clear();
        Ok(())
    }
}

/// Limit of all results of a request through the log, in bytes.
pub(crate) fn max_result_bytes() -> usize {
    LOG_BYTES
}

/// Replaces a result by an error if it exceeds the `room` that is left; otherwise subtracts its size.
pub(crate) fn cap_result(room: &mut usize, result: StatementResult) -> StatementResult {
    let dropped =
        matches!(&result, StatementResult::Rows(rows) if rows.types.len() < rows.columns.len());
    let bytes = result_bytes(&result);
    if dropped || bytes > *room {
        return StatementResult::Error(TOO_LARGE.to_owned());
    }
    *room -= bytes;
    result
}

/// Runs a prepared statement of a log entry to its end.
pub(crate) fn run(
    conn: &Connection,
    statement: &mut Statement<'_>,
    arguments: &mut Arguments<'_>,
    rules: StatementRules,
) -> Result<StatementResult, Failure> {
    run_into(conn, statement, arguments, rules, &mut Dropped)
}

/// Runs one prepared statement to its end, or until `overflow` ends it.
pub(crate) fn run_into(
    conn: &Connection,
    statement: &mut Statement<'_>,
    arguments: &mut Arguments<'_>,
    rules: StatementRules,
    overflow: &mut dyn Overflow,
) -> Result<StatementResult, Failure> {
    let started = rules.keep_rows.then(Instant::now);
    let explain = statement.is_explain() != 0;
    let reads = explain || statement.readonly();
    let shows_rows = match rules.kind {
        Kind::Execute => !reads && has_columns(statement),
        Kind::Query if !reads => return Err(Failure::Refused(READ_ONLY_TEXT.to_owned())),
        Kind::Query => true,
        Kind::Unified => reads || has_columns(statement),
        Kind::ExecutePlain => false,
        Kind::UnifiedPlain => statement.readonly(),
    };
    arguments.bind(statement, !shows_rows)?;
    let seconds = || started.map_or(0.0, |started| started.elapsed().as_secs_f64());
    if shows_rows && rules.keep_rows {
        let mut rows = collect(statement, rules.qualify_columns, overflow)?;
        rows.time_secs = seconds();
        return Ok(StatementResult::Rows(rows));
    }
    let mut rows = statement.raw_query();
    while rows.next()?.is_some() {}
    drop(rows);
    if !rules.counters {
        return Ok(StatementResult::Write(WriteResult::default()));
    }
    Ok(StatementResult::Write(WriteResult {
        last_insert_id: conn.last_insert_rowid(),
        rows_affected: determinism::changes(conn).cast_signed(),
        time_secs: seconds(),
    }))
}

/// Whether a statement that writes returns rows. Some forms of ALTER TABLE have an internal column that never
/// has a row.
fn has_columns(statement: &Statement<'_>) -> bool {
    statement.column_count() > 0
        && !(statement.parameter_count() == 0
            && statement
                .expanded_sql()
                .is_some_and(|sql| classify::is_alter(&sql)))
}

/// How a column's declared type changes its values.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Conversion {
    Plain,
    Boolean,
    Date,
}

struct Columns {
    names: Vec<String>,
    types: Vec<String>,
    conversions: Vec<Conversion>,
}

/// Reads the columns. Only valid after the first step: until then a schema change may still give the
/// statement other columns.
fn columns(statement: &Statement<'_>, qualify: bool) -> Columns {
    let count = statement.column_count();
    let mut found = Columns {
        names: Vec::with_capacity(count),
        types: Vec::with_capacity(count),
        conversions: Vec::with_capacity(count),
    };
    for column in statement.columns() {
        let declared = column.decl_type().unwrap_or("").to_ascii_lowercase();
        found.conversions.push(match declared.as_str() {
            "boolean" => Conversion::Boolean,
            "date" | "datetime" | "timestamp" => Conversion::Date,
            _ => Conversion::Plain,
        });
        found.types.push(declared);
        found.names.push(column.name().to_owned());
    }
    if qualify {
        for (name, column) in found
            .names
            .iter_mut()
            .zip(statement.columns_with_metadata())
        {
            if let Some(table) = column.table_name() {
                *name = format!("{table}.{name}");
            }
        }
    }
    found
}

fn collect(
    statement: &mut Statement<'_>,
    qualify: bool,
    overflow: &mut dyn Overflow,
) -> Result<Rows, Failure> {
    let mut found: Option<(Rows, Vec<Conversion>)> = None;
    let (mut bytes, mut limit) = (0, overflow.limit());
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        let (gathered, conversions) = found.get_or_insert_with(|| begin(row.as_ref(), qualify));
        let mut cells = Vec::with_capacity(conversions.len());
        for (at, &conversion) in conversions.iter().enumerate() {
            cells.push(cell(row.get_ref(at)?, conversion));
        }
        bytes += row_bytes(&cells);
        if gathered.values.is_empty() {
            type_by_first_row(gathered, &cells);
        }
        gathered.values.push(cells);
        if bytes >= limit {
            overflow.take(gathered)?;
            (bytes, limit) = (0, overflow.limit());
        }
    }
    drop(rows);
    Ok(found.map_or_else(|| begin(statement, qualify).0, |(rows, _)| rows))
}

fn begin(statement: &Statement<'_>, qualify: bool) -> (Rows, Vec<Conversion>) {
    let Columns {
        names,
        types,
        conversions,
    } = columns(statement, qualify);
    let rows = Rows {
        columns: names,
        types,
        ..Rows::default()
    };
    (rows, conversions)
}

/// A column without declared type has the type of its first value.
fn type_by_first_row(rows: &mut Rows, first: &[Cell]) {
    for (declared, cell) in rows.types.iter_mut().zip(first) {
        if declared.is_empty() {
            *declared = storage_class(cell).to_owned();
        }
    }
}

fn storage_class(cell: &Cell) -> &'static str {
    match cell {
        Cell::Null => "",
        Cell::Integer(_) => "integer",
        Cell::Real(_) => "real",
        Cell::Text(_) => "text",
        Cell::Blob(_) => "blob",
        Cell::Boolean(_) => "boolean",
    }
}

fn cell(value: ValueRef<'_>, conversion: Conversion) -> Cell {
    match (value, conversion) {
        (ValueRef::Null, _) => Cell::Null,
        (ValueRef::Integer(value), Conversion::Boolean) => Cell::Boolean(value > 0),
        (ValueRef::Integer(value), Conversion::Date) => Cell::Text(dates::from_integer(value)),
        (ValueRef::Integer(value), Conversion::Plain) => Cell::Integer(value),
        (ValueRef::Real(value), _) => Cell::Real(value),
        (ValueRef::Text(bytes), conversion) => {
            let text = String::from_utf8_lossy(bytes);
            // A text that is not a date is returned unchanged.
            let date = if conversion == Conversion::Date {
                dates::from_text(&text)
            } else {
                None
            };
            Cell::Text(date.unwrap_or_else(|| text.into_owned()))
        }
        (ValueRef::Blob(bytes), _) => Cell::Blob(bytes.to_vec()),
    }
}
