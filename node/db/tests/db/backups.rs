//! Backups, and status.
use node_db::{BackupFormat, Kind};
use rusqlite::Connection;

use crate::support::{Db, sql};

fn filled() -> Db {
    let mut db = Db::new();
    db.must("CREATE TABLE b(id INTEGER PRIMARY KEY AUTOINCREMENT, v)");
    db.must("CREATE TABLE a(x, y AS (x + 1), z REAL)");
    db.must("CREATE INDEX i ON b(v)");
    db.must("CREATE VIEW w AS SELECT * FROM a");
    db.must("CREATE TRIGGER g AFTER DELETE ON b BEGIN SELECT 1; END");
    db.must("INSERT INTO b(v) VALUES('it''s'), (x'00ff'), (NULL), ('a' || char(0) || 'b')");
    db.must("INSERT INTO a(x, z) VALUES(1, 1.0)");
    db.must("INSERT INTO a(rowid, x, z) VALUES(12, 2, 9e999)");
    db.must("INSERT INTO a(x, z) VALUES(3, 0.1), (4, -1e300)");
    db
}

#[test]
fn binary_copies() {
    let mut db = filled();
    db.checkpoint();
    db.must("INSERT INTO a(x) VALUES(5)");
    for (format, mode) in [
        (BackupFormat::Binary, 2),
        (BackupFormat::Delete, 1),
        (BackupFormat::Vacuumed, 1),
        (BackupFormat::Binary, 2),
    ] {
        let to = db.dir.path().join("copy.db");
        db.db.backup(&format, &to).unwrap();
        let bytes = std::fs::read(&to).unwrap();
        assert_eq!(&bytes[18..20], [mode, mode], "{format:?}");
        let conn = Connection::open(&to).unwrap();
        let answer: String = conn
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .unwrap();
        assert_eq!(answer, "ok");
        let count: i64 = conn
            .query_row("SELECT count(*) FROM a", [], |row| row.get(0))
            .unwrap();
        assert_eq!(count, 5);
        conn.execute_batch("INSERT INTO a(x) VALUES(6)").unwrap();
        drop(conn);
        std::fs::remove_file(&to).unwrap();
    }
    assert!(
        db.db
            .backup(&BackupFormat::Binary, &db.dir.path().join("no/such/dir"))
            .is_err()
    );
}

#[test]
fn sql_text() {
    let db = filled();
    let expected = "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n\
        CREATE TABLE a(x, y AS (x + 1), z REAL);\n\
        INSERT INTO \"a\"(\"x\",\"z\") VALUES(1,1.0);\n\
        INSERT INTO \"a\"(rowid,\"x\",\"z\") VALUES(12,2,1e999);\n\
        INSERT INTO \"a\"(\"x\",\"z\") VALUES(3,0.1);\n\
        INSERT INTO \"a\"(\"x\",\"z\") VALUES(4,-1e300);\n\
        CREATE TABLE b(id INTEGER PRIMARY KEY AUTOINCREMENT, v);\n\
        INSERT INTO \"b\" VALUES(1,'it''s');\n\
        INSERT INTO \"b\" VALUES(2,X'00FF');\n\
        INSERT INTO \"b\" VALUES(3,NULL);\n\
        INSERT INTO \"b\" VALUES(4,CAST(X'610062' AS TEXT));\n\
        DELETE FROM \"sqlite_sequence\";\n\
        INSERT INTO \"sqlite_sequence\" VALUES('b',4);\n\
        CREATE INDEX i ON b(v);\n\
        CREATE TRIGGER g AFTER DELETE ON b BEGIN SELECT 1; END;\n\
        CREATE VIEW w AS SELECT * FROM a;\n\
        COMMIT;\n";
    assert_eq!(db.dump(), expected);
    // The text restores the same database; `dumps.rs` checks that in detail.
    let copy = Connection::open_in_memory().unwrap();
    copy.execute_batch(expected).unwrap();
    let to = db.dir.path().join("part.sql");
    db.db
        .backup(
            &BackupFormat::Sql {
                tables: vec!["A".to_owned()],
            },
            &to,
        )
        .unwrap();
    let part = std::fs::read_to_string(to).unwrap();
    assert!(part.contains("CREATE TABLE a") && part.contains("CREATE VIEW w"));
    // An index without its table could not be loaded.
    assert!(!part.contains("CREATE INDEX i"));
    assert!(!part.contains("CREATE TABLE b"));
}

#[test]
fn status_has_the_documented_fields() {
    let mut db = filled();
    db.request(Kind::Execute, false, vec![sql("SELECT 1")]);
    let status = db.db.status();
    assert_eq!(status["pragmas"]["ro"]["wal_autocheckpoint"], "1000");
    assert_eq!(status["pragmas"]["rw"]["wal_autocheckpoint"], "0");
    assert_eq!(status["pragmas"]["rw"]["foreign_keys"], "0");
    assert!(status["db_size"].as_u64().unwrap() > 4096);
    assert!(status["wal_size"].as_u64().unwrap() > 4096);
    assert_eq!(status["mem_stats"]["page_size"], 4096);
    let options = status["compile_options"].as_array().unwrap();
    assert!(options.iter().any(|option| option == "ENABLE_FTS5"));
    for field in [
        "version",
        "path",
        "size",
        "db_size_friendly",
        "last_modified",
        "extensions",
        "rw_dsn",
        "ro_dsn",
        "conn_pool_stats",
    ] {
        assert!(!status[field].is_null(), "{field}");
    }
}
