//! What SQLite's parser says of a text, without a database.
use rusqlite::{
    Batch, Connection,
    fallible_iterator::FallibleIterator as _,
    hooks::{AuthAction, AuthContext, Authorization},
};

/// SQLite's message if the first statement of a text is none. Whether its tables and columns exist is no
/// question of syntax. Nothing is run.
pub fn syntax_error(sql: &str) -> Option<String> {
    let mut conn = Connection::open_in_memory().ok()?;
    conn.authorizer(Some(only_parse)).ok()?;
    let error = Batch::new(&conn, sql).next().err()?;
    let text = match error {
        rusqlite::Error::SqlInputError { msg, .. } => msg,
        rusqlite::Error::SqliteFailure(_, Some(msg)) => msg,
        _ => return None,
    };
    let of_the_parser = text.ends_with(": syntax error")
        || text.starts_with("unrecognized token: ")
        || text == "incomplete input";
    of_the_parser.then_some(text)
}

/// Refuses what takes effect while it is compiled, or takes long to compile. The whole statement has been
/// parsed by then.
fn only_parse(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Select
        | AuthAction::Pragma { .. }
        | AuthAction::Attach { .. }
        | AuthAction::Detach { .. } => Authorization::Deny,
        _ => Authorization::Allow,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_no_statement() {
        for (sql, error) in [
            ("SELEC 1", "near \"SELEC\": syntax error"),
            ("INSERT INTO t VALUES(1", "incomplete input"),
            ("CREATE TABLE t(a,)", "near \")\": syntax error"),
            ("SELECT 1 'a' 2", "near \"2\": syntax error"),
            ("SELECT 'open", "unrecognized token: \"'open\""),
        ] {
            assert_eq!(syntax_error(sql).as_deref(), Some(error), "{sql}");
        }
        for sql in [
            "",
            " -- nothing",
            "SELECT random(), nosuch(x) FROM t WHERE y = ?",
            "INSERT INTO t(a) VALUES(:a) RETURNING id",
            "UPDATE t SET a = 1; SELEC",
            "CREATE VIRTUAL TABLE v USING nosuch(a)",
            "PRAGMA soft_heap_limit=1",
            "ATTACH 'x' AS x",
            "BEGIN",
            "WITH a AS (SELECT * FROM t) SELECT * FROM a, a",
        ] {
            assert_eq!(syntax_error(sql), None, "{sql}");
        }
    }
}
