//! A hash of the database's content: the schema and every row, in an order that does not depend on the layout
//! of the file.
//!
//! Two copies that applied the same log have the same hash. Excluded is what may differ between equal
//! contents: the placement of pages, the planner's statistics, and the index tables of full-text search,
//! whose segments depend on when SQLite merges them. The rows of full-text tables are covered by their
//! content tables.
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

/// The state of the last hashing that an entry requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hashing {
    /// In progress.
    Running,
    /// Done.
    Done(ContentHash),
    /// It ended without a result, for this reason.
    Failed(String),
}

/// The last hashing and the position of the entry that requested it.
pub(crate) type LastHashing = Option<(Position, Hashing)>;

/// One object of the schema.
struct Object {
    kind: String,
    name: String,
    table: String,
    sql: String,
}

/// Hashes the whole content that the connection sees.
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

/// The index tables of full-text search, found by the module of the virtual tables.
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

/// Hashes all rows of a table in key order, including the rowid where there is one.
fn hash_rows(conn: &Connection, table: &str, hasher: &mut Hasher) -> rusqlite::Result<()> {
    let name = quoted(table);
    // The name of the rowid that no column hides; none for WITHOUT ROWID tables.
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
    // `NOT INDEXED`: in order of the rowid, or of the primary key of a table without rowid.
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

/// Hashes values with their types and lengths, so that different contents never produce the same bytes.
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

/// Hashes a database file that is not being written. For tests and offline tools.
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
