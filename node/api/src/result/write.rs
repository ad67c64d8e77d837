//! Replies as bytes: rqlite's field order and omission rules, in the normal and the associative form.
use node_values::{Cell, Rows, StatementResult, WriteResult};

use super::Reply;
use crate::json::{self, write_f64, write_integer, write_str};

/// How the client wants the reply written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Rows as maps from column name to value.
    pub associative: bool,
    /// Blobs as arrays of 0..255 instead of base64.
    pub blob_array: bool,
    /// Indent by four spaces.
    pub pretty: bool,
    /// Show each result's time. The envelope's own time is shown when the reply carries one.
    pub timings: bool,
    /// A failed statement of an associative reply carries an empty `rows`. True for `/db/query` alone.
    pub errors_with_rows: bool,
}

/// Appends the JSON of a reply, without a newline at the end. NaN and infinities are null.
pub fn write_reply(out: &mut Vec<u8>, reply: &Reply, shape: &Shape) {
    let start = out.len();
    write_envelope(out, reply, *shape);
    if shape.pretty {
        let pretty = json::pretty_json(&out[start..]);
        out.truncate(start);
        out.extend_from_slice(&pretty);
    }
}

fn write_envelope(out: &mut Vec<u8>, reply: &Reply, shape: Shape) {
    out.extend_from_slice(b"{\"results\":");
    write_list(out, &reply.results, |out, result| {
        write_result(out, result, shape)
    });
    write_rest(out, reply);
}

/// Appends the part after the results, to the end of the reply.
pub(super) fn write_rest(out: &mut Vec<u8>, reply: &Reply) {
    if let Some(error) = reply.error.as_deref().filter(|error| !error.is_empty()) {
        write_key(out, "error");
        write_str(out, error);
    }
    if let Some(seconds) = reply.time_secs {
        write_time(out, seconds);
    }
    if let Some(number) = reply.sequence_number.filter(|number| *number != 0) {
        write_key(out, "sequence_number");
        write_integer(out, number);
    }
    if let Some(index) = reply.raft_index.filter(|index| *index != 0) {
        write_key(out, "raft_index");
        write_integer(out, index);
    }
    out.push(b'}');
}

pub(super) fn write_result(out: &mut Vec<u8>, result: &StatementResult, shape: Shape) {
    match result {
        StatementResult::Write(write) => write_counters(out, write, shape),
        StatementResult::Rows(rows) if shape.associative => write_associative(out, rows, shape),
        StatementResult::Rows(rows) => write_rows(out, rows, shape),
        StatementResult::Error(error) => {
            out.push(b'{');
            if shape.associative && shape.errors_with_rows {
                out.extend_from_slice(b"\"rows\":[]");
            }
            write_key(out, "error");
            write_str(out, error);
            out.push(b'}');
        }
    }
}

fn write_counters(out: &mut Vec<u8>, write: &WriteResult, shape: Shape) {
    out.push(b'{');
    if write.last_insert_id != 0 {
        write_key(out, "last_insert_id");
        write_integer(out, write.last_insert_id);
    }
    if write.rows_affected != 0 {
        write_key(out, "rows_affected");
        write_integer(out, write.rows_affected);
    }
    if shape.timings {
        write_time(out, write.time_secs);
    }
    if shape.associative {
        write_key(out, "rows");
        out.extend_from_slice(b"null");
    }
    out.push(b'}');
}

fn write_rows(out: &mut Vec<u8>, rows: &Rows, shape: Shape) {
    write_head(out, &rows.columns, &rows.types);
    if !rows.values.is_empty() {
        write_key(out, "values");
        write_list(out, &rows.values, |out, row| write_row(out, row, shape));
    }
    if shape.timings {
        write_time(out, rows.time_secs);
    }
    out.push(b'}');
}

/// Opens a result with rows.
pub(super) fn write_head(out: &mut Vec<u8>, columns: &[String], types: &[String]) {
    out.push(b'{');
    if !columns.is_empty() {
        write_key(out, "columns");
        write_list(out, columns, |out, name| write_str(out, name));
    }
    if !types.is_empty() {
        write_key(out, "types");
        write_list(out, types, |out, name| write_str(out, name));
    }
}

pub(super) fn write_row(out: &mut Vec<u8>, row: &[Cell], shape: Shape) {
    write_list(out, row, |out, cell| {
        write_cell(out, cell, shape.blob_array)
    });
}

fn write_associative(out: &mut Vec<u8>, rows: &Rows, shape: Shape) {
    let columns = sorted_columns(&rows.columns);
    write_associative_head(out, &columns, &rows.types);
    write_key(out, "rows");
    write_list(out, &rows.values, |out, row| {
        write_associative_row(out, &columns, row, shape);
    });
    if shape.timings {
        write_time(out, rows.time_secs);
    }
    out.push(b'}');
}

/// Opens an associative result with rows.
pub(super) fn write_associative_head(out: &mut Vec<u8>, columns: &[Column], types: &[String]) {
    out.push(b'{');
    if !columns.is_empty() && !types.is_empty() {
        write_key(out, "types");
        write_map(out, columns, |out, index| {
            write_str(out, types.get(index).map_or("", String::as_str));
        });
    }
}

pub(super) fn write_associative_row(
    out: &mut Vec<u8>,
    columns: &[Column],
    row: &[Cell],
    shape: Shape,
) {
    write_map(out, columns, |out, index| {
        write_cell(out, row.get(index).unwrap_or(&Cell::Null), shape.blob_array);
    });
}

/// A column of the associative form: its index, and its name as a JSON key with the colon.
#[derive(Debug)]
pub(super) struct Column {
    index: usize,
    key: Vec<u8>,
}

/// Columns sorted by name; of several with one name the last counts, as when a map is filled from left to
/// right.
pub(super) fn sorted_columns(names: &[String]) -> Vec<Column> {
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_by(|a, b| names[*a].cmp(&names[*b]).then(b.cmp(a)));
    order.dedup_by(|later, kept| names[*later] == names[*kept]);
    let with_key = |index: usize| {
        let mut key = Vec::new();
        write_str(&mut key, &names[index]);
        key.push(b':');
        Column { index, key }
    };
    order.into_iter().map(with_key).collect()
}

fn write_cell(out: &mut Vec<u8>, cell: &Cell, blob_array: bool) {
    match cell {
        Cell::Null => out.extend_from_slice(b"null"),
        Cell::Integer(number) => write_integer(out, *number),
        Cell::Real(number) => write_f64(out, *number),
        Cell::Text(text) => write_str(out, text),
        Cell::Blob(bytes) if blob_array => {
            write_list(out, bytes, |out, byte| write_integer(out, *byte))
        }
        Cell::Blob(bytes) => json::write_base64(out, bytes),
        Cell::Boolean(true) => out.extend_from_slice(b"true"),
        Cell::Boolean(false) => out.extend_from_slice(b"false"),
    }
}

/// Appends `"name":`, after a comma unless the object was just opened. Names are the contract's own: no
/// escapes.
pub(super) fn write_key(out: &mut Vec<u8>, name: &str) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Appends a time in seconds; zero is omitted.
pub(super) fn write_time(out: &mut Vec<u8>, seconds: f64) {
    if seconds != 0.0 {
        write_key(out, "time");
        write_f64(out, seconds);
    }
}

fn write_list<T>(out: &mut Vec<u8>, items: &[T], mut write: impl FnMut(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (n, item) in items.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

fn write_map(out: &mut Vec<u8>, columns: &[Column], mut write: impl FnMut(&mut Vec<u8>, usize)) {
    out.push(b'{');
    for (n, column) in columns.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&column.key);
        write(out, column.index);
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests;
