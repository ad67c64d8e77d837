//! The query string: every key the API knows, checked before a request is routed.
//!
//! Switches are true by presence, whatever their value. Of a repeated key the first value counts. Unknown
//! keys are ignored, but their escapes are checked.
use std::borrow::Cow;
use std::time::Duration;

use node_contract::duration;
use serde::{Deserialize, Serialize};

/// Default of `timeout`: for requests to other nodes, the flush of the write queue, and readiness.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// Default of `linearizable_timeout`: how long a linearizable read waits for entries to be applied.
pub const DEFAULT_LINEARIZABLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Read consistency.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize,
)]
pub enum Level {
    /// Read the local database without contacting other nodes.
    None,
    /// Read on the node that believes itself leader; the default, also for unknown names.
    #[default]
    Weak,
    /// Read after a quorum confirmed the leader.
    Linearizable,
    /// Read through the log.
    Strong,
    /// Weak on a voter, none on a read-only node.
    Auto,
}

impl Level {
    /// Reads a level's name in any case. Unknown names are [`Level::Weak`].
    pub fn parse(name: &str) -> Self {
        let known = [
            ("none", Self::None),
            ("linearizable", Self::Linearizable),
            ("strong", Self::Strong),
            ("auto", Self::Auto),
        ];
        known
            .into_iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map_or(Self::Weak, |(_, level)| level)
    }
}

/// Format of a backup. The variants' order is part of the node protocol's encoding: append only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BackupFormat {
    /// The database file; the default, also for unknown names.
    #[default]
    Binary,
    /// SQL text.
    Sql,
    /// A copy of the database file in DELETE journal mode.
    Delete,
}

impl BackupFormat {
    /// Reads a format's name in any case. Unknown names are [`BackupFormat::Binary`].
    pub fn parse(name: &str) -> Self {
        if name.eq_ignore_ascii_case("sql") {
            Self::Sql
        } else if name.eq_ignore_ascii_case("delete") {
            Self::Delete
        } else {
            Self::Binary
        }
    }
}

/// Why a query string is refused. Each means HTTP 400 with the error's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParamError {
    /// A `%` without two hex digits; holds it with up to two characters after it.
    #[error("invalid URL escape {0:?}")]
    Escape(String),
    /// A `;` that is not escaped.
    #[error("invalid semicolon separator in query")]
    Semicolon,
    /// `freshness_strict` alone.
    #[error("freshness_strict requires freshness")]
    StrictWithoutFreshness,
    /// Not a duration; holds the key.
    #[error("{0} is not a valid duration")]
    Duration(&'static str),
    /// Not an integer; holds the key.
    #[error("{0} is not a valid integer")]
    Integer(&'static str),
    /// `q` without a value.
    #[error("query parameter not set")]
    EmptyQuery,
}

/// A parsed query string, with defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryParams {
    /// Indent JSON replies.
    pub pretty: bool,
    /// Report times in seconds.
    pub timings: bool,
    /// Rows as maps.
    pub associative: bool,
    /// Blobs as arrays of numbers.
    pub blob_array: bool,
    /// Column names as `<table>.<column>`.
    pub qualify_columns: bool,
    /// All statements in one transaction.
    pub transaction: bool,
    /// Read consistency; default [`Level::Weak`].
    pub level: Level,
    /// Longest time since the last contact with a leader for a read at level none; zero (the default) means
    /// unlimited.
    pub freshness: Duration,
    /// Also bound how far the applied log may lag.
    pub freshness_strict: bool,
    /// How long a linearizable read may wait; default [`DEFAULT_LINEARIZABLE_TIMEOUT`].
    pub linearizable_timeout: Duration,
    /// SQLite deadline of each statement; None or zero means none.
    pub db_timeout: Option<Duration>,
    /// How long to wait for other nodes, the write queue or readiness; default [`DEFAULT_TIMEOUT`].
    pub timeout: Duration,
    /// Further attempts at forwarding; default 0, negative numbers count as 0.
    pub retries: u32,
    /// Redirect to the leader instead of forwarding.
    pub redirect: bool,
    /// Put the write into the queue.
    pub queue: bool,
    /// Wait for the queue's flush, or for the transfer of leadership.
    pub wait: bool,
    /// Serve the request without a leader.
    pub noleader: bool,
    /// Report the Raft log index.
    pub raft_index: bool,
    /// Do not parse or rewrite the SQL.
    pub noparse: bool,
    /// Do not make `random()` and `randomblob()` deterministic.
    pub norwrandom: bool,
    /// Do not make time functions deterministic.
    pub norwtime: bool,
    /// SQL of a GET request; never empty.
    pub q: Option<String>,
    /// Format of a backup.
    pub fmt: BackupFormat,
    /// Vacuum the backup.
    pub vacuum: bool,
    /// Compress the backup with gzip.
    pub compress: bool,
    /// Tables of an SQL backup; empty means all.
    pub tables: Vec<String>,
    /// List non-voters too.
    pub nonvoters: bool,
    /// Version of the reply of `/nodes`; see [`QueryParams::nodes_v2`].
    pub ver: Option<String>,
    /// Readiness includes having caught up with the leader.
    pub sync: bool,
    /// Log entries to keep behind a snapshot; 0 (the default) means as configured, negative numbers count as
    /// 0.
    pub trailing_logs: u64,
    /// Sub-tree of `/status` or map of `/debug/vars`.
    pub key: Option<String>,
    /// Accepted without effect.
    pub bypass: bool,
}

impl Default for QueryParams {
    fn default() -> Self {
        Self {
            pretty: false,
            timings: false,
            associative: false,
            blob_array: false,
            qualify_columns: false,
            transaction: false,
            level: Level::default(),
            freshness: Duration::ZERO,
            freshness_strict: false,
            linearizable_timeout: DEFAULT_LINEARIZABLE_TIMEOUT,
            db_timeout: None,
            timeout: DEFAULT_TIMEOUT,
            retries: 0,
            redirect: false,
            queue: false,
            wait: false,
            noleader: false,
            raft_index: false,
            noparse: false,
            norwrandom: false,
            norwtime: false,
            q: None,
            fmt: BackupFormat::default(),
            vacuum: false,
            compress: false,
            tables: Vec::new(),
            nonvoters: false,
            ver: None,
            sync: false,
            trailing_logs: 0,
            key: None,
            bypass: false,
        }
    }
}

impl QueryParams {
    /// Reads the part of a URL after `?`, still escaped.
    ///
    /// # Errors
    /// See [`ParamError`].
    pub fn parse(raw_query: &str) -> Result<Self, ParamError> {
        let mut params = Self::default();
        if raw_query.is_empty() {
            return Ok(params);
        }
        let mut given = Given::default();
        for pair in raw_query.split('&').filter(|pair| !pair.is_empty()) {
            if pair.contains(';') {
                return Err(ParamError::Semicolon);
            }
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let key = unescape(key)?;
            let value = unescape(value)?;
            if let Some(switch) = params.switch(&key) {
                *switch = true;
            } else if let Some(slot) = given.slot(&key) {
                slot.get_or_insert(value);
            }
        }
        params.fill(given)?;
        Ok(params)
    }

    /// The client requests the second form of `/nodes`.
    pub fn nodes_v2(&self) -> bool {
        self.ver.as_deref() == Some("2")
    }

    /// The switch that a key sets.
    fn switch(&mut self, key: &str) -> Option<&mut bool> {
        Some(match key {
            "pretty" => &mut self.pretty,
            "timings" => &mut self.timings,
            "associative" => &mut self.associative,
            "blob_array" => &mut self.blob_array,
            "qualify_columns" => &mut self.qualify_columns,
            "transaction" => &mut self.transaction,
            "freshness_strict" => &mut self.freshness_strict,
            "redirect" => &mut self.redirect,
            "queue" => &mut self.queue,
            "wait" => &mut self.wait,
            "noleader" => &mut self.noleader,
            "raft_index" => &mut self.raft_index,
            "noparse" => &mut self.noparse,
            "norwrandom" => &mut self.norwrandom,
            "norwtime" => &mut self.norwtime,
            "vacuum" => &mut self.vacuum,
            "compress" => &mut self.compress,
            "nonvoters" => &mut self.nonvoters,
            "sync" => &mut self.sync,
            "bypass" => &mut self.bypass,
            _ => return None,
        })
    }

    /// Checks the values in the order in which rqlite reports errors, and stores them.
    fn fill(&mut self, given: Given<'_>) -> Result<(), ParamError> {
        if self.freshness_strict && given.freshness.is_none() {
            return Err(ParamError::StrictWithoutFreshness);
        }
        if let Some(timeout) = read_duration("timeout", given.timeout)? {
            self.timeout = timeout;
        }
        self.freshness = read_duration("freshness", given.freshness)?.unwrap_or(Duration::ZERO);
        self.db_timeout =
            read_duration("db_timeout", given.db_timeout)?.filter(|limit| !limit.is_zero());
        if let Some(timeout) = read_duration("linearizable_timeout", given.linearizable_timeout)? {
            self.linearizable_timeout = timeout;
        }
        self.retries = u32::try_from(read_integer("retries", given.retries)?).unwrap_or(u32::MAX);
        self.trailing_logs = read_integer("trailing_logs", given.trailing_logs)?;
        if given.q.as_deref() == Some("") {
            return Err(ParamError::EmptyQuery);
        }
        self.level = given
            .level
            .as_deref()
            .map_or(Level::default(), Level::parse);
        self.fmt = given
            .fmt
            .as_deref()
            .map_or(BackupFormat::default(), BackupFormat::parse);
        if let Some(tables) = given.tables {
            let names = tables
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty());
            self.tables = names.map(str::to_owned).collect();
        }
        self.q = given.q.map(Cow::into_owned);
        self.ver = given.ver.map(Cow::into_owned);
        self.key = given.key.map(Cow::into_owned);
        Ok(())
    }
}

/// Values as given, before they are checked.
#[derive(Default)]
struct Given<'q> {
    level: Option<Cow<'q, str>>,
    timeout: Option<Cow<'q, str>>,
    freshness: Option<Cow<'q, str>>,
    db_timeout: Option<Cow<'q, str>>,
    linearizable_timeout: Option<Cow<'q, str>>,
    retries: Option<Cow<'q, str>>,
    trailing_logs: Option<Cow<'q, str>>,
    q: Option<Cow<'q, str>>,
    fmt: Option<Cow<'q, str>>,
    tables: Option<Cow<'q, str>>,
    ver: Option<Cow<'q, str>>,
    key: Option<Cow<'q, str>>,
}

impl<'q> Given<'q> {
    fn slot(&mut self, key: &str) -> Option<&mut Option<Cow<'q, str>>> {
        Some(match key {
            "level" => &mut self.level,
            "timeout" => &mut self.timeout,
            "freshness" => &mut self.freshness,
            "db_timeout" => &mut self.db_timeout,
            "linearizable_timeout" => &mut self.linearizable_timeout,
            "retries" => &mut self.retries,
            "trailing_logs" => &mut self.trailing_logs,
            "q" => &mut self.q,
            "fmt" => &mut self.fmt,
            "tables" => &mut self.tables,
            "ver" => &mut self.ver,
            "key" => &mut self.key,
            _ => return None,
        })
    }
}

fn read_duration(
    key: &'static str,
    value: Option<Cow<'_, str>>,
) -> Result<Option<Duration>, ParamError> {
    value
        .map(|text| duration::parse(&text).map_err(|_| ParamError::Duration(key)))
        .transpose()
}

/// A signed 64-bit number; absent and negative ones are 0.
fn read_integer(key: &'static str, value: Option<Cow<'_, str>>) -> Result<u64, ParamError> {
    let Some(text) = value else { return Ok(0) };
    let number: i64 = text.parse().map_err(|_| ParamError::Integer(key))?;
    Ok(u64::try_from(number).unwrap_or(0))
}

/// Undoes the escapes of a path: `%41` is `A`. Bytes that are not UTF-8 become U+FFFD.
///
/// # Errors
/// An escape without two hex digits.
pub fn unescape_path(path: &str) -> Result<Cow<'_, str>, ParamError> {
    if !path.contains('%') {
        return Ok(Cow::Borrowed(path));
    }
    unescape_bytes(path.as_bytes(), b'+').map(Cow::Owned)
}

/// Undoes the escapes of a form: those of a path, and `+` is a blank.
fn unescape(text: &str) -> Result<Cow<'_, str>, ParamError> {
    let bytes = text.as_bytes();
    if !bytes.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Ok(Cow::Borrowed(text));
    }
    unescape_bytes(bytes, b' ').map(Cow::Owned)
}

/// `plus` is what a plus sign stands for.
fn unescape_bytes(bytes: &[u8], plus: u8) -> Result<String, ParamError> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [byte, after @ ..] = rest {
        rest = after;
        match (byte, after) {
            (b'%', [high, low, after @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                out.push(hex_digit(*high) << 4 | hex_digit(*low));
                rest = after;
            }
            (b'%', _) => {
                let end = after.len().min(2);
                let shown = [b"%", &after[..end]].concat();
                return Err(ParamError::Escape(
                    String::from_utf8_lossy(&shown).into_owned(),
                ));
            }
            (b'+', _) => out.push(plus),
            _ => out.push(*byte),
        }
    }
    Ok(match String::from_utf8(out) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

/// The value of a byte known to be a hex digit.
fn hex_digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        _ => byte.saturating_sub(b'A') + 10,
    }
}

#[cfg(test)]
mod tests;
