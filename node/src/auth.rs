//! Users and their permissions: the credentials file of `-auth`.
//!
//! Reading order: `perm`, `hash` (hashed passwords and their cost), `rules` (the file, checked), `turns` (who
//! is next), `checker` (few comparisons at a time). DESIGN.md says what wrong passwords may cost.
//!
//! The file is read again when its content changes, which is checked every second. If the new file is
//! invalid, the previous rules stay in force: a half-written file must neither lock all users out nor let
//! anyone in.
mod checker;
mod fingerprint;
mod hash;
mod perm;
mod remembered;
mod rules;
mod turns;

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use node_contract::status::CredentialsStatus;
use parking_lot::{Mutex, RwLock};
use tokio::{task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;

use self::{
    checker::Checker,
    fingerprint::Key,
    rules::{Finding, Rules},
};
pub use self::{
    hash::{Algorithm, hash_password},
    perm::Perm,
    turns::{Busy, LoginFrom, counted_address},
};
use crate::{
    clock,
    metrics::{Counter, Metrics},
    store_types::Credentials,
};

/// How often the file is read.
const RELOAD_INTERVAL: Duration = Duration::from_secs(1);
/// Largest credentials file. It is held in memory.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// A check is repeated at most this often when the rules have changed while it ran.
const MAX_REPEATED_CHECKS: usize = 3;

/// Whether a caller may do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The caller has the permissions.
    Allowed,
    /// Everybody has the permissions. The credentials were not looked at.
    Anyone,
    /// It has not, or its password is wrong.
    Denied,
    /// Its password was not checked, because too many others are.
    Busy(Busy),
}

impl Access {
    /// The caller may.
    pub fn is_allowed(self) -> bool {
        matches!(self, Self::Allowed | Self::Anyone)
    }
}

/// The version of the file that was read last, and whether it was accepted.
#[derive(Debug, Default)]
struct Seen {
    /// `None` if it could not be read.
    sha256: Option<[u8; 32]>,
    /// When the rules in force were read, RFC 3339.
    loaded_at: String,
    last_error: Option<String>,
}

struct Source {
    path: PathBuf,
    /// User of `-join-as`.
    own_user: String,
    key: Key,
    seen: Mutex<Seen>,
    rules: RwLock<Arc<Rules>>,
    checker: Checker,
    metrics: Arc<Metrics>,
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

/// The user as which this node logs in to others: that of `-join-as`, or none.
#[derive(Clone, Debug, Default)]
pub struct OwnUser(Option<Arc<Auth>>);

impl OwnUser {
    /// The user that `auth` knows.
    pub fn of(auth: &Arc<Auth>) -> Self {
        Self(Some(Arc::clone(auth)))
    }

    /// The credentials, as the file has them now.
    pub fn credentials(&self) -> Option<Credentials> {
        self.0.as_ref()?.own_credentials()
    }
}

/// What `Auth` needs to know besides the file.
#[derive(Debug, Default)]
pub struct AuthSettings {
    /// User of `-join-as`; empty for none.
    pub own_user: String,
    /// Logins that may wait for a check at a time.
    pub max_waiting: usize,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

impl Auth {
    /// Reads the file; without one every check passes.
    ///
    /// # Errors
    /// The file cannot be read or is invalid. The text is that with which the node ends: `failed to get
    /// credential store: …`.
    pub fn open(path: Option<&Path>, settings: AuthSettings) -> Result<Self, String> {
        let AuthSettings {
            own_user,
            max_waiting,
            metrics,
        } = settings;
        let Some(path) = path else {
            return Ok(Self { source: None });
        };
        let fail = |error: &dyn fmt::Display| {
            format!(
                "failed to get credential store: {}: {error}",
                path.display()
            )
        };
        let key = Key::random();
        let text = read(path).map_err(|error| fail(&error))?;
        let rules = Rules::parse(&text, &own_user, &key).map_err(|error| fail(&error))?;
        warn(path, &rules);
        if !own_user.is_empty() && !rules.has_user(&own_user) {
            tracing::warn!(target: "auth", "user {own_user:?} of -join-as is not in {}: this node joins without credentials", path.display());
        }
        let seen = Seen {
            sha256: Some(rules.sha256),
            loaded_at: clock::rfc3339(clock::now()),
            last_error: None,
        };
        let source = Source {
            path: path.to_owned(),
            own_user,
            key,
            seen: Mutex::new(seen),
            rules: RwLock::new(Arc::new(rules)),
            checker: Checker::new(max_waiting, Arc::clone(&metrics)),
            metrics,
        };
        Ok(Self {
            source: Some(source),
        })
    }

    /// A credentials file is configured.
    pub fn enabled(&self) -> bool {
        self.source.is_some()
    }

    /// May the caller do what needs all of these permissions? Either all callers may, or the credentials are
    /// those of a user who may.
    pub async fn check(
        &self,
        credentials: Option<&Credentials>,
        perms: &[Perm],
        from: LoginFrom,
    ) -> Access {
        let Some(source) = &self.source else {
            return Access::Anyone;
        };
        let mut access = Access::Denied;
        for _ in 0..MAX_REPEATED_CHECKS {
            let rules = source.rules();
            access = source.check_by(&rules, credentials, perms, from).await;
            // The rules may have changed while it waited.
            if Arc::ptr_eq(&rules, &source.rules()) {
                break;
            }
        }
        access
    }

    /// The credentials of the user of `-join-as`. `None` if there is no such user.
    pub fn own_credentials(&self) -> Option<Credentials> {
        let source = self.source.as_ref()?;
        let password = source.rules().own_password(&source.own_user)?.to_owned();
        Some(Credentials {
            username: source.own_user.clone(),
            password,
        })
    }

    /// For `/status`.
    pub fn status(&self) -> CredentialsStatus {
        let Some(source) = &self.source else {
            return CredentialsStatus::default();
        };
        let seen = source.seen.lock();
        CredentialsStatus {
            enabled: true,
            file_sha256: hex(&source.rules().sha256),
            loaded_at: seen.loaded_at.clone(),
            last_error: seen.last_error.clone(),
        }
    }

    /// Reads the file again whenever it changes, until stopped.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        while self.enabled()
            && stop
                .run_until_cancelled(sleep(RELOAD_INTERVAL))
                .await
                .is_some()
        {
            let auth = Arc::clone(&self);
            let _ = spawn_blocking(move || auth.reload()).await;
        }
    }

    fn reload(&self) {
        if let Some(source) = &self.source {
            source.reload();
        }
    }
}

impl Source {
    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read())
    }

    async fn check_by(
        &self,
        rules: &Rules,
        credentials: Option<&Credentials>,
        perms: &[Perm],
        from: LoginFrom,
    ) -> Access {
        if rules.everyone_may(perms) {
            return Access::Anyone;
        }
        let Some(given) = credentials.filter(|given| !given.username.is_empty()) else {
            return Access::Denied;
        };
        // The password comes before the permissions, so that who has none takes as long as others.
        let right = match rules.examine(given, &self.key) {
            Finding::Certain(right) => right,
            Finding::Work(work) => match self.checker.check(work, &given.password, from).await {
                Ok(right) => right,
                Err(busy) => return Access::Busy(busy),
            },
        };
        if right && rules.user_may(&given.username, perms) {
            Access::Allowed
        } else {
            Access::Denied
        }
    }

    /// Reads the file, and takes its rules if it has changed and is valid. Its content is compared, because
    /// time and size may be those of the version before.
    fn reload(&self) {
        let mut seen = self.seen.lock();
        let path = self.path.display();
        let (sha256, parsed) = match read(&self.path) {
            Err(error) => (None, Err(format!("it cannot be read: {error}"))),
            Ok(text) => {
                let sha256 = rules::sha256(&text);
                if seen.sha256 == Some(sha256) {
                    return;
                }
                let parsed = Rules::parse(&text, &self.own_user, &self.key);
                (Some(sha256), parsed)
            }
        };
        // A failure to read is logged once.
        if sha256.is_none() && seen.sha256.is_none() {
            return;
        }
        seen.sha256 = sha256;
        self.metrics
            .set(Counter::AuthFileRefused, u64::from(parsed.is_err()));
        match parsed {
            Ok(rules) => {
                warn(&self.path, &rules);
                seen.last_error = None;
                if rules.sha256 == self.rules().sha256 {
                    tracing::info!(target: "auth", "credentials file {path} is again the one in force");
                    return;
                }
                *self.rules.write() = Arc::new(rules);
                seen.loaded_at = clock::rfc3339(clock::now());
                self.metrics.count(Counter::AuthReloads);
                tracing::info!(target: "auth", "credentials file {path} has changed and was read again");
            }
            Err(error) => {
                tracing::error!(target: "auth", "credentials file {path} has changed but was not taken, the rules read before stay in force: {error}");
                self.metrics.count(Counter::AuthReloadsFailed);
                seen.last_error = Some(format!("{path}: {error}"));
            }
        }
    }
}

fn warn(path: &Path, rules: &Rules) {
    for warning in &rules.warnings {
        tracing::warn!(target: "auth", "credentials file {}: {warning}", path.display());
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut text = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!(
            "larger than {MAX_FILE_BYTES} bytes"
        )));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
