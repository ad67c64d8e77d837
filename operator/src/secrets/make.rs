//! Makes the contents of Secrets from recipes. Existing contents that match are kept, so that nothing is made
//! twice.
use std::collections::BTreeMap;

mod connection;
mod credentials;
mod random;

use super::certificates;
use crate::{
    cluster::{
        facts::{
            authentication::{NEXT_PASSWORD, USERS_FILE, is_password},
            secrets::{Contents, ObservedSecret, SecretBytes},
        },
        render::secrets::{Login, PlannedSecret, Recipe, Value},
    },
    error::Error,
    secrets::make::credentials::{Passwords, accepts},
};

/// Key of the certificates by which clients know a server.
const AUTHORITIES: &str = "ca.crt";

/// Makes the Secrets of one cluster in their order.
#[derive(Debug)]
pub struct Maker<'a> {
    /// The Secrets as they were read.
    seen: &'a BTreeMap<String, ObservedSecret>,
    /// Contents of the Secrets that were made, or that already matched.
    made: BTreeMap<String, Contents>,
}

impl<'a> Maker<'a> {
    /// A maker with the Secrets that were read.
    pub fn new(seen: &'a BTreeMap<String, ObservedSecret>) -> Self {
        Self {
            seen,
            made: BTreeMap::new(),
        }
    }

    /// The contents of a Secret, given those that it has.
    ///
    /// # Errors
    /// The machine has no random numbers.
    pub fn make(
        &self,
        wanted: &PlannedSecret,
        before: Option<&ObservedSecret>,
    ) -> Result<Contents, Error> {
        match &wanted.recipe {
            Recipe::Values { values } => values
                .iter()
                .map(|(key, value)| Ok((key.clone(), self.value(key, value, before)?)))
                .collect(),
            Recipe::Authority {
                common_name,
                cross,
                at,
            } => {
                let before = before.filter(|_| *cross).map(|before| &before.data);
                certificates::authority(common_name, before, *at)
            }
            Recipe::Leaf {
                authority,
                common_name,
                names,
                trusted,
                at,
            } => {
                let signer = self.made.get(authority);
                let missing = || Error::Changed(format!("Secret {authority}"));
                let leaf = certificates::Leaf {
                    common_name,
                    names,
                    trusted,
                    at: *at,
                };
                certificates::leaf(signer.ok_or_else(missing)?, &leaf)
            }
            Recipe::Connection(asked) => {
                let given = asked.password.as_ref();
                let given = given.and_then(|(name, key)| self.latest(name, key));
                let authority = asked.authority.as_ref();
                let authority = authority.and_then(|name| self.latest(name, AUTHORITIES));
                let file = self.latest(&asked.users, USERS_FILE);
                let accepted = |password: &SecretBytes| accepts(file, &asked.user, password);
                connection::contents(asked, before, given, authority, accepted)
            }
            Recipe::Credentials(asked) => {
                let file = before.and_then(|before| before.get(USERS_FILE));
                let made = credentials::file(asked, file, |login| self.passwords(login))?;
                Ok([(USERS_FILE.to_owned(), made)].into())
            }
        }
    }

    /// A value of a Secret: as just made, or else as read.
    fn latest(&self, name: &str, key: &str) -> Option<&SecretBytes> {
        match self.made.get(name) {
            Some(made) => made.get(key).filter(|value| !value.is_empty()),
            None => self.seen.get(name)?.get(key),
        }
    }

    fn passwords(&self, login: &Login) -> Passwords {
        let secret = login.secret.as_ref();
        let usable = |key: &str| {
            let value = self.latest(&secret?.0, key);
            value.filter(|value| is_password(value)).cloned()
        };
        Passwords {
            present: secret.and_then(|(_, key)| usable(key)),
            next: usable(NEXT_PASSWORD),
        }
    }

    /// Records the present contents of a Secret, for recipes that use it.
    pub fn note(&mut self, name: &str, contents: Contents) {
        self.made.insert(name.to_owned(), contents);
    }

    fn value(
        &self,
        key: &str,
        value: &Value,
        before: Option<&ObservedSecret>,
    ) -> Result<SecretBytes, Error> {
        match value {
            Value::Text(text) => Ok(SecretBytes::new(text.as_bytes())),
            Value::Given(bytes) => Ok(bytes.clone()),
            Value::Password => match before.and_then(|before| before.get(key)) {
                Some(password) if is_password(password) => Ok(password.clone()),
                _ => random::password(),
            },
            Value::NewPassword => random::password(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{facts::secrets::SecretOwner, render::secrets::OPAQUE};

    fn seen(contents: Contents) -> ObservedSecret {
        ObservedSecret {
            uid: "u".to_owned(),
            resource_version: "1".to_owned(),
            secret_type: OPAQUE.to_owned(),
            owner: SecretOwner::Ours,
            immutable: false,
            deleting: false,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            changed_at: None,
            data: contents,
        }
    }

    #[test]
    fn a_password_is_made_once_and_again_if_it_is_unusable() {
        let wanted = PlannedSecret {
            name: "s".to_owned(),
            secret_type: OPAQUE,
            is_mounted: false,
            annotations: BTreeMap::new(),
            recipe: Recipe::Values {
                values: [
                    ("username".to_owned(), Value::Text("x".to_owned())),
                    ("password".to_owned(), Value::Password),
                ]
                .into(),
            },
        };
        let none = BTreeMap::new();
        let maker = Maker::new(&none);
        let first = maker.make(&wanted, None).unwrap();
        let password = first["password"].expose_text().unwrap();
        assert_eq!((password.len(), first.len()), (64, 2));
        assert!(password.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(maker.make(&wanted, None).unwrap(), first, "random");
        let again = maker.make(&wanted, Some(&seen(first.clone()))).unwrap();
        assert_eq!(again, first);
        for bad in [&b""[..], b"\xff\xfe", b"line\nbreak"] {
            let mut broken = first.clone();
            broken.insert("password".to_owned(), SecretBytes::new(bad));
            broken.insert("added".to_owned(), SecretBytes::new(*b"by hand"));
            let repaired = maker.make(&wanted, Some(&seen(broken))).unwrap();
            assert_eq!(repaired["password"].expose().len(), 64, "{bad:?}");
            assert!(!repaired.contains_key("added"));
        }
    }
}
