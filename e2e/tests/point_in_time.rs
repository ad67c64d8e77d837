//! Any point of the past, exactly: random points are restored of a cluster whose leaders were killed and
//! moved, which took snapshots, loads, VACUUM and schema changes, and was restarted as another version, all
//! under numbered writers. Each database must be what the writers' own notes, a plain SQLite that executed
//! the same statements, and a second replay from another base say.
//!
//! `SEED` repeats a run's choices (not the moments of its threads), `POINTS` is the number of points: 12, or
//! 50 for a thorough run.
use std::{
    env, fs,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use e2e::{
    archive::{self, Archive, Restored, content, ensure_equal, strong_index},
    binary,
    cluster::{Cluster, SETTLE_LIMIT},
    process::Node,
    seed::Seed,
    servers::{Tool, present},
    wait,
};
use serde_json::{Value, json};

#[path = "point_in_time/notes.rs"]
mod notes;
#[path = "point_in_time/reference.rs"]
mod reference;

use notes::{Note, Outcome, TABLES, micros_now, note_writes};
use reference::{Change, Effect, History};

const WRITERS: u64 = 3;
/// What a version's name is exchanged for in a copy of the program, and by what.
const VERSION: (&[u8], &[u8]) = (b"v10.3.0-0.", b"v10.3.0-9.");

fn number(name: &str, default: u64) -> Result<u64> {
    env::var(name).map_or(Ok(default), |text| text.parse().context("a number"))
}

/// A copy of the program that calls itself another version: the archive begins a new base for it. The code
/// and the SQLite in it are the same.
fn another_version(archive: &Archive) -> Result<PathBuf> {
    let mut program = fs::read(binary::rqlited()?)?;
    let finder = memchr::memmem::Finder::new(VERSION.0);
    let places: Vec<usize> = finder.find_iter(&program).collect();
    ensure!(!places.is_empty(), "the program does not name its version");
    for at in places {
        program[at..at + VERSION.1.len()].copy_from_slice(VERSION.1);
    }
    let path = archive.scratch().join("rqlited-other");
    fs::copy(binary::rqlited()?, &path)?;
    fs::write(&path, program)?;
    Ok(path)
}

/// What is done to the cluster while others write.
struct Driver<'a> {
    cluster: &'a mut Cluster,
    seed: Seed,
    history: History,
    tables: usize,
}

impl Driver<'_> {
    fn leader(&mut self) -> Result<e2e::client::Client> {
        let leader = self.cluster.leader()?;
        Ok(self.cluster.client(leader))
    }

    fn pause(&mut self) {
        wait::sleep(Duration::from_millis(self.seed.below(700)));
    }

    /// Executes one statement whose index is known.
    fn statement(&mut self, sql: &str) -> Result<()> {
        let mut client = self.leader()?;
        let body = json!([sql]).to_string();
        let reply = client.post("/db/execute?raft_index", &body)?;
        let value = reply.json();
        let index = value["raft_index"].as_u64();
        let index = index.with_context(|| format!("{sql}: {}", reply.text()))?;
        ensure!(value["results"][0]["error"].is_null(), "{sql}: {value}");
        println!("  {index}: {sql}");
        self.history
            .note(Change::at(index, Effect::Script(sql.to_owned())));
        Ok(())
    }

    /// Loads a script or a database file; its index lies between two others.
    fn load(&mut self, body: &[u8], effect: Effect, table: &str) -> Result<()> {
        let mut client = self.leader()?;
        let after = strong_index(&mut client)?;
        let reply = client.send("POST", "/db/load", &[], body)?;
        let text = reply.text();
        ensure!(
            reply.status == 200 && !text.contains("error"),
            "load: {text}"
        );
        let until = strong_index(&mut client)?;
        println!("  {after} to {until}: load of {table}");
        let probe = format!("SELECT count(*) FROM sqlite_schema WHERE name = '{table}'");
        self.history
            .note(Change::between(after + 1, until, effect, probe));
        Ok(())
    }

    fn table(&mut self) -> String {
        self.tables += 1;
        format!("extra_{}", self.tables)
    }

    fn kill(&mut self) -> Result<()> {
        let leader = self.cluster.leader()?;
        println!("  kill -9 of node {}", self.cluster[leader].name);
        self.cluster[leader].kill()?;
        self.pause();
        self.cluster[leader].start_and_ready()
    }

    fn transfer(&mut self) -> Result<()> {
        println!("  transfer");
        let reply = self.leader()?.post("/leader?wait", "")?;
        ensure!(reply.status == 200, "transfer: {}", reply.text());
        Ok(())
    }

    fn snapshot(&mut self) -> Result<()> {
        println!("  snapshot");
        let reply = self.leader()?.post("/snapshot", "")?;
        ensure!(
            matches!(reply.status, 200 | 204),
            "snapshot: {}",
            reply.text()
        );
        Ok(())
    }

    fn script(&mut self) -> Result<()> {
        let table = self.table();
        let script = format!(
            "BEGIN TRANSACTION;\nCREATE TABLE {table}(a INTEGER PRIMARY KEY, b TEXT);\n\
             INSERT INTO {table} VALUES(1, 'a;b'), (2, 'c');\nCREATE INDEX {table}_b ON {table}(b);\nCOMMIT;\n"
        );
        self.load(script.as_bytes(), Effect::Script(script.clone()), &table)
    }

    /// Everything that may happen while others write, in a random order.
    fn first_half(&mut self) -> Result<()> {
        let mut acts: Vec<fn(&mut Self) -> Result<()>> = vec![
            Self::kill,
            Self::kill,
            Self::transfer,
            Self::snapshot,
            Self::script,
            |driver| driver.statement("VACUUM"),
            |driver| driver.statement("CREATE INDEX numbered_writer ON numbered(writer, number)"),
            |driver| driver.statement("ALTER TABLE worked ADD COLUMN extra TEXT DEFAULT 'none'"),
        ];
        while !acts.is_empty() {
            self.pause();
            let act = acts.swap_remove(self.seed.index(acts.len()));
            act(self)?;
        }
        self.pause();
        Ok(())
    }

    /// Every node is restarted as another version, one after the other.
    fn second_half(&mut self, other: &std::path::Path) -> Result<()> {
        self.transfer()?;
        for node in 0..self.cluster.len() {
            println!("  restart of node {} as another version", node + 1);
            self.cluster[node].stop()?;
            self.cluster[node].program = Some(other.to_owned());
            self.cluster[node].start_and_ready()?;
            self.pause();
        }
        self.statement("DROP TABLE extra_1")?;
        self.statement(
            "CREATE VIEW sums AS SELECT writer, sum(v) AS total FROM worked GROUP BY 1",
        )?;
        self.kill()?;
        self.script()?;
        self.statement("VACUUM")?;
        self.pause();
        Ok(())
    }

    /// Runs `act` while writers write; their notes then get their places in the history.
    fn under_writers(&mut self, act: impl FnOnce(&mut Self) -> Result<()>) -> Result<Vec<Note>> {
        let addrs: Vec<String> = self.cluster.iter().map(|node| node.http.clone()).collect();
        let stop = AtomicBool::new(false);
        let first = self.history.next_number();
        let (acted, notes) = thread::scope(|scope| {
            let writers: Vec<_> = (0..=WRITERS)
                .map(|writer| (writer, self.seed.fork()))
                .map(|(writer, seed)| {
                    let (addrs, stop) = (&addrs, &stop);
                    scope.spawn(move || note_writes(addrs, writer, first, seed, stop))
                })
                .collect();
            let acted = act(self);
            stop.store(true, Ordering::Release);
            let notes: Vec<Note> = writers
                .into_iter()
                .flat_map(|writer| writer.join().unwrap_or_default())
                .collect();
            (acted, notes)
        });
        acted?;
        let mut client = self.leader()?;
        self.history.take(&notes, &mut client)?;
        Ok(notes)
    }
}

/// The end of the history: where points may lie, and the live contents there.
struct End {
    first: u64,
    last: u64,
    begun: i64,
    ended: i64,
    live: String,
}

fn finish(cluster: &mut Cluster, archive: &Archive, begun: i64) -> Result<End> {
    let ended = micros_now();
    let status = archive::await_archived(cluster)?;
    println!("{status:#}");
    ensure!(status["gap"].is_null(), "a gap: {status}");
    let mut lives = Vec::new();
    for node in 0..cluster.len() {
        let file = archive.scratch().join(format!("live-{node}.sqlite"));
        lives.push(content(&archive::live(cluster, node, &file)?)?);
    }
    for live in &lives {
        ensure_equal("two live nodes", &lives[0], live)?;
    }
    let firsts = archive.objects("bases/")?;
    let name = firsts.first().and_then(|path| path.file_stem());
    let name = name.context("no base")?.to_string_lossy().into_owned();
    let digits: String = name.chars().take_while(char::is_ascii_digit).collect();
    Ok(End {
        first: digits.parse()?,
        last: status["archived_index"].as_u64().context("no index")?,
        begun,
        ended,
        live: lives.swap_remove(0),
    })
}

/// Restores one point in two ways, and compares with the notes and a plain SQLite.
fn check_point(
    archive: &Archive,
    oldest: &Archive,
    history: &History,
    words: &[&str],
) -> Result<Checked> {
    let restored = archive.restore(words)?;
    let index = restored.report["index"].as_u64().context("no index")?;
    if let ["-to-index", wanted] = words {
        ensure!(*wanted == index.to_string(), "{words:?} gave {index}");
    }
    let database = restored.open()?;
    let found = content(&database)?;
    history.check_notes(index, &database)?;
    let reference = history.replay(index, &database, archive.scratch())?;
    ensure_equal("plain SQLite", &content(&reference)?, &found)?;
    let again = oldest.restore(&["-to-index", &index.to_string()])?;
    ensure_equal("another base", &content(&again.open()?)?, &found)?;
    println!(
        "{words:?}: {index} from the bases {} and {}, {} and {} entries, {} bytes of content",
        restored.report["base_index"],
        again.report["base_index"],
        restored.report["entries"],
        again.report["entries"],
        found.len()
    );
    remove(&restored)?;
    remove(&again)?;
    let two_ways = restored.report["base_index"] != again.report["base_index"];
    Ok(Checked {
        index,
        found,
        two_ways,
    })
}

/// A point that was restored twice.
struct Checked {
    index: u64,
    found: String,
    /// From two different bases.
    two_ways: bool,
}

fn remove(restored: &Restored) -> Result<()> {
    fs::remove_file(&restored.file).context("remove a restored file")
}

/// Nothing that was answered before the time is missing, nothing sent after it is there.
fn check_time(notes: &[Note], time: i64, index: u64) -> Result<()> {
    for note in notes {
        let Outcome::At(at) = note.outcome else {
            continue;
        };
        let fits = if at <= index {
            note.sent <= time
        } else {
            note.answered >= time
        };
        ensure!(fits, "time {time} is index {index}, but: {note:?}");
    }
    Ok(())
}

/// RFC 3339 with milliseconds, by SQLite.
fn rfc3339(micros: i64) -> Result<String> {
    let database = rusqlite::Connection::open_in_memory()?;
    let millis = micros / 1000;
    let sql = "SELECT strftime('%Y-%m-%dT%H:%M:%S', ?1 / 1000, 'unixepoch') || printf('.%03dZ', ?1 % 1000)";
    Ok(database.query_row(sql, [millis], |row| row.get(0))?)
}

fn check_points(
    archive: &Archive,
    history: &History,
    notes: &[Note],
    end: &End,
    seed: &mut Seed,
    points: u64,
) -> Result<()> {
    // The same objects, but of the bases only the first: every replay takes another way.
    let oldest = archive.copied()?;
    for base in oldest.objects("bases/")? {
        if !oldest.name(&base).contains(&format!("{:020}", end.first)) {
            fs::remove_file(base)?;
        }
    }
    let check = |words: &[&str]| check_point(archive, &oldest, history, words);
    let newest = check(&[])?;
    ensure_equal("the live nodes", &end.live, &newest.found)?;
    for load in history.loads() {
        for index in [load - 1, load] {
            check(&["-to-index", &index.to_string()])?;
        }
    }
    let mut two_ways = 0;
    for point in 0..points {
        let checked = if point % 3 == 2 {
            let span = u64::try_from(end.ended - end.begun)?;
            let time = (end.begun + i64::try_from(seed.below(span))?) / 1000 * 1000;
            let checked = check(&["-to-time", &rfc3339(time)?])?;
            check_time(notes, time, checked.index)?;
            checked
        } else {
            let index = end.first + seed.below(end.last - end.first + 1);
            check(&["-to-index", &index.to_string()])?
        };
        two_ways += u64::from(checked.two_ways);
    }
    println!("{two_ways} of {points} points from two different bases");
    ensure!(
        two_ways * 4 >= points,
        "hardly any from two different bases"
    );
    Ok(())
}

#[test]
fn random_points_are_restored_exactly() -> Result<()> {
    if !present(&[Tool::VersityGw])? {
        return Ok(());
    }
    let first = number("SEED", Seed::arbitrary())?;
    let points = number("POINTS", 12)?;
    println!("SEED={first} POINTS={points}");
    let mut seed = Seed::new(first);
    let config = json!({"every": "400ms", "segment_bytes": 20_000, "base_interval": "2s"});
    let archive = Archive::in_s3(&config)?;
    let flags = archive.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let nodes =
        ["1", "2", "3"].map(|name| Ok(Node::new(name)?.with(&flags).with(&["-raft-snap=150"])));
    let mut cluster = Cluster::of(nodes.into_iter().collect::<Result<_>>()?);
    cluster.form()?;
    let mut driver = Driver {
        cluster: &mut cluster,
        seed: seed.fork(),
        history: History::default(),
        tables: 0,
    };
    TABLES.iter().try_for_each(|sql| driver.statement(sql))?;
    archive::await_archived(driver.cluster)?;
    let begun = micros_now();
    let mut notes = driver.under_writers(Driver::first_half)?;
    replace_everything(&mut driver, &archive)?;
    let other = another_version(&archive)?;
    notes.extend(driver.under_writers(|driver| driver.second_half(&other))?);
    let history = driver.history;
    println!("{}", history.summary());
    let end = finish(&mut cluster, &archive, begun)?;
    let reasons = versions(&archive)?;
    // An optimized program has the name in instructions, too, where it is not exchanged.
    let is_exchanged = cfg!(debug_assertions) && env::var_os(binary::OVERRIDE).is_none();
    println!("bases of {reasons:?}");
    ensure!(
        reasons.len() == 2 || !is_exchanged,
        "bases of two versions: {reasons:?}"
    );
    check_points(&archive, &history, &notes, &end, &mut seed, points)?;
    let verified = archive.verify(true)?;
    println!("{verified:#}");
    cluster.check_no_panic()
}

/// Versions that made bases.
fn versions(archive: &Archive) -> Result<std::collections::BTreeSet<String>> {
    let mut versions = std::collections::BTreeSet::new();
    for base in archive.objects("bases/")? {
        if base
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            let base: Value = serde_json::from_str(&fs::read_to_string(base)?)?;
            versions.insert(base["writer"]["rqlited"].to_string());
        }
    }
    Ok(versions)
}

/// Loads another database over the present one: half of the rows, a table and a trigger more.
fn replace_everything(driver: &mut Driver<'_>, archive: &Archive) -> Result<()> {
    let file = archive.scratch().join("loaded.sqlite");
    let leader = driver.cluster.leader()?;
    let database = archive::live(driver.cluster, leader, &file)?;
    database.execute_batch(
        "DELETE FROM numbered WHERE id % 2 = 0;
         CREATE TABLE loaded_1(x);
         INSERT INTO loaded_1 VALUES(1.25), (NULL), (x'00ff');
         CREATE TABLE seen(id INTEGER PRIMARY KEY AUTOINCREMENT, number INTEGER);
         CREATE TRIGGER fifth AFTER INSERT ON numbered WHEN new.number % 5 = 0
         BEGIN INSERT INTO seen(number) VALUES(new.number * 1000 + new.writer); END;",
    )?;
    drop(database);
    let body = fs::read(&file)?;
    driver.load(&body, Effect::Database(file), "loaded_1")?;
    wait::until("all nodes with the loaded database", SETTLE_LIMIT, || {
        for node in driver.cluster.iter() {
            let loaded = node
                .client()
                .rows("none", "SELECT count(*) FROM loaded_1", &[]);
            loaded.map_err(|e| e.to_string())?;
        }
        Ok(())
    })
}
