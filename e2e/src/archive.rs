//! Archives under test: their store and configuration, the subcommands of `rqlited archive`, and the content
//! of databases as comparable text.
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    binary,
    client::Client,
    cluster::Cluster,
    servers::objects::{BUCKET, Kind, ObjectServer},
    wait,
};

/// How long the archive may take to hold everything, once its store works and nobody writes.
pub const CATCH_UP_LIMIT: Duration = Duration::from_secs(60);
/// Below this prefix all objects are.
pub const PREFIX: &str = "a/b";

/// An archive's store, its configuration and its key file.
#[derive(Debug)]
pub struct Archive {
    root: TempDir,
    /// Where the objects lie as files.
    objects: PathBuf,
    server: Option<ObjectServer>,
    has_keys: bool,
}

impl Archive {
    /// In a folder. `more` are keys of the configuration beside the target.
    ///
    /// # Errors
    /// If files cannot be written.
    pub fn in_folder(more: &Value) -> Result<Self> {
        Self::in_folder_below(&std::env::temp_dir(), more)
    }

    /// As [`Self::in_folder`], with everything below `base`: for measurements, where the disk matters.
    ///
    /// # Errors
    /// If files cannot be written.
    pub fn in_folder_below(base: &Path, more: &Value) -> Result<Self> {
        let root = directory(base)?;
        let store = root.path().join("store");
        fs::create_dir(&store)?;
        let target = json!({"version": 1, "type": "file", "sub": {"dir": store, "name": PREFIX}});
        Self::new(root, store.join(PREFIX), None, target, more)
    }

    /// In a real S3 server's bucket.
    ///
    /// # Errors
    /// If the server does not start.
    pub fn in_s3(more: &Value) -> Result<Self> {
        Self::in_s3_below(&std::env::temp_dir(), more)
    }

    /// As [`Self::in_s3`], with results below `base`.
    ///
    /// # Errors
    /// If the server does not start.
    pub fn in_s3_below(base: &Path, more: &Value) -> Result<Self> {
        let server = ObjectServer::start(Kind::S3)?;
        let target = server.target(PREFIX);
        let objects = server.daemon().dir().join("data").join(BUCKET).join(PREFIX);
        let root = directory(base)?;
        Self::new(root, objects, Some(server), target, more)
    }

    fn new(
        root: TempDir,
        objects: PathBuf,
        server: Option<ObjectServer>,
        mut config: Value,
        more: &Value,
    ) -> Result<Self> {
        for (key, value) in more.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        let archive = Self {
            root,
            objects,
            server,
            has_keys: false,
        };
        fs::write(archive.config(), config.to_string())?;
        Ok(archive)
    }

    /// A copy of all its objects as an archive in a folder, for damaging it or looking at it alone.
    ///
    /// # Errors
    /// If files cannot be copied.
    pub fn copied(&self) -> Result<Self> {
        let mut copy = Self::in_folder(&json!({}))?;
        copy_dir(&self.objects, &copy.objects)?;
        if self.has_keys {
            fs::copy(self.key_file(), copy.key_file())?;
            copy.has_keys = true;
        }
        Ok(copy)
    }

    /// Writes the key file; from now on it is given to every command.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn set_keys(&mut self, text: &str) -> Result<()> {
        self.has_keys = true;
        fs::write(self.key_file(), text).context("write the key file")
    }

    /// From now on no key file is given.
    pub fn forget_keys(&mut self) {
        self.has_keys = false;
    }

    /// The key file.
    #[must_use]
    pub fn key_file(&self) -> PathBuf {
        self.root.path().join("archive.keys")
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.root.path().join("archive.json")
    }

    /// A directory for results, deleted with the value.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.root.path()
    }

    /// The server, if it is not a folder.
    #[must_use]
    pub fn server(&self) -> Option<&ObjectServer> {
        self.server.as_ref()
    }

    /// Flags of the nodes that keep it.
    #[must_use]
    pub fn flags(&self) -> Vec<String> {
        let mut flags = vec![format!("-archive={}", self.config().display())];
        if self.has_keys {
            flags.push(format!("-archive-key-file={}", self.key_file().display()));
        }
        flags
    }

    /// The configuration of `-auto-restore` from this archive, with more keys of `sub`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn auto_restore(&self, more: &Value) -> Result<PathBuf> {
        let config: Value = serde_json::from_str(&fs::read_to_string(self.config())?)?;
        let mut sub = json!({"archive": {"type": config["type"], "sub": config["sub"]}});
        if self.has_keys {
            sub["key_file"] = json!(self.key_file());
        }
        for (key, value) in more.as_object().into_iter().flatten() {
            sub[key] = value.clone();
        }
        let path = self.root.path().join("auto-restore.json");
        let all = json!({"version": 1, "type": "archive", "sub": sub});
        fs::write(&path, all.to_string())?;
        Ok(path)
    }

    /// Files of all objects whose names below the lineage's folder begin with `kind` (`bases/`,
    /// `segments/`, `timeline.json`), in order.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn objects(&self, kind: &str) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for lineage in self.lineages()? {
            walk(&lineage, &mut |path| {
                if path
                    .strip_prefix(&lineage)
                    .is_ok_and(|name| name.to_string_lossy().starts_with(kind))
                {
                    found.push(path.to_owned());
                }
            })?;
        }
        found.sort();
        Ok(found)
    }

    /// The folders of its lineages, in order.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn lineages(&self) -> Result<Vec<PathBuf>> {
        let listed = fs::read_dir(&self.objects)
            .with_context(|| format!("list {}", self.objects.display()))?;
        let mut folders: Vec<PathBuf> = listed.flatten().map(|entry| entry.path()).collect();
        folders.retain(|path| path.join("timeline.json").exists());
        folders.sort();
        Ok(folders)
    }

    /// The name that messages use for the object in this file.
    #[must_use]
    pub fn name(&self, file: &Path) -> String {
        let name = file.strip_prefix(&self.objects).unwrap_or(file);
        name.to_string_lossy().into_owned()
    }

    /// Every byte that is stored, whatever its kind.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn stored_bytes(&self) -> Result<u64> {
        let mut bytes = 0;
        walk(&self.objects, &mut |path| {
            bytes += fs::metadata(path).map_or(0, |meta| meta.len());
        })?;
        Ok(bytes)
    }

    /// Runs `rqlited archive` with these words, the configuration and the key file.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn run(&self, words: &[&str]) -> Result<Output> {
        let mut command = Command::new(binary::rqlited()?);
        command.arg("archive").args(words);
        command.arg("-config").arg(self.config());
        if self.has_keys {
            command.arg("-key-file").arg(self.key_file());
        }
        command.stdin(Stdio::null());
        command.output().context("run rqlited archive")
    }

    /// As [`Self::run`]; returns what it says where it fails.
    ///
    /// # Errors
    /// If it succeeds.
    pub fn refusal(&self, words: &[&str]) -> Result<String> {
        let output = self.run(words)?;
        let text = texts(&output);
        ensure!(!output.status.success(), "{words:?} succeeded: {text}");
        Ok(text)
    }

    /// As [`Self::run`] with `-json`; returns what it prints.
    ///
    /// # Errors
    /// If it fails.
    pub fn json(&self, words: &[&str]) -> Result<Value> {
        let words = [words, &["-json"]].concat();
        let output = self.run(&words)?;
        ensure!(
            output.status.success(),
            "rqlited archive {words:?}: {}",
            texts(&output)
        );
        serde_json::from_slice(&output.stdout).context("its JSON")
    }

    /// Every object is sound, nothing is missing between them; with `full`, replays give the bases' contents.
    ///
    /// # Errors
    /// What is wrong.
    pub fn verify(&self, full: bool) -> Result<Value> {
        let words: &[&str] = if full {
            &["verify", "-full"]
        } else {
            &["verify"]
        };
        self.json(words)
    }

    /// Restores to a new file. `words` name the point.
    ///
    /// # Errors
    /// If it is refused.
    pub fn restore(&self, words: &[&str]) -> Result<Restored> {
        let number = fs::read_dir(self.root.path())?.count();
        let file = self.root.path().join(format!("restored-{number}.sqlite"));
        let path = file.to_string_lossy().into_owned();
        let report = self.json(&[&["restore", "-output", &path], words].concat())?;
        Ok(Restored { file, report })
    }
}

/// What a restore made.
#[derive(Debug)]
pub struct Restored {
    /// The database.
    pub file: PathBuf,
    /// What the command printed.
    pub report: Value,
}

impl Restored {
    /// The database, read only.
    ///
    /// # Errors
    /// If SQLite cannot open it.
    pub fn open(&self) -> Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        Connection::open_with_flags(&self.file, flags).context("open the restored database")
    }
}

fn directory(base: &Path) -> Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    let root = builder.prefix("rq-archive-").tempdir_in(base);
    root.context("create a directory")
}

fn walk(dir: &Path, each: &mut impl FnMut(&Path)) -> Result<()> {
    for entry in fs::read_dir(dir)
        .with_context(|| format!("list {}", dir.display()))?
        .flatten()
    {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, each)?;
        } else {
            each(&path);
        }
    }
    Ok(())
}

fn copy_dir(from: &Path, to: &Path) -> Result<()> {
    let mut files = Vec::new();
    walk(from, &mut |path| files.push(path.to_owned()))?;
    for file in files {
        let copy = to.join(file.strip_prefix(from)?);
        fs::create_dir_all(copy.parent().context("no parent")?)?;
        fs::copy(&file, &copy).with_context(|| format!("copy {}", file.display()))?;
    }
    Ok(())
}

/// What a command printed, on both outputs.
#[must_use]
pub fn texts(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text + &String::from_utf8_lossy(&output.stderr)
}

/// `GET /archive` of the leader.
///
/// # Errors
/// If there is none.
pub fn status(cluster: &mut Cluster) -> Result<Value> {
    let leader = cluster.leader()?;
    cluster.client(leader).get_json("/archive")
}

/// Index of a read that went through the log: everything before it is older.
///
/// # Errors
/// If the read fails.
pub fn strong_index(client: &mut Client) -> Result<u64> {
    let reply = client.get("/db/query?level=strong&raft_index&q=SELECT%201")?;
    let index = reply.json()["raft_index"].as_u64();
    index.with_context(|| format!("a strong read: {}", reply.text()))
}

/// Waits until the archive holds everything that is committed now, and returns what the leader says then.
///
/// # Errors
/// If something is missing after [`CATCH_UP_LIMIT`].
pub fn await_archived(cluster: &mut Cluster) -> Result<Value> {
    let leader = cluster.leader()?;
    let last = strong_index(&mut cluster.client(leader))?;
    wait::until("the archive to hold everything", CATCH_UP_LIMIT, || {
        let now = status(cluster).map_err(|e| e.to_string())?;
        if now["archived_index"].as_u64() >= Some(last) && now["behind_entries"] == 0 {
            Ok(now)
        } else {
            Err(format!("the last entry is {last}, but {now}"))
        }
    })
}

/// The database of a node as it is now, in a file: read from that node alone.
///
/// # Errors
/// If the node does not return it.
pub fn live(cluster: &Cluster, node: usize, file: &Path) -> Result<Connection> {
    let reply = cluster.client(node).get("/db/backup?noleader")?;
    ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    fs::write(file, &reply.body)?;
    Connection::open(file).context("open a backup")
}

/// The schema and all rows of a database: equal texts are equal contents, whatever the layout of the file.
///
/// # Errors
/// SQLite's.
pub fn content(database: &Connection) -> Result<String> {
    let mut text = String::new();
    let mut schema = database.prepare(
        "SELECT type, name, coalesce(sql, '') FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_stat%' ESCAPE '\\' ORDER BY 1, 2",
    )?;
    let objects = schema.query_map([], |row| {
        Ok((
            row.get::<_, String>(0)?,
            row.get::<_, String>(1)?,
            row.get::<_, String>(2)?,
        ))
    })?;
    for object in objects {
        let (kind, name, sql) = object?;
        text.push_str(&format!("{kind} {name}: {sql}\n"));
        if kind == "table" {
            rows(database, &name, &mut text)?;
        }
    }
    Ok(text)
}

fn rows(database: &Connection, table: &str, text: &mut String) -> Result<()> {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let table = quoted(table);
    let statement = database.prepare(&format!("SELECT * FROM {table}"))?;
    let columns: Vec<String> = statement.column_names().map(quoted).collect();
    let shown: Vec<String> = columns.iter().map(|c| format!("quote({c})")).collect();
    let mut statement = database.prepare(&format!(
        "SELECT {} FROM {table} ORDER BY {}",
        shown.join(" || ',' || "),
        columns.join(", ")
    ))?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        text.push_str(&row.get::<_, String>(0)?);
        text.push('\n');
    }
    Ok(())
}

/// The first line in which two contents differ.
///
/// # Errors
/// They differ.
pub fn ensure_equal(what: &str, one: &str, other: &str) -> Result<()> {
    if one == other {
        return Ok(());
    }
    let (mut one_lines, mut other_lines) = (one.lines(), other.lines());
    let mut number = 0;
    loop {
        number += 1;
        let (a, b) = (one_lines.next(), other_lines.next());
        if a != b {
            bail!("{what}: line {number}: {a:?} against {b:?}");
        }
        if a.is_none() {
            bail!("{what}: only line ends differ");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(script: &str) -> Connection {
        let database = Connection::open_in_memory().unwrap();
        database.execute_batch(script).unwrap();
        database
    }

    #[test]
    fn contents_are_equal_whatever_the_layout() {
        let script = "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1, 'x'), (2, x'00'), (3, 1.5);";
        let (one, other) = (database(script), database(script));
        other
            .execute_batch(
                "DELETE FROM t; INSERT INTO t VALUES(3, 1.5), (1, 'x'), (2, x'00'); VACUUM;",
            )
            .unwrap();
        let (one, before) = (content(&one).unwrap(), content(&other).unwrap());
        ensure_equal("both", &one, &before).unwrap();
        other
            .execute_batch("UPDATE t SET b = '1.5' WHERE a = 3")
            .unwrap();
        let error = ensure_equal("both", &one, &content(&other).unwrap()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "both: line 4: Some(\"3,1.5\") against Some(\"3,'1.5'\")"
        );
        other
            .execute_batch("UPDATE t SET b = 1.5 WHERE a = 3; CREATE INDEX i ON t(b)")
            .unwrap();
        assert!(ensure_equal("both", &one, &content(&other).unwrap()).is_err());
    }
}
