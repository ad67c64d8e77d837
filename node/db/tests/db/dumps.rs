//! A backup loaded into another database gives the same content, bit for bit: schema, rows, row ids and
//! storage classes.
use std::path::Path;

use node_db::{BackupFormat, LoadContent, Outcome};
use proptest::prelude::*;
use rusqlite::{Connection, types::ValueRef};

use crate::{
    loads::load,
    support::{Db, error},
};

mod maker;

use maker::{Draw, Maker};

const FORMATS: [BackupFormat; 3] = [
    BackupFormat::Binary,
    BackupFormat::Delete,
    BackupFormat::Vacuumed,
];

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn shown(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "null".to_owned(),
        ValueRef::Integer(value) => format!("int {value}"),
        ValueRef::Real(value) => format!("real {value:?} {:x}", value.to_bits()),
        ValueRef::Text(bytes) => format!("text {:?}", String::from_utf8_lossy(bytes)),
        ValueRef::Blob(bytes) => format!("blob {bytes:02x?}"),
    }
}

fn lines(conn: &Connection, sql: &str) -> Vec<String> {
    let mut statement = match conn.prepare(sql) {
        Ok(statement) => statement,
        Err(error) => return vec![error.to_string()],
    };
    let count = statement.column_count();
    let mut rows = statement.raw_query();
    let mut lines = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        let cells: Vec<String> = (0..count)
            .map(|at| shown(row.get_ref(at).unwrap()))
            .collect();
        lines.push(cells.join(", "));
    }
    lines
}

/// Everything in a database file that a user can see. Shadow tables stand for their virtual table.
fn content(file: &Path) -> Vec<String> {
    let conn = Connection::open(file).unwrap();
    let mut all = Vec::new();
    // Of each kind in the order of creation, which decides the order in which triggers fire.
    for kind in ["table", "view", "index", "trigger"] {
        let schema = format!(
            "SELECT type, name, tbl_name, trim(sql, char(10, 13, 32)) FROM sqlite_schema WHERE type = '{kind}' AND name NOT LIKE 'sqlite_stat%' AND name <> 'sqlite_sequence' ORDER BY {}",
            if kind == "table" {
                "name"
            } else {
                "sql IS NULL, rowid"
            }
        );
        let mut found = lines(&conn, &schema);
        if kind == "index" {
            // The indexes of constraints come with their tables.
            found.sort();
        }
        all.extend(found);
    }
    let tables: Vec<(String, String, bool)> = conn
        .prepare("SELECT name, type, wr FROM pragma_table_list WHERE schema = 'main' AND type <> 'view' AND name <> 'sqlite_schema' ORDER BY name")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    for (name, kind, without_rowid) in tables {
        if kind == "virtual" || name == "sqlite_stat4" {
            continue;
        }
        let rowid = if without_rowid || name == "sqlite_stat1" {
            ""
        } else {
            "rowid, "
        };
        let rows = lines(
            &conn,
            &format!("SELECT {rowid}* FROM {} ORDER BY 1, 2", quoted(&name)),
        );
        all.extend(rows.into_iter().map(|row| format!("{name}: {row}")));
    }
    for pragma in ["user_version", "application_id", "integrity_check"] {
        all.push(format!(
            "{pragma}: {:?}",
            lines(&conn, &format!("PRAGMA {pragma}"))
        ));
    }
    all
}

fn content_of(db: &Db) -> Vec<String> {
    let to = db.dir.path().join("content.sqlite");
    db.db.backup(&BackupFormat::Delete, &to).unwrap();
    let found = content(&to);
    std::fs::remove_file(to).unwrap();
    found
}

/// Dumps and loads the database in every format and compares.
fn check(db: &Db) -> Result<(), String> {
    let expected = content_of(db);
    let script = db.dump();
    let mut copy = Db::new();
    let outcome = load(&mut copy, LoadContent::Script, script.as_bytes());
    let failed = outcome
        .results
        .iter()
        .any(|result| matches!(result, node_values::StatementResult::Error(_)));
    if failed || outcome.error.is_some() {
        return Err(format!("the script is refused: {outcome:?}\n{script}"));
    }
    compare("the script", &content_of(&copy), &expected, &script)?;
    if copy.dump() != script {
        return Err(format!("another dump:\n{script}\n{}", copy.dump()));
    }
    for format in FORMATS {
        let to = db.dir.path().join("copy.sqlite");
        db.db.backup(&format, &to).unwrap();
        let mut copy = Db::new();
        let outcome = load(&mut copy, LoadContent::File, &std::fs::read(&to).unwrap());
        if outcome != Outcome::default() {
            return Err(format!("{format:?} is refused: {outcome:?}"));
        }
        compare(&format!("{format:?}"), &content_of(&copy), &expected, "")?;
        std::fs::remove_file(to).unwrap();
    }
    Ok(())
}

fn compare(what: &str, found: &[String], expected: &[String], script: &str) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    let missing: Vec<_> = expected
        .iter()
        .filter(|line| !found.contains(line))
        .collect();
    let added: Vec<_> = found
        .iter()
        .filter(|line| !expected.contains(line))
        .collect();
    Err(format!(
        "{what} lost {missing:#?}\nand made {added:#?}\n{script}"
    ))
}

fn made(statements: &[&str]) -> Db {
    let mut db = Db::new();
    for statement in statements {
        db.must(statement);
    }
    db
}

#[track_caller]
fn survives(statements: &[&str]) {
    if let Err(why) = check(&made(statements)) {
        panic!("{why}");
    }
}

#[test]
fn triggers_on_views() {
    survives(&[
        "CREATE TABLE t(a, b)",
        "CREATE VIEW v1 AS SELECT a FROM t",
        "CREATE TRIGGER g INSTEAD OF INSERT ON v1 BEGIN INSERT INTO t VALUES(new.a, 'by v1'); END",
        "INSERT INTO v1 VALUES(1)",
        "CREATE VIEW commented AS SELECT 1 -- end",
        "CREATE INDEX i ON t(a) WHERE b IS NOT NULL -- here",
    ]);
    // The dump completes an unterminated comment.
    let script = made(&["CREATE VIEW open AS SELECT 2 /* open"]).dump();
    assert!(script.contains("SELECT 2 /* open*/;\n"), "{script}");
    let mut copy = Db::new();
    load(&mut copy, LoadContent::Script, script.as_bytes());
    assert_eq!(
        (copy.dump(), copy.shown("SELECT * FROM open")),
        (script, "2".to_owned())
    );
}

/// The first words of the script's statements, without rows.
fn order(script: &str) -> Vec<&str> {
    let ends = |line: &&str| !line.starts_with("INSERT") && !line.starts_with("PRAGMA");
    let words = |line| str::rsplit_once(line, '(').map_or(line, |(before, _)| before);
    script.lines().filter(ends).map(words).collect()
}

#[test]
fn tables_by_name_then_indexes_triggers_views() {
    let statements = [
        "CREATE TABLE parent(id INTEGER PRIMARY KEY)",
        "CREATE VIEW first AS SELECT * FROM later",
        "CREATE VIEW later AS SELECT * FROM child",
        "CREATE TABLE child(p INTEGER REFERENCES parent(id), k TEXT, PRIMARY KEY(k)) WITHOUT ROWID",
        "CREATE TRIGGER g AFTER INSERT ON child BEGIN DELETE FROM child WHERE p = 3; END",
        "CREATE INDEX i ON child(p)",
        "INSERT INTO parent VALUES(1), (2)",
        "INSERT INTO child VALUES(1, 'a'), (2, 'b')",
        "ANALYZE",
    ];
    survives(&statements);
    let script = made(&statements).dump();
    let expected = [
        "BEGIN TRANSACTION;",
        "CREATE TABLE child(p INTEGER REFERENCES parent(id), k TEXT, PRIMARY KEY",
        "CREATE TABLE parent",
        "ANALYZE \"sqlite_master\";",
        "CREATE INDEX i ON child",
        "CREATE TRIGGER g AFTER INSERT ON child BEGIN DELETE FROM child WHERE p = 3; END;",
        "CREATE VIEW first AS SELECT * FROM later;",
        "CREATE VIEW later AS SELECT * FROM child;",
        "COMMIT;",
    ];
    assert_eq!(order(&script), expected, "{script}");
    assert!(script.contains("INSERT INTO \"sqlite_stat1\""), "{script}");
    // Not every SQLite has this table.
    assert!(!script.contains("sqlite_stat4"), "{script}");
    // The child's rows come before the parent's, and are loaded where foreign keys are enforced, too.
    let mut copy = Db::with_foreign_keys();
    let outcome = load(&mut copy, LoadContent::Script, script.as_bytes());
    assert_eq!(outcome.error, None);
    assert_eq!(
        (copy.dump(), copy.shown("SELECT * FROM first")),
        (script, "1,a|2,b".to_owned())
    );
}

#[test]
fn sequences() {
    survives(&[
        "CREATE TABLE zebra(id INTEGER PRIMARY KEY AUTOINCREMENT, v)",
        "INSERT INTO zebra(id, v) VALUES(41, 'x')",
        "DELETE FROM zebra",
        "CREATE TABLE yak(\"autoincrement\" INTEGER PRIMARY KEY)",
    ]);
    // The table of sequences remains when the last table with a sequence is dropped.
    survives(&[
        "CREATE TABLE gone(id INTEGER PRIMARY KEY AUTOINCREMENT)",
        "INSERT INTO gone DEFAULT VALUES",
        "CREATE TABLE t(a)",
        "CREATE TABLE again(id INTEGER PRIMARY KEY AUTOINCREMENT)",
        "DROP TABLE gone",
    ]);
}

#[test]
fn virtual_tables_keep_row_ids_content_and_settings() {
    survives(&[
        "CREATE TABLE doc(title, body)",
        "INSERT INTO doc(rowid, title, body) VALUES(7, 'seven', 'hello world'), (-3, 'minus', 'good bye'), (4, 'x', NULL)",
        "CREATE VIRTUAL TABLE own USING fts5(title, body UNINDEXED, prefix='2 3')",
        "INSERT INTO own(rowid, title, body) VALUES(99, 'ninety nine', 'red'), (5, 'five', 'blue')",
        "INSERT INTO own(own, rank) VALUES('rank', 'bm25(10.0)')",
        "CREATE VIRTUAL TABLE none USING fts5(title, content='')",
        "INSERT INTO none(rowid, title) VALUES(12, 'nothing to be read')",
        "CREATE VIRTUAL TABLE outer USING fts5(title, body, content='doc', content_rowid='rowid')",
        "INSERT INTO outer(outer) VALUES('rebuild')",
        "CREATE VIRTUAL TABLE words USING fts5vocab('own', 'row')",
        "CREATE VIRTUAL TABLE old USING fts4(title, languageid=\"lid\")",
        "INSERT INTO old(docid, title, lid) VALUES(8, 'eight', 1)",
        "CREATE VIRTUAL TABLE oldest USING fts3(title)",
        "INSERT INTO oldest(docid, title) VALUES(3, 'three')",
        "CREATE VIEW seen AS SELECT rowid AS id, title FROM doc",
        "CREATE VIRTUAL TABLE ofview USING fts5(title, content='seen', content_rowid='id')",
        "INSERT INTO ofview(ofview) VALUES('rebuild')",
        "CREATE VIRTUAL TABLE area USING rtree(id, x0, x1, y0, y1, +name)",
        "INSERT INTO area VALUES(1, 0.1, 0.7, -5, 5, 'a'), (900, 1, 2, 3, 4, x'00')",
        "CREATE VIRTUAL TABLE cells USING rtree_i32(id, x0, x1)",
        "INSERT INTO cells VALUES(5, 1, 2)",
        "CREATE TRIGGER fill AFTER INSERT ON doc BEGIN INSERT INTO own(rowid, title, body) VALUES(new.rowid, new.title, new.body); END",
    ]);
    let mut db = made(&[
        "CREATE VIRTUAL TABLE none USING fts5(title, content='')",
        "INSERT INTO none(rowid, title) VALUES(12, 'nothing to be read')",
    ]);
    let script = db.dump();
    db.must("DROP TABLE none");
    load(&mut db, LoadContent::Script, script.as_bytes());
    assert_eq!(
        db.shown("SELECT rowid FROM none WHERE none MATCH 'read'"),
        "12"
    );
    db.must("INSERT INTO none(rowid, title) VALUES(13, 'more to read')");
    assert_eq!(
        db.shown("SELECT rowid FROM none WHERE none MATCH 'read'"),
        "12|13"
    );
}

#[test]
fn a_part_can_be_loaded_alone() {
    let mut db = made(&[
        "CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT, v)",
        "CREATE TABLE b(id INTEGER PRIMARY KEY AUTOINCREMENT, v)",
        "INSERT INTO a(id) VALUES(10)",
        "INSERT INTO b(id) VALUES(20)",
        "CREATE INDEX ia ON a(v)",
        "CREATE INDEX ib ON b(v)",
        "CREATE VIEW v AS SELECT * FROM b",
        "CREATE TRIGGER gv INSTEAD OF INSERT ON v BEGIN SELECT 1; END",
        "CREATE TRIGGER ga AFTER INSERT ON a BEGIN SELECT 1; END",
    ]);
    let to = db.dir.path().join("part.sql");
    let tables = vec!["A".to_owned()];
    db.db.backup(&BackupFormat::Sql { tables }, &to).unwrap();
    let part = std::fs::read(to).unwrap();
    db.must("DROP TABLE a");
    db.must("DROP VIEW v");
    let outcome = load(&mut db, LoadContent::Script, &part);
    assert_eq!(outcome.error, None);
    assert!(
        !matches!(outcome.results[0], node_values::StatementResult::Error(_)),
        "{outcome:?}"
    );
    assert_eq!(
        db.shown("SELECT name, seq FROM sqlite_sequence ORDER BY 1"),
        "a,10|b,20"
    );
}

#[test]
fn dumps_of_the_sqlite_shell_are_loaded() {
    let script = "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\nPRAGMA writable_schema=ON;\n\
        INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES('table','f','f',0,'CREATE VIRTUAL TABLE f USING fts5(text)');\n\
        CREATE TABLE IF NOT EXISTS 'f_data'(id INTEGER PRIMARY KEY, block BLOB);\n\
        INSERT INTO f_data VALUES(1,X'010806');\nINSERT INTO f_data VALUES(10,X'000000000101010001010101');\n\
        INSERT INTO f_data VALUES(137438953473,X'0000001d0530776f726c6401020301040668656c6c6f010202040d0b');\n\
        CREATE TABLE IF NOT EXISTS 'f_idx'(segid, term, pgno, PRIMARY KEY(segid, term)) WITHOUT ROWID;\nINSERT INTO f_idx VALUES(1,X'',2);\n\
        CREATE TABLE IF NOT EXISTS 'f_content'(id INTEGER PRIMARY KEY, c0);\nINSERT INTO f_content VALUES(1,'hello world');\n\
        CREATE TABLE IF NOT EXISTS 'f_docsize'(id INTEGER PRIMARY KEY, sz BLOB);\nINSERT INTO f_docsize VALUES(1,X'02');\n\
        CREATE TABLE IF NOT EXISTS 'f_config'(k PRIMARY KEY, v) WITHOUT ROWID;\nINSERT INTO f_config VALUES('version',4);\n\
        CREATE TABLE t(a);\nINSERT INTO t VALUES(replace('a\\nb','\\n',char(10)));\nINSERT INTO t VALUES(unistr('\\u0007'));\n\
        PRAGMA writable_schema=OFF;\nCOMMIT;\n";
    let mut db = Db::new();
    let outcome = load(&mut db, LoadContent::Script, script.as_bytes());
    assert!(
        !matches!(outcome.results[0], node_values::StatementResult::Error(_)),
        "{outcome:?}"
    );
    assert_eq!(db.shown("SELECT rowid, text FROM f"), "1,hello world");
    assert_eq!(db.shown("SELECT a FROM t"), "a\nb|\u{7}");
    let outcome = load(
        &mut Db::new(),
        LoadContent::Script,
        b"CREATE TABLE t(a); COMMIT;",
    );
    assert!(error(&outcome.results[0]).contains("no transaction is active"));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(24),
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_schema_goes_out_and_in(numbers in prop::collection::vec(any::<u32>(), 40..120), steps in 1..25_usize) {
        let mut maker = Maker { db: Db::new(), draw: Draw(&numbers, 0), tables: Vec::new(), objects: 0 };
        maker.table();
        for _ in 0..steps {
            if maker.draw.below(3) == 0 { maker.table() } else { maker.object() }
        }
        if let Err(why) = check(&maker.db) {
            return Err(TestCaseError::fail(why));
        }
    }
}
