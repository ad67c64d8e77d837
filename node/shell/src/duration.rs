//! Durations as rqlite's flags write them: Go's form, such as `30s`, `1.5s` or `1m30s`.

use std::time::Duration;

/// Nanoseconds in each unit. `µ` exists twice in Unicode (micro sign, Greek mu) and both are in use.
const UNITS: [(&str, f64); 8] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("μs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3600e9),
];

/// The largest accepted duration in nanoseconds, which is Go's: about 292 years.
const MAX_NANOS: f64 = i64::MAX as f64;

/// Parses a duration that is not negative. A bare number is refused, except `0`.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let invalid = || format!("invalid duration {text:?}");
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    if unsigned == "0" {
        return Ok(Duration::ZERO);
    }
    if unsigned.is_empty() {
        return Err(invalid());
    }
    let mut rest = unsigned;
    let mut nanos = 0.0;
    while !rest.is_empty() {
        let digits = prefix_length(rest, |c| c.is_ascii_digit() || c == '.');
        let (number, tail) = rest.split_at(digits);
        let (unit, tail) = tail.split_at(prefix_length(tail, |c| !c.is_ascii_digit() && c != '.'));
        let number: f64 = number.parse().map_err(|_| invalid())?;
        let (_, factor) = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(invalid)?;
        nanos += number * factor;
        rest = tail;
    }
    if nanos > MAX_NANOS {
        return Err(invalid());
    }
    Ok(Duration::from_nanos(nanos.round() as u64))
}

fn prefix_length(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_forms_are_understood() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("300ms", 300),
            ("1.5s", 1500),
            (".5s", 500),
            ("+2s", 2000),
            ("1m30s", 90_000),
            ("2h45m", 9_900_000),
            ("1500us", 1),
            ("1500µs", 1),
        ] {
            assert_eq!(parse(text).map(|d| d.as_millis()), Ok(millis), "{text}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "",
            "+",
            "30",
            "s",
            "1d",
            "1s2",
            "-1s",
            "1.2.3s",
            "1 s",
            "300000000h",
        ] {
            assert_eq!(
                parse(text),
                Err(format!("invalid duration {text:?}")),
                "{text}"
            );
        }
    }
}
