//! Sizes and durations in the form in which users write them: strings with a pattern, so that CEL can compare
//! them and `kubectl` shows them unchanged.
use std::{borrow::Cow, fmt, time::Duration};

use k8s_openapi::jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A malformed size or duration. Cannot come from an API server, which checks the pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidScalar(String);

impl fmt::Display for InvalidScalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidScalar {}

/// A number of bytes: a whole number with an optional unit (`Ki Mi Gi Ti Pi`, powers of 1024; `k M G T P`,
/// powers of 1000).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ByteSize(pub String);

impl ByteSize {
    /// The number of bytes.
    ///
    /// # Errors
    /// The text is malformed, or the size is above 2^63 bytes.
    pub fn bytes(&self) -> Result<u64, InvalidScalar> {
        let text = &self.0;
        let wrong = || {
            InvalidScalar(format!(
                "{text:?} is not a size: write a whole number and a unit, such as 10Gi"
            ))
        };
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let (base, power) = match unit {
            "" => (1, 0),
            "Ki" => (1024, 1),
            "Mi" => (1024, 2),
            "Gi" => (1024, 3),
            "Ti" => (1024, 4),
            "Pi" => (1024, 5),
            "k" => (1000, 1),
            "M" => (1000, 2),
            "G" => (1000, 3),
            "T" => (1000, 4),
            "P" => (1000, 5),
            _ => return Err(wrong()),
        };
        number
            .checked_mul(u64::pow(base, power))
            .filter(|bytes| *bytes <= 1 << 63)
            .ok_or_else(wrong)
    }
}

impl From<&str> for ByteSize {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for ByteSize {
    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[1-9][0-9]{0,14}(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$",
            "maxLength": 18
        })
    }
}

/// A duration: whole numbers with units `ms s m h`, such as `10s` or `1h30m`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Period(pub String);

impl Period {
    /// The duration.
    ///
    /// # Errors
    /// The text is malformed, or the duration is longer than a hundred years.
    pub fn duration(&self) -> Result<Duration, InvalidScalar> {
        let wrong = || {
            InvalidScalar(format!(
                "{:?} is not a duration: write whole numbers with units, such as 10s or 1h30m",
                self.0
            ))
        };
        let mut rest = self.0.as_str();
        let mut total_ms: u64 = 0;
        while !rest.is_empty() {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (number, tail) = rest.split_at(digits);
            let number: u64 = number.parse().map_err(|_| wrong())?;
            let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
            let (unit, ms) = units
                .into_iter()
                .find(|(unit, _)| tail.starts_with(unit))
                .ok_or_else(wrong)?;
            rest = tail.strip_prefix(unit).ok_or_else(wrong)?;
            total_ms = number
                .checked_mul(ms)
                .and_then(|part| total_ms.checked_add(part))
                .ok_or_else(wrong)?;
        }
        const CENTURY_MS: u64 = 100 * 366 * 24 * 3_600_000;
        if self.0.is_empty() || total_ms > CENTURY_MS {
            return Err(wrong());
        }
        Ok(Duration::from_millis(total_ms))
    }
}

impl From<&str> for Period {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for Period {
    fn schema_name() -> Cow<'static, str> {
        "Period".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^([0-9]{1,9}(ms|s|m|h))+$",
            "maxLength": 24
        })
    }
}

/// An age: as a [`Period`], also in days and weeks, such as `7d`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Span(pub String);

impl Span {
    /// The duration.
    ///
    /// # Errors
    /// The text is malformed, or the duration is longer than a hundred years.
    pub fn duration(&self) -> Result<Duration, InvalidScalar> {
        let wrong = || {
            InvalidScalar(format!(
                "{:?} is not an age: write whole numbers with units, such as 12h, 7d or 4w",
                self.0
            ))
        };
        let mut hours = String::new();
        let mut rest = self.0.as_str();
        while let Some(at) = rest.find(|c: char| !c.is_ascii_digit()) {
            let (number, tail) = rest.split_at(at);
            let days = match tail.chars().next() {
                Some('d') => Some(1),
                Some('w') => Some(7),
                _ => None,
            };
            let unit_length = tail
                .find(|c: char| c.is_ascii_digit())
                .unwrap_or(tail.len());
            let (unit, next) = tail.split_at(unit_length);
            match days.filter(|_| unit.len() == 1) {
                Some(days) => {
                    let count: u64 = number.parse().map_err(|_| wrong())?;
                    let total = count.checked_mul(days * 24).ok_or_else(wrong)?;
                    hours.push_str(&format!("{total}h"));
                }
                None => hours.extend([number, unit]),
            }
            rest = next;
        }
        hours.push_str(rest);
        Period(hours).duration().map_err(|_| wrong())
    }
}

impl From<&str> for Span {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^([0-9]{1,6}(s|m|h|d|w))+$",
            "maxLength": 24
        })
    }
}

/// A moment as RFC 3339 has it, such as `2026-11-29T08:00:00.5Z`. Kept as it was written: Kubernetes' own
/// type would drop parts of a second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(pub String);

impl Moment {
    /// The moment.
    ///
    /// # Errors
    /// The text is malformed.
    pub fn timestamp(&self) -> Result<Timestamp, InvalidScalar> {
        self.0.parse().map_err(|_| {
            InvalidScalar(format!(
                "{:?} is not a time: write it as 2026-11-29T08:00:00Z, with a zone",
                self.0
            ))
        })
    }
}

impl From<&str> for Moment {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for Moment {
    fn schema_name() -> Cow<'static, str> {
        "Moment".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "date-time",
            "maxLength": 40
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        let cases = [
            ("2026-11-29T08:00:00Z", true),
            ("2026-11-29T08:00:00.123456+01:00", true),
            ("2026-11-29T08:00:00", false),
            ("2026-11-29", false),
            ("yesterday", false),
            ("", false),
        ];
        for (text, good) in cases {
            assert_eq!(Moment::from(text).timestamp().is_ok(), good, "{text}");
        }
    }

    #[test]
    fn ages() {
        let day = 86_400;
        let cases = [
            ("7d", Some(7 * day)),
            ("2w", Some(14 * day)),
            ("1d12h", Some(day + day / 2)),
            ("168h", Some(7 * day)),
            ("30s", Some(30)),
            ("", None),
            ("7", None),
            ("7dd", None),
            ("d", None),
            ("1y", None),
            ("999999w", None),
        ];
        for (text, seconds) in cases {
            let got = Span::from(text).duration().ok();
            assert_eq!(got, seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn sizes() {
        let cases = [
            ("1", Some(1)),
            ("10Gi", Some(10 << 30)),
            ("1500M", Some(1_500_000_000)),
            ("2Ti", Some(2 << 40)),
            ("9000Pi", None),
            ("", None),
            ("Gi", None),
            ("1.5Gi", None),
            ("-1Gi", None),
            ("1gi", None),
            ("1Gi ", None),
        ];
        for (text, bytes) in cases {
            assert_eq!(ByteSize::from(text).bytes().ok(), bytes, "{text}");
        }
    }

    #[test]
    fn periods() {
        let cases = [
            ("10s", Some(10_000)),
            ("1h30m", Some(5_400_000)),
            ("250ms", Some(250)),
            ("0s", Some(0)),
            ("", None),
            ("10", None),
            ("1d", None),
            ("1.5s", None),
            ("s", None),
            ("9999999h", None),
        ];
        for (text, ms) in cases {
            let got = Period::from(text).duration().ok();
            assert_eq!(got, ms.map(Duration::from_millis), "{text}");
        }
    }
}
