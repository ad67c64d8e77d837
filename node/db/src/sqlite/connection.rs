//! Opening connections: the one that writes and those that read, each with the settings that clients of rqlite expect.
use std::{
    cell::{Cell, RefCell},
    hash::BuildHasher as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use rusqlite::{CachedStatement, Connection, OpenFlags, Statement, config::DbConfig};

use crate::{
    entry::{Bounds, Rules, Stamp},
    files::{
        space::DiskWait,
        wal_file::{FRAME_HEADER_BYTES, WAL_HEADER_BYTES},
    },
    sql::classify,
    sqlite::{
        authorizer::{AuthorizerState, Mode},
        determinism, linear, meter, node_local, vfs,
    },
    types::Maintenance,
};

/// Prepared statements kept per connection. Applications have tens to a few hundred texts; one costs about 5 KiB.
const STATEMENTS: usize = 256;
/// Places for the hashes of texts that were seen once.
const SEEN: usize = 1024;
/// Page cache of the writer in KiB: holds the upper levels of the indexes of a gigabyte; readers keep SQLite's 2 MiB.
const WRITER_CACHE_KIB: i64 = 12 * 1024;
/// SQLite's own limit.
const MOST_PAGES: u32 = u32::MAX - 1;

/// Stack of a thread that runs SQL: SQLite's parser recurses, up to its limit of expression depth.
pub(crate) const STACK_BYTES: usize = 4 << 20;

/// Settings that clients can notice, the same on every connection.
fn configure(conn: &Connection, foreign_keys: bool) -> rusqlite::Result<()> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, foreign_keys)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.pragma_update(None, "recursive_triggers", true)?;
    conn.pragma_update(None, "synchronous", "OFF")?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(())
}

/// A statement that goes back to the cache, or one that does not.
pub(crate) enum Prepared<'c> {
    Cached(CachedStatement<'c>),
    Once(Statement<'c>),
}

impl<'c> Prepared<'c> {
    pub(crate) fn statement(&mut self) -> &mut Statement<'c> {
        match self {
            Self::Cached(statement) => statement,
            Self::Once(statement) => statement,
        }
    }
}

/// What is in the WAL; written by the writer, read by anyone.
#[derive(Debug, Default)]
pub(crate) struct WalMeter {
    frames: AtomicU64,
    /// Of these, moved into the main file already.
    moved: AtomicU64,
    /// Something was committed since the last move.
    dirty: AtomicBool,
}

impl WalMeter {
    fn committed(&self, frames: u64) {
        // A shorter WAL has begun anew.
        if frames < self.frames.swap(frames, Relaxed) {
            self.moved.store(0, Relaxed);
        }
        self.dirty.store(true, Relaxed);
    }

    /// Everything is in the main file.
    pub(crate) fn moved(&self) {
        self.moved.store(self.frames(), Relaxed);
        self.dirty.store(false, Relaxed);
    }

    /// There is no WAL any more.
    pub(crate) fn emptied(&self) {
        self.frames.store(0, Relaxed);
        self.moved();
    }

    /// Whether a checkpoint has anything to move.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty.load(Relaxed)
    }

    /// All frames in the WAL.
    pub(crate) fn frames(&self) -> u64 {
        self.frames.load(Relaxed)
    }

    /// It did not begin anew after it was moved: at least half of it is of no use.
    pub(crate) fn is_overgrown(&self) -> bool {
        self.unmoved_frames() <= self.frames() / 2
    }

    /// Frames that a checkpoint would move; may be some too few after the WAL began anew.
    pub(crate) fn unmoved_frames(&self) -> u64 {
        self.frames().saturating_sub(self.moved.load(Relaxed))
    }
}

/// When upkeep was done; see [`crate::Maintenance`].
#[derive(Debug, Default)]
pub(crate) struct MaintenanceMeter {
    vacuumed: AtomicU64,
    optimized: AtomicU64,
}

impl MaintenanceMeter {
    pub(crate) fn vacuumed(&self, stamp: Stamp) {
        self.vacuumed.store(micros(stamp), Relaxed);
    }

    pub(crate) fn optimized(&self, stamp: Stamp) {
        self.optimized.store(micros(stamp), Relaxed);
    }

    pub(crate) fn read(&self) -> Maintenance {
        Maintenance {
            vacuumed_unix_micros: self.vacuumed.load(Relaxed),
            optimized_unix_micros: self.optimized.load(Relaxed),
        }
    }
}

fn micros(stamp: Stamp) -> u64 {
    u64::try_from(stamp.unix_micros).unwrap_or(0)
}

/// What others may know of the writing connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meters {
    pub(crate) wal: Arc<WalMeter>,
    pub(crate) maintenance: Arc<MaintenanceMeter>,
    /// Statements of requests that gave an error.
    pub(crate) failed: Arc<AtomicU64>,
    /// Writes that take so long are logged.
    pub(crate) slow: Option<Duration>,
    /// What the writer waits for.
    pub(crate) disk_wait: Arc<DiskWait>,
}

/// The writing connection.
pub(crate) struct Session {
    pub(crate) conn: Connection,
    pub(crate) authorizer: Arc<AuthorizerState>,
    path: PathBuf,
    foreign_keys: bool,
    pub(crate) meters: Meters,
    seen: RefCell<Box<[u64; SEEN]>>,
    schema: Cell<SchemaFacts>,
    /// Limits that the connection has now: bytes of a value, pages of the database.
    limits: Cell<(u32, u32)>,
    hasher: std::hash::RandomState,
}

impl Session {
    /// Opens (and creates) the file. `meters` then follow it.
    pub(crate) fn open(
        path: &Path,
        foreign_keys: bool,
        meters: Meters,
    ) -> Result<Self, rusqlite::Error> {
        let authorizer = AuthorizerState::new();
        let conn = open_writer(path, foreign_keys, &authorizer, &meters)?;
        Ok(Self {
            conn,
            authorizer,
            path: path.to_owned(),
            foreign_keys,
            meters,
            seen: RefCell::new(Box::new([0; SEEN])),
            schema: Cell::default(),
            limits: Cell::new((0, 0)),
            hasher: std::hash::RandomState::new(),
        })
    }

    /// A new connection in place of one whose settings a client changed.
    pub(crate) fn reopen(&mut self) -> Result<(), rusqlite::Error> {
        // The new one first: the last connection to leave would take the WAL's index with it.
        self.conn = open_writer(
            &self.path,
            self.foreign_keys,
            &self.authorizer,
            &self.meters,
        )?;
        self.limits.set((0, 0));
        self.authorizer.set_clean();
        self.authorizer.note_schema_change();
        Ok(())
    }

    /// Sets what SQLite itself watches over.
    pub(crate) fn limit(&self, bounds: Bounds) -> rusqlite::Result<()> {
        let (value_bytes, max_pages) = self.limits.get();
        if value_bytes != bounds.value_bytes {
            determinism::limit_values(&self.conn, bounds.value_bytes)?;
        }
        if max_pages != bounds.max_pages {
            // 0 would only ask.
            let pages = if bounds.max_pages == 0 {
                MOST_PAGES
            } else {
                bounds.max_pages
            };
            let mode = self.authorizer.set_mode(Mode::Internal);
            let set = self
                .conn
                .pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()));
            self.authorizer.set_mode(mode);
            set?;
        }
        self.limits.set((bounds.value_bytes, bounds.max_pages));
        Ok(())
    }

    /// A PRAGMA that answers with a number.
    pub(crate) fn number(&self, pragma: &str) -> rusqlite::Result<u64> {
        let mode = self.authorizer.set_mode(Mode::Internal);
        let answer = self
            .conn
            .pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
        self.authorizer.set_mode(mode);
        Ok(answer?.unsigned_abs())
    }

    /// What all pages of the database take in the WAL.
    pub(crate) fn wal_bytes_of_all_pages(&self) -> rusqlite::Result<u64> {
        Ok(self.number("page_count")? * (self.number("page_size")? + FRAME_HEADER_BYTES))
    }

    /// Gives back what a transaction that was rolled back has written behind the last commit. No transaction is open.
    pub(crate) fn shorten_wal(&self) {
        let frames = self.meters.wal.frames();
        let Ok(page_bytes) = self.number("page_size") else {
            return;
        };
        let committed = WAL_HEADER_BYTES + frames * (page_bytes + FRAME_HEADER_BYTES);
        let mut wal = self.path.clone().into_os_string();
        wal.push("-wal");
        let shortened = std::fs::OpenOptions::new()
            .write(true)
            .open(wal)
            .and_then(|file| {
                if file.metadata()?.len() > committed {
                    file.set_len(committed)?;
                }
                Ok(())
            });
        if let Err(error) = shortened {
            tracing::warn!("cannot shorten the WAL: {error}");
        }
    }

    pub(crate) fn enforces_foreign_keys(&self) -> bool {
        self.foreign_keys
    }

    /// Prepares a single statement. Texts with parameters, and texts seen before, are kept prepared, if `may_keep`: caching
    /// every literal INSERT would only push out those that come again.
    pub(crate) fn prepare(
        &self,
        sql: &str,
        has_parameters: bool,
        may_keep: bool,
    ) -> rusqlite::Result<Prepared<'_>> {
        self.authorizer.start_statement();
        if !may_keep
            || !(has_parameters || self.seen_before(sql))
            || self.authorizer.is_dirty()
            || classify::is_about_schema(sql)
        {
            return self.conn.prepare(sql).map(Prepared::Once);
        }
        let prepared = self.conn.prepare_cached(sql)?;
        if self.authorizer.is_dirty()
            || self.authorizer.is_node_local()
            || self.authorizer.has_analyzed()
        {
            // What the authorizer noticed while it was prepared would not be noticed at a second run from the cache.
            prepared.discard();
            return self.conn.prepare(sql).map(Prepared::Once);
        }
        Ok(Prepared::Cached(prepared))
    }

    fn seen_before(&self, sql: &str) -> bool {
        let hash = self.hasher.hash_one(sql);
        let mut seen = self.seen.borrow_mut();
        #[expect(clippy::cast_possible_truncation, reason = "any bits will do")]
        let place = &mut seen[hash as usize % SEEN];
        std::mem::replace(place, hash) == hash
    }

    /// Says by which format's rules the next statements run.
    pub(crate) fn follow(&self, rules: Rules) {
        if self.authorizer.set_v2(rules.is_v2()) {
            // What was authorized by other rules must be asked about again.
            self.conn.flush_prepared_statement_cache();
        }
    }

    /// After a rollback: the planner's statistics in memory may be those of an ANALYZE that was undone, which a restarted node
    /// would not have.
    pub(crate) fn restore_statistics(&self) -> rusqlite::Result<()> {
        if self.authorizer.has_analyzed() {
            // Has SQLite read the schema and the statistics anew.
            self.internal("PRAGMA writable_schema=RESET")?;
            self.authorizer.forget_analyze();
        }
        Ok(())
    }

    /// Starts a request with a connection that remembers nothing. `asks_for_changes`: its text mentions `changes`.
    pub(crate) fn begin_request(
        &self,
        stamp: Stamp,
        asks_for_changes: bool,
    ) -> rusqlite::Result<()> {
        if asks_for_changes || self.schema()?.asks_for_changes {
            // SQLite has no call to reset what `changes()` says, but a DELETE of nothing does.
            self.internal("CREATE TEMP TABLE IF NOT EXISTS node_nothing(x)")?;
            self.internal("DELETE FROM temp.node_nothing WHERE 0")?;
        }
        determinism::begin_request(&self.conn, stamp);
        Ok(())
    }

    /// What the present schema holds.
    fn schema(&self) -> rusqlite::Result<SchemaFacts> {
        if self.authorizer.take_schema_changed() {
            let mode = self.authorizer.set_mode(Mode::Internal);
            let facts = schema_facts(&self.conn);
            self.authorizer.set_mode(mode);
            self.schema.set(facts?);
        }
        Ok(self.schema.get())
    }

    /// Full-text tables keep new terms in memory, and what they then write depends on where that is cut into pieces. So what is in
    /// memory is written at the end of every request: however the log is cut into runs, the tables below are the same.
    pub(crate) fn end_request(&self) -> rusqlite::Result<()> {
        if self.conn.is_autocommit() {
            return Ok(());
        }
        let facts = self.schema()?;
        if facts.fts3 {
            // These merge at COMMIT only.
            self.internal("COMMIT")?;
            self.authorizer.forget_analyze();
        } else if facts.fts5 {
            self.internal("SAVEPOINT flush")?;
            self.internal("RELEASE flush")?;
        }
        Ok(())
    }

    /// Runs a statement of the crate's own.
    pub(crate) fn internal(&self, sql: &str) -> rusqlite::Result<()> {
        internal(&self.conn, &self.authorizer, sql)
    }
}

/// What the schema holds that requests must be treated differently for. Found in its text, so it may say too much.
#[derive(Clone, Copy, Debug, Default)]
struct SchemaFacts {
    /// A trigger, view or DEFAULT may call `changes()`.
    asks_for_changes: bool,
    /// A table of the module fts3 or fts4.
    fts3: bool,
    fts5: bool,
}

fn schema_facts(conn: &Connection) -> rusqlite::Result<SchemaFacts> {
    conn.query_row(
        "SELECT coalesce(max(sql LIKE '%changes%'), 0), \
         coalesce(max(rootpage = 0 AND (sql LIKE '%fts3%' OR sql LIKE '%fts4%')), 0), \
         coalesce(max(rootpage = 0 AND sql LIKE '%fts5%'), 0) FROM sqlite_schema",
        [],
        |row| {
            Ok(SchemaFacts {
                asks_for_changes: row.get(0)?,
                fts3: row.get(1)?,
                fts5: row.get(2)?,
            })
        },
    )
}

/// Runs a statement that clients may not. Never from the cache: there a client's equal text would find it, authorized.
pub(crate) fn internal(
    conn: &Connection,
    authorizer: &AuthorizerState,
    sql: &str,
) -> rusqlite::Result<()> {
    let mode = authorizer.set_mode(Mode::Internal);
    let result = conn
        .prepare(sql)
        .and_then(|mut statement| statement.raw_execute());
    authorizer.set_mode(mode);
    result.map(|_| ())
}

fn open_writer(
    path: &Path,
    foreign_keys: bool,
    authorizer: &Arc<AuthorizerState>,
    meters: &Meters,
) -> Result<Connection, rusqlite::Error> {
    vfs::register().map_err(|text| rusqlite::Error::UserFunctionError(text.into()))?;
    authorizer.set_mode(Mode::Internal);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags_and_vfs(path, flags, vfs::VFS)?;
    configure(&conn, foreign_keys)?;
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    conn.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    determinism::install_functions(&conn)?;
    let writing = Arc::clone(authorizer);
    node_local::install(&conn, move || writing.is_writing())?;
    linear::install(&conn)?;
    let wal = Arc::clone(&meters.wal);
    conn.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, frames: i32| {
        wal.committed(u64::try_from(frames).unwrap_or(0));
        meter::begin_transaction();
        Ok(())
    }))?;
    let disk_wait = Arc::clone(&meters.disk_wait);
    conn.progress_handler(
        meter::STEPS_BETWEEN_CALLS.cast_signed(),
        Some(move || disk_wait.is_interrupted() || meter::is_out_of_steps()),
    )?;
    authorizer.watch(&mut conn)?;
    // Reading the schema opens the WAL, so that read-only connections find it.
    conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(conn)
}

/// Has SQLite put its temporary files (a VACUUM's copy, large sorts) beside the database: that disk is watched, and it is there in a
/// container without `/tmp`. They are nameless from the moment they are opened. The setting is the whole process's.
pub(crate) fn keep_temporary_files_in(dir: &Path) -> Result<(), rusqlite::Error> {
    match dir.to_str() {
        Some(dir) => Connection::open_in_memory()?.pragma_update(None, "temp_store_directory", dir),
        None => Ok(()),
    }
}

/// A connection that cannot write, with an authorizer in [`Mode::Reader`].
pub(crate) fn open_reader(
    path: &Path,
    foreign_keys: bool,
) -> Result<(Connection, Arc<AuthorizerState>), rusqlite::Error> {
    let mut conn = open_plain(path)?;
    configure(&conn, foreign_keys)?;
    conn.pragma_update(None, "query_only", true)?;
    let authorizer = AuthorizerState::new();
    authorizer.watch(&mut conn)?;
    authorizer.set_mode(Mode::Reader);
    authorizer.set_v2(true);
    Ok((conn, authorizer))
}

/// A read-only connection without guard, for the crate's own reading.
pub(crate) fn open_plain(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(conn)
}
