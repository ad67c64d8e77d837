//! Scanning SQL text: blanks, comments, words, identifiers, ends of statements.

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

pub(super) fn skip_space_and_comments(mut sql: &str) -> &str {
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

pub(super) fn identifier(sql: &str) -> Option<(&str, &str)> {
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

/// The text after the next `;` outside quotes and comments. A `;` inside a trigger's body counts, too. That
/// is harmless, because a PRAGMA cannot occur there.
pub(super) fn after_statement(sql: &str) -> &str {
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

/// A name as an SQL identifier in double quotes.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
