//! As which user the shell logs in: from flags, a file, or the environment. Decides only; the prompt is in
//! `run.rs`. A password in an argument is visible in the list of processes, so there are other ways.

use std::fmt;

/// What was given.
#[derive(Default)]
pub(crate) struct Given<'a> {
    /// `-u`: `name:password` or `name`; empty if not given.
    pub(crate) flag: &'a str,
    /// Content of `--user-file`.
    pub(crate) file: Option<&'a str>,
    /// `RQLITE_USER`.
    pub(crate) variable: Option<&'a str>,
    /// `RQLITE_PASSWORD`.
    pub(crate) password: Option<&'a str>,
}

/// The user.
#[derive(Default, PartialEq, Eq)]
pub(crate) enum User {
    /// Without credentials.
    #[default]
    Anonymous,
    /// Name and password.
    Known(String, String),
    /// A name whose password has to be prompted for.
    Named(String),
}

impl fmt::Debug for User {
    /// Does not show the password.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            User::Anonymous => out.write_str("Anonymous"),
            User::Known(name, _) => write!(out, "Known({name:?}, …)"),
            User::Named(name) => write!(out, "Named({name:?})"),
        }
    }
}

const FORMAT: &str = "invalid Basic Auth credential format";

/// Chooses the user.
pub(crate) fn choose(given: &Given<'_>) -> Result<User, String> {
    if let Some(file) = given.file {
        if !given.flag.is_empty() {
            return Err("give either --user or --user-file, not both".to_owned());
        }
        return of_file(file);
    }
    let name = match (given.flag, given.variable) {
        ("", None | Some("")) => return Ok(User::Anonymous),
        ("", Some(name)) if name.contains(':') => {
            return Err(
                "RQLITE_USER is a name alone; the password goes into RQLITE_PASSWORD".to_owned(),
            );
        }
        ("", Some(name)) => name,
        (flag, _) => match flag.split_once(':') {
            None => flag,
            Some((_, password)) if password.contains(':') => {
                return Err(format!(
                    "{FORMAT}: a password with a colon goes into --user-file or RQLITE_PASSWORD"
                ));
            }
            Some((name, password)) => {
                return Ok(User::Known(name.to_owned(), password.to_owned()));
            }
        },
    };
    Ok(match given.password {
        Some(password) => User::Known(name.to_owned(), password.to_owned()),
        None => User::Named(name.to_owned()),
    })
}

/// One line `name:password`; the password may have colons.
fn of_file(text: &str) -> Result<User, String> {
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    match line.split_once(':') {
        Some((name, password)) if !line.contains('\n') && !name.is_empty() => {
            Ok(User::Known(name.to_owned(), password.to_owned()))
        }
        _ => Err("the file of --user-file must hold one line: name:password".to_owned()),
    }
}

/// Why there is no password.
pub(crate) fn no_password(name: &str) -> String {
    format!(
        "{FORMAT}: no password for user {name}; set RQLITE_PASSWORD, use --user-file, or run the shell at a terminal"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str, password: &str) -> Result<User, String> {
        Ok(User::Known(name.to_owned(), password.to_owned()))
    }

    fn flag(flag: &str) -> Result<User, String> {
        choose(&Given {
            flag,
            ..Given::default()
        })
    }

    #[test]
    fn flags_go_before_the_environment() {
        assert_eq!(flag(""), Ok(User::Anonymous));
        assert_eq!(flag("bob:pw"), known("bob", "pw"));
        assert_eq!(flag("bob:"), known("bob", ""));
        assert_eq!(flag("bob"), Ok(User::Named("bob".to_owned())));
        assert!(flag("a:b:c").unwrap_err().starts_with(FORMAT));
        let with = |flag, variable, password| {
            choose(&Given {
                flag,
                file: None,
                variable,
                password,
            })
        };
        assert_eq!(with("bob", None, Some("p:w")), known("bob", "p:w"));
        assert_eq!(with("bob:x", Some("eve"), Some("y")), known("bob", "x"));
        assert_eq!(with("", Some("eve"), Some("y")), known("eve", "y"));
        assert_eq!(
            with("", Some("eve"), None),
            Ok(User::Named("eve".to_owned()))
        );
        assert_eq!(with("", None, Some("y")), Ok(User::Anonymous));
        assert!(with("", Some("eve:y"), None).is_err());
    }

    #[test]
    fn a_file_has_one_line() {
        let file = |text| {
            choose(&Given {
                file: Some(text),
                ..Given::default()
            })
        };
        assert_eq!(file("bob:p:w\n"), known("bob", "p:w"));
        assert_eq!(file("bob: pw \r\n"), known("bob", " pw "));
        for text in ["", "bob", ":pw", "bob:pw\neve:pw\n"] {
            assert!(file(text).unwrap_err().contains("one line"), "{text:?}");
        }
        let both = Given {
            flag: "bob:pw",
            file: Some("bob:pw"),
            ..Given::default()
        };
        assert!(choose(&both).unwrap_err().contains("not both"));
    }
}
