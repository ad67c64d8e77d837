//! The database as SQL text, in the order and the words that rqlite's clients expect.
use std::io::{self, Write};

use rusqlite::{Connection, Statement, types::ValueRef};

use crate::fault::message;

/// Why a dump stopped.
pub(crate) enum DumpError {
    Sqlite(rusqlite::Error),
    Io(io::Error),
}

impl From<rusqlite::Error> for DumpError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<io::Error> for DumpError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl DumpError {
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Sqlite(error) => message(error),
            Self::Io(error) => error.to_string(),
        }
    }
}

struct Table {
    name: String,
    sql: String,
    is_virtual: bool,
}

/// Writes all of the database, or the named tables with all indexes, triggers and views. The connection should be inside
/// a read transaction.
pub(crate) fn write(
    conn: &Connection,
    tables: &[String],
    out: &mut impl Write,
) -> Result<(), DumpError> {
    out.write_all(b"PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n")?;
    for table in all_tables(conn)? {
        if tables.is_empty()
            || tables
                .iter()
                .any(|name| name.eq_ignore_ascii_case(&table.name))
        {
            write_table(conn, &table, out)?;
        }
    }
    // Tables come first, so that rows are inserted before indexes are built and triggers could fire.
    let mut rest = conn.prepare(
        "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND type IN ('index', 'trigger', 'view') \
         ORDER BY type = 'view', type = 'trigger', rowid",
    )?;
    let mut rows = rest.query([])?;
    while let Some(row) = rows.next()? {
        writeln!(out, "{};", row.get_ref(0)?.as_str().unwrap_or_default())?;
    }
    out.write_all(b"COMMIT;\n")?;
    Ok(())
}

fn all_tables(conn: &Connection) -> Result<Vec<Table>, DumpError> {
    // The tables behind a virtual table are filled by filling it.
    let mut statement = conn.prepare(
        "SELECT s.name, s.sql, l.type = 'virtual' FROM sqlite_schema AS s \
         JOIN pragma_table_list AS l ON l.schema = 'main' AND l.name = s.name \
         WHERE s.type = 'table' AND s.sql IS NOT NULL AND l.type <> 'shadow' ORDER BY s.name",
    )?;
    let tables = statement.query_map([], |row| {
        Ok(Table {
            name: row.get(0)?,
            sql: row.get(1)?,
            is_virtual: row.get(2)?,
        })
    })?;
    Ok(tables.collect::<Result<_, _>>()?)
}

fn write_table(conn: &Connection, table: &Table, out: &mut impl Write) -> Result<(), DumpError> {
    match table.name.as_str() {
        "sqlite_sequence" => out.write_all(b"DELETE FROM \"sqlite_sequence\";\n")?,
        "sqlite_stat1" => out.write_all(b"ANALYZE \"sqlite_master\";\n")?,
        name if name.starts_with("sqlite_") => return Ok(()),
        _ => writeln!(out, "{};", table.sql)?,
    }
    let name = quoted(&table.name);
    let columns = stored_columns(conn, &table.name)?;
    let names: Vec<String> = columns.names.iter().map(|name| quoted(name)).collect();
    let mut rows = conn.prepare(&format!("SELECT {} FROM {name}", names.join(",")))?;
    // Column names are needed only where some columns take no value, and for virtual tables, which have hidden ones.
    let target = if columns.complete && !table.is_virtual {
        name
    } else {
        format!("{name}({})", names.join(","))
    };
    write_rows(&mut rows, &target, out)
}

struct Columns {
    names: Vec<String>,
    /// No generated or hidden ones were left out.
    complete: bool,
}

fn stored_columns(conn: &Connection, table: &str) -> rusqlite::Result<Columns> {
    let mut columns = Columns {
        names: Vec::new(),
        complete: true,
    };
    let mut statement = conn.prepare("SELECT name, hidden FROM pragma_table_xinfo(?)")?;
    let mut rows = statement.query([table])?;
    while let Some(row) = rows.next()? {
        if row.get::<_, i64>(1)? == 0 {
            columns.names.push(row.get(0)?);
        } else {
            columns.complete = false;
        }
    }
    Ok(columns)
}

fn write_rows(
    rows: &mut Statement<'_>,
    target: &str,
    out: &mut impl Write,
) -> Result<(), DumpError> {
    let count = rows.column_count();
    let mut rows = rows.raw_query();
    while let Some(row) = rows.next()? {
        write!(out, "INSERT INTO {target} VALUES(")?;
        for at in 0..count {
            if at > 0 {
                out.write_all(b",")?;
            }
            write_value(row.get_ref(at)?, out)?;
        }
        out.write_all(b");\n")?;
    }
    Ok(())
}

fn write_value(value: ValueRef<'_>, out: &mut impl Write) -> io::Result<()> {
    match value {
        ValueRef::Null => out.write_all(b"NULL"),
        ValueRef::Integer(value) => write!(out, "{value}"),
        // SQLite reads both as infinity; it has no literal for it.
        ValueRef::Real(value) if value.is_infinite() => {
            out.write_all(if value > 0.0 { b"1e999" } else { b"-1e999" })
        }
        ValueRef::Real(value) => write!(out, "{value:?}"),
        // A zero byte would end the script.
        ValueRef::Text(text) if text.contains(&0) => {
            out.write_all(b"CAST(")?;
            write_blob(text, out)?;
            out.write_all(b" AS TEXT)")
        }
        ValueRef::Text(text) => {
            out.write_all(b"'")?;
            for (at, part) in text.split(|byte| *byte == b'\'').enumerate() {
                if at > 0 {
                    out.write_all(b"''")?;
                }
                out.write_all(part)?;
            }
            out.write_all(b"'")
        }
        ValueRef::Blob(bytes) => write_blob(bytes, out),
    }
}

fn write_blob(bytes: &[u8], out: &mut impl Write) -> io::Result<()> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.write_all(b"X'")?;
    for byte in bytes {
        out.write_all(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]])?;
    }
    out.write_all(b"'")
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
