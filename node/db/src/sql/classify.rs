//! What a statement does, as far as its first keyword says: read or write, maintenance, VACUUM.
use super::{
    pragma::{PragmaClass, pragma_at},
    text::{after_statement, first_word, skip_blank, skip_space_and_comments},
};

/// VACUUM cannot run inside a transaction, and SQLite says so only when it runs.
pub(crate) fn is_vacuum(sql: &str) -> bool {
    first_word(sql).eq_ignore_ascii_case("vacuum")
}

/// Takes no longer than the database is large, however it is meant, for it has neither a recursion nor a join: it may run longer than
/// statements that do not say when they end.
pub(crate) fn is_maintenance(sql: &str) -> bool {
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

/// Prepared anew each time, as SQLite answers them from the schema that it knew when it prepared them.
pub(crate) fn is_about_schema(sql: &str) -> bool {
    let word = first_word(sql);
    word.eq_ignore_ascii_case("explain") || word.eq_ignore_ascii_case("pragma")
}

/// ALTER TABLE, which has a column of SQLite's own in some forms.
pub(crate) fn is_alter(sql: &str) -> bool {
    first_word(sql).eq_ignore_ascii_case("alter")
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(is_maintenance(sql), expected, "{sql}");
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
