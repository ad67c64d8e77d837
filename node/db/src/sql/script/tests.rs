//! Splitting a script must give the same statements as SQLite on the whole text.
use proptest::prelude::*;
use rusqlite::{Batch, Connection, fallible_iterator::FallibleIterator as _};

use super::*;

fn database() -> Connection {
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch("CREATE TABLE t(a, b); CREATE VIEW v AS SELECT * FROM t")
        .unwrap();
    conn
}

/// The statements that SQLite finds in one text, and the error that ends it.
fn prepared(conn: &Connection, text: &str, found: &mut Vec<String>) -> Option<String> {
    let mut batch = Batch::new(conn, text);
    loop {
        match batch.next() {
            Ok(None) => return None,
            Ok(Some(statement)) => {
                let sql = statement.expanded_sql().unwrap();
                // Semicolons before a statement belong to it only in the whole text.
                found.push(crate::sql::text::skip_blank(&sql).to_owned());
            }
            Err(error) => return Some(crate::sqlite::error::message(&error)),
        }
    }
}

fn whole(text: &str) -> (Vec<String>, Option<String>) {
    let mut found = Vec::new();
    let error = prepared(&database(), &format!("{text}\0"), &mut found);
    (found, error)
}

fn cut(text: &str) -> (Vec<String>, Option<String>) {
    let conn = database();
    let mut found = Vec::new();
    let mut statements = Statements::new(text.as_bytes(), usize::MAX);
    while let Some(statement) = statements.next().unwrap() {
        let error = prepared(&conn, statement, &mut found);
        if error.is_some() {
            return (found, error);
        }
    }
    (found, None)
}

fn pieces(text: &str) -> Vec<String> {
    let mut statements = Statements::new(text.as_bytes(), usize::MAX);
    let mut all = Vec::new();
    while let Some(piece) = statements.next().unwrap() {
        all.push(piece.trim_end_matches('\0').to_owned());
    }
    all
}

#[test]
fn cuts() {
    let cases: &[(&str, &[&str])] = &[
        ("", &[]),
        ("SELECT 1", &["SELECT 1"]),
        ("SELECT 1;SELECT 2;", &["SELECT 1;", "SELECT 2;"]),
        ("SELECT ';';x", &["SELECT ';';", "x"]),
        ("SELECT 'it''s;';x", &["SELECT 'it''s;';", "x"]),
        (
            "SELECT \";\", `;`, [;];x",
            &["SELECT \";\", `;`, [;];", "x"],
        ),
        ("SELECT 1 -- a;b\n;x", &["SELECT 1 -- a;b\n;", "x"]),
        ("SELECT 1 /* a;b */;x", &["SELECT 1 /* a;b */;", "x"]),
        ("SELECT 1 /*/;*/;x", &["SELECT 1 /*/;*/;", "x"]),
        ("SELECT 1 /**;**/;x", &["SELECT 1 /**;**/;", "x"]),
        ("SELECT 2-1/1;x", &["SELECT 2-1/1;", "x"]),
        ("SELECT $a(;);x", &["SELECT $a(;);", "x"]),
        ("SELECT $a::b(;);x", &["SELECT $a::b(;);", "x"]),
        ("SELECT $a( ;);x", &["SELECT $a( ;", ");", "x"]),
        ("SELECT :;x", &["SELECT :;", "x"]),
        (
            "CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT CASE 1 WHEN 1 THEN 2 END; SELECT 1; END;x",
            &[
                "CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT CASE 1 WHEN 1 THEN 2 END; SELECT 1; END;",
                "x",
            ],
        ),
        (
            "\u{feff}explain /* */ query -- ;\n plan create temp trigger g; b; end ;x",
            &[
                "\u{feff}explain /* */ query -- ;\n plan create temp trigger g; b; end ;",
                "x",
            ],
        ),
        (
            "CREATE TABLE trigger; a; END; x",
            &["CREATE TABLE trigger;", " a;", " END;", " x"],
        ),
        ("SELECT 1;\0SELECT 2;", &["SELECT 1;"]),
        ("SELECT 1\0;SELECT 2;", &["SELECT 1"]),
    ];
    for (text, expected) in cases {
        assert_eq!(pieces(text), *expected, "{text}");
        // The same when the text comes byte by byte.
        let mut scanner = Scanner::new();
        let mut ends = Vec::new();
        for (at, byte) in text.bytes().take_while(|byte| *byte != 0).enumerate() {
            if scanner.scan(&[byte]).is_some() {
                ends.push(at + 1);
                scanner = Scanner::new();
            }
        }
        let lengths = expected.iter().scan(0, |sum, piece| {
            *sum += piece.len();
            Some(*sum)
        });
        let last = expected.last().is_some_and(|piece| !piece.ends_with(';'));
        assert_eq!(
            ends,
            lengths
                .take(expected.len() - usize::from(last))
                .collect::<Vec<_>>(),
            "{text}"
        );
    }
}

#[test]
fn one_statement_has_a_limit() {
    let mut statements = Statements::new("SELECT 1;SELECT 11;".as_bytes(), 9);
    assert!(statements.next().unwrap().is_some());
    assert!(matches!(statements.next(), Err(ScriptError::TooLong)));
    for (text, fits) in [
        ("", true),
        ("SELECT 1;SELECT 1;", true),
        ("SELECT 11;", false),
        ("SELECT ';", true),
        ("SELECT '; ", false),
    ] {
        assert_eq!(check_lengths(text.as_bytes(), 9).is_ok(), fits, "{text}");
    }
    assert!(check_lengths(&b"SELECT 1;\0SELECT 11111"[..], 9).is_ok());
}

#[test]
fn utf8_is_seen_across_pieces() {
    let text = "ä".repeat(PIECE_BYTES);
    for from in 0..2 {
        let text = format!("{}{text}", "x".repeat(from));
        assert!(is_utf8(text.as_bytes()).unwrap());
        let bytes = &text.as_bytes()[..text.len() - 1];
        assert!(!is_utf8(bytes).unwrap(), "a cut end");
        let mut bytes = text.into_bytes();
        bytes[PIECE_BYTES + 1] = b'x';
        assert!(!is_utf8(bytes.as_slice()).unwrap());
    }
    assert!(is_utf8(&b""[..]).unwrap());
}

#[test]
fn what_closes_a_text() {
    for (text, closing) in [
        ("CREATE VIEW v AS SELECT 1", ""),
        ("CREATE VIEW v AS SELECT 1 -- c", "\n"),
        ("CREATE VIEW v AS SELECT 1 -- c\n", ""),
        ("CREATE VIEW v AS SELECT 1 /* c", "*/"),
        ("CREATE VIEW v AS SELECT '--'", ""),
    ] {
        let mut scanner = Scanner::new();
        assert_eq!(scanner.scan(text.as_bytes()), None);
        assert_eq!(scanner.closing(), closing, "{text}");
    }
    for (text, found) in [
        ("a INTEGER PRIMARY KEY AutoIncrement)", true),
        ("a INTEGER PRIMARY KEY autoincrement", true),
        ("\"autoincrement\" INTEGER PRIMARY KEY)", false),
        ("autoincrements", false),
        ("a /* autoincrement */ 'autoincrement'", false),
    ] {
        let mut scanner = Scanner::new();
        assert_eq!(scanner.scan(text.as_bytes()), None);
        assert_eq!(scanner.saw_autoincrement(), found, "{text}");
    }
}

/// Words whose combinations are difficult to split.
const SOUP: &[&str] = &[
    "SELECT 1",
    "SELECT",
    "1",
    ";",
    ";",
    ";",
    "'",
    "''",
    "';'",
    "\"",
    "\"a\"",
    "[",
    "]",
    "`",
    "--",
    "--\n",
    "\n",
    "/*",
    "*/",
    "/",
    "*",
    "-",
    "CREATE",
    "TRIGGER",
    "TEMP",
    "TEMPORARY",
    "EXPLAIN",
    "QUERY",
    "PLAN",
    "BEGIN",
    "END",
    "END;",
    "CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1;",
    "CREATE TABLE x(a)",
    "INSERT INTO t VALUES(1,2)",
    "$a(",
    ")",
    "(",
    ":",
    "::",
    ":a",
    "@b",
    "#",
    "x'",
    "x'00'",
    "CASE WHEN 1 THEN 2 END",
    "\u{feff}",
    "é",
    "\0",
    "PRAGMA user_version",
    " ",
    "\t",
    "CREATE TRIGGER h INSTEAD OF INSERT ON v BEGIN INSERT INTO t VALUES(';', 1); SELECT 2; END",
    ",",
    "AS",
    "COMMIT",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Splitting first gives the same statements, and the same error after them, as SQLite on the whole text.
    #[test]
    fn cutting_changes_nothing(
        words in prop::collection::vec((prop::sample::select(SOUP), any::<bool>()), 1..25),
    ) {
        let text: String = words.iter().map(|(word, blank)| format!("{word}{}", if *blank { " " } else { "" })).collect();
        prop_assert_eq!(cut(&text), whole(&text), "{:?}", text);
    }
}
