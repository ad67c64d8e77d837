//! The parser of flags, with the grammar of Go's `flag` package, and the usage text.
//!
//! `-x v`, `-x=v` and `--x v` mean the same; a switch takes a value only after `=`. Flags end at the first
//! argument that is not a flag, or at `--`. The last one of a repeated flag counts.
use std::{ffi::OsString, fmt::Write};

use super::{
    flag::{Field, Flag},
    table::FLAGS,
    values::Config,
};

/// The result of parsing.
#[derive(Debug)]
pub(super) enum Read {
    /// The arguments after the flags.
    Words(Vec<String>),
    /// Help was requested.
    Help,
}

/// Parses flags into a configuration that holds the defaults. Continues after an invalid value, to report all
/// of them; stops at an unknown flag, because the next argument may belong to it.
pub(super) fn read(
    args: impl IntoIterator<Item = OsString>,
    config: &mut Config,
) -> Result<Read, Vec<String>> {
    let mut args = args.into_iter().map(into_text);
    let mut errors = Vec::new();
    let mut words = Vec::new();
    while let Some(arg) = args.next() {
        let arg = arg.map_err(|error| vec![error])?;
        let Some(flag) = flag_of(&arg) else {
            words.extend((arg != "--").then_some(Ok(arg)));
            words.extend(args.by_ref());
            break;
        };
        match read_flag(flag, &arg, &mut args, config) {
            Ok(()) => {}
            Err(Stop::Help) => return Ok(Read::Help),
            Err(Stop::Value(error)) => errors.push(error),
            Err(Stop::Grammar(error)) => {
                errors.push(error);
                return Err(errors);
            }
        }
    }
    let words: Result<Vec<String>, String> = words.into_iter().collect();
    match words {
        Ok(words) if errors.is_empty() => Ok(Read::Words(words)),
        Ok(_) => Err(errors),
        Err(error) => {
            errors.push(error);
            Err(errors)
        }
    }
}

fn into_text(arg: OsString) -> Result<String, String> {
    arg.into_string()
        .map_err(|arg| format!("argument is not valid UTF-8: {}", arg.display()))
}

/// The part of an argument after its dashes, if it is a flag.
fn flag_of(arg: &str) -> Option<&str> {
    let flag = arg.strip_prefix('-')?;
    let flag = flag.strip_prefix('-').unwrap_or(flag);
    (!flag.is_empty()).then_some(flag)
}

/// Why parsing does not continue normally.
enum Stop {
    Help,
    /// The value is invalid, but the arguments after it are clear.
    Value(String),
    /// The meaning of the following arguments is unclear.
    Grammar(String),
}

fn read_flag(
    flag: &str,
    arg: &str,
    args: &mut impl Iterator<Item = Result<String, String>>,
    config: &mut Config,
) -> Result<(), Stop> {
    if flag.starts_with(['-', '=']) {
        return Err(Stop::Grammar(format!("bad flag syntax: {arg}")));
    }
    let (name, value) = match flag.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (flag, None),
    };
    let Some(known) = FLAGS.iter().find(|known| known.name == name) else {
        return Err(match name {
            "h" | "help" => Stop::Help,
            _ => Stop::Grammar(format!("flag provided but not defined: -{name}")),
        });
    };
    let is_switch = matches!(known.field, Field::Switch(..));
    let value = match value {
        Some(value) => value,
        None if is_switch => "true".to_owned(),
        None => match args.next() {
            Some(value) => value.map_err(Stop::Grammar)?,
            None => return Err(Stop::Grammar(format!("flag needs an argument: -{name}"))),
        },
    };
    config.given.push(known.name);
    known.field.set(config, &value).map_err(|why| {
        Stop::Value(if is_switch {
            format!("invalid boolean value {value:?} for -{name}: {why}")
        } else {
            format!("invalid value {value:?} for flag -{name}: {why}")
        })
    })
}

/// The usage text: all flags with type, help and default, sorted by name. No newline at the end.
pub(super) fn usage() -> String {
    let mut flags: Vec<&Flag> = FLAGS.iter().collect();
    flags.sort_by_key(|flag| flag.name);
    let mut text =
        "rqlited runs one node of a SQLite database that Raft replicates.\n\nUsage: rqlited [flags] <data directory>\n"
            .to_owned();
    for flag in flags {
        let (kind, default) = flag.field.describe();
        let space = if kind.is_empty() { "" } else { " " };
        let default = default.map_or_else(String::new, |default| format!(" (default {default})"));
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n  -{}{space}{kind}\n    \t{}{default}",
            flag.name, flag.help
        );
    }
    text
}

#[cfg(test)]
mod tests;
