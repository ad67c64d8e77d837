//! Node-local data: what SQLite reports about the node instead of the database. A statement that writes must
//! not store it, or the copies would differ.

use rusqlite::{Connection, functions::FunctionFlags};

/// PRAGMAs (as table-valued functions) whose rows do not depend on the database's content alone, or come in
/// an order that depends on when the node started. The others (`table_info`, `index_list`,
/// `foreign_key_list`, `user_version`, …) are the same on every node.
const PRAGMAS: &[&str] = &[
    "analysis_limit",
    "auto_vacuum",
    "automatic_index",
    "busy_timeout",
    "cache_size",
    "cache_spill",
    "cell_size_check",
    "checkpoint_fullfsync",
    "collation_list",
    "compile_options",
    "count_changes",
    "data_version",
    "database_list",
    "default_cache_size",
    "defer_foreign_keys",
    "empty_result_callbacks",
    "foreign_key_check",
    "foreign_keys",
    "freelist_count",
    "full_column_names",
    "fullfsync",
    "function_list",
    "hard_heap_limit",
    "ignore_check_constraints",
    "integrity_check",
    "journal_mode",
    "journal_size_limit",
    "legacy_alter_table",
    "lock_status",
    "locking_mode",
    "max_page_count",
    "mmap_size",
    "module_list",
    "optimize",
    "page_count",
    "pragma_list",
    "query_only",
    "quick_check",
    "read_uncommitted",
    "recursive_triggers",
    "reverse_unordered_selects",
    "schema_version",
    "secure_delete",
    "short_column_names",
    "soft_heap_limit",
    "stats",
    "synchronous",
    "table_list",
    "temp_store",
    "threads",
    "trusted_schema",
    "wal_autocheckpoint",
    "wal_checkpoint",
    "writable_schema",
];

/// Virtual tables about pages, statements and memory.
const TABLES: &[&str] = &[
    "bytecode",
    "dbstat",
    "sqlite_dbpage",
    "sqlite_memstat",
    "sqlite_stmt",
    "tables_used",
];

/// Whether a table of this name, or of a module of this name, is node-local.
pub(crate) fn is_table(name: &str) -> bool {
    let is = |known: &&str| known.eq_ignore_ascii_case(name);
    match name.get(..7) {
        Some(prefix) if prefix.eq_ignore_ascii_case("pragma_") => PRAGMAS
            .iter()
            .any(|known| known.eq_ignore_ascii_case(&name[7..])),
        _ => TABLES.iter().any(is),
    }
}

/// Functions that report how the program was built. `sqlite_version()` and `sqlite_source_id()` are replaced
/// instead, see [`install`].
const FUNCTIONS: &[&str] = &[
    "sqlite_compileoption_get",
    "sqlite_compileoption_used",
    "fts5_source_id",
];

/// Whether the result of a function depends on the build of the program.
pub(crate) fn is_function(name: &str) -> bool {
    FUNCTIONS
        .iter()
        .any(|known| known.eq_ignore_ascii_case(name))
}

/// Replaces the functions that report SQLite's version. Clients call them when they connect, so reads still
/// get the version. A write fails, because it would store different values while a cluster is upgraded. The
/// authorizer does not see these functions in a column's DEFAULT. `is_writing` tells whether the running
/// statement writes.
pub(crate) fn install(
    conn: &Connection,
    is_writing: impl Fn() -> bool + Clone + Send + std::panic::UnwindSafe + 'static,
) -> rusqlite::Result<()> {
    for name in ["sqlite_version", "sqlite_source_id"] {
        let value: String = conn.query_row(&format!("SELECT {name}()"), [], |row| row.get(0))?;
        let is_writing = is_writing.clone();
        let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_INNOCUOUS;
        conn.create_scalar_function(name, 0, flags, move |_| {
            if is_writing() {
                let text = format!(
                    "a statement that writes cannot use {name}(): it differs from node to node"
                );
                return Err(rusqlite::Error::UserFunctionError(text.into()));
            }
            Ok(value.clone())
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_that_differ_from_node_to_node() {
        for name in [
            "pragma_database_list",
            "PRAGMA_cache_size",
            "dbstat",
            "Sqlite_Stmt",
        ] {
            assert!(is_table(name), "{name}");
        }
        for name in [
            "pragma_table_info",
            "pragma_user_version",
            "pragma_",
            "t",
            "",
            "prägma_x",
            "json_each",
        ] {
            assert!(!is_table(name), "{name}");
        }
    }
}
