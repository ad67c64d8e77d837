//! Makes the contents of Secrets from recipes. What is there and fits is kept, so that nothing is made twice.
use std::collections::BTreeMap;

use rand::{TryRngCore as _, rngs::OsRng};

use super::certificates;
use crate::{
    cluster::{
        facts::secrets::{ObservedSecret, SecretBytes},
        render::secrets::{PlannedSecret, Recipe, Value},
    },
    error::Error,
};

/// Bytes of a random password: 256 bits, so that no hash of it can be searched for.
const PASSWORD_BYTES: usize = 32;

/// Keys and values of one Secret.
pub type Contents = BTreeMap<String, SecretBytes>;

/// Makes the Secrets of one cluster in their order.
#[derive(Debug, Default)]
pub struct Maker {
    /// What the Secrets contain that were made, or found as they should be.
    made: BTreeMap<String, Contents>,
}

impl Maker {
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
        }
    }

    /// Records what a Secret contains by now, for those that come after it.
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
                _ => random_password(),
            },
        }
    }
}

/// Can this be sent as a password? Nodes compare bytes, HTTP carries text, and nobody types a line break.
fn is_password(bytes: &SecretBytes) -> bool {
    let text = bytes.expose_text();
    text.is_some_and(|text| !text.is_empty() && !text.chars().any(char::is_control))
}

/// A random password, in hexadecimal: it needs no quoting anywhere.
fn random_password() -> Result<SecretBytes, Error> {
    let mut bytes = [0; PASSWORD_BYTES];
    let filled = OsRng.try_fill_bytes(&mut bytes);
    filled.map_err(|error| Error::NoRandomness(error.to_string()))?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(SecretBytes::new(text))
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
            data: contents,
        }
    }

    #[test]
    fn a_password_is_made_once_and_again_if_it_is_unusable() {
        let wanted = PlannedSecret {
            name: "s".to_owned(),
            secret_type: OPAQUE,
            is_mounted: false,
            recipe: Recipe::Values {
                values: [
                    ("username".to_owned(), Value::Text("x".to_owned())),
                    ("password".to_owned(), Value::Password),
                ]
                .into(),
            },
        };
        let maker = Maker::default();
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
