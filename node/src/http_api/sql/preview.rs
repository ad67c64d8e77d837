//! Replaces calls of random and time functions in SQL text by values.
//!
//! It works on tokens and does not parse SQL: quoted text and comments are not changed, nor is anything that
//! is not clearly one of the calls.
use std::{fmt::Write as _, ops::Range, time::UNIX_EPOCH};

/// Julian day of the Unix epoch.
const EPOCH_JULIAN_DAY: f64 = 2_440_587.5;
const SECONDS_PER_DAY: f64 = 86_400.0;
/// Longest blob that replaces `randomblob(N)`. Longer calls are not replaced, so that a short statement does
/// not become a huge text.
const MAX_BLOB_BYTES: u64 = 1024;

/// Which calls are replaced, and the time that replaces them.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    pub(super) random: bool,
    pub(super) time: bool,
    pub(super) julian_day: f64,
}

impl Moment {
    pub(super) fn now(random: bool, time: bool) -> Self {
        let since = crate::clock::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            random,
            time,
            julian_day: EPOCH_JULIAN_DAY + since.as_secs_f64() / SECONDS_PER_DAY,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Word,
    Number,
    /// In any kind of quotes or brackets.
    Quoted,
    Sign(u8),
}

#[derive(Clone, Debug)]
struct Token {
    kind: Kind,
    at: Range<usize>,
}

/// The text with its calls replaced.
pub(super) fn preview(sql: &str, moment: &Moment, random: &mut dyn FnMut() -> u64) -> String {
    let tokens = tokens(sql);
    let mut out = String::with_capacity(sql.len());
    let mut copied = 0;
    let mut ordering = false;
    for at in 0..tokens.len() {
        let token = &tokens[at];
        if token.at.start < copied || token.kind != Kind::Word {
            continue;
        }
        let word = sql[token.at.clone()].to_ascii_lowercase();
        // The order of rows is not stored, so rqlite leaves random calls in ORDER BY.
        ordering = match word.as_str() {
            "by" => is_word(sql, tokens.get(at.wrapping_sub(1)), "order"),
            "limit" | "select" => false,
            _ => ordering,
        };
        let call = Call {
            sql,
            tokens: &tokens,
            at,
        };
        let replaced = match word.as_str() {
            "random" if moment.random && !ordering => call.random(random),
            "randomblob" if moment.random && !ordering => call.random_blob(random),
            "date" | "time" | "datetime" | "julianday" | "unixepoch" if moment.time => {
                call.time_argument(0, moment)
            }
            "strftime" if moment.time => call.time_argument(1, moment),
            _ => None,
        };
        if let Some((range, text)) = replaced {
            out.push_str(&sql[copied..range.start]);
            out.push_str(&text);
            copied = range.end;
        }
    }
    out.push_str(&sql[copied..]);
    out
}

/// A word that may be the name in a call.
struct Call<'a> {
    sql: &'a str,
    tokens: &'a [Token],
    at: usize,
}

type Replacement = (Range<usize>, String);

impl Call<'_> {
    fn kind(&self, after: usize) -> Option<Kind> {
        self.tokens.get(self.at + after).map(|token| token.kind)
    }

    /// From the word to the token `after` positions later.
    fn range(&self, after: usize) -> Range<usize> {
        self.tokens[self.at].at.start..self.tokens[self.at + after].at.end
    }

    fn random(&self, random: &mut dyn FnMut() -> u64) -> Option<Replacement> {
        let is_call =
            self.kind(1) == Some(Kind::Sign(b'(')) && self.kind(2) == Some(Kind::Sign(b')'));
        is_call.then(|| (self.range(2), (random() >> 1).to_string()))
    }

    fn random_blob(&self, random: &mut dyn FnMut() -> u64) -> Option<Replacement> {
        let is_call = self.kind(1) == Some(Kind::Sign(b'('))
            && self.kind(2) == Some(Kind::Number)
            && self.kind(3) == Some(Kind::Sign(b')'));
        if !is_call {
            return None;
        }
        let length: u64 = self.sql[self.tokens[self.at + 2].at.clone()].parse().ok()?;
        if length > MAX_BLOB_BYTES {
            return None;
        }
        let mut text = "x'".to_owned();
        for _ in 0..length.max(1) {
            // Writing to a String cannot fail.
            let _ = write!(text, "{:02X}", random() & 0xFF);
        }
        text.push('\'');
        Some((self.range(3), text))
    }

    /// Replaces `now` as the argument with this number, if all arguments before it are single tokens.
    fn time_argument(&self, number: usize, moment: &Moment) -> Option<Replacement> {
        if self.kind(1) != Some(Kind::Sign(b'(')) {
            return None;
        }
        if number == 1 && self.kind(3) != Some(Kind::Sign(b',')) {
            return None;
        }
        let at = 2 + 2 * number;
        let token = self.tokens.get(self.at + at)?;
        let text = self.sql[token.at.clone()].trim_matches(['\'', '"']);
        let ends = matches!(self.kind(at + 1), Some(Kind::Sign(b',' | b')')));
        let is_now =
            matches!(token.kind, Kind::Word | Kind::Quoted) && text.eq_ignore_ascii_case("now");
        (ends && is_now).then(|| (token.at.clone(), format!("{:.6}", moment.julian_day)))
    }
}

fn is_word(sql: &str, token: Option<&Token>, word: &str) -> bool {
    token.is_some_and(|token| {
        token.kind == Kind::Word && sql[token.at.clone()].eq_ignore_ascii_case(word)
    })
}

/// Splits SQL into tokens, without white space and comments.
fn tokens(sql: &str) -> Vec<Token> {
    let bytes = sql.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let rest = &bytes[at..];
        let run = |belongs: fn(&u8) -> bool| {
            rest.iter()
                .position(|byte| !belongs(byte))
                .unwrap_or(rest.len())
        };
        let (kind, length) = match byte {
            _ if byte.is_ascii_whitespace() => (None, 1),
            b'-' if rest.starts_with(b"--") => (None, run(|byte| *byte != b'\n')),
            b'/' if rest.starts_with(b"/*") => (
                None,
                rest[2..]
                    .windows(2)
                    .position(|end| end == b"*/")
                    .map_or(rest.len(), |end| end + 4),
            ),
            b'\'' | b'"' | b'`' => (Some(Kind::Quoted), quoted(rest, byte)),
            b'[' => (Some(Kind::Quoted), quoted(rest, b']')),
            b'0'..=b'9' => (
                Some(Kind::Number),
                run(|byte| byte.is_ascii_alphanumeric() || *byte == b'.'),
            ),
            _ if is_word_byte(&byte) => (Some(Kind::Word), run(is_word_byte)),
            _ => (Some(Kind::Sign(byte)), 1),
        };
        if let Some(kind) = kind {
            tokens.push(Token {
                kind,
                at: at..at + length,
            });
        }
        at += length;
    }
    tokens
}

/// Bytes above ASCII are letters, as in SQLite, so a token never ends within a character.
fn is_word_byte(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..)
}

/// Length of a quoted token with its quotes, to the end of the text if it is not closed. A doubled closing
/// quote begins another token.
fn quoted(rest: &[u8], close: u8) -> usize {
    rest[1..]
        .iter()
        .position(|byte| *byte == close)
        .map_or(rest.len(), |end| end + 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(sql: &str, random: bool, time: bool) -> String {
        let moment = Moment {
            random,
            time,
            julian_day: 2_460_000.25,
        };
        preview(sql, &moment, &mut || 20)
    }

    #[test]
    fn calls_are_replaced() {
        let cases = [
            ("INSERT INTO t VALUES(random())", "INSERT INTO t VALUES(10)"),
            ("select RANDOM ( ) , random()", "select 10 , 10"),
            (
                "select randomblob(3), randomblob(0)",
                "select x'141414', x'14'",
            ),
            (
                "select date('now'), time('NOW', '+1 day'), datetime(now)",
                "select date(2460000.250000), time(2460000.250000, '+1 day'), datetime(2460000.250000)",
            ),
            (
                "select strftime('%s', 'now'), julianday(\"now\")",
                "select strftime('%s', 2460000.250000), julianday(2460000.250000)",
            ),
            (
                "select x from t order by random() limit 1",
                "select x from t order by random() limit 1",
            ),
        ];
        for (sql, expected) in cases {
            assert_eq!(shown(sql, true, true), expected);
        }
    }

    #[test]
    fn everything_else_stays() {
        for sql in [
            "",
            "SELECT * FROM foo",
            "select 'random()', \"random()\", [random()], `random()`",
            "select 1 -- random()\n, /* random() */ 2",
            "select 'it''s random()'",
            "select myrandom(), random(1), random, randomblob(n), randomblob(4096)",
            "select date(), date('2020-01-01'), strftime('%s'), date('now' || ''), strftime('%s' || '', 'now')",
            "select 'open",
            "/* open",
            "sélect é",
        ] {
            assert_eq!(shown(sql, true, true), sql);
        }
    }

    #[test]
    fn each_kind_can_be_switched_off() {
        let sql = "select random(), date('now')";
        assert_eq!(
            shown(sql, false, true),
            "select random(), date(2460000.250000)"
        );
        assert_eq!(shown(sql, true, false), "select 10, date('now')");
    }

    proptest! {
        #[test]
        fn no_text_panics(sql in "([a-z]|random\\(\\)|date\\('now'\\)|['\"\\[\\]()/*,é-]| )*") {
            let _ = shown(&sql, true, true);
            prop_assert_eq!(shown(&sql, false, false), sql);
        }
    }
}
