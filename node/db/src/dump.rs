//! Dumps the database as SQL text: everything that a script can carry, in an order in which it can be run,
//! and comments for the rest.
use std::{
    collections::{HashMap, HashSet},
    io::Write,
};

use rusqlite::{Connection, ErrorCode};

use crate::{
    sql::{script::Scanner, text::quoted},
    sqlite::error::message,
};

mod error;
mod rows;

use error::DumpError;
use rows::{Columns, Rows};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Virtual,
    /// A shadow table of a virtual table.
    Shadow,
}

struct Table {
    name: String,
    sql: String,
    kind: Kind,
    has_rowid: bool,
}

struct Dump<'c, W> {
    conn: &'c Connection,
    rows: Rows<'c>,
    /// Empty means all tables.
    wanted: HashSet<String>,
    tables: Vec<Table>,
    out: W,
}

/// Writes the whole database, or the named tables with their indexes and triggers and all views. The
/// connection should be in a read transaction.
pub(crate) fn write(
    conn: &Connection,
    tables: &[String],
    out: &mut impl Write,
) -> Result<(), DumpError> {
    let mut dump = Dump {
        conn,
        rows: Rows::new(conn)?,
        wanted: tables.iter().map(|name| folded(name)).collect(),
        tables: all_tables(conn)?,
        out,
    };
    dump.out
        .write_all(b"PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n")?;
    let views_first = dump.needs_views()?;
    dump.header()?;
    dump.plain_tables()?;
    if views_first {
        dump.objects("view")?;
    }
    dump.virtual_tables()?;
    dump.sequences()?;
    dump.statistics()?;
    // After the rows: building indexes is faster then, and triggers do not fire.
    dump.objects("index")?;
    dump.objects("trigger")?;
    if !views_first {
        dump.objects("view")?;
    }
    dump.out.write_all(b"COMMIT;\n")?;
    Ok(())
}

/// All tables in the order of their creation.
fn all_tables(conn: &Connection) -> Result<Vec<Table>, DumpError> {
    let mut kinds = HashMap::new();
    let mut list =
        conn.prepare("SELECT name, type, wr FROM pragma_table_list WHERE schema = 'main'")?;
    let mut rows = list.query([])?;
    while let Some(row) = rows.next()? {
        let kind = match row.get_ref(1)?.as_str().unwrap_or_default() {
            "virtual" => Kind::Virtual,
            "shadow" => Kind::Shadow,
            _ => Kind::Plain,
        };
        kinds.insert(row.get::<_, String>(0)?, (kind, !row.get::<_, bool>(2)?));
    }
    let mut schema = conn.prepare(
        "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND sql IS NOT NULL ORDER BY rowid",
    )?;
    let tables = schema.query_map([], |row| {
        let name: String = row.get(0)?;
        let (kind, has_rowid) = kinds.get(&name).copied().unwrap_or((Kind::Plain, true));
        Ok(Table {
            name,
            sql: row.get(1)?,
            kind,
            has_rowid,
        })
    })?;
    Ok(tables.collect::<Result<_, _>>()?)
}

impl<W: Write> Dump<'_, W> {
    fn wants(&self, table: &str) -> bool {
        self.wanted.is_empty() || self.wanted.contains(&folded(table))
    }

    fn header(&mut self) -> Result<(), DumpError> {
        if !self.wanted.is_empty() {
            return Ok(());
        }
        for name in ["application_id", "user_version"] {
            let value: i64 = self.conn.pragma_query_value(None, name, |row| row.get(0))?;
            if value != 0 {
                writeln!(self.out, "PRAGMA {name}={value};")?;
            }
        }
        Ok(())
    }

    /// Something that is created before the views may need one: a trigger on a view, or a virtual table,
    /// whose module may read a view when the table is created. Creating a view reads nothing.
    fn needs_views(&self) -> rusqlite::Result<bool> {
        let is_virtual = |table: &Table| table.kind == Kind::Virtual && self.wants(&table.name);
        if self.tables.iter().any(is_virtual) {
            return Ok(true);
        }
        self.conn.query_row(
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema AS t JOIN sqlite_schema AS v ON v.name = t.tbl_name COLLATE NOCASE \
             WHERE t.type = 'trigger' AND v.type = 'view')",
            [],
            |row| row.get(0),
        )
    }

    /// Writes the other tables by name. The virtual ones stay in the order of their creation, because one
    /// may read another when it is created.
    fn plain_tables(&mut self) -> Result<(), DumpError> {
        let owners = self.owners();
        let (of_modules, mut plain) = std::mem::take(&mut self.tables)
            .into_iter()
            .partition::<Vec<_>, _>(|table| {
                table.kind == Kind::Virtual || owners.contains_key(&table.name)
            });
        self.tables = of_modules;
        plain.sort_by(|one, other| one.name.cmp(&other.name));
        for table in plain {
            if !is_internal(&table.name) && self.wants(&table.name) {
                self.definition(&table.sql)?;
                self.content(&table)?;
                self.tables.push(table);
            }
        }
        Ok(())
    }

    /// The virtual table of each shadow table: the one with the longest name that is a prefix of the shadow
    /// table's name.
    fn owners(&self) -> HashMap<String, String> {
        let of_kind = |kind| self.tables.iter().filter(move |table| table.kind == kind);
        let owner = |shadow: &Table| {
            let name = folded(&shadow.name);
            of_kind(Kind::Virtual)
                .filter(|table| name.starts_with(&format!("{}_", folded(&table.name))))
                .max_by_key(|table| table.name.len())
                .map(|table| (shadow.name.clone(), table.name.clone()))
        };
        of_kind(Kind::Shadow).filter_map(owner).collect()
    }

    /// Writes virtual tables. The module creates each one, then its shadow tables are replaced by those of
    /// the dump. So content, row ids and settings are the same, whatever the module allows to query.
    fn virtual_tables(&mut self) -> Result<(), DumpError> {
        let owners = self.owners();
        let tables = std::mem::take(&mut self.tables);
        for table in tables.iter().filter(|table| table.kind == Kind::Virtual) {
            if !self.wants(&table.name) {
                continue;
            }
            let probe = format!("SELECT * FROM {} LIMIT 0", quoted(&table.name));
            let missing = self.conn.prepare(&probe).err().filter(is_missing_module);
            if let Some(error) = &missing {
                let text = format!("{} is left out: {}", table.name, message(error));
                writeln!(self.out, "-- {}", text.replace(['\n', '\r'], " "))?;
            } else {
                self.definition(&table.sql)?;
            }
            for shadow in &tables {
                if owners.get(&shadow.name) != Some(&table.name) {
                    continue;
                }
                if missing.is_none() {
                    writeln!(self.out, "DROP TABLE IF EXISTS {};", quoted(&shadow.name))?;
                }
                self.definition(&shadow.sql)?;
                self.content(shadow)?;
            }
        }
        self.tables = tables;
        Ok(())
    }

    /// The highest AUTOINCREMENT values. Creating such a table creates `sqlite_sequence`, and inserting rows
    /// fills it.
    fn sequences(&mut self) -> Result<(), DumpError> {
        let counted: Vec<String> = self
            .tables
            .iter()
            .filter(|table| table.kind == Kind::Plain && has_sequence(&table.sql))
            .map(|table| table.name.clone())
            .collect();
        if counted.is_empty() {
            return Ok(());
        }
        if self.wanted.is_empty() {
            self.out.write_all(b"DELETE FROM \"sqlite_sequence\";\n")?;
            return self.content(&internal("sqlite_sequence"));
        }
        let mut statement = self
            .conn
            .prepare("SELECT seq FROM sqlite_sequence WHERE name = ?")?;
        for name in counted {
            let literal = name.replace('\'', "''");
            writeln!(
                self.out,
                "DELETE FROM \"sqlite_sequence\" WHERE name='{literal}';"
            )?;
            let mut found = statement.query([&name])?;
            while let Some(row) = found.next()? {
                write!(
                    self.out,
                    "INSERT INTO \"sqlite_sequence\" VALUES('{literal}',"
                )?;
                self.rows.value(row.get_ref(0)?, &mut self.out)?;
                self.out.write_all(b");\n")?;
            }
        }
        Ok(())
    }

    /// The results of ANALYZE. The first statement creates the table. `sqlite_stat4` is left out: not every
    /// SQLite has it, and the next ANALYZE makes it again.
    fn statistics(&mut self) -> Result<(), DumpError> {
        const NAME: &str = "sqlite_stat1";
        let found = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = ?)";
        if !self.wants(NAME) || !self.conn.query_row(found, [NAME], |row| row.get(0))? {
            return Ok(());
        }
        self.out.write_all(b"ANALYZE \"sqlite_master\";\n")?;
        self.content(&internal(NAME))
    }

    fn objects(&mut self, kind: &str) -> Result<(), DumpError> {
        let tables: HashSet<String> = self
            .tables
            .iter()
            .filter(|table| self.wants(&table.name))
            .map(|table| folded(&table.name))
            .collect();
        let mut statement = self.conn.prepare(
            "SELECT sql, tbl_name, (SELECT count(*) FROM sqlite_schema AS v WHERE v.type = 'view' AND v.name = o.tbl_name COLLATE NOCASE) \
             FROM sqlite_schema AS o WHERE type = ? AND sql IS NOT NULL ORDER BY rowid",
        )?;
        let mut rows = statement.query([kind])?;
        while let Some(row) = rows.next()? {
            let of_view: bool = row.get(2)?;
            let of: String = row.get(1)?;
            if self.wanted.is_empty() || of_view || tables.contains(&folded(&of)) {
                let sql: String = row.get(0)?;
                self.definition(&sql)?;
            }
        }
        Ok(())
    }

    /// SQLite stores the text of a definition up to its semicolon, which may come after a comment.
    fn definition(&mut self, sql: &str) -> Result<(), DumpError> {
        let mut scanner = Scanner::new();
        scanner.scan(sql.as_bytes());
        Ok(writeln!(self.out, "{sql}{};", scanner.closing())?)
    }

    fn content(&mut self, table: &Table) -> Result<(), DumpError> {
        let columns = Columns::of(self.conn, &table.name, table.has_rowid)?;
        self.rows
            .write(self.conn, &table.name, &columns, &mut self.out)
    }
}

fn internal(name: &str) -> Table {
    Table {
        name: name.to_owned(),
        sql: String::new(),
        kind: Kind::Plain,
        has_rowid: true,
    }
}

fn is_internal(name: &str) -> bool {
    folded(name).starts_with("sqlite_")
}

fn has_sequence(sql: &str) -> bool {
    let mut scanner = Scanner::new();
    scanner.scan(sql.as_bytes());
    scanner.saw_autoincrement()
}

fn is_missing_module(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::Unknown)
        && message(error).starts_with("no such module")
}

/// SQLite compares names this way.
fn folded(name: &str) -> String {
    name.to_ascii_lowercase()
}
