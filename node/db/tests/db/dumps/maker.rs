//! Generates schemas and rows that SQLite accepts, unusual ones first.
use node_values::Value;

use super::quoted;
use crate::support::{Db, with};

/// Names that require careful quoting.
const NAMES: &[&str] = &[
    "plain",
    "two words",
    "quo\"te",
    "it's",
    "new\nline",
    "\u{e9}t\u{e9}",
    "select",
    "",
    "[br]acket",
    "a;b",
    "--c",
    "/*d",
    "back`tick",
    "tab\t",
    "rowid",
    "_rowid_",
    "oid",
    "a_b",
    "a",
    "UPPER",
    "100%",
    "\u{1f600}",
    "sqlite",
    "end",
    "nul'l",
    "trigger",
];

const TYPES: &[&str] = &[
    "",
    "INTEGER",
    "INT",
    "REAL",
    "TEXT",
    "BLOB",
    "NUMERIC",
    "ANY",
    "VARCHAR(10)",
    "DATETIME",
    "BOOLEAN",
];
const STRICT_TYPES: &[&str] = &["INT", "INTEGER", "REAL", "TEXT", "BLOB", "ANY"];
const COLUMN_ENDS: &[&str] = &[
    "",
    "",
    "",
    "COLLATE NOCASE",
    "COLLATE RTRIM",
    "DEFAULT 'it''s'",
    "DEFAULT (abs(-1))",
    "DEFAULT NULL",
    "CHECK(1)",
    "NOT NULL DEFAULT 0",
    "UNIQUE ON CONFLICT REPLACE",
    "/* comment; */",
];

/// Makes choices from a list of numbers, so that a failing case shrinks.
pub(super) struct Draw<'a>(pub(super) &'a [u32], pub(super) usize);

impl Draw<'_> {
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.1 += 1;
        let word = self.0[self.1 % self.0.len()]
            .wrapping_add(u32::try_from(self.1 / self.0.len()).unwrap_or(0));
        word as usize % limit
    }

    fn of<'b>(&mut self, list: &[&'b str]) -> &'b str {
        list[self.below(list.len())]
    }

    fn value(&mut self) -> Value {
        match self.below(16) {
            0 => Value::Null,
            1 => Value::Integer(i64::MIN),
            2 => Value::Integer(i64::MAX),
            3 => Value::Integer(1 << 53),
            4 => Value::Real(f64::INFINITY),
            5 => Value::Real(-0.0),
            6 => Value::Real(f64::from_bits(
                ((self.below(1 << 31) as u64) << 32 | self.below(1 << 31) as u64) & !(1 << 62),
            )),
            7 => Value::Real(self.below(1000) as f64),
            8 => Value::Text("a\0b".to_owned()),
            9 => Value::Text(self.of(NAMES).to_owned()),
            10 => Value::Text("12.50".to_owned()),
            11 => Value::Blob(vec![0, 255, 39]),
            12 => Value::Blob(Vec::new()),
            13 => Value::Text(String::new()),
            _ => Value::Integer(i64::try_from(self.below(1000)).unwrap_or(0) - 500),
        }
    }
}

/// Creates objects and rows; statements that SQLite refuses are skipped.
pub(super) struct Maker<'a> {
    pub(super) db: Db,
    pub(super) draw: Draw<'a>,
    pub(super) tables: Vec<(String, Vec<String>)>,
    pub(super) objects: usize,
}

impl Maker<'_> {
    fn name(&mut self) -> String {
        self.objects += 1;
        let name = self.draw.of(NAMES);
        // Only one of each kind may lack a number.
        if self.draw.below(2) == 0 {
            format!("{name}{}", self.objects)
        } else {
            name.to_owned()
        }
    }

    fn try_run(&mut self, text: &str, values: &[Value]) -> bool {
        let outcome = self
            .db
            .request(node_db::Kind::Execute, false, vec![with(text, values)]);
        outcome.error.is_none()
            && !matches!(outcome.results[0], node_values::StatementResult::Error(_))
    }

    pub(super) fn table(&mut self) {
        let name = self.name();
        let strict = self.draw.below(4) == 0;
        let mut columns: Vec<String> = Vec::new();
        let mut parts = Vec::new();
        for _ in 0..=self.draw.below(4) {
            let column = self.draw.of(NAMES).to_owned();
            if columns
                .iter()
                .any(|other| other.eq_ignore_ascii_case(&column))
            {
                continue;
            }
            let kind = self.draw.of(if strict { STRICT_TYPES } else { TYPES });
            parts.push(format!(
                "{} {kind} {}",
                quoted(&column),
                self.draw.of(COLUMN_ENDS)
            ));
            columns.push(column);
        }
        let first = quoted(&columns[0]);
        let mut end = "";
        match self.draw.below(7) {
            0 => parts.insert(0, "\"key\" INTEGER PRIMARY KEY".to_owned()),
            1 => parts.insert(0, "\"key\" INTEGER PRIMARY KEY AUTOINCREMENT".to_owned()),
            2 => parts.insert(0, "\"key\" INTEGER PRIMARY KEY DESC".to_owned()),
            3 => {
                parts.push(format!("PRIMARY KEY({first})"));
                end = "WITHOUT ROWID";
            }
            _ => {}
        }
        if self.draw.below(4) == 0 && end.is_empty() {
            let stored = self.draw.of(&["STORED", "VIRTUAL"]);
            parts.insert(
                self.draw.below(2),
                format!("\"made\" TEXT AS (typeof({first}) || ';') {stored}"),
            );
        }
        if self.draw.below(4) == 0 {
            let other = self
                .tables
                .last()
                .map_or(name.clone(), |(other, _)| other.clone());
            parts.push(format!(
                "FOREIGN KEY({first}) REFERENCES {}({first}) DEFERRABLE INITIALLY DEFERRED",
                quoted(&other)
            ));
        }
        let mut options: Vec<&str> = vec![end]
            .into_iter()
            .filter(|end| !end.is_empty())
            .collect();
        if strict {
            options.push("STRICT");
        }
        let text = format!(
            "CREATE TABLE {}({}) {}",
            quoted(&name),
            parts.join(", "),
            options.join(", ")
        );
        if self.try_run(&text, &[]) {
            self.tables.push((name, columns));
            for _ in 0..self.draw.below(6) {
                self.row();
            }
        }
    }

    fn row(&mut self) {
        let Some((table, columns)) = self.pick() else {
            return;
        };
        let names: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
        let mut values: Vec<Value> = columns.iter().map(|_| self.draw.value()).collect();
        let mut names = names.join(",");
        if self.draw.below(3) == 0 {
            names = format!("rowid,{names}");
            values.insert(
                0,
                Value::Integer([-7, 3, 9, i64::MAX - 1, i64::MIN][self.draw.below(5)]),
            );
        }
        let marks = vec!["?"; values.len()].join(",");
        self.try_run(
            &format!("INSERT INTO {}({names}) VALUES({marks})", quoted(&table)),
            &values,
        );
    }

    fn pick(&mut self) -> Option<(String, Vec<String>)> {
        let at = self.draw.below(self.tables.len().max(1));
        self.tables.get(at).cloned()
    }

    pub(super) fn object(&mut self) {
        let name = quoted(&self.name());
        let Some((table, columns)) = self.pick() else {
            return;
        };
        let (table, column) = (
            quoted(&table),
            quoted(&columns[self.draw.below(columns.len())]),
        );
        let text = match self.draw.below(22) {
            0 => format!("CREATE INDEX {name} ON {table}({column} COLLATE NOCASE DESC)"),
            1 => format!(
                "CREATE INDEX {name} ON {table}(length({column}), {column}) WHERE {column} IS NOT NULL"
            ),
            2 => format!("CREATE UNIQUE INDEX {name} ON {table}({column}) -- ; a comment"),
            3 => format!("CREATE VIEW {name}(a, b) AS SELECT {column}, ';' FROM {table} -- c"),
            4 => format!(
                "CREATE TRIGGER {name} AFTER INSERT ON {table} BEGIN SELECT CASE 1 WHEN 1 THEN ';' END; SELECT 1; END"
            ),
            5 => format!(
                "CREATE TRIGGER {name} BEFORE UPDATE OF {column} ON {table} WHEN old.{column} > 3 BEGIN DELETE FROM {table} WHERE 0; END"
            ),
            6 => format!(
                "CREATE TRIGGER {name} AFTER DELETE ON {table} FOR EACH ROW BEGIN INSERT INTO \"missing\" VALUES(1); END"
            ),
            7 => {
                self.try_run(&format!("CREATE VIEW {name} AS SELECT * FROM {table}"), &[]);
                let trigger = quoted(&self.name());
                format!("CREATE TRIGGER {trigger} INSTEAD OF UPDATE ON {name} BEGIN SELECT 1; END")
            }
            8 => {
                self.try_run(
                    &format!("CREATE VIRTUAL TABLE {name} USING fts5(x, y, tokenize='porter')"),
                    &[],
                );
                let (x, y) = (self.draw.value(), self.draw.value());
                self.try_run(
                    &format!("INSERT INTO {name}(rowid, x, y) VALUES(77, ?, ?)"),
                    &[x, y],
                );
                format!("INSERT INTO {name}(x) VALUES('one two'), ('two three')")
            }
            9 => {
                self.try_run(
                    &format!("CREATE VIRTUAL TABLE {name} USING fts4(x, order=desc)"),
                    &[],
                );
                format!("INSERT INTO {name}(docid, x) VALUES(-4, 'four'), (9, 'nine ninety')")
            }
            10 => {
                self.try_run(&format!("CREATE VIRTUAL TABLE {name} USING fts5(x, content='', contentless_delete=1)"), &[]);
                format!("INSERT INTO {name}(rowid, x) VALUES(5, 'five five'), (6, 'six')")
            }
            11 => {
                self.try_run(
                    &format!("CREATE VIRTUAL TABLE {name} USING rtree(id, a, b, +c)"),
                    &[],
                );
                format!("INSERT INTO {name} VALUES(3, 0.1, 0.2, 'x'), (8, -1e10, 1e10, NULL)")
            }
            12 => format!("DELETE FROM {table} WHERE rowid % 2"),
            13 => "ANALYZE".to_owned(),
            14 => format!("PRAGMA user_version={}", self.draw.below(100)),
            15 => format!("PRAGMA application_id={}", self.draw.below(100)),
            16 => format!("INSERT INTO {table}({column}) VALUES(CAST(x'ff00fe' AS TEXT))"),
            17 => format!("ALTER TABLE {table} ADD COLUMN \"added\" DEFAULT 'x'"),
            18 => format!("DROP TABLE {table}"),
            19 => format!("CREATE TABLE {name} AS SELECT * FROM {table}"),
            20 => format!(
                "CREATE VIRTUAL TABLE {name} USING fts5(z, content={table}, content_rowid=rowid)"
            ),
            _ => return self.row(),
        };
        self.try_run(&text, &[]);
    }
}
