//! The authorizer's decisions as tables.
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

fn prepare(mode: Mode, v2: bool) -> PrepareContext {
    PrepareContext {
        mode,
        v2,
        vacuum: false,
        alters: false,
        writes: false,
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn pragmas_by_mode() {
    use Decision::{Allow, AllowDirty, Ignore, Refuse};
    use Mode::{Autocommit, Batch, Internal, Reader, Script, Transaction};
    let pragma = Refuse(Refusal::Pragma);
    // Mode, PRAGMA, whether it has a value, decision by the first format's rules, by the second's.
    let cases = [
        (
            Batch,
            "foreign_keys",
            true,
            Refuse(Refusal::NeedsAutocommit),
            Refuse(Refusal::NeedsAutocommit),
        ),
        (Autocommit, "foreign_keys", true, AllowDirty, AllowDirty),
        (Transaction, "foreign_keys", true, AllowDirty, AllowDirty),
        (Reader, "foreign_keys", true, AllowDirty, AllowDirty),
        (Reader, "foreign_keys", false, Allow, Allow),
        (Batch, "user_version", true, Allow, Allow),
        (
            Reader,
            "user_version",
            true,
            Refuse(Refusal::ReadOnly),
            Refuse(Refusal::ReadOnly),
        ),
        (
            Batch,
            "optimize",
            false,
            Refuse(Refusal::Optimize),
            Refuse(Refusal::Optimize),
        ),
        (Autocommit, "optimize", false, Allow, Allow),
        (
            Transaction,
            "optimize",
            false,
            Refuse(Refusal::Optimize),
            Refuse(Refusal::Optimize),
        ),
        (
            Reader,
            "optimize",
            false,
            Refuse(Refusal::ReadOnly),
            Refuse(Refusal::ReadOnly),
        ),
        (
            Autocommit,
            "Journal_Mode",
            true,
            Refuse(Refusal::Pragma),
            Refuse(Refusal::Pragma),
        ),
        (Script, "writable_schema", true, AllowDirty, AllowDirty),
        (
            Autocommit,
            "writable_schema",
            true,
            Refuse(Refusal::Pragma),
            Refuse(Refusal::Pragma),
        ),
        (Batch, "table_info", true, Allow, Allow),
        (Internal, "journal_mode", true, Allow, Allow),
        (Batch, "busy_timeout", true, Refuse(Refusal::Pragma), Ignore),
        (Reader, "cache_size", true, AllowDirty, Ignore),
        (
            Batch,
            "cache_size",
            true,
            Refuse(Refusal::NeedsAutocommit),
            Ignore,
        ),
        (
            Transaction,
            "locking_mode",
            true,
            Refuse(Refusal::Pragma),
            Ignore,
        ),
        (Script, "shrink_memory", false, pragma, Ignore),
    ];
    for (mode, name, has_value, first, second) in cases {
        let action = AuthAction::Pragma {
            pragma_name: name,
            pragma_value: has_value.then_some("1"),
        };
        let by = |v2| decide(prepare(mode, v2), &action, None);
        assert_eq!(by(false), first, "{mode:?} {name}");
        assert_eq!(by(true), second, "{mode:?} {name}");
    }
}

#[test]
fn alter_table_may_look_into_the_temporary_schema() {
    let update = AuthAction::Update {
        table_name: "sqlite_temp_master",
        column_name: "sql",
    };
    let refused = Decision::Refuse(Refusal::Temporary);
    let altering = |v2| PrepareContext {
        alters: true,
        ..prepare(Mode::Batch, v2)
    };
    assert_eq!(
        decide(altering(true), &update, Some("temp")),
        Decision::Allow
    );
    assert_eq!(decide(altering(false), &update, Some("temp")), refused);
    assert_eq!(
        decide(prepare(Mode::Batch, true), &update, Some("temp")),
        refused
    );
}

#[test]
fn writes_do_not_read_what_differs_from_node_to_node() {
    let read = |table_name| AuthAction::Read {
        table_name,
        column_name: "x",
    };
    let prepare = |mode, v2, writes| PrepareContext {
        writes,
        ..prepare(mode, v2)
    };
    let local = Decision::Refuse(Refusal::NodeLocal);
    let list = read("pragma_database_list");
    let cases = [
        (prepare(Mode::Batch, true, true), &list, "main", &local),
        (
            prepare(Mode::Batch, true, false),
            &list,
            "main",
            &Decision::Allow,
        ),
        (
            prepare(Mode::Batch, false, true),
            &list,
            "main",
            &Decision::Allow,
        ),
        (
            prepare(Mode::Reader, true, false),
            &list,
            "main",
            &Decision::Allow,
        ),
        (
            prepare(Mode::Autocommit, true, true),
            &read("sqlite_temp_master"),
            "temp",
            &local,
        ),
        (
            prepare(Mode::Autocommit, true, true),
            &read("pragma_table_info"),
            "main",
            &Decision::Allow,
        ),
    ];
    for (prepare, action, database, expected) in cases {
        assert_eq!(
            &decide(prepare, action, Some(database)),
            expected,
            "{prepare:?} {action:?}"
        );
    }
}
