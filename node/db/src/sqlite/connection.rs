//! Connections: one that writes, and those that read, each with the settings that rqlite's clients expect.
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

/// Prepared statements cached per connection. Applications use tens to a few hundred texts; one costs about 5
/// KiB.
const STATEMENTS: usize = 256;
/// Slots for the hashes of texts that were seen once.
const SEEN: usize = 1024;
/// Page cache of the writer in KiB: holds the upper levels of the indexes of a database of a gigabyte.
/// Readers keep SQLite's default of 2 MiB.
const WRITER_CACHE_KIB: i64 = 12 * 1024;
/// SQLite's own limit of pages.
const MOST_PAGES: u32 = u32::MAX - 1;

/// Stack size of threads that run SQL: SQLite's parser recurses, up to its limit of expression depth.
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

/// A prepared statement, from the cache or not.
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

/// The size of the WAL; updated by the writer, readable by any thread.
#[derive(Debug, Default)]
pub(crate) struct WalMeter {
    frames: AtomicU64,
    /// Frames that are already in the main file.
    moved: AtomicU64,
    /// Something was committed since the last checkpoint.
    dirty: AtomicBool,
}

impl WalMeter {
    fn committed(&self, frames: u64) {
        // A lower number of frames means that the WAL has restarted from its beginning.
        if frames < self.frames.swap(frames, Relaxed) {
            self.moved.store(0, Relaxed);
        }
        self.dirty.store(true, Relaxed);
    }

    /// All frames are in the main file.
    pub(crate) fn moved(&self) {
        self.moved.store(self.frames(), Relaxed);
        self.dirty.store(false, Relaxed);
    }

    /// The WAL was truncated or deleted.
    pub(crate) fn emptied(&self) {
        self.frames.store(0, Relaxed);
        self.moved();
    }

    /// Whether a checkpoint has anything to do.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty.load(Relaxed)
    }

    /// Number of frames in the WAL.
    pub(crate) fn frames(&self) -> u64 {
        self.frames.load(Relaxed)
    }

    /// At least half of the WAL is useless, because it did not restart after its frames were copied.
    pub(crate) fn is_overgrown(&self) -> bool {
        self.unmoved_frames() <= self.frames() / 2
    }

    /// Frames that a checkpoint would copy; may be slightly too low after the WAL restarted.
    pub(crate) fn unmoved_frames(&self) -> u64 {
        self.frames().saturating_sub(self.moved.load(Relaxed))
    }
}

/// When maintenance last ran; see [`crate::Maintenance`].
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

/// What other threads may know of the writing connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meters {
    pub(crate) wal: Arc<WalMeter>,
    pub(crate) maintenance: Arc<MaintenanceMeter>,
    /// Statements of requests that returned an error.
    pub(crate) failed: Arc<AtomicU64>,
    /// Writes that run at least this long are logged.
    pub(crate) slow: Option<Duration>,
    /// Waiting for disk space, and the signals that stop it.
    pub(crate) disk_wait: Arc<DiskWait>,
}

/// The writing connection and its state.
pub(crate) struct Session {
    pub(crate) conn: Connection,
    pub(crate) authorizer: Arc<AuthorizerState>,
    path: PathBuf,
    foreign_keys: bool,
    pub(crate) meters: Meters,
    seen: RefCell<Box<[u64; SEEN]>>,
    schema: Cell<SchemaFacts>,
    /// The limits now set on the connection: bytes of a value, pages of the database.
    limits: Cell<(u32, u32)>,
    hasher: std::hash::RandomState,
}

impl Session {
    /// Opens or creates the file. The connection updates `meters` from now on.
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

    /// Replaces a connection whose settings a client has changed.
    pub(crate) fn reopen(&mut self) -> Result<(), rusqlite::Error> {
        // Open the new one first: closing the last connection would delete the WAL index.
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

    /// Sets the limits that SQLite itself enforces.
    pub(crate) fn limit(&self, bounds: Bounds) -> rusqlite::Result<()> {
        let (value_bytes, max_pages) = self.limits.get();
        if value_bytes != bounds.value_bytes {
            determinism::limit_values(&self.conn, bounds.value_bytes)?;
        }
        if max_pages != bounds.max_pages {
            // A value of 0 would only read the setting.
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

    /// The number that a PRAGMA returns.
    pub(crate) fn number(&self, pragma: &str) -> rusqlite::Result<u64> {
        let mode = self.authorizer.set_mode(Mode::Internal);
        let answer = self
            .conn
            .pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
        self.authorizer.set_mode(mode);
        Ok(answer?.unsigned_abs())
    }

    /// Size of the WAL if it held every page of the database.
    pub(crate) fn wal_bytes_of_all_pages(&self) -> rusqlite::Result<u64> {
        Ok(self.number("page_count")? * (self.number("page_size")? + FRAME_HEADER_BYTES))
    }

    /// Truncates the WAL to the last commit, which gives back what a rolled-back transaction wrote. No
    /// transaction may be open.
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

    /// Prepares a single statement. Texts with parameters, and texts seen before, stay in the statement cache
    /// if `may_keep`. Caching every literal INSERT would only evict the statements that recur.
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
            // On a second run from the cache, the authorizer would not be asked and could not notice this
            // again.
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

    /// Sets the format whose rules the next statements follow.
    pub(crate) fn use_rules(&self, rules: Rules) {
        if self.authorizer.set_v2(rules.is_v2()) {
            // Statements authorized under other rules must be authorized again.
            self.conn.flush_prepared_statement_cache();
        }
    }

    /// Reloads the planner's statistics after a rollback of ANALYZE. Otherwise they would stay in memory,
    /// where a restarted node does not have them.
    pub(crate) fn restore_statistics(&self) -> rusqlite::Result<()> {
        if self.authorizer.has_analyzed() {
            // This makes SQLite reload the schema and the statistics.
            self.internal("PRAGMA writable_schema=RESET")?;
            self.authorizer.forget_analyze();
        }
        Ok(())
    }

    /// Starts a request as if on a new connection. `asks_for_changes`: its text mentions `changes`.
    pub(crate) fn begin_request(
        &self,
        stamp: Stamp,
        asks_for_changes: bool,
    ) -> rusqlite::Result<()> {
        if asks_for_changes || self.schema()?.asks_for_changes {
            // SQLite has no call that resets `changes()`, but a DELETE of no rows does.
            self.internal("CREATE TEMP TABLE IF NOT EXISTS node_nothing(x)")?;
            self.internal("DELETE FROM temp.node_nothing WHERE 0")?;
        }
        determinism::begin_request(&self.conn, stamp);
        Ok(())
    }

    /// Facts about the current schema.
    fn schema(&self) -> rusqlite::Result<SchemaFacts> {
        if self.authorizer.take_schema_changed() {
            let mode = self.authorizer.set_mode(Mode::Internal);
            let facts = schema_facts(&self.conn);
            self.authorizer.set_mode(mode);
            self.schema.set(facts?);
        }
        Ok(self.schema.get())
    }

    /// Flushes full-text tables at the end of a request. They keep new terms in memory, and the layout of
    /// their index depends on when these are written. Flushing after every request makes the layout
    /// independent of how the log is divided into runs.
    pub(crate) fn end_request(&self) -> rusqlite::Result<()> {
        if self.conn.is_autocommit() {
            return Ok(());
        }
        let facts = self.schema()?;
        if facts.fts3 {
            // FTS3 and FTS4 merge only at COMMIT.
            self.internal("COMMIT")?;
            self.authorizer.forget_analyze();
        } else if facts.fts5 {
            self.internal("SAVEPOINT flush")?;
            self.internal("RELEASE flush")?;
        }
        Ok(())
    }

    /// Runs a statement on behalf of this crate.
    pub(crate) fn internal(&self, sql: &str) -> rusqlite::Result<()> {
        internal(&self.conn, &self.authorizer, sql)
    }
}

/// Properties of the schema that require special treatment of requests. They are found by searching the
/// schema's text, so there may be false positives.
#[derive(Clone, Copy, Debug, Default)]
struct SchemaFacts {
    /// A trigger, view or DEFAULT may call `changes()`.
    asks_for_changes: bool,
    /// There is a table of the module fts3 or fts4.
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

/// Runs a statement that clients may not run. Never from the cache: a client's identical text would find it
/// there, already authorized.
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

/// Makes SQLite create its temporary files (the copy of a VACUUM, large sorts) beside the database: that disk
/// is monitored, and a container may have no `/tmp`. The files are unlinked as soon as they are open. The
/// setting applies to the whole process.
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

/// A read-only connection without authorizer, for this crate's own reads.
pub(crate) fn open_plain(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(conn)
}
