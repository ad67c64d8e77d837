//! A table's rows as INSERT statements that restore the same values, bit for bit, with the same row ids.
use std::io::{self, Write};

use rusqlite::{Connection, Statement, types::ValueRef};

use super::error::DumpError;
use crate::sql::text::quoted;

/// The names of the rowid. A column of the same name hides one.
const ROWID_NAMES: [&str; 3] = ["rowid", "_rowid_", "oid"];
/// 2^50, as SQLite reads it exactly.
const STEP: &str = "1125899906842624.0";
const STEP_BITS: i32 = 50;

/// The columns that take values.
pub(super) struct Columns {
    names: Vec<String>,
    /// No generated or hidden column was left out.
    complete: bool,
    /// The name of the rowid, unless a column is an alias for it.
    rowid: Option<&'static str>,
}

impl Columns {
    pub(super) fn of(conn: &Connection, table: &str, has_rowid: bool) -> rusqlite::Result<Self> {
        let mut columns = Self {
            names: Vec::new(),
            complete: true,
            rowid: None,
        };
        let mut keys = Vec::new();
        let mut all = Vec::new();
        let mut statement =
            conn.prepare("SELECT name, hidden, pk, type FROM pragma_table_xinfo(?, 'main')")?;
        let mut rows = statement.query([table])?;
        while let Some(row) = rows.next()? {
            let name: String = row.get(0)?;
            all.push(name.to_ascii_lowercase());
            if row.get::<_, i64>(2)? > 0 {
                keys.push(row.get::<_, String>(3)?);
            }
            if row.get::<_, i64>(1)? == 0 {
                columns.names.push(name);
            } else {
                columns.complete = false;
            }
        }
        // A single key of this type is an alias for the rowid, unless it has an index of its own.
        let aliased = matches!(keys.as_slice(), [kind] if kind.eq_ignore_ascii_case("integer"))
            && !conn.query_row(
                "SELECT EXISTS (SELECT 1 FROM pragma_index_list(?, 'main') WHERE origin = 'pk')",
                [table],
                |row| row.get::<_, bool>(0),
            )?;
        if has_rowid && !aliased {
            columns.rowid = ROWID_NAMES
                .into_iter()
                .find(|name| !all.iter().any(|column| column == name));
        }
        Ok(columns)
    }
}

/// Writes rows.
pub(super) struct Rows<'c> {
    /// Reads a number the way SQLite will read it in the script.
    reads: Statement<'c>,
}

impl<'c> Rows<'c> {
    pub(super) fn new(conn: &'c Connection) -> rusqlite::Result<Self> {
        let reads = conn.prepare("SELECT CAST(?1 AS REAL)")?;
        Ok(Self { reads })
    }

    /// Writes the rows in the order of their ids. An id is written explicitly where SQLite would not assign
    /// the same one by itself.
    pub(super) fn write(
        &mut self,
        conn: &Connection,
        table: &str,
        columns: &Columns,
        out: &mut impl Write,
    ) -> Result<(), DumpError> {
        let table = quoted(table);
        let names: Vec<String> = columns.names.iter().map(|name| quoted(name)).collect();
        let names = names.join(",");
        let plain = if columns.complete {
            table.clone()
        } else {
            format!("{table}({names})")
        };
        let (id, order) = match columns.rowid {
            Some(name) => (format!("{name},"), format!(" ORDER BY {name}")),
            None => ("NULL,".to_owned(), String::new()),
        };
        let with_id = format!("{table}({id}{names})");
        let mut statement = conn.prepare(&format!(
            "SELECT {id}{names} FROM {table} NOT INDEXED{order}"
        ))?;
        let count = statement.column_count();
        let mut rows = statement.raw_query();
        let mut next_id = Some(1);
        while let Some(row) = rows.next()? {
            match row.get_ref(0)? {
                ValueRef::Integer(id) => {
                    if Some(id) == next_id {
                        write!(out, "INSERT INTO {plain} VALUES(")?;
                    } else {
                        write!(out, "INSERT INTO {with_id} VALUES({id},")?;
                    }
                    next_id = id.checked_add(1);
                }
                _ => write!(out, "INSERT INTO {plain} VALUES(")?,
            }
            for at in 1..count {
                if at > 1 {
                    out.write_all(b",")?;
                }
                self.value(row.get_ref(at)?, out)?;
            }
            out.write_all(b");\n")?;
        }
        Ok(())
    }

    /// Writes a literal or an expression for this value.
    pub(super) fn value(
        &mut self,
        value: ValueRef<'_>,
        out: &mut impl Write,
    ) -> Result<(), DumpError> {
        match value {
            ValueRef::Null => out.write_all(b"NULL")?,
            ValueRef::Integer(value) => write!(out, "{value}")?,
            ValueRef::Real(value) => self.real(value, out)?,
            ValueRef::Text(text) => write_text(text, out)?,
            ValueRef::Blob(bytes) => write_blob(bytes, out)?,
        }
        Ok(())
    }

    fn real(&mut self, value: f64, out: &mut impl Write) -> Result<(), DumpError> {
        // SQLite has no literal for infinity, but reads these numbers as infinity.
        if value.is_infinite() {
            return Ok(out.write_all(if value > 0.0 { b"1e999" } else { b"-1e999" })?);
        }
        let text = format!("{value:?}");
        let read: f64 = self.reads.query_row([&text], |row| row.get(0))?;
        if read.to_bits() == value.to_bits() {
            out.write_all(text.as_bytes())?;
        } else {
            write_exactly(value, out)?;
        }
        Ok(())
    }
}

/// Writes an odd integer times a power of two; each step of the computation is exact.
fn write_exactly(value: f64, out: &mut impl Write) -> io::Result<()> {
    const FRACTION_BITS: i32 = 52;
    const BIAS: i32 = 1023;
    let bits = value.to_bits();
    let fraction = bits & ((1 << FRACTION_BITS) - 1);
    let stored = i32::try_from((bits >> FRACTION_BITS) & 0x7ff).unwrap_or(0);
    let (mut digits, mut exponent) = if stored == 0 {
        (fraction, 1 - BIAS - FRACTION_BITS)
    } else {
        (
            fraction | (1 << FRACTION_BITS),
            stored - BIAS - FRACTION_BITS,
        )
    };
    while digits != 0 && digits.is_multiple_of(2) {
        digits /= 2;
        exponent += 1;
    }
    let sign = if value.is_sign_negative() { "-" } else { "" };
    write!(out, "({sign}{digits}.0")?;
    let operator = if exponent < 0 { '/' } else { '*' };
    let mut left = exponent.abs();
    while left >= STEP_BITS {
        write!(out, "{operator}{STEP}")?;
        left -= STEP_BITS;
    }
    write!(out, "{operator}{}.0)", 1_u64 << left)
}

fn write_text(text: &[u8], out: &mut impl Write) -> io::Result<()> {
    // A zero byte would end the script, and a script must be UTF-8.
    if text.contains(&0) || std::str::from_utf8(text).is_err() {
        out.write_all(b"CAST(")?;
        write_blob(text, out)?;
        return out.write_all(b" AS TEXT)");
    }
    out.write_all(b"'")?;
    for (at, part) in text.split(|byte| *byte == b'\'').enumerate() {
        if at > 0 {
            out.write_all(b"''")?;
        }
        out.write_all(part)?;
    }
    out.write_all(b"'")
}

fn write_blob(bytes: &[u8], out: &mut impl Write) -> io::Result<()> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.write_all(b"X'")?;
    for byte in bytes {
        out.write_all(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]])?;
    }
    out.write_all(b"'")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exactly(value: f64) -> String {
        let mut out = Vec::new();
        write_exactly(value, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_are_read_back_to_the_bit() {
        let conn = Connection::open_in_memory().unwrap();
        let mut rows = Rows::new(&conn).unwrap();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut values = vec![
            0.0,
            -0.0,
            0.1,
            1.0,
            5e-324,
            -5e-324,
            2.2250738585072014e-308,
            f64::MAX,
            f64::MIN,
            f64::MIN_POSITIVE,
            1e22,
            1e23,
            9007199254740993.0,
            9223372036854775808.0,
            1e-5,
            123456789.12345679,
        ];
        for _ in 0..20_000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            values.push(f64::from_bits(state));
        }
        for value in values.into_iter().filter(|value| value.is_finite()) {
            let mut out = Vec::new();
            assert!(rows.value(ValueRef::Real(value), &mut out).is_ok());
            for text in [String::from_utf8(out).unwrap(), exactly(value)] {
                let read: f64 = conn
                    .query_row(&format!("SELECT {text}"), [], |row| row.get(0))
                    .unwrap();
                assert_eq!(read.to_bits(), value.to_bits(), "{value:?} as {text}");
            }
        }
        assert_eq!(exactly(-0.75), "(-3.0/4.0)");
    }
}
