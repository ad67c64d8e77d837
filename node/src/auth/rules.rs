//! The credentials file, checked: users, their passwords and permissions. Errors say which user and what to
//! change, and never what a password is.
use std::{collections::HashMap, fmt, sync::Arc};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{
    fingerprint::{Fingerprint, Key},
    hash::Hash,
    perm::{Perm, PermSet},
};
use crate::store_types::Credentials;

/// The user whose permissions all callers have, also anonymous ones.
const ANYONE: &str = "*";
/// Previous passwords of one user. A wrong password is compared with all of them.
const MAX_PREVIOUS: usize = 4;
/// Purposes of fingerprints.
const PLAIN: u8 = 1;
const HASHED: u8 = 2;
const NAME: u8 = 3;

/// A user.
struct User {
    perms: PermSet,
    /// Fingerprints of the passwords that the file has in clear text.
    plain: Vec<Fingerprint>,
    hashes: Arc<[Hash]>,
    /// The password, if it is known in clear text and this node logs in as the user.
    own_password: Option<String>,
}

/// The rules of one version of the file.
pub(super) struct Rules {
    users: HashMap<String, User>,
    everyone: PermSet,
    /// The users' hashes. Whoever is not known is compared with one of them, to take as long as others.
    stand_ins: Vec<Arc<[Hash]>>,
    /// SHA-256 of the file.
    pub(super) sha256: [u8; 32],
    /// Warnings about the file, which are no errors.
    pub(super) warnings: Vec<String>,
}

impl fmt::Debug for Rules {
    /// Shows neither users nor passwords.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Rules").finish_non_exhaustive()
    }
}

/// The result of examining a password without hashing it.
#[derive(Debug)]
pub(super) enum Finding {
    /// Right or wrong.
    Certain(bool),
    /// It must be compared with hashes.
    Work(Work),
}

/// A comparison with hashes.
#[derive(Clone, Debug)]
pub(super) struct Work {
    hashes: Arc<[Hash]>,
    /// The hashes are the user's own.
    is_users: bool,
    /// Stands for the user, the hashes and the password.
    pub(super) id: Fingerprint,
    /// Stands for the user's name.
    pub(super) bucket: u8,
}

impl Work {
    /// Compares with the hashes, which takes long. Never true for the hashes of another user.
    pub(super) fn matches(&self, password: &str) -> bool {
        let found = self.hashes.iter().any(|hash| hash.matches(password));
        found && self.is_users
    }
}

/// SHA-256 of a file.
pub(super) fn sha256(text: &[u8]) -> [u8; 32] {
    Sha256::digest(text).into()
}

impl Rules {
    /// Reads a file. `own_user` is the user as which this node joins clusters (`-join-as`).
    ///
    /// # Errors
    /// What is wrong, and where.
    pub(super) fn parse(text: &[u8], own_user: &str, key: &Key) -> Result<Self, String> {
        let entries: Value = serde_json::from_slice(text).map_err(|error| {
            // Only errors of syntax come from here, and those show no value.
            format!("it is not valid JSON: {error}")
        })?;
        let Value::Array(entries) = entries else {
            return Err(r#"it must be a JSON array of users: [{"username":"…","password":"…","perms":["…"]}]"#.to_owned());
        };
        let mut rules = Self {
            users: HashMap::new(),
            everyone: PermSet::default(),
            stand_ins: Vec::new(),
            sha256: sha256(text),
            warnings: Vec::new(),
        };
        let mut has_anyone = false;
        for (at, entry) in entries.iter().enumerate() {
            let entry = Entry::new(entry, at + 1)?;
            let perms = entry.perms(&mut rules.warnings)?;
            let twice = || {
                Err(format!(
                    "{} is listed twice; remove one of the two",
                    entry.label
                ))
            };
            if entry.name == ANYONE {
                if has_anyone {
                    return twice();
                }
                has_anyone = true;
                rules.everyone = perms;
                continue;
            }
            let user = entry.user(perms, entry.name == own_user, key)?;
            if !user.hashes.is_empty() {
                rules.stand_ins.push(Arc::clone(&user.hashes));
            }
            if rules.users.insert(entry.name.to_owned(), user).is_some() {
                return twice();
            }
        }
        Ok(rules)
    }

    /// Everybody has the permissions.
    pub(super) fn everyone_may(&self, perms: &[Perm]) -> bool {
        self.everyone.contains_all(perms)
    }

    /// The user has the permissions, or everybody has.
    pub(super) fn user_may(&self, name: &str, perms: &[Perm]) -> bool {
        self.users
            .get(name)
            .is_some_and(|user| user.perms.union(self.everyone).contains_all(perms))
    }

    /// Compares the password with those in clear text, and says what else there is to compare.
    pub(super) fn examine(&self, given: &Credentials, key: &Key) -> Finding {
        let Credentials { username, password } = given;
        let user = self.users.get(username);
        // Computed for users who are not known too, so that they take as long.
        let print = key.fingerprint(PLAIN, &[password]);
        let plain = user.map_or(&[][..], |user| &user.plain);
        // No early end: the time must not say which of them it was.
        let found = plain
            .iter()
            .fold(false, |found, known| print.matches(known) | found);
        if found {
            return Finding::Certain(true);
        }
        let own = user.map(|user| &user.hashes).filter(|own| !own.is_empty());
        let name = key.fingerprint(NAME, &[username]);
        let Some(hashes) = own.or_else(|| name.choose(&self.stand_ins)) else {
            return Finding::Certain(false);
        };
        let is_users = own.is_some();
        let kind = if is_users { "own" } else { "other" };
        let mut texts = vec![kind, username.as_str(), password.as_str()];
        texts.extend(hashes.iter().map(Hash::text));
        Finding::Work(Work {
            id: key.fingerprint(HASHED, &texts),
            bucket: name.bucket(),
            hashes: Arc::clone(hashes),
            is_users,
        })
    }

    /// The password as which this node logs in to others. `None` if the user does not exist.
    pub(super) fn own_password(&self, user: &str) -> Option<&str> {
        self.users.get(user)?.own_password.as_deref()
    }

    pub(super) fn has_user(&self, user: &str) -> bool {
        self.users.contains_key(user)
    }
}

/// One element of the file. Unknown keys are ignored.
struct Entry<'a> {
    fields: &'a Map<String, Value>,
    name: &'a str,
    /// For errors.
    label: String,
}

impl<'a> Entry<'a> {
    fn new(entry: &'a Value, number: usize) -> Result<Self, String> {
        let Value::Object(fields) = entry else {
            return Err(format!("user {number} of the file must be a JSON object"));
        };
        let name = match fields.get("username") {
            Some(Value::String(name)) if !name.is_empty() => name,
            None | Some(Value::Null | Value::String(_)) => {
                return Err(format!("user {number} of the file has no \"username\""));
            }
            Some(_) => {
                return Err(format!(
                    "\"username\" of user {number} of the file must be a string"
                ));
            }
        };
        let label = format!("user {name:?}");
        if name.contains(':') {
            return Err(format!(
                "{label} can never log in, because HTTP Basic ends a name at its first colon; choose a name without one"
            ));
        }
        if name.chars().any(char::is_control) {
            return Err(format!("{label} has a control character in its name"));
        }
        Ok(Self {
            fields,
            name,
            label,
        })
    }

    /// Without `perms` the user has no permissions of its own. Unknown names give none, so that a file may
    /// contain permissions of other versions.
    fn perms(&self, warnings: &mut Vec<String>) -> Result<PermSet, String> {
        let wrong = || format!("\"perms\" of {} must be an array of strings", self.label);
        let names = match self.fields.get("perms") {
            None | Some(Value::Null) => return Ok(PermSet::default()),
            Some(Value::Array(names)) => names,
            Some(_) => return Err(wrong()),
        };
        let mut perms = PermSet::default();
        for name in names {
            let name = name.as_str().ok_or_else(wrong)?;
            match PermSet::named(name) {
                Some(more) => perms = perms.union(more),
                None => warnings.push(format!(
                    "permission {name:?} of {} is not known and gives nothing",
                    self.label
                )),
            }
        }
        Ok(perms)
    }

    fn user(&self, perms: PermSet, is_own: bool, key: &Key) -> Result<User, String> {
        let label = &self.label;
        let password = match self.fields.get("password") {
            Some(Value::String(password)) if !password.is_empty() => password,
            None | Some(Value::Null | Value::String(_)) => {
                return Err(format!("{label} has no \"password\""));
            }
            Some(_) => return Err(format!("\"password\" of {label} must be a string")),
        };
        let mut passwords = vec![("\"password\"", password.as_str())];
        for previous in self.previous()? {
            passwords.push(("a previous password", previous));
        }
        let mut plain = Vec::new();
        let mut hashes = Vec::new();
        for (which, text) in passwords {
            let hash = Hash::parse(text).map_err(|why| format!("{which} of {label} {why}"))?;
            match hash {
                None => plain.push(key.fingerprint(PLAIN, &[text])),
                Some(hash) => hashes.push(hash),
            }
        }
        let is_hash = Hash::parse(password).is_ok_and(|hash| hash.is_some());
        if is_own && is_hash {
            return Err(format!(
                "{label} is the one of -join-as, whose password this node sends to others: its \"password\" must be in clear text, not a hash"
            ));
        }
        Ok(User {
            perms,
            plain,
            hashes: hashes.into(),
            own_password: is_own.then(|| password.clone()),
        })
    }

    fn previous(&self) -> Result<Vec<&'a str>, String> {
        let label = &self.label;
        let wrong = || {
            format!(
                "\"previous_passwords\" of {label} must be an array of strings that are not empty"
            )
        };
        let previous = match self.fields.get("previous_passwords") {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(previous)) => previous,
            Some(_) => return Err(wrong()),
        };
        if previous.len() > MAX_PREVIOUS {
            return Err(format!(
                "{label} has {} previous passwords; at most {MAX_PREVIOUS} are accepted",
                previous.len()
            ));
        }
        previous
            .iter()
            .map(|text| {
                let text = text.as_str().filter(|text| !text.is_empty());
                text.ok_or_else(wrong)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
