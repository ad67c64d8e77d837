//! A hash of everything that a database says: its schema and every row, in an order that does not depend on how the file is laid out.
//!
//! Two copies that applied the same log have the same hash. Left out is what may differ without a difference in content: where pages
//! lie, statistics for the query planner, and the inner index tables of full-text search, whose segments follow from when SQLite
//! merges them. Rows of full-text tables with a content of their own are counted by their content table.
use std::fmt;

use rusqlite::{Connection, types::ValueRef};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    entry::Position,
    sql::text::quoted,
    sqlite::{connection::open_plain, error::fatal},
    types::Fatal,
};

/// SHA-256 of a database's content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContentHash(pub [u8; 32]);

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How far the last hashing that an entry asked for has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hashing {
    /// Under way.
    Running,
    /// Done.
    Done(ContentHash),
    /// Ended without a result; why.
    Failed(String),
}

/// The last hashing, and the entry that asked for it.
pub(crate) type LastHashing = Option<(Position, Hashing)>;

/// One object of the schema.
struct Object {
    kind: String,
    name: String,
    table: String,
    sql: String,
}

/// Hashes the whole content as the connection sees it now.
pub(crate) fn hash(conn: &Connection) -> rusqlite::Result<ContentHash> {
    let mut hasher = Hasher(Sha256::new());
    let objects = objects(conn)?;
    let inner = inner_tables(&objects);
    for object in &objects {
        if !inner.contains(&object.name) && !object.name.starts_with("sqlite_stat") {
            for text in [&object.kind, &object.name, &object.table, &object.sql] {
                hasher.bytes(b'n', text.as_bytes());
            }
        }
    }
    for object in &objects {
        let is_virtual = object
            .sql
            .to_ascii_uppercase()
            .starts_with("CREATE VIRTUAL");
        if object.kind == "table"
            && !is_virtual
            && !inner.contains(&object.name)
            && !object.name.starts_with("sqlite_stat")
        {
            hasher.bytes(b'T', object.name.as_bytes());
            hash_rows(conn, &object.name, &mut hasher)?;
        }
    }
    Ok(ContentHash(hasher.0.finalize().into()))
}

fn objects(conn: &Connection) -> rusqlite::Result<Vec<Object>> {
    let text = |row: &rusqlite::Row<'_>, at| -> rusqlite::Result<String> {
        let bytes = row.get_ref(at)?;
        Ok(match bytes {
            ValueRef::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            _ => String::new(),
        })
    };
    let mut statement =
        conn.prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY 1, 2, 3, 4")?;
    let found = statement.query_map([], |row| {
        Ok(Object {
            kind: text(row, 0)?,
            name: text(row, 1)?,
            table: text(row, 2)?,
            sql: text(row, 3)?,
        })
    })?;
    found.collect()
}

/// Tables in which full-text search keeps its index, by the module that made them.
fn inner_tables(objects: &[Object]) -> std::collections::BTreeSet<String> {
    let mut inner = std::collections::BTreeSet::new();
    for object in objects {
        let sql = object.sql.to_ascii_lowercase();
        if !sql.starts_with("create virtual") {
            continue;
        }
        let suffixes: &[&str] = if sql.contains("fts5") {
            &["_data", "_idx", "_docsize"]
        } else if sql.contains("fts3") || sql.contains("fts4") {
            &["_segments", "_segdir", "_docsize", "_stat"]
        } else {
            &[]
        };
        inner.extend(
            suffixes
                .iter()
                .map(|suffix| format!("{}{suffix}", object.name)),
        );
    }
    inner
}

/// All rows of a table in the order of its key, with the hidden row number where there is one.
fn hash_rows(conn: &Connection, table: &str, hasher: &mut Hasher) -> rusqlite::Result<()> {
    let name = quoted(table);
    // Which name for the row number is free of a column of that name; none for WITHOUT ROWID.
    let number = ["rowid", "_rowid_", "oid"].into_iter().find(|number| {
        let taken = conn
            .query_row(
                "SELECT count(*) FROM pragma_table_xinfo(?1) WHERE name = ?2 COLLATE NOCASE",
                [table, number],
                |row| row.get::<_, i64>(0),
            )
            .unwrap_or(1);
        taken == 0
            && conn
                .prepare(&format!("SELECT {number} FROM {name}"))
                .is_ok()
    });
    let columns = number.map_or_else(|| "*".to_owned(), |number| format!("{number}, *"));
    // Without an index: by row number, or by the primary key of a table that has none.
    let mut statement = conn.prepare(&format!("SELECT {columns} FROM {name} NOT INDEXED"))?;
    let count = statement.column_count();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        hasher.0.update([b'R']);
        for at in 0..count {
            hasher.value(row.get_ref(at)?);
        }
    }
    Ok(())
}

/// Values with their kinds and lengths, so that no two different contents give the same bytes.
struct Hasher(Sha256);

impl Hasher {
    fn bytes(&mut self, kind: u8, bytes: &[u8]) {
        self.0.update([kind]);
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn value(&mut self, value: ValueRef<'_>) {
        match value {
            ValueRef::Null => self.0.update([b'0']),
            ValueRef::Integer(value) => self.bytes(b'i', &value.to_le_bytes()),
            ValueRef::Real(value) => self.bytes(b'r', &value.to_bits().to_le_bytes()),
            ValueRef::Text(bytes) => self.bytes(b't', bytes),
            ValueRef::Blob(bytes) => self.bytes(b'b', bytes),
        }
    }
}

/// Hashes a database file that nobody writes to. For tests and offline tools.
///
/// # Errors
/// SQLite's.
pub fn hash_file(path: &std::path::Path) -> Result<ContentHash, Fatal> {
    let conn = open_plain(path).map_err(|error| fatal("open a database", &error))?;
    hash(&conn).map_err(|error| fatal("hash a database", &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(script: &str) -> ContentHash {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(script).unwrap();
        hash(&conn).unwrap()
    }

    const BASE: &str = "CREATE TABLE t(a, b); INSERT INTO t VALUES(1, 'x'), (2, 'y');";

    #[test]
    fn the_same_content_has_the_same_hash_however_it_came_to_be() {
        let plain = of(BASE);
        for (name, script) in [
            (
                "rows that came and went",
                "CREATE TABLE t(a, b); INSERT INTO t VALUES(1, 'x'), (2, 'z'), (3, randomblob(9000)); \
                 DELETE FROM t WHERE a = 3; UPDATE t SET b = 'y' WHERE a = 2;",
            ),
            (
                "another layout of the file",
                "CREATE TABLE other(x); CREATE TABLE t(a, b); INSERT INTO t VALUES(1, 'x'), (2, 'y'); \
                 DROP TABLE other; VACUUM;",
            ),
            (
                "statistics",
                "CREATE TABLE t(a, b); INSERT INTO t VALUES(1, 'x'), (2, 'y'); ANALYZE;",
            ),
        ] {
            assert_eq!(of(script), plain, "{name}");
        }
    }

    #[test]
    fn every_difference_in_content_shows() {
        let plain = of(BASE);
        for script in [
            "UPDATE t SET b = 'z' WHERE a = 2",
            "UPDATE t SET a = 1.0 WHERE a = 1",
            "UPDATE t SET b = CAST(b AS BLOB)",
            "UPDATE t SET rowid = 9 WHERE a = 2",
            "DELETE FROM t WHERE a = 1",
            "INSERT INTO t VALUES(NULL, NULL)",
            "CREATE INDEX i ON t(a)",
            "CREATE VIEW v AS SELECT 1",
            "ALTER TABLE t ADD COLUMN c",
            "CREATE TABLE u(x)",
        ] {
            assert_ne!(of(&format!("{BASE}{script}")), plain, "{script}");
        }
    }

    #[test]
    fn odd_tables_are_hashed() {
        for (one, other) in [
            (
                "CREATE TABLE w(k PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO w VALUES(1, 1);",
                "CREATE TABLE w(k PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO w VALUES(1, 2);",
            ),
            (
                "CREATE TABLE r(rowid, _rowid_, oid); INSERT INTO r VALUES(1, 2, 3);",
                "CREATE TABLE r(rowid, _rowid_, oid); INSERT INTO r VALUES(1, 2, 4);",
            ),
            (
                "CREATE TABLE \"odd \"\" name\"(x); INSERT INTO \"odd \"\" name\" VALUES(1);",
                "CREATE TABLE \"odd \"\" name\"(x); INSERT INTO \"odd \"\" name\" VALUES(2);",
            ),
            (
                "CREATE VIRTUAL TABLE f USING fts5(x); INSERT INTO f VALUES('one');",
                "CREATE VIRTUAL TABLE f USING fts5(x); INSERT INTO f VALUES('two');",
            ),
            (
                "CREATE TABLE s(i INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO s VALUES(5); DELETE FROM s;",
                "CREATE TABLE s(i INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO s VALUES(6); DELETE FROM s;",
            ),
        ] {
            assert_ne!(of(one), of(other), "{one}");
            assert_eq!(of(one), of(one), "{one}");
        }
    }

    #[test]
    fn how_often_a_full_text_index_was_merged_does_not_matter() {
        let merged = "CREATE VIRTUAL TABLE f USING fts5(x); \
             INSERT INTO f VALUES('one'); INSERT INTO f VALUES('two');";
        let optimized = format!("{merged} INSERT INTO f(f) VALUES('optimize');");
        assert_eq!(of(merged), of(&optimized));
    }
}
