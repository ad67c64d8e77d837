//! A flag: its name, its type with the field of [`Config`] that holds its value, and its help text.
use std::{path::PathBuf, time::Duration};

use node_contract::duration;

use super::values::Config;

/// The type of a flag's value, the field that holds it, and its default.
pub(super) enum Field {
    Switch(fn(&mut Config) -> &mut bool, bool),
    Text(fn(&mut Config) -> &mut String, &'static str),
    Path(fn(&mut Config) -> &mut Option<PathBuf>),
    List(fn(&mut Config) -> &mut Vec<String>),
    Count(fn(&mut Config) -> &mut u32, u32),
    Size(fn(&mut Config) -> &mut u64, u64),
    Period(fn(&mut Config) -> &mut Duration, Duration),
    /// A duration; off if the flag is not given.
    Limit(fn(&mut Config) -> &mut Option<Duration>),
}

/// One flag.
pub(super) struct Flag {
    pub(super) name: &'static str,
    pub(super) field: Field,
    pub(super) help: &'static str,
}

pub(super) const PARSE_ERROR: &str = "parse error";
pub(super) const OUT_OF_RANGE: &str = "value out of range";

impl Field {
    /// Sets the default.
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

    pub(super) fn set(&self, config: &mut Config, value: &str) -> Result<(), &'static str> {
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

    /// The name of the type in the usage text, and the default unless it is empty.
    pub(super) fn describe(&self) -> (&'static str, Option<String>) {
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

pub(super) fn parse_count(value: &str) -> Result<u32, &'static str> {
    if let Some(digits) = value.strip_prefix('-') {
        return match parse_unsigned(digits)? {
            0 => Ok(0),
            _ => Err(OUT_OF_RANGE),
        };
    }
    let number = parse_unsigned(value.strip_prefix('+').unwrap_or(value))?;
    u32::try_from(number).map_err(|_| OUT_OF_RANGE)
}

/// A decimal number, or one with the prefix `0x`, `0o`, `0` or `0b`, which may have single underscores
/// between digits.
pub(super) fn parse_unsigned(value: &str) -> Result<u64, &'static str> {
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
