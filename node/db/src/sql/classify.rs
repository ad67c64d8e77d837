//! Classification of statements by their first keywords: read or write, maintenance, VACUUM.
use super::{
    pragma::{PragmaClass, pragma_at},
    text::{after_statement, first_word, skip_blank, skip_space_and_comments},
};

/// Whether the text is a VACUUM, which cannot run inside a transaction. SQLite notices that only when it
/// runs.
pub(crate) fn is_vacuum(sql: &str) -> bool {
    first_word(sql).eq_ignore_ascii_case("vacuum")
}

/// Whether the text is a maintenance statement: its run time is bounded by the size of the database, because
/// it contains no recursion and no join. It may take more steps than other statements.
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

/// Whether the text is certainly exactly one statement, by a cheap test: `;` only at the end, no comment at
/// the start. Other texts take the slower path that finds the statements one by one.
pub(crate) fn is_plain_single(sql: &str) -> bool {
    let body = sql.trim_end_matches([';', ' ', '\t', '\n', '\r']);
    let first = body.bytes().find(|b| !b.is_ascii_whitespace());
    matches!(first, Some(b) if b.is_ascii_alphabetic()) && !body.as_bytes().contains(&b';')
}

/// Whether a statement reads or writes, as far as its first keyword tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Certainly changes nothing.
    Read,
    /// Changes something, or cannot be prepared.
    Write,
    /// Only SQLite can decide.
    Unknown,
}

/// Whether the first statement reads or writes, by its first keyword.
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
            // If no write follows, a setting can be changed on a reader's connection as well.
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

/// Whether the text is an EXPLAIN or a PRAGMA. SQLite answers these from the schema known when they were
/// prepared, so they are prepared every time.
pub(crate) fn is_about_schema(sql: &str) -> bool {
    let word = first_word(sql);
    word.eq_ignore_ascii_case("explain") || word.eq_ignore_ascii_case("pragma")
}

/// Whether the text is an ALTER statement; some forms of ALTER TABLE have an internal column.
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
