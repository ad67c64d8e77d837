//! The authorizer: what SQL may do on which connection. The decision is a pure function; the state records
//! why SQLite refused to prepare a statement.
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, Ordering::Relaxed},
};

use rusqlite::{
    Connection, ffi,
    hooks::{AuthAction, AuthContext, Authorization, TransactionOperation},
};

use crate::{
    sql::pragma::{PragmaClass, class},
    sqlite::node_local,
};

/// On whose behalf statements are being prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mode {
    /// The crate itself: everything is allowed.
    Internal,
    /// A client's statement inside a shared transaction.
    Batch,
    /// A client's statement in autocommit.
    Autocommit,
    /// A client's statement inside its own transaction.
    Transaction,
    /// A loaded script, which may control transactions.
    Script,
    /// A statement on a reader connection.
    Reader,
}

const MODES: [Mode; 6] = [
    Mode::Internal,
    Mode::Batch,
    Mode::Autocommit,
    Mode::Transaction,
    Mode::Script,
    Mode::Reader,
];

/// Why a statement was not authorized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Refusal {
    /// Nothing was refused.
    None,
    /// The statement must run outside the shared transaction.
    NeedsAutocommit,
    /// `BEGIN` and `SAVEPOINT`.
    Begin,
    /// `COMMIT`.
    Commit,
    /// `ROLLBACK`.
    Rollback,
    /// ATTACH and DETACH.
    Attach,
    /// Temporary tables, views, triggers, indexes.
    Temporary,
    /// A PRAGMA of [`PragmaClass::Disallowed`].
    Pragma,
    /// A PRAGMA that changes something, on a reader connection.
    ReadOnly,
    /// A function whose result differs from node to node.
    Function,
    /// `PRAGMA optimize` inside a transaction or a script, or behind EXPLAIN.
    Optimize,
    /// A table whose content differs from node to node, read by a statement that writes.
    NodeLocal,
    /// `RELEASE` and `ROLLBACK TO`.
    Savepoint,
    /// `VACUUM INTO`.
    VacuumInto,
    /// `load_extension()`.
    Extension,
}

const REFUSALS: [Refusal; 15] = [
    Refusal::None,
    Refusal::NeedsAutocommit,
    Refusal::Begin,
    Refusal::Commit,
    Refusal::Rollback,
    Refusal::Attach,
    Refusal::Temporary,
    Refusal::Pragma,
    Refusal::ReadOnly,
    Refusal::Function,
    Refusal::Optimize,
    Refusal::NodeLocal,
    Refusal::Savepoint,
    Refusal::VacuumInto,
    Refusal::Extension,
];

impl Refusal {
    /// The error text for the client; `None` where SQLite's own text is better.
    pub(crate) fn text(self) -> Option<&'static str> {
        match self {
            Self::None | Self::NeedsAutocommit | Self::Function => None,
            Self::Begin => Some(
                "BEGIN and SAVEPOINT are not allowed, use the transaction parameter of the request",
            ),
            Self::Commit => Some("cannot commit - no transaction is active"),
            Self::Rollback => Some("cannot rollback - no transaction is active"),
            Self::Savepoint => Some("no such savepoint"),
            Self::Attach => Some(
                "ATTACH and DETACH are not allowed, load the other database's tables with /db/load",
            ),
            Self::VacuumInto => Some("VACUUM INTO is not allowed, use /db/backup?vacuum"),
            Self::Extension => Some("not authorized"),
            Self::Temporary => Some(
                "temporary tables, views, triggers and indexes are not allowed, use lasting ones",
            ),
            Self::Pragma => Some("disallowed pragma"),
            Self::ReadOnly => Some(READ_ONLY_TEXT),
            Self::Optimize => Some("PRAGMA optimize is not allowed here"),
            Self::NodeLocal => Some(NODE_LOCAL_TEXT),
        }
    }
}

/// The error of a query that tries to write.
pub(crate) const READ_ONLY_TEXT: &str = "attempt to change database via query operation";

/// The error of a write that reads node-local data.
pub(crate) const NODE_LOCAL_TEXT: &str =
    "a statement that writes cannot use a table or function that differs from node to node";

#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Allow,
    /// Allow, but replace the connection before the next request.
    AllowDirty,
    /// The PRAGMA is prepared as a statement that does nothing and returns nothing.
    Ignore,
    Refuse(Refusal),
}

/// The circumstances in which SQLite asks the authorizer.
#[derive(Clone, Copy, Debug)]
struct PrepareContext {
    mode: Mode,
    /// The rules of the second format apply; readers always have the newest rules.
    v2: bool,
    /// A VACUUM is running.
    vacuum: bool,
    /// The statement being prepared is an ALTER TABLE.
    alters: bool,
    /// The running statement writes.
    writes: bool,
}

fn decide(prepare: PrepareContext, action: &AuthAction<'_>, database: Option<&str>) -> Decision {
    use Decision::{Allow, Refuse};
    let PrepareContext { mode, vacuum, .. } = prepare;
    if mode == Mode::Internal {
        return Allow;
    }
    match action {
        // VACUUM attaches an unnamed file, begins a transaction and so on. With a file name it is VACUUM
        // INTO.
        AuthAction::Attach { filename } if vacuum && filename.is_empty() => Allow,
        AuthAction::Attach { .. } if vacuum => Refuse(Refusal::VacuumInto),
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => Refuse(Refusal::Attach),
        // ATTACH or DETACH with a name that is an expression.
        AuthAction::Unknown {
            code: ffi::SQLITE_ATTACH | ffi::SQLITE_DETACH,
            ..
        } => Refuse(Refusal::Attach),
        _ if vacuum => Allow,
        AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } if mode == Mode::Script => {
            Allow
        }
        AuthAction::Savepoint {
            operation: TransactionOperation::Rollback | TransactionOperation::Release,
            ..
        } => Refuse(Refusal::Savepoint),
        AuthAction::Transaction { operation } | AuthAction::Savepoint { operation, .. } => {
            Refuse(match operation {
                TransactionOperation::Begin => Refusal::Begin,
                TransactionOperation::Rollback => Refusal::Rollback,
                _ => Refusal::Commit,
            })
        }
        AuthAction::CreateTempIndex { .. }
        | AuthAction::CreateTempTable { .. }
        | AuthAction::CreateTempTrigger { .. }
        | AuthAction::CreateTempView { .. } => Refuse(Refusal::Temporary),
        // ALTER TABLE searches temporary views and triggers for the name; there are none.
        AuthAction::Update { table_name, .. }
            if prepare.v2 && prepare.alters && is_temp_schema(table_name) =>
        {
            Allow
        }
        _ if database == Some("temp") && changes_database(action) => Refuse(Refusal::Temporary),
        _ if prepare.writes && is_node_local(prepare, action, database) => {
            Refuse(Refusal::NodeLocal)
        }
        AuthAction::Function { function_name }
            if function_name.eq_ignore_ascii_case("load_extension") =>
        {
            Refuse(Refusal::Extension)
        }
        AuthAction::Function { function_name }
            if mode != Mode::Reader && function_name.eq_ignore_ascii_case("total_changes") =>
        {
            Refuse(Refusal::Function)
        }
        AuthAction::Pragma {
            pragma_name,
            pragma_value,
        } => decide_pragma(prepare, pragma_name, pragma_value.is_some()),
        _ => Allow,
    }
}

fn is_temp_schema(table: &str) -> bool {
    matches!(table, "sqlite_temp_master" | "sqlite_temp_schema")
}

/// Whether the action uses node-local data, which a statement that writes must not store.
fn is_node_local(prepare: PrepareContext, action: &AuthAction<'_>, database: Option<&str>) -> bool {
    let local = match action {
        AuthAction::Read { table_name, .. } => {
            database == Some("temp") || node_local::is_table(table_name)
        }
        AuthAction::Function { function_name } => node_local::is_function(function_name),
        AuthAction::CreateVtable { module_name, .. } => node_local::is_table(module_name),
        _ => false,
    };
    let on_writer = !matches!(prepare.mode, Mode::Internal | Mode::Reader);
    // The content of `temp` depends on what the connection did since the node started. ALTER TABLE itself
    // reads `temp` and `pragma_quick_check`; the client's part of its text contains no query.
    local && on_writer && prepare.v2 && !prepare.vacuum && !prepare.alters
}

fn changes_database(action: &AuthAction<'_>) -> bool {
    changes_schema(action)
        || matches!(
            action,
            AuthAction::Insert { .. } | AuthAction::Update { .. } | AuthAction::Delete { .. }
        )
}

fn changes_schema(action: &AuthAction<'_>) -> bool {
    // ALTER TABLE … SET NOT NULL asks for this action only.
    if let AuthAction::Update { table_name, .. } = action {
        return matches!(*table_name, "sqlite_master" | "sqlite_schema");
    }
    matches!(
        action,
        AuthAction::CreateTable { .. }
            | AuthAction::CreateIndex { .. }
            | AuthAction::CreateView { .. }
            | AuthAction::CreateTrigger { .. }
            | AuthAction::CreateVtable { .. }
            | AuthAction::DropTable { .. }
            | AuthAction::DropTrigger { .. }
            | AuthAction::DropView { .. }
            | AuthAction::AlterTable { .. }
    )
}

fn decide_pragma(prepare: PrepareContext, name: &str, has_value: bool) -> Decision {
    use Decision::{Allow, AllowDirty, Ignore, Refuse};
    let name = name.to_ascii_lowercase();
    match (class(&name, has_value, prepare.v2), prepare.mode) {
        (PragmaClass::Reads, _) => Allow,
        (PragmaClass::NoEffect, _) => Ignore,
        // The dump of a database with virtual tables needs it, and only administrators load scripts.
        (PragmaClass::Disallowed, Mode::Script) if name == "writable_schema" => AllowDirty,
        (PragmaClass::Disallowed, _) => Refuse(Refusal::Pragma),
        // The connection cannot write, and is replaced after the request.
        (PragmaClass::Connection, Mode::Reader) => AllowDirty,
        (_, Mode::Reader) => Refuse(Refusal::ReadOnly),
        // In autocommit mode the PRAGMA was found in the text beforehand, and the connection is new.
        (PragmaClass::Fresh, Mode::Batch | Mode::Transaction | Mode::Script) => {
            Refuse(Refusal::Optimize)
        }
        (PragmaClass::Connection, Mode::Batch) => Refuse(Refusal::NeedsAutocommit),
        (PragmaClass::Connection, _) => AllowDirty,
        _ => Allow,
    }
}

/// State shared by a connection's authorizer callback and the code that uses the connection. Used by one
/// thread at a time.
#[derive(Debug)]
pub(crate) struct AuthorizerState {
    mode: AtomicU8,
    refusal: AtomicU8,
    dirty: AtomicBool,
    vacuum: AtomicBool,
    schema_changed: AtomicBool,
    v2: AtomicBool,
    alters: AtomicBool,
    writes: AtomicBool,
    local: AtomicBool,
    analyzes: AtomicBool,
}

impl AuthorizerState {
    /// A state in [`Mode::Internal`].
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            mode: AtomicU8::new(Mode::Internal as u8),
            refusal: AtomicU8::new(Refusal::None as u8),
            dirty: AtomicBool::new(false),
            vacuum: AtomicBool::new(false),
            schema_changed: AtomicBool::new(true),
            v2: AtomicBool::new(false),
            alters: AtomicBool::new(false),
            writes: AtomicBool::new(false),
            local: AtomicBool::new(false),
            analyzes: AtomicBool::new(false),
        })
    }

    /// Installs the authorizer on `conn`.
    pub(crate) fn watch(self: &Arc<Self>, conn: &mut Connection) -> rusqlite::Result<()> {
        let authorizer = Arc::clone(self);
        conn.authorizer(Some(move |context: AuthContext<'_>| {
            authorizer.authorize(&context)
        }))
    }

    fn authorize(&self, context: &AuthContext<'_>) -> Authorization {
        if changes_schema(&context.action) {
            self.schema_changed.store(true, Relaxed);
        }
        match context.action {
            AuthAction::AlterTable { .. } => self.alters.store(true, Relaxed),
            AuthAction::Analyze { .. } => self.analyzes.store(true, Relaxed),
            _ => {}
        }
        let prepare = PrepareContext {
            mode: self.mode(),
            v2: self.v2.load(Relaxed),
            vacuum: self.vacuum.load(Relaxed),
            alters: self.alters.load(Relaxed),
            writes: self.writes.load(Relaxed),
        };
        if is_node_local(prepare, &context.action, context.database_name) {
            self.local.store(true, Relaxed);
        }
        match decide(prepare, &context.action, context.database_name) {
            Decision::Allow => Authorization::Allow,
            Decision::Ignore => Authorization::Ignore,
            Decision::AllowDirty => {
                self.dirty.store(true, Relaxed);
                Authorization::Allow
            }
            Decision::Refuse(refusal) => {
                self.refusal.store(refusal as u8, Relaxed);
                Authorization::Deny
            }
        }
    }

    pub(crate) fn mode(&self) -> Mode {
        MODES[usize::from(self.mode.load(Relaxed))]
    }

    /// Switches between the rules of the second format and those of the first. Returns whether they changed.
    pub(crate) fn set_v2(&self, v2: bool) -> bool {
        self.v2.swap(v2, Relaxed) != v2
    }

    pub(crate) fn is_v2(&self) -> bool {
        self.v2.load(Relaxed)
    }

    /// Resets what is recorded per statement, before the next one is prepared.
    pub(crate) fn start_statement(&self) {
        self.alters.store(false, Relaxed);
        self.local.store(false, Relaxed);
    }

    /// Whether the statement prepared last uses node-local data.
    pub(crate) fn is_node_local(&self) -> bool {
        self.local.load(Relaxed)
    }

    /// Records that a statement that writes starts or has ended.
    pub(crate) fn set_writes(&self, writes: bool) {
        self.writes.store(writes, Relaxed);
    }

    /// Whether a statement that writes is running under the rules of the second format.
    pub(crate) fn is_writing(&self) -> bool {
        self.writes.load(Relaxed) && self.v2.load(Relaxed)
    }

    /// Whether an ANALYZE was prepared since the statistics in memory were last known to match the database.
    pub(crate) fn has_analyzed(&self) -> bool {
        self.analyzes.load(Relaxed)
    }

    /// The statistics in memory match the database again.
    pub(crate) fn forget_analyze(&self) {
        self.analyzes.store(false, Relaxed);
    }

    /// Returns the previous mode.
    pub(crate) fn set_mode(&self, mode: Mode) -> Mode {
        MODES[usize::from(self.mode.swap(mode as u8, Relaxed))]
    }

    /// Records whether a VACUUM is running.
    pub(crate) fn set_vacuum(&self, running: bool) {
        self.vacuum.store(running, Relaxed);
    }

    /// Whether the schema may have changed since the last call.
    pub(crate) fn take_schema_changed(&self) -> bool {
        self.schema_changed.load(Relaxed) && self.schema_changed.swap(false, Relaxed)
    }

    /// Records a possible schema change that the authorizer does not see.
    pub(crate) fn note_schema_change(&self) {
        self.schema_changed.store(true, Relaxed);
    }

    /// The refusal since the last call, if any.
    pub(crate) fn take_refusal(&self) -> Refusal {
        if self.refusal.load(Relaxed) == Refusal::None as u8 {
            return Refusal::None;
        }
        REFUSALS[usize::from(self.refusal.swap(Refusal::None as u8, Relaxed))]
    }

    /// Whether the connection was changed in a way that must not outlive the request.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty.load(Relaxed)
    }

    /// A new connection has replaced the changed one.
    pub(crate) fn set_clean(&self) {
        self.dirty.store(false, Relaxed);
    }
}

#[cfg(test)]
mod tests;
