//! The nodes' credentials file. The same passwords give the same file: a hash that is there and fits is kept,
//! because its salt is random and nodes report the file by its hash.
use std::{collections::HashSet, sync::LazyLock};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::random::{bytes, password as random_password};
use crate::{
    cluster::{
        facts::secrets::SecretBytes,
        render::secrets::{Credentials, Login},
    },
    error::Error,
};

/// argon2id parameters (memory in KiB, passes) for passwords that people choose: OWASP's recommendation for
/// little memory (7 MiB, 5 passes). A node checks several at a time, and remembers correct ones.
const CHOSEN: (u32, u32) = (7168, 5);
/// The same for random passwords of 256 bits, which cannot be guessed at any speed.
const RANDOM: (u32, u32) = (64, 1);
/// Former passwords of one user that are still accepted.
const MAX_PREVIOUS: usize = 2;
/// Length of the salt, in bytes.
const SALT_BYTES: usize = 16;
/// Shortest password of the nodes' own user that is kept.
const MIN_OWN_CHARS: usize = 32;
/// Number of matching passwords that are remembered. Each costs 32 bytes.
const MAX_REMEMBERED: usize = 4096;

/// Pairs of hash and password that match, by a digest of both, because each pair is checked in every
/// reconcile.
static FITTING: LazyLock<Mutex<HashSet<[u8; 32]>>> = LazyLock::new(Mutex::default);

/// One user of the file.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Entry {
    username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    password: String,
    perms: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    previous_passwords: Vec<String>,
}

/// A user's passwords.
pub(super) struct Passwords {
    /// The present one; None if what the file has stays.
    pub(super) present: Option<SecretBytes>,
    /// The next one, which is accepted already.
    pub(super) next: Option<SecretBytes>,
}

fn parse(file: Option<&SecretBytes>) -> Vec<Entry> {
    let entries = file.and_then(|file| serde_json::from_slice(file.expose()).ok());
    entries.unwrap_or_default()
}

/// The file, given the one that is there.
///
/// # Errors
/// The machine has no random numbers.
pub(super) fn file(
    asked: &Credentials,
    before: Option<&SecretBytes>,
    passwords: impl Fn(&Login) -> Passwords,
) -> Result<SecretBytes, Error> {
    let before = parse(before);
    let known = |name: &str| before.iter().find(|entry| entry.username == name);
    let mut all = Vec::new();
    if !asked.everybody.is_empty() {
        all.push(Entry {
            username: "*".to_owned(),
            perms: asked.everybody.clone(),
            ..Entry::default()
        });
    }
    for login in &asked.logins {
        let former = known(&login.name).cloned().unwrap_or_default();
        let entry = match login.secret {
            // Nodes read this password from the file, to log in to other nodes.
            None => own(asked, login, former)?,
            Some(_) => hashed(asked.drops_previous, login, former, &passwords(login))?,
        };
        // A user without a password yet is left out.
        all.extend(Some(entry).filter(|entry| !entry.password.is_empty()));
    }
    let text = serde_json::to_string_pretty(&all).unwrap_or_default();
    Ok(SecretBytes::new(text + "\n"))
}

fn own(asked: &Credentials, login: &Login, former: Entry) -> Result<Entry, Error> {
    let is_usable = former.password.len() >= MIN_OWN_CHARS && !former.password.starts_with('$');
    let is_kept = is_usable && !asked.rotates_own;
    let mut previous = former.previous_passwords;
    if !is_kept {
        previous.extend(Some(former.password.clone()).filter(|_| is_usable));
    } else if asked.drops_previous {
        previous.clear();
    }
    let password = match is_kept {
        true => former.password,
        false => {
            let made = random_password()?;
            made.expose_text().unwrap_or_default().to_owned()
        }
    };
    Ok(Entry {
        username: login.name.clone(),
        password,
        perms: login.permissions.clone(),
        previous_passwords: previous,
    })
}

fn hashed(
    drops_previous: bool,
    login: &Login,
    former: Entry,
    passwords: &Passwords,
) -> Result<Entry, Error> {
    let entry = Entry {
        username: login.name.clone(),
        perms: login.permissions.clone(),
        ..former.clone()
    };
    let Some(present) = &passwords.present else {
        return Ok(entry);
    };
    let cost = if login.is_random { RANDOM } else { CHOSEN };
    let mut accepted = vec![former.password.clone()];
    accepted.extend(former.previous_passwords);
    accepted.retain(|hash| !hash.is_empty());
    let known = |password: &SecretBytes| accepted.iter().find(|hash| fits(hash, password)).cloned();
    let made = |password: &SecretBytes| known(password).map_or_else(|| hash(password, cost), Ok);
    let password = made(present)?;
    let next = passwords.next.as_ref().map(made).transpose()?;
    let next = next.filter(|next| *next != password);
    let is_same = former.password == password;
    let mut previous = accepted;
    previous.retain(|hash| *hash != password && Some(hash) != next.as_ref());
    previous.truncate(if is_same && drops_previous {
        0
    } else {
        MAX_PREVIOUS
    });
    previous.extend(next);
    Ok(Entry {
        password,
        previous_passwords: previous,
        ..entry
    })
}

/// Does the file accept this password of this user?
pub(super) fn accepts(file: Option<&SecretBytes>, user: &str, password: &SecretBytes) -> bool {
    let entries = parse(file).into_iter();
    let mut of_user = entries.filter(|entry| entry.username == user);
    of_user.any(|entry| {
        let mut all = std::iter::once(&entry.password).chain(&entry.previous_passwords);
        all.any(|hash| fits(hash, password))
    })
}

fn fits(hash: &str, password: &SecretBytes) -> bool {
    let mut digest = Sha256::new();
    digest.update(hash.as_bytes());
    digest.update([0]);
    digest.update(password.expose());
    let digest: [u8; 32] = digest.finalize().into();
    if FITTING.lock().contains(&digest) {
        return true;
    }
    let parsed = PasswordHash::new(hash);
    let fits = parsed.is_ok_and(|parsed| {
        let checked = Argon2::default().verify_password(password.expose(), &parsed);
        checked.is_ok()
    });
    if fits {
        let mut all = FITTING.lock();
        if all.len() >= MAX_REMEMBERED {
            all.clear();
        }
        all.insert(digest);
    }
    fits
}

fn hash(password: &SecretBytes, (memory, rounds): (u32, u32)) -> Result<String, Error> {
    let failed = |error: &dyn std::fmt::Display| Error::NoRandomness(error.to_string());
    let params = Params::new(memory, rounds, 1, None).map_err(|error| failed(&error))?;
    let salt = bytes::<SALT_BYTES>()?;
    let salt = SaltString::encode_b64(&salt).map_err(|error| failed(&error))?;
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash = argon.hash_password(password.expose(), &salt);
    hash.map(|hash| hash.to_string())
        .map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(drops_previous: bool) -> Credentials {
        let login = |name: &str, secret: Option<&str>| Login {
            name: name.to_owned(),
            permissions: vec!["query".to_owned()],
            secret: secret.map(|name| (name.to_owned(), "password".to_owned())),
            is_random: true,
        };
        Credentials {
            logins: vec![login("rqlite-node", None), login("app", Some("demo-app"))],
            everybody: Vec::new(),
            drops_previous,
            rotates_own: false,
        }
    }

    fn make(
        asked: &Credentials,
        before: Option<&SecretBytes>,
        present: Option<&str>,
        next: Option<&str>,
    ) -> SecretBytes {
        let bytes = |text: Option<&str>| text.map(SecretBytes::new);
        let passwords = |_: &Login| Passwords {
            present: bytes(present),
            next: bytes(next),
        };
        file(asked, before, passwords).unwrap()
    }

    #[test]
    fn the_same_passwords_give_the_same_file_and_a_former_one_is_accepted_for_a_while() {
        let first = make(&asked(false), None, Some("one"), None);
        assert_eq!(make(&asked(true), Some(&first), Some("one"), None), first);
        let text = first.expose_text().unwrap();
        assert!(text.contains("$argon2id$") && !text.contains("\"one\""));
        let lets = |file: &SecretBytes, password: &str| {
            accepts(Some(file), "app", &SecretBytes::new(password))
        };
        let second = make(&asked(true), Some(&first), Some("two"), None);
        assert!(lets(&second, "one") && lets(&second, "two") && !lets(&second, "three"));
        assert_eq!(
            make(&asked(false), Some(&second), Some("two"), None),
            second
        );
        let third = make(&asked(true), Some(&second), Some("two"), None);
        assert!(!lets(&third, "one") && lets(&third, "two"));
        // Back to a former one: its hash is used again.
        let back = make(&asked(false), Some(&second), Some("one"), None);
        assert!(lets(&back, "one") && lets(&back, "two"));
        // The password's Secret may be missing only for a moment: the user keeps access.
        assert_eq!(make(&asked(false), Some(&third), None, None), third);
        // Without any password so far, the user has no access.
        let none = make(&asked(false), None, None, None);
        assert!(!none.expose_text().unwrap().contains("app"));
    }

    #[test]
    fn the_next_password_is_accepted_before_it_is_published() {
        let first = make(&asked(false), None, Some("one"), None);
        let both = make(&asked(true), Some(&first), Some("one"), Some("two"));
        for password in ["one", "two"] {
            assert!(accepts(Some(&both), "app", &SecretBytes::new(password)));
        }
        for drops in [true, false] {
            let again = make(&asked(drops), Some(&both), Some("one"), Some("two"));
            assert_eq!(again, both, "{drops}");
        }
        let published = make(&asked(true), Some(&both), Some("two"), None);
        assert!(accepts(Some(&published), "app", &SecretBytes::new("one")));
        let done = make(&asked(true), Some(&published), Some("two"), None);
        assert!(!accepts(Some(&done), "app", &SecretBytes::new("one")));
    }

    #[test]
    fn a_file_that_somebody_broke_is_made_again() {
        let broken = SecretBytes::new("[{");
        let made = make(&asked(false), Some(&broken), Some("one"), None);
        assert!(accepts(Some(&made), "app", &SecretBytes::new("one")));
        let own = parse(Some(&made));
        assert_eq!(own[0].username, "rqlite-node");
        assert!(own[0].password.len() >= MIN_OWN_CHARS);
    }
}
