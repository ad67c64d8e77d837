//! The authorizer: what SQL may do on which connection. The decision is pure; the state tells the executor why SQLite
//! refused to prepare a statement.
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, Ordering::Relaxed},
};

use rusqlite::{
    Connection, ffi,
    hooks::{AuthAction, AuthContext, Authorization, TransactionOperation},
};

use crate::sql::{PragmaClass, class};

/// Who is preparing statements now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mode {
    /// The crate itself: everything is allowed.
    Internal,
    /// A client's statement inside the transaction of a run.
    Batch,
    /// A client's statement in autocommit.
    Solo,
    /// A client's statement inside its own transaction.
    Transaction,
    /// A loaded script, which may control transactions.
    Script,
    /// A statement on a reader.
    Reader,
}

const MODES: [Mode; 6] = [
    Mode::Internal,
    Mode::Batch,
    Mode::Solo,
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
    /// Must run outside the run's transaction.
    NeedsSolo,
    /// `BEGIN` and `SAVEPOINT`.
    Begin,
    /// `COMMIT`.
    Commit,
    /// `ROLLBACK` and `RELEASE`.
    Rollback,
    /// ATTACH and DETACH.
    Attach,
    /// Temporary tables, views, triggers, indexes.
    Temporary,
    /// A PRAGMA of [`PragmaClass::Disallowed`].
    Pragma,
    /// A PRAGMA that changes something, on a reader.
    ReadOnly,
    /// A function whose answer differs from node to node.
    Function,
    /// `PRAGMA optimize` inside a transaction or a script, or behind EXPLAIN.
    Optimize,
}

const REFUSALS: [Refusal; 11] = [
    Refusal::None,
    Refusal::NeedsSolo,
    Refusal::Begin,
    Refusal::Commit,
    Refusal::Rollback,
    Refusal::Attach,
    Refusal::Temporary,
    Refusal::Pragma,
    Refusal::ReadOnly,
    Refusal::Function,
    Refusal::Optimize,
];

impl Refusal {
    /// The client's text; `None` where SQLite's own says it better.
    pub(crate) fn text(self) -> Option<&'static str> {
        match self {
            Self::None | Self::NeedsSolo | Self::Function => None,
            Self::Begin => Some(
                "BEGIN and SAVEPOINT are not allowed, use the transaction parameter of the request",
            ),
            Self::Commit => Some("cannot commit - no transaction is active"),
            Self::Rollback => Some("cannot rollback - no transaction is active"),
            Self::Attach => Some("ATTACH and DETACH are not allowed"),
            Self::Temporary => {
                Some("temporary tables, views, triggers and indexes are not allowed")
            }
            Self::Pragma => Some("disallowed pragma"),
            Self::ReadOnly => Some(READ_ONLY_TEXT),
            Self::Optimize => Some("PRAGMA optimize is not allowed here"),
        }
    }
}

/// What a query gets for trying to write.
pub(crate) const READ_ONLY_TEXT: &str = "attempt to change database via query operation";

#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Allow,
    /// Allow, but the connection must not be used for the next request.
    AllowDirty,
    Refuse(Refusal),
}

fn decide(mode: Mode, vacuum: bool, action: &AuthAction<'_>, database: Option<&str>) -> Decision {
    use Decision::{Allow, Refuse};
    if mode == Mode::Internal {
        return Allow;
    }
    match action {
        // VACUUM attaches a nameless file for itself, begins a transaction and so on; with a name it is VACUUM INTO.
        AuthAction::Attach { filename } if vacuum && filename.is_empty() => Allow,
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => Refuse(Refusal::Attach),
        // The same with a name that is not written out.
        AuthAction::Unknown {
            code: ffi::SQLITE_ATTACH | ffi::SQLITE_DETACH,
            ..
        } => Refuse(Refusal::Attach),
        _ if vacuum => Allow,
        AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } if mode == Mode::Script => {
            Allow
        }
        AuthAction::Transaction { operation } | AuthAction::Savepoint { operation, .. } => {
            Refuse(match operation {
                TransactionOperation::Begin => Refusal::Begin,
                TransactionOperation::Rollback | TransactionOperation::Release => Refusal::Rollback,
                _ => Refusal::Commit,
            })
        }
        AuthAction::CreateTempIndex { .. }
        | AuthAction::CreateTempTable { .. }
        | AuthAction::CreateTempTrigger { .. }
        | AuthAction::CreateTempView { .. } => Refuse(Refusal::Temporary),
        _ if database == Some("temp") && changes_database(action) => Refuse(Refusal::Temporary),
        AuthAction::Function { function_name }
            if function_name.eq_ignore_ascii_case("load_extension")
                || (mode != Mode::Reader
                    && function_name.eq_ignore_ascii_case("total_changes")) =>
        {
            Refuse(Refusal::Function)
        }
        AuthAction::Pragma {
            pragma_name,
            pragma_value,
        } => decide_pragma(mode, pragma_name, pragma_value.is_some()),
        _ => Allow,
    }
}

fn changes_database(action: &AuthAction<'_>) -> bool {
    changes_schema(action)
        || matches!(
            action,
            AuthAction::Insert { .. } | AuthAction::Update { .. } | AuthAction::Delete { .. }
        )
}

fn changes_schema(action: &AuthAction<'_>) -> bool {
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

fn decide_pragma(mode: Mode, name: &str, has_value: bool) -> Decision {
    use Decision::{Allow, AllowDirty, Refuse};
    let name = name.to_ascii_lowercase();
    match (class(&name, has_value), mode) {
        (PragmaClass::Reads, _) => Allow,
        // A dump of a database with virtual tables needs it, and a load is an administrator's act.
        (PragmaClass::Disallowed, Mode::Script) if name == "writable_schema" => AllowDirty,
        (PragmaClass::Disallowed, _) => Refuse(Refusal::Pragma),
        (_, Mode::Reader) => Refuse(Refusal::ReadOnly),
        // In Solo it was found in the text, and the connection is new.
        (PragmaClass::Fresh, Mode::Batch | Mode::Transaction | Mode::Script) => {
            Refuse(Refusal::Optimize)
        }
        (PragmaClass::Connection, Mode::Batch) => Refuse(Refusal::NeedsSolo),
        (PragmaClass::Connection, _) => AllowDirty,
        _ => Allow,
    }
}

/// State shared by a connection's authorizer and its user; used by one thread at a time.
#[derive(Debug)]
pub(crate) struct Guard {
    mode: AtomicU8,
    refusal: AtomicU8,
    dirty: AtomicBool,
    vacuum: AtomicBool,
    schema_changed: AtomicBool,
}

impl Guard {
    /// A guard in [`Mode::Internal`].
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            mode: AtomicU8::new(Mode::Internal as u8),
            refusal: AtomicU8::new(Refusal::None as u8),
            dirty: AtomicBool::new(false),
            vacuum: AtomicBool::new(false),
            schema_changed: AtomicBool::new(true),
        })
    }

    /// Makes `conn` ask this guard.
    pub(crate) fn watch(self: &Arc<Self>, conn: &mut Connection) -> rusqlite::Result<()> {
        let guard = Arc::clone(self);
        conn.authorizer(Some(move |context: AuthContext<'_>| {
            guard.authorize(&context)
        }))
    }

    fn authorize(&self, context: &AuthContext<'_>) -> Authorization {
        if changes_schema(&context.action) {
            self.schema_changed.store(true, Relaxed);
        }
        match decide(
            self.mode(),
            self.vacuum.load(Relaxed),
            &context.action,
            context.database_name,
        ) {
            Decision::Allow => Authorization::Allow,
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

    /// Returns the mode that was set before.
    pub(crate) fn set_mode(&self, mode: Mode) -> Mode {
        MODES[usize::from(self.mode.swap(mode as u8, Relaxed))]
    }

    /// The statement that runs now is a VACUUM.
    pub(crate) fn set_vacuum(&self, running: bool) {
        self.vacuum.store(running, Relaxed);
    }

    /// Whether the schema may be another one than at the last call.
    pub(crate) fn take_schema_changed(&self) -> bool {
        self.schema_changed.load(Relaxed) && self.schema_changed.swap(false, Relaxed)
    }

    /// The schema may have changed without a statement that says so.
    pub(crate) fn note_schema_change(&self) {
        self.schema_changed.store(true, Relaxed);
    }

    /// What was refused since the last call.
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

    /// A new connection is in place.
    pub(crate) fn set_clean(&self) {
        self.dirty.store(false, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enums_match_their_tables() {
        for (at, mode) in MODES.iter().enumerate() {
            assert_eq!(usize::from(*mode as u8), at);
        }
        for (at, refusal) in REFUSALS.iter().enumerate() {
            assert_eq!(usize::from(*refusal as u8), at);
        }
    }

    #[test]
    fn pragmas_by_mode() {
        use Decision::{Allow, AllowDirty, Refuse};
        let cases = [
            (
                Mode::Batch,
                "foreign_keys",
                true,
                Refuse(Refusal::NeedsSolo),
            ),
            (Mode::Solo, "foreign_keys", true, AllowDirty),
            (Mode::Transaction, "foreign_keys", true, AllowDirty),
            (
                Mode::Reader,
                "foreign_keys",
                true,
                Refuse(Refusal::ReadOnly),
            ),
            (Mode::Reader, "foreign_keys", false, Allow),
            (Mode::Batch, "user_version", true, Allow),
            (
                Mode::Reader,
                "user_version",
                true,
                Refuse(Refusal::ReadOnly),
            ),
            (Mode::Batch, "optimize", false, Refuse(Refusal::Optimize)),
            (Mode::Solo, "optimize", false, Allow),
            (
                Mode::Transaction,
                "optimize",
                false,
                Refuse(Refusal::Optimize),
            ),
            (Mode::Solo, "Journal_Mode", true, Refuse(Refusal::Pragma)),
            (Mode::Script, "writable_schema", true, AllowDirty),
            (Mode::Solo, "writable_schema", true, Refuse(Refusal::Pragma)),
            (Mode::Batch, "table_info", true, Allow),
            (Mode::Internal, "journal_mode", true, Allow),
        ];
        for (mode, name, has_value, expected) in cases {
            let action = AuthAction::Pragma {
                pragma_name: name,
                pragma_value: has_value.then_some("1"),
            };
            assert_eq!(
                decide(mode, false, &action, None),
                expected,
                "{mode:?} {name}"
            );
        }
    }
}
