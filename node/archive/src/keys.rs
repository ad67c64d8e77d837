//! The key file: the keys that decrypt an archive, and the one that encrypts.
use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use chacha20poly1305::{XChaCha20Poly1305, aead::KeyInit, aead::OsRng};
use thiserror::Error;
use zeroize::Zeroizing;

/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// Longest id of a key.
pub(crate) const MAX_ID_BYTES: usize = 64;
/// Most keys of one file: a new key each week for 19 years.
const MAX_KEYS: usize = 1000;
/// The line of a key file that allows objects that are not encrypted.
const ALLOW_PLAIN: &str = "allow-plain";

/// Keys by id. The first one encrypts, all decrypt. Its `Debug` shows ids only.
#[derive(Clone)]
pub struct Keys {
    keys: Vec<Key>,
    allow_plain: bool,
}

#[derive(Clone)]
struct Key {
    id: String,
    secret: Zeroizing<[u8; KEY_BYTES]>,
}

/// A key file that cannot be used. Never contains a key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyFileError {
    /// A line that is not a key.
    #[error("line {line}: {problem}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong, and what to write instead.
        problem: &'static str,
    },
    /// No key at all.
    #[error(
        "no key: write lines of the form \"<id> <base64 of 32 random bytes>\"; the first one encrypts"
    )]
    Empty,
    /// Too many lines.
    #[error("more than {MAX_KEYS} keys")]
    TooMany,
}

impl Keys {
    /// Reads a key file: a line `<id> <base64 of 32 bytes>` for each key, the first one encrypts. Empty
    /// lines and those that begin with `#` are ignored. The line `allow-plain` also accepts objects that
    /// are not encrypted.
    ///
    /// # Errors
    /// The first wrong line, by its number and without its content; no key at all; or more than 1000 keys.
    pub fn parse(text: &str) -> Result<Self, KeyFileError> {
        let mut found = Self {
            keys: Vec::new(),
            allow_plain: false,
        };
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line == ALLOW_PLAIN {
                found.allow_plain = true;
            } else if !line.is_empty() && !line.starts_with('#') {
                let key = found.key(line).map_err(|problem| KeyFileError::Line {
                    line: number + 1,
                    problem,
                })?;
                found.keys.push(key);
            }
            if found.keys.len() > MAX_KEYS {
                return Err(KeyFileError::TooMany);
            }
        }
        if found.keys.is_empty() {
            return Err(KeyFileError::Empty);
        }
        Ok(found)
    }

    fn key(&self, line: &str) -> Result<Key, &'static str> {
        let mut words = line.split_whitespace();
        let (Some(id), Some(secret), None) = (words.next(), words.next(), words.next()) else {
            return Err("a line is an id, a space and the key in base64");
        };
        let named = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if id.len() > MAX_ID_BYTES || !id.bytes().all(named) {
            return Err("an id is 1 to 64 letters, digits, '-', '_' or '.'");
        }
        let bytes = STANDARD.decode(secret).map(Zeroizing::new);
        let bytes = bytes.map_err(|_| "the key is not base64")?;
        let secret = <[u8; KEY_BYTES]>::try_from(bytes.as_slice()).map(Zeroizing::new);
        let secret =
            secret.map_err(|_| "a key has exactly 32 bytes (head -c 32 /dev/urandom | base64)")?;
        if secret.iter().all(|b| Some(b) == secret.first()) {
            return Err(
                "the key is one byte repeated: use 32 random bytes (head -c 32 /dev/urandom | base64)",
            );
        }
        if self.keys.iter().any(|k| k.id == id) {
            return Err("the id occurs twice");
        }
        if self.keys.iter().any(|k| *k.secret == *secret) {
            return Err("the same key occurs under another id");
        }
        Ok(Key {
            id: id.to_owned(),
            secret,
        })
    }

    /// A new random key as a line of a key file.
    pub fn new_line(id: &str) -> Zeroizing<String> {
        let key = Zeroizing::new(<[u8; KEY_BYTES]>::from(XChaCha20Poly1305::generate_key(
            OsRng,
        )));
        Zeroizing::new(format!("{id} {}", STANDARD.encode(*key)))
    }

    /// Id of the key that encrypts.
    pub fn encrypting_id(&self) -> &str {
        self.keys.first().map_or("", |k| &k.id)
    }

    /// Are objects accepted that are not encrypted?
    pub fn allows_plain(&self) -> bool {
        self.allow_plain
    }

    /// The cipher of this id.
    pub(crate) fn cipher(&self, id: &str) -> Option<XChaCha20Poly1305> {
        let key = self.keys.iter().find(|k| k.id == id)?;
        Some(XChaCha20Poly1305::new((&*key.secret).into()))
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.keys.iter().map(|k| &k.id))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_files_are_checked_and_never_shown() {
        let good = Keys::new_line("a");
        let other = Keys::new_line("b.2-x_Y");
        let secret = good.split(' ').nth(1).unwrap();
        let keys = Keys::parse(&format!(
            "# comment\n\n{}\n  {}\r\nallow-plain\n",
            *good, *other
        ))
        .unwrap();
        assert_eq!(keys.encrypting_id(), "a");
        assert!(keys.allows_plain());
        assert_eq!(format!("{keys:?}"), "{\"a\", \"b.2-x_Y\"}");
        let cases = [
            (String::new(), "no key"),
            ("allow-plain".into(), "no key"),
            ("a".into(), "line 1: a line is an id"),
            (format!("a {secret} x"), "line 1: a line is an id"),
            (format!("ä {secret}"), "line 1: an id is"),
            (format!("{} {secret}", "x".repeat(65)), "line 1: an id is"),
            ("#\na !!".into(), "line 2: the key is not base64"),
            ("a AAAA".into(), "line 1: a key has exactly 32"),
            (
                format!("a {}", STANDARD.encode([0; 32])),
                "line 1: the key is one byte",
            ),
            (
                format!("a {secret}\na {secret}"),
                "line 2: the id occurs twice",
            ),
            (format!("a {secret}\nb {secret}"), "line 2: the same key"),
        ];
        for (text, want) in cases {
            let got = Keys::parse(&text).unwrap_err().to_string();
            assert!(got.starts_with(want), "{text}: {got}");
            assert!(!got.contains(secret), "{got}");
        }
    }
}
