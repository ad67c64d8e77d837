//! The kind of statements: what reads and what writes, by their first word. For people who read the log;
//! nothing is decided by it.
use serde::Serialize;

/// How many statements read, and how many write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Statements that read.
    #[serde(skip_serializing_if = "is_zero")]
    pub reads: u64,
    /// Statements that write.
    #[serde(skip_serializing_if = "is_zero")]
    pub writes: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Counts statements of a request that may do both.
pub fn counts_of<'a>(statements: impl Iterator<Item = &'a str>) -> Counts {
    let mut counts = Counts::default();
    for sql in statements {
        if reads(sql) {
            counts.reads += 1;
        } else {
            counts.writes += 1;
        }
    }
    counts
}

fn reads(sql: &str) -> bool {
    let sql = without_leading_comments(sql);
    let mut words = sql
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty());
    let is =
        |word: &str, one_of: &[&str]| one_of.iter().any(|known| word.eq_ignore_ascii_case(known));
    match words.next() {
        Some(first) if is(first, &["SELECT", "VALUES", "EXPLAIN", "PRAGMA"]) => true,
        Some(first) if is(first, &["WITH"]) => {
            !words.any(|word| is(word, &["INSERT", "UPDATE", "DELETE", "REPLACE"]))
        }
        _ => false,
    }
}

fn without_leading_comments(mut sql: &str) -> &str {
    loop {
        sql = sql.trim_start_matches(|c: char| c.is_whitespace() || c == '(' || c == ';');
        let rest = if let Some(comment) = sql.strip_prefix("--") {
            comment.split_once('\n')
        } else if let Some(comment) = sql.strip_prefix("/*") {
            comment.split_once("*/")
        } else {
            return sql;
        };
        match rest {
            Some((_, rest)) => sql = rest,
            None => return "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_the_first_word() {
        for sql in [
            "SELECT 1",
            " select*from t",
            "-- a\n/* b */ VALUES(1)",
            "PRAGMA table_info(t)",
            "WITH x AS (SELECT 1) SELECT * FROM x",
            "EXPLAIN DELETE FROM t",
            "(SELECT 1)",
        ] {
            assert!(reads(sql), "{sql}");
        }
        for sql in [
            "INSERT INTO t VALUES(1)",
            "CREATE TABLE selects(x)",
            "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
            "SELECTED",
            "",
            "-- only",
            "/* open",
        ] {
            assert!(!reads(sql), "{sql}");
        }
        let counts = counts_of(["SELECT 1", "DELETE FROM t", "SELECT 2"].into_iter());
        assert_eq!((counts.reads, counts.writes), (2, 1));
    }
}
