//! PRAGMAs in SQL text: what each does, and which ones clients may not run.
use super::text::{after_statement, identifier, skip_blank, skip_space_and_comments};

/// Words in a text that require a closer look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mentions {
    pub(crate) pragma: bool,
    pub(crate) changes: bool,
}

/// Finds the words anywhere, also inside literals, in one pass.
pub(crate) fn mentions(sql: &str) -> Mentions {
    let bytes = sql.as_bytes();
    let mut found = Mentions::default();
    // `g` is in both words and rare.
    for at in memchr::memchr2_iter(b'g', b'G', bytes) {
        let around = |before: usize, word: &[u8]| {
            at.checked_sub(before)
                .and_then(|from| bytes.get(from..from + word.len()))
                .is_some_and(|text| text.eq_ignore_ascii_case(word))
        };
        found.pragma |= around(3, b"pragma");
        found.changes |= around(4, b"changes");
    }
    found
}

/// A PRAGMA as written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pragma {
    /// Lower case, without schema and quotes.
    pub(crate) name: String,
    /// Followed by `= value` or `(value)`.
    pub(crate) has_value: bool,
}

impl Pragma {
    pub(super) fn class(&self, v2: bool) -> PragmaClass {
        class(&self.name, self.has_value, v2)
    }
}

/// What running a PRAGMA does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PragmaClass {
    /// Only returns information.
    Reads,
    /// Changes the database file, as other statements do.
    Durable,
    /// Changes the connection, so its effect must end with the request.
    Connection,
    /// Accepted without effect: the effect would harm the node or other clients, and no result depends on it.
    /// Second format only; the first format disallows these ([`PragmaClass::Disallowed`]) or replaces the
    /// connection.
    NoEffect,
    /// Its effect depends on what the connection did before, so it needs a new connection.
    Fresh,
    /// Would break durability, determinism or other clients, and must not appear to have worked.
    Disallowed,
}

/// The class of a PRAGMA; `name` is in lower case. `v2`: by the rules of the second format.
pub(crate) fn class(name: &str, has_value: bool, v2: bool) -> PragmaClass {
    match name {
        "wal_checkpoint" => PragmaClass::Disallowed,
        "shrink_memory" if v2 => PragmaClass::NoEffect,
        "shrink_memory" => PragmaClass::Disallowed,
        "optimize" => PragmaClass::Fresh,
        "incremental_vacuum" => PragmaClass::Durable,
        // With an argument these still only return information.
        "table_info" | "table_xinfo" | "table_list" | "index_list" | "index_info"
        | "index_xinfo" | "foreign_key_list" | "foreign_key_check" | "integrity_check"
        | "quick_check" => PragmaClass::Reads,
        _ if !has_value => PragmaClass::Reads,
        "user_version" | "application_id" => PragmaClass::Durable,
        _ if v2 => set_class(name),
        "journal_mode"
        | "wal_autocheckpoint"
        | "synchronous"
        | "query_only"
        | "locking_mode"
        | "page_size"
        | "max_page_count"
        | "mmap_size"
        | "journal_size_limit"
        | "temp_store"
        | "temp_store_directory"
        | "data_store_directory"
        | "busy_timeout"
        | "soft_heap_limit"
        | "hard_heap_limit"
        | "threads"
        | "schema_version"
        | "writable_schema"
        | "checkpoint_fullfsync"
        | "fullfsync" => PragmaClass::Disallowed,
        _ => PragmaClass::Connection,
    }
}

/// A PRAGMA with a value, by the rules of the second format.
fn set_class(name: &str) -> PragmaClass {
    match name {
        // The first four: rqlite refuses them with the same text.
        "journal_mode"
        | "wal_autocheckpoint"
        | "synchronous"
        | "query_only"
        | "writable_schema"
        | "schema_version"
        | "temp_store_directory"
        | "data_store_directory" => PragmaClass::Disallowed,
        // SQLite ignores the value.
        "collation_list" | "compile_options" | "data_version" | "database_list"
        | "freelist_count" | "function_list" | "module_list" | "page_count" | "pragma_list"
        | "stats" => PragmaClass::Reads,
        "analysis_limit"
        | "auto_vacuum"
        | "automatic_index"
        | "case_sensitive_like"
        | "cell_size_check"
        | "defer_foreign_keys"
        | "encoding"
        | "foreign_keys"
        | "full_column_names"
        | "ignore_check_constraints"
        | "legacy_alter_table"
        | "read_uncommitted"
        | "recursive_triggers"
        | "reverse_unordered_selects"
        | "secure_delete"
        | "short_column_names"
        | "trusted_schema" => PragmaClass::Connection,
        // busy_timeout, cache_size, cache_spill, checkpoint_fullfsync, count_changes, default_cache_size,
        // empty_result_callbacks, fullfsync, hard_heap_limit, journal_size_limit, locking_mode,
        // max_page_count, mmap_size, page_size, soft_heap_limit, temp_store, threads; also names that SQLite
        // does not know and ignores.
        _ => PragmaClass::NoEffect,
    }
}

/// The text to run instead of a PRAGMA of [`PragmaClass::NoEffect`] that returns a row when it sets a value:
/// its reading form, which returns the current value. `PRAGMA journal_mode` is replaced by a query that
/// SQLite does not consider a write. `None`: the text is neither, or contains other statements.
pub(crate) fn reading_form(sql: &str) -> Option<String> {
    let start = skip_blank(sql);
    let pragma = pragma_at(start)?;
    let answers = matches!(
        pragma.name.as_str(),
        "busy_timeout"
            | "hard_heap_limit"
            | "journal_size_limit"
            | "locking_mode"
            | "max_page_count"
            | "mmap_size"
            | "soft_heap_limit"
            | "threads"
    );
    let text = match pragma.has_value {
        true if answers => format!("PRAGMA {}", pragma.name),
        false if pragma.name == "journal_mode" => {
            "SELECT journal_mode FROM pragma_journal_mode".to_owned()
        }
        _ => return None,
    };
    skip_blank(after_statement(start))
        .is_empty()
        .then_some(text)
}

/// Parses `PRAGMA [schema.]name [= v | (v)]` at the start of `sql`; the name may be quoted, blanks and
/// comments anywhere.
pub(super) fn pragma_at(sql: &str) -> Option<Pragma> {
    let rest = sql
        .get(6..)
        .filter(|_| sql[..6].eq_ignore_ascii_case("pragma"))?;
    if rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
        return None;
    }
    let (mut name, mut rest) = identifier(skip_space_and_comments(rest))?;
    rest = skip_space_and_comments(rest);
    if let Some(after) = rest.strip_prefix('.') {
        (name, rest) = identifier(skip_space_and_comments(after))?;
        rest = skip_space_and_comments(rest);
    }
    Some(Pragma {
        name: name.to_ascii_lowercase(),
        has_value: rest.starts_with(['=', '(']),
    })
}

/// Whether any statement in `sql` is a PRAGMA that clients may not run (`disallowed pragma`).
///
/// Costs one pass over the text unless it mentions `pragma`. The authorizer catches what this misses (for
/// example behind `EXPLAIN`).
#[must_use]
pub fn disallowed_pragma(sql: &str) -> bool {
    disallowed_pragma_by(sql, true)
}

/// Like [`disallowed_pragma`], by the rules of one format.
pub(crate) fn disallowed_pragma_by(sql: &str, v2: bool) -> bool {
    any_pragma(sql, |pragma| pragma.class(v2) == PragmaClass::Disallowed)
}

/// Whether any statement in `sql` needs a new connection.
pub(crate) fn needs_fresh_connection(sql: &str) -> bool {
    any_pragma(sql, |pragma| pragma.class(true) == PragmaClass::Fresh)
}

fn any_pragma(sql: &str, wanted: impl Fn(&Pragma) -> bool) -> bool {
    if !mentions(sql).pragma {
        return false;
    }
    let mut rest = skip_blank(sql);
    while !rest.is_empty() {
        if pragma_at(rest).is_some_and(|pragma| wanted(&pragma)) {
            return true;
        }
        rest = skip_blank(after_statement(rest));
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mentioned_words() {
        let cases = [
            ("", false, false),
            ("g", false, false),
            ("PRAGMA x", true, false),
            ("select Changes()", false, true),
            ("gpragm a changes", false, true),
            ("exchanges of pragmatic", true, true),
            ("prag", false, false),
            ("chang", false, false),
        ];
        for (sql, pragma, changes) in cases {
            assert_eq!(mentions(sql), Mentions { pragma, changes }, "{sql}");
        }
    }

    #[test]
    fn disallowed_pragmas() {
        let refused = [
            "PRAGMA journal_mode=DELETE",
            "pragma main.journal_mode = wal",
            "  PRAGMA/*x*/synchronous(0)",
            "PRAGMA wal_checkpoint",
            "PRAGMA wal_checkpoint(TRUNCATE)",
            "-- hello\nPRAGMA \"query_only\" = 1",
            "SELECT 1; PRAGMA wal_autocheckpoint=5",
            "SELECT 'a;b' ; ; PRAGMA main . [Journal_Mode] = off",
            "SELECT 1 -- it's\n; PRAGMA journal_mode=off",
            "PRAGMA writable_schema=1",
        ];
        for sql in refused {
            assert!(disallowed_pragma(sql), "{sql}");
        }
        let fine = [
            "",
            "pragma",
            "PRAGMA journal_mode",
            "PRAGMA synchronous",
            "INSERT INTO t VALUES('; PRAGMA journal_mode=off')",
            "SELECT 1 /* ; PRAGMA journal_mode=off */",
            "SELECT [;PRAGMA journal_mode=off] FROM t",
            "PRAGMA foreign_keys=ON",
            "PRAGMA table_info(journal_mode)",
            "SELECT * FROM pragmas",
            "pragmajournal_mode=1",
            "ä PRAGMA journal_mode=off",
            "PRAGMA",
            "PRAGMÄ x",
        ];
        for sql in fine {
            assert!(!disallowed_pragma(sql), "{sql}");
        }
    }

    #[test]
    fn what_is_answered_in_the_place_of_a_pragma() {
        let cases = [
            ("PRAGMA busy_timeout=5000", Some("PRAGMA busy_timeout")),
            (
                " pragma main.Locking_Mode(exclusive); ",
                Some("PRAGMA locking_mode"),
            ),
            ("PRAGMA busy_timeout", None),
            ("PRAGMA cache_size=5", None),
            (
                "PRAGMA journal_mode;",
                Some("SELECT journal_mode FROM pragma_journal_mode"),
            ),
            ("PRAGMA journal_mode=wal", None),
            ("PRAGMA busy_timeout=5000; SELECT 1", None),
            ("SELECT 1", None),
        ];
        for (sql, expected) in cases {
            assert_eq!(reading_form(sql).as_deref(), expected, "{sql}");
        }
    }
}
