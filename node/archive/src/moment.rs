//! A time in the archive: microseconds since the Unix epoch, written as RFC 3339.
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Microseconds since the Unix epoch. In JSON: RFC 3339 in UTC, or `<microseconds>us` where RFC 3339 has no
/// such year.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub i64);

impl Moment {
    /// Reads what a person wrote: RFC 3339, with any offset; digits beyond microseconds are cut off. Also
    /// reads what `Display` writes.
    ///
    /// # Errors
    /// The text is not such a time; the error shows the expected form.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(micros) = text.strip_suffix("us").and_then(|n| n.parse().ok()) {
            return Ok(Self(micros));
        }
        let at = OffsetDateTime::parse(text, &Rfc3339);
        let at = at.map_err(|e| {
            format!("{text:?} is not a time such as 2026-01-31T08:05:00Z or 2026-01-31T08:05:00.25+01:00: {e}")
        })?;
        let micros = at.unix_timestamp_nanos().div_euclid(1000);
        i64::try_from(micros)
            .map(Self)
            .map_err(|_| format!("{text:?} is out of range"))
    }

    /// The time so many seconds later.
    #[must_use]
    pub fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1_000_000)))
    }

    /// Whole seconds from `earlier` to this; negative if `earlier` is later.
    pub fn seconds_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0) / 1_000_000
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1000);
        match at.ok().and_then(|at| at.format(&Rfc3339).ok()) {
            Some(text) => f.write_str(&text),
            None => write!(f, "{}us", self.0),
        }
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::parse(&text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_and_read() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1, "1970-01-01T00:00:00.000001Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (951_782_400_500_000, "2000-02-29T00:00:00.5Z"),
            (i64::MAX, "9223372036854775807us"),
            (i64::MIN, "-9223372036854775808us"),
        ] {
            assert_eq!(Moment(micros).to_string(), text);
            assert_eq!(Moment::parse(text), Ok(Moment(micros)));
        }
        for (text, micros) in [
            ("1970-01-01T01:00:00.25+01:00", 250_000),
            ("1970-01-01T00:00:00.0000019Z", 1),
            ("1969-12-31T23:59:59.9999991Z", -1),
        ] {
            assert_eq!(Moment::parse(text), Ok(Moment(micros)), "{text}");
        }
        for text in [
            "",
            "now",
            "1970-01-01",
            "1970-01-01T00:00:00",
            "us",
            "1970-13-01T00:00:00Z",
        ] {
            assert!(Moment::parse(text).is_err(), "{text}");
        }
    }
}
