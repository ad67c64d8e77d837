//! Durations as Go reads and prints them: `1m30s`, `334.866µs`, `10s`, `0s`.
use std::time::Duration;

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
/// Digits of a fraction that can matter: an hour has fewer than 10^13 nanoseconds.
const MAX_FRACTION_DIGITS: usize = 18;

/// Not a duration: a unit is missing (only zero may stand bare) or unknown, or the value passes ±292 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid duration")]
pub struct DurationError;

/// Reads a duration into signed nanoseconds: an optional sign, then numbers with units (`ns`, `us`, `µs`,
/// `ms`, `s`, `m`, `h`), such as `1.5h` or `2h45m`; or a bare `0`.
///
/// # Errors
/// See [`DurationError`].
pub fn parse_nanos(text: &str) -> Result<i64, DurationError> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(DurationError);
    }
    let mut total = 0_u64;
    while !rest.is_empty() {
        let (nanos, left) = parse_component(rest)?;
        total = total.checked_add(nanos).ok_or(DurationError)?;
        rest = left;
    }
    let signed = if negative {
        0_i64.checked_sub_unsigned(total)
    } else {
        i64::try_from(total).ok()
    };
    signed.ok_or(DurationError)
}

/// One number with its unit, and what follows it.
fn parse_component(text: &str) -> Result<(u64, &str), DurationError> {
    let (whole, rest) = split_digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => split_digits(rest),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(DurationError);
    }
    let unit_end = rest
        .find(|c: char| c == '.' || c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_end);
    let unit = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => MICROSECOND,
        "ms" => MILLISECOND,
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        _ => return Err(DurationError),
    };
    let mut nanos = 0;
    if !whole.is_empty() {
        let whole: u64 = whole.parse().map_err(|_| DurationError)?;
        nanos = whole.checked_mul(unit).ok_or(DurationError)?;
    }
    let fraction = &fraction[..fraction.len().min(MAX_FRACTION_DIGITS)];
    let mut part = 0_u128;
    let mut scale = 1_u128;
    for digit in fraction.bytes() {
        part = part * 10 + u128::from(digit - b'0');
        scale *= 10;
    }
    let part = u64::try_from(part * u128::from(unit) / scale).map_err(|_| DurationError)?;
    Ok((nanos.checked_add(part).ok_or(DurationError)?, rest))
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(
        text.find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len()),
    )
}

/// Reads a duration where a negative one means the same as none: it becomes zero.
///
/// # Errors
/// See [`DurationError`].
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    parse_nanos(text).map(|nanos| u64::try_from(nanos).map_or(Duration::ZERO, Duration::from_nanos))
}

/// Prints a duration: hours, minutes and seconds from one second on, a single smaller unit below. Durations
/// beyond 584 years print as that.
pub fn format(duration: Duration) -> String {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    match nanos {
        0 => "0s".to_owned(),
        1..MICROSECOND => format!("{nanos}ns"),
        MICROSECOND..MILLISECOND => format!("{}µs", decimal(nanos, MICROSECOND)),
        MILLISECOND..SECOND => format!("{}ms", decimal(nanos, MILLISECOND)),
        SECOND..MINUTE => format!("{}s", decimal(nanos, SECOND)),
        MINUTE..HOUR => format!("{}m{}s", nanos / MINUTE, decimal(nanos % MINUTE, SECOND)),
        _ => {
            let (hours, rest) = (nanos / HOUR, nanos % HOUR);
            format!(
                "{hours}h{}m{}s",
                rest / MINUTE,
                decimal(rest % MINUTE, SECOND)
            )
        }
    }
}

/// `nanos / unit` with the exact fraction, trailing zeros cut. The unit is a power of ten.
fn decimal(nanos: u64, unit: u64) -> String {
    let (whole, fraction) = (nanos / unit, nanos % unit);
    if fraction == 0 {
        return whole.to_string();
    }
    let width = unit.ilog10() as usize;
    let fraction = format!("{fraction:0width$}");
    format!("{whole}.{}", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_go_reads() {
        let cases: &[(&str, i64)] = &[
            ("0", 0),
            ("-0", 0),
            ("+0", 0),
            ("0s", 0),
            ("0h", 0),
            ("5s", 5_000_000_000),
            ("+5s", 5_000_000_000),
            ("-5s", -5_000_000_000),
            ("300ms", 300_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("5.s", 5_000_000_000),
            ("0.3s", 300_000_000),
            ("0.123456789s", 123_456_789),
            ("2h45m", 9_900_000_000_000),
            ("1h15m30.918273645s", 4_530_918_273_645),
            ("12us", 12_000),
            ("12µs", 12_000),
            ("12μs", 12_000),
            ("7ns", 7),
            ("1.9ns", 1),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
        ];
        for (text, nanos) in cases {
            assert_eq!(parse_nanos(text), Ok(*nanos), "{text}");
        }
    }

    #[test]
    fn rejects_what_go_rejects() {
        let cases = [
            "", "3", "-", "+", "s", ".", ".s", "1", "10", "1x", "1S", "1 s", " 1s", "1s ", "1e3s",
            "--1s", "1s-2s",
        ];
        for text in cases {
            assert_eq!(parse_nanos(text), Err(DurationError), "{text:?}");
        }
        for text in [
            "9223372036854775808ns",
            "9999999h",
            "99999999999999999999s",
            "-9223372036854775809ns",
        ] {
            assert_eq!(parse_nanos(text), Err(DurationError), "{text}");
        }
    }

    #[test]
    fn prints_as_go_prints() {
        let cases: &[(u64, &str)] = &[
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (334_866, "334.866µs"),
            (2_200_000, "2.2ms"),
            (50_000_000, "50ms"),
            (3_300_000_000, "3.3s"),
            (10_000_000_000, "10s"),
            (90_000_000_000, "1m30s"),
            (60_000_000_000, "1m0s"),
            (120_000_000_000, "2m0s"),
            (86_400_000_000_000, "24h0m0s"),
            (3_661_001_000_000, "1h1m1.001s"),
        ];
        for (nanos, text) in cases {
            assert_eq!(format(Duration::from_nanos(*nanos)), *text);
        }
    }

    #[test]
    fn a_negative_duration_counts_as_none() {
        assert_eq!(parse("-1s"), Ok(Duration::ZERO));
        assert_eq!(parse("1m"), Ok(Duration::from_secs(60)));
    }

    proptest! {
        #[test]
        fn whatever_is_printed_reads_back(nanos in 0..=i64::MAX.unsigned_abs()) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = parse_nanos(&text);
        }
    }
}
