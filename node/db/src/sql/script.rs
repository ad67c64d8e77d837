//! Finds the ends of the statements of an SQL script, with bounded memory and without SQLite.
//!
//! The rules are those of SQLite's tokenizer and of `sqlite3_complete`. A split later than SQLite's is
//! harmless, because SQLite prepares the text and reports how much of it one statement took. A split must
//! never be earlier than SQLite's.
use std::io::{self, Read};

use memchr::{memchr, memchr2};

/// Maximum length of a statement in a script. Every node holds several copies in memory: the text, SQLite's
/// copy, the values. A value that came by a request has at most 32 MiB, twice that as a literal; a row may
/// contain several.
pub(crate) const MAX_STATEMENT_BYTES: usize = 256 << 20;
/// Bytes read from the file at a time.
const PIECE_BYTES: usize = 64 << 10;
/// A buffer that has grown beyond this is shrunk after the statement.
const KEPT_BYTES: usize = 1 << 20;
/// Length of the longest keyword that matters.
const WORD_BYTES: usize = 13;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Where in the text the scanner is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Between,
    Word,
    /// In a quoted text that ends with this byte. A doubled quote starts a new quoted text at once, which is
    /// equivalent.
    Quote(u8),
    LineComment,
    /// `true` after a `*`.
    BlockComment(bool),
    /// After one `-` or `/`.
    Dash,
    Slash,
    /// In a parameter; `true` after its first letter.
    Parameter(bool),
    /// After a `:` inside a parameter.
    Colon(bool),
    /// In `$name(...)`, which may contain a semicolon.
    Bracket,
}

/// The statement's first keywords.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Head {
    Start,
    Explain,
    ExplainQuery,
    ExplainPlan,
    Create,
    CreateTemporary,
    Ordinary,
    Trigger,
    TriggerSemicolon,
    TriggerEnd,
}

enum Token<'a> {
    Word(&'a [u8]),
    Semicolon,
    Other,
}

/// Scans a text piece by piece.
#[derive(Debug)]
pub(crate) struct Scanner {
    place: Place,
    head: Head,
    word: [u8; WORD_BYTES],
    /// Length of the word, which may exceed what is stored of it.
    word_len: usize,
    autoincrement: bool,
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || byte >= 0x80
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

impl Scanner {
    pub(crate) fn new() -> Self {
        Self {
            place: Place::Between,
            head: Head::Start,
            word: [0; WORD_BYTES],
            word_len: 0,
            autoincrement: false,
        }
    }

    /// Continues through `bytes`. `Some(n)`: the first `n` bytes, up to and including a semicolon, end a
    /// statement. The next call continues after them.
    pub(crate) fn scan(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            // Most bytes of a large script are in literals.
            let skipped = match self.place {
                Place::Quote(close) => memchr(close, rest).unwrap_or(rest.len()),
                Place::LineComment => memchr(b'\n', rest).unwrap_or(rest.len()),
                Place::BlockComment(_) => memchr2(b'*', b'/', rest).unwrap_or(rest.len()),
                _ => 0,
            };
            if skipped > 0 {
                at += skipped;
                if matches!(self.place, Place::BlockComment(_)) {
                    self.place = Place::BlockComment(false);
                }
                continue;
            }
            at += 1;
            if self.take(rest[0]) {
                return Some(at);
            }
        }
        None
    }

    /// What must precede a semicolon that ends the statement, if the text ends here.
    pub(crate) fn closing(&self) -> &'static str {
        match self.place {
            Place::LineComment => "\n",
            Place::BlockComment(_) => "*/",
            _ => "",
        }
    }

    /// Whether the keyword AUTOINCREMENT occurred.
    pub(crate) fn saw_autoincrement(&mut self) -> bool {
        self.end_word();
        self.autoincrement
    }

    /// Returns `true` when the byte ends a statement.
    fn take(&mut self, byte: u8) -> bool {
        match self.place {
            Place::Between => return self.begin(byte),
            Place::Word if is_word_byte(byte) => self.push(byte),
            Place::Word => {
                self.end_word();
                return self.begin(byte);
            }
            Place::Quote(close) if byte == close => self.place = Place::Between,
            Place::LineComment if byte == b'\n' => self.place = Place::Between,
            Place::Quote(_) | Place::LineComment => {}
            Place::BlockComment(true) if byte == b'/' => self.place = Place::Between,
            Place::BlockComment(_) => self.place = Place::BlockComment(byte == b'*'),
            Place::Dash if byte == b'-' => self.place = Place::LineComment,
            Place::Slash if byte == b'*' => self.place = Place::BlockComment(false),
            Place::Dash | Place::Slash => {
                self.token(&Token::Other);
                return self.begin(byte);
            }
            Place::Parameter(_) if is_word_byte(byte) => self.place = Place::Parameter(true),
            Place::Parameter(true) if byte == b'(' => self.place = Place::Bracket,
            Place::Parameter(named) if byte == b':' => self.place = Place::Colon(named),
            Place::Colon(named) if byte == b':' => self.place = Place::Parameter(named),
            Place::Colon(_) if is_word_byte(byte) => self.place = Place::Parameter(true),
            Place::Bracket if byte == b')' => self.place = Place::Between,
            Place::Bracket if !is_space(byte) => {}
            Place::Parameter(_) | Place::Colon(_) | Place::Bracket => return self.begin(byte),
        }
        false
    }

    fn begin(&mut self, byte: u8) -> bool {
        self.place = Place::Between;
        self.place = match byte {
            b';' => return self.token(&Token::Semicolon),
            _ if is_space(byte) => return false,
            b'-' => Place::Dash,
            b'/' => Place::Slash,
            b'\'' | b'"' | b'`' => Place::Quote(byte),
            b'[' => Place::Quote(b']'),
            b'$' | b'@' | b'#' | b':' => Place::Parameter(false),
            _ if is_word_byte(byte) => {
                self.push(byte);
                return false;
            }
            _ => Place::Between,
        };
        if !matches!(self.place, Place::Dash | Place::Slash) {
            self.token(&Token::Other);
        }
        false
    }

    fn push(&mut self, byte: u8) {
        self.place = Place::Word;
        if let Some(slot) = self.word.get_mut(self.word_len) {
            *slot = byte.to_ascii_lowercase();
        }
        self.word_len += 1;
        if self.word_len == BYTE_ORDER_MARK.len() && self.word.starts_with(BYTE_ORDER_MARK) {
            // SQLite treats the byte order mark as a blank.
            self.word_len = 0;
            self.place = Place::Between;
        }
    }

    fn end_word(&mut self) {
        let len = std::mem::take(&mut self.word_len);
        if len > 0 {
            let word = self.word;
            self.token(&Token::Word(word.get(..len).unwrap_or_default()));
        }
    }

    fn token(&mut self, token: &Token<'_>) -> bool {
        use Head::{
            Create, CreateTemporary, Explain, ExplainPlan, ExplainQuery, Ordinary, Start, Trigger,
            TriggerEnd, TriggerSemicolon,
        };
        let word: &[u8] = match token {
            Token::Word(word) => word,
            Token::Semicolon => {
                let inside = matches!(self.head, Trigger | TriggerSemicolon);
                self.head = if inside { TriggerSemicolon } else { Start };
                return !inside;
            }
            Token::Other => b"",
        };
        self.autoincrement |= word == b"autoincrement";
        self.head = match (self.head, word) {
            (Start, b"explain") => Explain,
            (Explain, b"query") => ExplainQuery,
            (ExplainQuery, b"plan") => ExplainPlan,
            (Start | Explain | ExplainPlan, b"create") => Create,
            (Create, b"temp" | b"temporary") => CreateTemporary,
            (Create | CreateTemporary, b"trigger") => Trigger,
            (TriggerSemicolon, b"end") => TriggerEnd,
            (Trigger | TriggerSemicolon | TriggerEnd, _) => Trigger,
            _ => Ordinary,
        };
        false
    }
}

/// Why reading a statement failed.
#[derive(Debug)]
pub(crate) enum ScriptError {
    Io(io::Error),
    NotUtf8,
    /// A statement exceeds the limit.
    TooLong,
}

/// Reads a script statement by statement. Like SQLite, it stops at the first zero byte.
pub(crate) struct Statements<R> {
    input: R,
    limit_bytes: usize,
    piece: Vec<u8>,
    /// How much of `piece` has been used.
    used: usize,
    statement: Vec<u8>,
    ended: bool,
}

impl<R: Read> Statements<R> {
    pub(crate) fn new(input: R, limit_bytes: usize) -> Self {
        Self {
            input,
            limit_bytes,
            piece: Vec::new(),
            used: 0,
            statement: Vec::new(),
            ended: false,
        }
    }

    /// The next text that contains a whole statement. It ends with a zero byte, so that SQLite does not copy
    /// it.
    pub(crate) fn next(&mut self) -> Result<Option<&str>, ScriptError> {
        self.statement.clear();
        self.statement.shrink_to(KEPT_BYTES);
        let mut scanner = Scanner::new();
        loop {
            if self.used == self.piece.len() && !self.refill().map_err(ScriptError::Io)? {
                break;
            }
            let left = &self.piece[self.used..];
            let end = scanner.scan(left);
            let taken = end.unwrap_or(left.len());
            if self.statement.len() + taken > self.limit_bytes {
                return Err(ScriptError::TooLong);
            }
            self.statement.extend_from_slice(&left[..taken]);
            self.used += taken;
            if end.is_some() {
                break;
            }
        }
        if self.statement.is_empty() {
            return Ok(None);
        }
        self.statement.push(0);
        std::str::from_utf8(&self.statement)
            .map(Some)
            .map_err(|_| ScriptError::NotUtf8)
    }

    fn refill(&mut self) -> io::Result<bool> {
        self.used = 0;
        self.piece.clear();
        if !self.ended {
            let limit = PIECE_BYTES as u64;
            self.input
                .by_ref()
                .take(limit)
                .read_to_end(&mut self.piece)?;
            if let Some(zero) = memchr(0, &self.piece) {
                self.piece.truncate(zero);
                self.ended = true;
            }
        }
        Ok(!self.piece.is_empty())
    }
}

/// Checks for statements over the limit, without keeping any in memory.
pub(crate) fn check_lengths(mut input: impl Read, limit_bytes: usize) -> Result<(), ScriptError> {
    let mut scanner = Scanner::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut len = 0;
    loop {
        let read = input.read(&mut piece).map_err(ScriptError::Io)?;
        let mut left = piece.get(..read).unwrap_or_default();
        let zero = memchr(0, left);
        left = &left[..zero.unwrap_or(left.len())];
        let ends = read == 0 || zero.is_some();
        while !left.is_empty() {
            let end = scanner.scan(left);
            let (taken, rest) = left.split_at(end.unwrap_or(left.len()));
            len += taken.len();
            if len > limit_bytes {
                return Err(ScriptError::TooLong);
            }
            if end.is_some() {
                len = 0;
                scanner = Scanner::new();
            }
            left = rest;
        }
        if ends {
            return Ok(());
        }
    }
}

/// Whether all of `input` is UTF-8.
pub(crate) fn is_utf8(mut input: impl Read) -> io::Result<bool> {
    let mut piece = Vec::with_capacity(PIECE_BYTES + 4);
    loop {
        let kept = piece.len();
        let read = input
            .by_ref()
            .take(PIECE_BYTES as u64)
            .read_to_end(&mut piece)?;
        if read == 0 {
            return Ok(kept == 0);
        }
        match std::str::from_utf8(&piece) {
            Ok(_) => piece.clear(),
            // A character may be split at the end of a piece.
            Err(error) if error.error_len().is_none() => {
                piece.drain(..error.valid_up_to());
            }
            Err(_) => return Ok(false),
        }
    }
}

#[cfg(test)]
mod tests;
