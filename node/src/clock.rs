//! The only module of the node that reads the wall clock; also formats times. (`node-db` has its own reader
//! for SQL functions.)
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Go's zero time, which rqlite shows for what has not happened yet.
pub const NEVER: &str = "0001-01-01T00:00:00Z";

/// The wall clock's time. For durations use `Instant`.
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// Microseconds since the Unix epoch; 0 for a clock set before it.
pub fn unix_micros() -> u64 {
    now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX))
}

/// `2026-01-31T08:05:00.123456789Z`; trailing zeros of the fraction are omitted. [`NEVER`] for times that no
/// calendar has.
pub fn rfc3339(at: SystemTime) -> String {
    OffsetDateTime::from(at)
        .format(&Rfc3339)
        .unwrap_or_else(|_| NEVER.to_owned())
}

/// `20260131080500`, in UTC.
pub fn compact_utc(at: SystemTime) -> String {
    let at = OffsetDateTime::from(at);
    format!(
        "{:04}{:02}{:02}{:02}{:02}{:02}",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    )
}

/// [`rfc3339`] of microseconds since the Unix epoch; 0 is [`NEVER`].
pub fn rfc3339_of_micros(unix_micros: u64) -> String {
    match unix_micros {
        0 => NEVER.to_owned(),
        micros => UNIX_EPOCH
            .checked_add(Duration::from_micros(micros))
            .map_or_else(|| NEVER.to_owned(), rfc3339),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times() {
        let cases = [
            (0, 0, "1970-01-01T00:00:00Z"),
            (951_782_399, 0, "2000-02-28T23:59:59Z"),
            (951_782_400, 0, "2000-02-29T00:00:00Z"),
            (951_868_800, 500_000_000, "2000-03-01T00:00:00.5Z"),
            (1_700_000_000, 1, "2023-11-14T22:13:20.000000001Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00Z"),
        ];
        for (seconds, nanos, text) in cases {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::new(seconds, nanos)), text);
        }
        assert_eq!(rfc3339_of_micros(0), NEVER);
        assert_eq!(
            rfc3339_of_micros(951_782_400_000_001),
            "2000-02-29T00:00:00.000001Z"
        );
    }
}
