//! Users and their permissions: the credentials file of `-auth`.
//!
//! The file is read again when its modification time or length changes, which is checked at most once a
//! second. If the new file is invalid, the error is logged and the previous rules stay in force: a
//! half-written file must neither lock all users out nor let anyone in.
use std::{
    collections::HashMap,
    fmt,
    fs::File,
    hint::black_box,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use parking_lot::{Mutex, RwLock};
use serde::Deserialize;

use crate::store_types::Credentials;

/// The user whose permissions all callers have, also anonymous ones.
const ANYONE: &str = "*";
/// The file is checked for changes at most this often.
const RELOAD_INTERVAL: Duration = Duration::from_secs(1);
/// Largest credentials file. It is held in memory, and read while a request waits.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// A permission. Each names the endpoints that need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Perm {
    /// `/db/execute`.
    Execute,
    /// `/db/query`, `/db/sql`.
    Query,
    /// `/db/load`, `/boot`.
    Load,
    /// `/db/backup`.
    Backup,
    /// `/status`, `/nodes`, `/debug/…`, `/metrics`, `/licenses`.
    Status,
    /// `/readyz`.
    Ready,
    /// `/snapshot`, `/reap`.
    Snapshot,
    /// `/leader`, `/db/compare`, `/db/check`.
    LeaderOps,
    /// `/remove`.
    Remove,
    /// Joining the cluster as a voter.
    Join,
    /// Joining as a read-only node.
    JoinReadOnly,
    /// `/console`.
    Ui,
}

/// A set of permissions, one bit each.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct PermSet(u16);

impl PermSet {
    const ALL: Self = Self(u16::MAX);

    /// Unknown names give no permission, so that a file may contain permissions of other versions.
    fn named(name: &str) -> Self {
        let perm = match name {
            "all" => return Self::ALL,
            "execute" => Perm::Execute,
            "query" => Perm::Query,
            "load" => Perm::Load,
            "backup" => Perm::Backup,
            "status" => Perm::Status,
            "ready" => Perm::Ready,
            "snapshot" => Perm::Snapshot,
            "leader-ops" => Perm::LeaderOps,
            "remove" => Perm::Remove,
            "join" => Perm::Join,
            "join-read-only" | "join-read-replica" => Perm::JoinReadOnly,
            "ui" => Perm::Ui,
            _ => return Self::default(),
        };
        Self(1 << perm as u16)
    }

    fn contains(self, perm: Perm) -> bool {
        self.0 & (1 << perm as u16) != 0
    }
}

/// One element of the file. Unknown keys are ignored; without `perms` the user has no permissions.
#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    perms: Option<Vec<String>>,
}

struct User {
    password: String,
    perms: PermSet,
}

/// The rules of one version of the file.
#[derive(Default)]
struct Rules {
    users: HashMap<String, User>,
    everyone: PermSet,
}

impl Rules {
    fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        let entries: Vec<Entry> = serde_json::from_slice(text)?;
        let mut rules = Self::default();
        for entry in entries {
            let names = entry.perms.unwrap_or_default();
            let bits = names
                .iter()
                .fold(0, |bits, name| bits | PermSet::named(name).0);
            let perms = PermSet(bits);
            if entry.username == ANYONE {
                rules.everyone = perms;
            }
            let user = User {
                password: entry.password,
                perms,
            };
            rules.users.insert(entry.username, user);
        }
        Ok(rules)
    }

    fn allows(&self, credentials: Option<&Credentials>, perm: Perm) -> bool {
        if self.everyone.contains(perm) {
            return true;
        }
        let Some(given) = credentials.filter(|given| !given.username.is_empty()) else {
            return false;
        };
        let user = self.users.get(&given.username);
        // An unknown user takes as long as a wrong password.
        let expected = user.map_or("", |user| user.password.as_str());
        let matches = same_bytes(given.password.as_bytes(), expected.as_bytes());
        user.is_some_and(|user| matches && user.perms.contains(perm))
    }
}

/// Compares in a time that depends only on the length of the given password.
fn same_bytes(given: &[u8], expected: &[u8]) -> bool {
    let mut differences = u8::from(given.len() != expected.len());
    for (at, byte) in given.iter().enumerate() {
        // The wrapped index keeps the work the same past the end of `expected`.
        let other = expected
            .get(at % expected.len().max(1))
            .copied()
            .unwrap_or(0);
        differences = black_box(differences | (byte ^ other));
    }
    black_box(differences) == 0
}

/// Identifies a version of the file.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Version {
    modified: Option<SystemTime>,
    len_bytes: u64,
}

struct Source {
    path: PathBuf,
    started: Instant,
    /// Time of the next check for changes, in milliseconds since `started`.
    next_check: AtomicU64,
    /// The version that was read last, valid or not. Locked while reading, so that one caller reads and the
    /// others continue.
    version: Mutex<Option<Version>>,
    rules: RwLock<Arc<Rules>>,
}

/// The current rules. Without a credentials file everything is allowed.
pub struct Auth {
    source: Option<Source>,
}

impl fmt::Debug for Auth {
    /// Shows neither users nor passwords.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.source.as_ref().map(|source| &source.path);
        out.debug_struct("Auth")
            .field("path", &path)
            .finish_non_exhaustive()
    }
}

impl Auth {
    /// Reads the file; without one every check passes.
    ///
    /// # Errors
    /// The file cannot be read or is invalid. The text is that with which the node ends: `failed to get
    /// credential store: …`.
    pub fn open(path: Option<&Path>) -> Result<Self, String> {
        let Some(path) = path else {
            return Ok(Self { source: None });
        };
        let fail = |error: &dyn fmt::Display| {
            format!(
                "failed to get credential store: {}: {error}",
                path.display()
            )
        };
        let (version, text) = read(path).map_err(|error| fail(&error))?;
        let rules = Rules::parse(&text).map_err(|error| fail(&error))?;
        let source = Source {
            path: path.to_owned(),
            started: Instant::now(),
            next_check: AtomicU64::new(0),
            version: Mutex::new(Some(version)),
            rules: RwLock::new(Arc::new(rules)),
        };
        Ok(Self {
            source: Some(source),
        })
    }

    /// A credentials file is configured.
    pub fn enabled(&self) -> bool {
        self.source.is_some()
    }

    /// True if the caller has the permission: either all callers have it, or the credentials are those of a
    /// user who has it.
    pub fn allows(&self, credentials: Option<&Credentials>, perm: Perm) -> bool {
        self.rules()
            .is_none_or(|rules| rules.allows(credentials, perm))
    }

    /// The credentials of a user, for `-join-as`. `None` if the user does not exist.
    pub fn credentials_of(&self, user: &str) -> Option<Credentials> {
        let rules = self.rules()?;
        let found = rules.users.get(user)?;
        Some(Credentials {
            username: user.to_owned(),
            password: found.password.clone(),
        })
    }

    fn rules(&self) -> Option<Arc<Rules>> {
        let source = self.source.as_ref()?;
        source.check_for_changes(Instant::now());
        Some(Arc::clone(&source.rules.read()))
    }
}

impl Source {
    /// Reads the file again if it has changed and the next check is due.
    fn check_for_changes(&self, now: Instant) {
        let now_ms = u64::try_from(now.saturating_duration_since(self.started).as_millis())
            .unwrap_or(u64::MAX);
        let next_ms = self.next_check.load(Ordering::Relaxed);
        let interval_ms = u64::try_from(RELOAD_INTERVAL.as_millis()).unwrap_or(u64::MAX);
        let mine = || {
            let after = now_ms.saturating_add(interval_ms);
            self.next_check
                .compare_exchange(next_ms, after, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        };
        if now_ms >= next_ms && mine() {
            self.reload();
        }
    }

    fn reload(&self) {
        let Some(mut seen) = self.version.try_lock() else {
            return;
        };
        let path = self.path.display();
        let current = std::fs::metadata(&self.path).map(|found| Version::of(&found));
        match current {
            Ok(current) if *seen == Some(current) => return,
            // Logged once: a missing file stays the same version.
            Err(_) if seen.is_none() => return,
            _ => {}
        }
        match read(&self.path) {
            Err(error) => {
                *seen = None;
                tracing::error!(
                    "credentials file {path} cannot be read, the rules read before stay in force: {error}"
                );
            }
            Ok((version, text)) => {
                *seen = Some(version);
                match Rules::parse(&text) {
                    Ok(rules) => {
                        *self.rules.write() = Arc::new(rules);
                        tracing::info!("credentials file {path} has changed and was read again");
                    }
                    Err(error) => {
                        tracing::error!(
                            "credentials file {path} has changed but is not valid, the rules read before stay in force: {error}"
                        );
                    }
                }
            }
        }
    }
}

impl Version {
    fn of(found: &std::fs::Metadata) -> Self {
        Self {
            modified: found.modified().ok(),
            len_bytes: found.len(),
        }
    }
}

fn read(path: &Path) -> io::Result<(Version, Vec<u8>)> {
    let file = File::open(path)?;
    let version = Version::of(&file.metadata()?);
    let mut text = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!(
            "larger than {MAX_FILE_BYTES} bytes"
        )));
    }
    Ok((version, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"[
        {"username":"bob","password":"secret1","perms":["all"],"comment":"unknown key"},
        {"username":"alice","password":"secret2","perms":["query","join-read-replica","future"]},
        {"username":"eve","password":"secret3"},
        {"username":"nopass","perms":["execute"]},
        {"username":"*","perms":["status","ready"]}
    ]"#;

    fn caller(name: &str, password: &str) -> Credentials {
        Credentials {
            username: name.to_owned(),
            password: password.to_owned(),
        }
    }

    #[test]
    fn rules_in_their_order() {
        let rules = Rules::parse(FILE.as_bytes()).unwrap();
        let cases = [
            (None, Perm::Status, true),
            (None, Perm::Query, false),
            (Some(caller("bob", "wrong")), Perm::Ready, true),
            (Some(caller("bob", "secret1")), Perm::Execute, true),
            (Some(caller("bob", "secret1")), Perm::Ui, true),
            (Some(caller("bob", "secret")), Perm::Execute, false),
            (Some(caller("bob", "secret11")), Perm::Execute, false),
            (Some(caller("bob", "")), Perm::Execute, false),
            (Some(caller("alice", "secret2")), Perm::Query, true),
            (Some(caller("alice", "secret2")), Perm::JoinReadOnly, true),
            (Some(caller("alice", "secret2")), Perm::Join, false),
            (Some(caller("alice", "secret2")), Perm::Execute, false),
            // No `perms`: no permissions of its own.
            (Some(caller("eve", "secret3")), Perm::Query, false),
            (Some(caller("eve", "secret3")), Perm::Status, true),
            (Some(caller("nopass", "")), Perm::Execute, true),
            (Some(caller("nopass", "x")), Perm::Execute, false),
            (Some(caller("nobody", "")), Perm::Execute, false),
            (Some(caller("", "")), Perm::Execute, false),
            (Some(caller("*", "")), Perm::Execute, false),
        ];
        for (credentials, perm, expected) in cases {
            let name = credentials.as_ref().map(|given| given.username.clone());
            assert_eq!(
                rules.allows(credentials.as_ref(), perm),
                expected,
                "{name:?} {perm:?}"
            );
        }
    }

    #[test]
    fn all_for_everyone() {
        let rules = Rules::parse(br#"[{"username":"*","password":"","perms":["all"]}]"#).unwrap();
        assert!(rules.allows(None, Perm::Remove));
        assert!(rules.allows(Some(&caller("x", "y")), Perm::Execute));
    }

    #[test]
    fn comparison_is_equality() {
        for (a, b) in [
            ("", ""),
            ("a", "a"),
            ("aa", "a"),
            ("a", "aa"),
            ("", "a"),
            ("a", ""),
            ("abab", "ab"),
            ("x", "y"),
        ] {
            assert_eq!(
                same_bytes(a.as_bytes(), b.as_bytes()),
                a == b,
                "{a:?} {b:?}"
            );
        }
    }

    #[test]
    fn without_a_file_everything_is_allowed() {
        let auth = Auth::open(None).unwrap();
        assert!(!auth.enabled());
        assert!(auth.allows(None, Perm::Remove));
        assert_eq!(auth.credentials_of("bob"), None);
    }

    #[test]
    fn a_bad_file_is_refused_at_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.json");
        let missing = Auth::open(Some(&path)).unwrap_err();
        assert!(
            missing.starts_with("failed to get credential store: "),
            "{missing}"
        );
        for text in ["", "{}", "[{]", r#"[{"username":1}]"#] {
            std::fs::write(&path, text).unwrap();
            let error = Auth::open(Some(&path)).unwrap_err();
            assert!(
                error.starts_with("failed to get credential store: "),
                "{error}"
            );
        }
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_bad_one_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.json");
        std::fs::write(&path, FILE).unwrap();
        let auth = Auth::open(Some(&path)).unwrap();
        let source = auth.source.as_ref().unwrap();
        let later = |seconds| source.started + Duration::from_secs(seconds);
        let bob = caller("bob", "new");
        assert_eq!(auth.credentials_of("bob"), Some(caller("bob", "secret1")));

        std::fs::write(
            &path,
            r#"[{"username":"bob","password":"new","perms":["all"]}]"#,
        )
        .unwrap();
        source.check_for_changes(later(10));
        assert!(auth.allows(Some(&bob), Perm::Execute));
        assert!(!auth.allows(None, Perm::Status));

        std::fs::write(&path, "[").unwrap();
        source.check_for_changes(later(20));
        assert!(auth.allows(Some(&bob), Perm::Execute));

        std::fs::remove_file(&path).unwrap();
        source.check_for_changes(later(30));
        assert!(auth.allows(Some(&bob), Perm::Execute));

        std::fs::write(&path, "[]").unwrap();
        source.check_for_changes(later(40));
        assert!(!auth.allows(Some(&bob), Perm::Execute));
    }

    #[test]
    fn debug_hides_the_secrets() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.json");
        std::fs::write(&path, FILE).unwrap();
        let shown = format!("{:?}", Auth::open(Some(&path)).unwrap());
        assert!(!shown.contains("secret"), "{shown}");
    }
}
