//! Formats rows in the four output modes. Without I/O: values in, bytes out.

use std::io::{self, Write};

use unicode_width::UnicodeWidthStr;

use crate::settings::Mode;

/// One value of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cell {
    /// SQL NULL.
    Null,
    /// A string.
    Text(String),
    /// Any other value, as its JSON text: a number keeps all its digits.
    Literal(String),
}

/// A result with columns.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) columns: Vec<String>,
    /// Each as long as `columns`.
    pub(crate) rows: Vec<Vec<Cell>>,
}

impl Table {
    /// Writes the table. A result without columns writes nothing.
    pub(crate) fn write(&self, mode: Mode, out: &mut dyn Write) -> io::Result<()> {
        if self.columns.is_empty() {
            return Ok(());
        }
        match mode {
            Mode::Column => self.write_columns(out),
            Mode::Csv => self.write_csv(out),
            Mode::Json => self.write_json(out),
            Mode::Line => self.write_lines(out),
        }
    }

    fn write_columns(&self, out: &mut dyn Write) -> io::Result<()> {
        let header: Vec<Vec<String>> = self.columns.iter().map(|name| screen_lines(name)).collect();
        let body: Vec<Vec<Vec<String>>> = self
            .rows
            .iter()
            .map(|row| {
                row.iter()
                    .map(|cell| screen_lines(cell.or("<nil>")))
                    .collect()
            })
            .collect();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| {
                let cells = std::iter::once(&header)
                    .chain(&body)
                    .filter_map(|row| row.get(column));
                cells
                    .flatten()
                    .map(|line| line.width())
                    .max()
                    .unwrap_or_default()
            })
            .collect();
        let border: String = widths
            .iter()
            .map(|width| format!("+{}", "-".repeat(width + 2)))
            .collect();
        writeln!(out, "{border}+")?;
        for row in std::iter::once(&header).chain(&body) {
            let height = row.iter().map(Vec::len).max().unwrap_or_default();
            for line in 0..height {
                for (cell, width) in row.iter().zip(&widths) {
                    let text = cell.get(line).map_or("", String::as_str);
                    write!(out, "| {text}{} ", " ".repeat(width - text.width()))?;
                }
                writeln!(out, "|")?;
            }
            writeln!(out, "{border}+")?;
        }
        Ok(())
    }

    fn write_csv(&self, out: &mut dyn Write) -> io::Result<()> {
        write_record(out, self.columns.iter().map(String::as_str))?;
        for row in &self.rows {
            write_record(out, row.iter().map(|cell| cell.or("NULL")))?;
        }
        Ok(())
    }

    fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.rows.is_empty() {
            return writeln!(out, "[]");
        }
        writeln!(out, "[")?;
        for (number, row) in self.rows.iter().enumerate() {
            writeln!(out, "  {{")?;
            for (column, (name, cell)) in self.columns.iter().zip(row).enumerate() {
                let comma = if column + 1 < self.columns.len() {
                    ","
                } else {
                    ""
                };
                writeln!(out, "    {}: {}{comma}", json_string(name), cell.json())?;
            }
            writeln!(
                out,
                "  }}{}",
                if number + 1 < self.rows.len() {
                    ","
                } else {
                    ""
                }
            )?;
        }
        writeln!(out, "]")
    }

    fn write_lines(&self, out: &mut dyn Write) -> io::Result<()> {
        let width = self
            .columns
            .iter()
            .map(|name| name.width())
            .max()
            .unwrap_or_default();
        for (number, row) in self.rows.iter().enumerate() {
            if number > 0 {
                writeln!(out)?;
            }
            for (name, cell) in self.columns.iter().zip(row) {
                writeln!(
                    out,
                    "{}{name} = {}",
                    " ".repeat(width - name.width()),
                    cell.or("NULL")
                )?;
            }
        }
        Ok(())
    }
}

impl Cell {
    fn or<'a>(&'a self, null: &'a str) -> &'a str {
        match self {
            Cell::Null => null,
            Cell::Text(text) | Cell::Literal(text) => text,
        }
    }

    fn json(&self) -> String {
        match self {
            Cell::Null => "null".to_owned(),
            Cell::Text(text) => json_string(text),
            Cell::Literal(text) => text.clone(),
        }
    }
}

fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The lines of a cell. Control characters are escaped: they would break the frame or control the terminal.
/// Always at least one line.
fn screen_lines(text: &str) -> Vec<String> {
    let line = |line: &str| {
        let mut shown = String::with_capacity(line.len());
        for c in line.chars() {
            match c {
                '\t' => shown.push_str("    "),
                c if c.is_control() => shown.extend(c.escape_default()),
                c => shown.push(c),
            }
        }
        shown
    };
    text.split('\n')
        .map(|part| line(part.strip_suffix('\r').unwrap_or(part)))
        .collect()
}

/// One RFC 4180 record, ended by a line feed as is usual on Unix.
fn write_record<'a>(out: &mut dyn Write, fields: impl Iterator<Item = &'a str>) -> io::Result<()> {
    for (number, field) in fields.enumerate() {
        if number > 0 {
            out.write_all(b",")?;
        }
        let quoted =
            field.contains(['"', ',', '\n', '\r']) || field.starts_with(char::is_whitespace);
        if quoted {
            write!(out, "\"{}\"", field.replace('"', "\"\""))?;
        } else {
            out.write_all(field.as_bytes())?;
        }
    }
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Cell {
        Cell::Text(value.to_owned())
    }

    fn number(value: &str) -> Cell {
        Cell::Literal(value.to_owned())
    }

    fn table(columns: &[&str], rows: Vec<Vec<Cell>>) -> Table {
        Table {
            columns: columns.iter().map(|name| (*name).to_owned()).collect(),
            rows,
        }
    }

    fn people() -> Table {
        table(
            &["id", "name"],
            vec![
                vec![number("1"), text("fiona")],
                vec![number("9007199254740993"), Cell::Null],
                vec![number("1.5"), text("a \"b\", c")],
            ],
        )
    }

    fn check(table: &Table, mode: Mode, expected: &str) {
        let mut out = Vec::new();
        table.write(mode, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn column_mode_draws_a_border_after_every_row() {
        check(
            &people(),
            Mode::Column,
            "\
+------------------+----------+
| id               | name     |
+------------------+----------+
| 1                | fiona    |
+------------------+----------+
| 9007199254740993 | <nil>    |
+------------------+----------+
| 1.5              | a \"b\", c |
+------------------+----------+
",
        );
    }

    #[test]
    fn column_mode_without_rows_has_its_header() {
        check(
            &table(&["id"], vec![]),
            Mode::Column,
            "+----+\n| id |\n+----+\n",
        );
    }

    #[test]
    fn column_mode_keeps_its_frame() {
        let rows = vec![
            vec![text("日本")],
            vec![text("a\nbcd")],
            vec![text("\u{1b}[2J\t.")],
            vec![text("")],
        ];
        check(
            &table(&["x"], rows),
            Mode::Column,
            "\
+----------------+
| x              |
+----------------+
| 日本           |
+----------------+
| a              |
| bcd            |
+----------------+
| \\u{1b}[2J    . |
+----------------+
|                |
+----------------+
",
        );
    }

    #[test]
    fn csv_mode_follows_rfc_4180() {
        check(
            &people(),
            Mode::Csv,
            "id,name\n1,fiona\n9007199254740993,NULL\n1.5,\"a \"\"b\"\", c\"\n",
        );
        check(
            &table(&["a,b"], vec![vec![text("x\ny")], vec![text("")]]),
            Mode::Csv,
            "\"a,b\"\n\"x\ny\"\n\n",
        );
    }

    #[test]
    fn json_mode_keeps_column_order_and_digits() {
        check(
            &table(
                &["z", "a"],
                vec![
                    vec![number("9007199254740993"), text("q\"\n")],
                    vec![Cell::Null, number("[1,2]")],
                ],
            ),
            Mode::Json,
            "\
[
  {
    \"z\": 9007199254740993,
    \"a\": \"q\\\"\\n\"
  },
  {
    \"z\": null,
    \"a\": [1,2]
  }
]
",
        );
        check(&table(&["z"], vec![]), Mode::Json, "[]\n");
    }

    #[test]
    fn line_mode_aligns_names_to_the_right() {
        check(
            &table(
                &["id", "name"],
                vec![
                    vec![number("1"), text("fiona")],
                    vec![number("2"), Cell::Null],
                ],
            ),
            Mode::Line,
            "  id = 1\nname = fiona\n\n  id = 2\nname = NULL\n",
        );
        check(&table(&["id"], vec![]), Mode::Line, "");
    }

    #[test]
    fn no_columns_no_output() {
        for mode in [Mode::Column, Mode::Csv, Mode::Json, Mode::Line] {
            check(&Table::default(), mode, "");
        }
    }
}
