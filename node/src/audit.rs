//! The audit log (`-audit-log`): one JSON line for each request on the HTTP port, and for each request of a
//! client or an administrator on the inter-node port: who, from where, what kind, result. Never SQL, values,
//! or passwords.
//!
//! Lines go through a queue of limited length to a thread that writes them; what does not fit is counted, and
//! the log says so. Nothing waits for the log.
mod kind;
mod writer;

use std::{
    fmt, io,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use serde::Serialize;

pub use self::kind::{Counts, counts_of};
use self::writer::Writer;
use crate::{
    auth::{Access, Perm},
    clock,
    metrics::Metrics,
    store_types::{Credentials, StoreError},
};

/// Longest name that is written; the rest is left out.
const MAX_NAME_CHARS: usize = 128;

/// The part of a line that is known before a request is served.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Entry {
    /// `http` or `internode`.
    pub port: &'static str,
    /// Path of the endpoint, or the name of the request between nodes; empty if there is none.
    pub action: &'static str,
    /// Method of HTTP.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub method: String,
    /// Permissions that it needs.
    pub permissions: Vec<&'static str>,
    /// Name of the user, as given; null for anonymous callers.
    pub user: Option<String>,
    /// Address of the connection.
    pub remote: Option<SocketAddr>,
    /// Name of the node that has forwarded it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// Address of the client of that node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<SocketAddr>,
    /// Name of the node that joins or is removed, and the like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

impl Entry {
    /// Sets the user.
    pub fn set_user(&mut self, credentials: Option<&Credentials>) {
        self.user = credentials
            .filter(|given| !given.username.is_empty())
            .map(|given| given.username.chars().take(MAX_NAME_CHARS).collect());
    }

    /// Sets the node that the request is about.
    pub fn set_target(&mut self, name: &str) {
        self.target = Some(name.chars().take(MAX_NAME_CHARS).collect());
    }

    /// Sets the permissions.
    pub fn set_permissions(&mut self, perms: &[Perm]) {
        self.permissions = perms.iter().map(|perm| perm.name()).collect();
    }
}

/// One line.
#[derive(Debug, Serialize)]
struct Line<'a> {
    time: String,
    node: &'a str,
    #[serde(flatten)]
    entry: &'a Entry,
    /// `allowed`, `anyone` (everybody may, so no password was looked at), `denied`, `busy`, or `none` if the
    /// request was refused before that.
    access: &'static str,
    #[serde(flatten)]
    counts: Counts,
    /// Statements that failed.
    #[serde(skip_serializing_if = "is_zero")]
    failed: u64,
    /// Status of HTTP; absent between nodes, and if the client has gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// Class of the error; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    duration_ms: f64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

const NO_ACCESS: u8 = 0;

/// The part of a line that becomes known while a request is served.
#[derive(Debug, Default)]
pub struct Notes {
    access: AtomicU8,
    status: AtomicU16,
    reads: AtomicU64,
    writes: AtomicU64,
    failed: AtomicU64,
    /// Position in [`CLASSES`] and one.
    error: AtomicU8,
}

/// Classes of errors.
const CLASSES: [&str; 17] = [
    "unauthorized",
    "too_many_logins",
    "bad_request",
    "not_found",
    "method_not_allowed",
    "timeout",
    "conflict",
    "too_large",
    "no_leader",
    "not_leader",
    "not_open",
    "not_ready",
    "unknown_outcome",
    "refused",
    "unavailable",
    "internal",
    "statement",
];

impl Notes {
    /// Whether the caller was allowed.
    pub fn access(&self, access: Access) {
        let number = match access {
            Access::Allowed => 1,
            Access::Anyone => 2,
            Access::Denied => 3,
            Access::Busy(_) => 4,
        };
        self.access.store(number, Relaxed);
    }

    /// Statements that were sent.
    pub fn statements(&self, counts: Counts) {
        self.reads.fetch_add(counts.reads, Relaxed);
        self.writes.fetch_add(counts.writes, Relaxed);
    }

    /// Statements that failed.
    pub fn failed(&self, number: usize) {
        self.failed.fetch_add(number as u64, Relaxed);
        if number > 0 {
            self.error("statement");
        }
    }

    /// Status of HTTP, which also stands for a class if no error was noted.
    pub fn status(&self, status: u16) {
        self.status.store(status, Relaxed);
        let class = match status {
            ..=399 => return,
            401 | 403 => "unauthorized",
            404 => "not_found",
            405 => "method_not_allowed",
            408 => "timeout",
            409 => "conflict",
            413 => "too_large",
            429 => "too_many_logins",
            400..=499 => "bad_request",
            503 => "unavailable",
            _ => "internal",
        };
        if self.error.load(Relaxed) == 0 {
            self.error(class);
        }
    }

    /// A call failed as a whole.
    pub fn store_error(&self, error: &StoreError) {
        self.error(match error {
            StoreError::LeaderNotFound => "no_leader",
            StoreError::NotLeader => "not_leader",
            StoreError::Unauthorized(_) => "unauthorized",
            StoreError::NotOpen => "not_open",
            StoreError::NotReady => "not_ready",
            StoreError::Unknown(_) => "unknown_outcome",
            StoreError::Refused(_) => "refused",
            StoreError::TooLarge(_) => "too_large",
        });
    }

    /// The class of the error.
    pub fn error(&self, class: &'static str) {
        let at = CLASSES.iter().position(|known| *known == class);
        let number = at.and_then(|at| u8::try_from(at + 1).ok());
        self.error.store(number.unwrap_or_default(), Relaxed);
    }

    fn error_class(&self) -> Option<&'static str> {
        let number = usize::from(self.error.load(Relaxed));
        CLASSES.get(number.checked_sub(1)?).copied()
    }
}

/// The log.
#[derive(Clone)]
pub struct Audit {
    writer: Arc<Writer>,
    node: Arc<str>,
}

impl fmt::Debug for Audit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Audit").finish_non_exhaustive()
    }
}

impl Audit {
    /// Opens the log; `stderr` is standard error, anything else is a file, to which lines are appended. A new
    /// file has the mode 0600.
    ///
    /// # Errors
    /// The file cannot be opened for writing.
    pub fn open(target: &Path, node: &str, metrics: Arc<Metrics>) -> io::Result<Self> {
        Ok(Self {
            writer: Arc::new(Writer::start(target, metrics)?),
            node: node.into(),
        })
    }

    /// Begins a line. It is written when the result is dropped.
    pub fn begin(&self, entry: Entry) -> Pending {
        Pending {
            audit: self.clone(),
            entry,
            notes: Arc::default(),
            started: Instant::now(),
            finished: false,
        }
    }

    /// Waits until what was logged so far is written, for a moment at most.
    pub fn flush(&self) {
        self.writer.flush();
    }
}

/// A line that is being made. If it is dropped before it is finished, the client has gone, and it says so.
#[derive(Debug)]
pub struct Pending {
    audit: Audit,
    entry: Entry,
    notes: Arc<Notes>,
    started: Instant,
    finished: bool,
}

impl Pending {
    /// The part of the line that becomes known while the request is served.
    pub fn notes(&self) -> Arc<Notes> {
        Arc::clone(&self.notes)
    }

    /// The request was served.
    pub fn finish(mut self) {
        self.finished = true;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let notes = &self.notes;
        let status = notes.status.load(Relaxed);
        let line = Line {
            time: clock::rfc3339(clock::now()),
            node: &self.audit.node,
            entry: &self.entry,
            access: match notes.access.load(Relaxed) {
                NO_ACCESS => "none",
                1 => "allowed",
                2 => "anyone",
                3 => "denied",
                _ => "busy",
            },
            counts: Counts {
                reads: notes.reads.load(Relaxed),
                writes: notes.writes.load(Relaxed),
            },
            failed: notes.failed.load(Relaxed),
            status: (status != 0).then_some(status),
            error: if self.finished {
                notes.error_class()
            } else {
                Some("client_gone")
            },
            duration_ms: self.started.elapsed().as_secs_f64() * 1e3,
        };
        // This type always serializes.
        if let Ok(mut text) = serde_json::to_string(&line) {
            text.push('\n');
            self.audit.writer.send(text);
        }
    }
}

#[cfg(test)]
mod tests;
