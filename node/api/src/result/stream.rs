//! Replies written piece by piece: the same bytes as from [`write_reply`](super::write_reply), for results
//! that are not held in memory.
use super::write::{
    Column, sorted_columns, write_associative_head, write_associative_row, write_head, write_key,
    write_rest, write_result, write_row, write_time,
};
use node_values::{Cell, StatementResult};

use super::{Reply, Shape};
use crate::json::{Indenter, write_str};

/// Writes one reply. A result whose rows end early has an `error` after them, where rqlite has it.
#[derive(Debug)]
pub struct ReplyWriter {
    shape: Shape,
    indenter: Indenter,
    /// Compact JSON that is not indented yet.
    compact: Vec<u8>,
    begun: bool,
    /// Number of results written.
    results: usize,
    /// The result in progress.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    /// For the associative form.
    columns: Vec<Column>,
    rows: usize,
}

impl ReplyWriter {
    /// Begins a reply.
    pub fn new(shape: Shape) -> Self {
        Self {
            shape,
            indenter: Indenter::default(),
            compact: Vec::new(),
            begun: false,
            results: 0,
            open: None,
        }
    }

    /// Appends the output of `write`, indented if requested.
    fn append(&mut self, out: &mut Vec<u8>, write: impl FnOnce(&mut Self, &mut Vec<u8>)) {
        let mut compact = std::mem::take(&mut self.compact);
        if !std::mem::replace(&mut self.begun, true) {
            compact.extend_from_slice(b"{\"results\":[");
        }
        write(self, &mut compact);
        if self.shape.pretty {
            self.indenter.write(out, &compact);
        } else {
            out.extend_from_slice(&compact);
        }
        compact.clear();
        self.compact = compact;
    }

    fn next_result(&mut self, out: &mut Vec<u8>) {
        if self.results > 0 {
            out.push(b',');
        }
        self.results += 1;
    }

    /// Writes a whole result.
    pub fn result(&mut self, out: &mut Vec<u8>, result: &StatementResult) {
        self.append(out, |this, out| {
            this.next_result(out);
            let mut one = Vec::new();
            write_result(&mut one, result, this.shape);
            out.extend_from_slice(&one);
        });
    }

    /// Begins a result with rows.
    pub fn begin_rows(&mut self, out: &mut Vec<u8>, columns: &[String], types: &[String]) {
        self.append(out, |this, out| {
            this.next_result(out);
            let columns = if this.shape.associative {
                let sorted = sorted_columns(columns);
                write_associative_head(out, &sorted, types);
                write_key(out, "rows");
                sorted
            } else {
                write_head(out, columns, types);
                write_key(out, "values");
                Vec::new()
            };
            out.push(b'[');
            this.open = Some(Open { columns, rows: 0 });
        });
    }

    /// Writes rows of the result in progress.
    pub fn rows(&mut self, out: &mut Vec<u8>, rows: &[Vec<Cell>]) {
        self.append(out, |this, out| {
            let shape = this.shape;
            let Some(open) = &mut this.open else { return };
            for row in rows {
                if open.rows > 0 {
                    out.push(b',');
                }
                open.rows += 1;
                if shape.associative {
                    write_associative_row(out, &open.columns, row, shape);
                } else {
                    write_row(out, row, shape);
                }
            }
        });
    }

    /// Ends the result in progress; `error` says why if it ends early.
    pub fn end_rows(&mut self, out: &mut Vec<u8>, time_secs: f64, error: Option<&str>) {
        if self.open.take().is_none() {
            return;
        }
        self.append(out, |this, out| {
            out.push(b']');
            if let Some(error) = error {
                write_key(out, "error");
                write_str(out, error);
            }
            if this.shape.timings {
                write_time(out, time_secs);
            }
            out.push(b'}');
        });
    }

    /// Ends the reply with everything of `reply` but its results. If a result is in progress, it ends with
    /// the reply's error.
    pub fn finish(&mut self, out: &mut Vec<u8>, reply: &Reply) {
        let reason = reply.error.as_deref().unwrap_or("the result broke off");
        self.end_rows(out, 0.0, Some(reason));
        self.append(out, |_, out| {
            out.push(b']');
            write_rest(out, reply);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::write_reply;
    use node_values::{Rows, WriteResult};

    fn results() -> Vec<StatementResult> {
        let text = |text: &str| Cell::Text(text.to_owned());
        let rows = Rows {
            columns: vec!["b".into(), "a".into(), "b".into()],
            types: vec!["text".into(), "".into(), "blob".into()],
            values: vec![
                vec![text("{\"[\\"), Cell::Null, Cell::Blob(vec![1, 2])],
                vec![text(" <\u{2028}"), Cell::Real(0.5), Cell::Blob(Vec::new())],
                vec![text(""), Cell::Integer(-1), Cell::Null],
            ],
            time_secs: 0.25,
        };
        vec![
            StatementResult::Write(WriteResult {
                last_insert_id: 1,
                rows_affected: 2,
                time_secs: 0.5,
            }),
            StatementResult::Rows(rows),
            StatementResult::Error("no".into()),
            StatementResult::Rows(Rows::default()),
        ]
    }

    /// `cut`: rows a piece.
    fn in_pieces(reply: &Reply, shape: Shape, cut: usize) -> Vec<u8> {
        let mut writer = ReplyWriter::new(shape);
        let mut out = Vec::new();
        for result in &reply.results {
            match result {
                StatementResult::Rows(rows) if !rows.values.is_empty() => {
                    writer.begin_rows(&mut out, &rows.columns, &rows.types);
                    for rows in rows.values.chunks(cut) {
                        writer.rows(&mut out, rows);
                    }
                    writer.rows(&mut out, &[]);
                    writer.end_rows(&mut out, rows.time_secs, None);
                }
                result => writer.result(&mut out, result),
            }
        }
        writer.finish(&mut out, reply);
        out
    }

    #[test]
    fn the_same_bytes_as_at_once() {
        for bits in 0..32 {
            let has = |bit: u32| bits & (1 << bit) != 0;
            let shape = Shape {
                associative: has(0),
                blob_array: has(1),
                pretty: has(2),
                timings: has(3),
                errors_with_rows: has(4),
            };
            for results in [results(), Vec::new()] {
                let reply = Reply {
                    results,
                    error: has(0).then(|| "why".to_owned()),
                    time_secs: has(3).then_some(0.75),
                    raft_index: has(1).then_some(7),
                    ..Reply::default()
                };
                let mut whole = Vec::new();
                write_reply(&mut whole, &reply, &shape);
                for cut in 1..4 {
                    let pieces = in_pieces(&reply, shape, cut);
                    assert_eq!(
                        String::from_utf8(pieces).unwrap(),
                        String::from_utf8(whole.clone()).unwrap(),
                        "{shape:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_result_that_breaks_off_says_so() {
        let mut writer = ReplyWriter::new(Shape::default());
        let mut out = Vec::new();
        writer.begin_rows(&mut out, &["a".to_owned()], &["".to_owned()]);
        writer.rows(&mut out, &[vec![Cell::Integer(1)]]);
        writer.finish(
            &mut out,
            &Reply {
                error: Some("gone".into()),
                ..Reply::default()
            },
        );
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"results":[{"columns":["a"],"types":[""],"values":[[1]],"error":"gone"}],"error":"gone"}"#
        );
    }
}
