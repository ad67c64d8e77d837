//! An archive in a folder, and the subcommands over it.
use std::{ffi::OsString, path::Path, sync::Arc};

use node_archive::{
    base::Encoder,
    documents::{self, Base, FORMAT, Timeline, Writer},
    moment::Moment,
    names::Folder,
    plan::{Plan, Point, Target},
    record::{Kind, Record},
    segment::{Builder, Start},
};
use node_contract::Lineage;
use node_db::{Entry, Position, ReplyTo, Request, Rules, Stamp, Work, hash_file};
use node_values::Statement;

use super::{
    command,
    run::{Wish, foreign_keys},
};
use crate::command::{Command, Encoded};

const LINEAGE: &str = "aa";

fn entry_bytes(sql: &str, micros: i64) -> bytes::Bytes {
    let request = Request {
        kind: node_db::Kind::Execute,
        transaction: false,
        qualify_columns: false,
        statements: vec![Statement {
            sql: sql.into(),
            ..Statement::default()
        }],
        stamp: Stamp {
            unix_micros: micros,
            seed: 1,
        },
        rules: Rules::V1,
    };
    let command = Command::Requests(Arc::new(vec![request]));
    Encoded::new(command).unwrap().bytes().clone()
}

fn writer() -> Writer {
    let json = serde_json::json!({
        "sqlite": node_db::sqlite_version(),
        "sqlite_source_id": node_db::sqlite_source_id(),
        "rqlited": "test",
        "format_version": 1,
    });
    serde_json::from_value(json).unwrap()
}

async fn empty_database(dir: &Path) -> Vec<u8> {
    let options = node_db::Options {
        dir: dir.to_owned(),
        foreign_keys: false,
        readers: 1,
        max_readers: 1,
        slow_statement: None,
    };
    let (db, _) = node_db::Database::open(options).unwrap();
    let first = Entry {
        position: Position { term: 1, index: 1 },
        work: Work::Nothing,
        reply_to: ReplyTo::Nobody,
    };
    db.apply(vec![first]).await.unwrap().unwrap();
    db.checkpoint().await.unwrap().unwrap();
    db.close();
    std::fs::read(dir.join("db.sqlite")).unwrap()
}

/// A base at index 1; entry 2 makes a table, entries 3 to 42 insert 3 to 42, a second apart; segments of ten.
#[expect(clippy::too_many_lines, reason = "one table")]
async fn archive(dir: &Path) {
    let lineage = Lineage {
        id: LINEAGE.into(),
        epoch: 0,
    };
    let folder = Folder::new(&lineage).unwrap();
    let put = |name: &str, content: &[u8]| {
        let path = dir.join("store").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    let timeline = Timeline {
        format: FORMAT,
        cluster_id: "c".into(),
        lineage: lineage.clone(),
        created_at: Moment(0),
        parent: None,
    };
    let name = folder.timeline();
    put(&name, &documents::encode(&timeline, &name, None).unwrap());
    let database = empty_database(&dir.join("made")).await;
    let name = folder.base_data(1, "x");
    let mut stored = Vec::new();
    let mut encoder = Encoder::new(&name, None).unwrap();
    encoder.push(&database, &mut stored).unwrap();
    let facts = encoder.finish(&mut stored).unwrap();
    put(&name, &stored);
    let base = Base {
        format: FORMAT,
        lineage: lineage.clone(),
        index: 1,
        term: 1,
        time: Moment(1_000_000),
        created_at: Moment(1_000_000),
        bytes: facts.bytes,
        sha256: facts.sha256,
        pages: 1,
        object: name.rsplit('/').next().unwrap().into(),
        object_bytes: facts.object_bytes,
        writer: writer(),
        content_hash: None,
        reason: "first".into(),
    };
    let name = folder.base(1);
    put(&name, &documents::encode(&base, &name, None).unwrap());
    let mut start = Start {
        first: 2,
        previous: None,
        not_before: Moment(0),
        term: 1,
    };
    while start.first < 42 {
        let mut builder = Builder::new(lineage.clone(), writer(), start.clone()).unwrap();
        for index in start.first..start.first + 10 {
            let micros = index as i64 * 1_000_000;
            let sql = match index {
                2 => "CREATE TABLE t(x)".to_owned(),
                _ => format!("INSERT INTO t VALUES({index})"),
            };
            let record = Record {
                index,
                term: 1,
                kind: Kind::Command,
                time: Moment(micros),
                content: entry_bytes(&sql, micros),
            };
            builder.push(record).unwrap();
        }
        let segment = builder.seal().unwrap().unwrap();
        let name = folder.segment(start.first);
        put(&name, &segment.encode(&name, None).unwrap());
        start = segment.after();
    }
    let config = format!(
        r#"{{"type":"file","sub":{{"dir":"{}"}}}}"#,
        dir.join("store").display()
    );
    std::fs::write(dir.join("config.json"), config).unwrap();
}

fn run(dir: &Path, words: &[&str]) -> crate::inspect::CommandOutput {
    let config = dir.join("config.json").display().to_string();
    let all = words.iter().copied().chain(["-config", config.as_str()]);
    let all: Vec<OsString> = all.map(OsString::from).collect();
    std::thread::scope(|scope| {
        let running = scope.spawn(|| command::run(all.into_iter()));
        running.join().unwrap()
    })
}

fn largest(path: &Path) -> Option<i64> {
    let conn = rusqlite::Connection::open(path).unwrap();
    conn.query_row("SELECT max(x) FROM t", [], |row| row.get(0))
        .unwrap()
}

#[tokio::test]
async fn every_subcommand_over_an_archive_in_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    archive(dir).await;
    let listed = run(dir, &["list", "-json"]);
    assert_eq!(listed.exit_code, 0, "{}", listed.text);
    let listed: serde_json::Value = serde_json::from_str(&listed.text).unwrap();
    let timeline = &listed["timelines"][0];
    assert_eq!(
        (&timeline["from"]["index"], &timeline["to"]["index"]),
        (&1.into(), &41.into())
    );
    for (n, (words, want)) in [
        (vec!["-to-index", "20"], Some(20)),
        (vec!["-before-index", "20"], Some(19)),
        (vec!["-to-time", "1970-01-01T00:00:30.5Z"], Some(30)),
        (vec!["-to-index", "2"], None),
        (vec![], Some(41)),
    ]
    .into_iter()
    .enumerate()
    {
        let output = dir.join(format!("out{n}.db"));
        let shown = output.display().to_string();
        let all = [&["restore", "-output", &shown][..], &words].concat();
        let restored = run(dir, &all);
        assert_eq!(restored.exit_code, 0, "{}", restored.text);
        assert_eq!(largest(&output), want, "{words:?}");
        let again = run(dir, &all);
        assert!(
            again.is_error && again.text.contains("never overwrites"),
            "{}",
            again.text
        );
        hash_file(&output).unwrap();
    }
    for (words, says) in [
        (["-to-index", "77"], "not archived"),
        (["-to-index", "0"], "before the oldest base"),
        (["-lineage", "zz"], "no lineage zz"),
    ] {
        let shown = dir.join("never.db").display().to_string();
        let all = [&["restore", "-output", &shown][..], &words].concat();
        let refused = run(dir, &all);
        assert!(
            refused.exit_code == 1 && refused.text.contains(says),
            "{}",
            refused.text
        );
        assert!(!dir.join("never.db").exists());
    }
    let shown = run(dir, &["show", "-grep", "values(25)", "-effects"]);
    assert!(
        shown.text.contains("-- 1 rows") && shown.text.contains("-before-index 25"),
        "{}",
        shown.text
    );
    let shown = run(
        dir,
        &["show", "-from-index", "5", "-to-index", "6", "-json"],
    );
    let shown: serde_json::Value = serde_json::from_str(&shown.text).unwrap();
    assert_eq!(shown["entries"].as_array().unwrap().len(), 2);
    let verified = run(dir, &["verify", "-full"]);
    assert_eq!(verified.exit_code, 0, "{}", verified.text);
}

#[tokio::test]
async fn damaged_and_missing_objects_are_named_and_nothing_is_left() {
    for (object, harm) in [
        ("segments/00000000000000000012", "damage"),
        ("segments/00000000000000000012", "remove"),
        ("segments/00000000000000000012", "cut"),
        ("segments/00000000000000000012", "exchange"),
        ("bases/00000000000000000001-x.db", "damage"),
        ("bases/00000000000000000001-x.db", "cut"),
        ("bases/00000000000000000001-x.db", "remove"),
        ("bases/00000000000000000001.json", "damage"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        archive(dir).await;
        let folder = dir.join("store/000000-aa");
        let path = folder.join(object);
        let mut content = std::fs::read(&path).unwrap();
        let middle = content.len() / 2;
        match harm {
            "damage" => content[middle] ^= 0x55,
            "cut" => content.truncate(middle),
            "exchange" => {
                content = std::fs::read(folder.join("segments/00000000000000000022")).unwrap()
            }
            _ => {}
        }
        match harm {
            "remove" => std::fs::remove_file(&path).unwrap(),
            _ => std::fs::write(&path, content).unwrap(),
        }
        let output = dir.join("out.db").display().to_string();
        for words in [&["restore", "-output", &output][..], &["verify"]] {
            let refused = run(dir, words);
            assert!(
                refused.exit_code == 1 && refused.text.contains(object),
                "{harm} {object}: {}",
                refused.text
            );
        }
        assert!(!dir.join("out.db").exists());
        let scratch = std::fs::read_dir(dir).unwrap().filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_string_lossy().starts_with(".rqlited")
        });
        assert_eq!(scratch.count(), 0);
    }
}

/// A plan of segments, two entries each, by what their writers enforced.
fn plan_of(enforced: &[Option<bool>]) -> (Folder, Plan) {
    let lineage = Lineage {
        id: LINEAGE.into(),
        epoch: 0,
    };
    let mut start = Start {
        first: 2,
        previous: None,
        not_before: Moment(0),
        term: 1,
    };
    let mut segments = Vec::new();
    for foreign_keys in enforced {
        let writer = Writer {
            foreign_keys: *foreign_keys,
            ..writer()
        };
        let mut builder = Builder::new(lineage.clone(), writer, start.clone()).unwrap();
        for index in start.first..start.first + 2 {
            let record = Record {
                index,
                term: 1,
                kind: Kind::Blank,
                time: Moment(0),
                content: bytes::Bytes::new(),
            };
            builder.push(record).unwrap();
        }
        let segment = builder.seal().unwrap().unwrap();
        segments.push(segment.header().clone());
        start = segment.after();
    }
    let base = serde_json::json!({
        "format": 1, "lineage": { "id": LINEAGE, "epoch": 0 }, "index": 1, "term": 1,
        "time": Moment(0), "created_at": Moment(0), "bytes": 1, "sha256": "", "pages": 1,
        "object": "", "object_bytes": 1, "writer": writer(), "reason": "first",
    });
    let plan = Plan {
        base: serde_json::from_value(base).unwrap(),
        segments,
        target: Target::End,
        end: Point {
            index: start.first - 1,
            time: Moment(0),
        },
    };
    (Folder::new(&lineage).unwrap(), plan)
}

#[test]
fn foreign_keys_are_enforced_as_the_archive_says() {
    const YES: Option<bool> = Some(true);
    const NO: Option<bool> = Some(false);
    for (name, segments, given, insists, want) in [
        ("only a base", &[][..], true, true, Ok(true)),
        ("an old archive", &[None, None][..], true, true, Ok(true)),
        (
            "an old archive without",
            &[None][..],
            false,
            false,
            Ok(false),
        ),
        ("recorded", &[YES, YES][..], false, false, Ok(true)),
        ("recorded as not", &[NO][..], true, false, Ok(false)),
        (
            "recorded since an upgrade",
            &[None, YES][..],
            false,
            false,
            Ok(true),
        ),
        ("said again", &[YES][..], true, true, Ok(true)),
        ("contradicted", &[NO][..], true, true, Err("leave -fk away")),
        ("changed", &[YES, NO][..], true, true, Err("before entry 4")),
        (
            "changed back",
            &[NO, YES][..],
            false,
            false,
            Err("no replay can do both"),
        ),
    ] {
        let (folder, plan) = plan_of(segments);
        let wish = Wish {
            lineage: None,
            target: Target::End,
            allow_other_sqlite: false,
            foreign_keys: given,
            insists_on_foreign_keys: insists,
        };
        match (foreign_keys(&folder, &plan, &wish), want) {
            (Ok(got), Ok(want)) => assert_eq!(got, want, "{name}"),
            (Err(why), Err(part)) => {
                assert!(
                    why.contains(part) && why.contains("/segments/"),
                    "{name}: {why}"
                );
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}
