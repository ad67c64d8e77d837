//! What can be told from SQL text without SQLite: blank texts, the first keyword, where statements begin, PRAGMA forms.

/// Skips white space, comments and stray semicolons.
pub(crate) fn skip_blank(mut sql: &str) -> &str {
    loop {
        let rest = skip_space_and_comments(sql).trim_start_matches(';');
        if rest.len() == sql.len() {
            return sql;
        }
        sql = rest;
    }
}

fn skip_space_and_comments(mut sql: &str) -> &str {
    loop {
        let trimmed = sql.trim_start_matches([' ', '\t', '\n', '\r', '\x0c', '\u{feff}']);
        sql = if let Some(comment) = trimmed.strip_prefix("--") {
            comment.find('\n').map_or("", |end| &comment[end..])
        } else if let Some(comment) = trimmed.strip_prefix("/*") {
            comment.find("*/").map_or("", |end| &comment[end + 2..])
        } else {
            return trimmed;
        };
    }
}

/// The first word of the first statement, as written; empty if there is none.
pub(crate) fn first_word(sql: &str) -> &str {
    let sql = skip_blank(sql);
    let end = sql
        .bytes()
        .position(|b| !(b.is_ascii_alphanumeric() || b == b'_'))
        .unwrap_or(sql.len());
    &sql[..end]
}

/// VACUUM cannot run inside a transaction, and SQLite says so only when it runs.
pub(crate) fn is_vacuum(sql: &str) -> bool {
    first_word(sql).eq_ignore_ascii_case("vacuum")
}

/// Takes no longer than the database is large, however it is meant, for it has neither a recursion nor a join: it may run longer than
/// statements that do not say when they end.
pub(crate) fn is_upkeep(sql: &str) -> bool {
    let word = first_word(sql);
    let is = |keyword: &str| word.eq_ignore_ascii_case(keyword);
    if is("create") {
        let rest = skip_space_and_comments(&skip_blank(sql)[word.len()..]);
        let second = first_word(rest);
        return ["index", "unique"]
            .iter()
            .any(|keyword| second.eq_ignore_ascii_case(keyword));
    }
    ["vacuum", "reindex", "analyze", "drop", "alter", "pragma"]
        .iter()
        .any(|keyword| is(keyword))
}

/// Certainly at most one statement and not blank, seen cheaply: no `;` but at the end, no comment at the start. Others
/// take the slow path that finds statements one after the other.
pub(crate) fn is_plain_single(sql: &str) -> bool {
    let body = sql.trim_end_matches([';', ' ', '\t', '\n', '\r']);
    let first = body.bytes().find(|b| !b.is_ascii_whitespace());
    matches!(first, Some(b) if b.is_ascii_alphabetic()) && !body.as_bytes().contains(&b';')
}

/// What the first keyword says about a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Certainly changes nothing.
    Read,
    /// Changes something, or cannot be prepared.
    Write,
    /// Only SQLite can tell.
    Unknown,
}

/// Reads or writes, by the first keyword of the first statement.
pub(crate) fn access(sql: &str) -> Access {
    let word = first_word(sql);
    let is = |keyword: &str| word.eq_ignore_ascii_case(keyword);
    if is("select") || is("values") || is("explain") {
        Access::Read
    } else if is("with") {
        Access::Unknown
    } else if is("pragma") {
        let start = skip_blank(sql);
        let alone = || skip_blank(after_statement(start)).is_empty();
        match pragma_at(start) {
            Some(pragma) if pragma.class(true) == PragmaClass::Reads => Access::Read,
            // Without a write beside it, what changes a connection can as well change a reader's.
            Some(pragma)
                if matches!(
                    pragma.class(true),
                    PragmaClass::NoEffect | PragmaClass::Connection
                ) && alone() =>
            {
                Access::Read
            }
            _ => Access::Write,
        }
    } else {
        Access::Write
    }
}

/// A PRAGMA as it stands in the text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pragma {
    /// Lower case, without schema and quotes.
    pub(crate) name: String,
    /// `= value` or `(value)` follows.
    pub(crate) has_value: bool,
}

impl Pragma {
    fn class(&self, v2: bool) -> PragmaClass {
        class(&self.name, self.has_value, v2)
    }
}

/// What running a PRAGMA does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PragmaClass {
    /// Only answers.
    Reads,
    /// Changes the database file, as other statements do.
    Durable,
    /// Changes the connection, so its effect must end with the request.
    Connection,
    /// Is accepted and does nothing: its effect would harm the node or its other clients, and no answer depends on it. The second
    /// format's; the first refuses them ([`PragmaClass::Disallowed`]) or replaces the connection.
    NoEffect,
    /// Its effect depends on what the connection did before; needs a new connection.
    Fresh,
    /// Would break durability, determinism or the other clients, and must not seem to have worked.
    Disallowed,
}

/// Takes the name in lower case. `v2`: by the rules of the second format.
pub(crate) fn class(name: &str, has_value: bool, v2: bool) -> PragmaClass {
    match name {
        "wal_checkpoint" => PragmaClass::Disallowed,
        "shrink_memory" if v2 => PragmaClass::NoEffect,
        "shrink_memory" => PragmaClass::Disallowed,
        "optimize" => PragmaClass::Fresh,
        "incremental_vacuum" => PragmaClass::Durable,
        // With an argument these still only answer.
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
        // SQLite takes no notice of the value.
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
        // busy_timeout, cache_size, cache_spill, checkpoint_fullfsync, count_changes, default_cache_size, empty_result_callbacks,
        // fullfsync, hard_heap_limit, journal_size_limit, locking_mode, max_page_count, mmap_size, page_size, soft_heap_limit, temp_store, threads; also what
        // SQLite does not know, which it ignores too.
        _ => PragmaClass::NoEffect,
    }
}

/// What to run in the place of a PRAGMA of [`PragmaClass::NoEffect`] that gives a row where it sets something: its reading form,
/// which says what holds. `PRAGMA journal_mode` is asked for in a way that SQLite does not take for a write. `None`: the text is
/// neither, or has other statements beside it.
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

/// Prepared anew each time, as SQLite answers them from the schema that it knew when it prepared them.
pub(crate) fn is_about_schema(sql: &str) -> bool {
    let word = first_word(sql);
    word.eq_ignore_ascii_case("explain") || word.eq_ignore_ascii_case("pragma")
}

/// ALTER TABLE, which has a column of SQLite's own in some forms.
pub(crate) fn is_alter(sql: &str) -> bool {
    first_word(sql).eq_ignore_ascii_case("alter")
}

/// Parses `PRAGMA [schema.]name [= v | (v)]` at the start of `sql`; the name may be quoted, blanks and comments anywhere.
fn pragma_at(sql: &str) -> Option<Pragma> {
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

fn identifier(sql: &str) -> Option<(&str, &str)> {
    let close = match sql.chars().next()? {
        quote @ ('"' | '\'' | '`') => quote,
        '[' => ']',
        _ => {
            let end = sql
                .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'))
                .unwrap_or(sql.len());
            return Some(sql.split_at(end)).filter(|(name, _)| !name.is_empty());
        }
    };
    let end = sql[1..].find(close)? + 1;
    Some((&sql[1..end], &sql[end + 1..]))
}

/// Words that need a closer look, found in one pass over any text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mentions {
    pub(crate) pragma: bool,
    pub(crate) changes: bool,
}

/// Looks for the words anywhere, also inside literals.
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

/// Whether any statement in `sql` is a PRAGMA that clients may not run (`disallowed pragma`).
///
/// Costs one pass over the text unless it mentions `pragma`. The authorizer catches what this misses (for example behind
/// `EXPLAIN`).
#[must_use]
pub fn disallowed_pragma(sql: &str) -> bool {
    disallowed_pragma_by(sql, true)
}

/// The same by the rules of one format.
pub(crate) fn disallowed_pragma_by(sql: &str, v2: bool) -> bool {
    any_pragma(sql, |pragma| pragma.class(v2) == PragmaClass::Disallowed)
}

/// Whether any statement in `sql` needs a connection without a past.
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

/// The text after the next `;` outside quotes and comments. Inside a trigger's body that is a statement too: harmless
/// here, as PRAGMA cannot stand there.
fn after_statement(sql: &str) -> &str {
    let mut rest = sql;
    while let Some(at) = rest.find([';', '\'', '"', '`', '[', '-', '/']) {
        let (mark, after) = rest[at..].split_at(1);
        let skipped = match mark {
            ";" => return after,
            "-" | "/" => skip_space_and_comments(&rest[at..]),
            "[" => after.find(']').map_or("", |end| &after[end + 1..]),
            quote => after.find(quote).map_or("", |end| &after[end + 1..]),
        };
        rest = if skipped.len() == rest.len() - at {
            after
        } else {
            skipped
        };
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn access_by_keyword() {
        let cases = [
            ("SELECT 1", Access::Read),
            (" ;/*c*/ -- d\n select 1", Access::Read),
            ("EXPLAIN INSERT INTO t VALUES(1)", Access::Read),
            ("WITH a AS (SELECT 1) SELECT * FROM a", Access::Unknown),
            ("PRAGMA table_info(t)", Access::Read),
            ("PRAGMA foreign_keys", Access::Read),
            ("PRAGMA foreign_keys=1", Access::Read),
            ("PRAGMA busy_timeout = 5000 ;", Access::Read),
            (
                "PRAGMA foreign_keys=1; INSERT INTO t VALUES(1)",
                Access::Write,
            ),
            ("PRAGMA user_version=1", Access::Write),
            ("PRAGMA optimize", Access::Write),
            ("SELECTX", Access::Write),
            ("", Access::Write),
            ("-- only a comment", Access::Write),
        ];
        for (sql, expected) in cases {
            assert_eq!(access(sql), expected, "{sql}");
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

    #[test]
    fn upkeep_by_keyword() {
        for (sql, expected) in [
            ("CREATE INDEX i ON t(x)", true),
            (" create /* c */ Unique index i ON t(x)", true),
            ("VACUUM", true),
            ("reindex", true),
            ("ANALYZE t", true),
            ("DROP TABLE t", true),
            ("ALTER TABLE t DROP COLUMN x", true),
            ("CREATE TABLE t AS WITH RECURSIVE c(x) AS (SELECT 1)", false),
            ("CREATE TABLE \"index\"(x)", false),
            ("CREATE INDEXx", false),
            ("INSERT INTO t SELECT 1", false),
            ("EXPLAIN VACUUM", false),
            ("", false),
        ] {
            assert_eq!(is_upkeep(sql), expected, "{sql}");
        }
    }

    #[test]
    fn plain_single_statements() {
        assert!(is_plain_single("INSERT INTO t VALUES(1)"));
        assert!(is_plain_single(" select 1 ; \n"));
        for sql in [
            "",
            " ",
            ";",
            "-- x",
            "/* */",
            "select 1; select 2",
            "insert into t values(';')",
        ] {
            assert!(!is_plain_single(sql), "{sql}");
        }
    }
}
