//! Ordinary SQL of clients and migration tools: schema changes, harmless PRAGMAs, results that follow the
//! schema.
use std::thread;

use anyhow::{Result, ensure};
use e2e::{
    client::Client,
    cluster::Cluster,
    exchange::{Exchange, get, post, run},
    process::Node,
};

fn node(args: &[&str]) -> Result<(Node, Client)> {
    let mut node = Node::new("1")?.with(args);
    node.start_and_ready()?;
    let client = node.client();
    Ok((node, client))
}

/// Runs statements that must return neither an error nor columns.
fn done(client: &mut Client, path: &str, statements: &[&str]) -> Result<()> {
    let reply = client.post(path, &serde_json::to_string(statements)?)?;
    let results = reply.json()["results"].clone();
    let all = results.as_array().map_or(&[][..], Vec::as_slice);
    ensure!(
        reply.status == 200
            && all.len() == statements.len()
            && all
                .iter()
                .all(|result| result["error"].is_null() && result["columns"].is_null()),
        "{path} {statements:?}: {reply:?}"
    );
    Ok(())
}

const MIGRATION: &[&str] = &[
    "CREATE TABLE person(id INTEGER PRIMARY KEY, name TEXT, age INT, twice AS (age * 2))",
    "CREATE TABLE pet(owner REFERENCES person(id))",
    "CREATE TABLE log(x)",
    "CREATE INDEX by_name ON person(name)",
    "CREATE VIEW adults AS SELECT name FROM person WHERE age >= 18",
    "CREATE TRIGGER seen AFTER INSERT ON person BEGIN INSERT INTO log SELECT new.name; END",
    "INSERT INTO person(name, age) VALUES('fiona', 20)",
    "ALTER TABLE person RENAME TO people",
    "ALTER TABLE people RENAME COLUMN name TO \"full name\"",
    "ALTER TABLE people ADD COLUMN note TEXT",
    "ALTER TABLE people DROP COLUMN note",
    "ALTER TABLE people ALTER age SET NOT NULL",
    "ALTER TABLE people ADD CONSTRAINT young CHECK (age < 200)",
    "INSERT INTO people(\"full name\", age) VALUES('declan', 30)",
];

#[test]
fn tables_can_be_altered_on_every_node_alike() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    let leader = cluster.leader()?;
    let follower = cluster.follower()?;
    let drop = [
        "DROP VIEW adults",
        "DROP TABLE pet",
        "DROP TABLE people",
        "DROP TABLE log",
    ];
    // Through the leader and through a follower; alone, together, as a transaction, and with `noparse`.
    let mut client = cluster.client(leader);
    for statement in MIGRATION {
        done(&mut client, "/db/execute", &[statement])?;
    }
    for path in [
        "/db/execute",
        "/db/request",
        "/db/execute?noparse",
        "/db/execute?transaction",
        "/db/request?transaction",
    ] {
        let mut client = cluster.client(follower);
        done(&mut client, "/db/execute?transaction", &drop)?;
        done(&mut client, path, MIGRATION)?;
        run(
            &mut client,
            &[get(
                "/db/query?level=strong&q=SELECT%20%22full%20name%22,twice,(SELECT%20count(*)%20FROM%20adults)%20FROM%20people",
                r#"{"results":[{"columns":["full name","twice","(SELECT count(*) FROM adults)"],"types":["text","integer","integer"],"values":[["fiona",40,2],["declan",60,2]]}]}"#,
            )],
        )?;
    }
    cluster.agreed_dump()?;
    cluster.check_integrity()?;
    // A restarted node replays what it executed before.
    cluster.crash_all()?;
    cluster.leader()?;
    ensure!(
        cluster.agreed_dump()?.contains("\"full name\""),
        "the change is lost"
    );
    Ok(())
}

#[test]
fn explain_answers_from_the_schema_of_the_moment() -> Result<()> {
    let (_node, mut client) = node(&[])?;
    let plan = "/db/query?q=EXPLAIN%20QUERY%20PLAN%20SELECT%20*%20FROM%20t%20WHERE%20a=1";
    let info = "/db/query?q=PRAGMA%20table_info(t)";
    done(&mut client, "/db/execute", &["CREATE TABLE t(a)"])?;
    for round in 0..3 {
        for level in ["none", "weak", "strong"] {
            let mut text = |path: &str| -> Result<String> {
                Ok(client.get(&format!("{path}&level={level}"))?.text())
            };
            let (scan, columns) = (text(plan)?, text(info)?);
            ensure!(scan.contains("SCAN t"), "{round} {level}: {scan}");
            ensure!(!columns.contains("\"b\""), "{round} {level}: {columns}");
            done(
                &mut client,
                "/db/execute",
                &["CREATE INDEX i ON t(a)", "ALTER TABLE t ADD COLUMN b"],
            )?;
            let mut text = |path: &str| -> Result<String> {
                Ok(client.get(&format!("{path}&level={level}"))?.text())
            };
            let (search, columns) = (text(plan)?, text(info)?);
            ensure!(search.contains("USING"), "{round} {level}: {search}");
            ensure!(columns.contains("\"b\""), "{round} {level}: {columns}");
            done(
                &mut client,
                "/db/execute",
                &["DROP INDEX i", "ALTER TABLE t DROP COLUMN b"],
            )?;
        }
    }
    Ok(())
}

fn empty(path: &'static str, body: &'static str) -> Exchange<'static> {
    post(path, body, r#"{"results":[{}]}"#)
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of exchanges")]
fn pragmas_that_clients_send_when_they_connect() -> Result<()> {
    let (_node, mut client) = node(&["-fk"])?;
    let timeout = r#"{"results":[{"columns":["timeout"],"types":["integer"],"values":[[5000]]}]}"#;
    let refused = r#"{"results":[],"error":"disallowed pragma"}"#;
    let written = r#"{"results":[{},{"last_insert_id":%n,"rows_affected":1}]}"#;
    run(
        &mut client,
        &[
            post(
                "/db/execute",
                r#"["CREATE TABLE t(a)"]"#,
                r#"{"results":[{}]}"#,
            ),
            empty("/db/query", r#"["PRAGMA foreign_keys=ON"]"#),
            empty("/db/query?level=strong", r#"["PRAGMA foreign_keys=OFF"]"#),
            empty("/db/request", r#"["PRAGMA foreign_keys=OFF"]"#),
            empty("/db/query", r#"["PRAGMA cache_size=-2000"]"#),
            empty("/db/query", r#"["PRAGMA temp_store(MEMORY)"]"#),
            empty("/db/request", r#"["PRAGMA case_sensitive_like=ON"]"#),
            post("/db/query", r#"["PRAGMA busy_timeout=5000"]"#, timeout),
            post(
                "/db/query?level=strong",
                r#"["PRAGMA busy_timeout=5000"]"#,
                timeout,
            ),
            post("/db/request", r#"["PRAGMA busy_timeout=5000"]"#, timeout),
            post(
                "/db/query",
                r#"["PRAGMA locking_mode=EXCLUSIVE"]"#,
                r#"{"results":[{"columns":["locking_mode"],"types":["text"],"values":[["normal"]]}]}"#,
            ),
            post(
                "/db/query",
                r#"["PRAGMA journal_mode"]"#,
                r#"{"results":[{"columns":["journal_mode"],"types":["text"],"values":[["wal"]]}]}"#,
            ),
            post("/db/query", r#"["PRAGMA journal_mode=DELETE"]"#, refused),
            post("/db/query", r#"["PRAGMA synchronous=FULL"]"#, refused),
            post("/db/request", r#"["PRAGMA wal_checkpoint"]"#, refused),
            post(
                "/db/query",
                r#"["PRAGMA user_version=3"]"#,
                r#"{"results":[{"error":"attempt to change database via query operation"}]}"#,
            ),
            // They have no effect: neither foreign keys nor LIKE have changed.
            post(
                "/db/query",
                r#"["PRAGMA foreign_keys","SELECT 'A' LIKE 'a' AS l"]"#,
                r#"{"results":[{"columns":["foreign_keys"],"types":["integer"],"values":[[1]]},{"columns":["l"],"types":["integer"],"values":[[1]]}]}"#,
            ),
            // Typical connection scripts of clients work.
            post(
                "/db/execute",
                r#"["PRAGMA busy_timeout=5000","INSERT INTO t VALUES(1)"]"#,
                written,
            ),
            post(
                "/db/execute",
                r#"["PRAGMA mmap_size=268435456","INSERT INTO t VALUES(1)"]"#,
                written,
            ),
            post(
                "/db/execute?transaction",
                r#"["PRAGMA cache_size=100000","INSERT INTO t VALUES(1)"]"#,
                written,
            ),
            post(
                "/db/execute",
                r#"["PRAGMA temp_store=2; PRAGMA threads=4; INSERT INTO t VALUES(1)"]"#,
                "%*",
            ),
            post(
                "/db/execute?queue&wait&timeout=30s",
                r#"["PRAGMA busy_timeout=5000","INSERT INTO t VALUES(1)"]"#,
                "%*",
            ),
            get(
                "/db/query?level=strong&q=SELECT%20count(*)%20AS%20n%20FROM%20t",
                r#"{"results":[{"columns":["n"],"types":["integer"],"values":[[5]]}]}"#,
            ),
        ],
    )
}

/// Writes of each writer to the full-text tables.
const WRITES: usize = 40;

fn write_full_text(mut client: Client, writer: usize) -> Result<()> {
    for at in 0..WRITES {
        let five = format!("INSERT INTO five VALUES('some words of {writer} at {at}')");
        let four = format!("INSERT INTO four VALUES('some words of {writer} at {at}')");
        let plain = format!("INSERT INTO plain VALUES({at})");
        done(&mut client, "/db/execute", &[&five, &plain])?;
        done(&mut client, "/db/execute?transaction", &[&four, &plain])?;
    }
    Ok(())
}

/// Four clients write to full-text tables concurrently while one node is paused. That node applies in a few
/// long runs what the others applied in many short ones, and replays it once more after a crash.
#[test]
fn full_text_tables_are_the_same_inside() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    let leader = cluster.leader()?;
    let follower = cluster.follower()?;
    done(
        &mut cluster.client(leader),
        "/db/execute",
        &[
            "CREATE VIRTUAL TABLE five USING fts5(x)",
            "CREATE VIRTUAL TABLE four USING fts4(x)",
            "CREATE TABLE plain(x)",
        ],
    )?;
    cluster[follower].pause()?;
    thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let client = cluster.client(leader);
                scope.spawn(move || write_full_text(client, writer))
            })
            .collect();
        writers.into_iter().try_for_each(|writer| {
            writer
                .join()
                .map_err(|_| anyhow::anyhow!("a writer panicked"))?
        })
    })?;
    cluster[follower].resume()?;
    let inside = [
        "SELECT id, hex(block) FROM five_data ORDER BY 1",
        "SELECT segid, hex(term), pgno FROM five_idx ORDER BY 1, 2",
        "SELECT level, idx, start_block, leaves_end_block, end_block, hex(root) FROM four_segdir ORDER BY 1, 2",
        "SELECT blockid, hex(block) FROM four_segments ORDER BY 1",
    ];
    for round in 0..2 {
        for sql in inside {
            cluster.agreed_rows(sql)?;
        }
        let found = cluster.agreed_rows("SELECT count(*) FROM five WHERE five MATCH 'words'")?;
        ensure!(found == format!("[[Number({})]]", 4 * WRITES), "{found}");
        if round == 0 {
            cluster.crash_all()?;
            cluster.leader()?;
        }
    }
    // A write cannot store values that differ from node to node either.
    let leader = cluster.leader()?;
    let mut client = cluster.client(leader);
    run(
        &mut client,
        &[
            post(
                "/db/execute",
                r#"["INSERT INTO plain SELECT file FROM pragma_database_list","INSERT INTO plain VALUES(sqlite_version())"]"#,
                r#"{"results":[{"error":"a statement that writes cannot use a table or function that differs from node to node"},{"error":"a statement that writes cannot use sqlite_version(): it differs from node to node"}]}"#,
            ),
            post(
                "/db/request",
                r#"["SELECT count(*) > 0 AS n FROM pragma_database_list","INSERT INTO plain VALUES(1)"]"#,
                r#"{"results":[{"columns":["n"],"types":["integer"],"values":[[1]]},%*]}"#,
            ),
        ],
    )?;
    cluster.agreed_dump()?;
    Ok(())
}
