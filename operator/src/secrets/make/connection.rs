//! The Secret by which an application connects, with the keys of the Service Binding specification and
//! further common ones.
use super::random::password as random_password;
use crate::{
    cluster::{
        facts::{
            authentication::{NEXT_PASSWORD, PASSWORD, is_password},
            secrets::{Contents, ObservedSecret, SecretBytes},
        },
        render::secrets::Connection,
    },
    error::Error,
};

/// The contents, given those that are there. `given`: the password that a person keeps elsewhere;
/// `authority`: certificates by which clients know the server; `is_accepted`: do nodes accept this password
/// already? Returns None while there is no password yet.
///
/// # Errors
/// The machine has no random numbers.
pub(super) fn contents(
    asked: &Connection,
    before: Option<&ObservedSecret>,
    given: Option<&SecretBytes>,
    authority: Option<&SecretBytes>,
    is_accepted: impl Fn(&SecretBytes) -> bool,
) -> Result<Contents, Error> {
    let there = |key: &str| {
        let value = before.and_then(|before| before.get(key));
        value.filter(|value| is_password(value)).cloned()
    };
    let (mut present, mut next) = (there(PASSWORD), there(NEXT_PASSWORD));
    if asked.password.is_some() {
        // If the person's Secret has no password for a moment, the present one stays.
        present = given
            .filter(|given| is_password(given))
            .cloned()
            .or(present);
        next = None;
    } else if present.is_none() {
        present = Some(next.take().map_or_else(random_password, Ok)?);
    } else if let Some(ready) = next.take_if(|next| asked.publishes && is_accepted(next)) {
        present = Some(ready);
    } else if next.is_none() && asked.rotates {
        next = Some(random_password()?);
    }
    let mut all = Contents::new();
    let mut put = |key: &str, value: &str| {
        all.insert(key.to_owned(), SecretBytes::new(value.as_bytes()));
    };
    put("type", "rqlite");
    put("provider", "rqlite-operator");
    put("host", &asked.host);
    put("port", &asked.port.to_string());
    put("username", &asked.user);
    put("user", &asked.user);
    let scheme = if asked.tls { "https" } else { "http" };
    let (host, port) = (&asked.host, asked.port);
    if let Some(password) = present.as_ref().and_then(SecretBytes::expose_text) {
        let (user, password) = (encoded(&asked.user), encoded(password));
        put(
            "uri",
            &format!("{scheme}://{user}:{password}@{host}:{port}"),
        );
    }
    let mut secret = |key: &str, value: Option<SecretBytes>| {
        all.extend(value.map(|value| (key.to_owned(), value)));
    };
    secret(PASSWORD, present);
    secret(NEXT_PASSWORD, next);
    secret("ca.crt", authority.filter(|_| asked.tls).cloned());
    Ok(all)
}

/// Percent-encoded for the part of a URI before the host.
fn encoded(text: &str) -> String {
    let mut all = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                all.push(char::from(byte));
            }
            _ => all.push_str(&format!("%{byte:02X}")),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::facts::secrets::SecretOwner;

    fn asked() -> Connection {
        Connection {
            user: "app".to_owned(),
            host: "demo-client.shop.svc.cluster.local".to_owned(),
            port: 4001,
            tls: false,
            authority: None,
            password: None,
            users: "demo-rqlite-users".to_owned(),
            rotates: false,
            publishes: false,
        }
    }

    fn seen(data: Contents) -> ObservedSecret {
        ObservedSecret {
            uid: "u".to_owned(),
            resource_version: "1".to_owned(),
            secret_type: "servicebinding.io/rqlite".to_owned(),
            owner: SecretOwner::Ours,
            immutable: false,
            deleting: false,
            labels: std::collections::BTreeMap::new(),
            annotations: std::collections::BTreeMap::new(),
            changed_at: None,
            data,
        }
    }

    #[test]
    fn applications_find_what_they_know() {
        let given = SecretBytes::new("p@ss/ü:");
        let ca = SecretBytes::new("PEM");
        let connection = Connection {
            tls: true,
            password: Some(("mine".to_owned(), "key".to_owned())),
            ..asked()
        };
        let made = contents(&connection, None, Some(&given), Some(&ca), |_| false).unwrap();
        let text = |key: &str| made.get(key).and_then(SecretBytes::expose_text);
        assert_eq!(
            text("uri"),
            Some("https://app:p%40ss%2F%C3%BC%3A@demo-client.shop.svc.cluster.local:4001")
        );
        assert_eq!(text("password"), Some("p@ss/ü:"));
        assert_eq!((text("type"), text("port")), (Some("rqlite"), Some("4001")));
        assert_eq!((text("user"), text("username")), (Some("app"), Some("app")));
        assert_eq!(text("ca.crt"), Some("PEM"));
        let gone = contents(
            &connection,
            Some(&seen(made.clone())),
            None,
            Some(&ca),
            |_| false,
        );
        assert_eq!(gone.unwrap(), made, "its Secret is gone for a moment");
    }

    #[test]
    fn a_password_is_rotated_in_steps() {
        let make = |asked: &Connection, before: Option<&Contents>, accepted: bool| {
            let before = before.cloned().map(seen);
            contents(asked, before.as_ref(), None, None, |_| accepted).unwrap()
        };
        let first = make(&asked(), None, false);
        assert!(
            first["uri"]
                .expose_text()
                .unwrap()
                .starts_with("http://app:")
        );
        assert_eq!(make(&asked(), Some(&first), true), first);
        let rotating = Connection {
            rotates: true,
            ..asked()
        };
        let both = make(&rotating, Some(&first), false);
        assert_eq!(both["password"], first["password"]);
        assert_ne!(both["next-password"], first["password"]);
        assert_eq!(make(&rotating, Some(&both), false), both, "once");
        let publishing = Connection {
            publishes: true,
            ..asked()
        };
        assert_eq!(
            make(&publishing, Some(&both), false),
            both,
            "not accepted yet"
        );
        let done = make(&publishing, Some(&both), true);
        assert_eq!(done["password"], both["next-password"]);
        assert!(!done.contains_key("next-password") && done["uri"] != first["uri"]);
    }
}
