//! `rqlited hash-password`: prints the hash of a password for the credentials file. The password comes from a
//! prompt or from standard input, never from an argument, which others could see in the list of processes.
use std::{
    ffi::OsString,
    io::{self, BufRead, IsTerminal, Read},
};

use clap::{Parser, error::ErrorKind};

use crate::{
    auth::{Algorithm, hash_password},
    inspect::CommandOutput,
};

/// Longest password that is read.
const MAX_BYTES: u64 = 4096;

#[derive(Debug, Parser)]
#[command(
    name = "rqlited hash-password",
    about = "Prints the hash of a password, for \"password\" or \"previous_passwords\" in the file of -auth.\n\nReads the password from a prompt, or one line from standard input if that is not a terminal.",
    after_help = "Example: rqlited hash-password < password.txt\n\nExit codes: 0 done; 1 failed; 2 wrong command line."
)]
struct Args {
    /// How to hash it.
    #[arg(long, value_enum, default_value_t = Algorithm::Argon2id)]
    algorithm: Algorithm,
}

/// Runs the subcommand; `arguments` are those after the word `hash-password`.
pub fn run(arguments: impl Iterator<Item = OsString>) -> CommandOutput {
    let words = std::iter::once(OsString::from("rqlited hash-password")).chain(arguments);
    let args = match Args::try_parse_from(words) {
        Ok(args) => args,
        // What was given may be the password, so it is not printed.
        Err(error) if error.kind() == ErrorKind::UnknownArgument => {
            return CommandOutput {
                exit_code: 2,
                text: "the password is never an argument: others can see it there, and shells keep it. Start it without one and type the password, or give it by standard input. See --help".to_owned(),
                is_error: true,
            };
        }
        Err(error) => return CommandOutput::of_clap(&error),
    };
    let stdin = io::stdin();
    let password = if stdin.is_terminal() {
        prompted()
    } else {
        one_line(stdin.lock())
    };
    let hashed = password.and_then(|password| hash_password(&password, args.algorithm));
    let (exit_code, is_error) = (u8::from(hashed.is_err()), hashed.is_err());
    CommandOutput {
        exit_code,
        text: hashed.unwrap_or_else(|error| format!("fatal: {error}")),
        is_error,
    }
}

fn prompted() -> Result<String, String> {
    let ask = |prompt| {
        rpassword::prompt_password(prompt).map_err(|error| format!("reading the password: {error}"))
    };
    let password = checked(ask("Password: ")?)?;
    if ask("The same again: ")? == password {
        Ok(password)
    } else {
        Err("the two passwords differ; nothing was hashed".to_owned())
    }
}

/// One line without its end. Anything after it is an error, because it may have been meant as a part of the
/// password.
fn one_line(input: impl BufRead) -> Result<String, String> {
    let mut bytes = Vec::new();
    input
        .take(MAX_BYTES + 3)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("reading the password: {error}"))?;
    let text = String::from_utf8(bytes).map_err(|_| "the password is not UTF-8".to_owned())?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.contains('\n') {
        return Err("standard input has more than one line; give the password alone".to_owned());
    }
    checked(line.to_owned())
}

fn checked(password: String) -> Result<String, String> {
    if password.is_empty() {
        return Err("the password is empty".to_owned());
    }
    if password.len() as u64 > MAX_BYTES {
        return Err(format!("the password is longer than {MAX_BYTES} bytes"));
    }
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_the_password() {
        let long = "x".repeat(4096);
        for (text, password) in [
            ("secret", "secret"),
            ("secret\n", "secret"),
            ("secret\r\n", "secret"),
            (" a:b \n", " a:b "),
            (&long, long.as_str()),
        ] {
            assert_eq!(one_line(text.as_bytes()), Ok(password.to_owned()));
        }
        for (text, why) in [
            (&b""[..], "empty"),
            (b"\n", "empty"),
            (b"a\nb", "more than one line"),
            (b"a\n\n", "more than one line"),
            (b"\xff\n", "UTF-8"),
            ((long.clone() + "x").as_bytes(), "longer than"),
            ("x".repeat(9999).as_bytes(), "longer than"),
        ] {
            assert!(one_line(text).unwrap_err().contains(why), "{why}");
        }
    }

    #[test]
    fn the_password_is_no_argument() {
        let words = |words: &[&str]| {
            run(words
                .iter()
                .map(OsString::from)
                .collect::<Vec<_>>()
                .into_iter())
        };
        let refused = words(&["hunter2"]);
        assert_eq!(refused.exit_code, 2);
        assert!(!refused.text.contains("hunter2"), "{}", refused.text);
        assert_eq!(words(&["--algorithm", "md5"]).exit_code, 2);
        assert_eq!(words(&["--help"]).exit_code, 0);
    }
}
