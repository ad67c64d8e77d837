//! Commands that read and write files.

use std::path::Path;

use crate::server::{Server, ok, status};
use crate::{ROWS, WRITE, session};

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn backup_and_dump_write_files() {
    let dir = tempfile::tempdir().unwrap();
    let (backup, dump, failed) = (
        dir.path().join("b.db"),
        dir.path().join("d.sql"),
        dir.path().join("f.db"),
    );
    let large = vec![b'x'; 20 << 20];
    let (printed, asked) = session(
        vec![
            ok(large.clone()),
            ok("COMMIT;\n"),
            status("503 Service Unavailable", "leader not found\n"),
        ],
        format!(
            ".backup {}\n.dump {} t1,t 2\n.backup {}\n",
            backup.display(),
            dump.display(),
            failed.display()
        ),
    );
    assert_eq!(
        printed,
        "backup file written successfully\n> SQL text file written successfully\n> \
         ERR! server responded with 503 Service Unavailable: leader not found\n> "
    );
    assert!(
        std::fs::read(&backup).unwrap() == large,
        "the backup differs from what the node sent"
    );
    assert_eq!(text(&dump), "COMMIT;\n");
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        2,
        "no partial file is left"
    );
    assert_eq!(asked[0].line, "GET /db/backup");
    assert_eq!(asked[1].line, "GET /db/backup?fmt=sql&tables=t1,t");
}

#[test]
fn restore_and_boot_send_files() {
    let dir = tempfile::tempdir().unwrap();
    let (sql, database) = (dir.path().join("a.sql"), dir.path().join("a.db"));
    std::fs::write(&sql, "CREATE TABLE x(y);").unwrap();
    std::fs::write(&database, "SQLite format 3\0rest").unwrap();
    let (sql_name, database_name) = (sql.display(), database.display());
    let (printed, asked) = session(
        vec![
            ok(r#"{"store":{"db_conf":{"fk_constraints":"disabled"}}}"#),
            ok(r#"{"results":[{"last_insert_id":1,"rows_affected":3}]}"#),
            ok(r#"{"store":{"db_conf":{"fk_constraints":true}}}"#),
            ok(r#"{"results":[{"error":"no such table: y"}]}"#),
            ok(r#"{"results":[]}"#),
            ok(""),
            status("503 Service Unavailable", "not single-node\n"),
        ],
        format!(
            ".restore {sql_name}\n.restore {sql_name}\n.restore {database_name}\n.boot {sql_name}\n\
             .boot {database_name}\n.boot {database_name}\n.restore {}\n",
            dir.path().display()
        ),
    );
    let expected = format!(
        "\
last inserted ID: 1
rows affected: 3
Database restored successfully.
> Error: no such table: y
> Database restored successfully.
> ERR! {sql_name} is not a valid SQLite file
> Node booted successfully.
> ERR! boot failed, status code: 503 Service Unavailable: not single-node
> ERR! {} is not a regular file
> ",
        dir.path().display()
    );
    assert_eq!(printed, expected);
    let sent: Vec<(&str, &str)> = asked
        .iter()
        .map(|asked| (asked.line.as_str(), asked.body.as_str()))
        .collect();
    assert_eq!(
        sent,
        [
            ("GET /status", ""),
            (
                "POST /db/load",
                "CREATE TABLE x(y);\nPRAGMA foreign_keys=OFF;"
            ),
            ("GET /status", ""),
            (
                "POST /db/load",
                "CREATE TABLE x(y);\nPRAGMA foreign_keys=ON;"
            ),
            ("POST /db/load", "SQLite format 3\0rest"),
            ("POST /boot", "SQLite format 3\0rest"),
            ("POST /boot", "SQLite format 3\0rest"),
        ]
    );
}

#[test]
fn read_and_output_use_files() {
    let dir = tempfile::tempdir().unwrap();
    let (script, sink) = (dir.path().join("s.sql"), dir.path().join("out.csv"));
    std::fs::write(
        &script,
        b"-- a comment\n\nSELECT 1\nbad\xff\n  DELETE FROM x\n",
    )
    .unwrap();
    let (printed, asked) = session(
        vec![ok(ROWS), ok(WRITE), ok(WRITE)],
        format!(
            ".mode csv\n.output {}\n.read {}\n.output\nDELETE\n.read /nowhere\n",
            sink.display(),
            script.display()
        ),
    );
    let script = script.display();
    assert_eq!(
        printed,
        format!(
            "> > ERR! {script}, line 4: the line is not UTF-8 (byte 4) and is not run\n\
             > > 2 rows affected\n> ERR! /nowhere: No such file or directory (os error 2)\n> "
        )
    );
    assert_eq!(text(&sink), "id,name\n1,fiona\n2,NULL\n2 rows affected\n");
    let bodies: Vec<&str> = asked.iter().map(|asked| asked.body.as_str()).collect();
    assert_eq!(
        bodies,
        [r#"["SELECT 1"]"#, r#"["DELETE FROM x"]"#, r#"["DELETE"]"#]
    );
}

#[test]
fn sysdump_asks_every_node() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("dump.txt");
    let other = Server::start(vec![
        ok("{\"s\":1}"),
        ok("{}"),
        status("503 Service Unavailable", "[+]node ok"),
        ok("{}"),
    ]);
    let nodes = format!(
        r#"{{"1":{{"api_addr":"http://{}"}},"2":{{"error":"unreachable"}}}}"#,
        other.host()
    );
    let (printed, asked) = session(vec![ok(nodes)], format!(".sysdump {}\n", file.display()));
    assert_eq!(
        (printed.as_str(), asked[0].line.as_str()),
        ("> ", "GET /nodes?nonvoters")
    );
    let host = other.host();
    let expected = format!(
        "\
==== node 1: GET http://{host}/status?pretty
200 OK
{{\"s\":1}}

==== node 1: GET http://{host}/nodes?nonvoters&pretty
200 OK
{{}}

==== node 1: GET http://{host}/readyz
503 Service Unavailable
[+]node ok

==== node 1: GET http://{host}/debug/vars
200 OK
{{}}

==== node 2
HTTP address unknown: \"unreachable\"

"
    );
    assert_eq!(text(&file), expected);
    other.stop();
}
