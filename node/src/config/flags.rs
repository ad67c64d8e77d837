//! The grammar of flags, as Go's `flag` package has it, and the usage text.
//!
//! `-x v`, `-x=v` and `--x` mean the same; a switch takes a value only after `=`. Flags end at the first word that is
//! none, or at `--`. Of a repeated flag the last one counts.
use std::ffi::OsString;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use node_contract::duration;

use super::Config;
use super::table::FLAGS;

/// Where a flag's value is kept, of what type it is, and its default.
pub(super) enum Field {
    Switch(fn(&mut Config) -> &mut bool, bool),
    Text(fn(&mut Config) -> &mut String, &'static str),
    Path(fn(&mut Config) -> &mut Option<PathBuf>),
    List(fn(&mut Config) -> &mut Vec<String>),
    Count(fn(&mut Config) -> &mut u32, u32),
    Size(fn(&mut Config) -> &mut u64, u64),
    Period(fn(&mut Config) -> &mut Duration, Duration),
    /// A duration whose absence means off.
    Limit(fn(&mut Config) -> &mut Option<Duration>),
}

/// One flag.
pub(super) struct Flag {
    pub(super) name: &'static str,
    pub(super) field: Field,
    pub(super) help: &'static str,
}

/// What was read.
#[derive(Debug)]
pub(super) enum Read {
    /// The words after the flags.
    Words(Vec<String>),
    /// Help was asked for.
    Help,
}

/// Reads flags into a configuration that holds the defaults. Goes on after a wrong value, to report all of them; stops
/// at an unknown flag, because nobody knows whether the next word belongs to it.
pub(super) fn read(
    args: impl IntoIterator<Item = OsString>,
    config: &mut Config,
) -> Result<Read, Vec<String>> {
    let mut args = args.into_iter().map(into_text);
    let mut mistakes = Vec::new();
    let mut words = Vec::new();
    while let Some(arg) = args.next() {
        let arg = arg.map_err(|mistake| vec![mistake])?;
        let Some(flag) = flag_of(&arg) else {
            words.extend((arg != "--").then_some(Ok(arg)));
            words.extend(args.by_ref());
            break;
        };
        match read_flag(flag, &arg, &mut args, config) {
            Ok(()) => {}
            Err(Stop::Help) => return Ok(Read::Help),
            Err(Stop::Value(mistake)) => mistakes.push(mistake),
            Err(Stop::Grammar(mistake)) => {
                mistakes.push(mistake);
                return Err(mistakes);
            }
        }
    }
    let words: Result<Vec<String>, String> = words.into_iter().collect();
    match words {
        Ok(words) if mistakes.is_empty() => Ok(Read::Words(words)),
        Ok(_) => Err(mistakes),
        Err(mistake) => {
            mistakes.push(mistake);
            Err(mistakes)
        }
    }
}

fn into_text(arg: OsString) -> Result<String, String> {
    arg.into_string()
        .map_err(|arg| format!("argument is not valid UTF-8: {}", arg.display()))
}

/// The part of a word after its dashes, if it is a flag.
fn flag_of(arg: &str) -> Option<&str> {
    let flag = arg.strip_prefix('-')?;
    let flag = flag.strip_prefix('-').unwrap_or(flag);
    (!flag.is_empty()).then_some(flag)
}

/// Why reading flags does not simply go on.
enum Stop {
    Help,
    /// The value is wrong, but the words after it are clear.
    Value(String),
    /// What the following words mean is unclear.
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

const PARSE_ERROR: &str = "parse error";
const OUT_OF_RANGE: &str = "value out of range";

impl Field {
    /// Puts the default in place.
    pub(super) fn reset(&self, config: &mut Config) {
        match self {
            Self::Switch(field, default) => *field(config) = *default,
            Self::Text(field, default) => *field(config) = (*default).to_owned(),
            Self::Path(field) => *field(config) = None,
            Self::List(field) => field(config).clear(),
            Self::Count(field, default) => *field(config) = *default,
            Self::Size(field, default) => *field(config) = *default,
            Self::Period(field, default) => *field(config) = *default,
            Self::Limit(field) => *field(config) = None,
        }
    }

    fn set(&self, config: &mut Config, value: &str) -> Result<(), &'static str> {
        match self {
            Self::Switch(field, _) => *field(config) = parse_bool(value)?,
            Self::Text(field, _) => *field(config) = value.to_owned(),
            Self::Path(field) => *field(config) = (!value.is_empty()).then(|| PathBuf::from(value)),
            Self::List(field) => {
                *field(config) = value
                    .split(',')
                    .filter(|part| !part.is_empty())
                    .map(str::to_owned)
                    .collect();
            }
            Self::Count(field, _) => *field(config) = parse_count(value)?,
            Self::Size(field, _) => *field(config) = parse_unsigned(value)?,
            Self::Period(field, _) => *field(config) = parse_duration(value)?,
            Self::Limit(field) => *field(config) = Some(parse_duration(value)?),
        }
        Ok(())
    }

    /// The type's name in the usage text, and the default unless it is empty.
    fn describe(&self) -> (&'static str, Option<String>) {
        match self {
            Self::Switch(_, default) => ("", default.then(|| "true".to_owned())),
            Self::Text(_, default) => (
                "string",
                (!default.is_empty()).then(|| format!("{default:?}")),
            ),
            Self::Path(_) => ("path", None),
            Self::List(_) => ("list", None),
            Self::Count(_, default) => ("int", (*default != 0).then(|| default.to_string())),
            Self::Size(_, default) => ("uint", (*default != 0).then(|| default.to_string())),
            Self::Period(_, default) => (
                "duration",
                (!default.is_zero()).then(|| duration::format(*default)),
            ),
            Self::Limit(_) => ("duration", None),
        }
    }
}

fn parse_bool(value: &str) -> Result<bool, &'static str> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(PARSE_ERROR),
    }
}

fn parse_duration(value: &str) -> Result<Duration, &'static str> {
    duration::parse(value).map_err(|_| PARSE_ERROR)
}

fn parse_count(value: &str) -> Result<u32, &'static str> {
    if let Some(digits) = value.strip_prefix('-') {
        return match parse_unsigned(digits)? {
            0 => Ok(0),
            _ => Err(OUT_OF_RANGE),
        };
    }
    let number = parse_unsigned(value.strip_prefix('+').unwrap_or(value))?;
    u32::try_from(number).map_err(|_| OUT_OF_RANGE)
}

/// Decimal, or with a prefix `0x`, `0o`, `0` or `0b`; single underscores between digits are allowed with a prefix.
fn parse_unsigned(value: &str) -> Result<u64, &'static str> {
    let lower = value.to_ascii_lowercase();
    let prefixed = [("0x", 16), ("0o", 8), ("0b", 2), ("0", 8)]
        .into_iter()
        .find_map(|(prefix, radix)| lower.strip_prefix(prefix).map(|rest| (rest, radix)))
        .filter(|(rest, _)| !rest.is_empty());
    let Some((digits, radix)) = prefixed else {
        return from_digits(&lower, 10);
    };
    let digits = digits.strip_prefix('_').unwrap_or(digits);
    if digits.ends_with('_') || digits.contains("__") {
        return Err(PARSE_ERROR);
    }
    from_digits(&digits.replace('_', ""), radix)
}

fn from_digits(digits: &str, radix: u32) -> Result<u64, &'static str> {
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Err(PARSE_ERROR);
    }
    u64::from_str_radix(digits, radix).map_err(|_| OUT_OF_RANGE)
}

/// How the program is used: every flag with its type, meaning and default, by name. No newline at the end.
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
